"""The attribute tree: paths, modes and errnos as Linux has them."""

import errno
import stat
from collections.abc import Callable
from functools import partial
from itertools import count

import pytest

from openrbu.buffers import Buffer
from openrbu.drivers.sysfs import (
    ROOT,
    BinaryAttribute,
    Caller,
    Change,
    Directory,
    OpenFile,
    Stat,
    Symlink,
    SysfsTree,
    TextAttribute,
)
from openrbu.errors import KernelError
from openrbu.units import PAGE_SIZE

SOMEBODY = Caller(uid=1000, sys_rawio=False)
NS = 10**9


class Recorder:
    """Attributes over a buffer that keep what they were asked."""

    def __init__(self) -> None:
        self.value = b"0123456789"
        self.calls: list[tuple[object, ...]] = []

    def show(self) -> str:
        return self.value.decode()

    def store(self, data: bytes) -> None:
        self.calls.append(("store", data))

    def read(self, offset: int, size_bytes: int) -> bytes:
        self.calls.append(("read", offset, size_bytes))
        return self.value[offset : offset + size_bytes]

    def write(self, offset: int, data: Buffer) -> None:
        self.calls.append(("write", offset, bytes(data)))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def tree(recorder: Recorder) -> SysfsTree:
    tree = SysfsTree()
    binary, text = (recorder.read, recorder.write), (recorder.show, recorder.store)
    tree.add("/devices/platform/dell_rbu/data", BinaryAttribute(recorder.read, mode=0o444))
    tree.add("/devices/platform/dell_rbu/image_type", BinaryAttribute(*binary))
    tree.add("/devices/platform/dell_rbu/firmware/dell_rbu/loading", TextAttribute(*text))
    tree.add("/devices/platform/dell_rbu/firmware/dell_rbu/data", BinaryAttribute(*binary))
    tree.add(
        "/class/firmware/dell_rbu", Symlink("../../devices/platform/dell_rbu/firmware/dell_rbu")
    )
    tree.add("/class/firmware/timeout", TextAttribute(*text))
    return tree


def outcome(call: Callable[[], object]) -> str | None:
    """The name of the error that a call ends with; None: it does not."""
    try:
        call()
    except KernelError as error:
        return error.name
    return None


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(KernelError) as caught:
        call()
    return caught.value.name


# -- paths ------------------------------------------------------------------------------------


def test_a_directory_lists_its_names_in_order(tree: SysfsTree) -> None:
    assert tree.list("/") == ["class", "devices"]
    assert tree.list("/devices/platform/dell_rbu") == ["data", "firmware", "image_type"]
    assert tree.list("/class/firmware") == ["dell_rbu", "timeout"]


def test_a_relative_link_leads_from_where_it_is(tree: SysfsTree) -> None:
    assert tree.list("/class/firmware/dell_rbu") == ["data", "loading"]
    assert tree.lookup("/class/firmware/dell_rbu/data") is tree.lookup(
        "/devices/platform/dell_rbu/firmware/dell_rbu/data"
    )


def test_an_absolute_link_leads_from_the_root(tree: SysfsTree) -> None:
    tree.add("/class/there", Symlink("/class/firmware/timeout"))
    assert tree.lookup("/class/there") is tree.lookup("/class/firmware/timeout")


def test_dot_dot_behind_a_link_is_the_directory_above_its_target(tree: SysfsTree) -> None:
    assert tree.lookup("/class/firmware/dell_rbu/../../data") is tree.lookup(
        "/devices/platform/dell_rbu/data"
    )


def test_dot_dot_ends_at_the_root_and_dots_and_slashes_do_not_matter(tree: SysfsTree) -> None:
    assert tree.lookup("/../../class//firmware/./timeout") is tree.lookup("/class/firmware/timeout")
    assert tree.lookup("/class/..") is tree.root


def test_a_link_itself_is_seen_when_it_is_not_followed(tree: SysfsTree) -> None:
    link = tree.lookup("/class/firmware/dell_rbu", follow=False)
    assert isinstance(link, Symlink)
    assert isinstance(tree.lookup("/class/firmware/dell_rbu"), Directory)
    assert tree.readlink("/class/firmware/dell_rbu") == link.target


