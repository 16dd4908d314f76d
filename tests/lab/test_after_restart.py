"""After a restart: another kernel started by kexec in its place, and the result recorded at boot.

The kernel itself does what kexec(8) does (kexec_file_load(2), reboot(2)); the program is not
needed.
"""

from __future__ import annotations

import sys

import pytest

from lab.story import Story
from openrbu.formats.dell import CompletionCode
from rigs.needs import program

pytestmark = pytest.mark.lab

LOAD = """\
import ctypes, os, sys
kernel, initramfs = (os.open(path, os.O_RDONLY) for path in sys.argv[1:])
line = open("/proc/cmdline", "rb").read().strip() + b"\\0"
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(320, kernel, initramfs, len(line), line, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
"""
"""kexec_file_load, by its number on x86-64."""

START = "import ctypes; ctypes.CDLL(None).reboot(0x45584543); raise SystemExit('no kexec')"
"""LINUX_REBOOT_CMD_KEXEC."""


SYSTEMD = """\
mkdir -p /run/systemd/system
rbu status --unit > /run/systemd/system/openrbu-result.service
mkdir /run/systemd/system/openrbu-result.service.d
cat > /run/systemd/system/openrbu-result.service.d/test.conf <<END
[Service]
StandardOutput=truncate:/dev/shm/said
END
cat > /run/systemd/system/done.service <<END
[Unit]
Wants=openrbu-result.service
After=openrbu-result.service
SuccessAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/true
END
cat > /run/systemd/system/test.target <<END
[Unit]
Wants=done.service
END
for each in sysinit basic shutdown local-fs; do
  printf '[Unit]\\nDefaultDependencies=no\\n' > /run/systemd/system/$each.target
done
for each in systemd-journald.service systemd-journald.socket; do
  ln -s /lib/systemd/system/$each /run/systemd/system
  echo "Wants=$each" >> /run/systemd/system/sysinit.target
done
export SYSTEMD_UNIT_PATH=/run/systemd/system
export SYSTEMD_GENERATOR_PATH=/run/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env container=lab /lib/systemd/systemd --system --unit=test.target --log-target=console
"""
"""Starts systemd as the first process of a container, with the unit, until that has run. Besides
there are only systemd's journal and the targets that services wait for: to start all that this
computer has took an emulated guest minutes."""


def test_an_update_that_kexec_has_lost_is_told_and_can_be_tried_again(story: Story) -> None:
    new = story.newer()
    image = story.file("new.hdr", story.image(new))
    story.rbu("update", image)
    boot = story.rbu("status")["boot"]
    assert boot["by_kexec"] is False

    software = story.machine.software
    story.says(sys.executable, "-c", LOAD, str(software.vmlinuz), str(software.initramfs))
    checks = {each["name"]: each for each in story.rbu("plan", image, status=4)["checks"]}
    assert checks["kexec"]["verdict"] == "in_the_way", "the lab has no systemd to keep from it"
    story.start_kernel(sys.executable, "-c", START)

    status = story.rbu("status")
    assert status["boot"]["by_kexec"] is True
    assert status["boot"]["id"] != boot["id"]
    assert (status["is_armed"], status["staged_size_bytes"]) == (True, 0)
    assert status["last_update"]["ending"] == "bypassed"
    assert story.machine.flash.current.version == story.old

    planned = story.rbu("plan", image)
    (token,) = (each for each in planned["checks"] if each["name"] == "token")
    assert (token["verdict"], planned["obstacles"]) == ("handled", [])
    story.until_restart("rbu", "update", image, "--reboot")
    post = story.machine.restart()
    assert (post.completion_code, post.version_after) == (CompletionCode.COMPLETED, new)
    assert story.journal[-1]["event"] == "armed", "nobody has looked yet"
    said = run_systemd(story)
    assert story.journal[-1]["event"] == "result", said
    done = f"{story.old} → {new}: done: the BIOS says completed, and the new version runs\n"
    assert story.shell("cat /dev/shm/said") == done
    status = story.rbu("status")
    assert (status["last_update"]["ending"], status["boot"]["by_kexec"]) == ("updated", False)


def run_systemd(story: Story) -> str:
    """Start real systemd in the guest; what it wrote."""
    program("/lib/systemd/systemd", "systemd")
    alone = ("unshare", "--fork", "--pid", "--mount", "--mount-proc", "--ipc", "--uts")
    done = story.tries(*alone, "sh", "-euc", SYSTEMD)
    return done.stdout + done.stderr
