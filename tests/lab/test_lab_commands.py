"""`rbu lab update` and `rbu lab shell`, as processes, as users run them."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from openrbu.bios.firmware import make_firmware
from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.version import BiosVersion
from openrbu.system.descriptors import readable
from openrbu.units import MIB
from rigs.cli import RBU
from rigs.lab import BIOS_VERSION, Lab

pytestmark = pytest.mark.lab

OTHER_SYSTEM = 0x01DF

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def rbu(lab: Lab, tmp_path: Path) -> Command:
    """Runs `rbu` in a directory of its own."""

    def run(*words: str, standard_input: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*RBU, *words],
            cwd=tmp_path,
            input=standard_input,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def image(data: bytes, system: int, version: str) -> bytes:
    return make_image(data, version=BiosVersion.parse(version), systems=[SystemId(system)])


def test_an_update_is_tried_from_end_to_end(rbu: Command, tmp_path: Path) -> None:
    made = rbu("lab", "bios", "A06", "-o", "bios.bin", "--size", "512K")
    assert made.returncode == 0, made
    words = ("--bios-version", "A06", "--system", "0x0121")
    assert rbu("build", "bios.bin", "-o", "new.hdr", *words).returncode == 0
    done = rbu("lab", "update", "new.hdr", "--bios-version", "A05", "--json")
    assert done.returncode == 0, done
    document = json.loads(done.stdout)
    assert document["model"] == "poweredge-2650"  # the system in the header decides
    assert document["changed"]
    assert document["result"]["completion_code"] == "0x0000"
    assert (document["console_version"], document["dmi_version"]) == ("A06", "A06")
    assert document["status"]["bios"]["version"] == "A06"
    assert document["status"]["completion"]["code"] == "0x0000"
    assert "armed: the next restart hands A06 to the BIOS" in done.stderr


def test_a_bios_that_qemu_cannot_start_is_flashed_and_told_of(rbu: Command, tmp_path: Path) -> None:
    data = make_firmware("another maker's BIOS", MIB)
    (tmp_path / "new.hdr").write_bytes(image(data, 0x01DE, "2.3.0"))
    done = rbu("lab", "update", "new.hdr")
    assert done.returncode == 1, done
    assert re.search(r"BIOS says: +0x0000", done.stdout)
    assert "the flash has 2.3.0, but QEMU can't start it" in done.stderr


def test_what_the_guest_refuses_ends_as_rbu_update_ends(
    rbu: Command, lab: Lab, tmp_path: Path
) -> None:
    (tmp_path / "other.hdr").write_bytes(image(lab.bios("2.3.0"), OTHER_SYSTEM, "2.3.0"))
    unknown = rbu("lab", "update", "other.hdr")
    assert (unknown.returncode, unknown.stdout) == (3, "")
    assert "--model: poweredge-2650, precision-390" in unknown.stderr
    no_model = rbu("lab", "update", "other.hdr", "--model", "optiplex")
    assert no_model.returncode == 2
    assert "there is no model 'optiplex'" in no_model.stderr
    refused = rbu("lab", "update", "other.hdr", "--model", "precision-390")
    assert refused.returncode == 3, refused
    assert "the image is for 0x01df" in refused.stderr


def test_a_script_runs_in_the_guest_where_it_is_here(
    rbu: Command, lab: Lab, tmp_path: Path
) -> None:
    (tmp_path / "tool").write_text("seen")
    script = "pwd; cat tool; echo mine > tool; cat tool; uname -r; echo oops >&2; exit 7\n"
    done = rbu("lab", "shell", "--ram-file", "ram", standard_input=script)
    assert done.returncode == 7, done
    assert done.stdout == f"{tmp_path}\nseenmine\n{lab.software.release}\n"
    assert done.stderr.endswith("oops\n")
    assert (tmp_path / "tool").read_text() == "seen", "it is written to in the guest only"
    assert (tmp_path / "ram").stat().st_size == 512 * MIB


def test_a_tool_that_updates_and_restarts_is_followed_through_the_restart(
    rbu: Command, lab: Lab, tmp_path: Path
) -> None:
    """A stranger's tool, by the files alone; what it left on the machine's disk is there after. The
    BIOS has an admin password, which the tool has in a file."""
    (tmp_path / "password").write_text("Tall1-Tree\n")
    (tmp_path / "new.hdr").write_bytes(image(lab.bios("2.3.0"), 0x01DE, "2.3.0"))
    tool = tmp_path / "tool.sh"
    tool.write_text(
        "rbu update new.hdr --json && exit 3\n"
        "rbu update new.hdr --password-file password --json > /lab/said\n"
        "cat /sys/class/dmi/id/bios_version && reboot\n"
    )
    after = "cat /sys/class/dmi/id/bios_version; grep -c armed /lab/said; exit 9"
    words = ("--admin-password-file", "password", "--after-restart", after)
    done = rbu("lab", "shell", *words, "--", "sh", "tool.sh")
    assert done.returncode == 9, done
    assert "Tall1" not in done.stdout + done.stderr
    refused, _, said = done.stdout.rpartition("}\n")
    assert [each["kind"] for each in json.loads(refused + "}")["plan"]["obstacles"]] == [
        "password_needed"
    ]
    old, new, armed = said.split()
    assert (old, new) == (BIOS_VERSION, "2.3.0")
    assert int(armed) > 0
    assert "restarted; BIOS: 2.1.2 → 2.3.0; BIOS says: 0x0000" in done.stderr


def test_what_a_guest_calls_to_restart_restarts_it_each_time(rbu: Command) -> None:
    again = "/sbin/shutdown -r now"
    done = rbu("lab", "shell", "--after-restart", again, standard_input="systemctl reboot\n")
    assert done.returncode == 0, done
    assert done.stderr.count("restarted; BIOS: 2.1.2; update: none was armed") == 2


def test_a_shell_on_a_terminal_comes_back_after_a_restart_and_ends_by_force(
    lab: Lab, tmp_path: Path
) -> None:
    shell, terminal = pty.openpty()
    with subprocess.Popen(
        [*RBU, "lab", "shell"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=tmp_path,
        env={**os.environ, "TERM": "dumb"},
        start_new_session=True,
    ) as process:
        os.close(terminal)
        try:
            _expect(shell, r"\n# $")
            os.write(shell, b"tty; echo $((40+2)); reboot\n")
            _expect(shell, r"/dev/hvc0\s+42\s")
            _expect(shell, r"restarted; BIOS: 2\.1\.2;.*# $")
            os.write(shell, b"\x01x")  # Ctrl-A X: what QEMU ends at, whatever its guest does
            assert process.wait(timeout=60) == 1
            _expect(shell, r"the guest was lost: QEMU ended")
        finally:
            process.kill()
            os.close(shell)


def _expect(fd: int, pattern: str, limit_s: float = 120.0) -> str:
    """What comes, up to where it matches."""
    text = ""
    while not re.search(pattern, text.replace("\r", ""), re.DOTALL):
        ready = readable([fd], limit_s)
        assert ready, f"no {pattern!r} came, but {text!r}"
        text += os.read(fd, 4096).decode(errors="replace")
    return text


def test_the_readme_says_what_works(rbu: Command, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    _, _, section = text.partition("## Real Linux, without a Dell\n")
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found is not None
    install = "sudo apt-get install"  # this is set up
    lines = [line for line in found[1].splitlines() if not line.startswith(install)]
    for line in lines[:-1]:
        words = line.partition("#")[0].split()
        assert words[0] == "rbu"
        done = rbu(*words[1:])
        assert done.returncode == 0, done
    assert re.search(r"console: +SeaBIOS \(version 2\.3\.0\)", done.stdout)
