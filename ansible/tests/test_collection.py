"""The collection as others get it: built, installed, documented, and used as its page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import openrbu
from rigs.playbooks import ANSIBLE, COLLECTIONS, ROOT, Fleet

COLLECTION = COLLECTIONS / "ansible_collections/openrbu/firmware"
NAMES = [path.stem for path in sorted((COLLECTION / "plugins/modules").glob("*.py"))]


@pytest.fixture
def installed(fleet: Fleet) -> dict[str, str]:
    """The environment of commands that have the installed collection, and nothing of the tree."""
    made = fleet.directory / "made"
    made.mkdir()
    for _ in range(2):
        subprocess.run([ROOT / "scripts/make-collection", made, ANSIBLE.parent], check=True)
    (tarball,) = made.iterdir()
    assert tarball.name == f"openrbu-firmware-{openrbu.__version__}.tar.gz"
    (fleet.directory / "ansible.cfg").unlink()
    environment = fleet.environment
    del environment["ANSIBLE_CONFIG"]
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(fleet.directory / "installed")
    words = ["collection", "install", "--offline", "-p", str(fleet.directory / "installed")]
    subprocess.run(
        [ANSIBLE / "ansible-galaxy", *words, tarball],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    return environment


def test_each_module_and_plugin_is_documented(fleet: Fleet, installed: dict[str, str]) -> None:
    for kind, names in {
        "module": NAMES,
        "connection": ["rbu_run"],
        "inventory": ["machines"],
    }.items():
        told = subprocess.run(
            [ANSIBLE / "ansible-doc", "-t", kind, *(f"openrbu.firmware.{name}" for name in names)],
            check=True,
            capture_output=True,
            text=True,
            env=installed,
            cwd=fleet.directory,
        ).stdout
        for name in names:
            assert name in told


def test_the_rehearsal_of_the_page_goes_as_it_says(fleet: Fleet, installed: dict[str, str]) -> None:
    page = (ROOT / "docs/how-to/many-machines.md").read_text("utf-8")
    (script,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    shutil.move(fleet.image("2.3.0", "precision-390"), fleet.directory / "A06.hdr")
    ended = subprocess.run(
        ["sh", "-euc", script.replace("machine new", "machine new --flash-size 128K --ram 64M")],
        check=True,
        capture_output=True,
        text=True,
        env=installed,
        cwd=fleet.directory,
    )
    assert "exit code 2" in ended.stdout
    report = ended.stdout[ended.stdout.index("exit code 2") :]
    outcomes = dict(re.findall(r"(server-\d) .*(updated|refused by the BIOS|staged)", report))
    assert outcomes == {
        "server-1": "refused by the BIOS",
        "server-2": "staged",
        "server-3": "staged",
    }
    assert "0x000a" in report


def test_nothing_of_the_role_is_left_out_of_its_page() -> None:
    role = COLLECTION / "roles/rollout"
    page = (role / "README.md").read_text("utf-8")
    variables = re.findall(r"^(rollout_\w+):", (role / "defaults/main.yml").read_text(), re.M)
    assert variables
    assert [each for each in variables if f"`{each}`" not in page] == []


def test_what_a_module_takes_is_the_words_of_rbu() -> None:
    told = subprocess.run(
        ["rbu", "update", "--help"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    ).stdout
    code = (COLLECTION / "plugins/module_utils/rbu.py").read_text("utf-8")
    flags = re.findall(r'^    "(\w+)",$', code[: code.index("def ")], re.M)
    assert len(flags) >= 6
    assert [each for each in flags if f"--{each.replace('_', '-')}" not in told] == []