def test_links_on_the_way_are_followed_even_then(tree: SysfsTree) -> None:
    assert isinstance(tree.lookup("/class/firmware/dell_rbu/data", follow=False), BinaryAttribute)


def test_links_in_a_circle_are_eloop(tree: SysfsTree) -> None:
    tree.add("/class/a", Symlink("b"))
    tree.add("/class/b", Symlink("a"))
    assert error_of(lambda: tree.lookup("/class/a")) == "ELOOP"
    tree.add("/class/self", Symlink("self/self"))
    assert error_of(lambda: tree.lookup("/class/self")) == "ELOOP"


@pytest.mark.parametrize(("links", "found"), [(40, True), (41, False)])
def test_40_links_are_followed_and_41_are_not(links: int, found: bool) -> None:
    tree = SysfsTree()
    tree.add("/0", TextAttribute())
    for number in range(1, links + 1):
        tree.add(f"/{number}", Symlink(str(number - 1)))
    assert tree.exists(f"/{links}") is found


def test_a_link_to_nothing_is_enoent_and_does_not_exist(tree: SysfsTree) -> None:
    tree.add("/class/gone", Symlink("nowhere"))
    assert error_of(lambda: tree.lookup("/class/gone")) == "ENOENT"
    assert not tree.exists("/class/gone")
    assert tree.readlink("/class/gone") == "nowhere"


def test_what_is_not_there_is_enoent_with_the_path(tree: SysfsTree) -> None:
    with pytest.raises(KernelError) as caught:
        tree.read("/class/firmware/none")
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == "/class/firmware/none"


def test_an_attribute_is_not_a_directory(tree: SysfsTree) -> None:
    assert error_of(lambda: tree.lookup("/class/firmware/timeout/x")) == "ENOTDIR"
    assert error_of(lambda: tree.lookup("/class/firmware/timeout/..")) == "ENOTDIR"
    assert error_of(lambda: tree.list("/class/firmware/timeout")) == "ENOTDIR"


def test_a_directory_is_not_an_attribute(tree: SysfsTree) -> None:
    assert error_of(lambda: tree.read("/class/firmware")) == "EISDIR"
    assert error_of(lambda: tree.write("/class/firmware/dell_rbu", b"1")) == "EISDIR"


def test_only_a_link_can_be_read_as_one(tree: SysfsTree) -> None:
    assert error_of(lambda: tree.readlink("/class/firmware/timeout")) == "EINVAL"


# -- adding and removing ----------------------------------------------------------------------


def test_nothing_is_added_twice(tree: SysfsTree) -> None:
    before = tree.lookup("/class/firmware/timeout")
    assert error_of(lambda: tree.add("/class/firmware/timeout", TextAttribute())) == "EEXIST"
    assert tree.lookup("/class/firmware/timeout") is before


def test_nothing_is_added_below_an_attribute(tree: SysfsTree) -> None:
    assert error_of(lambda: tree.add("/class/firmware/timeout/x", TextAttribute())) == "ENOTDIR"


def test_removing_takes_all_below_and_what_is_added_later_is_new(tree: SysfsTree) -> None:
    tree.remove("/devices/platform/dell_rbu/firmware")
    assert not tree.exists("/class/firmware/dell_rbu")
    assert tree.list("/devices/platform/dell_rbu") == ["data", "image_type"]
    tree.add("/devices/platform/dell_rbu/firmware/dell_rbu/loading", TextAttribute())
    assert tree.list("/class/firmware/dell_rbu") == ["loading"]


def test_removing_a_link_leaves_what_it_led_to(tree: SysfsTree) -> None:
    tree.remove("/class/firmware/dell_rbu")
    assert tree.list("/class/firmware") == ["timeout"]
    assert tree.exists("/devices/platform/dell_rbu/firmware/dell_rbu/data")


