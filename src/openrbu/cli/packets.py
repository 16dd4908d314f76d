"""The commands packets and join."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli.files import save
from openrbu.cli.images import image_document, saved
from openrbu.cli.options import Force, OutputFile, PacketSize, hex_number_of, set_id_of, size_of
from openrbu.cli.show import Answer
from openrbu.errors import UsageError
from openrbu.units import human_size

if TYPE_CHECKING:
    from openrbu.formats.hdr import Image
    from openrbu.formats.image_packets import ImagePackets


SetId = Annotated[
    str | None,
    typer.Option(
        "--set-id",
        metavar="ID",
        help="The set's ID: four characters (_A05) or 0x…. Without it: made from the image.",
    ),
]
PasswordCrc = Annotated[
    str | None,
    typer.Option(
        "--password-crc", metavar="0x…", help="CRC-32 of the BIOS admin password, for packet 0."
    ),
]


def packets(
    image: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGE",
            help="A BIOS image (.HDR), or a package with one inside; for --explain also a file of "
            "packets.",
        ),
    ],
    number: Annotated[
        int | None,
        typer.Argument(metavar="N", min=0, help="With --explain: which packet; else packet 0."),
    ] = None,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Write nothing; show packet N field by field."),
    ] = False,
    packet_size: PacketSize = "4096",
    set_id: SetId = None,
    password_crc: PasswordCrc = None,
    force: Force = False,
) -> Answer:
    """Cut an image into RBU packets, back to back in one file.

    That is what the driver takes in packet mode. With --explain: what is in packet N, its bytes,
    and whether each rule holds; a file of packets is shown as it is, damaged or not. Without N:
    packet 0, and what is missing or wrong in the whole set.

    \b
    Example:  rbu packets A06.hdr -o A06.packets --packet-size 8K
              rbu packets A06.packets --explain 1
    """
    from openrbu.cli.packet_view import explained, file_of_packets
    from openrbu.formats.loading import naming_file
    from openrbu.formats.packet import check_packet_size

    _check_options(output, number, explain=explain)
    size = size_of(packet_size, "--packet-size")
    check_packet_size(size)
    crc = None if password_crc is None else hex_number_of(password_crc, "--password-crc")
    if crc is not None and crc > 0xFFFFFFFF:
        raise UsageError(f"--password-crc: {password_crc} has more than 32 bits")
    identity = None if set_id is None else set_id_of(set_id)
    if explain and (data := file_of_packets(image)) is not None:
        return explained(image, data, number)
    loaded = api.read_image(image).image
    with naming_file(image):
        made = api.packets(loaded, packet_size_bytes=size, set_id=identity, password_crc=crc)
    if output is None:
        return explained(image, made.data, number)
    return _written(output, made, loaded, force=force)


def _check_options(output: Path | None, number: int | None, *, explain: bool) -> None:
    """Check that a file is to be written, or a packet to be explained.

    :raise UsageError: when it is both or neither.
    """
    if explain and output is not None:
        raise UsageError("--explain writes no file: leave --output out")
    if number is not None and not explain:
        raise UsageError(f"a packet's number ({number}) is for --explain only")
    if output is None and not explain:
        raise UsageError("--output FILE is missing (or --explain, which shows a packet)")


def _written(output: Path, made: ImagePackets, image: Image, *, force: bool) -> Answer:
    """Write packets to a file, and say what they are."""
    size = made.packet_size_bytes
    changed = save(output, made.data, force=force)
    document = {
        "changed": changed,
        "file": str(output),
        "size_bytes": len(made.data),
        "packet_size_bytes": size,
        "packet_count": made.count,
        "set_id": f"{made.set_id:#010x}",
        "has_password": made.has_password,
        "version": image.header.version.text,
    }
    what = f"{made.count} packets of {human_size(size)}, {human_size(len(made.data))} in all"
    return Answer(document, [saved(output, changed, what)])


def join(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file with the packets, back to back.")
    ],
    *,
    output: OutputFile,
    force: Force = False,
) -> Answer:
    """Join the RBU packets in a file into an image.

    Each packet is checked. All have to be there, in sequence.

    \b
    Example:  rbu join A06.packets -o A06.hdr
    """
    from openrbu.formats.loading import naming_file
    from openrbu.system.files import read_input

    data = read_input(file)
    with naming_file(file):
        joined = api.join(data)
    image, packets = joined.image, joined.packets
    changed = save(output, image.build(), force=force)
    document = {
        "changed": changed,
        "file": str(output),
        "packet_count": packets.total,
        "packet_size_bytes": packets.packet_size_bytes,
        "set_id": f"{packets.set_id:#010x}",
        "has_password": packets.password.present,
        **image_document(image),
    }
    what = f"{image.header.version}, {human_size(image.size_bytes)}, {packets.total} packets"
    return Answer(document, [saved(output, changed, what)])
