"""What comes in the way of an update after its plan was made is seen before anything is changed,
and once more before the BIOS is armed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import ObstacleError
from openrbu.hosts.virtual import VirtualHost
from openrbu.update import flow
from openrbu.update.arming import arm
from openrbu.update.driver import IMAGE_TYPE
from openrbu.update.journal import Journal
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from rigs.machines import Quiet, Watched, image, make, running, status, update

KEXEC = "/etc/default/kexec"
SUPPLY = "/sys/class/power_supply"


class WithFiles(Watched):
    """A host that has further files from `begin` on, below `/etc` or `/sys`."""

    def __init__(self, host: Any, files: dict[str, str]) -> None:
        self.is_there = False

        def there() -> dict[str, str]:
            return files if self.is_there else {}

        def exists(path: str) -> bool:
            below = any(each.startswith(f"{path}/") for each in there())
            return path in there() or below or bool(host.exists(path))

        def names(path: str) -> list[str]:
            start = f"{path}/"
            mine = [each for each in there() if each.startswith(start)]
            found = {each.removeprefix(start).split("/")[0] for each in mine}
            return sorted(found) if found else list(host.names(path))

        def chunks(path: str, size_bytes: int, offset: int = 0) -> Iterator[bytes]:
            if path in there():
                yield there()[path].encode()
            else:
                yield from host.chunks(path, size_bytes, offset)

        super().__init__(
            host, lambda *_: None, {"exists": exists, "names": names, "chunks": chunks}
        )


ON_BATTERY = {
    f"{SUPPLY}/BAT0/type": "Battery\n",
    f"{SUPPLY}/BAT0/present": "1\n",
    f"{SUPPLY}/BAT0/status": "Discharging\n",
    f"{SUPPLY}/BAT0/capacity": "80\n",
}

CASES = pytest.mark.parametrize(
    ("files", "says"),
    [
        ({KEXEC: "LOAD_KEXEC=true\n"}, "kexec-tools starts another kernel"),
        (ON_BATTERY, "runs on its battery"),
    ],
    ids=["kexec", "battery"],
)


class At(Quiet):
    """Progress that calls `then` at a step."""

    def __init__(self, step: str, then: Callable[[], None]) -> None:
        self._step, self._then = step, then

    def step(self, text: str) -> None:
        if text.startswith(self._step):
            self._then()


@CASES
def test_what_comes_after_the_plan_ends_an_update_before_it_begins(
    tmp_path: Path, files: dict[str, str], says: str
) -> None:
    with running(make(tmp_path)) as machine:
        host = WithFiles(VirtualHost(machine), files)
        plan = make_plan(host, image(), Options())
        assert plan.refusal is None
        host.is_there = True
        with pytest.raises(ObstacleError, match=says):
            flow.perform(host, plan, Quiet())
        assert Journal.of(host).last is None
        assert not host.module_is_loaded("dell_rbu")


@CASES
def test_what_comes_while_it_is_staged_is_seen_before_the_bios_is_armed(
    tmp_path: Path, files: dict[str, str], says: str
) -> None:
    with running(make(tmp_path)) as machine:
        host = WithFiles(VirtualHost(machine), files)
        before, plan = status(machine), make_plan(host, image(), Options())

        def begin() -> None:
            assert host.exists(IMAGE_TYPE)
            host.is_there = True

        with pytest.raises(ObstacleError, match=says):
            flow.perform(host, plan, At("verifying", begin))
        last = Journal.of(host).last
        assert last is not None
        assert (last.outcome, last.is_verified) == ("failed", False)
        assert status(machine) == before


@CASES
def test_what_comes_while_it_waits_to_be_armed_is_seen_then(
    tmp_path: Path, files: dict[str, str], says: str
) -> None:
    with running(make(tmp_path)) as machine:
        host = WithFiles(VirtualHost(machine), files)
        update(host, image(), arm=False)
        before = status(machine)
        host.is_there = True
        with pytest.raises(ObstacleError, match=says):
            arm(host)
        assert status(machine) == before
        host.is_there = False
        assert arm(host).is_armed
