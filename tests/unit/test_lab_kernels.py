"""Kernels for the lab: of other suites of the archive, by their packages' names, and from files."""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

import pytest

from openrbu.cli.options import complete_kernels
from openrbu.errors import ObstacleError, UsageError
from openrbu.lab import packages
from openrbu.lab.apt import Apt, FetchError
from openrbu.lab.bzimage import release_of
from openrbu.lab.check import Need, State, check
from openrbu.lab.kernels import (
    DEFAULT_KERNEL,
    Kernel,
    KernelChoice,
    KernelFile,
    KernelPackage,
    kernel_choice,
)
from openrbu.lab.packages import GuestSoftware, get_guest_software
from openrbu.lab.suites import debian_archive
from rigs.archive import KERNEL, RELEASE, Archive, vmlinuz
from rigs.cli import Cli, names_in

NEW_RELEASE = "9.10.0+deb99-amd64"
NEW_KERNEL = f"linux-image-{NEW_RELEASE}"
NEWER = KernelPackage("linux-image-amd64", "newer")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENRBU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Archive:
    """Debian's archive: a suite that apt is configured for, and `newer`, as Debian 13 is: merged
    into usr, with compressed modules, and with a part of the kernel that was a module before."""
    for module in (packages, check.__globals__):
        if isinstance(module, dict):
            monkeypatch.setitem(module, "INSTALLED_SEABIOS", tmp_path / "none")
        else:
            monkeypatch.setattr(module, "INSTALLED_SEABIOS", tmp_path / "none")
    archive = Archive(tmp_path, monkeypatch)
    archive.fill()
    place = f"usr/lib/modules/{NEW_RELEASE}"
    files = {
        f"{place}/kernel/{name}.ko.xz": lzma.compress(b"module")
        for name in ("9p", "9pnet_virtio", "overlay")
    }
    built_in = {f"{place}/modules.builtin": b"kernel/drivers/char/virtio_console.ko\n"}
    new = {f"boot/vmlinuz-{NEW_RELEASE}": vmlinuz(NEW_RELEASE), **files, **built_in}
    archive.add(NEW_KERNEL, "9.10.1-1", new, suite="newer")
    depends = f"Depends: {NEW_KERNEL} (= 9.10.1-1)\n"
    archive.add("linux-image-amd64", "9.10.1-1", {}, depends, suite="newer")
    archive.be_debians()
    return archive


def software_and_lines(choice: KernelChoice) -> tuple[GuestSoftware, list[str]]:
    lines: list[str] = []
    return get_guest_software(lines.append, choice), lines


def refusal(choice: KernelChoice) -> str:
    with pytest.raises(ObstacleError) as caught:
        get_guest_software(lambda _: None, choice)
    text = str(caught.value)
    assert "\n" not in text
    return text


def kernel_need(choice: KernelChoice) -> Need:
    (need,) = [each for each in check(lambda _: None, choice) if each.name == "kernel"]
    return need


# -- of the archive -------------------------------------------------------------------------


