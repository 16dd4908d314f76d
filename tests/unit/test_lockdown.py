"""How far a kernel is locked down: what its file and its command line say."""

import pytest

from openrbu.formats.lockdown import lockdown_asked, lockdown_in


@pytest.mark.parametrize(
    ("words", "level"),
    [
        ("lockdown=confidentiality lockdown=integrity", "confidentiality"),
        ("lockdown=integrity lockdown=confidentiality", "confidentiality"),
        ("lockdown=integrity lockdown=bogus", "integrity"),
        ("lockdown=bogus quiet lockdown=integrity", "integrity"),
        ("quiet nolockdown=integrity lockdown=", "none"),
        ("", "none"),
    ],
)
def test_the_highest_level_of_a_command_line_counts(words: str, level: str) -> None:
    """The first four were seen on Debian's 6.1.192."""
    assert lockdown_asked(words) == level


def test_the_level_in_brackets_is_the_one_in_force() -> None:
    assert lockdown_in("none [integrity] confidentiality\n") == "integrity"
    assert lockdown_in("none integrity confidentiality\n") is None
