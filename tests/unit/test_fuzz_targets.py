"""What the fuzzer runs, without the fuzzer: the seeds, and the inputs that were kept."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest

from fuzz import corpus
from fuzz.parsers import PARSERS, not_parsers
from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds_and_what_is_kept_of_its_corpus(name: str) -> None:
    target = TARGETS[name]
    seeds = list(target.seeds())

    for data in (b"", *seeds, *(data for _, data in corpus.kept_inputs(name))):
        target(data)

    assert seeds


def test_what_is_not_looked_at_has_no_parser_in_it() -> None:
    left_out = not_parsers()

    assert "openrbu.cli.main" in left_out
    assert not set(PARSERS) & set(left_out)
    assert [each for each in left_out if each.startswith("openrbu.formats")] == [
        "openrbu.formats.layout"  # what all formats are read with
    ]


def test_what_is_kept_is_the_same_each_time_and_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "corpus.zip"
    monkeypatch.setattr(corpus, "KEPT", kept)
    noise = [random.Random(number).randbytes(3000) for number in range(200)]

    assert corpus.keep({"texts": [b"A06", b"1"], "image": noise}) > 50
    first = kept.read_bytes()
    corpus.keep({"image": reversed(noise), "texts": [b"1", b"A06", b"1"]})

    assert kept.read_bytes() == first
    assert len(first) <= corpus.MOST_BYTES
    assert {data for _, data in corpus.kept_inputs("texts")} == {b"A06", b"1"}
    with zipfile.ZipFile(kept) as archive:
        assert archive.testzip() is None