@pytest.mark.usefixtures("archive")
def test_a_kernel_of_another_suite_is_fetched_and_lies_beside_the_default_one(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    default, _ = software_and_lines(DEFAULT_KERNEL)
    newer, lines = software_and_lines(NEWER)
    assert [line.split(" (")[0] for line in lines] == [
        "fetching the lists of Debian's suite newer …",
        f"fetching {NEW_KERNEL} 9.10.1-1",
        f"making an initramfs for {NEW_KERNEL}_9.10.1-1",
    ]
    assert (default.release, newer.release) == (RELEASE, NEW_RELEASE)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert software_and_lines(NEWER) == (newer, [])
    assert software_and_lines(DEFAULT_KERNEL) == (default, [])
    assert len(names_in(cache / "initramfs")) == 2


@pytest.mark.usefixtures("archive", "cache")
def test_modules_are_found_in_usr_compressed_and_built_in() -> None:
    software, _ = software_and_lines(NEWER)
    kernel = software.kernel
    assert [file.name for file in kernel.files_of("overlay")] == ["overlay.ko.xz"]
    assert kernel.files_of("overlay")[0].is_relative_to(software.modules)
    assert kernel.files_of("virtio_console") == ()
    assert b"modules/9p.ko.xz" in software.initramfs.read_bytes()


def test_a_module_can_be_left_out_but_not_what_a_guest_needs_or_what_is_built_in(
    tmp_path: Path,
) -> None:
    modules = tmp_path / "9.9.0"
    modules.mkdir()
    (modules / "modules.dep").write_text("kernel/dell/dell_rbu.ko.xz:\nkernel/fs/overlay.ko:\n")
    (modules / "modules.builtin").write_text("kernel/drivers/char/nvram.ko\n")
    kernel = Kernel("named", tmp_path / "vmlinuz", modules)
    file = modules / "kernel/dell/dell_rbu.ko.xz"
    assert kernel.file_to_leave_out("dell-rbu") == kernel.file_to_leave_out("dell_rbu") == file
    assert kernel.file_to_leave_out("dcdbas") is None, "it has none"
    with pytest.raises(UsageError, match="no guest starts without the module overlay"):
        kernel.file_to_leave_out("overlay")
    with pytest.raises(ObstacleError, match="nvram is built into the kernel"):
        kernel.file_to_leave_out("nvram")


@pytest.mark.usefixtures("archive", "cache")
def test_what_this_computers_apt_knows_stays_as_it_is() -> None:
    software_and_lines(NEWER)
    assert Apt().find_packages(["linux-image-amd64"])["linux-image-amd64"].version == "9.9.1-1"
    with pytest.raises(FetchError, match="apt does not know"):
        Apt().find_packages([NEW_KERNEL])


@pytest.mark.usefixtures("cache")
def test_a_kernel_is_fetched_by_the_name_of_its_own_package(archive: Archive) -> None:
    other = {path: vmlinuz("9.8.0-1-rt") for path in ("boot/vmlinuz-9.8.0-1-rt",)}
    modules = {
        f"lib/modules/9.8.0-1-rt/kernel/{name}.ko": b"module"
        for name in ("9p", "9pnet_virtio", "overlay", "virtio_console")
    }
    archive.add("linux-image-9.8.0-1-rt", "9.8.1-1", {**other, **modules})
    archive.be_debians()
    software, _ = software_and_lines(KernelPackage("linux-image-9.8.0-1-rt"))
    assert software.release == "9.8.0-1-rt"


def test_a_package_that_has_no_kernel_is_told_and_not_kept(archive: Archive, cache: Path) -> None:
    archive.add("linux-image-9.7.0-dbg", "9.7-1", {"usr/lib/debug/vmlinux": b"x"})
    archive.be_debians()
    text = refusal(KernelPackage("linux-image-9.7.0-dbg"))
    assert text == "the package linux-image-9.7.0-dbg has no kernel with modules"
    assert refusal(KernelPackage("kmod")).startswith("apt's package kmod does not depend on linux-")
    assert not (cache / "kernels").exists()


@pytest.mark.usefixtures("archive", "cache")
def test_a_suite_that_the_archive_does_not_have_is_told() -> None:
    text = refusal(KernelPackage("linux-image-amd64", "older"))
    assert text.startswith("the lists of Debian's suite older can't be fetched: ")


@pytest.mark.usefixtures("cache")
def test_where_apt_is_not_debians_there_are_no_other_suites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Archive(tmp_path, monkeypatch).fill()
    assert refusal(NEWER).startswith("apt knows no source that is Debian's archive")
    assert kernel_need(NEWER).state is State.MISSING


def test_debians_archive_is_where_apt_has_it(archive: Archive) -> None:
    assert debian_archive().startswith(f"file:{archive.directory}")


@pytest.mark.usefixtures("archive")
def test_check_tells_of_the_kernel_that_is_named() -> None:
    need = kernel_need(NEWER)
    text = "linux-image-amd64/newer, as Debian's archive has it then"
    assert (need.state, need.text) == (State.TO_FETCH, text)
    software, _ = software_and_lines(NEWER)
    need = kernel_need(NEWER)
    assert (need.state, need.text) == (State.HERE, str(software.vmlinuz.parent.parent))
    need = kernel_need(DEFAULT_KERNEL)
    assert need.state is State.TO_FETCH
    assert need.text.startswith(f"{KERNEL} 9.9.1-1 (")
    shutil.rmtree(software.vmlinuz.parent.parent)
    assert kernel_need(NEWER).text.startswith(f"{NEW_KERNEL} 9.10.1-1 (")
    assert kernel_need(KernelPackage("linux-image-none")).state is State.MISSING


# -- files ----------------------------------------------------------------------------------


@pytest.fixture
def own_kernel(tmp_path: Path) -> KernelFile:
    """A kernel that a user has built."""
    modules = tmp_path / "built" / "lib" / "modules" / "9.11.0-mine"
    (modules / "kernel").mkdir(parents=True)
    lines = []
    for name in ("9p", "9pnet_virtio", "overlay", "virtio_console"):
        (modules / "kernel" / f"{name}.ko").write_bytes(b"module")
        lines.append(f"kernel/{name}.ko:\n")
    (modules / "modules.dep").write_text("".join(lines))
    file = tmp_path / "built" / "vmlinuz-mine"
    file.write_bytes(vmlinuz("9.11.0-mine"))
    return KernelFile(file, modules)


@pytest.mark.usefixtures("archive")
def test_a_kernel_in_a_file_is_started_as_it_is_and_nothing_is_written_beside_it(
    own_kernel: KernelFile, cache: Path
) -> None:
    before = names_in(own_kernel.vmlinuz.parent)
    software, _ = software_and_lines(own_kernel)
    assert (software.release, software.image) == ("9.11.0-mine", own_kernel.vmlinuz)
    assert b"modules/virtio_console.ko" in software.initramfs.read_bytes()
    assert names_in(own_kernel.vmlinuz.parent) == before
    assert not any(name.startswith("linux-image") for name in names_in(cache / "packages"))
    assert kernel_need(own_kernel).state is State.HERE

    assert software_and_lines(own_kernel) == (software, [])
    (own_kernel.modules or Path()).joinpath("modules.dep").touch()  # it was built again
    again, _ = software_and_lines(own_kernel)
    assert again.initramfs != software.initramfs


def test_a_kernel_that_can_not_be_a_guests_is_told(own_kernel: KernelFile, tmp_path: Path) -> None:
    file, modules = own_kernel.vmlinuz, own_kernel.modules
    assert modules is not None
    text = "/lib/modules/9.11.0-mine has no modules.dep for the kernel 9.11.0-mine: --modules"
    assert refusal(KernelFile(file)).startswith(text)
    other = modules.rename(modules.with_name("9.11.1"))
    text = f"the kernel is 9.11.0-mine, and {other} has modules for another"
    assert refusal(KernelFile(file, other)) == text
    assert kernel_need(KernelFile(file, other)).text == text
    other.rename(modules)
    (modules / "modules.dep").write_text("kernel/9p.ko:\n")
    text = "no guest starts with the kernel 9.11.0-mine: it has no module 9pnet_virtio"
    assert refusal(own_kernel) == text
    file.write_bytes(b"no kernel")
    assert refusal(own_kernel) == f"{file} is not a kernel for x86 (a bzImage)"


def test_the_release_is_in_the_kernels_file(tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    for data, release in (
        (vmlinuz("6.9.1-x"), "6.9.1-x"),
        (vmlinuz("6.9.1-x")[:0x600], None),
        (b"", None),
    ):
        path.write_bytes(data)
        assert release_of(path) == release


# -- options --------------------------------------------------------------------------------


def test_options_name_a_package_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("kernel").touch()
    assert kernel_choice(None, None) == DEFAULT_KERNEL
    assert kernel_choice("linux-image-amd64/trixie", None) == KernelPackage(
        "linux-image-amd64", "trixie"
    )
    assert kernel_choice("linux-image-6.12.95+deb12-amd64", None) == KernelPackage(
        "linux-image-6.12.95+deb12-amd64"
    )
    assert kernel_choice("kernel", Path("m")) == KernelFile(tmp_path / "kernel", tmp_path / "m")


def test_completion_names_packages_those_in_the_cache_and_files(
    cache: Path, tmp_path: Path
) -> None:
    (cache / "kernels" / "linux-image-rt-amd64@newer").mkdir(parents=True)
    assert complete_kernels("linux-image-r") == ["linux-image-rt-amd64/newer"]
    assert "linux-image-amd64/trixie" in complete_kernels("linux-image-amd64")
    (tmp_path / "vmlinuz-mine").touch()
    assert complete_kernels(f"{tmp_path}/vml") == [f"{tmp_path}/vmlinuz-mine"]
    assert complete_kernels(f"{tmp_path}/nothing/") == []


@pytest.mark.parametrize("text", ["./none", "/boot/vmlinuz-none", "a/b/c", "x", "linux/", "../x/y"])
def test_what_is_neither_is_refused_in_one_line(rbu: Cli, text: str) -> None:
    for command in (["check"], ["shell"], ["update", "new.hdr"]):
        said = rbu.fails(2, "lab", *command, "--kernel", text)
        assert said.startswith(f"rbu: {text} is neither a kernel's file nor a package")
        assert said.count("\n") == 1


def test_modules_without_a_kernels_file_are_refused() -> None:
    for text in (None, "linux-image-amd64"):
        with pytest.raises(UsageError, match="--kernel FILE"):
            kernel_choice(text, Path("m"))
