"""What `rbu` says of the systems that an image is for and of the machine that it is on."""

from cli_rig import Cli
from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.version import BiosVersion


def test_info_names_each_system_and_says_what_is_known_against_rbu_there(rbu: Cli) -> None:
    made = make_image(
        b"flash" * 100,
        version=BiosVersion.parse("A11"),
        systems=[SystemId(0x0121), SystemId(0x0126, 1), SystemId(0x022E), SystemId(0x1ABC)],
    )
    path = rbu.write("a.hdr", made)
    lines = [line.strip() for line in rbu("info", path).out.splitlines()]
    start = next(number for number, line in enumerate(lines) if line.startswith("for systems:"))
    assert lines[start].split(maxsplit=2)[2] == "0x0121 (PowerEdge 2650)"
    assert lines[start + 1 : start + 6] == [
        "0x0126:1 (OptiPlex GX620)",
        "RBU sometimes leaves it unable to start; version A11 breaks USB keyboards, too",
        "0x022e (XPS M1530)",
        "version A07 breaks its wireless network",
        "0x1abc",
    ]
    (image,) = rbu.json("info", path)["images"]
    assert [system["name"] for system in image["systems"]] == [
        "PowerEdge 2650",
        "OptiPlex GX620",
        "XPS M1530",
        None,
    ]
    said = [(each["rbu_known_broken"], each["known_against_rbu"]) for each in image["systems"]]
    assert said == [
        (False, None),
        (True, lines[start + 2]),
        (False, lines[start + 4]),
        (False, None),
    ]
