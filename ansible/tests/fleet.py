"""A roll-out to many virtual machines by the real ansible-playbook, with accidents (`make fleet`).

Models, kernels and accidents are drawn by a seed. The controller is killed at random moments, and
the same command is run again until it ends by itself. Then each machine is asked what it is, and
that is compared with what its accident leads to, with the ledger's summary and with its flash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrbu import api
from rigs.machines import NEWER
from rigs.playbooks import Fleet, made_image
from rigs.rollouts import Begun

PASSWORD = "Zq7-geheim"
UNTOUCHED, UPDATED, FAILED = "untouched", "updated", "failed"


@dataclass(frozen=True, slots=True)
class Accident:
    """What is wrong with a machine, and what a roll-out has to make of it: `leads_to` where its
    turn comes."""

    name: str
    leads_to: str
    faults: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    password: str = ""
    is_given: bool = False
    before: str = ""


FINE = Accident("none", UPDATED)
ACCIDENTS = (
    Accident("erase fails", FAILED, ("erase-fails",)),
    Accident("memory is cleared at the restart", FAILED, ("restart-clears-memory",)),
    Accident("cold restart, and no way to change it", UNTOUCHED, ("cold-restart",)),
    Accident("image for another system", UNTOUCHED, before="wrong image"),
    Accident(
        "memory in small pieces, BIOS takes packets", UPDATED, ("fragmented=2",), ("precision-390",)
    ),
    Accident(
        "memory in small pieces, BIOS takes none",
        UNTOUCHED,
        ("fragmented=2",),
        ("poweredge-2650", "latitude-d500"),
    ),
    Accident("password", UPDATED, (), ("precision-t7600",), PASSWORD, is_given=True),
    Accident("password that nobody has given", UNTOUCHED, (), ("precision-t7600",), PASSWORD),
    Accident("no module", UNTOUCHED, ("no-module",)),
    Accident("armed for another image before", UNTOUCHED, before="armed for another"),
    Accident("armed for this image before", UPDATED, before="armed"),
    Accident("runs the version already", UPDATED, before="has it"),
)
PROFILES = ("documented", "linux-2.6.16", "linux-6.16", "linux")


@dataclass(frozen=True, slots=True)
class Drawn:
    """One machine of the fleet."""

    name: str
    model: str
    profile: str
    accident: Accident


def draw(count: int, seed: int, failing: int) -> list[Drawn]:
    """The machines: a third of them with an accident, of which `failing` fail at the restart. The
    first is fine, because the canary would stop everything."""
    dice = random.Random(seed)
    models = tuple(NEWER)
    fail = [each for each in ACCIDENTS if each.leads_to == FAILED]
    other = [each for each in ACCIDENTS if each.leads_to != FAILED]
    accidents = [dice.choice(fail) for _ in range(failing)]
    accidents += [other[number % len(other)] for number in range(count // 3 - failing)]
    accidents += [FINE] * (count - 1 - len(accidents))
    dice.shuffle(accidents)
    return [
        Drawn(f"m{number:05}", dice.choice(each.models or models), dice.choice(PROFILES), each)
        for number, each in enumerate([FINE, *accidents])
    ]


def image_for(directory: Path, drawn: Drawn) -> Path:
    wrong = drawn.accident.before == "wrong image"
    models = list(NEWER)
    model = models[(models.index(drawn.model) + 1) % len(models)] if wrong else drawn.model
    return directory / f"{model}-{NEWER[model]}.hdr"


def build(work: tuple[Path, Drawn]) -> str:
    """Make a machine with what had happened to it before; the digest of its flash."""
    directory, drawn = work
    fleet = Fleet(directory)
    accident = drawn.accident
    has_it = accident.before == "has it"
    made = fleet.machine(
        drawn.name,
        drawn.model,
        profile=drawn.profile,
        faults=accident.faults,
        **({"admin_password": accident.password} if accident.password else {}),
        **({"bios_version": NEWER[drawn.model]} if has_it else {}),
    )
    if accident.before.startswith("armed"):
        os.environ["OPENRBU_HOME"] = str(fleet.home)
        which = directory / f"{drawn.model}-other.hdr"
        image = which if "another" in accident.before else image_for(directory, drawn)
        with api.open_machine(drawn.name) as machine:
            machine.update(machine.plan(api.read_image(image)))
    return hashlib.sha256((made / "flash").read_bytes()).hexdigest()


def look(work: tuple[Path, str]) -> dict[str, Any]:
    """What a machine says of itself afterwards."""
    directory, name = work
    os.environ["OPENRBU_HOME"] = str(directory / "home")
    with api.open_machine(name, reading=True) as machine:
        status = machine.status()
        history = machine.history()
        return {
            "version": str(status.target.bios.version),
            "is_armed": status.is_armed,
            "next_restart": str(status.next_restart),
            "outcomes": [each.outcome for each in history],
            "sha256": history[-1].fields.get("sha256") if history else None,
            "succeeded": history[-1].fields.get("succeeded") if history else None,
            "flash": hashlib.sha256(
                (directory / "home/machines" / name / "flash").read_bytes()
            ).hexdigest(),
        }


class RollOut:
    """The playbook of the collection, on one fleet."""

    def __init__(self, fleet: Fleet, drawn: Sequence[Drawn], forks: int) -> None:
        self.fleet, self.forks = fleet, forks
        self.canary_waves = 1
        self.reports = fleet.directory / "rollout"
        hosts = fleet.directory / "host_vars"
        hosts.mkdir()
        for each in drawn:
            variables = {"rollout_image": str(image_for(fleet.directory, each))}
            if each.accident.is_given:
                variables["rollout_password"] = PASSWORD
            (hosts / f"{each.name}.yml").write_text(json.dumps(variables), "utf-8")

    def run(self, budget: int, kill_after_s: float | None = None) -> int | None:
        """Run it; None: the controller was killed after that time. A canary goes ahead in the first
        run only: who is first in a later one may be a machine that fails, and stop it."""
        settings = {
            "rollout_budget": budget,
            "rollout_canary_waves": self.canary_waves,
            "rollout_unstaged_allowed": "50%",
            "rollout_directory": str(self.reports),
        }
        self.canary_waves = 0
        words = ["-f", str(self.forks), "-e", json.dumps(settings)]
        with (
            (self.fleet.directory / "printed").open("ab") as printed,
            Begun(self.fleet, *words, printed=printed) as begun,
        ):
            try:
                return begun.process.wait(kill_after_s)
            except subprocess.TimeoutExpired:
                begun.kill_controller()
                return None

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.reports / "summary.json").read_text("utf-8"))
        return found


def wrong(
    drawn: Drawn, before: str, now: Mapping[str, Any], told: Mapping[str, Any], *, is_over: bool
) -> list[str]:
    """What is not as it has to be with one machine. `is_over`: each machine had its turn."""
    problems = []
    state, accident = told["state"], drawn.accident
    runs_new = now["version"] == NEWER[drawn.model]
    had_it = accident.before == "has it"
    if runs_new != (state in ("updated", "up_to_date")):
        problems.append(f"the summary says {state}, and {now['version']} runs")
    if (now["flash"] != before) != (runs_new and not had_it):
        problems.append(f"{now['version']} runs, and its flash is {now['flash']}")
    if runs_new and accident.leads_to != UPDATED:
        problems.append(f"was updated, in spite of: {accident.name}")
    if accident.leads_to == UNTOUCHED and (
        state not in ("not_staged",) or "result" in now["outcomes"]
    ):
        problems.append(f"was touched, in spite of: {accident.name}")
    if now["is_armed"] and accident.before != "armed for another":
        digest = hashlib.sha256(made_image(drawn.model)).hexdigest()
        if (now["next_restart"], now["sha256"]) != ("updates", digest):
            problems.append(f"armed, and not verified: {now}")
    if is_over:
        wanted = {UPDATED: runs_new, FAILED: state in ("failed", "failed_before")}
        if not wanted.get(accident.leads_to, True):
            problems.append(f"did not end as {accident.leads_to}: {told}")
    return [f"{drawn.name} ({drawn.model}, {accident.name}): {each}" for each in problems]


def report_problems(roll_out: RollOut, now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where `rbu report` says something else than the machines."""
    files = sorted((roll_out.reports / "machines").glob("*.json"))
    rows = {each["name"]: each for each in roll_out.fleet.rbu("report", *files)["machines"]}
    if rows.keys() != now.keys():
        return [f"the report lacks {sorted(now.keys() - rows.keys())}"]
    return [
        f"the report says of {name}: {rows[name]['bios_version']}, {rows[name]['outcome']}"
        for name, each in now.items()
        if rows[name]["bios_version"] != each["version"]
        or (rows[name]["outcome"] == "refused") != (each["succeeded"] is False)
    ]


