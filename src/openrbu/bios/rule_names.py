"""The names of the rule sets, for those who don't need the rules: they take 15 ms to import."""

from __future__ import annotations

from openrbu.errors import UsageError

RULE_NAMES = ("published", "poweredge-2950", "latitude-d500")


def check_rule_name(name: str) -> None:
    """See that a rule set is called `name`.

    :raise UsageError: when none is; the message names them all.
    """
    if name not in RULE_NAMES:
        raise UsageError(
            f"no rule set of a BIOS is called {name!r}; there are: {', '.join(RULE_NAMES)}"
        )
