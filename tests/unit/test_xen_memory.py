"""The balloon driver's files. What is marked so was seen on Debian's 6.1.192 under Xen 4.17."""

from __future__ import annotations

import errno
import stat

import pytest

from openrbu.drivers.sysfs import Caller, Directory, SysfsTree
from openrbu.drivers.xen_balloon import XenBalloon
from openrbu.drivers.xen_balloon_files import DEVICE_PATH, PROC_PATH, XenMemory
from openrbu.errors import KernelError
from openrbu.units import PAGES_PER_MIB
from rigs.balloon import Guest, Host


class Files:
    """The files of a guest of 12 MiB, of which it has 8 now; its host has enough."""

    def __init__(self, profile: str = "linux") -> None:
        self.guest = Guest(
            Host(10_000), frames=12 * PAGES_PER_MIB, pages=8 * PAGES_PER_MIB, profile=profile
        )
        self.sys, self.proc = SysfsTree(), SysfsTree()
        XenMemory(self.balloon, self.sys, self.proc).install()

    @property
    def balloon(self) -> XenBalloon:
        return self.guest.balloon

    def read(self, name: str) -> str:
        return self.sys.read(f"{DEVICE_PATH}/{name}").decode()

    def write(self, name: str, data: bytes) -> None:
        assert self.sys.write(f"{DEVICE_PATH}/{name}", data) == len(data)


@pytest.fixture
def files() -> Files:
    return Files()


def listing(tree: SysfsTree, path: str) -> dict[str, str]:
    """Every path below `path`: its mode, or where it leads."""
    found: dict[str, str] = {}
    for name in tree.list(path):
        inner = f"{path}/{name}"
        node = tree.lookup(inner, follow=False)
        if isinstance(node, Directory):
            found |= listing(tree, inner)
        mode = tree.stat(inner, follow=False).mode
        found[inner] = tree.readlink(inner) if stat.S_ISLNK(mode) else stat.filemode(mode)
    return found


# -- which files there are ----------------------------------------------------------------------

POWER = {
    "async": "-rw-r--r--",
    "autosuspend_delay_ms": "-rw-r--r--",
    "control": "-rw-r--r--",
    "runtime_active_kids": "-r--r--r--",
    "runtime_active_time": "-r--r--r--",
    "runtime_enabled": "-r--r--r--",
    "runtime_status": "-r--r--r--",
    "runtime_suspended_time": "-r--r--r--",
    "runtime_usage": "-r--r--r--",
}


def test_linux_lists_what_was_seen(files: Files) -> None:
    """Seen."""
    root = "/devices/system/xen_memory"
    device = {
        "info": "drwxr-xr-x",
        "info/current_kb": "-r--r--r--",
        "info/high_kb": "-r--r--r--",
        "info/low_kb": "-r--r--r--",
        "max_retry_count": "-rw-r--r--",
        "max_schedule_delay": "-rw-r--r--",
        "power": "drwxr-xr-x",
        **{f"power/{name}": mode for name, mode in POWER.items()},
        "retry_count": "-r--r--r--",
        "schedule_delay": "-r--r--r--",
        "scrub_pages": "-rw-r--r--",
        "subsystem": "../../../../bus/xen_memory",
        "target": "-rw-r--r--",
        "target_kb": "-rw-r--r--",
        "uevent": "-rw-r--r--",
    }
    assert listing(files.sys, root) == {
        f"{root}/power": "drwxr-xr-x",
        **{f"{root}/power/{name}": mode for name, mode in POWER.items()},
        f"{root}/uevent": "-rw-r--r--",
        f"{root}/xen_memory0": "drwxr-xr-x",
        **{f"{root}/xen_memory0/{name}": mode for name, mode in device.items()},
    }
    for path, links in (("", 4), ("/xen_memory0", 4), ("/xen_memory0/info", 2)):
        assert files.sys.stat(root + path).link_count == links
    assert files.sys.stat(f"{root}/xen_memory0/target_kb").size_bytes == 4096
    assert files.sys.exists(f"{root}/xen_memory0/subsystem/devices/xen_memory0/target_kb")


def test_linux_lists_a_bus_that_was_seen(files: Files) -> None:
    """Seen."""
    assert listing(files.sys, "/bus/xen_memory") == {
        "/bus/xen_memory/devices": "drwxr-xr-x",
        "/bus/xen_memory/devices/xen_memory0": "../../../devices/system/xen_memory/xen_memory0",
        "/bus/xen_memory/drivers": "drwxr-xr-x",
        "/bus/xen_memory/drivers_autoprobe": "-rw-r--r--",
        "/bus/xen_memory/drivers_probe": "--w-------",
        "/bus/xen_memory/uevent": "--w-------",
    }
    assert files.sys.read("/bus/xen_memory/drivers_autoprobe") == b"1\n"