def test_removing_what_is_not_there_is_enoent(tree: SysfsTree) -> None:
    assert error_of(lambda: tree.remove("/class/firmware/none")) == "ENOENT"
    assert error_of(lambda: tree.remove("/class/firmware/timeout/x")) == "ENOENT"


# -- reading and writing ----------------------------------------------------------------------


def test_text_is_made_whole_and_read_at_an_offset(tree: SysfsTree) -> None:
    path = "/class/firmware/timeout"
    assert tree.read(path) == b"0123456789"
    assert tree.read(path, 8) == b"89"
    assert tree.read(path, 2, 3) == b"234"
    assert tree.read(path, 10) == b""


def test_every_write_of_text_is_a_fresh_store_whatever_its_offset(
    tree: SysfsTree, recorder: Recorder
) -> None:
    assert tree.write("/class/firmware/timeout", b"60\n") == 3
    assert tree.write("/class/firmware/timeout", b"7", 2) == 1
    assert recorder.calls == [("store", b"60\n"), ("store", b"7")]


def test_a_binary_attribute_gets_offset_and_size_as_they_are(
    tree: SysfsTree, recorder: Recorder
) -> None:
    path = "/devices/platform/dell_rbu/image_type"
    assert tree.read(path, 3, 4) == b"3456"
    assert tree.read(path, 1 << 40, 1 << 20) == b""
    assert tree.write(path, b"packet", 77) == 6
    assert recorder.calls == [("read", 3, 4), ("read", 1 << 40, 1 << 20), ("write", 77, b"packet")]


def test_one_read_asks_for_a_page_unless_told_otherwise(
    tree: SysfsTree, recorder: Recorder
) -> None:
    tree.read("/devices/platform/dell_rbu/data")
    assert recorder.calls == [("read", 0, PAGE_SIZE)]


def test_a_declared_size_ends_the_reading(recorder: Recorder) -> None:
    tree = SysfsTree()
    tree.add("/token", BinaryAttribute(recorder.read, size_bytes=4))
    assert tree.read("/token", 0, 100) == b"0123"
    assert tree.read("/token", 3, 100) == b"3"
    assert tree.read("/token", 4, 100) == b""
    assert recorder.calls == [("read", 0, 4), ("read", 3, 1)]


def test_an_error_of_the_driver_reaches_the_caller(tree: SysfsTree) -> None:
    def refuse(offset: int, data: Buffer) -> None:
        raise KernelError(errno.EINVAL)

    tree.add("/strict", BinaryAttribute(writer=refuse))
    assert error_of(lambda: tree.write("/strict", b"x")) == "EINVAL"


# -- who may ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "caller", "may_read", "may_write"),
    [
        (0o644, ROOT, True, True),
        (0o644, SOMEBODY, True, False),
        (0o600, SOMEBODY, False, False),
        (0o666, SOMEBODY, True, True),
        (0o660, SOMEBODY, False, False),
        (0o444, ROOT, True, False),
        (0o200, ROOT, False, True),
        (0o000, ROOT, False, False),
    ],
)
def test_the_mode_bits_hold_for_everybody(
    recorder: Recorder, mode: int, caller: Caller, may_read: bool, may_write: bool
) -> None:
    tree = SysfsTree()
    tree.add("/binary", BinaryAttribute(recorder.read, recorder.write, mode=mode))
    tree.add("/text", TextAttribute(recorder.show, recorder.store, mode=mode))
    for path in ("/binary", "/text"):
        if may_read:
            assert tree.read(path, caller=caller) == recorder.value
        else:
            assert error_of(partial(tree.read, path, caller=caller)) == "EACCES"
        if may_write:
            assert tree.write(path, b"x", caller=caller) == 1
        else:
            assert error_of(partial(tree.write, path, b"x", caller=caller)) == "EACCES"


def test_raw_io_takes_the_capability_and_not_only_root(recorder: Recorder) -> None:
    tree = SysfsTree()
    tree.add("/data", BinaryAttribute(recorder.read, recorder.write, rawio=True))
    without = Caller(uid=0, sys_rawio=False)
    assert error_of(lambda: tree.write("/data", b"x", caller=without)) == "EPERM"
    assert recorder.calls == []
    assert tree.read("/data", caller=without) == recorder.value
    assert tree.write("/data", b"x", caller=ROOT) == 1


