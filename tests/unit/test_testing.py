"""`openrbu.testing` and its pytest plugin, as the author of an update tool uses them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from openrbu import testing
from openrbu.errors import MachineError, UsageError
from rigs.machines import NEWER, image_bytes
from rigs.mounted import needs_fuse
from rigs.run import needs_root

pytest_plugins = ["pytester"]

MODEL = "precision-t7600"

SUITE = """
import os, subprocess
from pathlib import Path
import pytest
from openrbu.testing import DellMachine, Staged

pytestmark = pytest.mark.dell_machine(model="poweredge-2650", bios_version="A01")

@pytest.mark.dell_machine(model="precision-t7600", flash_size="128K")
def test_update(dell_machine: DellMachine) -> None:
    image = Path(os.environ["IMAGE"])
    dell_machine.load("dell_rbu")
    dell_machine.load("dell_rbu")
    assert dell_machine.bios.version == "A01"
    assert (dell_machine.armed, dell_machine.staged) == (False, None)
    dell_machine.rbu("update", image, "--machine", dell_machine.name, "--mode", "mono")
    assert dell_machine.armed
    assert dell_machine.staged == Staged("mono", image.stat().st_size)
    restarted = dell_machine.restart()
    assert restarted.post.version_after == dell_machine.bios.version == os.environ["NEWER"]
    assert not dell_machine.armed
    assert dell_machine.modules == ()

def test_run(dell_machine, tmp_path):
    assert os.environ["OPENRBU_HOME"] == str(dell_machine.home)
    script = "cat; pwd; echo wrong >&2; exit 3"
    done = dell_machine.run("sh", "-c", script, input="in ", cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == (f"in {tmp_path}\\n", "wrong\\n", 3)
    assert done.args[0] == "sh"
    with pytest.raises(subprocess.CalledProcessError):
        dell_machine.run("false", check=True)
    assert dell_machine.run("cat", "/sys/class/dmi/id/bios_version", trace=False).stdout == "A01\\n"

@pytest.mark.dell_machine(profile=["linux", "documented"], faults=["no-battery"])
def test_each(dell_machine):
    assert dell_machine.bios.version == "A01"

def test_fails(dell_machine):
    dell_machine.run("cat", "/sys/nowhere")
    assert dell_machine.trace.first_failure is None

def test_xen(xen_host):
    path = "/sys/devices/system/xen_memory/xen_memory0/target_kb"
    assert xen_host.run("cat", path).stdout == f"{256 << 10}\\n"
    assert xen_host.rbu("balloon", "show", xen_host.name)["guests"]

@pytest.mark.dell_machine(colour="red")
def test_wrong(dell_machine): pass
"""


def test_the_fixtures_make_machines_that_programs_run_on(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_fuse()
    image = pytester.path / "image.hdr"
    image.write_bytes(image_bytes(MODEL))
    monkeypatch.setenv("IMAGE", str(image))
    monkeypatch.setenv("NEWER", NEWER[MODEL])
    pytester.makepyfile(SUITE)
    pytester.makeini("[pytest]\naddopts = --strict-markers\nfilterwarnings = error")
    ended = pytester.runpytest_inprocess("--openrbu-required", "-v")
    ended.assert_outcomes(passed=5, failed=1, errors=1)
    ended.stdout.fnmatch_lines_random(
        [
            "*::test_each*no-battery* PASSED*",
            "*trace of the last program (dell_machine)*",
            "*cat[[]*lookup*/sys/nowhere*ENOENT*first failure*",
            "*a machine has no 'colour'; it has: *",
        ]
    )
    assert not list(pytester.path.rglob("machine.json"))
    assert "OPENRBU_HOME" not in os.environ


def test_a_computer_that_does_not_allow_it_is_a_skipped_test_or_a_failed_one(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here: one without /dev/fuse."""
    needs_root()
    monkeypatch.delenv("OPENRBU_NOTHING_LEFT_OUT", raising=False)
    pytester.makepyfile(
        """
        import pytest
        @pytest.fixture(autouse=True)
        def required(request):
            request.config.option.openrbu_required = "required" in request.node.name
        def test_skipped(dell_machine): pass
        def test_required(dell_machine): pass
        """
    )
    without = ("unshare", "--mount", "sh", "-euc", 'mount --bind /dev/null /dev/fuse; exec "$@"')
    ended = pytester.run(*without, "sh", sys.executable, "-m", "pytest", "-rs")
    ended.assert_outcomes(skipped=1, errors=1)
    ended.stdout.fnmatch_lines(
        [
            "*nothing may be left out, but no program can run*: /dev/fuse is another file: *",
            "SKIPPED*no program can run on a virtual machine here: /dev/fuse is another file: *",
        ]
    )


def test_a_mark_without_names_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.dell_machine("precision-390")
        def test_it(dell_machine): pass
        def test_other(): pass
        """
    )
    ended = pytester.runpytest_inprocess()
    ended.assert_outcomes(errors=1, passed=1)
    ended.stdout.no_fnmatch_line("*Traceback*")
    ended.stdout.fnmatch_lines(["*test_it: the mark dell_machine takes names, NAME=VALUE*"])


def test_where_it_is_not_used_the_plugin_loads_almost_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys
        def test_it():
            ours = {name for name in sys.modules if name.startswith("openrbu.")}
            assert ours <= {"openrbu.testing", "openrbu.testing.plugin"}
            assert not {"numpy", "openrbu._vendor", "rich", "mfusepy"} & set(sys.modules)
        """
    )
    pytester.runpytest_subprocess("-p", "no:hypothesis").assert_outcomes(passed=1)


def _opened_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def test_a_machine_outside_of_pytest_is_there_for_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_fuse()
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "mine"))
    with testing.machine(tmp_path / "home", ram="512M", faults="no-battery") as machine:
        assert repr(machine) == f"<DellMachine 'dell' in '{tmp_path}/home'>"
        with machine.opened() as opened:
            assert opened.virtual is not None
            assert opened.virtual.config.ram_bytes == 512 << 20
            assert opened.virtual.config.faults == ("no-battery",)
        with pytest.raises(UsageError, match="no program was run"):
            _ = machine.trace
        machine.load("dell_rbu")
        machine.run("sh", "-c", "echo -1 > /sys/class/firmware/dell_rbu/loading", check=True)
        machine.unload("dell_rbu")
        assert machine.modules == ()
        os.mkfifo(tmp_path / "fifo")
        forks = "while :; do (exec sleep 1000) & kill $last; last=$!; done"
        with open(tmp_path / "fifo", opener=_opened_at_once) as lines:
            with pytest.raises(subprocess.TimeoutExpired, match="Command '\\['sh', '-c', 'exec 3"):
                machine.run("sh", "-c", f"exec 3>{tmp_path}/fifo; {forks}", timeout=3)
            ended = select.poll()
            ended.register(lines, select.POLLHUP)
            assert ended.poll(60_000), "what it has started has the file open"
        assert testing.why_nothing_runs(machine) is None
        assert machine.restart(cold=True).post.completion_code is None
    assert os.environ["OPENRBU_HOME"] == str(tmp_path / "mine")
    with pytest.raises(MachineError):
        _ = machine.armed


@pytest.mark.parametrize("size", ["much", "-1"])
def test_a_size_that_is_none_is_told(tmp_path: Path, size: str) -> None:
    with pytest.raises(UsageError, match="ram_bytes: "), testing.machine(tmp_path, ram=size):
        pass
