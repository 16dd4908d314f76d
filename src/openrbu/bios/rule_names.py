"""The names of the rule sets, for code that does not need the rules: these take 15 ms to import."""

from __future__ import annotations

from openrbu.errors import UsageError

RULE_NAMES = ("published", "poweredge-2950", "latitude-d500")


def check_rule_name(name: str) -> None:
    """Check that there is a rule set called `name`.

    :raise UsageError: when there is none; the message names them all.
    """
    if name not in RULE_NAMES:
        raise UsageError(
            f"no rule set of a BIOS is called {name!r}; there are: {', '.join(RULE_NAMES)}"
        )
