"""What keeps a process from having huge pages, told from a tree of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrbu.own_driver.hugetlbfs import Mount, find_mount
from openrbu.own_driver.obstacles import obstacles
from openrbu.own_driver.pools import LinuxHugePages
from openrbu.units import MIB

POOL = "sys/kernel/mm/hugepages/hugepages-2048kB"
NODES = "sys/devices/system/node"

FILES = {
    f"{POOL}/nr_hugepages": "12\n",
    f"{POOL}/surplus_hugepages": "4\n",
    "proc/self/status": "Name:\trbu\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n",
    "proc/self/uid_map": "         0          0 4294967295\n",
    "proc/self/pagemap": "",
    "proc/self/mounts": "sysfs /sys sysfs rw,nosuid 0 0\n/dev/sda2 / ext4 rw 0 0\n",
    "proc/filesystems": "nodev\tsysfs\nnodev\thugetlbfs\n\text4\n",
    "proc/meminfo": "MemAvailable:     872904 kB\nHugepagesize:       2048 kB\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, text in FILES.items():
        put(tmp_path, path, text)
    return tmp_path


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def names(root: Path, needed_bytes: int = 0) -> list[str]:
    return [each.name for each in obstacles(root, needed_bytes=needed_bytes)]


def test_a_machine_with_all_that_is_needed_has_no_obstacle(root: Path) -> None:
    assert obstacles(root, needed_bytes=16 * MIB) == ()


@pytest.mark.parametrize(
    ("path", "text", "name"),
    [
        ("proc/self/status", "Uid:\t0\t1000\t0\t0\nCapEff:\t000001ffffffffff\n", "not_root"),
        ("proc/self/status", "Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\n", "hidden_addresses"),
        ("proc/self/uid_map", "0 100000 65536\n", "hidden_addresses"),
        ("proc/filesystems", "nodev\tsysfs\n", "no_hugetlbfs"),
        ("proc/self/mounts", "sysfs /sys sysfs ro 0 0\nx / ext4 rw 0 0\n", "fixed_number"),
        ("proc/meminfo", "MemAvailable:     140000 kB\n", "too_little_memory"),
    ],
)
def test_each_obstacle_is_named_alone(root: Path, path: str, text: str, name: str) -> None:
    put(root, path, text)
    assert names(root, 16 * MIB) == [name]


def test_a_container_is_told_by_its_namespace_of_processes(root: Path) -> None:
    namespace = root / "proc/self/ns/pid"
    namespace.parent.mkdir()
    namespace.symlink_to("pid:[4026531836]")
    assert names(root) == []
    namespace.unlink()
    namespace.symlink_to("pid:[4026532440]")
    assert names(root) == ["container"]


def test_a_kernel_without_huge_pages_or_their_addresses_is_told(root: Path) -> None:
    (root / "proc/self/pagemap").unlink()
    assert names(root) == ["hidden_addresses"]
    for file in (root / POOL).iterdir():
        file.unlink()
    (root / POOL).rmdir()
    assert names(root) == ["no_huge_pages"]


def test_each_says_what_to_do(root: Path) -> None:
    put(root, "proc/meminfo", "MemAvailable:     140000 kB\n")
    (found,) = obstacles(root, needed_bytes=16 * MIB)
    assert str(found) == (
        "136.7 MiB are available, and 144 MiB are needed to take pages and leave the machine "
        "enough: end programs, or restart first"
    )


def test_the_number_that_was_asked_for_does_not_count_surplus_pages(root: Path) -> None:
    (pool,) = LinuxHugePages(root).pools()
    assert (pool.node, pool.count, pool.asked) == (None, 12, 8)


def test_each_node_has_its_pool(root: Path) -> None:
    for node, count in ((10, 3), (2, 5)):
        put(root, f"{NODES}/node{node}/hugepages/hugepages-2048kB/nr_hugepages", f"{count}\n")
        put(root, f"{NODES}/node{node}/hugepages/hugepages-2048kB/surplus_hugepages", "0\n")
    put(root, f"{NODES}/possible", "0-1\n")
    assert {pool.node: pool.count for pool in LinuxHugePages(root).pools()} == {2: 5, 10: 3}


@pytest.mark.parametrize(
    ("line", "directory"),
    [
        ("hugetlbfs /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0", "/dev/hugepages"),
        ("none /dev/two\\040words hugetlbfs rw 0 0", "/dev/two words"),
        ("none /mnt/huge hugetlbfs rw,pagesize=2M 0 0", None),
        ("openrbu /dev/openrbu-hugepages hugetlbfs rw,pagesize=2M", "/dev/openrbu-hugepages"),
        ("hugetlbfs /dev/hugepages hugetlbfs rw,pagesize=1024M 0 0", None),
        ("hugetlbfs /dev/hugepages hugetlbfs ro,pagesize=2M 0 0", None),
        ("hugetlbfs /dev/hugepages hugetlbfs rw,pagesize=2M,size=64M 0 0", None),
        ("tmpfs /dev/hugepages tmpfs rw 0 0", None),
    ],
)
def test_a_mount_is_used_that_has_the_right_pages_and_no_limit(
    root: Path, line: str, directory: str | None
) -> None:
    put(root, "proc/self/mounts", f"sysfs /sys sysfs rw 0 0\n{line}\n")
    expected = None if directory is None else Mount(directory, "openrbu" in directory)
    assert find_mount(root) == expected


def test_another_mount_namespace_uses_the_mounts_of_the_first_process(root: Path) -> None:
    for process, number in (("self", 2), ("1", 1)):
        (root / f"proc/{process}/ns").mkdir(parents=True)
        (root / f"proc/{process}/ns/mnt").symlink_to(f"mnt:[{number}]")
    put(root, "proc/self/mounts", "h /mine hugetlbfs rw,pagesize=2M 0 0\n")
    put(root, "proc/1/mounts", "h /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n")
    assert find_mount(root) == Mount("/proc/1/root/dev/hugepages", is_ours=False)
