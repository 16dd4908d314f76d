"""The manual's commands update a machine that has everything against it: fragmented memory, another
kernel that a restart would start, a stale set of packets of somebody else, and a password.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.version import BiosVersion
from openrbu.units import MIB
from rigs.cli import RBU
from rigs.lab import Lab
from rigs.schemas import check_document

pytestmark = pytest.mark.lab

FRAGMENTER = Path(__file__).with_name("fragmenter.py")

AGAINST = """\
set -eu
modprobe dell_rbu
driver=/sys/devices/platform/dell_rbu entry=/sys/class/firmware/dell_rbu
echo packet >$driver/image_type
echo 4096 >$driver/packet_size
echo init >$driver/image_type
rbu packets other.hdr -o /dev/shm/other.packets >&2
until [ -e $entry/loading ]; do sleep 0.1; done
echo 1 >$entry/loading
cat /dev/shm/other.packets >$entry/data
echo 0 >$entry/loading
rm /dev/shm/other.packets

mkdir -p /run/systemd/system
python3 -c '
import ctypes, os, sys
kernel = os.open(sys.argv[1], os.O_RDONLY)
line = open("/proc/cmdline", "rb").read().strip() + bytes(1)
no_initramfs = 4
sys.exit(ctypes.CDLL(None).syscall(320, kernel, -1, len(line), line, no_initramfs))
' "$1"

mkfifo /dev/shm/hold /dev/shm/free
python3 "$2" 64 </dev/shm/hold >/dev/shm/free 2>/dev/null &
exec 9>/dev/shm/hold
sed '/available/q' /dev/shm/free >&2
"""
"""Its words are a kernel and the fragmenter. The system call is kexec_file_load, by its number on
x86-64. systemd's directory makes openrbu take the machine for one that systemd started."""

BY_THE_MANUAL = """
rbu plan new.hdr --password-file password --json
rbu update new.hdr --password-file password --drop-caches --reboot >&2
"""


@pytest.mark.timeout(850)
def test_a_machine_with_everything_against_it_is_updated_by_the_manuals_commands(
    lab: Lab, tmp_path: Path
) -> None:
    for name, version in (("new.hdr", "2.3.0"), ("other.hdr", "2.4.0")):
        data = lab.bios("2.3.0") if name == "new.hdr" else bytes(MIB)
        made = make_image(data, version=BiosVersion.parse(version), systems=[SystemId(0x01DE)])
        (tmp_path / name).write_bytes(made)
    (tmp_path / "password").write_text("Tall1-Tree\n")
    (tmp_path / "admin.sh").write_text(AGAINST + BY_THE_MANUAL)
    words = ["--admin-password-file", "password", "--after-restart", "rbu status --json"]
    command = ["sh", "admin.sh", str(lab.software.vmlinuz), str(FRAGMENTER)]
    done = told_to([*RBU, "lab", "shell", *words, "--", *command], tmp_path)
    assert done.returncode == 0, (done.stdout, done.stderr)
    planned, status = documents(done.stdout)
    check_document("plan", planned)
    check_document("status", status)
    verdicts = {each["name"]: each["verdict"] for each in planned["checks"]}
    assert planned["obstacles"] == []
    assert {verdicts[name] for name in ("staged_already", "kexec", "restart_mode")} == {"handled"}
    assert status["bios"]["version"] == "2.3.0", (status, done.stderr)
    assert status["last_update"]["ending"] == "updated"


def told_to(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run it; where a copy of the stale set is left in memory that no program can clear, do as the
    message says: on a machine that was power cycled (here a new one), once more, and again. How
    often depends on where the kernel puts what: three times in a row were seen."""
    for _ in range(6):
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        if "power cycle the machine, which clears its memory, and try again" not in done.stderr:
            break
        print(done.stderr)
    return done


def documents(text: str) -> list[dict[str, Any]]:
    """The JSON documents in a text, one after another."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        document, at = decoder.raw_decode(text, at)
        found.append(document)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found
