"""What all tests have."""

from __future__ import annotations

import pytest

pytest_plugins = ["lab_rig"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how long those took that need QEMU: they have a limit of their own."""
    reports = [
        report
        for several in terminalreporter.stats.values()
        for report in several
        if isinstance(report, pytest.TestReport) and "lab" in report.keywords
    ]
    if reports:
        seconds = sum(report.duration for report in reports)
        tests = len({report.nodeid for report in reports})
        terminalreporter.write_line(f"lab: {tests} tests took {seconds:.0f} s of that")
