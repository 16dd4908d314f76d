"""The page of `rbu report` in a real browser: filters, order, history, keys, hostile texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openrbu.reports.answers import read_answers
from openrbu.reports.page import page_of
from openrbu.reports.report import make_report
from rigs.browser import Page, browser

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=hacked=1>\u2028"
MANY = 1200
"""More machines than a page lists at first."""


def status(
    name: str, ending: str | None, *, model: str = "PowerEdge R610", minute: int = 0, **more: Any
) -> dict[str, Any]:
    """What `rbu status --json` says on a computer of this name."""
    at = f"2026-11-29T06:{minute:02}:00+00:00"
    last = None
    if ending is not None:
        last = {
            "id": f"of-{name}",
            "outcome": "armed" if ending == "pending" else "result",
            "from_version": "6.3.0",
            "to_version": "6.6.0",
            "version_now": "6.6.0" if ending == "updated" else "6.3.0",
            "completion_code": {"updated": "0x0000", "refused": "0x000a"}.get(ending),
            "ending": ending,
            "likely_cause": "the flash is broken" if ending == "refused" else None,
            "why": None,
            "events": [{"event": "started", "at": at}, {"event": "result", "at": at}],
        }
    document = {
        "schema": 1,
        "said": {"command": "status", "machine": None, "computer": name, "at": at},
        "machine": {
            "vendor": "Dell Inc.",
            "product": model,
            "service_tag": f"TAG{name}"[:7],
            "system_id": "0x0236",
            "system_name": None,
        },
        "bios": {"version": "6.6.0" if ending == "updated" else "6.3.0"},
        "is_armed": ending == "pending",
        "state": "armed" if ending == "pending" else "none",
        "next_restart": "updates" if ending == "pending" else "changes_nothing",
        "completion": None,
        "update_under_way": None,
        "last_update": last,
    }
    return document | more


def page_file(path: Path, documents: list[dict[str, Any]]) -> Path:
    data = "\n".join(map(json.dumps, documents)).encode()
    path.write_text(page_of(make_report(read_answers(data, "answers.jsonl"))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    documents = [
        status("web10", "updated", minute=3),
        status("web9", "refused", minute=1, model="PowerEdge 2950"),
        status("db1", "pending", minute=2),
        status("db2", None, minute=4, model=HOSTILE),
    ]
    return page_file(tmp_path_factory.mktemp("report") / "report.html", documents)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(started: Page, path: Path) -> Iterator[Page]:
    """The page, just opened. Whatever a test does, it complains of nothing and asks for nothing."""
    started.set_scheme("light")
    started.resize(1280, 900)
    started.open(path)
    yield started
    assert started.complaints() == []
    assert started.requests() == [path.as_uri()]


def names(page: Page) -> list[str]:
    """The machines that are listed, from the top."""
    found: list[str] = page.ask(
        "[...document.querySelectorAll('#rows tr.machine > th')].map((each) => each.textContent)"
    )
    return found


def click(page: Page, selector: str) -> None:
    """Click in the middle of an element, as a mouse does."""
    box = page.ask(
        f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
        "return {x: r.x + r.width / 2, y: r.y + r.height / 2}; })"
        f"(document.querySelector({json.dumps(selector)}))"
    )
    page.click(box["x"], box["y"])


def choose(page: Page, name: str, text: str) -> None:
    page.ask(
        f"(e => {{ const wanted = {json.dumps(text)};"
        "e.selectedIndex = [...e.options].findIndex((each) => each.text === wanted);"
        "e.dispatchEvent(new Event('change')); })"
        f"(document.querySelector('#{name}'))",
    )


def test_a_click_on_a_column_sorts_and_another_one_turns_the_order(page: Page) -> None:
    assert names(page) == ["db1", "db2", "web9", "web10"], "9 before 10"
    head = "th[data-key={}]"
    assert page.ask("document.querySelector('th[data-key=name]').ariaSort") == "ascending"
    click(page, head.format("name") + " button")
    assert names(page) == ["web10", "web9", "db2", "db1"]
    assert page.ask("document.querySelector('th[data-key=name]').ariaSort") == "descending"
    click(page, head.format("at") + " button")
    assert names(page) == ["web9", "db1", "web10", "db2"]
    assert page.ask("document.querySelector('th[data-key=name]').ariaSort") == "none"
    click(page, head.format("outcome") + " button")
    assert names(page)[0] == "web9", "what is bad first"
    assert names(page)[-1] == "web10"


def test_filters_go_together_and_are_cleared(page: Page) -> None:
    choose(page, "model", "PowerEdge R610")
    assert names(page) == ["db1", "web10"]
    choose(page, "version", "6.6.0")
    assert names(page) == ["web10"]
    assert page.text("#shown") == "1 machine of 4"
    click(page, "#clear")
    assert len(names(page)) == 4
    choose(page, "code", "0x000a: a block of the flash could not be erased")
    assert names(page) == ["web9"]
    page.press("Escape")
    assert len(names(page)) == 4
    click(page, "#outcomes button[data-outcome=pending]")
    assert names(page) == ["db1"]
    assert page.ask("document.querySelector('#outcomes [data-outcome=pending]').ariaPressed") == (
        "true"
    )
    click(page, "#outcomes button[data-outcome=pending]")
    assert len(names(page)) == 4


def test_outcomes_are_counted_in_words_with_a_sign_beside_the_colour(page: Page) -> None:
    texts = page.ask(
        "[...document.querySelectorAll('#outcomes button')].map((each) => each.textContent)"
    )
    assert texts[0] == "\u2717 refused by the BIOS: 1"
    assert texts[-1] == "\u2713 updated: 1"
    assert "0x000a: a block of the flash could not be erased" in page.text("#rows")
    assert "2026-11-29 06:01:00 UTC" in page.text("#rows")


def test_all_works_by_keys(page: Page) -> None:
    page.press("/")
    assert page.ask("document.activeElement.id") == "text"
    page.press(*"erased")
    assert names(page) == ["web9"]
    page.press("ArrowDown")
    assert page.ask("document.activeElement.textContent") == "web9"
    page.press("Enter")
    assert page.ask("document.activeElement.ariaExpanded") == "true"
    history = page.text("tr.history")
    assert "service tag TAGweb9" in history
    assert "answers.jsonl (document 2)" in history
    assert "6.3.0 \u2192 6.6.0" in history
    assert "the flash is broken" in history
    page.press("Enter")
    assert page.ask("document.querySelectorAll('tr.history').length") == 0
    page.press("Escape")
    assert len(names(page)) == 4
    page.ask("document.querySelector('#rows button').focus()")
    page.press("ArrowDown", "ArrowDown", "ArrowUp")
    assert page.ask("document.activeElement.textContent") == names(page)[1]
    page.ask("document.querySelector('th[data-key=name] button').focus()")
    page.press("Enter")
    assert names(page) == ["web10", "web9", "db2", "db1"]


def test_a_click_opens_the_history_of_a_machine(page: Page) -> None:
    click(page, "#rows tr:nth-child(1) button")
    click(page, "#rows tr:nth-child(3) button")
    assert page.ask("document.querySelectorAll('tr.history').length") == 2
    click(page, "#rows tr:nth-child(1) button")
    assert page.ask("document.querySelectorAll('tr.history').length") == 1


def test_hostile_texts_are_texts(page: Page) -> None:
    assert "<img src=x" in page.text("#rows")
    click(page, "#rows tr:nth-child(2) button")
    assert page.ask("typeof window.hacked") == "undefined"
    assert page.ask("document.querySelectorAll('img').length") == 0
    assert page.ask("document.querySelectorAll('script').length") == 2


CONTRASTS = """(() => {
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const rgb = (text) => text.match(/\\d+/g).slice(0, 3).map(Number);
  const paper = light(rgb(getComputedStyle(document.body).backgroundColor));
  return [...document.querySelectorAll("td, th button, p, .bad, .open, .good")]
    .filter((each) => !each.closest("nav, .history"))
    .map((each) => light(rgb(getComputedStyle(each).color)))
    .map((ink) => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05));
})()"""
"""The contrast of each text with the paper (WCAG 2.2, 1.4.3)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_read_in_the_light_in_the_dark_and_at_the_width_of_a_phone(
    page: Page, scheme: str
) -> None:
    page.set_scheme(scheme)
    contrasts = page.ask(CONTRASTS)
    assert len(contrasts) > 30
    assert min(contrasts) >= 4.5
    page.resize(360, 740, is_phone=True)
    assert page.ask("document.documentElement.scrollWidth") <= 360


