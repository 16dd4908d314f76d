"""A message that asks for a package names the command that works for how openrbu was installed."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import openrbu
from openrbu.system.installed import DIST_PACKAGES, Installation, Way, remedy_for

ROOT = Path(__file__).parents[2]

METADATA = """\
Metadata-Version: 2.4
Name: openrbu
Version: 1.0
Provides-Extra: fuse
Provides-Extra: plot
Provides-Extra: zstd
Requires-Dist: numpy>=1
Requires-Dist: mfusepy>=3.1; extra == 'fuse'
Requires-Dist: matplotlib>=3.9; extra == 'plot'
Requires-Dist: qemu-qmp>=0.0.6; extra == "lab"
Requires-Dist: virtme-ng>=1.42; extra == "lab"
Requires-Dist: backports-zstd>=1.3; (python_version < '3.14') and extra == 'zstd'
"""


class Place:
    """An environment in a directory, as installers leave one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.site = root / "lib" / "site-packages"
        self.site.mkdir(parents=True)

    def metadata(self, name: str = "openrbu", text: str = METADATA, **files: str) -> None:
        """What an installer writes beside a package; `files`: with `_` for the dot."""
        where = self.site / f"{name}-1.0.dist-info"
        where.mkdir()
        (where / "METADATA").write_text(text)
        for file, content in files.items():
            (where / file.replace("_json", ".json")).write_text(content)

    def receipt(self, name: str) -> None:
        (self.root / name).write_text("")

    def installation(self, *, packages: Path | None = None, managed: bool = False) -> Installation:
        return Installation(
            self.root,
            packages or self.site,
            str(self.root / "bin" / "python"),
            [str(self.site)],
            is_managed=managed,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "openrbu")


def url(address: str, **more: object) -> str:
    return json.dumps({"url": address, **more})


def test_pipx_injects_into_the_environment_by_its_name(place: Place) -> None:
    place.metadata(INSTALLER="pip")
    place.receipt("pipx_metadata.json")
    here = place.installation()
    assert here.way is Way.PIPX
    assert here.remedy("fuse") == "pipx inject openrbu 'mfusepy>=3.1'"
    assert here.remedy("lab") == "pipx inject openrbu 'qemu-qmp>=0.0.6' 'virtme-ng>=1.42'"


def test_uv_installs_the_tool_again_from_where_it_came(place: Place) -> None:
    place.metadata(INSTALLER="uv", direct_url_json=url("file:///home/a%20b/openrbu", dir_info={}))
    place.receipt("uv-receipt.toml")
    here = place.installation()
    assert here.way is Way.UV_TOOL
    assert here.remedy("plot") == "uv tool install '--with=matplotlib>=3.9' '/home/a b/openrbu'"


def test_uv_is_told_again_of_the_extras_that_are_there(place: Place) -> None:
    """`uv tool install` removes what an earlier one had `--with`."""
    place.metadata(INSTALLER="uv", direct_url_json=url("file:///src/openrbu"))
    place.metadata("mfusepy", "Metadata-Version: 2.4\nName: mfusepy\nVersion: 3.1\n")
    place.receipt("uv-receipt.toml")
    assert (
        place.installation().remedy("plot")
        == "uv tool install '--with=mfusepy>=3.1' '--with=matplotlib>=3.9' /src/openrbu"
    )


def test_uv_takes_a_repository_by_its_address(place: Place) -> None:
    from_git = url("https://example.org/openrbu", vcs_info={"vcs": "git", "commit_id": "0"})
    place.metadata(INSTALLER="uv", direct_url_json=from_git)
    place.receipt("uv-receipt.toml")
    assert place.installation().remedy("fuse").endswith(" git+https://example.org/openrbu")


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("lab", "apt-get install virtme-ng (Debian 12 has none: docs/install.md)"),
        ("plot", "apt-get install python3-matplotlib"),
        ("testing", "apt-get install python3-pytest"),
    ],
)
def test_the_debian_package_names_debian_packages(place: Place, extra: str, command: str) -> None:
    here = place.installation(packages=DIST_PACKAGES)
    assert here.way is Way.DEBIAN
    assert here.remedy(extra) == command


def test_what_debian_lacks_is_elsewhere(place: Place) -> None:
    assert "docs/install.md" in place.installation(packages=DIST_PACKAGES).remedy("zstd")
    assert (ROOT / "docs" / "install.md").exists()


def test_nothing_can_be_added_to_the_single_file(place: Place) -> None:
    place.metadata(INSTALLER="pip")
    place.receipt("PEX-INFO")
    here = place.installation()
    assert here.way is Way.SINGLE_FILE
    assert "docs/install.md" in here.remedy("plot")


def test_an_environment_of_pip_is_added_to_by_its_own_pip(place: Place) -> None:
    place.metadata(INSTALLER="pip\n")
    here = place.installation()
    assert here.way is Way.PIP
    python = place.root / "bin" / "python"
    assert here.remedy("zstd") == f"{python} -m pip install 'backports-zstd>=1.3'"


def test_a_python_that_its_distribution_manages_is_added_to_as_before(place: Place) -> None:
    place.metadata(INSTALLER="pip\n")
    assert "-m pip install --break-system-packages " in place.installation(managed=True).remedy(
        "fuse"
    )


def test_an_environment_of_uv_has_no_pip(place: Place) -> None:
    place.metadata(INSTALLER="uv")
    here = place.installation()
    assert here.way is Way.UV_PIP
    python = place.root / "bin" / "python"
    assert here.remedy("fuse") == f"uv pip install --python {python} 'mfusepy>=3.1'"


def test_a_source_tree_is_installed_from_itself(place: Place, tmp_path: Path) -> None:
    here = place.installation(packages=tmp_path / "clone" / "src")
    assert here.way is Way.SOURCE
    assert here.remedy("fuse").endswith(f" -m pip install '{tmp_path}/clone[fuse]'")


def test_each_extra_of_this_project_has_a_remedy_here() -> None:
    """As it is installed for the tests: the packages are those of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra, requirements in project["optional-dependencies"].items():
        for requirement in requirements:
            name = requirement.partition(">=")[0].replace(".", "-")
            assert f"'{name}>=" in remedy_for(extra), extra


def test_no_message_and_no_page_says_that_openrbu_is_in_a_package_index() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.py")]
    for path in pages:
        text = path.read_text(encoding="utf-8")
        for words in ("pip install openrbu", "pip install 'openrbu", "pipx install openrbu"):
            assert words not in text, path


def test_python_m_openrbu_is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "openrbu"]
    version = subprocess.run(
        [*command, "--version"], cwd=tmp_path, capture_output=True, check=True, text=True
    )
    assert version.stdout == f"rbu {openrbu.__version__}\n"
    damaged = tmp_path / "damaged.hdr"
    damaged.write_bytes(b"$RBU")
    ended = subprocess.run(
        [*command, "info", str(damaged)], capture_output=True, check=False, text=True
    )
    assert (ended.returncode, ended.stdout) == (5, "")
    assert ended.stderr.startswith("rbu: ")
