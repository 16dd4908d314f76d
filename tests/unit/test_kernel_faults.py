"""Faults of a kernel: what a program finds, and what it can't do."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import pytest

from openrbu.errors import KernelError, MachineError, ObstacleError, UsageError
from openrbu.hosts.base import read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.linux.firmware_class import CLASS, read_firmware_class
from openrbu.linux.modules import read_module
from openrbu.linux.reboot import KEXEC_LOADED
from openrbu.machine.config import load_config
from openrbu.machine.faults import EITHER_OR
from rigs.machines import DEVICE, ENTRY, image, make, running, update

MODULE = "/sys/module/dell_rbu"


def test_a_kernel_without_the_module_does_not_load_it(tmp_path: Path) -> None:
    with running(make(tmp_path, "precision-t7600", faults=("no-module",))) as machine:
        host = VirtualHost(machine)
        with pytest.raises(KernelError) as raised:
            machine.load_module("dell_rbu", {})
        assert raised.value.errno == errno.ENOENT
        with pytest.raises(ObstacleError, match="dell_rbu can't be loaded: No such file"):
            host.load_module("dell_rbu", {})
        machine.load_module("dcdbas", {})
        module = read_module(host, "dell_rbu")
        assert (module.is_present, module.file) == (False, None)
        assert module.directory == f"/lib/modules/{module.release}"


def test_a_driver_that_is_built_in_is_there_and_stays(tmp_path: Path) -> None:
    """It has the files that a built-in driver has, with nothing of a module."""
    directory = make(tmp_path, faults=("built-in",), profile="linux")
    for _ in range(2):  # a new machine, and one that goes on
        with running(directory) as machine:
            host = VirtualHost(machine)
            assert host.names(MODULE) == ["parameters", "uevent", "version"]
            assert "dell_rbu" not in read_text(host, "/proc/modules")
            machine.load_module("dell_rbu", {"image_type": "packet"})  # modprobe says nothing
            assert read_text(host, f"{DEVICE}/image_type") == "mono"
            with pytest.raises(KernelError, match="is built in") as raised:
                machine.unload_module("dell_rbu")
            assert raised.value.errno == errno.ENOENT
    with running(directory) as machine:
        update(VirtualHost(machine), image())
        assert machine.restart().version_after == "2.3.0"
        assert VirtualHost(machine).exists(DEVICE)


def test_a_kernel_without_the_fallback_takes_an_image_as_a_file_alone(tmp_path: Path) -> None:
    directory = make(tmp_path, faults=("no-firmware-entry",), profile="linux")
    with running(directory) as machine:
        host = VirtualHost(machine)
        machine.load_module("dell_rbu", {})
        host.write(f"{DEVICE}/image_type", b"init")
        assert not host.exists(CLASS)
        assert not host.exists(ENTRY)
        assert not host.exists("/proc/sys/kernel/firmware_config")
        assert not read_firmware_class(host, "dell_rbu").has_fallback
        host.make_file("/lib/firmware/dell_rbu")
        host.write("/lib/firmware/dell_rbu", b"image")
        host.write(f"{DEVICE}/image_type", b"init")
        assert next(host.chunks(f"{DEVICE}/data", 4096)) == b"image"


@pytest.mark.parametrize(
    ("level", "closed"),
    [
        ("integrity", {"/dev/mem", "/dev/port"}),
        ("confidentiality", {"/dev/mem", "/dev/port", "/proc/kcore"}),
    ],
)
def test_lockdown_closes_files_and_an_update_goes_on(
    tmp_path: Path, level: str, closed: set[str]
) -> None:
    with running(make(tmp_path, faults=(f"lockdown-{level}",))) as machine:
        host = VirtualHost(machine)
        for path in ("/dev/mem", "/dev/port", "/proc/kcore"):
            refused = pytest.raises(KernelError, match="not permitted")
            with refused if path in closed else contextlib.nullcontext():
                machine.open(path, reading=True).close()
        outcome = update(host, image())
        assert (outcome.verified.extents is None) == (level == "confidentiality")
        assert machine.restart().version_after == "2.3.0"


@pytest.mark.parametrize("level", ["integrity", "confidentiality"])
def test_lockdown_is_a_word_of_the_command_line(tmp_path: Path, level: str) -> None:
    directory = make(tmp_path, faults=(f"lockdown-{level}",), kernel_words="reboot=w")
    assert load_config(directory).kernel_words == f"reboot=w lockdown={level}"


def test_a_loaded_kernel_is_shown_until_it_runs(tmp_path: Path) -> None:
    directory = make(tmp_path, faults=("kexec-loaded",))
    with running(directory) as machine:
        assert read_text(VirtualHost(machine), KEXEC_LOADED) == "1"
        machine.kexec()
        assert read_text(VirtualHost(machine), KEXEC_LOADED) == "0"
    with running(directory) as machine:
        assert read_text(VirtualHost(machine), KEXEC_LOADED) == "0"
        machine.restart()
        assert read_text(VirtualHost(machine), KEXEC_LOADED) == "1"
        machine.load_kexec(is_loaded=False)
    with running(directory) as machine:  # it stays unloaded until the next start
        assert read_text(VirtualHost(machine), KEXEC_LOADED) == "0"


@pytest.mark.parametrize(("one", "other"), [pair[:2] for pair in EITHER_OR])
def test_what_no_machine_can_be_is_refused_in_one_line(
    tmp_path: Path, one: object, other: object
) -> None:
    labels = tuple(kind.name for kind in (one, other))  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=f"{labels[0]} and {labels[1]} can't be together: "):
        make(tmp_path, faults=labels)


def test_such_a_machine_is_not_read_either(tmp_path: Path) -> None:
    directory = make(tmp_path, faults=("built-in",))
    path = directory / "machine.json"
    path.write_text(path.read_text().replace('"built-in"', '"built-in", "no-module"'))
    with pytest.raises(MachineError, match="can't be together"):
        load_config(directory)
