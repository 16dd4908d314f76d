"""Puts stand-ins for modprobe, insmod and rmmod in place, for openrbu's own driver.

Theory of operation. A stand-in lies over each of these commands, and over nothing else. It carries
out what is about `dell_rbu`: it asks by the file `overlay.COMMANDS` (`openrbu.run.own_modules`).
All else it leaves to the real command, which is bound in the directory `overlay.KMOD`. Where this
computer has no such command, programs find the stand-in in their `PATH`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import MutableMapping
from pathlib import Path

from openrbu.run import namespace
from openrbu.run.overlay import COMMANDS, KMOD
from openrbu.run.stand_ins import DIRECTORIES, asking

NAMES = ("insmod", "modprobe", "rmmod")

_REAL, _STAND_INS = "real", "stand-ins"

_SCRIPT = """\
#!/bin/sh
for word in "$@"; do
  case ${{word##*/}} in
    dell_rbu | dell-rbu | dell_rbu.ko | dell_rbu.ko.*)
{asking}
    ;;
  esac
done
[ -e {real} ] && exec {real} "$@"
echo "$0: this computer has no {name}" >&2
exit 127
"""


def install(environment: MutableMapping[str, str]) -> None:
    """Put the stand-ins in place, in this process's mount namespace, once `/sys` is served there.

    :raise OSError: the kernel's error.
    """
    namespace.mount_tmpfs(KMOD)
    for directory in (_REAL, _STAND_INS):
        Path(KMOD, directory).mkdir()
    path = os.pathsep.join((environment.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    for name in NAMES:
        real, script = Path(KMOD, _REAL, name), Path(KMOD, _STAND_INS, name)
        script.write_text(_SCRIPT.format(asking=asking(COMMANDS, name), real=real, name=name))
        script.chmod(0o755)
        found = shutil.which(name, path=path)
        if found is not None:
            real.touch()
            namespace.bind(os.path.realpath(found), real)
        with contextlib.suppress(OSError):  # Linux before 5.2
            _cover(script, name)
    environment["PATH"] = os.pathsep.join((path, str(Path(KMOD, _STAND_INS))))


def _cover(script: Path, name: str) -> None:
    """Show a script in the place of a command, wherever that is.

    :raise OSError: the kernel's error.
    """
    places = {os.path.realpath(each) for each in DIRECTORIES}
    for place in sorted(str(Path(each, name)) for each in places):
        if os.path.lexists(place):
            with namespace.cloned(str(script)) as tree:
                namespace.attach(tree, place)
