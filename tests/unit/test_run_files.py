"""The machine's own files under `rbu run`, and none of this computer's in their place."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rigs.cli import RBU, Cli
from rigs.machines import NEWER, image_bytes
from rigs.needs import program
from rigs.run import USERS, Runner, needs_root, runner, with_python, xen_order

MACHINES: dict[str, tuple[str, dict[str, Any]]] = {
    "packets": ("precision-390", {}),
    "one block": ("poweredge-2650", {}),
    "smi": ("precision-t7600", {}),
    "a host of Xen": ("precision-390", xen_order("linux")),
}

CHANGES = """
for file in /proc/sys/kernel/printk /proc/sys/vm/min_free_kbytes \\
        /sys/kernel/mm/transparent_hugepage/enabled /sys/kernel/profiling; do
    [ ! -e $file ] || ! cat $file 2>/dev/null >$file || echo changed: $file
done
for file in /proc/sys/vm/nr_overcommit_hugepages /proc/sys/vm/nr_hugepages_mempolicy; do
    [ ! -e $file ] || ! echo 3 2>/dev/null >$file || echo changed: $file
done
echo 3 >/proc/sys/vm/drop_caches; echo 1 >/proc/sys/vm/compact_memory
echo 5 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
cat /proc/sys/vm/nr_hugepages
grep -e HugePages_Total /proc/meminfo
"""
"""Written as root: of this computer nothing is changed, and of the machine what is said."""


def made_image(home: Path, model: str) -> Path:
    image = home / "newer.hdr"
    image.write_bytes(image_bytes(model, NEWER[model]))
    image.chmod(0o644)
    return image


def from_outside(run: Runner, *words: object) -> Any:
    """What a command of openrbu says, run by the same user."""
    command = [*run.prefix, *RBU, *map(str, words), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def rows(document: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """What a plan says, but for the path of the journal."""
    return {
        each["name"]: (each["verdict"], each["found"])
        for each in document["checks"]
        if each["name"] != "journal"
    }


@pytest.mark.parametrize(
    ("kind", "user"), [*((kind, "root") for kind in MACHINES), ("packets", "nobody")]
)
def test_an_update_inside_is_the_one_from_outside(
    rbu: Cli, tmp_path: Path, kind: str, user: str
) -> None:
    """Its plan speaks of the machine alone; it sees the image in the machine's memory; the
    machine's journal has it; and the BIOS takes it."""
    model, spec = MACHINES[kind]
    run = with_python(runner(tmp_path / "home", user, model, **spec), tmp_path / "hold")
    image = made_image(tmp_path, model)
    tmp_path.chmod(0o755)
    inside = json.loads(run.says(*RBU, "plan", image, "--json"))
    outside = from_outside(run, "plan", image, "--machine", run.name)
    differing = set(rows(inside).items()) ^ set(rows(outside).items())
    on_xen = {"physical_memory", "bios_rules"} if spec else set()
    assert {name for name, _ in differing} <= on_xen
    done = json.loads(run.says(*RBU, "update", image, "--json"))
    assert (done["is_armed"], done["read_back"]) == (True, "right")
    assert done["seen_in_memory"] is (not spec), "a dom0 can't see the machine's memory"
    status = from_outside(run, "status", "--machine", run.name)
    assert status["last_update"]["to_version"] == NEWER[model]
    from_outside(run, "machine", "reboot", run.name)
    assert from_outside(run, "machine", "show", run.name)["bios_version"] == NEWER[model]


@pytest.mark.parametrize("user", USERS)
def test_programs_read_the_tables_through_dev_mem(rbu: Cli, tmp_path: Path, user: str) -> None:
    """dmidecode reads where it can't map, and libsmbios does not: both map the file."""
    run = runner(tmp_path / "home", user, "poweredge-2650")
    dmidecode = program("dmidecode", "dmidecode")
    assert run.says(dmidecode, "--no-sysfs", "-q") == run.says(dmidecode, "-q")
    info = program("smbios-sys-info", "smbios-utils")
    hidden = f"mount -t tmpfs none /sys/firmware; exec {info}"
    said = run.says("unshare", "--mount", "sh", "-ec", hidden)
    assert "PowerEdge 2650" in said
    assert "0x0121" in said


def test_nothing_of_this_computers_memory_is_changed(rbu: Cli, tmp_path: Path) -> None:
    needs_root()
    mine = {path: path.read_text() for path in map(Path, (
        "/proc/sys/vm/nr_hugepages", "/proc/sys/vm/nr_overcommit_hugepages",
    )) if path.exists()}  # fmt: skip
    run = runner(tmp_path / "home", "root")
    ended = run("sh", "-c", CHANGES)
    assert ended.stdout.splitlines() == ["5", "HugePages_Total:       5"], ended
    assert {path: path.read_text() for path in mine} == mine


def test_what_the_machine_has_not_is_not_this_computers(rbu: Cli, tmp_path: Path) -> None:
    run = runner(tmp_path / "home", "root")
    script = """cd /sys/class; ls -d block power_supply rtc tpm watchdog 2>/dev/null
        cat /etc/crypttab /etc/default/kexec 2>/dev/null; ls /lib/modules/*"""
    said = run.says("sh", "-c", script)
    assert said.split() == ["kernel", "modules.builtin", "modules.dep", "modules.order"]


def test_memory_of_another_process_is_not_in_the_machines_core(rbu: Cli, tmp_path: Path) -> None:
    """The core begins with an ELF header, and has the RAM where its headers say."""
    run = runner(tmp_path / "home", "root", "precision-390")
    read = program("readelf", "binutils")
    said = subprocess.run(
        run.line(read, "--segments", "--wide", "/proc/kcore"),
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    loads = [line.split() for line in said.splitlines() if line.strip().startswith("LOAD")]
    assert [(int(each[3], 16)) for each in loads] == [0x1000, 0x100000]
