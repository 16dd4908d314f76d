"""What the agent answers, over a socket in place of the guest's port."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from openrbu.lab import agent
from openrbu.sharing import wire


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """A connection to an agent that has greeted."""
    ours, its = socket.socketpair()
    with ours, its:
        serving = threading.Thread(target=agent.serve, args=(its,))
        serving.start()
        ours.settimeout(30)
        greeting = wire.receive(ours)
        assert greeting is not None
        assert greeting.header == {"protocol": agent.PROTOCOL, "release": os.uname().release}
        yield ours
        ours.shutdown(socket.SHUT_WR)
        serving.join()


def test_what_it_does_not_know_is_answered_and_the_next_request_works(port: socket.socket) -> None:
    wire.send(port, {"do": "dance", "with": {}})
    answer = wire.receive(port)
    assert answer is not None
    assert "nothing is called 'dance'" in str(answer.header["error"])
    words = {"argv": ["sh", "-c", "exit 7"], "env": dict(os.environ), "cwd": "/"}
    wire.send(port, {"do": "run", "with": words})
    answer = wire.receive(port)
    assert answer is not None
    assert answer.header == {"result": {"status": 7}}


def test_a_program_ends_although_it_leaves_another_in_the_background(port: socket.socket) -> None:
    script = "sleep 600 & echo $!; head -c 300000 /dev/zero; exit 3"
    words = {"argv": ["sh", "-c", script], "env": dict(os.environ), "cwd": "/"}
    wire.send(port, {"do": "run", "with": words})
    said = b""
    while (answer := wire.receive(port)) is not None and "out" in answer.header:
        said += bytes(answer.payload)
    number, _, rest = said.partition(b"\n")
    os.kill(int(number), signal.SIGKILL)
    assert answer is not None
    assert answer.header == {"result": {"status": 3}}
    assert rest == bytes(300000)
