"""Is the image for this machine: damage, the system, the version, and whether RBU is known to work
there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from openrbu.bios.rules import known_flash_size
from openrbu.errors import ExitCode
from openrbu.formats.dell import CompletionCode, describe_completion
from openrbu.formats.hdr import Image, SystemId
from openrbu.formats.systems import known_system, title_of
from openrbu.formats.version import BiosVersion, VersionStyle
from openrbu.units import human_size
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation
from openrbu.update.options import Options
from openrbu.update.target import A_VIRTUAL_ONE, Target, name_of

_check = partial(Check, Question.IMAGE)


def checks(seen: Situation) -> Iterator[Check]:
    """Whether the image is for this machine, in whichever mode it is staged."""
    found = list(image_checks(seen.image, seen.target, seen.options))
    yield from found
    if not any(each.is_in_the_way for each in found):
        yield _own_bios(seen)


def image_checks(image: Image, target: Target, options: Options) -> Iterator[Check]:
    """All but what the machine's own BIOS says of the image, where its code is known."""
    yield _check_words(image)
    yield from _system(image, target, options)
    yield from _revision(image, target)
    yield from _known_faults(target, options)
    yield from _version(image, target, options)
    yield from _package(target, options)
    yield from _rom_size(image, target)
    yield from _last_update(target)


def is_same_version(image: Image, target: Target) -> bool:
    """Whether the machine runs the image's version. (Two empty versions may differ: False.)"""
    version = image.header.version
    return bool(version.text) and target.version.same_as(version)


def _check_words(image: Image) -> Check:
    if image.damage is None:
        return _check("check_words", "the image is whole: both check words hold", Verdict.FINE)
    return _check(
        "check_words",
        image.damage,
        Verdict.IN_THE_WAY,
        obstacle="damaged_image",
        exit_code=ExitCode.DAMAGED_INPUT,
    )


def _system(image: Image, target: Target, options: Options) -> Iterator[Check]:
    """Whether the image names the machine's system and hardware revision."""
    kind, problem = _wrong_machine(image, target)
    if not problem:
        title = title_of(SystemId(target.system_id or 0))
        yield _check("system", f"the image is for {title}, which this machine is", Verdict.FINE)
    elif options.allow_any_system:
        yield _check(
            "system",
            problem,
            Verdict.UNKNOWN,
            "the BIOS refuses it, unless it does not check that",
        )
    else:
        yield _check(
            "system",
            problem,
            Verdict.IN_THE_WAY,
            obstacle=kind,
            exit_code=ExitCode.NOT_FOR_THIS_MACHINE,
        )


def _wrong_machine(image: Image, target: Target) -> tuple[str, str]:
    """Why the image is for another machine: the obstacle's name, and a text; both empty: it is for
    this one."""
    header, system_id, revision = image.header, target.system_id, target.hardware_revision
    if system_id is None:
        text = f"{target.title} shows no Dell system ID: no image is for it"
        if not target.is_dell:
            name = name_of(target.system.vendor, target.system.product)
            text = f"no Dell ({name}), and {text}; {A_VIRTUAL_ONE}"
        return "not_a_dell", text
    if not header.is_for(system_id):
        systems = ", ".join(map(title_of, header.systems)) or "no system"
        text = f"the image is for {systems}, not for {target.title} ({system_id:#06x})"
        return "wrong_system", text
    if revision is not None and not header.is_for(system_id, revision):
        listed = _revisions_text(_revisions_for(image, target))
        return "wrong_revision", (
            f"the image is for {listed} of this system, and {target.title} ({system_id:#06x}) has "
            f"revision {revision}"
        )
    return "", ""


def _revision(image: Image, target: Target) -> Iterator[Check]:
    """What is worth knowing of the hardware revision; nothing for the usual revision 0."""
    revisions, revision = _revisions_for(image, target), target.hardware_revision
    if not any(revisions):
        return
    of_this = f"the image is for {_revisions_text(revisions)} of this system"
    if revision is None:
        text = f"{of_this}; the revision of this machine can't be read here"
        yield _check("revision", text, Verdict.UNKNOWN)
    elif revision in revisions:
        yield _check("revision", f"{of_this}; this machine has revision {revision}", Verdict.FINE)


def _revisions_for(image: Image, target: Target) -> list[int]:
    """The hardware revisions of the machine's system that the image is for."""
    return sorted({each.revision for each in image.header.systems if each.id == target.system_id})


def _revisions_text(revisions: Sequence[int]) -> str:
    """`revision 1`, `revisions 0, 1`."""
    word = "revision" if len(revisions) == 1 else "revisions"
    return f"{word} {', '.join(map(str, revisions))}"