IN_SIGHT = """[...document.querySelectorAll("#rows tr.machine")].every((row) =>
  ["th", ".outcome", ".code", ".why", ".at"].every((kind) => {
    const cell = row.querySelector(kind), box = cell.getBoundingClientRect();
    return !cell.textContent || (box.width > 0 && box.left >= 0 && box.right <= innerWidth);
  }))"""


@pytest.mark.parametrize(("width", "is_phone"), [(390, True), (760, False), (1280, False)])
def test_outcome_and_reason_are_in_sight_whatever_a_machine_is_called(
    started: Page, tmp_path: Path, width: int, is_phone: bool
) -> None:
    long = "x" * 300
    documents = [
        status(long, "updated"),
        status("web1", "refused", model=long),
        status("web2", None, error={"message": long}, bios={"version": long}),
    ]
    started.resize(width, 900, is_phone=is_phone)
    started.open(page_file(tmp_path / "long.html", documents))
    assert started.ask(IN_SIGHT)
    assert started.ask("document.querySelector('.scroll').scrollWidth") <= width
    if is_phone:
        assert started.ask("document.querySelector('#rows .outcome').offsetHeight") <= 24
        click(started, "th[data-key=outcome] button")
        assert names(started)[-1] == long, "sorted by what is bad"
    assert started.complaints() == []


