"""System calls as data: what is sent is what arrives, and what is made is what it says."""

from __future__ import annotations

import errno
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrbu.errors import ObstacleError
from openrbu.lab.call_messages import (
    MAX_CALLS,
    calls_of_message,
    calls_to_message,
    perform_message,
    results_of_message,
    results_to_message,
    split,
)
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
    module_files,
    perform,
)
from openrbu.sharing.wire import MAX_INT, MAX_PAYLOAD_BYTES, Message, WireError

numbers = st.integers(0, MAX_INT)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
calls = st.lists(
    st.one_of(
        st.builds(Read, texts, numbers, numbers),
        st.builds(Write, texts, st.binary(max_size=100), numbers),
        st.builds(Send, texts, numbers, numbers),
        st.builds(SpliceIn, texts, st.binary(max_size=100), numbers),
        st.builds(SetMode, texts, numbers),
        st.builds(Exists, texts),
        st.builds(ListDir, texts),
        st.builds(Stat, texts),
        st.builds(ReadLink, texts),
        st.builds(Load, texts, st.dictionaries(texts, texts, max_size=3)),
        st.builds(Unload, texts),
        st.just(WaitForDriver()),
    )
)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    texts,
    st.binary(max_size=100),
    st.lists(texts, max_size=5).map(tuple),
    st.builds(LinkStatus, numbers, numbers),
)
results = st.lists(
    st.one_of(st.builds(Result, values), st.builds(Result, errno=st.integers(1, 133)))
)


def sent(message: Message) -> Message:
    """As it arrives."""
    return Message(json.loads(json.dumps(message.header)), message.payload)


@given(calls)
def test_calls_arrive_as_they_were_sent(asked: list[Call]) -> None:
    assert calls_of_message(*sent(calls_to_message(asked))) == asked


@given(results)
def test_results_arrive_as_they_were_sent(given_: list[Result]) -> None:
    arrived = results_of_message(*sent(results_to_message(given_)))
    assert [(type(each.value), each) for each in arrived] == [
        (type(each.value), each) for each in given_
    ]


@pytest.mark.parametrize(
    "message",
    [
        Message({}),
        Message({"calls": 1}),
        Message({"calls": [1]}),
        Message({"calls": [{"call": "reboot", "with": {}}]}),
        Message({"calls": [{"call": "exists", "with": {}}]}),
        Message({"calls": [{"call": "exists", "with": {"path": 1}}]}),
        Message({"calls": [{"call": "read", "with": {"path": "", "offset": -1, "size_bytes": 1}}]}),
        Message({"calls": [{"call": "write", "with": {"path": "", "offset": 0, "data": 2}}]}, b"1"),
        Message({"calls": [{"call": "load", "with": {"module": "", "parameters": {"a": 1}}}]}),
        Message({"calls": []}, b"left over"),
    ],
    ids=lambda message: str(message.header)[:60],
)
def test_what_asks_for_no_calls_is_refused(message: Message) -> None:
    with pytest.raises(WireError):
        calls_of_message(*message)


@pytest.mark.parametrize(
    "message",
    [
        Message({}),
        Message({"results": [1]}),
        Message({"results": [{}]}),
        Message({"results": [{"errno": "ENOENT"}]}),
        Message({"results": [{"bytes": 2}]}, b"1"),
        Message({"results": [{"bytes": -1}]}),
        Message({"results": [{"status": [1]}]}),
        Message({"results": [{"names": [1]}]}),
        Message({"results": [{"value": 1.5}]}),
        Message({"results": []}, b"left over"),
    ],
    ids=lambda message: str(message.header)[:60],
)
def test_what_brings_no_results_is_refused(message: Message) -> None:
    with pytest.raises(WireError):
        results_of_message(*message)


def test_calls_are_split_so_that_each_group_fits_into_one_message() -> None:
    half = MAX_PAYLOAD_BYTES // 2
    a, b, c = Write("a", bytes(half)), Read("b", 0, half), Write("c", bytes(half))
    more, most = Read("d", 0, half + 1), Write("e", bytes(MAX_PAYLOAD_BYTES))
    assert list(split([a, b, c, more, most])) == [[a, b, c], [more, most]]
    small: list[Call] = [WaitForDriver()] * (MAX_CALLS + 1)
    assert [len(group) for group in split(small)] == [MAX_CALLS, 1]
    assert list(split([])) == []


def test_calls_on_files_do_what_they_say(tmp_path: Path) -> None:
    file, link, nothing = (str(tmp_path / name) for name in ("file", "link", "nothing"))
    Path(file).write_bytes(b"0123456789")
    Path(link).symlink_to("file")
    assert perform(Read(file, 2, 3)) == Result(b"234")
    assert perform(Write(file, b"XY", 9)) == Result(2)
    assert perform(Send(file, 9, 7)) == Result(b"XY")
    assert perform(Send(file, 11)) == Result(b"")
    assert perform(SpliceIn(file, b"!", 10)) == Result(1)
    assert perform(SetMode(file, 0o640)) == Result()
    assert perform(Stat(file)) == Result(LinkStatus(stat.S_IFREG | 0o640, 11))
    assert Path(file).read_bytes() == b"012345678X!", "nothing was cut off"
    assert perform(Exists(link)) == Result(value=True)
    assert perform(Exists(nothing)) == Result(value=False)
    assert perform(ListDir(str(tmp_path))) == Result(("file", "link"))
    assert perform(ReadLink(link)) == Result("file")
    found = perform(Stat(link)).value
    assert isinstance(found, LinkStatus)
    assert stat.S_ISLNK(found.mode)
    for call in (Read(nothing), Write(nothing, b"x"), ListDir(nothing), Stat(nothing)):
        assert perform(call) == Result(errno=errno.ENOENT)
    assert perform(ReadLink(file)) == Result(errno=errno.EINVAL)
    assert perform(Read(str(tmp_path))) == Result(errno=errno.EISDIR)
    assert perform(ListDir(file)) == Result(errno=errno.ENOTDIR)


def test_a_message_is_answered_with_what_its_calls_came_to(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    asked: list[Call] = [Write(str(file), b"ab"), Read(str(file)), Exists(f"{file}s")]
    asked += [SpliceIn(str(file), b"cd", 2), Send(str(file), 1), SetMode(str(file), 0o600)]
    answer = perform_message(*sent(calls_to_message(asked)))
    expected = [Result(2), Result(b"ab23456789"), Result(value=False)]
    expected += [Result(2), Result(b"bcd456789"), Result()]
    assert results_of_message(*sent(answer)) == expected


def test_a_module_is_loaded_after_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text(
        "kernel/a.ko:\n"
        "kernel/drivers/dell-wmi.ko.xz: kernel/b.ko kernel/a.ko\n"
        "kernel/b.ko: kernel/a.ko\n"
    )
    expected = [tmp_path / "kernel" / name for name in ("a.ko", "b.ko", "drivers/dell-wmi.ko.xz")]
    assert list(module_files(tmp_path, "dell_wmi")) == expected
    with pytest.raises(ObstacleError, match="has no module dell"):
        module_files(tmp_path, "dell")
