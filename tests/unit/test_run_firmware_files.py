"""Firmware files that a program under `rbu run` makes: the machine's kernel finds them as a real
one does, and this computer's directories stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from rigs.cli import RBU, Cli
from rigs.machines import image_bytes
from rigs.run import USERS, Runner, runner, with_python

PLACES = ("/lib/firmware", "/run")

DEVICE = "/sys/devices/platform/dell_rbu"

TOOL = f"""
modprobe dell_rbu
give() {{
    mkdir -p "$1"; echo "$2" > "$1/dell_rbu"
}}
staged() {{
    echo init > {DEVICE}/image_type; cat {DEVICE}/data
}}
ls -d /sys/class/firmware /run/openrbu-firmware /run/.root 2> /dev/null || :
readlink /proc/1/root
staged 2> /dev/null || echo nothing
give /lib/firmware default; staged
give "/lib/firmware/$(uname -r)" release; staged
give /lib/firmware/updates updates; staged
give "/lib/firmware/updates/$(uname -r)" first; staged
give /run/of-a-tool named; ln -s /run/of-a-tool /run/link
printf /run/link > /sys/module/firmware_class/parameters/path; staged
mkdir -p /run/top/run/top; echo chroot > /run/top/run/top/dell_rbu
printf "/proc/$$/root/run/top/run/top" > /sys/module/firmware_class/parameters/path; staged
printf /sys > /sys/module/firmware_class/parameters/path; staged
"""


def there() -> dict[str, list[str]]:
    """What this computer has in the directories."""
    return {each: sorted(map(str, Path(each).rglob("*"))) for each in PLACES}


@pytest.fixture(params=USERS)
def run(request: pytest.FixtureRequest, rbu: Cli, tmp_path: Path) -> Runner:
    home = tmp_path / "home"
    return runner(home, request.param, "precision-390", faults=("no-firmware-entry",))


def test_a_tool_gives_an_image_as_a_file(run: Runner) -> None:
    before = there()
    said = run.says("sh", "-eufc", TOOL).split()
    assert said == [
        "/",
        "nothing",
        "default",
        "release",
        "updates",
        "first",
        "named",
        "chroot",
        "first",
    ]
    assert there() == before


def test_an_update_inside_gives_its_image_as_a_file(run: Runner, tmp_path: Path) -> None:
    before = there()
    path = tmp_path / "home" / "image.hdr"
    path.write_bytes(image_bytes())
    run = with_python(run, tmp_path / "hold")
    ended = run(*RBU, "update", path)
    assert ended.returncode == 0, ended
    status = run(*RBU, "status", "--json")
    assert '"is_armed": true' in status.stdout, status
    assert there() == before
