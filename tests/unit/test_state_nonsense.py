"""States with a right checksum and any one value changed: gone on from, or refused, and no more."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrbu.machine.state import StateRefusedError
from openrbu.machine.virtual import VirtualMachine
from openrbu.machine.xen_host import XenHost
from rigs.packed_machine import unpack

STATES = Path(__file__).parents[1] / "data" / "states" / "format-2"

NONSENSE: st.SearchStrategy[object] = st.one_of(
    st.sampled_from(
        [None, True, "", "mono", [], {}, 0, 1, -1, 4096, 1 << 31, 1 << 64, 10**30, 1e300]
    ),
    st.integers(),
    st.lists(st.integers(0, 1 << 40), max_size=4),
    st.lists(st.lists(st.integers(0, 1 << 20), min_size=3, max_size=4), max_size=2),
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all that is in a document."""
    if path:
        yield path
    items: dict[Any, Any] = {}
    if isinstance(value, dict | list):
        items = value if isinstance(value, dict) else dict(enumerate(value))
    for key, inner in items.items():
        yield from places(inner, (*path, key))


def changed(data: bytes, where: int, value: object) -> bytes:
    """A state file with one value of its state changed."""
    document = json.loads(data)
    paths = list(places(document["state"]))
    *path, last = paths[where % len(paths)]
    inner = document["state"]
    for step in path:
        inner = inner[step]
    inner[last] = value
    document["crc32"] = zlib.crc32(json.dumps(document["state"]).encode())
    return json.dumps(document).encode()


once = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("states")
    for each in STATES.iterdir():
        if each.is_dir():
            unpack(each, home / each.name)
    return home


@pytest.mark.parametrize(
    "shape", ["armed-by-packets", "armed-by-one-block", "half-way", "smi-buffer", "xen-armed"]
)
@once
@given(where=st.integers(0, 1000), value=NONSENSE)
def test_any_value_in_a_machines_state_is_gone_on_from_or_refused(
    machines: Path, shape: str, where: int, value: object
) -> None:
    path = machines / shape / "state.json"
    whole = path.read_bytes()
    path.write_bytes(changed(whole, where, value))
    try:
        before = path.read_bytes()
        try:
            with VirtualMachine(machines / shape) as machine:
                assert machine.is_on
        except StateRefusedError as refusal:
            assert "\n" not in str(refusal)  # noqa: PT017
            assert path.read_bytes() == before
    finally:
        path.write_bytes(whole)


@once
@given(where=st.integers(0, 1000), value=NONSENSE)
def test_any_value_in_a_guests_state_is_gone_on_from_or_refused(
    machines: Path, where: int, value: object
) -> None:
    path = machines / "xen" / "xen" / "guests" / "down" / "state.json"
    whole = path.read_bytes()
    path.write_bytes(changed(whole, where, value))
    try:
        before = path.read_bytes()
        with XenHost(machines / "xen", now=lambda: 0.0) as host:
            try:
                host.attach("down").close()
            except StateRefusedError as refusal:
                assert "\n" not in str(refusal)  # noqa: PT017
                assert path.read_bytes() == before
            assert "down" in host.guest_names()
    finally:
        path.write_bytes(whole)
