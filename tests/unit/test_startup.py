"""Commands start fast: what takes long to load is loaded by those that need it.

How long it takes is measured by `make bench`. What costs it is a list of modules, and that is
tested: an import that adds one of them to a command fails here, and the failure names the importer.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from openrbu._vendor import typer
from openrbu.bios.rule_names import RULE_NAMES
from openrbu.bios.rules import RULE_SETS
from openrbu.cli.app import COMMANDS, Group, Row, load
from openrbu.formats.packet import split
from openrbu.units import KIB, MIB
from rigs.cli import Cli, image_bytes
from rigs.needs import leave_out

pytestmark = pytest.mark.untraced

SLOW = ("numpy", "rich")
"""What the commands below do without."""

OF_A_FEW = (
    "openrbu.bios.rules",
    "openrbu.drivers.xen_balloon_profiles",
    "openrbu.formats.hdr",
    "openrbu.formats.packet_header",
    "openrbu.kernel.balloon",
    "openrbu.sharing.remote",
    "hashlib",
    "socket",
    "tempfile",
)
"""What only some machines need, or only some of the time: rules of a BIOS at a start, the balloon
on Xen, a socket where another process has the machine, an image's format where one is staged."""

OF_OTHERS = (
    "openrbu._vendor.typer._click.formatting",
    "openrbu._vendor.typer._click.shell_completion",
    "openrbu._vendor.typer._click.termui",
    "openrbu.cli.about",
    "openrbu.cli.completion",
    "openrbu.formats.packet_header",
    "openrbu.machine.reading",
    "openrbu.system.denied",
)
"""What belongs to other commands, to help, errors and completion, to files of packets, and to
directories that are refused."""

REPORT = """
import json, sys, traceback
slow = json.loads(sys.argv.pop(1))
importers = {}
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in slow and name not in importers:
            frames = [f"{f.filename}:{f.lineno}" for f in traceback.extract_stack()]
            importers[name] = [frame for frame in frames if "importlib" not in frame][-4:-1]
sys.meta_path.insert(0, Watch())
from openrbu.cli.main import entry
code = entry()
print(json.dumps({"code": code, "importers": importers}), file=sys.stderr)
"""
"""Runs a command; says on standard error which of the slow modules were loaded, and by whom."""


def importers(*words: str, of: tuple[str, ...] = SLOW) -> dict[str, list[str]]:
    """For each of these modules that `rbu` loads with these words: the last calls before that."""
    command = [sys.executable, "-c", REPORT, json.dumps(of), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stderr.splitlines()[-1])
    assert report["code"] == 0, done.stderr
    found: dict[str, list[str]] = report["importers"]
    return found


@pytest.fixture
def _three_machines(rbu: Cli) -> None:
    rbu.image()
    for name in ("one", "two", "three"):
        rbu("machine", "new", name)


@pytest.mark.usefixtures("_three_machines")
@pytest.mark.parametrize(
    "words",
    [
        "info image.hdr",
        "info image.hdr --json",
        "status --machine one",
        "status --machine one --json",
        "machine list",
        "machine show one",
        "history --machine one",
        "plan image.hdr --machine one",
        "plan image.hdr --machine one --json",
    ],
)
def test_a_command_that_only_looks_loads_nothing_slow(words: str) -> None:
    assert importers(*words.split()) == {}


@pytest.mark.usefixtures("_three_machines")
@pytest.mark.parametrize("words", ["info image.hdr", "machine list", "status -m one"])
def test_what_few_command_lines_need_is_not_even_compiled_for_the_others(words: str) -> None:
    """In a container nothing may be kept of what is compiled (PYTHONDONTWRITEBYTECODE)."""
    assert importers(*words.split(), of=OF_OTHERS) == {}


@pytest.mark.usefixtures("_three_machines")
def test_info_loads_none_of_what_typer_has_for_other_options_and_for_errors() -> None:
    slow = ("datetime", "difflib", "platform", "subprocess", "traceback", "uuid")
    assert importers("info", "image.hdr", of=slow) == {}


@pytest.mark.usefixtures("_three_machines")
@pytest.mark.parametrize("words", ["status -m one", "machine list", "machine show one"])
def test_a_look_at_a_machine_loads_only_what_it_has(words: str) -> None:
    assert importers(*words.split(), of=OF_A_FEW) == {}


def test_the_names_of_the_rule_sets_are_those_of_the_rule_sets() -> None:
    assert tuple(RULE_SETS) == RULE_NAMES


