"""Which accelerator a guest has: found out by trying, within a time limit, once for each boot."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrbu.lab import accel
from openrbu.lab.accel import KVM, TCG, accelerator, boots
from openrbu.lab.programs import find_qemu
from rigs.archive import program
from rigs.lab import Lab

VMLINUZ = Path("vmlinuz")

_WORKS = "echo run >>{runs}; echo 'Kernel panic: VFS: Unable to mount root fs on unknown-block'"
_FAILS = "echo run >>{runs}; echo 'ioctl(KVM_CREATE_VM) failed' >&2; exit 1"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A line for each time that QEMU was started; on a machine with KVM, after a boot."""
    monkeypatch.setenv("OPENRBU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(accel, "_DEVICE", tmp_path / "kvm")
    monkeypatch.setattr(accel, "_BOOT_ID", tmp_path / "boot_id")
    (tmp_path / "kvm").touch()
    (tmp_path / "boot_id").write_text("boot-1\n")
    (tmp_path / "runs").touch()
    return tmp_path / "runs"


def qemu(runs: Path, text: str) -> Path:
    return program(runs.parent / "bin", "qemu", text.format(runs=runs))


def found(qemu: Path) -> tuple[str, list[str]]:
    lines: list[str] = []
    return accelerator(qemu, VMLINUZ, lines.append), lines


@pytest.mark.parametrize(("text", "expected"), [(_WORKS, KVM), (_FAILS, TCG)])
def test_kvm_is_tried_once_for_each_boot_of_the_computer(
    runs: Path, text: str, expected: str
) -> None:
    it = qemu(runs, text)
    assert found(it) == (expected, ["checking whether KVM works here (up to 10 s) …"])
    assert found(it) == (expected, [])
    assert runs.read_text() == "run\n"
    (runs.parent / "boot_id").write_text("boot-2\n")
    assert found(it)[0] == expected
    assert runs.read_text() == "run\nrun\n"


def test_without_a_device_that_can_be_used_nothing_is_tried(runs: Path) -> None:
    (runs.parent / "kvm").unlink()
    assert found(qemu(runs, _WORKS)) == (TCG, [])
    assert runs.read_text() == ""


def test_what_is_remembered_and_damaged_is_tried_again(runs: Path) -> None:
    it = qemu(runs, _WORKS)
    found(it)
    for text in ("", "boot-1", "boot-1 hvf\n", "boot-1 kvm more\n"):
        (runs.parent / "cache" / "accelerator").write_text(text)
        assert found(it)[0] == KVM
    assert runs.read_text() == "run\n" * 5


def test_a_cache_that_cant_be_written_to_does_not_matter(runs: Path) -> None:
    (runs.parent / "cache").write_text("a file\n")
    assert found(qemu(runs, _WORKS))[0] == KVM


def test_a_guest_that_hangs_is_given_up_after_the_time_limit(runs: Path) -> None:
    hangs = qemu(runs, "echo 'Probing EDD'; exec sleep 1000")
    assert not boots(hangs, VMLINUZ, KVM, limit_s=0.3)


@pytest.mark.lab
def test_a_real_kernel_boots_under_emulation(lab: Lab) -> None:
    assert boots(find_qemu(), lab.software.vmlinuz, TCG, limit_s=120)
    assert not boots(find_qemu(), Path(__file__), TCG, limit_s=120)
