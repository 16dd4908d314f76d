"""What the code and the pages cite can be opened: pages, sections, files and modules that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "openrbu"
CODE = ("src", "tests", "scripts", ".ci", ".github")
PAGES = ("docs", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")
SUFFIXES = ("", ".md", ".py", ".sh", ".toml", ".tsv", ".yaml", ".yml")

SECTION = re.compile(r"^#{2,4} ([A-Z][0-9]+): ", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
CITATION = re.compile(r"docs/reference/([\w.-]+?\.md)((?:(?:, | and |, and | to )[A-Z][0-9]+\b)*)")
PLAIN_PAGE = re.compile(r"docs/(?!reference/|decisions/)[\w-]+\.md")
DECISION = re.compile(r"(?:docs/decisions/|[Dd]ecision )([0-9]{4})")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
NAMED_FILE = re.compile(r"`((?:[\w.-]+/)+[\w-]+(?:\.py|\.tsv|/))`")
NAME_IN_FILE = re.compile(r"`(\w+)` in `((?:src|tests)/[\w/]+\.py)`")
NAMED_MODULE = re.compile(r"`(?:openrbu\.)?([a-z_0-9]+(?:\.[A-Za-z_][A-Za-z_0-9]*)+)`")

NOT_IN_THE_REPOSITORY = re.compile(
    r"RBU packets?'?s? rules?\b|BIOS (?:boot|image) facts|(?:SMBIOS|driver|balloon) facts"
    r"|project's notes|\bspec [0-9]|DESIGN\.md|CONVENTIONS\.md|shared/(?:spec|design|seed)|"
    r"docs/(?:bios|images)\.md",
    re.IGNORECASE,
)
"""Names of pages that are kept elsewhere, or were here and are gone."""

FILE_TYPES = (".json", ".lost", ".openrbu", ".py", ".spare", ".svg")
"""What looks like a module's name and is a file's."""


class Place(NamedTuple):
    """A file, and its text."""

    path: Path
    text: str

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def joined(self) -> str:
        """The text with line ends, indents and comment signs as single blanks."""
        return re.sub(r"\s*\n[ \t]*(?:#+ ?)?", " ", self.text)


@cache
def places(*names: str) -> tuple[Place, ...]:
    return tuple(_places(names))


def _places(names: tuple[str, ...]) -> Iterator[Place]:
    for name in names:
        start = ROOT / name
        for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
            is_cache = "__pycache__" in path.parts
            if path.is_file() and path.suffix in SUFFIXES and not is_cache:
                yield Place(path, path.read_text(encoding="utf-8"))


def everything() -> tuple[Place, ...]:
    here = Path(__file__)
    return tuple(place for place in places(*CODE, *PAGES) if place.path != here)


@cache
def sections(page: str) -> frozenset[str]:
    """The IDs of a reference page's sections."""
    path = ROOT / "docs" / "reference" / page
    return frozenset(SECTION.findall(path.read_text(encoding="utf-8")) if path.exists() else ())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


def wrong_citations(place: Place) -> list[str]:
    wrong = []
    for page, ids in CITATION.findall(place.joined):
        if not (ROOT / "docs" / "reference" / page).exists():
            wrong.append(f"{place}: docs/reference/{page} does not exist")
            continue
        cited = re.findall(r"[A-Z][0-9]+", ids)
        wrong += [f"{place}: {page} has no {each}" for each in cited if each not in sections(page)]
    wrong += [
        f"{place}: {page} does not exist"
        for page in PLAIN_PAGE.findall(place.joined)
        if not (ROOT / page).exists()
    ]
    wrong += [
        f"{place}: there is no decision {number}"
        for number in DECISION.findall(place.joined)
        if not list((ROOT / "docs" / "decisions").glob(f"{number}-*.md"))
    ]
    return wrong


