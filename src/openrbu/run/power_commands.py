"""reboot, poweroff, halt, shutdown, init, systemctl and kexec on a virtual machine.

Options are those of systemd's commands and of sysvinit's, as their manual pages list them: reboot,
halt, shutdown, telinit (8) and systemctl (1); and of kexec(8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from openrbu.errors import MachineError
from openrbu.run.power import PowerAction, PowerWish, has_kexec
from openrbu.run.said import PowerCommand, Said, UnknownOptionError, failed

_OF_HALT: Mapping[str, PowerAction] = MappingProxyType(
    {
        "halt": PowerAction.HALT,
        "poweroff": PowerAction.POWER_OFF,
        "reboot": PowerAction.RESTART,
    }
)

_OF_UNITS: Mapping[str, PowerAction] = MappingProxyType(
    {
        "ctrl-alt-del.target": PowerAction.RESTART,
        "halt.target": PowerAction.HALT,
        "kexec.target": PowerAction.KEXEC,
        "poweroff.target": PowerAction.POWER_OFF,
        "reboot.target": PowerAction.RESTART,
        "runlevel0.target": PowerAction.POWER_OFF,
        "runlevel6.target": PowerAction.RESTART,
    }
)

_NOW = ("now", "+0", "0")


def halt(command: PowerCommand) -> Said:
    """reboot(8), halt(8) and poweroff(8)."""
    long = (
        "help", "halt", "poweroff", "reboot", "force", "wtmp-only", "no-wtmp", "no-sync", "no-wall",
        "boot-loader-entry=", "firmware-setup",
    )  # fmt: skip
    try:
        options, _ = command.options("hpfwdnik", long)
    except UnknownOptionError as error:
        return failed(str(error))
    given = [name for name, _ in options]
    if "--help" in given:
        return Said(out=(f"{command.name} [-f] [-p] [--halt|--poweroff|--reboot]",))
    if "-w" in given or "--wtmp-only" in given:
        return Said()
    action = _OF_HALT[command.name]
    if "--halt" in given:
        action = PowerAction.HALT
    if "--poweroff" in given or ("-p" in given and command.name != "reboot"):
        action = PowerAction.POWER_OFF
    if "--reboot" in given:
        action = PowerAction.RESTART
    forced = given.count("-f") + given.count("--force")
    return _ask(command, _of(command, action, forced))


def shutdown(command: PowerCommand) -> Said:
    """shutdown(8). What is for later happens when the program has ended."""
    long = ("help", "halt", "poweroff", "reboot", "no-wall", "show")
    try:
        options, words = command.options("hHPrkcfFnat:", long)
    except UnknownOptionError as error:
        return failed(str(error))
    given = {name for name, _ in options}
    if "--help" in given:
        return Said(out=("shutdown [-r|-h|-P|-H|-c] [TIME] [MESSAGE…]",))
    if "-c" in given:
        command.switch.cancel()
        return Said()
    if given & {"-k", "--show"}:
        return Said()
    action = PowerAction.POWER_OFF
    if given & {"-H", "--halt"}:
        action = PowerAction.HALT
    if given & {"-r", "--reboot"}:
        action = PowerAction.RESTART
    time = words[0] if words else "+1"
    return _ask(command, _of(command, action)) if time in _NOW else _schedule(command, action, time)


def _schedule(command: PowerCommand, action: PowerAction, time: str) -> Said:
    if not command.is_root:
        return _not_root(command)
    command.switch.ask(PowerWish(action, is_scheduled=True))
    return failed(
        f"shutdown: {action.value} at {time}: rbu run does it when the program has ended, without "
        "waiting; 'shutdown -c' cancels it",
        status=0,
    )


def init(command: PowerCommand) -> Said:
    """telinit(8), to the runlevels that end a machine."""
    levels = {"0": PowerAction.POWER_OFF, "6": PowerAction.RESTART}
    words = [word for word in command.words if not word.startswith("-")]
    if not words or words[0] not in levels:
        return failed(
            f"{command.name}: the virtual machine {command.machine.name} has no init system: only "
            "0 (power off) and 6 (restart) are known"
        )
    return _ask(command, _of(command, levels[words[0]]))


def systemctl(command: PowerCommand) -> Said:
    """systemctl(1), for the machine's power alone."""
    action, forced = _action_of(command.words)
    if action is None:
        return failed(
            f"systemctl: the virtual machine {command.machine.name} runs no systemd; known are: "
            "systemctl reboot|poweroff|halt|kexec"
        )
    if action is PowerAction.KEXEC:
        return _kexec(command)
    return _ask(command, _of(command, action, forced))


def _action_of(words: Sequence[str]) -> tuple[PowerAction | None, int]:
    """What `systemctl` is called for, and how often with `--force`."""
    plain = [word for word in words if not word.startswith("-")]
    forced = sum(word in ("-f", "--force") for word in words) + 2 * ("-ff" in words)
    verb = plain[0] if plain else ""
    verbs = {**_OF_HALT, "kexec": PowerAction.KEXEC}
    if verb in ("start", "isolate") and len(plain) > 1:
        return _OF_UNITS.get(plain[1]), forced
    return verbs.get(verb), forced


def kexec(command: PowerCommand) -> Said:
    """kexec(8): `-l` loads a kernel, `-u` unloads it, `-e` starts it. It is always the machine's
    own kernel: the file is not read."""
    given = {word for word in command.words if word.startswith("-")}
    if not command.is_root:
        return _not_root(command)
    if given & {"-p", "--load-panic", "-S", "--status", "-v", "--version", "-h", "--help"}:
        return failed("kexec: on a virtual machine only -l, -u, -e and -f are known")
    if not given & {"-e", "--exec"}:
        unloads = bool(given & {"-u", "--unload"})
        try:
            command.machine.load_kexec(is_loaded=not unloads)
        except MachineError as error:
            return failed(f"kexec: {error}")
        if unloads or not given & {"-f", "--force"}:
            return Said()
    return _kexec(command)


def _kexec(command: PowerCommand) -> Said:
    if not has_kexec(command.machine):
        return failed("Nothing has been loaded!")
    return _ask(command, PowerWish(PowerAction.KEXEC, at_once=command.name == "kexec"))


def _of(command: PowerCommand, action: PowerAction, forced: int = 0) -> PowerWish:
    """What systemd makes of it: a restart that nobody forces goes to a kernel that is loaded."""
    if action is PowerAction.RESTART and has_kexec(command.machine) and not forced:
        action = PowerAction.KEXEC
    return PowerWish(action, at_once=forced > 1)


def _ask(command: PowerCommand, wish: PowerWish) -> Said:
    """Have it done. The command does not return: what comes after it does not run."""
    if not command.is_root:
        return _not_root(command)
    command.switch.ask(wish)
    return Said(waits=True)


def _not_root(command: PowerCommand) -> Said:
    return failed(f"{command.name}: must be superuser.")
