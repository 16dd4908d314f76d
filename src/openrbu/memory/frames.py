"""Page frame numbers, and runs of adjacent frames."""

from __future__ import annotations

from typing import TypeAlias

from openrbu.lazy import np, npt

Frames: TypeAlias = "npt.NDArray[np.uint32]"
"""Page frame numbers, shape (n,)."""

Run = tuple[int, int]
"""Adjacent frames: the first one, and how many there are."""


def frame_runs(frames: Frames) -> list[Run]:
    """Frames as runs, in the sequence in which they are given: [7, 8, 9, 2] is (7, 3), (2, 1)."""
    count = len(frames)
    if not count:
        return []
    first = int(frames[0])
    starts = (frames[1:] - frames[:-1] != 1).nonzero()[0] + 1
    if not len(starts):
        return [(first, count)]
    cuts = [0, *starts.tolist(), count]
    firsts = [first, *frames[starts].tolist()]
    return [
        (frame, end - start) for frame, start, end in zip(firsts, cuts[:-1], cuts[1:], strict=True)
    ]
