"""What a host knows of each guest besides its frame table: a row of 16 numbers.

Rows are in memory that processes may share. Each number is written as a whole, so values that must
change together share one number.
"""

from __future__ import annotations

from collections.abc import Iterator

from openrbu.errors import UsageError
from openrbu.lazy import np

MAX_GUESTS = 2048
"""The number of rows. Xen itself can have 32,752 guests."""

MAX_NAME_BYTES = 63

ROW_WORDS = 16
_ID, _COUNTS, _FRAMES, _MAXIMUM, _TARGET, _SERIAL = range(6)
_NAME, _NAME_WORDS = 8, 8
_LOW = (1 << 32) - 1


class Row:
    """A guest's row, number `number` of all. Sizes in pages unless a name says otherwise."""

    def __init__(self, words: memoryview, number: int) -> None:
        self._words, self.number = words, number

    @property
    def domain_id(self) -> int | None:
        """The ID of the guest that has the row; None while it has no guest."""
        return self._words[_ID] - 1 if self._words[_ID] else None

    @property
    def current_pages(self) -> int:
        current: int = self._words[_COUNTS] & _LOW
        return current

    @property
    def claim_pages(self) -> int:
        claim: int = self._words[_COUNTS] >> 32
        return claim

    def set_counts(self, current_pages: int, claim_pages: int) -> None:
        """Set both at once, so that a page that the guest gets from its claim is never in both."""
        self._words[_COUNTS] = claim_pages << 32 | current_pages

    @property
    def frame_count(self) -> int:
        count: int = self._words[_FRAMES]
        return count

    @property
    def max_pages(self) -> int:
        maximum: int = self._words[_MAXIMUM]
        return maximum

    @max_pages.setter
    def max_pages(self, pages: int) -> None:
        self._words[_MAXIMUM] = pages

    @property
    def target_kib(self) -> int:
        target: int = self._words[_TARGET]
        return target

    @property
    def target_serial(self) -> int:
        serial: int = self._words[_SERIAL]
        return serial

    def set_target_kib(self, kib: int) -> None:
        """Write the target, and the serial after it: a reader that sees a new serial reads this
        target, or a newer one."""
        self._words[_TARGET] = kib
        self._words[_SERIAL] += 1

    @property
    def name(self) -> str:
        return bytes(self._words[_NAME : _NAME + _NAME_WORDS]).rstrip(b"\0").decode()

    def write(self, name: str, *, frame_count: int, target_kib: int) -> None:
        """Fill a row that has no guest. The guest has no pages yet, and its maximum is all its
        frames."""
        raw = memoryview(encode_name(name).ljust(_NAME_WORDS * 8, b"\0")).cast("Q")
        self._words[_NAME : _NAME + _NAME_WORDS] = raw
        self._words[_FRAMES] = self._words[_MAXIMUM] = frame_count
        self._words[_TARGET], self._words[_SERIAL] = target_kib, 0
        self.set_counts(0, 0)

    def assign(self, domain_id: int | None) -> None:
        """Give the row to this guest, or to none."""
        self._words[_ID] = 0 if domain_id is None else domain_id + 1


class Rows:
    """All rows. A search is no Python loop: with one, a thousand guests would take long to make."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        table = np.frombuffer(words, np.uint64).reshape(MAX_GUESTS, ROW_WORDS)
        self._ids = table[:, _ID]
        self._names = table[:, _NAME : _NAME + _NAME_WORDS].view(f"S{_NAME_WORDS * 8}")[:, 0]

    def __iter__(self) -> Iterator[Row]:
        """The rows that have a guest."""
        return (self._row(number) for number in self._ids.nonzero()[0].tolist())

    def named(self, name: str) -> Row | None:
        """The row of the guest of that name; None when there is none."""
        found = ((self._names == name.encode()) & (self._ids != 0)).nonzero()[0]
        return self._row(int(found[0])) if len(found) else None

    def free(self) -> Row | None:
        """A row that has no guest; None when there is none."""
        found = (self._ids == 0).nonzero()[0]
        return self._row(int(found[0])) if len(found) else None

    def _row(self, number: int) -> Row:
        return Row(self._words[number * ROW_WORDS : (number + 1) * ROW_WORDS], number)


def encode_name(name: str) -> bytes:
    """A guest's name as bytes.

    :raise UsageError: when a guest can't have that name.
    """
    raw = name.encode()
    if not 0 < len(raw) <= MAX_NAME_BYTES or not name.isprintable():
        raise UsageError(f"{name!r} can't be a guest's name: 1 to 63 bytes that can be printed")
    return raw