def test_of_very_many_machines_the_first_are_listed_and_the_page_says_so(
    started: Page, tmp_path: Path
) -> None:
    documents = [status(f"m{number}", "updated") for number in range(MANY)]
    started.open(page_file(tmp_path / "many.html", documents))
    assert len(names(started)) == 1000
    assert started.text("#shown").startswith("1,200 machines of 1,200; the first 1,000 are listed")
    click(started, "#shown button")
    assert len(names(started)) == MANY
    assert started.complaints() == []


def test_a_machine_that_did_not_answer_is_told_among_the_others(
    started: Page, tmp_path: Path
) -> None:
    told = [*read_answers(json.dumps(status("web1", None)).encode(), "web1.json")]
    told += read_answers(b"", "dir/web2.json")
    path = tmp_path / "lacking.html"
    path.write_text(page_of(make_report(told)), encoding="utf-8")
    started.open(path)
    assert names(started) == ["web1", "web2"]
    assert started.text("#about") == "2 machines, last heard of 2026-11-29 06:00:00 UTC."
    click(started, "#outcomes button[data-outcome=no_answer]")
    assert names(started) == ["web2"]
    click(started, "#rows button")
    assert "web2.json is no answer of rbu --json: it is empty" in started.text("#rows")
    assert started.text("tr.history") == "Nothing is known of it."
    path.write_text(page_of(make_report(told[1:])), encoding="utf-8")
    started.open(path)
    assert started.text("#about") == "1 machine."
    assert started.complaints() == []


def test_a_report_of_nothing_wrong_needs_no_code(started: Page, tmp_path: Path) -> None:
    started.open(page_file(tmp_path / "one.html", [status("only", None)]))
    assert names(started) == ["only"]
    assert started.text("#about").startswith("1 machine, last heard of 2026-11-29")
