"""The files in the directory of a trial."""

from __future__ import annotations

ORDER, REPORT = "order.json", "report.json"

HOME = "home"
"""The home in which the machine is, for `OPENRBU_HOME`."""

MACHINE = "machine"
"""The name of the machine."""

OUTPUT = "output"
"""What the tool printed, on standard output and standard error, as a terminal would show it."""

TEMPORARY = "tmp"
"""The directory for temporary files of the tool."""