OWNER = Caller(uid=1000, gids=(5, 7))
NOW = Change(accessed_ns="now", modified_ns="now")


@pytest.fixture
def owned() -> SysfsTree:
    """A file `/text` of the user 1000 and the group 5, made at 10 s and changed at 20 s."""
    times = count(0, 10)  # the root's, the file's, then those of changes
    tree = SysfsTree(now=lambda: float(next(times)))
    tree.add("/text", TextAttribute(lambda: "text", lambda data: None))
    tree.change("/text", Change(uid=1000, gid=5))
    return tree


@pytest.mark.parametrize(
    ("mode", "caller", "may_read", "may_write"),
    [
        (0o640, OWNER, True, True),
        (0o046, OWNER, False, False),
        (0o640, Caller(1001, gids=(5,)), True, False),
        (0o604, Caller(1001, gids=(5,)), False, False),
        (0o604, Caller(1001, gids=(6,)), True, False),
        (0o020, ROOT, False, True),
    ],
)
def test_owner_group_and_others_have_bits_of_their_own(
    owned: SysfsTree, mode: int, caller: Caller, may_read: bool, may_write: bool
) -> None:
    owned.change("/text", Change(mode=mode))
    assert outcome(lambda: owned.read("/text", caller=caller)) == (None if may_read else "EACCES")
    written = outcome(lambda: owned.write("/text", b"x", caller=caller))
    assert written == (None if may_write else "EACCES")


def test_the_first_change_sets_all_times_and_each_the_time_of_the_change(owned: SysfsTree) -> None:
    seen = owned.stat("/text")
    assert (seen.accessed_ns, seen.modified_ns, seen.changed_at) == (20 * NS, 20 * NS, 20.0)
    owned.change("/text", Change(accessed_ns=-5))
    seen = owned.stat("/text")
    assert (seen.accessed_ns, seen.modified_ns, seen.changed_at) == (-5, 20 * NS, 30.0)
    owned.change("/text", NOW)
    seen = owned.stat("/text")
    assert (seen.accessed_ns, seen.modified_ns, seen.changed_at) == (40 * NS, 40 * NS, 40.0)


@pytest.mark.parametrize(
    ("wanted", "caller", "error"),
    [
        (Change(mode=0o600), SOMEBODY, None),
        (Change(mode=0o600), Caller(1001, gids=(5,)), "EPERM"),
        (Change(uid=1000), SOMEBODY, None),
        (Change(uid=1001), SOMEBODY, "EPERM"),
        (Change(gid=7), OWNER, None),
        (Change(gid=8), OWNER, "EPERM"),
        (Change(accessed_ns=1), Caller(1001), "EPERM"),
        (Change(accessed_ns="now"), Caller(1001), "EPERM"),
        (NOW, Caller(1001), "EACCES"),
        (NOW, Caller(1001, gids=(5,)), None),
        (Change(uid=7, gid=7, mode=0), ROOT, None),
    ],
)
def test_who_may_change_what(
    owned: SysfsTree, wanted: Change, caller: Caller, error: str | None
) -> None:
    owned.change("/text", Change(mode=0o664))
    before = owned.stat("/text")
    assert outcome(lambda: owned.change("/text", wanted, caller)) == error
    assert (owned.stat("/text") == before) == (error is not None)


def test_a_new_owner_loses_the_bits_that_would_make_others_this_owner(owned: SysfsTree) -> None:
    owned.change("/text", Change(mode=0o6711))
    owned.change("/text", Change(gid=9))
    assert owned.stat("/text").mode & 0o7777 == 0o711
    owned.change("/text", Change(mode=0o2755), SOMEBODY)
    assert owned.stat("/text").mode & 0o7777 == 0o755, "the owner is not in the group"


