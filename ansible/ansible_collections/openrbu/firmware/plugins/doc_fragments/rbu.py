# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""Parts of the modules' documentation that several share."""

from __future__ import annotations


class ModuleDocFragment:
    """Options that each module has."""

    DOCUMENTATION = r"""
options:
  executable:
    description:
      - The command rbu on the host, as a name or a path.
    type: str
    default: rbu
attributes:
  check_mode:
    description: Says what would change, and changes nothing.
    support: full
  diff_mode:
    description: Shows the BIOS and what the next restart does, before and after.
    support: none
author:
  - The openrbu developers (!UNKNOWN)
requirements:
  - openrbu (rbu) on the host, as root; on a virtual machine nothing more
"""

    PASSWORD = r"""
options:
  password:
    description:
      - The BIOS admin password, where one is set.
      - It goes to rbu through a pipe. It is in no argument of a process, in no environment, and in
        nothing that rbu writes. Without pipelining, Ansible itself writes a module's parameters
        into a temporary file of the host that only its user can read.
    type: str
"""

    ARM = r"""
options:
  without_password:
    description: There is no BIOS admin password, even if SMBIOS says so.
    type: bool
    default: false
  mend_cmos:
    description: Repair wrong check values of CMOS, so that the BIOS reads the token.
    type: bool
    default: false
  allow_any_restart:
    description: Go on even if the restart may clear memory, and the update with it.
    type: bool
    default: false
"""

    IMAGE = r"""
options:
  image:
    description:
      - A BIOS image (.HDR) on the host, a vendor's package with one inside, or a directory with
        images, of which the newest for this system is taken.
    type: path
    required: true
  policy:
    description:
      - A policy (TOML) on the host. The update has to be its next step. C(rbu policy check) checks
        the file.
    type: path
  mode:
    description: How to stage, in one block of memory or in packets.
    type: str
    choices: [auto, mono, packet]
    default: auto
  packet_size:
    description: Size of a packet with its header, such as V(4096) or V(8K).
    type: str
  driver:
    description:
      - Which dell_rbu stages, the kernel's or openrbu's own. V(auto) takes its own where the kernel
        has none.
    type: str
    choices: [auto, kernel, own]
    default: auto
  retry_failed:
    description:
      - Whether to try an image once more that the BIOS has had and has not installed. Turned off,
        the task fails with the kind C(failed_before).
    type: bool
    default: true
  reinstall:
    description: Install the version even if the machine runs it already.
    type: bool
    default: false
  allow_downgrade:
    description: Install an older version, or one whose age is not clear.
    type: bool
    default: false
  allow_any_system:
    description: Try it even if the image is for another system or hardware revision.
    type: bool
    default: false
  allow_known_broken:
    description: Try it even if RBU is known to be broken on this system.
    type: bool
    default: false
  memory_above_4g:
    description: Packets may be above 4 GiB, where a BIOS with the published rules does not search.
    type: bool
    default: false
  drop_caches:
    description: Where memory is short, drop the kernel's caches of files.
    type: bool
    default: false
"""
