"""Fuzz one target: `python tests/fuzz/one.py NAME DIRECTORY|FILE [OPTION OF LIBFUZZER …]`.

A directory is the corpus: it gets the seeds, and the inputs that take a new way. A file is one
input, which is run once: to see again what an input does. It needs atheris (`make fuzz` gets it).
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.parsers import not_parsers

with atheris.instrument_imports(include=["openrbu"], exclude=not_parsers()):
    from fuzz.targets import TARGETS

from fuzz.corpus import kept_inputs
from fuzz.limits import HANG_SECONDS, LIMIT_BYTES, limited


def main() -> None:
    name, path = sys.argv[1], Path(sys.argv[2])
    target = TARGETS[name]
    if not path.is_file():
        path.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.seeds()):
            (path / f"seed-{number}").write_bytes(seed)
        for digest, data in kept_inputs(name):
            (path / digest).write_bytes(data)
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
    limits = [f"-timeout={HANG_SECONDS}", f"-rss_limit_mb={LIMIT_BYTES >> 20}"]
    atheris.Setup([sys.argv[0], str(path), *limits, *sys.argv[3:]], limited(target))
    atheris.Fuzz()


main()
