"""The ledger: never more than the budget fail, wave after wave, whatever the workers do."""

from __future__ import annotations

import datetime as dt
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openrbu.policy.model import Window
from openrbu.policy.windows import window_state
from rigs.playbooks import plugin_util

LEDGER = plugin_util("ledger")


def opened(directory: Path, states: list[str], **rules: Any) -> Path:
    path = directory / "ledger.db"
    entries = [LEDGER.Entry(f"m{number}", state) for number, state in enumerate(states)]
    rules = {"waves": [1, 2, "25%"], "budget": 2, "canary_waves": 1} | rules
    LEDGER.open_ledger(path, entries, **rules)
    return path


@pytest.mark.parametrize("seed", range(5))
def test_workers_at_the_same_time_keep_the_budget_and_the_waves(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    budget = dice.randint(1, 4)
    fails = {f"m{number}" for number in dice.sample(range(1, 40), 8)}
    path = opened(tmp_path, ["waiting"] * 40, budget=budget)
    names = [f"m{number}" for number in range(40)]
    under_way: set[str] = set()
    most, lock = [0], threading.Lock()
    queue = iter(names)

    def worker() -> None:
        while True:
            with lock:
                name = next(queue, None)
            if name is None:
                return
            state, _ = LEDGER.take(path, name)
            if state != "restarting":
                continue
            with lock:
                under_way.add(name)
                failed = sum(
                    each["state"] == "failed" for each in LEDGER.summary(path)["machines"].values()
                )
                most[0] = max(most[0], len(under_way) + failed)
                under_way.remove(name)
            LEDGER.give(path, name, updated=name not in fails, message="")

    workers = [threading.Thread(target=worker) for _ in range(5)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    summary = LEDGER.summary(path)
    assert summary["counts"].get("failed", 0) == budget
    assert most[0] <= budget
    assert summary["stopped"]
    assert LEDGER.is_over(path)
    waves = {True: [-1], False: [99]}
    for each in summary["machines"].values():
        waves[each["state"] != "stopped"].append(each["wave"])
    assert max(waves[True]) <= min(waves[False])


def test_a_failed_canary_stops_whatever_the_budget_is(tmp_path: Path) -> None:
    path = opened(tmp_path, ["waiting"] * 9, budget=9)
    assert LEDGER.take(path, "m0")[0] == "restarting"
    LEDGER.give(path, "m0", updated=False, message="0x000a")
    state, why = LEDGER.take(path, "m1")
    assert (state, why) == ("stopped", "not restarted: the canary m0 has failed")


def test_one_machine_says_for_all_why_they_do_not_restart_in_each_run(tmp_path: Path) -> None:
    for _run in range(2):
        path = opened(tmp_path, ["waiting"] * 3)
        asked = [LEDGER.speaks_for_all(path, name, "late") for name in ("m1", "m0", "m1", "m2")]
        assert asked == [True, False, True, False]
        assert LEDGER.speaks_for_all(path, "m2", "the budget is used up")


def test_a_next_step_is_not_begun_where_the_roll_out_has_stopped(tmp_path: Path) -> None:
    path = opened(tmp_path, ["waiting"] * 4, budget=2, canary_waves=0, waves=[4])
    for name in ("m0", "m1"):
        assert LEDGER.take(path, name)[0] == "restarting"
    assert LEDGER.go_on(path) == ""
    LEDGER.give(path, "m0", updated=False, message="0x000a")
    assert LEDGER.go_on(path) == ""
    LEDGER.leave(path, "m1", "its next step is not staged", "not_staged")
    assert LEDGER.take(path, "m2")[0] == "restarting"
    LEDGER.give(path, "m2", updated=False, message="0x000a")
    assert LEDGER.go_on(path) == "the budget is used up: 2 failed, and 2 may"


def test_failures_of_an_earlier_run_count(tmp_path: Path) -> None:
    path = opened(tmp_path, ["failed_before", "waiting", "failed_before"], budget=2)
    assert LEDGER.take(path, "m1")[0] == "stopped"
    path = opened(tmp_path, ["failed_before", "waiting", "failed_before"], budget=3)
    assert LEDGER.take(path, "m1")[0] == "restarting"


@pytest.mark.parametrize("state", ["pinned", "not_in_policy", "up_to_date", "not_staged"])
def test_who_is_left_alone_uses_up_nothing(tmp_path: Path, state: str) -> None:
    path = opened(tmp_path, [state, "waiting", state], budget=1)
    assert LEDGER.take(path, "m0")[0] == state
    assert LEDGER.take(path, "m1")[0] == "restarting"
    LEDGER.give(path, "m1", updated=True, message="")
    assert LEDGER.is_over(path)
    assert LEDGER.summary(path)["counts"] == {state: 2, "updated": 1}


def test_a_machine_whose_worker_is_gone_has_failed(tmp_path: Path) -> None:
    path = opened(tmp_path, ["waiting"] * 3, budget=1)
    assert LEDGER.take(path, "m0")[0] == "restarting"
    with LEDGER._changing(path) as database:
        database.execute("update machine set process = '4194304 1' where name = 'm0'")
    assert LEDGER.take(path, "m1")[0] == "stopped"
    assert LEDGER.summary(path)["machines"]["m0"]["state"] == "failed"


def reopened(path: Path, states: dict[str, str], **rules: Any) -> dict[str, Any]:
    """The machines of the next run on that ledger."""
    entries = [LEDGER.Entry(name, state, "as staging says") for name, state in states.items()]
    rules = {"waves": [], "budget": 2, "canary_waves": 0} | rules
    machines: dict[str, Any] = LEDGER.open_ledger(path, entries, **rules)["machines"]
    return machines


def ended(directory: Path) -> Path:
    """A ledger whose run ended so: m0 failed, m1 was updated, m2 restarts, m3 waits."""
    path = opened(directory, ["waiting"] * 4, budget=4, canary_waves=0, waves=[])
    for name in ("m0", "m1", "m2"):
        assert LEDGER.take(path, name)[0] == "restarting"
    LEDGER.give(path, "m0", updated=False, message="0x000a")
    LEDGER.give(path, "m1", updated=True, message="A06 runs")
    return path


def kill(path: Path, name: str) -> None:
    """Let the worker be gone that restarts a machine."""
    with LEDGER._changing(path) as database:
        database.execute("update machine set process = '4194304 1' where name = ?", (name,))


def test_who_failed_or_restarted_and_is_not_reached_now_has_failed(tmp_path: Path) -> None:
    path = ended(tmp_path)
    kill(path, "m2")
    for _ in range(2):
        now = reopened(
            path, {f"m{number}": "not_staged" for number in range(4)} | {"m4": "waiting"}
        )
        assert [now[name]["state"] for name in ("m0", "m1", "m2", "m3")] == [
            "failed_before",
            "not_staged",
            "failed_before",
            "not_staged",
        ]
        assert now["m0"]["message"] == "0x000a; now: as staging says"
        assert "nobody has heard how it ended" in now["m2"]["message"]
        assert now["m1"]["updated_at"]
        state, why = LEDGER.take(path, "m4")
        assert state == "stopped"
        assert "2 failed, and 2 may" in why


def test_a_machine_that_answers_knows_better_than_the_ledger(tmp_path: Path) -> None:
    path = ended(tmp_path)
    kill(path, "m2")
    now = reopened(path, {"m0": "waiting", "m1": "up_to_date", "m2": "up_to_date", "m3": "waiting"})
    assert [each["state"] for each in now.values()] == [
        "waiting",
        "up_to_date",
        "up_to_date",
        "waiting",
    ]
    assert LEDGER.take(path, "m0")[0] == "restarting"


def test_a_worker_of_a_killed_controller_is_waited_for_and_counted(tmp_path: Path) -> None:
    path = ended(tmp_path)
    now = reopened(path, {"m2": "not_staged", "m3": "waiting"}, budget=2, inventory=["m2", "m3"])
    assert (now["m0"]["state"], now["m2"]["state"]) == ("failed_before", "restarting")
    found: list[tuple[str, str]] = []
    asking = [
        threading.Thread(target=lambda name=name: found.append(LEDGER.take(path, name)))
        for name in ("m2", "m3")
    ]
    for each in asking:
        each.start()
    asking[0].join(0.5)
    assert found == []
    LEDGER.give(path, "m2", updated=False, message="0x000a")
    for each in asking:
        each.join()
    assert ("failed", "0x000a") in found
    assert {state for state, _ in found} == {"failed", "stopped"}


def test_a_machine_that_an_orphan_leaves_is_taken_by_the_run_that_waits_for_it(
    tmp_path: Path,
) -> None:
    path = ended(tmp_path)
    reopened(path, {"m2": "not_staged", "m3": "waiting"}, budget=2, inventory=["m2", "m3"])
    assert LEDGER.was_of_another(path, "m2")
    LEDGER.leave(path, "m2", "the next step was not made: the controller is gone", "waiting")
    assert LEDGER.take(path, "m2")[0] == "restarting"
    assert LEDGER.was_of_another(path, "m2")
    assert not LEDGER.was_of_another(path, "m3")


def test_who_is_left_out_of_a_run_counts(tmp_path: Path) -> None:
    path = ended(tmp_path)
    kill(path, "m2")
    now = reopened(path, {"m4": "waiting"}, inventory=["m1", "m2", "m3", "m4"])
    assert {name: each["state"] for name, each in now.items()} == {
        "m4": "waiting",
        "m0": "failed_before",
        "m1": "updated",
        "m2": "failed_before",
        "m3": "stopped",
    }
    assert [name for name, each in now.items() if each["takes_part"]] == ["m4"]
    assert LEDGER.take(path, "m4")[0] == "stopped"
    now = reopened(path, {"m4": "waiting"}, inventory=["m4"])
    assert sorted(now) == ["m0", "m2", "m4"]


def test_a_share_is_one_of_all_machines_in_each_run(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    for part, budget in ((4, 2), (6, 3), (2, 3)):
        states = {f"m{number}": "waiting" for number in range(part)}
        if part == 6:
            states |= {"m0": "failed_before", "m1": "failed_before", "m2": "up_to_date"}
        reopened(path, states, budget="50%")
        assert LEDGER.summary(path)["budget"] == budget


def test_a_ledger_that_is_damaged_is_no_new_beginning(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no ledger " * 99)
    with pytest.raises(ValueError, match="who has failed before is not known"):
        opened(tmp_path, ["waiting"])


@given(
    st.lists(st.one_of(st.integers(1, 50), st.integers(1, 100).map(lambda n: f"{n}%"))),
    st.integers(0, 3000),
)
def test_waves_have_each_machine_once(waves: list[object], count: int) -> None:
    sizes = LEDGER.wave_sizes(waves, count)
    assert sum(sizes) == count
    assert all(size > 0 for size in sizes)


def test_the_waves_of_a_thousand() -> None:
    assert LEDGER.wave_sizes([1, 10, "1%", "10%"], 1000) == [1, 10, 10, 100, 879]


@pytest.mark.parametrize("what", ["none", "-1", "1.5", "%", ""])
def test_what_is_no_number_and_no_share_is_refused(what: str) -> None:
    with pytest.raises(ValueError, match="number of machines or a share"):
        LEDGER.share_of(what, 10)


@pytest.mark.parametrize("what", [0, "0", "0%", "00", "101%", "300%"])
def test_a_number_of_machines_is_one_at_least_and_a_share_is_of_all(what: object) -> None:
    with pytest.raises(ValueError, match=r"one machine or more|100% or less"):
        LEDGER.share_of(what, 10)


@pytest.mark.parametrize(
    ("window", "time", "is_in"),
    [
        ("", "12:00", True),
        ("22:00-04:30", "23:00", True),
        ("22:00-04:30", "04:29", True),
        ("22:00-04:30", "04:30", False),
        ("09:00-17:00", "08:59", False),
        ("09:00-17:00", "09:00", True),
    ],
)
def test_a_window_may_go_over_midnight(window: str, time: str, is_in: bool) -> None:
    assert LEDGER.in_window(window, dt.time.fromisoformat(time)) is is_in


TIMES = st.times().map(lambda each: each.replace(second=0, microsecond=0))


@given(TIMES, TIMES, TIMES, st.sampled_from(["other", "begin", "end"]))
@example(dt.time(22), dt.time(22), dt.time(12), "other")
def test_a_window_means_what_it_means_in_a_policy(
    begin: dt.time, end: dt.time, other: dt.time, at: str
) -> None:
    """Also one that ends when it begins: that is the whole day."""
    now = {"other": other, "begin": begin, "end": end}[at]
    window = Window(frozenset(range(7)), begin, end, dt.UTC, "UTC")
    moment = dt.datetime.combine(dt.date(2026, 11, 29), now, dt.UTC)
    is_open = window_state((window,), moment).is_open
    assert LEDGER.in_window(f"{begin:%H:%M}-{end:%H:%M}", now) is is_open


def test_a_window_that_is_none_is_refused() -> None:
    for window in ("22-4", "25:00-01:00", "22:00"):
        with pytest.raises(ValueError, match="written as"):
            LEDGER.check_window(window)
