"""How far the kernel is locked down against its own root user.

Facts: docs/reference/platform.md, V5.
"""

from __future__ import annotations

import re

from openrbu.hosts.base import Host
from openrbu.linux.files import text_of

LOCKDOWN = "/sys/kernel/security/lockdown"

NONE, INTEGRITY, CONFIDENTIALITY = "none", "integrity", "confidentiality"


def read_lockdown(host: Host) -> str | None:
    """`none`, `integrity` or `confidentiality`; None where the kernel does not say it."""
    chosen = re.search(r"\[(\w+)\]", text_of(host, LOCKDOWN) or "")
    return None if chosen is None else chosen[1]