@pytest.mark.usefixtures("_three_machines")
def test_a_plan_for_people_has_no_digest_no_policy_and_no_search_through_memory() -> None:
    words = ("plan", "image.hdr", "--machine", "one")
    slow = (
        *("hashlib", "openrbu.memory.scan", "openrbu.policy.model", "openrbu.update.flow"),
        *("socket", "tempfile"),
    )
    assert importers(*words, of=slow) == {}
    assert set(importers(*words, "--json", of=slow)) == {"hashlib"}


@pytest.mark.usefixtures("_three_machines")
def test_an_update_loads_no_masked_arrays() -> None:
    """A large part of numpy, which nothing here needs and some of its functions load."""
    if outcome("import sys, numpy; print('numpy.ma' in sys.modules)") == "True":
        leave_out("this numpy loads them by itself")
    assert importers("update", "image.hdr", "--machine", "one", of=("numpy.ma",)) == {}


def test_a_scan_of_a_dump_with_findings_does_without_numpy(tmp_path: Path) -> None:
    """To load it takes longer than to look at 1 GiB."""
    image = image_bytes(size_bytes=64 * KIB)
    packets = bytes(split(image, set_id=b"_A05"))
    (tmp_path / "ram.raw").write_bytes(bytes(MIB) + packets + bytes(MIB) + image + bytes(MIB))
    assert importers("scan", str(tmp_path / "ram.raw"), of=("numpy",)) == {}
    assert importers("scan", str(tmp_path / "ram.raw"), "--json", of=("numpy",)) == {}


@pytest.mark.usefixtures("rbu")
def test_the_modules_that_are_looked_for_are_seen_when_they_are_loaded() -> None:
    assert "numpy" in importers("balloon", "host", "xen")


def outcome(code: str, **environment: str) -> str:
    """What Python says when it runs this code by itself, without the spaces around it."""
    clean = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=clean | environment,
    )
    return done.stdout.strip()


def test_what_is_loaded_at_first_use_is_numpy() -> None:
    code = """
import sys
from openrbu.lazy import np, npt
before = "numpy" in sys.modules
zeros = np.zeros(4)
import numpy
print(before, isinstance(zeros, numpy.ndarray), np.uint8 is numpy.uint8, hasattr(np, "no_such"))
"""
    assert outcome(code) == "False True True False"


def test_threads_that_use_it_first_at_the_same_time_all_have_it() -> None:
    code = """
import threading
from openrbu.lazy import np
together, sums = threading.Barrier(8), []
def use():
    together.wait()
    sums.append(int(np.arange(4).sum()))
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sums)
"""
    assert outcome(code) == str([6] * 8)


THREADS = """
import os
from openrbu import lazy
{}
lazy.np.zeros(4)
print(len(os.listdir("/proc/self/task")), os.environ.get("OPENBLAS_NUM_THREADS"))
"""
"""Loads numpy; says how many threads there are then, and what our children would inherit."""


def test_a_command_has_no_threads_for_linear_algebra_and_its_programs_inherit_nothing() -> None:
    assert outcome(THREADS.format("lazy.use_one_blas_thread()")) == "1 None"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU, so no threads anyway")
def test_a_library_user_and_one_who_asks_have_their_threads() -> None:
    if outcome(THREADS.format(""), OPENBLAS_NUM_THREADS="2").startswith("1 "):
        leave_out("numpy has no threads here: no OpenBLAS, as in Debian")
    assert outcome(THREADS.format("")) != "1 None"
    asked = outcome(THREADS.format("lazy.use_one_blas_thread()"), OPENBLAS_NUM_THREADS="2")
    assert asked == "2 2"


# -- the table of commands ------------------------------------------------------------------------


def rows() -> dict[str, Row]:
    """All commands, by the words that call them."""
    found: dict[str, Row] = {}
    for name, row in COMMANDS.items():
        if isinstance(row, Group):
            found |= {f"{name} {second}": each for second, each in row.rows.items()}
        else:
            found[name] = row
    return found


@pytest.mark.parametrize("words", rows())
def test_each_command_of_the_table_is_there_and_shows_its_help(rbu: Cli, words: str) -> None:
    assert load(rows()[words]).__doc__
    ended = rbu(*words.split(), "--help")
    assert ended.code == 0
    assert ended.out.lstrip().startswith(f"Usage: rbu {words} ")


def test_a_command_loads_no_other_commands() -> None:
    code = """
import sys
from openrbu.cli.main import main
main(["module", "load", "--help"])
print([name for name in sys.modules if name in ("openrbu.cli.machines", "openrbu.cli.balloon")])
"""
    assert outcome(code).splitlines()[-1] == "[]"


def test_a_program_that_calls_many_commands_builds_each_of_them_once(
    rbu: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    rbu("machine", "list")
    monkeypatch.setattr(typer, "Typer", None)  # so that nothing can be built
    assert rbu("machine", "list").code == 0