def test_a_mode_lets_nobody_do_what_an_attribute_can_not(recorder: Recorder) -> None:
    tree = SysfsTree()
    tree.add("/reads", BinaryAttribute(recorder.read, mode=0o666))
    tree.add("/writes", BinaryAttribute(writer=recorder.write, mode=0o666))
    tree.add("/shows", TextAttribute(recorder.show, mode=0o666))
    tree.add("/stores", TextAttribute(store=recorder.store, mode=0o666))
    assert error_of(lambda: tree.write("/reads", b"x")) == "EACCES"
    assert error_of(lambda: tree.read("/writes")) == "EACCES"
    assert error_of(lambda: tree.write("/shows", b"x")) == "EIO"
    assert error_of(lambda: tree.read("/stores")) == "EIO"


def test_a_file_mode_is_checked_before_the_capability(recorder: Recorder) -> None:
    tree = SysfsTree()
    tree.add("/data", BinaryAttribute(recorder.read, recorder.write, rawio=True))
    assert error_of(lambda: tree.write("/data", b"x", caller=SOMEBODY)) == "EACCES"


def test_a_refused_write_never_reaches_the_driver(tree: SysfsTree, recorder: Recorder) -> None:
    assert (
        error_of(lambda: tree.write("/class/firmware/timeout", b"1", caller=SOMEBODY)) == "EACCES"
    )
    assert recorder.calls == []


# -- files that are open ----------------------------------------------------------------------

TIMEOUT = "/class/firmware/timeout"
LOADING = "/devices/platform/dell_rbu/firmware/dell_rbu/loading"


def opened(tree: SysfsTree, path: str = TIMEOUT) -> OpenFile:
    return tree.open(path, reading=True, writing=True)


def test_reading_on_where_the_last_read_ended_gets_the_text_that_was_shown_then(
    tree: SysfsTree, recorder: Recorder
) -> None:
    """Each step as seen on Debian's 6.1.192."""
    file = opened(tree)
    assert file.read(0, 1) == b"0"
    recorder.value = b"abcde"
    assert file.read(1, 3) == b"123"
    assert file.read(4, 99) == b"456789"
    assert file.read(0, 2) == b"ab"
    recorder.value = b"vwxyz"
    assert file.read(0, 2) == b"vw"
    recorder.value = b"klmno"
    assert file.read(1, 99) == b"lmno"


def test_what_one_open_file_was_shown_is_nothing_to_another(
    tree: SysfsTree, recorder: Recorder
) -> None:
    one, other = opened(tree), opened(tree)
    assert one.read(0, 4) == b"0123"
    recorder.value = b"abcdefghij"
    assert other.read(0, 4) == b"abcd"
    assert (one.read(4, 2), other.read(4, 2)) == (b"45", b"ef")


def test_text_is_shown_a_byte_for_a_character() -> None:
    tree = SysfsTree()
    tree.add("/name", TextAttribute(lambda: "Caf\xe9\n", mode=0o444))
    assert tree.read("/name") == b"Caf\xe9\n"


def test_an_open_file_is_enodev_once_its_attribute_has_gone(
    tree: SysfsTree, recorder: Recorder
) -> None:
    files = [opened(tree, path) for path in (LOADING, LOADING.replace("loading", "data"))]
    tree.remove("/devices/platform/dell_rbu/firmware")
    for file in files:
        assert error_of(partial(file.read, 0, 1)) == "ENODEV"
        assert error_of(partial(file.write, 0, b"1")) == "ENODEV"
    assert recorder.calls == []


def test_one_that_comes_in_its_place_is_another_one(tree: SysfsTree, recorder: Recorder) -> None:
    before, number = opened(tree), tree.stat(TIMEOUT).inode
    tree.remove(TIMEOUT)
    tree.add(TIMEOUT, TextAttribute(recorder.show, recorder.store))
    assert error_of(lambda: before.read(0, 1)) == "ENODEV"
    assert opened(tree).read(0, 1) == b"0"
    assert tree.stat(TIMEOUT).inode > number


