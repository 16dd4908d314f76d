"""Why the kernel denies this user a path: whose it is, or what its mode forbids."""

from __future__ import annotations

import os
import pwd
import shlex
from pathlib import Path

_CLIMB = os.X_OK
_USE = os.R_OK | os.W_OK


def why_denied(path: Path) -> str:
    """What keeps this user from reading and writing at a path, as a part of a sentence: the first
    directory on the way that may not be passed, else the file, or the directory in which it would
    be made. "permission denied" where neither modes nor owners are why (such as a security
    module)."""
    for directory in reversed(path.parents):
        if not _may(directory, _CLIMB):
            return _denied(directory)
    there = _lowest_there(path)
    for each in (there, there.parent):
        if not _may(each, _USE | (_CLIMB if each.is_dir() else 0)):
            return _denied(each)
    return "permission denied"


def why_refused(error: OSError, path: Path) -> str:
    """Why the kernel refuses a path with an error, as a part of a sentence: what `why_denied` says
    where permission is missing, else what the error says."""
    if not isinstance(error, PermissionError):
        return error.strerror or str(error)
    denied, why = "permission denied", why_denied(path.absolute())
    return denied if why == denied else f"{denied}: {why}"


def why_not_writable(directory: Path) -> str:
    """Why this user can't make files in a directory, which is made with those above it where it is
    not there; empty: that is possible, as far as modes, owners and mounts say."""
    there = _lowest_there(directory)
    if not there.is_dir():
        return f"{there} is not a directory"
    return "" if _may(there, os.W_OK | _CLIMB) else _denied(there)


def user_name(uid: int) -> str:
    """The name of a user; one without a name is `user 1234`."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _lowest_there(path: Path) -> Path:
    """A path, or where it is not there, the lowest directory above it that is."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def _may(path: Path, wanted: int) -> bool:
    try:
        return os.access(path, wanted, effective_ids=True)
    except OSError:
        return False


def _denied(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return f"{path} can't be used by {user_name(os.geteuid())}"
    mode = f"mode {status.st_mode & 0o7777:04o}"
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{path} is on a file system that is read-only"
    if status.st_uid == os.geteuid():
        bits = "rwx" if path.is_dir() else "rw"
        return f"the {mode} of {path} forbids it: chmod u+{bits} {shlex.quote(str(path))}"
    owner, me = user_name(status.st_uid), user_name(os.geteuid())
    return f"{path} belongs to {owner} ({mode}), and this is {me}"
