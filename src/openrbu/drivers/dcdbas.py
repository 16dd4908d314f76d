"""The `dcdbas` driver: a buffer in memory through which user space calls the BIOS by SMI.

Theory of operation. There is one buffer, below 4 GiB so that the BIOS can address it. It grows and
never shrinks. What a number written to `smi_request` does:

======  =======================================================================
 0      clears the buffer
 1      calls the BIOS: the handler gets the buffer's bytes, and the bytes that
        it returns replace them. EBADR when the buffer does not start with a
        command's magic number
other   EINVAL
======  =======================================================================

All of them return ENODEV while the buffer is not larger than a command's 16 bytes of header. Text
that is not a number counts as 0. Each write is a separate request, at any offset.

The `host_control_*` files can be read and written, and do nothing: this driver has no shutdown
hook.

Sources: docs/reference/driver-files.md, D9 and D10; the calls that libsmbios makes (its
smbios-token-ctl works through these files in the tests); errors, modes and limits were measured on
Debian's 6.1.192. Two things that the kernel does are not done here: a raw SMI (request 2), and to
put the buffer's address into the command's `ebx`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from openrbu.buffers import Buffer
from openrbu.drivers.extents import Block, free_all, zero_whole
from openrbu.drivers.numbers import simple_strtoul
from openrbu.drivers.objects import add_driver, device_path, remove_driver
from openrbu.drivers.states import DcdbasState
from openrbu.drivers.sysfs import BinaryAttribute, SysfsTree, TextAttribute
from openrbu.errors import DamagedInputError, KernelError
from openrbu.memory.pages import PageSource
from openrbu.units import GIB, KIB, PhysAddr, order_for

NAME: Final = "dcdbas"
DEVICE_PATH = device_path(NAME)
SMI_REQUEST = f"{DEVICE_PATH}/smi_request"

SMI_MAGIC = 0x534D4931
MAX_BUFFER_BYTES = 256 * KIB

_COMMAND_HEADER_BYTES = 16
_CLEAR = 0
_FIRE = 1
_HOST_CONTROLS = ("host_control_action", "host_control_smi_type", "host_control_on_shutdown")

SmiHandler = Callable[[bytes], bytes]
"""Gets the whole buffer and returns it after the call, with the same size."""


class Dcdbas:
    """One loaded module: first `load` or `restore`, at the end `unload`."""

    def __init__(
        self,
        tree: SysfsTree,
        pages: PageSource,
        smi: SmiHandler,
        *,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._tree, self._pages, self._smi, self._log = tree, pages, smi, log
        self._buffer: Block | None = None
        self._host_controls = dict.fromkeys(_HOST_CONTROLS, 0)

    def load(self) -> None:
        """`modprobe`: add the files.

        :raise KernelError: EEXIST when the driver is loaded in this tree.
        """
        add_driver(self._tree, NAME)
        data = BinaryAttribute(self._read_data, self._write_data, mode=0o600)
        size = TextAttribute(lambda: f"{self._size_bytes}\n", self._store_size, mode=0o600)
        address = TextAttribute(self._show_address, mode=0o400)
        request = TextAttribute(store=self._store_request, mode=0o200)
        self._tree.add(f"{DEVICE_PATH}/smi_data", data)
        self._tree.add(f"{DEVICE_PATH}/smi_data_buf_size", size)
        self._tree.add(f"{DEVICE_PATH}/smi_data_buf_phys_addr", address)
        self._tree.add(SMI_REQUEST, request)
        for name in _HOST_CONTROLS:
            self._tree.add(f"{DEVICE_PATH}/{name}", self._host_control(name))

    def unload(self) -> None:
        """`rmmod`: free the buffer and remove the files."""
        self._drop_buffer()
        remove_driver(self._tree, NAME)

    def snapshot(self) -> DcdbasState:
        """The state that `restore` needs. The buffer's bytes stay in memory and are not in it."""
        return DcdbasState(NAME, self._buffer, dict(self._host_controls))

    def restore(self, state: DcdbasState) -> None:
        """Instead of `load`: continue from a snapshot, in a new tree.

        :raise DamagedInputError: when the snapshot has other host controls.
        """
        if state.host_controls.keys() != self._host_controls.keys():
            raise DamagedInputError(
                "dcdbas has other host controls",
                expected=sorted(self._host_controls),
                actual=sorted(state.host_controls),
            )
        if state.buffer is not None:
            address, order, size_bytes = state.buffer
            self._buffer = Block(PhysAddr(address), order, size_bytes)
        self._host_controls.update(state.host_controls)
        self.load()

    @property
    def _size_bytes(self) -> int:
        return 0 if self._buffer is None else self._buffer.size_bytes

    def _show_address(self) -> str:
        return f"{0 if self._buffer is None else self._buffer.address:x}\n"

    def _read_data(self, offset: int, size_bytes: int) -> bytes:
        size_bytes = min(size_bytes, self._size_bytes - offset)
        if self._buffer is None or size_bytes <= 0:
            return b""
        return self._pages.memory.read(PhysAddr(self._buffer.address + offset), size_bytes)

    def _write_data(self, offset: int, data: Buffer) -> None:
        if data:
            buffer = self._grow(offset + len(data))
            self._pages.memory.write(PhysAddr(buffer.address + offset), data)

    def _store_size(self, text: bytes) -> None:
        size_bytes = simple_strtoul(text)
        if size_bytes:
            self._grow(size_bytes)

    def _store_request(self, text: bytes) -> None:
        buffer = self._buffer
        if buffer is None or buffer.size_bytes <= _COMMAND_HEADER_BYTES:
            raise KernelError(
                errno.ENODEV,
                SMI_REQUEST,
                "the buffer is too small for a command: write one to smi_data first",
            )
        request = simple_strtoul(text)
        if request == _CLEAR:
            zero_whole(self._pages.memory, [buffer])
        elif request == _FIRE:
            self._fire(buffer)
        else:
            raise KernelError(errno.EINVAL, SMI_REQUEST)

    def _fire(self, buffer: Block) -> None:
        memory = self._pages.memory
        command = memory.read(buffer.address, buffer.size_bytes)
        magic = int.from_bytes(command[:4], "little")
        if magic != SMI_MAGIC:
            raise KernelError(errno.EBADR, SMI_REQUEST, f"{magic:#x} is not an SMI command")
        answer = self._smi(command)
        if len(answer) != len(command):
            self._log(f"{NAME}: the BIOS returned {len(answer)} bytes, not {len(command)}")
        memory.write(buffer.address, answer[: len(command)])

    def _grow(self, size_bytes: int) -> Block:
        """Make the buffer at least `size_bytes` large; its bytes stay. Returns it.

        :raise KernelError: EINVAL above 256 KiB; ENOMEM when there are no pages below 4 GiB.
        """
        old = self._buffer
        if size_bytes > MAX_BUFFER_BYTES:
            raise KernelError(
                errno.EINVAL, detail=f"an SMI buffer has at most {MAX_BUFFER_BYTES} bytes"
            )
        if old is not None and size_bytes <= old.capacity_bytes:
            new = old._replace(size_bytes=max(old.size_bytes, size_bytes))
        else:
            order = order_for(size_bytes)
            address = self._pages.allocate(order, below=PhysAddr(4 * GIB))
            new = Block(address, order, size_bytes)
            zero_whole(self._pages.memory, [new])
            if old is not None:
                content = self._pages.memory.read(old.address, old.size_bytes)
                self._pages.memory.write(address, content)
                self._drop_buffer()
        self._buffer = new
        return new

    def _drop_buffer(self) -> None:
        """Clear the buffer, as a command may contain a password, and free it."""
        if self._buffer is not None:
            zero_whole(self._pages.memory, [self._buffer])
            free_all(self._pages, [self._buffer])
            self._buffer = None

    def _host_control(self, name: str) -> TextAttribute:
        def store(text: bytes) -> None:
            self._host_controls[name] = simple_strtoul(text)

        return TextAttribute(lambda: f"{self._host_controls[name]}\n", store, mode=0o600)
