"""Which tests are run as another user, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from rigs.privilege import RIGS, TESTS, depends_on_the_user, left_out


@pytest.mark.parametrize(
    "text",
    [
        "from rigs.machines import as_nobody",
        "if os.geteuid() == 0:",
        "path.chmod(0o500)",
        "from rigs.mounts import Served",
        "from rigs import mounted",
        "from openrbu.lab import accel",
        "from openrbu.lab.accel import accelerator",
    ],
)
def test_a_module_that_names_the_user_is_one_of_them(tmp_path: Path, text: str) -> None:
    module = tmp_path / "test_it.py"
    module.write_text(f"import os\n{text}\n")
    assert depends_on_the_user(module)


def test_a_module_that_names_neither_user_nor_rig_is_none(tmp_path: Path) -> None:
    module = tmp_path / "test_it.py"
    module.write_text("from rigs.machines import running\nfrom openrbu.update import flow\n")
    assert not depends_on_the_user(module)


def test_all_tests_of_mounts_are_among_them() -> None:
    assert all(depends_on_the_user(path) for path in (TESTS / "unit/mount").glob("test_*.py"))
    assert not [path for path in left_out() if "mount" in Path(path).parts]


def test_the_rigs_are_called_so() -> None:
    assert [rig for rig in RIGS if not (TESTS / "rigs" / f"{rig}.py").is_file()] == []


def test_what_is_left_out_is_named_and_not_all_there_is() -> None:
    assert "unit/test_packet.py" in left_out()
    assert "unit/test_service.py" not in left_out()
    assert not {"unit/test_lab_accel.py", "unit/test_lab_cli.py"} & set(left_out())
