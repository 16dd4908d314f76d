"""The scripts by which shells complete command lines of `rbu`."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from openrbu._vendor import typer
from openrbu.cli.show import Answer

PROGRAM = "rbu"

_FOR_ZSHRC = f"compdef _{PROGRAM}_completion {PROGRAM}"
_FOR_ZSH = f"""\
if [[ $funcstack[1] == _{PROGRAM} ]]; then
  _{PROGRAM}_completion "$@"
else
  {_FOR_ZSHRC}
fi"""
"""A file among zsh's functions becomes a function of its name, which has to answer."""


class Shell(Enum):
    """The shells that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[
        Shell, typer.Argument(metavar="SHELL", help="What reads the script: bash, zsh or fish.")
    ],
) -> Answer:
    """Print the script that has a shell complete commands, options and names.

    bash: source <(rbu completion bash) in ~/.bashrc. zsh: the same in ~/.zshrc, after compinit, or
    a file _rbu in a directory of $fpath. fish: a file, as below. The Debian package has all three.

    \b
    Example:  source <(rbu completion bash)
              rbu completion zsh > /usr/local/share/zsh/site-functions/_rbu
              rbu completion fish > ~/.config/fish/completions/rbu.fish
    """
    script = script_of(shell)
    return Answer({"shell": shell.value, "script": script}, script.splitlines())


def script_of(shell: Shell) -> str:
    """The script for a shell, with a line feed at its end."""
    from openrbu._vendor.typer._completion_shared import get_completion_script
    from openrbu.cli.app import COMPLETE_VARIABLE

    script = get_completion_script(
        prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, shell=shell.value
    ).strip()
    if shell is Shell.ZSH:
        script = script.replace(_FOR_ZSHRC, _FOR_ZSH)
    return f"{script}\n"
