"""Tests of the updater on virtual Dells: the fixture comes with openrbu's pytest plugin."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
SYSTEM = "0x0495"  # a Precision T7600
MIB = 1 << 20

pytestmark = pytest.mark.dell_machine(model="precision-t7600", flash_size=MIB)


@pytest.fixture
def image(dell_machine, tmp_path):
    """An image that the machine's BIOS takes, of a newer version."""
    data, image = tmp_path / "bios.bin", tmp_path / "new.hdr"
    data.write_bytes(b"a new BIOS".ljust(MIB, b"\xff"))
    words = ["--bios-version", "A02", "--system", SYSTEM, "--flash-size", str(MIB)]
    dell_machine.rbu("build", data, "-o", image, *words)
    return image


@pytest.mark.dell_machine(profile="linux")
def test_the_new_bios_runs_after_the_restart(dell_machine, image):
    dell_machine.run(HERE / "update-fixed.sh", image, check=True)
    assert dell_machine.armed
    assert dell_machine.staged.mode == "packet"
    dell_machine.restart()
    assert dell_machine.bios.version == "A02"


@pytest.mark.dell_machine(profile="linux", faults=["allocations-fail-after=100", "cold-restart"])
def test_where_it_can_not_work_the_bios_is_not_armed(dell_machine, image):
    done = dell_machine.run(HERE / "update-fixed.sh", image)
    assert done.returncode == 1
    assert "the BIOS is not armed" in done.stderr
    assert (dell_machine.armed, dell_machine.staged) == (False, None)
