"""Which modules parse what others wrote. The fuzzer looks which way an input takes in these."""

from __future__ import annotations

from pathlib import Path

_SOURCE = Path(__file__).parents[2] / "src"

PARSERS = (
    "openrbu.bios.closer_look",
    "openrbu.bios.nvram",
    "openrbu.bios.rules",
    "openrbu.bios.verdicts",
    "openrbu.cli.scan_extract",
    "openrbu.dumps",
    "openrbu.file_format",
    "openrbu.formats",
    "openrbu.lab.bzimage",
    "openrbu.lab.call_messages",
    "openrbu.machine.state_formats",
    "openrbu.memory",
    "openrbu.own_driver.blocks",
    "openrbu.own_driver.store",
    "openrbu.policy",
    "openrbu.run.trace_file",
    "openrbu.sharing.wire",
    "openrbu.typed_json",
    "openrbu.update.journal",
)
"""Modules, and folders of modules."""

_FOR_ALL = ("openrbu.formats.layout",)
"""Here all formats take the same way, thousands of times a second."""


def not_parsers() -> list[str]:
    """All other modules of openrbu, which are faster when nobody looks."""
    names = []
    for path in sorted((_SOURCE / "openrbu").rglob("*.py")):
        parts = path.relative_to(_SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        is_parser = any(name == parser or name.startswith(f"{parser}.") for parser in PARSERS)
        if not is_parser or name in _FOR_ALL:
            names.append(name)
    return names
