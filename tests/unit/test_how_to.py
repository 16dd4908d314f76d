"""The commands of the how-to pages work, word for word: those for a real machine on a virtual one,
at whose restart the BIOS says what became of the update.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from openrbu.api import drivers, machines
from openrbu.cli.unit import UNITS
from openrbu.cli.watching import MESSAGE_ID
from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.version import BiosVersion
from openrbu.units import MIB
from rigs.cli import Cli
from rigs.hazards import KERNEL, put, sound_machine
from rigs.machines import image_bytes
from rigs.mounted import needs_fuse
from rigs.needs import leave_out
from rigs.own_driver import RamFileHost
from rigs.own_memory import HUGE, make_computer
from rigs.run import needs_namespaces

DOCS = Path(__file__).parents[2] / "docs"
PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
UPDATED = "done: the BIOS says completed, and the new version runs"
PRECISION_390 = 0x01DE


def blocks(page: str) -> list[str]:
    """The `sh` blocks of a page."""
    found = re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    assert found, page
    return found


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A directory with the image A06.hdr, for a Precision 390."""
    if shutil.which("rbu", path=PATH) is None:
        leave_out("openrbu is not installed in the environment of this Python")
    needs_fuse()
    if os.geteuid():
        needs_namespaces()
    path = tmp_path / "work"
    path.mkdir()
    version = BiosVersion.parse("2.3.0")
    image = make_image(bytes(MIB), version=version, systems=[SystemId(PRECISION_390)])
    (path / "A06.hdr").write_bytes(image)
    return path


