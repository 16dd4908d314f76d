"""Random operations on the driver, against a ten-line model of the document.

Beside the bytes and errors that user space sees, no page may leak, and at any moment the whole
state must survive being put away and taken out again.
"""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from openrbu.errors import KernelError
from openrbu.units import KIB, MIB
from rigs.driver import DEVICE, FIRMWARE, InProcess, cat

WORDS = ("mono", "packet", "init")


class Model:
    """What the document says, with an entry that comes back or not."""

    def __init__(self, *, documented: bool) -> None:
        self.documented = self.has_entry = documented
        self.kind, self.packet_size = "mono", 0
        self.staged = b""
        self.loaded: bytearray | None = None

    def write_type(self, word: str) -> None:
        self.staged, self.kind = b"", self.kind if word == "init" else word
        self.has_entry |= word == "init"

    def end(self) -> None:
        if self.loaded:
            can_stage = self.kind == "mono" or self.packet_size > 0
            self.staged = bytes(self.loaded) if can_stage else b""
        self.has_entry, self.loaded = bool(self.documented and self.loaded), None


class DriverMachine(RuleBasedStateMachine):
    """One machine with the driver loaded, and the model beside it."""

    @initialize(name=st.sampled_from(["documented", "linux-2.6.16", "linux-6.16", "linux"]))
    def load(self, name: str) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.system = InProcess(Path(self.directory.name), name, ram_bytes=16 * MIB)
        self.total_bytes = self.system.free_bytes()
        self.system.load_module()
        self.model = Model(documented=name == "documented")

    def teardown(self) -> None:
        self.system.memory.close()
        self.directory.cleanup()

    @rule(word=st.sampled_from(WORDS), tail=st.sampled_from(["", "\n", " mono"]))
    def choose_a_type(self, word: str, tail: str) -> None:
        self.system.write(f"{DEVICE}/image_type", (word + tail).encode())
        self.model.write_type(word)

    @rule(size_bytes=st.sampled_from([0, 1000, 4096, 5000, 20 * KIB]))
    def choose_a_packet_size(self, size_bytes: int) -> None:
        self.system.write(f"{DEVICE}/packet_size", f"{size_bytes}\n".encode())
        self.model.packet_size = size_bytes
        if self.model.kind == "packet":
            self.model.staged = b""

    @rule()
    def write_nonsense(self) -> None:
        _expect(errno.EINVAL, self.system.write, f"{DEVICE}/image_type", b"nonsense\n")

    @precondition(lambda self: self.model.has_entry)
    @rule()
    def begin(self) -> None:
        self.system.write(f"{FIRMWARE}/loading", b"1\n")
        self.model.loaded = bytearray()

    @precondition(lambda self: self.model.loaded is not None)
    @rule(
        offset=st.integers(0, 70_000),
        data=st.binary(min_size=1, max_size=8),
        times=st.sampled_from([1, 1000, 9000]),
    )
    def write_data(self, offset: int, data: bytes, times: int) -> None:
        data *= times
        self.system.write(f"{FIRMWARE}/data", data, offset)
        loaded = self.model.loaded
        assert loaded is not None
        loaded.extend(bytes(max(0, offset - len(loaded))))
        loaded[offset : offset + len(data)] = data

    @precondition(lambda self: self.model.loaded is not None)
    @rule()
    def end(self) -> None:
        self.system.write(f"{FIRMWARE}/loading", b"0\n")
        self.model.end()

    @precondition(lambda self: self.model.has_entry)
    @rule(text=st.sampled_from([b"-1\n", b"7\n"]))
    def abort(self, text: bytes) -> None:
        self.system.write(f"{FIRMWARE}/loading", text)
        self.model.has_entry, self.model.loaded = False, None

    @rule()
    def unload_and_load(self) -> None:
        if self.model.has_entry:
            _expect(errno.EBUSY, self.system.unload_module)
            return
        self.system.unload_module()
        assert self.system.free_bytes() == self.total_bytes
        self.system.load_module()
        self.model = Model(documented=self.model.documented)

    @rule()
    def put_away_and_take_out(self) -> None:
        self.system.put_away_and_take_out()

    @rule(size_bytes=st.sampled_from([1, 777, 4096, 50_000]))
    def read_a_part(self, size_bytes: int) -> None:
        """From the start, and then on to the end, so that the shared cursor is back at 0."""
        if self.model.staged:
            data = b""
            while piece := self.system.read(f"{DEVICE}/data", len(data), size_bytes):
                data += piece
            assert data == self.model.staged

    @invariant()
    def both_show_the_same(self) -> None:
        system, model = self.system, self.model
        assert system.read(f"{DEVICE}/image_type") == f"{model.kind}\n".encode()
        assert system.read(f"{DEVICE}/packet_size") == f"{model.packet_size}\n".encode()
        assert system.exists(f"{FIRMWARE}/loading") == model.has_entry
        if model.staged:
            assert cat(system, f"{DEVICE}/data") == model.staged
        else:
            _expect(errno.ENOMEM, system.read, f"{DEVICE}/data")
        if model.has_entry:
            is_loading = model.loaded is not None
            assert system.read(f"{FIRMWARE}/loading") == f"{int(is_loading)}\n".encode()
            assert cat(system, f"{FIRMWARE}/data") == bytes(model.loaded or b"")

    @invariant()
    def no_page_is_lost(self) -> None:
        if self.model.loaded is None:
            held = sum(block.capacity_bytes for block in self.system.driver.staged_blocks)
            assert self.system.free_bytes() + held == self.total_bytes


def _expect(error_number: int, call: object, *arguments: object) -> None:
    assert callable(call)
    try:
        call(*arguments)
    except KernelError as error:
        if error.errno != error_number:
            raise
    else:
        raise AssertionError(f"no error, where errno {error_number} was expected")


def test_the_driver_does_what_the_model_does() -> None:
    run_state_machine_as_test(
        DriverMachine,
        settings=settings(
            deadline=None,
            max_examples=60,
            stateful_step_count=40,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