def secrets_left(directory: Path) -> list[str]:
    """Files with the password in them, but for those that the operator wrote."""
    found = subprocess.run(
        ["grep", "-rlF", "--exclude-dir=host_vars", PASSWORD, str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.splitlines()


def main() -> int:
    """Make the fleet, roll out, check. The exit code is 1 where anything is not as it has to be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--forks", type=int, default=3)
    parser.add_argument("--directory", type=Path)
    asked = parser.parse_args()
    directory = asked.directory or Path(tempfile.mkdtemp(prefix="openrbu-fleet-"))
    fleet = Fleet(directory)
    failing = max(4, asked.machines // 50)
    drawn = draw(asked.machines, asked.seed, failing)
    for model in NEWER:
        fleet.image(NEWER[model], model)
        (directory / f"{model}-other.hdr").write_bytes(made_image(model, seed=7))
    clock = Clock()
    with ProcessPoolExecutor(2) as pool:
        flashes = list(pool.map(build, [(directory, each) for each in drawn], chunksize=8))
    clock.tell(f"made {len(drawn)} machines")
    problems: list[str] = []
    roll_out = RollOut(fleet, drawn, asked.forks)
    dice = random.Random(asked.seed)
    for budget in (failing // 2, failing + 1):
        kills = asked.kills if budget < failing else 0
        while (
            code := roll_out.run(
                budget, dice.uniform(3, 0.1 * asked.machines + 4) if kills > 0 else None
            )
        ) is None:
            kills -= 1
            clock.tell("killed the controller")
        summary = roll_out.summary
        clock.tell(f"budget {budget}: exit code {code}, {summary['counts']}, {summary['stopped']}")
        with ProcessPoolExecutor(2) as pool:
            now = list(pool.map(look, [(directory, each.name) for each in drawn], chunksize=8))
        is_over = budget > failing
        for each, before, after in zip(drawn, flashes, now, strict=True):
            told = summary["machines"][each.name]
            problems += wrong(each, before, after, told, is_over=is_over)
        named = {each.name: after for each, after in zip(drawn, now, strict=True)}
        problems += report_problems(roll_out, named)
        failed = sum(each["succeeded"] is False for each in now)
        if failed > budget or (not is_over and failed != budget):
            problems.append(f"{failed} have failed, and the budget is {budget}")
        if bool(summary["stopped"]) == is_over or code == 0:
            problems.append(f"stopped: {summary['stopped']}, exit code {code}")
        clock.tell("looked at each machine")
    problems += [f"the password is in {each}" for each in secrets_left(directory)]
    print(*problems, sep="\n")
    accidents = Counter(each.accident.name for each in drawn)
    print(*(f"{count:6} {name}" for name, count in sorted(accidents.items())), sep="\n")
    is_kept = bool(problems or asked.directory)
    clock.tell(f"{len(problems)} problems{f'; in {directory}' if is_kept else ''}")
    if not is_kept:
        shutil.rmtree(directory)
    return 1 if problems else 0


class Clock:
    """Tells the time since the start, and the processor time of all that has ended."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def tell(self, what: str) -> None:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        processor = sum(each.ru_utime + each.ru_stime for each in used)
        print(
            f"{time.monotonic() - self._began:7.1f} s, {processor:6.1f} CPU s: {what}", flush=True
        )


if __name__ == "__main__":
    sys.exit(main())