def said_by(work: Path, *words: str) -> str:
    """What a command writes on standard output; it has to end with 0."""
    home = str(work.parent / "home")
    ended = subprocess.run(
        words,
        cwd=work,
        env={**os.environ, "PATH": PATH, "OPENRBU_HOME": home, "TMPDIR": str(work.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended
    return ended.stdout


def updated(work: Path, script: str, after: str = "rbu status", *machine: str) -> str:
    """What is said when `script` is run on a machine made with these options, and `after` when it
    has restarted."""
    said_by(work, "rbu", *(machine or ("machine", "new", "m", "--model", "precision-390")))
    words = ("rbu", "run", "--machine", "m", "--after-restart", f"set -e\n{after}")
    return said_by(work, *words, "--", "sh", "-euc", script)


def test_one_server_is_updated(work: Path) -> None:
    look, update, after = blocks("how-to/update-one-server.md")
    said = updated(work, look + update, after)
    assert said.count(UPDATED) == 2
    assert "BIOS version:  2.3.0" in said


def test_a_fleet_is_updated_by_a_policy(work: Path) -> None:
    """The commands of each server, once for each step."""
    write, step = blocks("how-to/policy.md")
    (work / "images").mkdir()
    for version in ("2.3.0", "2.6.0"):
        systems = [SystemId(PRECISION_390)]
        image = make_image(bytes(MIB), version=BiosVersion.parse(version), systems=systems)
        (work / "images" / f"{version}.hdr").write_bytes(image)
    said_by(work, "sh", "-euc", write)
    assert "2.1.2 → 2.3.0: done" in updated(work, step, "rbu status --quiet")
    words = ("rbu", "run", "--machine", "m", "--after-restart", "rbu status --quiet")
    assert "2.3.0 → 2.6.0: done" in said_by(work, *words, "--", "sh", "-euc", step)
    said = said_by(work, "rbu", "run", "--machine", "m", "--", "sh", "-euc", step)
    assert said.count("nothing to do: 2.6.0 runs") == 2


def test_a_machine_with_a_password_is_updated_and_the_file_is_gone(work: Path) -> None:
    (block,) = blocks("how-to/password.md")
    machine = ("machine", "new", "m", "--model", "precision-390", "--fault", "password")
    assert UPDATED in updated(work, f"{block}\nreboot", "rbu status", *machine)
    assert not (work / "bios-password").exists()


def test_a_machine_with_fragmented_memory_is_updated(work: Path) -> None:
    (block,) = blocks("how-to/fragmented-memory.md")
    machine = ("machine", "new", "m", "--model", "precision-390", "--fault", "fragmented=2")
    assert UPDATED in updated(work, block, "rbu status", *machine)


def test_a_machine_that_runs_xen_is_updated(work: Path) -> None:
    (block,) = blocks("how-to/xen.md")
    machine = ("balloon", "host", "m", "--ram", "1G", "--dom0", "512M", "--model", "precision-390")
    assert UPDATED in updated(work, block, "rbu status", *machine)


def test_a_tool_is_tried_in_ci(work: Path) -> None:
    (block,) = blocks("how-to/ci.md")
    said = said_by(work, "sh", "-euc", block)
    assert re.search(r"precision-390 .*updated", said)
    assert re.search(r"poweredge-2950 .*updated", said)
    assert 'tests="2"' in (work / "dells.xml").read_text()


def test_a_dump_is_read(work: Path) -> None:
    (block,) = blocks("how-to/read-a-dump.md")
    image = (work / "A06.hdr").read_bytes()
    memory = bytes(MIB) + image
    (work / "ram.raw").write_bytes(memory.ljust(4 * MIB, b"\0"))
    said_by(work, "sh", "-euc", block)
    (found,) = json.loads((work / "found.json").read_text())["images"]
    assert found["address"] == "0x100000"
    (extracted,) = (work / "found").iterdir()
    assert extracted.read_bytes() == image
    assert "<svg" in (work / "map.svg").read_text()


def test_what_a_report_of_a_real_machine_has_is_there(work: Path) -> None:
    if shutil.which("dmidecode", path=PATH) is None:
        leave_out("dmidecode is not installed")
    before, after = blocks("proven.md")
    updated(work, f"{before}\nrbu update A06.hdr --reboot", after)
    wanted = set(re.findall(r"> ([\w-]+\.\w+)|--dump-bin ([\w.]+)", before + after))
    assert {name for pair in wanted for name in pair if name} <= {
        path.name for path in work.iterdir() if path.stat().st_size
    }
    assert json.loads((work / "status-after.json").read_text())["bios"]["version"] == "2.3.0"
    assert json.loads((work / "plan.json").read_text())["checks"]


def test_a_machine_without_the_module_is_updated_and_the_update_taken_back(
    rbu: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This computer is a directory, with memory in a file."""
    root = sound_machine(tmp_path)
    put(root, f"/lib/modules/{KERNEL}/modules.dep", "kernel/drivers/net/dummy.ko:\n")
    make_computer(root, [HUGE * number for number in (9, 8, 7, 10, 11, 12)])
    for module in (machines, drivers):
        monkeypatch.setattr(
            module, "_this_computer", lambda driver, memory_from="": RamFileHost(root, driver)
        )
    (rbu.directory / "A06.hdr").write_bytes(image_bytes())
    said = {}
    for line in "".join(blocks("how-to/without-the-module.md")).splitlines():
        program, *words = line.split()
        assert program == "rbu"
        ended = rbu(*words)
        assert ended.code == 0, (line, ended)
        said[words[0]] = ended.out
    assert "openrbu's own driver takes its place" in said["plan"]
    assert "armed" in said["update"]
    assert re.search(r"staged:.*\n +0x", said["driver"])
    assert "disarmed" in said["cancel"]


def test_a_report_on_many_machines(work: Path) -> None:
    """`ssh` is one that has `rbu` speak of the virtual machine of the host's name."""
    gather, make = blocks("how-to/report-many.md")
    for name in ("web1", "web2"):
        said_by(work, "rbu", "machine", "new", name)
    ssh = 'HOSTS="web1 web2"\nssh() { host=$1; shift; "$@" --machine "$host"; }\n'
    told = said_by(work, "sh", "-euc", ssh + gather)
    assert "2 machines: 2 no update tried" in told
    said_by(work, "sh", "-euc", make)
    assert "</html>" in (work / "report.html").read_text()
    assert len((work / "report.csv").read_text().splitlines()) == 3
    report = json.loads((work / "report.json").read_text())
    assert [row["name"] for row in report["machines"]] == ["web1", "web2"]


def test_watching_a_server_as_the_page_has_it(work: Path) -> None:
    """Its commands for systemd write units; here they are written into a directory."""
    record, show, metrics, by_hand = blocks("how-to/watch.md")
    script = (record + metrics).replace("/etc/systemd/system", ".")
    said = updated(
        work, "rbu update A06.hdr --reboot", script.replace("systemctl", "echo") + by_hand
    )
    for timer in ("result", "metrics"):
        assert f"enable --now openrbu-{timer}.timer" in said, "one that is only enabled waits"
    assert "openrbu_update_last_succeeded 1" in said
    assert MESSAGE_ID in show
    text = (DOCS / "how-to" / "watch.md").read_text("utf-8")
    named = set(re.findall(r"openrbu_[a-z_]+", text))
    shown = set(re.findall(r"^(openrbu_[a-z_]+)", said, re.MULTILINE))
    assert named == shown
    units = sorted(path.name for path in work.glob("openrbu-*"))
    assert units == sorted(UNITS)
