"""Leaving a test out, and when that is not allowed."""

import pytest

from rigs.needs import leave_out


def test_a_test_that_is_left_out_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENRBU_NOTHING_LEFT_OUT", raising=False)
    with pytest.raises(pytest.skip.Exception, match="there is no tool"):
        leave_out("there is no tool")


def test_where_nothing_may_be_left_out_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRBU_NOTHING_LEFT_OUT", "1")
    with pytest.raises(pytest.fail.Exception, match="nothing may be left out here, but there is"):
        leave_out("there is no tool")
