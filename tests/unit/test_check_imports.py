"""`scripts/check-imports`: what of a small house it finds fault with."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check-imports"

SOUND = {
    "__init__": "",
    "errors": "",
    "memory/__init__": "",
    "memory/scan": "from openrbu.errors import DamagedInputError\n",
    "machine/__init__": "",
    "machine/store": "from openrbu import errors\nimport openrbu.memory.scan\n",
    "cli/__init__": "",
    "cli/main": "def run():\n    from openrbu.machine import store  # noqa: PLC0415\n",
}


def check(source: Path, changes: dict[str, str]) -> tuple[int, list[str]]:
    """What the script says of the sound house with these changes: its status, and its lines."""
    for name, text in (SOUND | changes).items():
        path = source / "openrbu" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(source)], capture_output=True, check=False, text=True
    )
    assert done.stderr == ""
    return done.returncode, [
        line.replace(f"{source}/openrbu/", "") for line in done.stdout.splitlines()
    ]


def test_a_house_whose_imports_go_down_is_sound(tmp_path: Path) -> None:
    assert check(tmp_path, {}) == (0, [])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("from openrbu.machine import store\n", 1),
        ("import openrbu.machine.store\n", 1),
        ("from ..machine import store\n", 1),
        ("def look():\n    from openrbu.machine import store\n", 2),
        ("if TYPE_CHECKING:\n    from openrbu.machine.store import X\n", 2),
    ],
    ids=["from", "import", "relative", "in a function", "for a type"],
)
def test_an_upward_import_is_found_wherever_it_is(tmp_path: Path, text: str, line: int) -> None:
    found = f"memory/look.py:{line}: memory.look imports machine.store: machine is not below memory"
    assert check(tmp_path, {"memory/look": text}) == (1, [found])


def test_folders_on_one_floor_know_nothing_of_each_other(tmp_path: Path) -> None:
    changes = {"bios/post": "import openrbu.xen.heap\n", "xen/heap": ""}
    status, lines = check(tmp_path, changes)
    assert (status, lines) == (
        1,
        ["bios/post.py:1: bios.post imports xen.heap: xen is not below bios"],
    )


def test_two_modules_that_import_each_other_are_found(tmp_path: Path) -> None:
    changes = {
        "memory/a": "from openrbu.memory import b\n",
        "memory/b": "def f():\n    from openrbu.memory.c import x\n",
        "memory/c": "if TYPE_CHECKING:\n    from openrbu.memory.a import A\n",
    }
    line = "these modules import each other: memory.a, memory.b, memory.c"
    assert check(tmp_path, changes) == (1, [line])


def test_a_late_import_has_to_say_why(tmp_path: Path) -> None:
    late = "def f():\n    import json  # noqa: PLC0415"
    said = {"memory/a": f"{late}  (start-up time)\n"}
    assert check(tmp_path, said) == (0, [])
    silent = "memory/a.py:2: say why the import is here, such as (start-up time)"
    assert check(tmp_path, said | {"memory/a": f"{late}\n"}) == (1, [silent])


def test_a_folder_without_a_floor_is_found(tmp_path: Path) -> None:
    line = "openrbu.attic has no floor: give it one in scripts/check-imports"
    assert check(tmp_path, {"attic/box": ""}) == (1, [line])


def test_a_folder_that_has_most_of_the_lines_is_found(tmp_path: Path) -> None:
    changes = {f"memory/part{number}": "x = 1\n" * 200 for number in range(10)}
    assert check(tmp_path, changes) == (1, ["memory has 100% of all lines: 16% at most"])


def test_a_module_or_a_function_that_is_too_long_is_found(tmp_path: Path) -> None:
    body = "    pass\n" * 60
    status, lines = check(tmp_path, {"errors": f"def run():\n{body}" + "\n" * 340})
    assert status == 1
    assert lines == [
        "errors.py has 401 lines: 400 at most",
        "errors.py:1: run has 61 lines: 60 at most",
    ]