def test_a_file_opened_through_a_link_outlives_the_link(tree: SysfsTree) -> None:
    file = opened(tree, "/class/firmware/dell_rbu/loading")
    tree.remove("/class/firmware/dell_rbu")
    assert file.read(0, 2) == b"01"


@pytest.mark.parametrize(
    ("path", "held"),
    [
        (LOADING, True),
        (LOADING.lstrip("/"), True),
        (LOADING.replace("/", "//"), True),
        ("/class/firmware/dell_rbu/loading", False),
        (f"{LOADING}/more", False),
        (TIMEOUT, False),
        ("/nowhere", False),
        ("/", False),
    ],
)
def test_a_node_is_at_its_own_path_only(tree: SysfsTree, path: str, held: bool) -> None:
    assert tree.is_at(path, tree.lookup(LOADING)) is held


def test_a_binary_file_moves_no_more_than_the_limit_and_text_does(recorder: Recorder) -> None:
    tree = SysfsTree(transfer_limit_bytes=4)
    tree.add("/binary", BinaryAttribute(recorder.read, recorder.write))
    tree.add("/sized", BinaryAttribute(recorder.read, mode=0o444, size_bytes=6))
    tree.add("/text", TextAttribute(recorder.show, recorder.store))
    assert (tree.read("/binary"), tree.read("/binary", 3, 3)) == (b"0123", b"345")
    assert [tree.read("/sized", offset) for offset in (0, 4, 6)] == [b"0123", b"45", b""]
    assert tree.read("/text") == b"0123456789"
    assert tree.write("/binary", b"abcdefgh", 7) == 4
    assert tree.write("/binary", memoryview(b"abc")) == 3
    assert tree.write("/text", b"abcdefgh") == 8
    assert [call for call in recorder.calls if call[0] != "read"] == [
        ("write", 7, b"abcd"),
        ("write", 0, b"abc"),
        ("store", b"abcdefgh"),
    ]


def test_stat_shows_what_linux_shows() -> None:
    """Kinds, sizes and links as `stat` gave them on Debian's 6.1.192."""
    times = iter(range(10, 80, 10))
    tree = SysfsTree(numbers=iter(range(7, 14)), now=lambda: float(next(times)))
    tree.add("/dir/text", TextAttribute(lambda: "x"))
    tree.add("/dir/table", BinaryAttribute(lambda *_: b"", mode=0o400, size_bytes=388))
    tree.add("/dir/link", Symlink("text"))
    tree.add("/dir/dir/data", BinaryAttribute(lambda *_: b"", mode=0o444))
    assert tree.stat("/") == Stat(stat.S_IFDIR | 0o755, 3, 0, 7, 10.0)
    assert tree.stat("/dir") == Stat(stat.S_IFDIR | 0o755, 3, 0, 8, 20.0)
    assert tree.stat("/dir/text") == Stat(stat.S_IFREG | 0o644, 1, PAGE_SIZE, 9, 30.0)
    assert tree.stat("/dir/table") == Stat(stat.S_IFREG | 0o400, 1, 388, 10, 40.0)
    assert tree.stat("/dir/link", follow=False) == Stat(stat.S_IFLNK | 0o777, 1, 0, 11, 50.0)
    assert tree.stat("/dir/link") == tree.stat("/dir/text")
    assert tree.stat("/dir/dir").link_count == 2
    tree.remove("/dir/dir")
    assert tree.stat("/dir").link_count == 2


def test_writing_nothing_is_not_a_store(tree: SysfsTree, recorder: Recorder) -> None:
    for path in ("/class/firmware/timeout", "/class/firmware/dell_rbu/data"):
        assert tree.write(path, b"") == 0
    assert recorder.calls == []


def test_a_text_takes_a_page_at_most_and_the_rest_is_a_store_of_its_own(
    tree: SysfsTree, recorder: Recorder
) -> None:
    """Seen on Linux: 4,097 bytes written to a text file are two stores."""
    text = b"1" + b"\n" * PAGE_SIZE
    assert tree.write("/class/firmware/timeout", text) == PAGE_SIZE
    assert recorder.calls == [("store", text[:PAGE_SIZE])]