def wrong_links(place: Place) -> list[str]:
    wrong = []
    for link in LINK.findall(FENCED.sub("", place.text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (place.path.parent / name).resolve() if name else place.path
        if not target.exists():
            wrong.append(f"{place}: {link} leads nowhere")
        elif anchor and anchor not in anchors(target):
            wrong.append(f"{place}: {link} names no heading of {target.name}")
    return wrong


@cache
def names_in(path: Path) -> frozenset[str]:
    """What a module defines or imports at its top, and what its classes have."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                found.add(name)
            case ast.ImportFrom(names=names):
                found.update(each.asname or each.name for each in names)
    return frozenset(found)


def module_exists(dotted: str) -> bool:
    """Whether `bios.rules`, or `machine.ports.OwnPorts`, is a module or a name in one."""
    here, parts = PACKAGE, dotted.split(".")
    for number, part in enumerate(parts):
        if (here / part).is_dir():
            here /= part
            continue
        file = here / f"{part}.py"
        rest = parts[number + 1 :]
        if not file.exists():
            file, rest = here / "__init__.py", parts[number:]
        return file.exists() and all(name in names_in(file) for name in rest)
    return True


def is_ours(dotted: str) -> bool:
    """Whether this may be a module here: it begins with a folder or a module of the package."""
    return (PACKAGE / dotted.partition(".")[0]).is_dir() and not dotted.endswith(FILE_TYPES)


def wrong_modules(place: Place) -> list[str]:
    return [
        f"{place}: `{dotted}` is not in src/openrbu"
        for dotted in NAMED_MODULE.findall(place.text)
        if is_ours(dotted) and not module_exists(dotted)
    ]


def wrong_files(place: Place) -> list[str]:
    """Files and folders that a page names, from the root or src/openrbu, and names in them."""
    wrong = [
        f"{place}: `{name}` is not in the repository"
        for name in NAMED_FILE.findall(place.text)
        if name.split("/")[0] in {each.name for base in (ROOT, PACKAGE) for each in base.iterdir()}
        and not (ROOT / name).exists()
        and not (PACKAGE / name).exists()
    ]
    wrong += [
        f"{place}: there is no `{name}` in {file}"
        for name, file in NAME_IN_FILE.findall(place.text)
        if (ROOT / file).exists() and name not in names_in(ROOT / file)
    ]
    return wrong


def expect_none(found: Iterable[str]) -> None:
    lines = list(found)
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


def test_every_citation_of_a_page_and_its_sections_can_be_opened() -> None:
    expect_none(line for place in everything() for line in wrong_citations(place))


def test_every_link_between_pages_leads_to_a_file_and_a_heading() -> None:
    expect_none(line for place in places(*PAGES) for line in wrong_links(place))


def test_nothing_cites_a_page_that_is_not_in_the_repository() -> None:
    expect_none(
        f"{place}: {match[0]}"
        for place in everything()
        for match in NOT_IN_THE_REPOSITORY.finditer(place.joined)
    )


def test_the_modules_that_pages_and_docstrings_name_exist() -> None:
    expect_none(line for place in places("src", *PAGES) for line in wrong_modules(place))


def test_the_files_that_pages_name_exist() -> None:
    expect_none(line for place in places("src", *PAGES) for line in wrong_files(place))


def test_section_ids_are_there_once() -> None:
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        ids = SECTION.findall(page.read_text(encoding="utf-8"))
        assert len(ids) == len(set(ids)), page.name


def test_the_map_of_folders_has_each_on_its_floor() -> None:
    """The table of docs/architecture.md behind its mark, and the floors that `make lint` knows."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("<!-- folders -->")[2].strip().partition("\n\n")[0]
    named = re.findall(r"^\| ([0-9]+) \| `([a-z_]+)(/|\.py)` \|", table, re.MULTILINE)
    script = (ROOT / "scripts" / "check-imports").read_text(encoding="utf-8")
    floors = re.search(r"^FLOORS = (\(.*?^\))", script, re.MULTILINE | re.DOTALL)
    assert floors is not None
    bottom_up = list(reversed(ast.literal_eval(floors[1])))
    expected = {
        f"{name}/" if (PACKAGE / name).is_dir() else f"{name}.py": bottom_up.index(floor) - 1
        for floor in bottom_up[1:]  # below all is __init__
        for name in floor
        if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()
    }
    found = {name + kind: int(floor) for floor, name, kind in named}
    expect_none(
        f"docs/architecture.md: {name} is on floor {found.get(name)}, and in scripts/check-imports "
        f"on floor {expected.get(name)}"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    )
    assert len(named) == len(found)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("docs/reference/packets.md, P3 and\n    P7", 0),
        ("docs/reference/packets.md, P3 and\n    P99", 1),
        ("docs/reference/packet.md, P3", 1),
        ("docs/reference/packets.md says", 0),
        ("see docs/nothing.md, and decision 9999", 2),
    ],
)
def test_a_wrong_citation_is_found(text: str, wrong: int) -> None:
    place = Place(Path(__file__), text)
    assert len(wrong_citations(place)) == wrong


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[a](reference/image.md#i1-the-header)", 0),
        ("[a](reference/image.md#i1-the-footer)", 1),
        ("[a](reference/none.md)", 1),
        ("`bios.rules.published.find_update` and `bios.post.Board`", 0),
        ("`bios.rules.unpublished`", 1),
        ("`bios.post.Bored`", 1),
        ("`drivers/sysfs.py` and `src/openrbu/bios/`", 0),
        ("`drivers/procfs.py`", 1),
        ("`search` in `src/openrbu/memory/scan.py`", 0),
        ("`research` in `src/openrbu/memory/scan.py`", 1),
    ],
)
def test_a_wrong_link_file_or_module_is_found(text: str, wrong: int) -> None:
    place = Place(ROOT / "docs" / "page.md", text)
    assert len(wrong_links(place) + wrong_modules(place) + wrong_files(place)) == wrong


@pytest.mark.parametrize(
    "text",
    ["(RBU packet rule 3)", "BIOS boot facts, point 4", "the project's\nnotes on it", "(spec 5)"],
)
def test_a_page_that_is_not_here_is_found(text: str) -> None:
    assert NOT_IN_THE_REPOSITORY.search(Place(ROOT, text).joined)
