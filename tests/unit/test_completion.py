"""Each shell completes a command line of rbu with the script that rbu prints for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from openrbu.cli.app import COMMANDS
from rigs.cli import Cli
from rigs.needs import leave_out

SHELLS = ("bash", "zsh", "fish")

ASK = {
    "bash": """
        source "$1"
        complete -p rbu
        COMP_WORDS=($2); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _rbu_completion rbu
        echo "${COMPREPLY[@]}" """,
    "zsh": """
        fpath=($1:h $fpath); autoload -Uz _rbu
        _arguments() { print -r -- "$@" }
        words=(rbu machine); CURRENT=2
        _rbu >/dev/null
        words=(${=2}); CURRENT=${#words}
        _rbu""",
    "fish": """
        source $argv[1]
        complete --do-complete $argv[2]""",
}
"""What each shell does at a Tab behind the words of the second argument. zsh's `_arguments` shows a
list to the user, which needs a terminal: here it prints what it was given. It is asked twice,
because a function of zsh is read from its file at the first time."""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "offered", "others"),
    [
        ("rbu machine sh", "show", "reboot"),
        ("rbu help upd", "update", "machine"),
        ("rbu help machine sh", "show", "reboot"),
    ],
)
def test_a_shell_completes_a_command_with_the_script(
    words: str, offered: str, others: str, shell: str, rbu: Cli
) -> None:
    program = shutil.which(shell)
    if program is None:
        leave_out(f"{shell} is not installed")
    file = rbu.directory / "_rbu"
    file.write_text(rbu("completion", shell).out)
    command = {
        "bash": [program, "--norc", "-c", ASK[shell], "bash", str(file), words],
        "zsh": [program, "-f", "-c", ASK[shell], "zsh", str(file), words],
        "fish": [program, "--no-config", "-c", ASK[shell], str(file), words],
    }[shell]
    programs = str(Path(sys.executable).parent)
    ended = subprocess.run(
        command,
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "PATH": os.pathsep.join([programs, os.environ["PATH"]])},
    )
    assert ended.stderr == ""
    assert offered in ended.stdout
    assert others not in ended.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("help ", list(COMMANDS)),
        ("help ma", ["machine"]),
        ("help module ", ["load", "unload"]),
        ("help update ", []),
        ("help nonsense ", []),
    ],
)
def test_the_words_of_a_command_are_completed_behind_help(
    words: str, offered: list[str], rbu: Cli
) -> None:
    asked = {"_RBU_COMPLETE": "complete_bash", "COMP_WORDS": f"rbu {words}"}
    asked["COMP_CWORD"] = str(len(f"rbu {words}".split(" ")) - 1)
    ended = rbu.process(env={**os.environ, **asked})
    assert ended.stdout.decode().split() == offered


def test_a_script_sourced_by_zsh_registers_itself(rbu: Cli) -> None:
    """As in ~/.zshrc, where nobody asks yet."""
    program = shutil.which("zsh")
    if program is None:
        leave_out("zsh is not installed")
    script = rbu("completion", "zsh").out
    ended = subprocess.run(
        [program, "-f", "-c", f'compdef() {{ print "compdef $@" }}\n{script}'],
        capture_output=True,
        check=True,
        text=True,
    )
    assert ended.stdout == "compdef _rbu_completion rbu\n"


def test_the_script_is_in_a_document_too(rbu: Cli) -> None:
    document = rbu.json("completion", "fish")
    assert document["shell"] == "fish"
    assert document["script"] == rbu("completion", "fish").out


def test_another_shell_is_a_usage_error(rbu: Cli) -> None:
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in rbu.fails(2, "completion", "tcsh")
