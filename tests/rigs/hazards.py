"""A Linux machine as a tree of files: a sound one, and what can be wrong with it, planted singly.

The machine is a Precision 390, whose BIOS takes packets and is armed by a token in CMOS. Each
hazard was planted on the real kernel or is what its documentation says of these files. `HAZARDS`
tells for each what a plan has to say of it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from openrbu.formats.smbios import Tables
from openrbu.hosts.base import DMI_TABLE, ENTRY_POINT, read_file
from openrbu.hosts.virtual import VirtualHost
from openrbu.update.checks.check import Verdict
from rigs.cores import put_core
from rigs.machines import make, running

KERNEL = "6.1.0-44-amd64"
EFI = "/sys/firmware/efi"
GLOBAL_VARIABLE = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
MOR_VARIABLE = "MemoryOverwriteRequestControl-e20939be-32d4-41be-a150-897f85d49829"

_EFI_ATTRIBUTES = b"\x07\0\0\0"
"""What a variable's file begins with: non-volatile, at boot and at run time."""

_LUKS2_SIZE_BYTES = 16384

_SOUND_FILES: dict[str, bytes | str] = {
    "/dev/port": bytes(1 << 16),
    "/dev/nvram": bytes(114),
    "/sys/bus/nvmem/devices/cmos_nvram0/nvmem": bytes(242),
    "/proc/buddyinfo": """\
Node 0, zone      DMA      1      1      1      0      2      1      1      0      1      1      3
Node 0, zone    DMA32      9     12      9     10      8      9      8      9      7      5    190
""",
    "/proc/kpageflags": bytes(8),
    "/proc/cmdline": f"BOOT_IMAGE=/boot/vmlinuz-{KERNEL} root=/dev/sda2 ro quiet\n",
    "/proc/cpuinfo": """\
processor	: 0
vendor_id	: GenuineIntel
model name	: Intel(R) Core(TM)2 CPU 6600 @ 2.40GHz
flags		: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush
""",
    "/proc/meminfo": "MemTotal:        1011756 kB\nMemFree:          798152 kB\n"
    "MemAvailable:     872904 kB\nHugepagesize:       2048 kB\n",
    "/proc/sys/kernel/osrelease": f"{KERNEL}\n",
    "/proc/sys/kernel/random/boot_id": "5c1dd0a1-0000-4000-8000-000000000001\n",
    "/proc/sys/kernel/modules_disabled": "0\n",
    "/proc/sys/kernel/firmware_config/ignore_sysfs_fallback": "0\n",
    "/proc/sys/kernel/firmware_config/force_sysfs_fallback": "0\n",
    "/sys/class/firmware/timeout": "60\n",
    "/sys/module/firmware_class/parameters/path": "\n",
    "/sys/kernel/reboot/mode": "cold\n",
    "/sys/kernel/reboot/type": "acpi\n",
    "/sys/kernel/reboot/force": "0\n",
    "/sys/kernel/reboot/cpu": "0\n",
    "/sys/kernel/kexec_loaded": "0\n",
    "/sys/devices/system/memory/memory0/state": "online\n",
    "/sys/kernel/security/lockdown": "[none] integrity confidentiality\n",
    "/sys/class/power_supply/AC/type": "Mains\n",
    "/sys/class/power_supply/AC/online": "1\n",
    "/sys/class/power_supply/BAT0/type": "Battery\n",
    "/sys/class/power_supply/BAT0/present": "1\n",
    "/sys/class/power_supply/BAT0/status": "Full\n",
    "/sys/class/power_supply/BAT0/capacity": "97\n",
    "/sys/class/block/sda/dev": "8:0\n",
    "/sys/class/block/sda/size": "1000000\n",
    "/sys/class/block/sda2/dev": "8:2\n",
    "/sys/class/block/sda2/size": "900000\n",
    "/dev/sda": bytes(512),
    "/dev/sda2": bytes(4096),
    "/run/systemd/system/ready": "",
    f"/lib/modules/{KERNEL}/modules.dep": "kernel/drivers/platform/x86/dell/dell_rbu.ko:\n",
    f"/lib/modules/{KERNEL}/modules.builtin": "",
    f"/lib/modules/{KERNEL}/kernel/drivers/platform/x86/dell/dell_rbu.ko": b"\x7fELF",
}


