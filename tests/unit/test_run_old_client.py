"""The vendor's old client, `dellBiosUpdate`, replayed under `rbu run` by a program of our own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rigs.cli import Cli
from rigs.machines import NEWER, image_bytes
from rigs.run import runner
from rigs.update_tools import PACKET_BYTES, old_client


@pytest.mark.parametrize(
    ("model", "kind"),
    [("poweredge-2650", "mono"), ("precision-390", "mono"), ("precision-390", "packet")],
)
def test_the_vendors_old_client_updates_a_machine(
    rbu: Cli, tmp_path: Path, model: str, kind: str
) -> None:
    run = runner(tmp_path / "home", "root", model, profile="linux-2.6.16")
    staged = rbu.write("new.hdr", image_bytes(model))
    if kind == "packet":
        packets = tmp_path / "packets"
        rbu.json("packets", staged, "-o", packets, "--packet-size", PACKET_BYTES)
        staged = packets
    *before, mark = run.line()
    tool = [mark, *old_client(staged, kind)]
    command = [*before, "--after-restart", "dmidecode -s bios-version", *tool]
    ended = subprocess.run(command, capture_output=True, check=False, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, NEWER[model]), ended
    assert "0x0000" in ended.stderr
