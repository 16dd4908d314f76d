"""Results of trials as JUnit XML, which most CI systems show."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from openrbu.trials.combinations import UNARMED, Combination
from openrbu.trials.records import TrialResult

SUITE = "rbu try"

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""The characters that an XML 1.0 document can't have."""


def junit_document(results: Sequence[TrialResult]) -> bytes:
    """One test suite with a test case for each result; one that is not as expected has failed."""
    suite = ET.Element(
        "testsuite",
        name=SUITE,
        tests=str(len(results)),
        failures=str(sum(not each.is_fine for each in results)),
        errors="0",
        skipped="0",
        time=_seconds(sum(each.seconds for each in results)),
    )
    for each in results:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=SUITE,
            name=_clean(each.combination.name),
            time=_seconds(each.seconds),
        )
        if not each.is_fine:
            message = _clean(f"{each.verdict}: {each.why}")
            failure = ET.SubElement(case, "failure", type=each.verdict, message=message)
            failure.text = _clean("\n".join(failure_lines(each)))
        if each.tool_said:
            ET.SubElement(case, "system-out").text = _clean("\n".join(each.tool_said))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def failure_lines(result: TrialResult) -> list[str]:
    """What helps with a result that was not expected, in a few lines."""
    lines = [
        f"{result.verdict}: {result.why}",
        f"expected: {expected_words(result.combination)}",
    ]
    lines.append(f"the tool ended with {status_words(result.exit_status)}")
    if result.tool_said:
        lines.append(f"it said: {result.tool_said[-1]}")
    if result.kernel_said:
        lines.append(f"the kernel said: {result.kernel_said}")
    return lines


def expected_words(combination: Combination) -> str:
    """Which verdicts are expected, in words."""
    wanted = " or ".join(combination.expected)
    if combination.may_give_up:
        wanted += f", or {' or '.join(UNARMED)} with an exit code that is not 0"
    return wanted


def status_words(status: int) -> str:
    """An exit status, as of `TrialResult`, in words."""
    return f"exit code {status}" if status >= 0 else f"signal {-status}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"


def _clean(text: str) -> str:
    return _NOT_XML.sub("?", text)