def put(root: Path, path: str, content: bytes | str) -> None:
    """A file of the machine, in place of one that is there."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def put_tables(root: Path, tables: Tables) -> None:
    """The machine's SMBIOS tables, in place of its own."""
    entry_point, table = tables.build()
    put(root, ENTRY_POINT, entry_point)
    put(root, DMI_TABLE, table)


def sound_machine(root: Path) -> Path:
    """Make the tree, below `root/machine`; it has none of the hazards."""
    tree = root / "machine"
    with running(make(root / "home")) as machine:
        host = VirtualHost(machine)
        for path in (ENTRY_POINT, DMI_TABLE):
            put(tree, path, read_file(host, path))
    for path, content in _SOUND_FILES.items():
        put(tree, path, content)
    put_core(tree)
    return tree


# -- UEFI -----------------------------------------------------------------------------------


def put_variable(root: Path, name: str, value: bytes) -> None:
    """A variable of the firmware, as efivarfs shows it."""
    put(root, f"{EFI}/efivars/{name}", _EFI_ATTRIBUTES + value)


def put_capsule_target(
    root: Path, number: int = 0, *, kind: int = 1, status: int = 0, attempted: int = 0
) -> None:
    """An entry of the ESRT: what takes capsules; `kind` 1 is the system's own firmware."""
    entry = f"{EFI}/esrt/entries/entry{number}"
    for name, content in {
        "fw_class": "230c8b18-8d9b-53ec-838b-6cfc0383493a",
        "fw_type": str(kind),
        "fw_version": str(0x010500),
        "lowest_supported_fw_version": "0",
        "capsule_flags": "0xfe",
        "last_attempt_version": str(attempted),
        "last_attempt_status": str(status),
    }.items():
        put(root, f"{entry}/{name}", f"{content}\n")


def _secure_boot(root: Path) -> None:
    put_variable(root, f"SecureBoot-{GLOBAL_VARIABLE}", b"\1")
    put_variable(root, f"SetupMode-{GLOBAL_VARIABLE}", b"\0")


def _memory_overwrite(root: Path) -> None:
    put_variable(root, MOR_VARIABLE, b"\1")


# -- disks ----------------------------------------------------------------------------------


def put_disk(root: Path, name: str, content: bytes, number: str) -> None:
    """A block device with this content; `number` is `major:minor`."""
    put(root, f"/sys/class/block/{name}/dev", f"{number}\n")
    put(root, f"/sys/class/block/{name}/size", "2000000\n")
    put(root, f"/dev/{name}", content)


def luks2_header(*tokens: object) -> bytes:
    """A LUKS2 header with these tokens, as cryptsetup writes it, without its digest."""
    area = json.dumps({"keyslots": {}, "tokens": dict(enumerate(tokens)), "segments": {}})
    binary = b"LUKS\xba\xbe" + (2).to_bytes(2, "big") + _LUKS2_SIZE_BYTES.to_bytes(8, "big")
    return (binary.ljust(4096, b"\0") + area.encode()).ljust(_LUKS2_SIZE_BYTES, b"\0")


def clevis_token(pin: str, config: object = None) -> object:
    """A token of Clevis: its protected header names the pin."""
    header = {"alg": "dir", "enc": "A256GCM", "clevis": {"pin": pin, pin: config or {}}}
    return {"type": "clevis", "keyslots": ["1"], "jwe": {"protected": _base64(header), "tag": "x"}}


def compact_jwe(pin: str) -> str:
    """A pin that is a part of another, as Clevis keeps it there."""
    return f"{_base64({'alg': 'dir', 'clevis': {'pin': pin, pin: {}}})}..iv.text.tag"