def _known_faults(target: Target, options: Options) -> Iterator[Check]:
    """What is known against RBU on this system."""
    if target.system_id is None:
        return
    known = known_system(target.system_id)
    title = title_of(SystemId(known.id))
    if not known.is_broken:
        if known.what:
            text = f"known about {title}: {known.what}"
            yield _check("known_faults", text, Verdict.UNKNOWN)
        return
    text = f"RBU is known to be broken on {title}: {known.what}"
    if options.allow_known_broken:
        yield _check("known_faults", text, Verdict.UNKNOWN)
    else:
        yield _check(
            "known_faults",
            f"{text} (--allow-known-broken ignores this)",
            Verdict.IN_THE_WAY,
            obstacle="rbu_known_broken",
        )


def _version(image: Image, target: Target, options: Options) -> Iterator[Check]:
    """Whether the version is an update, and whether the machine's is new enough for it."""
    new, current = image.header.version, target.version
    kind, problem = _wrong_version(new, current)
    if is_same_version(image, target):
        yield _check("version", f"this machine runs {current.text} already", Verdict.FINE)
    elif not problem:
        yield _check("version", f"{new.text} is newer than {current.text}", Verdict.FINE)
    elif _is_by_policy(new, target, options):
        yield _check("version", problem, Verdict.HANDLED, "the policy names this step")
    elif options.allow_downgrade:
        yield _check("version", problem, Verdict.HANDLED, "--allow-downgrade installs it")
    else:
        text = f"{problem} (--allow-downgrade installs it)"
        yield _check("version", text, Verdict.IN_THE_WAY, obstacle=kind)
    minimum = options.minimum_version
    if minimum is not None and minimum.is_newer_than(current):
        yield _check(
            "minimum_version",
            f"the package is for machines that run {minimum.text} or newer, and this one runs "
            f"{target.bios.version}",
            Verdict.IN_THE_WAY,
            "install that version first",
            obstacle="below_minimum_version",
        )


def _is_by_policy(new: BiosVersion, target: Target, options: Options) -> bool:
    """Whether the operator's policy has it that the machine installs this version next."""
    if options.policy is None:
        return False
    from openrbu.policy.deciding import names_step  # noqa: PLC0415  (start-up time)

    return names_step(options.policy, target.system_id, target.version, new)


def _wrong_version(new: BiosVersion, current: BiosVersion) -> tuple[str, str]:
    """Why the version is not an update: the obstacle's name, and a text; both empty: it is one."""
    unclear = [
        f"{whose} version '{version.text}' can't be read"
        if version.text
        else f"{whose} version is empty"
        for whose, version in (("the image's", new), ("this machine's", current))
        if version.style is VersionStyle.UNREADABLE
    ]
    if unclear:
        return "unclear_age", f"the age is not clear: {' and '.join(unclear)}"
    if new.is_special and not current.is_special:
        text = f"{new.text} is a special build: it never counts as newer than {current.text}"
        return "downgrade", text
    if new.is_newer_than(current):
        return "", ""
    return "downgrade", f"{new.text} is not newer than {current.text}, which this machine runs"


def _package(target: Target, options: Options) -> Iterator[Check]:
    """What the image's package says."""
    systems = options.package_systems
    if systems and target.system_id is not None and target.system_id not in systems:
        text = f"the package's own list of systems does not include {target.system_id:#06x}"
        yield _check("package_systems", text, Verdict.UNKNOWN)
    for note in options.package_notes:
        yield _check("package", note, Verdict.UNKNOWN)


def _rom_size(image: Image, target: Target) -> Iterator[Check]:
    """Whether the image has the size that SMBIOS says of the ROM."""
    size, rom = image.flash_size_bytes, target.flash_size_bytes
    is_known = known_flash_size(target.tables) is not None
    if image.is_whole and not is_known and rom is not None and size != rom:
        yield _check(
            "rom_size",
            f"the image has {human_size(size)} ({size} bytes) for the flash, and SMBIOS says that "
            f"this machine's ROM has {human_size(rom)} ({rom} bytes)",
            Verdict.UNKNOWN,
            "SMBIOS is often wrong there; a BIOS whose flash is of another size refuses the image "
            "and changes nothing",
        )


def _last_update(target: Target) -> Iterator[Check]:
    """What the BIOS says of the update before."""
    if target.rbu is None:
        return
    code, text = target.rbu.completion_code, describe_completion(target.rbu.completion_code)
    if code in (CompletionCode.COMPLETED, CompletionCode.NEVER_TRIED):
        yield _check("last_update", f"the last update: {text}", Verdict.FINE)
    else:
        yield _check("last_update", f"the last update failed: {text}", Verdict.UNKNOWN)


def _own_bios(seen: Situation) -> Check:
    """Whether a BIOS that could be the machine's takes the image at all."""
    names = ", ".join(seen.bioses.names)
    if not seen.bioses.refusal:
        text = f"a BIOS with the rules {names} takes such an image"
        return _check("bios_rules", text, Verdict.FINE)
    return _check(
        "bios_rules",
        f"the BIOS of {seen.target.title} (rule set {names}) does not take this image: "
        f"{seen.bioses.refusal}",
        Verdict.IN_THE_WAY,
        obstacle="bios_refuses",
        exit_code=ExitCode.NOT_FOR_THIS_MACHINE,
    )
