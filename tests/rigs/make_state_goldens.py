"""Makes the machines, in every shape that their state can have, that later versions must read.

    cd tests && python -m rigs.make_state_goldens OUT RBU...

OUT is `tests/data/states/VERSION`, RBU the command that runs the version that is kept: it is used
as a program only, so that this file can make the machines of any version. When a format is raised,
VERSION is `format-N` until the release. What the formats are is taken from the openrbu that Python
imports.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rigs.packed_machine import pack
from rigs.state_schema import sections, to_text

PROFILES = (
    "documented",
    "linux",
    "linux-2.6.16",
    "linux-5.7",
    "linux-6.16",
)
DEVICE = "/sys/devices/platform/dell_rbu"
ENTRY = "/sys/class/firmware/dell_rbu"
BALLOON = "/sys/devices/system/xen_memory/xen_memory0"


class Maker:
    """Runs `rbu` in a home of its own, and has images to update with."""

    def __init__(self, rbu: list[str], home: Path) -> None:
        self._rbu, self.home = rbu, home
        self._environment = {**os.environ, "OPENRBU_HOME": str(home)}
        self.mono = self._image("A06", "0x0121", 512)
        self.packets = self._image("2.3.0", "0x01DE", 1024)
        self.smi = self._image("A02", "0x0495", 1024)

    def __call__(self, *words: object, codes: tuple[int, ...] = (0,)) -> str:
        """Run a command; what it says."""
        command = [*self._rbu, *map(str, words)]
        ended = subprocess.run(
            command, env=self._environment, check=False, capture_output=True, text=True
        )
        if ended.returncode not in codes:
            raise SystemExit(f"{' '.join(command)}: {ended.returncode}\n{ended.stderr}")
        return ended.stdout

    def shell(self, name: str, script: str) -> None:
        """Run a shell script on a machine."""
        self("run", "--machine", name, "--", "sh", "-e", "-c", script)

    def new(self, name: str, *options: object, model: str = "precision-390") -> None:
        self("machine", "new", name, "--model", model, "--ram", "64M", *options)

    def _image(self, version: str, system: str, size_kib: int) -> Path:
        data, image = self.home / f"{version}.bin", self.home / f"{version}.hdr"
        data.write_bytes(version.encode().ljust(512, b"\xff") * (size_kib * 2))
        self("build", data, "-o", image, "--bios-version", version, "--system", system)
        return image


def _off(make: Maker, name: str) -> None:
    make.new(name)
    make("machine", "off", name)


def _idle(make: Maker, name: str) -> None:
    make.new(name)


def _armed_by_packets(make: Maker, name: str) -> None:
    make.new(name)
    make("update", make.packets, "--machine", name, "--mode", "packet")


def _armed_by_one_block(make: Maker, name: str) -> None:
    make.new(name, model="poweredge-2650")
    make("update", make.mono, "--machine", name)


def _armed_by_smi(make: Maker, name: str) -> None:
    make.new(name, "--flash-size", "1M", model="precision-t7600")
    make("update", make.smi, "--machine", name)


def _staged_not_armed(make: Maker, name: str) -> None:
    make.new(name)
    make("module", "load", "dell_rbu", "image_type=packet", "--machine", name)
    make("packets", make.packets, "-o", make.home / f"{name}.packets")
    _stage(make, name, f"cat {make.home}/{name}.packets")


def _stage(make: Maker, name: str, source: str, end: str = f"echo 0 > {ENTRY}/loading") -> None:
    make.shell(
        name,
        f"echo packet > {DEVICE}/image_type; echo 4096 > {DEVICE}/packet_size\n"
        f"[ -e {ENTRY} ] || echo init > {DEVICE}/image_type\n"
        f"echo 1 > {ENTRY}/loading; {source} > {ENTRY}/data; {end}",
    )


def _half_way(make: Maker, name: str) -> None:
    make.new(name, model="precision-390")
    make("module", "load", "dell_rbu", "allocation_floor=0x2000000", "--machine", name)
    _stage(
        make, name, f"head -c 100000 {make.packets}", end="echo 30 > /sys/class/firmware/timeout"
    )


def _read_half_way(make: Maker, name: str) -> None:
    _staged_not_armed(make, name)
    make.shell(name, f"head -c 8192 {DEVICE}/data > /dev/null")


def _entry_delay(make: Maker, name: str) -> None:
    make.new(name, "--entry-delay", "3000", "--profile", "linux")
    make("module", "load", "dell_rbu", "--machine", name)
    make.shell(name, f"echo init > {DEVICE}/image_type")


def _smi_buffer(make: Maker, name: str) -> None:
    make.new(name, "--flash-size", "1M", model="precision-t7600")
    make("module", "load", "dcdbas", "--machine", name)
    make("module", "load", "dell_rbu", "image_type=packet", "--machine", name)
    dcdbas = "/sys/devices/platform/dcdbas"
    make.shell(
        name,
        f"echo 5000 > {dcdbas}/smi_data_buf_size; printf hello > {dcdbas}/smi_data\n"
        f"ls {dcdbas}; echo 7 > {dcdbas}/host_control_action\n"
        "echo warm > /sys/kernel/reboot/mode",
    )


def _dead_kernel(make: Maker, name: str) -> None:
    make.new(name, "--profile", "linux-5.7")
    make("module", "load", "dell_rbu", "image_type=packet", "--machine", name)
    make("packets", make.packets, "-o", make.home / f"{name}.packets")
    _stage(make, name, f"cat {make.home}/{name}.packets")
    make.shell(name, f"[ ! -e {ENTRY} ] || echo -1 > {ENTRY}/loading")
    make("module", "unload", "dell_rbu", "--machine", name, codes=(4,))


def _updated(make: Maker, name: str) -> None:
    _armed_by_packets(make, name)
    make("machine", "reboot", name)


def _by_kexec(make: Maker, name: str) -> None:
    _armed_by_packets(make, name)
    make("machine", "reboot", name, "--kexec")
    make("status", "--machine", name)  # records it, with the time


def _killed(make: Maker, name: str) -> None:
    _armed_by_packets(make, name)
    mount = make.home / "mount"
    mount.mkdir()
    make("mount", mount, "--machine", name, "--detach")
    (mount / "sys/kernel/reboot/mode").write_text("cold")
    owner = int((make.home / "machines" / name / "lock").read_text().split()[0])
    os.kill(owner, signal.SIGKILL)
    subprocess.run(["fusermount3", "-u", "-z", mount], check=True)


def _of_profile(profile: str) -> Callable[[Maker, str], None]:
    def make_it(make: Maker, name: str) -> None:
        make.new(name, "--profile", profile, "--fault", "no-battery")
        make("module", "load", "dell_rbu", "image_type=packet", "--machine", name)
        make("packets", make.packets, "-o", make.home / f"{name}.packets")
        _stage(make, name, f"cat {make.home}/{name}.packets")

    return make_it


def _xen(make: Maker, name: str) -> None:
    make("balloon", "host", name, "--ram", "576M", "--dom0", "128M")
    make("balloon", "guest", name, "down", "--memory", "128M", "--max", "128M")
    make("balloon", "guest", name, "claims", "--memory", "64M", "--claim", "16M", "--uses", "20M")
    for profile in ("linux", "linux-2.6.18-xen", "hard-limit"):
        make("balloon", "guest", name, profile, "--memory", "64M", "--max", "400M",
             "--profile", profile)  # fmt: skip
    make("balloon", "target", name, "down", "70M")
    for profile in ("linux", "linux-2.6.18-xen", "hard-limit"):
        make("balloon", "target", name, profile, "300M")
    make.shell(
        name,
        f"echo 9 > {BALLOON}/max_retry_count; echo 40 > {BALLOON}/max_schedule_delay\n"
        f"echo 0 > {BALLOON}/scrub_pages",
    )


def _xen_armed(make: Maker, name: str) -> None:
    make("balloon", "host", name, "--ram", "512M", "--dom0", "128M", "--dom0-max", "160M")
    make("balloon", "guest", name, "a", "--memory", "64M")
    make("balloon", "target", name, "dom0", "100M")
    make("update", make.packets, "--machine", name)


SHAPES: dict[str, Callable[[Maker, str], None]] = {
    "off": _off,
    "idle": _idle,
    "armed-by-packets": _armed_by_packets,
    "armed-by-one-block": _armed_by_one_block,
    "armed-by-smi": _armed_by_smi,
    "staged": _staged_not_armed,
    "half-way": _half_way,
    "read-half-way": _read_half_way,
    "entry-delay": _entry_delay,
    "smi-buffer": _smi_buffer,
    "dead-kernel": _dead_kernel,
    "updated": _updated,
    "by-kexec": _by_kexec,
    "killed": _killed,
    **{f"profile-{each}": _of_profile(each) for each in PROFILES},
    "xen": _xen,
    "xen-armed": _xen_armed,
}

SAID = {
    "show": ("is_on", "lost_power", "is_armed", "modules", "reboot_mode", "bios_version",
             "completion", "xen", "faults", "entry_delay_s", "profile", "bios_rules"),
    "status": ("module_is_loaded", "staged_size_bytes", "is_armed", "next_restart",
               "restart_mode", "completion", "last_update"),
    "guests": ("name", "current_kib", "target_kib", "max_kib", "claim_kib", "balloon_kib",
               "profile"),
}  # fmt: skip
"""What of a command's answer is kept, and so has to be the same for ever."""


def answers(rbu: Callable[..., str], name: str) -> dict[str, object]:
    """What commands say of a machine."""
    show = json.loads(rbu("machine", "show", name, "--json"))
    said: dict[str, object] = {"show": {key: show[key] for key in SAID["show"]}}
    status = json.loads(rbu("status", "--machine", name, "--json", codes=(0, 4)))
    said["status"] = {key: status[key] for key in SAID["status"] if key in status}
    if show["xen"] is not None:
        guests = json.loads(rbu("balloon", "show", name, "--json"))["guests"]
        said["guests"] = [{key: guest[key] for key in SAID["guests"]} for guest in guests]
    return said


def main(out: Path, *rbu: str) -> None:
    """Make them all."""
    with tempfile.TemporaryDirectory() as home:
        make = Maker(list(rbu), Path(home))
        shutil.rmtree(out, ignore_errors=True)
        for shape, make_it in SHAPES.items():
            print(shape, flush=True)
            make_it(make, shape)
            pack(make.home / "machines" / shape, out / shape)
            text = json.dumps(answers(make, shape), indent=2)
            (out / shape / "answers").write_text(text + "\n")
            make("machine", "rm", shape, "--yes")
        (out / "formats").write_text(to_text(sections()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