def test_linux_has_an_empty_directory_in_proc(files: Files) -> None:
    """Seen, where xenfs is not mounted."""
    assert listing(files.proc, "") == {"/xen": "dr-xr-xr-x"}


@pytest.mark.parametrize("profile", ["linux-2.6.18-xen", "hard-limit"])
def test_the_old_ones_have_a_file_in_proc_and_no_settings(profile: str) -> None:
    files = Files(profile)
    assert listing(files.proc, "")[PROC_PATH] == "-rw-r--r--"
    assert files.proc.stat(PROC_PATH).size_bytes == 0
    names = {*files.sys.list(DEVICE_PATH), *files.sys.list(f"{DEVICE_PATH}/info")}
    assert names - {"hard_limit_kb"} == {
        *("target", "target_kb", "info", "power", "subsystem", "uevent"),
        *("current_kb", "low_kb", "high_kb"),
    }
    assert ("hard_limit_kb" in names) == (profile == "hard-limit")


# -- what they show -----------------------------------------------------------------------------


def test_a_driver_that_has_done_nothing_shows_what_it_starts_with(files: Files) -> None:
    """Seen, with other sizes."""
    assert files.read("target_kb") == "8192\n"
    assert files.read("target") == "8388608\n"
    assert files.read("info/current_kb") == "8192\n"
    assert files.read("info/low_kb") == "4096\n"
    assert files.read("info/high_kb") == "0\n"
    assert files.read("schedule_delay") == files.read("retry_count") == "1\n"
    assert files.read("max_schedule_delay") == "20\n"
    assert files.read("max_retry_count") == "4\n"
    assert files.read("scrub_pages") == "1\n"
    assert files.read("uevent") == ""


def test_a_target_is_there_at_once_and_its_work_is_due(files: Files) -> None:
    files.write("target_kb", b"2048\n")
    assert (files.read("target_kb"), files.read("info/current_kb")) == ("2048\n", "8192\n")
    files.balloon.run(0.0)
    assert (files.read("info/current_kb"), files.read("info/low_kb")) == ("2048\n", "10240\n")


def test_tries_and_delays_are_shown_in_hexadecimal(files: Files) -> None:
    files.write("max_retry_count", b"100")
    files.write("max_schedule_delay", b"26")
    files.guest.host.free_pages = 0
    files.write("target_kb", b"99999")
    now_s = 0.0
    for _ in range(10):
        files.balloon.step(now_s)
        now_s += 100
    assert (files.read("retry_count"), files.read("schedule_delay")) == ("b\n", "1a\n")
    assert (files.read("max_retry_count"), files.read("max_schedule_delay")) == ("64\n", "1a\n")


# -- what they take -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "target_kb"),
    [
        (b"500000\n", "500000"),
        (b"500001", "500000"),
        (b"500003", "500000"),
        (b"0x7a120", "500000"),
        (b"01720440", "500000"),
        (b"500000K", "500000"),
        (b"500000\0junk", "500000"),
        (b"junk", "0"),
        (b" 500000", "0"),
        (b"-500000", "0"),
        (b"\n", "0"),
        (b"\0", "0"),
        (b"4294967295", "4294967292"),
        (b"18014398509481983", "18014398509481980"),
        (b"18014398509481984", "0"),
        (b"18446744074209551616", "500000000"),
        (b"18446744073709551615", "18014398509481980"),
        (b"5" + bytes(4095), "4"),
    ],
)
def test_target_kb_takes_anything(files: Files, text: bytes, target_kb: str) -> None:
    """Seen, every one of them."""
    files.write("target_kb", text)
    assert files.read("target_kb") == f"{target_kb}\n"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (b"512000000\n", 512_000_000),
        (b"500000K", 512_000_000),
        (b"500000Kx", 512_000_000),
        (b"500000 K", 499_712),
        (b"0x7a120k\n", 512_000_000),
        (b"1.5G", 0),
        (b"16E", 0),
        (b"junk", 0),
    ],
)
def test_target_takes_anything(files: Files, text: bytes, target: int) -> None:
    """Seen, every one of them."""
    files.write("target", text)
    assert files.read("target") == f"{target}\n"


def test_what_is_written_at_an_offset_is_a_target_of_its_own(files: Files) -> None:
    """Seen."""
    assert files.sys.write(f"{DEVICE_PATH}/target_kb", b"4096", 3) == 4
    assert files.read("target_kb") == "4096\n"


def test_writing_nothing_sets_nothing(files: Files) -> None:
    """Seen."""
    for name in ("target_kb", "target", "max_retry_count", "scrub_pages"):
        files.write(name, b"")
    assert (files.read("target_kb"), files.balloon.due_s) == ("8192\n", None)