def _base64(header: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")


def put_tpm(root: Path) -> None:
    put(root, "/sys/class/tpm/tpm0/tpm_version_major", "2\n")


def _tpm_with_luks(root: Path) -> None:
    put_tpm(root)
    token = {"type": "systemd-tpm2", "keyslots": ["1"], "tpm2-pcrs": [0, 7]}
    put_disk(root, "sda3", luks2_header(token), "8:3")


# -- the fourteen ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hazard:
    """Something that prevents an update, or harms: `plant` puts it into a tree.

    `says` is a regular expression: a plan has a check that says so with that verdict, which it has
    not on the sound tree.
    """

    name: str
    plant: Callable[[Path], None]
    verdict: Verdict
    says: str

    def __str__(self) -> str:
        return self.name


def _files(*files: tuple[str, bytes | str]) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        for path, content in files:
            put(root, path, content)

    return plant


_MUCH_MEMORY = """\
Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      2
Node 0, zone    DMA32      5      5      6      5      5      5      6      5      6      4    398
Node 0, zone   Normal     11     21     18     19     12     17     15     16     15     12  92160
"""
"""360 GiB are free above 4 GiB."""

_SUPPLY = "/sys/class/power_supply"

HAZARDS = (
    Hazard("UEFI", put_capsule_target, Verdict.IN_THE_WAY, r"UEFI capsules.*fwupdmgr"),
    Hazard("Secure Boot", _secure_boot, Verdict.UNKNOWN, r"Secure Boot is on"),
    Hazard("MOR set", _memory_overwrite, Verdict.HANDLED, r"MemoryOverwriteRequest|overwrite"),
    Hazard(
        "lockdown",
        _files(("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n")),
        Verdict.HANDLED,
        r"locked down \(integrity\)",
    ),
    Hazard(
        "kexec loaded",
        _files(("/sys/kernel/kexec_loaded", "1\n"), ("/run/systemd/system/any", "")),
        Verdict.HANDLED,
        r"kexec",
    ),
    Hazard(
        "reboot=efi",
        _files(
            ("/proc/cmdline", "BOOT_IMAGE=/boot/vmlinuz root=/dev/sda2 ro reboot=efi\n"),
            ("/sys/kernel/reboot/type", "efi\n"),
        ),
        Verdict.UNKNOWN,
        r"\befi\b",
    ),
    Hazard(
        "mains off",
        _files((f"{_SUPPLY}/AC/online", "0\n"), (f"{_SUPPLY}/BAT0/status", "Discharging\n")),
        Verdict.IN_THE_WAY,
        r"runs on its battery.*connect",
    ),
    Hazard(
        "battery 7 %",
        _files((f"{_SUPPLY}/BAT0/capacity", "7\n")),
        Verdict.IN_THE_WAY,
        r"\b7 %.*charge",
    ),
    Hazard(
        "TPM with LUKS", _tpm_with_luks, Verdict.UNKNOWN, r"TPM 2.0 unlocks /dev/sda3.*recovery key"
    ),
    Hazard(
        "fallback ignored",
        _files(("/proc/sys/kernel/firmware_config/ignore_sysfs_fallback", "1\n")),
        Verdict.HANDLED,
        r"fallback",
    ),
    Hazard(
        "modules disabled",
        _files(("/proc/sys/kernel/modules_disabled", "1\n")),
        Verdict.IN_THE_WAY,
        r"loads no (more )?modules|modules_disabled",
    ),
    Hazard(
        "a file dell_rbu",
        _files(("/lib/firmware/dell_rbu", b"somebody's image")),
        Verdict.HANDLED,
        r"/lib/firmware/dell_rbu",
    ),
    Hazard(
        "memory encryption",
        _files(
            ("/proc/cmdline", "BOOT_IMAGE=/boot/vmlinuz root=/dev/sda2 ro mem_encrypt=on\n"),
            ("/proc/cpuinfo", "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu sme\n"),
        ),
        Verdict.UNKNOWN,
        r"encrypt",
    ),
    Hazard(
        "360 GiB above 4 GiB", _files(("/proc/buddyinfo", _MUCH_MEMORY)), Verdict.HANDLED, r"4 GiB"
    ),
)
