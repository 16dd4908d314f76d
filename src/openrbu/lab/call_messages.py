"""Lists of calls and of results as messages, for the framing of `sharing/wire.py`.

Many go into one message: the header says what each is, the payload has the bytes of all of them,
one after the other. The agent imports this module, too, and so it imports little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openrbu.lab.calls import (
    Call,
    Exists,
    LinkStatus,
    ListDir,
    Load,
    Read,
    ReadLink,
    Result,
    Send,
    SetMode,
    SpliceIn,
    Stat,
    Unload,
    WaitForDriver,
    Write,
    perform,
)
from openrbu.sharing.wire import MAX_PAYLOAD_BYTES, Message, WireError, fields

MAX_CALLS = 10_000
"""How many calls `split` puts into one message. Their header is well below `wire`'s limit."""

_KINDS: Mapping[str, tuple[type[Call], Mapping[str, Any]]] = {
    "read": (Read, {"path": str, "offset": int, "size_bytes": int}),
    "write": (Write, {"path": str, "data": int, "offset": int}),
    "send": (Send, {"path": str, "offset": int, "size_bytes": int}),
    "splice_in": (SpliceIn, {"path": str, "data": int, "offset": int}),
    "set_mode": (SetMode, {"path": str, "mode": int}),
    "exists": (Exists, {"path": str}),
    "list": (ListDir, {"path": str}),
    "stat": (Stat, {"path": str}),
    "readlink": (ReadLink, {"path": str}),
    "load": (Load, {"module": str, "parameters": dict}),
    "unload": (Unload, {"module": str}),
    "wait_for_driver": (WaitForDriver, {}),
}
"""By name on the wire: the class, and its fields in the header. For bytes that is their length."""

_NAMES = {kind: name for name, (kind, _) in _KINDS.items()}


def split(calls: Sequence[Call]) -> Iterator[Sequence[Call]]:
    """The calls in groups, so that the calls of a group, and also their results, fit into one
    message.

    A single call of more than `wire.MAX_PAYLOAD_BYTES` is a group of its own, and does not fit.
    """
    start = written = read = 0
    for index, call in enumerate(calls):
        more_written = len(call.data) if isinstance(call, Write | SpliceIn) else 0
        more_read = call.size_bytes if isinstance(call, Read | Send) else 0
        is_full = max(written + more_written, read + more_read) > MAX_PAYLOAD_BYTES
        if index > start and (is_full or index - start == MAX_CALLS):
            yield calls[start:index]
            start, written, read = index, 0, 0
        written, read = written + more_written, read + more_read
    if start < len(calls):
        yield calls[start:]


def calls_to_message(calls: Sequence[Call]) -> Message:
    """The message that requests the calls."""
    documents, chunks = [], []
    for call in calls:
        name = _NAMES[type(call)]
        document = {each: getattr(call, each) for each in _KINDS[name][1]}
        if isinstance(call, Write | SpliceIn):
            document["data"] = len(call.data)
            chunks.append(call.data)
        elif isinstance(call, Load):
            document["parameters"] = dict(call.parameters)
        documents.append({"call": name, "with": document})
    return Message({"calls": documents}, b"".join(chunks))


def perform_message(header: Mapping[str, Any], payload: bytes) -> Message:
    """Make the calls that a message requests; the reply.

    :raise WireError: as `calls_of_message`.
    :raise ObstacleError: as `perform`.
    """
    return results_to_message([perform(call) for call in calls_of_message(header, payload)])


def calls_of_message(header: Mapping[str, Any], payload: bytes) -> list[Call]:
    """The calls that a message of `calls_to_message` requests.

    :raise WireError: when it is not such a message.
    """
    chunks = _Chunks(payload)
    calls = [_call_of(each, chunks) for each in _list_of(header, "calls")]
    chunks.check_end()
    return calls


def _call_of(document: object, chunks: _Chunks) -> Call:
    whole = fields(document, {"call": str, "with": dict})
    if whole["call"] not in _KINDS:
        raise WireError(f"there is no call {whole['call']!r}")
    kind, kinds = _KINDS[whole["call"]]
    values = dict(fields(whole["with"], kinds))
    if kind in (Write, SpliceIn):
        values["data"] = chunks.take(values["data"])
    elif kind is Load and not all(isinstance(text, str) for text in values["parameters"].values()):
        raise WireError("a parameter that is not text")
    return kind(**values)


def results_to_message(results: Sequence[Result]) -> Message:
    """The reply to `calls_to_message`: a result for each call, in the same sequence."""
    documents: list[dict[str, object]] = []
    chunks = []
    for result in results:
        value = result.value
        if result.errno is not None:
            documents.append({"errno": result.errno})
        elif isinstance(value, bytes):
            documents.append({"bytes": len(value)})
            chunks.append(value)
        elif isinstance(value, LinkStatus):
            documents.append({"status": value})
        elif isinstance(value, tuple):
            documents.append({"names": value})
        else:
            documents.append({"value": value})
    return Message({"results": documents}, b"".join(chunks))


def results_of_message(header: Mapping[str, Any], payload: bytes) -> list[Result]:
    """The results in a message of `results_to_message`.

    :raise WireError: when it is not such a message.
    """
    chunks = _Chunks(payload)
    results = [_result_of(each, chunks) for each in _list_of(header, "results")]
    chunks.check_end()
    return results


def _result_of(document: object, chunks: _Chunks) -> Result:
    match document:
        case {"errno": int(number)}:
            return Result(errno=number)
        case {"bytes": int(size_bytes)}:
            return Result(chunks.take(size_bytes))
        case {"status": [int(mode), int(size_bytes)]}:
            return Result(LinkStatus(mode, size_bytes))
        case {"names": list(names)} if all(isinstance(name, str) for name in names):
            return Result(tuple(names))
        case {"value": bool() | int() | str() | None as value}:
            return Result(value)
        case _:
            raise WireError("not a result of a call")


def _list_of(header: Mapping[str, Any], name: str) -> list[object]:
    found = fields(header, {name: list})[name]
    assert isinstance(found, list)
    return found


class _Chunks:
    """The payload of a message, taken in chunks from its start."""

    def __init__(self, payload: bytes) -> None:
        self._payload, self._taken = payload, 0

    def take(self, size_bytes: int) -> bytes:
        start, self._taken = self._taken, self._taken + size_bytes
        if size_bytes < 0 or self._taken > len(self._payload):
            raise WireError("a payload that is shorter than its header says")
        return self._payload[start : self._taken]

    def check_end(self) -> None:
        if self._taken != len(self._payload):
            raise WireError("a payload that is longer than its header says")
