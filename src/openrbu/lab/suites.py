"""Packages of another suite of Debian's archive than those that apt is configured for.

This computer's apt stays as it is: its lists, its cache and what it would install. apt gets a
configuration of its own in the lab's cache, for the suite alone. Where the archive is says the
suite of Debian's that apt is configured for. Debian's keyring says whom to believe.
"""

from __future__ import annotations

import re
from pathlib import Path

from openrbu.lab.apt import Apt, FetchError, failure_text
from openrbu.lab.programs import run

SUITE = re.compile(r"[a-z][a-z0-9.+-]*")

_KEYRINGS = tuple(
    Path(f"/usr/share/keyrings/debian-archive-keyring.{suffix}") for suffix in ("gpg", "pgp")
)

_TARGETS = "$(ORIGIN)\t$(LABEL)\t$(REPO_URI)"

_CONFIG = """\
Dir::Etc::SourceList "{here}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{here}/state";
Dir::State::Lists "{here}/state/lists";
Dir::State::status "{here}/status";
Dir::Cache "{here}/cache";
Dir::Cache::Archives "{here}/cache/archives";
APT::Default-Release "";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


def suite_directory(cache: Path, suite: str) -> Path:
    """Where apt's configuration and lists for a suite are in the lab's cache."""
    return cache / "apt" / suite


def known_suite(cache: Path, suite: str) -> Apt | None:
    """apt for a suite whose lists were fetched before; None when they were not."""
    here = suite_directory(cache, suite)
    if not any(here.glob("state/lists/*_Packages*")):
        return None
    return Apt(here / "apt.conf")


def fetch_suite(cache: Path, suite: str) -> Apt:
    """apt for a suite, its lists fetched now.

    :raise FetchError: when apt is not configured for Debian's archive, or there is no such suite.
    """
    archive = debian_archive()
    here = suite_directory(cache, suite)
    for name in ("state/lists/partial", "cache/archives/partial"):
        (here / name).mkdir(parents=True, exist_ok=True)
    (here / "status").touch()
    keyring = next((each for each in _KEYRINGS if each.exists()), None)
    signed = "" if keyring is None else f"[signed-by={keyring}] "
    (here / "sources.list").write_text(f"deb {signed}{archive} {suite} main\n")
    apt = Apt(here / "apt.conf")
    (here / "apt.conf").write_text(_CONFIG.format(here=here))
    ended = run(apt.command("apt-get", "--quiet", "update"))
    if ended.status != 0:
        raise FetchError(
            f"the lists of Debian's suite {suite} can't be fetched: {failure_text(ended)}"
        )
    return apt


def debian_archive() -> str:
    """The address of Debian's archive, as apt is configured.

    :raise FetchError: when apt is not configured for it.
    """
    ended = run(Apt().command("apt-get", "indextargets", "--format", _TARGETS))
    for line in ended.out.splitlines():
        origin, label, address = line.split("\t")
        if (origin, label) == ("Debian", "Debian"):
            return address
    raise FetchError(
        "apt knows no source that is Debian's archive, where other suites would be: try apt-get "
        "update"
    )
