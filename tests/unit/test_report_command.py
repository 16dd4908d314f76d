"""`rbu report`: what many answers say of many machines, as a table, CSV and JSON."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from openrbu.api import open_machine, read_report, report_page
from openrbu.errors import UsageError
from openrbu.policy.model import DAYS
from rigs.cli import Cli


def keep(rbu: Cli, name: str, *words: object, code: int = 0) -> Path:
    """A file with what a command says with --json; it has to end with `code`."""
    return rbu.write(name, json.dumps(rbu.told(*words, code=code)).encode())


def machines(rbu: Cli, *files: object) -> dict[str, dict[str, Any]]:
    """The rows of a report, by machine."""
    return {row["name"]: row for row in rbu.json("report", *files)["machines"]}


@pytest.fixture
def fleet(rbu: Cli) -> list[Path]:
    """Answers of machines of which one was updated, one refused it, one waits for its restart, one
    has an obstacle, one is ready, and one failed."""
    image, other = rbu.image("A06"), rbu.image("A06", system=0x0999, name="other.hdr")
    for name, more in (
        *((name, ()) for name in ("done", "waits", "plans", "gone")),
        ("broken", ("--fault", "erase-fails")),
        ("wrong", ()),
    ):
        rbu("machine", "new", name, *more)
    files = [
        keep(rbu, "1.json", "update", image, "--machine", "done", "--reboot"),
        keep(rbu, "2.json", "status", "--machine", "done"),
        keep(rbu, "3.json", "update", image, "--machine", "broken", "--reboot", code=1),
        keep(rbu, "4.json", "update", image, "--machine", "waits"),
        keep(rbu, "5.json", "plan", image, "--machine", "plans"),
        keep(rbu, "6.json", "plan", other, "--machine", "wrong", code=3),
    ]
    rbu("machine", "off", "gone")
    return [*files, keep(rbu, "7.json", "plan", image, "--machine", "gone", code=4)]


def test_each_machine_is_one_row_with_its_outcome(rbu: Cli, fleet: list[Path]) -> None:
    told = rbu.json("report", *fleet)
    rows = {row["name"]: row for row in told["machines"]}
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "broken": "refused",
        "done": "updated",
        "gone": "failed",
        "plans": "ready",
        "waits": "pending",
        "wrong": "prevented",
    }
    assert told["answer_count"] == len(fleet)
    assert (rows["done"]["bios_version"], rows["done"]["completion_code"]) == ("A06", "0x0000")
    assert (rows["broken"]["bios_version"], rows["broken"]["completion_code"]) == ("A05", "0x000a")
    assert rows["broken"]["meaning"] == "a block of the flash could not be erased"
    assert rows["done"]["model"] == "PowerEdge 2650"
    assert (rows["plans"]["bios_version"], rows["plans"]["target_version"]) == ("A05", "A06")
    assert "0x0999" in rows["wrong"]["why"]
    assert rows["gone"]["why"]
    assert rows["gone"]["model"] == ""


def test_a_program_gets_the_same_rows_and_the_same_page(rbu: Cli, fleet: list[Path]) -> None:
    rows = read_report(fleet)
    told = rbu.json("report", *fleet, "--html", "report.html")
    assert [(row.name, row.outcome) for row in rows] == [
        (row["name"], row["outcome"]) for row in told["machines"]
    ]
    assert (rbu.directory / "report.html").read_text("utf-8") == report_page(rows)
    mixed = read_report([rbu.directory / "image.hdr", *fleet])
    (lacking,) = [row for row in mixed if row not in rows]
    assert (lacking.name, lacking.outcome, lacking.at) == ("image.hdr", "no_answer", None)
    assert "image.hdr is no answer of rbu" in lacking.why
    assert [row for row in mixed if row is not lacking] == rows
    with pytest.raises(UsageError, match="nothing can't be read"):
        read_report(["nothing"])


def test_of_several_answers_the_newest_counts_whatever_their_sequence(rbu: Cli) -> None:
    image = rbu.image("A06")
    rbu("machine", "new", "demo")
    files = [
        keep(rbu, "a.json", "plan", image, "--machine", "demo"),
        keep(rbu, "b.json", "update", image, "--machine", "demo"),
        keep(rbu, "c.json", "machine", "reboot", "demo"),
        keep(rbu, "d.json", "history", "--machine", "demo"),
    ]
    expected = ["ready", "pending", "updated", "updated"]
    for count, outcome in enumerate(expected, start=1):
        row = machines(rbu, *reversed(files[:count]))["demo"]
        assert row["outcome"] == outcome, files[:count]
        answers = [each for each in row["history"] if each["what"] != "update"]
        assert [each["outcome"] for each in answers] == expected[:count]
        assert [each["source"] for each in answers] == [str(path) for path in files[:count]]
    assert row["bios_version"] == "A06"
    (update,) = [each for each in row["history"] if each["what"] == "update"]
    assert (update["from_version"], update["to_version"]) == ("A05", "A06")


def test_one_update_in_several_answers_is_one_step_as_the_newest_tells_it(rbu: Cli) -> None:
    image = rbu.image("A06")
    rbu("machine", "new", "demo")
    rbu("update", image, "--machine", "demo")
    before = keep(rbu, "before.json", "status", "--machine", "demo")
    rbu("machine", "reboot", "demo")
    after = keep(rbu, "after.json", "status", "--machine", "demo")
    row = machines(rbu, after, before)["demo"]
    (update,) = [each for each in row["history"] if each["what"] == "update"]
    assert update["outcome"] == "updated"


def test_an_answer_that_says_nothing_of_an_outcome_leaves_it(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    files = [
        keep(rbu, "a.json", "plan", rbu.image("A06"), "--machine", "demo"),
        keep(rbu, "b.json", "cancel", "--machine", "demo"),
        keep(rbu, "c.json", "machine", "reboot", "demo"),
    ]
    row = machines(rbu, *files)["demo"]
    assert (row["outcome"], len(row["history"])) == ("ready", 3)
    said_at = json.loads(files[2].read_text())["said"]["at"]
    assert dt.datetime.fromisoformat(row["seen_at"]) == dt.datetime.fromisoformat(said_at)


def test_an_armed_update_that_the_restart_will_not_install_is_told(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    rbu("update", rbu.image("A06"), "--machine", "demo")
    with open_machine("demo") as machine:
        machine.write_file("/sys/kernel/reboot/mode", b"cold")
    row = machines(rbu, keep(rbu, "a.json", "status", "--machine", "demo"))["demo"]
    assert (row["outcome"], row["why"]) == ("armed_in_vain", "the next restart may clear memory")


def test_an_update_that_is_staged_and_armed_apart_is_told_at_each_step(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    staged = keep(rbu, "a.json", "update", rbu.image("A06"), "--machine", "demo", "--no-arm")
    seen = keep(rbu, "b.json", "status", "--machine", "demo")
    armed = keep(rbu, "c.json", "arm", "--machine", "demo")
    for files, outcome in (([staged], "staged"), ([seen], "staged"), ([armed], "pending")):
        row = machines(rbu, *files)["demo"]
        assert (row["outcome"], row["bios_version"]) == (outcome, "A05"), files
        assert row["target_version"] == "A06"
    rbu("machine", "new", "lost")
    rbu("update", rbu.image("A06"), "--machine", "lost", "--no-arm")
    rbu("machine", "off", "lost")
    rbu("machine", "reboot", "lost")
    row = machines(rbu, keep(rbu, "d.json", "status", "--machine", "lost"))["lost"]
    assert row["outcome"] != "staged"


POLICY = """schema = 1
[systems.0x0121]
target = "{target}"
"""


def test_a_policy_without_a_step_is_told(rbu: Cli) -> None:
    """No image is chosen then, and the document has another form."""
    rbu("machine", "new", "demo")
    rbu.image("A06")
    wants = {
        target: rbu.write(f"{target}.toml", POLICY.format(target=target).encode())
        for target in ("A05", "A04")
    }
    for command in ("plan", "update"):
        words = (command, rbu.directory, "--machine", "demo", "--policy")
        done = machines(rbu, keep(rbu, "a.json", *words, wants["A05"]))["demo"]
        assert (done["outcome"], done["bios_version"]) == ("not_needed", "A05")
        stopped = machines(rbu, keep(rbu, "b.json", *words, wants["A04"], code=4))["demo"]
        assert (stopped["outcome"], stopped["target_version"]) == ("prevented", "A04")
        assert stopped["why"]
    ready = keep(rbu, "c.json", "plan", rbu.directory, "--machine", "demo")
    assert machines(rbu, ready)["demo"]["outcome"] == "ready"


def test_a_machine_that_has_made_a_step_of_several_is_not_at_its_end(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    for version in ("A06", "A07"):
        rbu.image(version, name=f"{version}.hdr")
    text = POLICY.format(target="A07") + 'steps = [{ from = "..A05", via = "A06" }]\n'
    how = (rbu.directory, "--machine", "demo", "--policy", rbu.write("p.toml", text.encode()))
    files = []
    for number, (outcome, wanted) in enumerate((("step_made", "A07"), ("updated", "A07"))):
        files.append(keep(rbu, f"plan{number}.json", "plan", *how))
        files.append(keep(rbu, f"update{number}.json", "update", *how, "--reboot"))
        row = machines(rbu, *files)["demo"]
        assert (row["outcome"], row["target_version"]) == (outcome, wanted)
    assert "A07" in rbu("report", *files[:2]).out
    assert "a step made, and not the last" in rbu("report", *files[:2]).out


def test_a_machine_that_the_policy_leaves_alone_is_told_apart(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    rbu("machine", "new", "other", "--model", "precision-390")
    image = rbu.image("A06")
    tag = rbu.json("status", "-m", "demo")["machine"]["service_tag"]
    text = POLICY.format(target="A06") + f'[pinned]\n{tag} = "out of warranty"\n'
    policy = rbu.write("fleet.toml", text.encode())
    for source in (rbu.directory, image):
        for command in ("plan", "update"):
            words = (command, source, "--policy", policy, "--machine")
            pinned = machines(rbu, keep(rbu, "a.json", *words, "demo", code=4))["demo"]
            assert (pinned["outcome"], pinned["why"]) == ("pinned", "out of warranty")
            code = 4 if source == rbu.directory else 3
            other = machines(rbu, keep(rbu, "b.json", *words, "other", code=code))["other"]
            assert other["outcome"] == "not_in_policy"
    said = rbu("report", rbu.directory / "a.json", rbu.directory / "b.json").out
    assert "pinned by the policy" in said
    assert "not in the policy" in said


def test_a_plan_of_a_machine_on_which_an_update_waits_says_so(rbu: Cli) -> None:
    """However the policy, its windows, or the image that is asked for stand."""
    rbu("machine", "new", "demo")
    image = rbu.image("A10")
    with open_machine("demo") as machine:
        today = machine.host.now().astimezone(dt.UTC).weekday()
    window = f'days = ["{DAYS[(today + 3) % 7]}"]\nstart = "01:00"\nend = "02:00"\nzone = "UTC"\n'
    text = f"{POLICY.format(target='A10')}[[windows]]\n{window}"
    closed = ("--policy", rbu.write("closed.toml", text.encode()))
    tag = rbu.json("status", "-m", "demo")["machine"]["service_tag"]
    text = POLICY.format(target="A10") + f'[pinned]\n{tag} = "out of warranty"\n'
    pinned = ("--policy", rbu.write("pinned.toml", text.encode()))
    asked = {
        "closed": (image, *closed),
        "another": (rbu.image("A06", name="other.hdr"),),
        "pinned": (image, *pinned),
        "pinned, of a directory": (rbu.directory, *pinned),
    }

    def outcomes(command: str, *code: int) -> dict[str, tuple[str, str]]:
        found = {}
        for (name, words), ends in zip(asked.items(), code, strict=True):
            kept = keep(rbu, "a.json", command, *words, "--machine", "demo", code=ends)
            row = machines(rbu, kept)["demo"]
            found[name] = (row["outcome"], row["target_version"])
        return found

    assert outcomes("plan", 4, 0, 4, 4) == {
        "closed": ("prevented", "A10"),
        "another": ("ready", "A06"),
        "pinned": ("pinned", "A10"),
        "pinned, of a directory": ("pinned", "A10"),
    }
    rbu.json("update", image, "--machine", "demo", "--no-arm")
    again = keep(rbu, "again.json", "update", image, "--machine", "demo", "--no-arm")
    assert machines(rbu, again)["demo"]["outcome"] == "staged"
    assert outcomes("plan", 4, 0, 4, 4) == {
        "closed": ("staged", "A10"),
        "another": ("staged", "A10"),
        "pinned": ("pinned", "A10"),
        "pinned, of a directory": ("pinned", "A10"),
    }
    assert "A10 is staged, not armed" in rbu("plan", image, "--machine", "demo").out
    rbu.json("arm", "--machine", "demo")
    for command in ("plan", "update"):
        assert outcomes(command, 4, 4, 4, 4) == dict.fromkeys(asked, ("pending", "A10"))
    said = rbu("plan", rbu.directory, *pinned, "--machine", "demo").out
    assert "A10 is armed: the next restart hands it to the BIOS" in said
    assert "nothing to do" not in said


def test_a_cancelled_and_a_needless_update_are_told(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    rbu("update", rbu.image("A06"), "--machine", "demo")
    row = machines(rbu, keep(rbu, "a.json", "cancel", "--machine", "demo"))["demo"]
    assert row["outcome"] == "cancelled"
    again = keep(rbu, "b.json", "update", rbu.image("A05"), "--machine", "demo")
    assert machines(rbu, again)["demo"]["outcome"] == "not_needed"


def test_several_answers_may_be_in_one_file_and_in_standard_input(
    rbu: Cli, fleet: list[Path]
) -> None:
    together = rbu.write("all.jsonl", b"\n".join(path.read_bytes() for path in fleet) + b"\n")
    pretty = rbu.write("pretty", b"".join(path.read_bytes() for path in fleet))
    apart = [row["outcome"] for row in rbu.json("report", *fleet)["machines"]]
    array = b"[" + b",".join(path.read_bytes() for path in fleet) + b"]"
    marked = b"".join(b"\xef\xbb\xbf" + path.read_bytes() + b"\n" for path in fleet)
    written_by_windows = pretty.read_text().replace("\n", "\r\n").encode("utf-16")
    others = [
        rbu.write(f"other{number}", data)
        for number, data in enumerate((array, array + b"\n" + array, marked, written_by_windows))
    ]
    for file in (together, pretty, *others):
        assert [row["outcome"] for row in rbu.json("report", file)["machines"]] == apart
    for words in ((), ("-",)):
        ended = rbu.process("report", *words, "--json", input=together.read_bytes())
        assert ended.returncode == 0, ended
        told = json.loads(ended.stdout)["machines"]
        assert [row["outcome"] for row in told] == apart
        assert "standard input (document 2)" in {
            step["source"] for row in told for step in row["history"]
        }


def test_computers_are_told_apart_by_name_and_service_tag(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    said = rbu.told("status", "--machine", "demo")
    files = []
    for number, (computer, tag) in enumerate(
        [("web1", "AAA1111"), ("web2", "BBB2222"), ("localhost", "CCC3333"), ("localhost", "DDD4")]
    ):
        said["said"] |= {"machine": None, "computer": computer}
        said["machine"] |= {"name": None, "service_tag": tag}
        files.append(rbu.write(f"{number}.json", json.dumps(said).encode()))
    rows = rbu.json("report", *files)["machines"]
    assert [(row["name"], row["service_tag"]) for row in rows] == [
        ("localhost", "CCC3333"),
        ("localhost", "DDD4"),
        ("web1", "AAA1111"),
        ("web2", "BBB2222"),
    ]
    failed = {"schema": 1, "said": said["said"] | {"computer": "web1"}}
    failed["error"] = {"kind": "obstacle", "message": "no", "exit_code": 4}
    files.append(rbu.write("failed.json", json.dumps(failed).encode()))
    rows = rbu.json("report", *files)["machines"]
    assert len(rows) == 4, "an error tells no tag: it is that of the only web1"
    assert (rows[2]["service_tag"], rows[2]["why"]) == ("AAA1111", "no")


def test_people_see_a_table_and_how_many_there_are_of_each(rbu: Cli, fleet: list[Path]) -> None:
    out = rbu("report", *fleet).out.splitlines()
    assert " ".join(out[0].split()) == "MACHINE MODEL BIOS OUTCOME BIOS SAYS BECAUSE WHEN"
    (broken,) = [line for line in out if line.startswith("broken ")]
    assert "A05 (A06 wanted)  refused by the BIOS" in broken
    assert "0x000a: a block of the flash could not be erased" in broken
    assert out[-1].startswith("6 machines: 1 ")
    assert "1 refused by the BIOS" in out[-1]


def test_csv_has_a_line_for_each_machine(rbu: Cli, fleet: list[Path]) -> None:
    rows = list(csv.DictReader(io.StringIO(rbu("report", *fleet, "--csv").out)))
    assert [row["name"] for row in rows] == ["broken", "done", "gone", "plans", "waits", "wrong"]
    assert rows[0]["code"] == "0x000a"
    assert rows[0]["at"].endswith("Z")


def test_a_text_of_several_lines_is_one_field_in_one_line_of_csv(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    said = rbu.told("plan", rbu.image("A06", system=0x0999), "--machine", "demo", code=3)
    said["error"]["message"] = 'a "quoted", \n second line'
    file = rbu.write("a.json", json.dumps(said).encode())
    out = rbu("report", file, "--csv").out
    assert len(out.splitlines()) == 2
    (row,) = csv.DictReader(io.StringIO(out))
    assert row["why"] == 'a "quoted", \\n second line'


@pytest.mark.parametrize("text", ["=cmd|' /c calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\uff1d1"])
def test_no_text_is_a_formula_in_a_spreadsheet(rbu: Cli, text: str) -> None:
    rbu("machine", "new", "demo")
    said = rbu.told("status", "--machine", "demo")
    said["said"] |= {"computer": text, "machine": None}
    said["bios"]["version"] = text
    said["error"] = {"kind": "obstacle", "message": text, "exit_code": 4}
    file = rbu.write("a.json", json.dumps(said).encode())
    out = rbu("report", file, "--csv").out
    (row,) = csv.DictReader(io.StringIO(out))
    for column in ("name", "computer", "bios_version", "why"):
        assert row[column].startswith("'"), (column, row)
    assert rbu.json("report", file)["machines"][0]["name"] == text


def changed(document: dict[str, Any], **changes: object) -> bytes:
    return json.dumps({**document, **changes}).encode()


def test_a_file_that_is_no_answer_is_named_with_the_reason(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    good = rbu.told("status", "--machine", "demo")
    said = good["said"]
    wrong = {
        b"": "it is empty",
        b"hello": "it is not JSON",
        b"[]": "it is not an object with a key 'schema'",
        b"[[]]": "it is not an object with a key 'schema'",
        b"[1]": "it is not an object with a key 'schema'",
        b'{"a": 1}': "it is not an object with a key 'schema'",
        b'{"schema": 1, "schema": 1}': "it has the key 'schema' twice",
        b'{"schema": 1, "version": "1"}': "it does not say of which machine it is (no key 'said')",
        changed(good, schema=2): "its schema is 2, this openrbu knows 1",
        changed(good, said=said | {"command": "machine show"}): (
            "rbu machine show says nothing of an update"
        ),
        changed(good, said=said | {"at": "yesterday"}): "'yesterday' is no time with a zone",
        changed(good, said=said | {"at": "2026-01-01T00:00:00"}): "is no time with a zone",
        changed(good, said=5): "an object expected, 5 found",
        changed(good, bios=5): "bios: an object expected, 5 found",
        changed(good, said=said | {"command": "plan"}): "a key 'current_version' expected",
        changed(good, completion={"code": "much", "meaning": "", "completed_at": None}): (
            "'much' is no completion code"
        ),
        json.dumps(good).encode()[:-9]: "it is not JSON",
        b"\xff": "it is not JSON",
    }
    sound = rbu.write("sound.json", json.dumps(good).encode())
    for data, why in wrong.items():
        bad = rbu.write("bad.json", data)
        for files in ([bad], [sound, bad], [bad, sound]):
            told = rbu.told("report", *files, code=5)
            (row,) = [row for row in told["machines"] if row["name"] == "bad"]
            assert row["outcome"] == "no_answer"
            assert "bad.json is no answer of rbu --json: " in row["why"]
            assert why in row["why"], (data, row)
            assert told["error"]["message"] == row["why"]
            assert told["answer_count"] == len(files) - 1
            others = [row["outcome"] for row in told["machines"] if row["name"] != "bad"]
            assert others == ["none"] * (len(files) - 1)


def test_machines_that_did_not_answer_do_not_hide_the_others(rbu: Cli, fleet: list[Path]) -> None:
    """As a loop over ssh leaves them: empty files, and one whose connection broke off."""
    half = fleet[0].read_bytes()[:500]
    bad = [
        rbu.write(name, data)
        for name, data in (("a1.example.com.json", b""), ("a2", b"no route"), ("a3.json", half))
    ]
    files = [*bad, *fleet, rbu.directory / "a4.json"]
    names = ["a1.example.com", "a2", "a3", "a4"]
    healthy = rbu.json("report", *fleet)

    told = rbu.told("report", *files, code=5)
    assert [row["name"] for row in told["machines"][:4]] == names
    assert told["machines"][4:] == healthy["machines"]
    assert told["outcomes"] == healthy["outcomes"] | {"no_answer": 4}
    assert {(row["at"], row["seen_at"]) for row in told["machines"][:4]} == {(None, None)}

    ended = rbu("report", *files)
    assert ended.code == 5
    lines = ended.out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == names
    assert all(" no answer " in line for line in lines[1:5])
    assert lines[-1].startswith("10 machines: 4 no answer, ")
    for why in ("a1.example.com.json is no", "a2 is no", "a3.json is no", "a4.json can't be read"):
        assert ended.err.count(why) == 1, ended
    assert ended.err.count("\n") == 1

    ended = rbu("report", *files, "--csv")
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    assert (ended.code, len(rows)) == (5, 10)
    assert (rows[0]["outcome"], rows[0]["at"], rows[0]["code"]) == ("no_answer", "", "")

    ended = rbu("report", *files, "--html", "report.html")
    assert ended.code == 5
    assert "a3.json is no answer of rbu" in (rbu.directory / "report.html").read_text("utf-8")
    assert "a3.json is no answer of rbu" in ended.out, "the page is not looked at by a script"


def test_of_very_many_files_without_an_answer_the_error_names_the_first_ones(rbu: Cli) -> None:
    bad = [rbu.write(f"{number:02}.json", b"") for number in range(15)]
    ended = rbu("report", *bad)
    assert ended.code == 5
    assert "09.json" in ended.err
    assert "10.json" not in ended.err
    assert ended.err.endswith("; and 5 more\n")
    assert all(path.name in ended.out for path in bad)


def test_documents_that_are_wrong_are_counted_and_those_behind_them_are_read(rbu: Cli) -> None:
    for name in ("demo", "last"):
        rbu("machine", "new", name)
    good, last = (rbu.told("status", "--machine", name) for name in ("demo", "last"))
    for indent in (None, 2):
        one, two = (json.dumps(each, indent=indent).encode() for each in (good, last))
        parts = [one, b'{"schema": 1}', one[:900], b'{"a": 1, "a": 2}', b"Connection lost\r", two]
        told = rbu.told("report", rbu.write("all.jsonl", b"\n".join(parts)), code=5)
        assert [row["name"] for row in told["machines"]] == ["all", "all", "all", "demo", "last"]
        place = "all.jsonl (document {}) is no answer of rbu --json: it "
        for row, number in zip(told["machines"], (2, 3, 4), strict=False):
            assert place.format(number) in row["why"]


def test_keys_of_a_newer_openrbu_are_passed_over_and_its_outcomes_shown(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    rbu("update", rbu.image("A06"), "--machine", "demo", "--reboot")
    said = rbu.told("status", "--machine", "demo")
    said["new"] = said["bios"]["new"] = said["last_update"]["events"][0]["new"] = 1
    said["last_update"]["ending"] = "put_on_ice"
    file = rbu.write("a.json", json.dumps(said).encode())
    assert machines(rbu, file)["demo"]["outcome"] == "put_on_ice"
    assert rbu("report", file).out.splitlines()[-1] == "1 machine: 1 put on ice"


def test_what_can_not_be_read_is_refused(rbu: Cli) -> None:
    assert "nothing.json can't be read" in rbu.fails(2, "report", "nothing.json")
    assert "--csv and --json" in rbu("report", "nothing.json", "--csv", "--json").err


def test_each_answer_says_who_says_it_and_each_error_of_a_machine(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    image = rbu.image("A06")
    for words, command in {
        ("status", "-m", "demo"): "status",
        ("plan", image, "-m", "demo"): "plan",
        ("history", "-m", "demo"): "history",
        ("cancel", "-m", "demo"): "cancel",
        ("machine", "reboot", "demo"): "machine reboot",
    }.items():
        said = rbu.told(*words)["said"]
        assert (said["command"], said["machine"]) == (command, "demo")
        assert said["computer"] == os.uname().nodename
    failed = rbu.told("status", "-m", "nobody", code=4)
    assert failed.keys() == {"schema", "said", "error"}
    assert (failed["said"]["command"], failed["said"]["machine"]) == ("status", "nobody")
    assert "said" not in rbu.told("info", image)
    assert "said" not in rbu.told("status", "--no-such-option", code=2)