@pytest.mark.parametrize("name", ["max_retry_count", "max_schedule_delay"])
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"10", "a"),
        (b"+10\n", "a"),
        (b"0x20", "20"),
        (b"010", "8"),
        (b"7\0x", "7"),
        (b"0", "0"),
        (b"18446744073709551615", "ffffffffffffffff"),
    ],
)
def test_limits_take_numbers_as_c_writes_them(
    files: Files, name: str, text: bytes, shown: str
) -> None:
    """Seen, every one of them."""
    files.write(name, text)
    assert files.read(name) == f"{shown}\n"


@pytest.mark.parametrize("name", ["max_retry_count", "max_schedule_delay"])
@pytest.mark.parametrize(
    ("text", "error"),
    [
        *((text, "EINVAL") for text in (b" 7", b"7 ", b"-7", b"7x", b"a", b"\n", b"\0", b"7\n\n")),
        (b"18446744073709551616", "ERANGE"),
    ],
)
def test_limits_refuse_all_else(files: Files, name: str, text: bytes, error: str) -> None:
    """Seen, every one of them."""
    before = files.read(name)
    with pytest.raises(KernelError) as refused:
        files.write(name, text)
    assert refused.value.name == error
    assert files.read(name) == before


def test_scrubbing_is_switched(files: Files) -> None:
    """Seen."""
    files.write("scrub_pages", b"off\n")
    assert files.read("scrub_pages") == "0\n"
    with pytest.raises(KernelError) as refused:
        files.write("scrub_pages", b"2")
    assert refused.value.errno == errno.EINVAL
    files.write("scrub_pages", b"yes")
    assert files.read("scrub_pages") == "1\n"


@pytest.mark.parametrize(
    "name", ["info/current_kb", "info/low_kb", "info/high_kb", "retry_count", "schedule_delay"]
)
def test_what_is_only_shown_opens_for_reading_alone(files: Files, name: str) -> None:
    """Seen."""
    with pytest.raises(KernelError) as refused:
        files.write(name, b"1")
    assert refused.value.errno == errno.EACCES


@pytest.mark.parametrize("name", ["target_kb", "target", "max_retry_count", "scrub_pages"])
def test_only_root_sets_anything(files: Files, name: str) -> None:
    path = f"{DEVICE_PATH}/{name}"
    assert files.sys.read(path, caller=Caller(uid=1000))
    with pytest.raises(KernelError) as refused:
        files.sys.write(path, b"1", caller=Caller(uid=1000))
    assert refused.value.errno == errno.EACCES


# -- the old ones -------------------------------------------------------------------------------


def test_the_document_s_driver_shows_its_figures_in_proc() -> None:
    files = Files("linux-2.6.18-xen")
    assert files.proc.read(PROC_PATH).decode() == (
        "Current allocation:     8192 kB\n"
        "Requested target:       8192 kB\n"
        "Low-mem balloon:        4096 kB\n"
        "High-mem balloon:          0 kB\n"
        "Driver pages:              0 kB\n"
    )


def test_before_the_change_a_hard_limit_is_shown_once_it_is_known() -> None:
    files = Files("hard-limit")
    assert files.proc.read(PROC_PATH).endswith(b"Xen hard limit:          ??? kB\n")
    assert files.read("info/hard_limit_kb") == "???\n"
    files.guest.host.free_pages = 100
    files.write("target_kb", b"12288")
    files.balloon.run(0.0)
    assert files.proc.read(PROC_PATH).endswith(b"Xen hard limit:         8592 kB\n")
    assert files.read("info/hard_limit_kb") == "8592\n"
    files.write("target_kb", b"12288")
    assert files.read("info/hard_limit_kb") == "???\n"


@pytest.mark.parametrize(
    ("text", "target_kb"),
    [
        (b"4M\n", "4096"),
        (b"0x400K", "1024"),
        (b"8388608", "8192"),
        (b"xy", "0"),
        (b"1M" * 32, "1024"),
    ],
)
def test_a_size_written_to_the_proc_file_is_the_target(text: bytes, target_kb: str) -> None:
    files = Files("linux-2.6.18-xen")
    assert files.proc.write(PROC_PATH, text) == len(text)
    assert files.read("target_kb") == f"{target_kb}\n"


@pytest.mark.parametrize(
    ("text", "error"), [(b"5", "EBADMSG"), (b"1M" * 32 + b"\n", "EFBIG"), (bytes(9999), "EFBIG")]
)
def test_the_proc_file_refuses_what_is_too_short_or_too_long(text: bytes, error: str) -> None:
    files = Files("hard-limit")
    with pytest.raises(KernelError) as refused:
        files.proc.write(PROC_PATH, text)
    assert refused.value.name == error
    assert files.read("target_kb") == "8192\n"
