"""Whether all cases are tried where CI is content with some: `make case-soak`."""

from __future__ import annotations

import itertools
import os

ALL_CASES = "OPENRBU_ALL_CASES" in os.environ


def in_pairs(*choices: tuple[str, str]) -> list[tuple[str, ...]]:
    """The half of all combinations in which each two choices meet in every way; or all."""
    combined = list(itertools.product(*choices))
    if ALL_CASES:
        return combined
    firsts = [first for first, _ in choices]
    return [
        each
        for each in combined
        if sum(a == b for a, b in zip(each, firsts, strict=True)) % 2 == len(choices) % 2
    ]
