from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from typing import Any

from . import _click
from ._click import shell_completion

_click_patched = False








# Create a fake command function to extract the completion parameters




# Re-implement Click's shell_complete to add error message with:
# Invalid completion instruction
# To use 7.x instruction style for compatibility
# And to add extra error messages, for compatibility with Typer in previous versions
# This is only called in new Command method, only used by Click 8.x+
def shell_complete(
    cli: _click.Command,
    ctx_args: MutableMapping[str, Any],
    prog_name: str,
    complete_var: str,
    instruction: str,
) -> int:
    from . import _click

    if "_" not in instruction:
        _click.echo("Invalid completion instruction.", err=True)
        return 1

    # Click 8 changed the order/style of shell instructions from e.g.
    # source_bash to bash_source
    # Typer override to preserve the old style for compatibility
    # Original in Click 8.x commented:
    # shell, _, instruction = instruction.partition("_")
    instruction, _, shell = instruction.partition("_")
    # Typer override end

    comp_cls = shell_completion.get_completion_class(shell)

    if comp_cls is None:
        _click.echo(f"Shell {shell} not supported.", err=True)
        return 1

    comp = comp_cls(cli, ctx_args, prog_name, complete_var)

    if instruction == "source":
        _click.echo(comp.source())
        return 0

    # Typer override to print the completion help msg with Rich
    if instruction == "complete":
        _click.echo(comp.complete())
        return 0
    # Typer override end

    _click.echo(f'Completion instruction "{instruction}" not supported.', err=True)
    return 1
