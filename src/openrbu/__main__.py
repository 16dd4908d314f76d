"""`python -m openrbu` is the command `rbu`."""

from openrbu.cli.main import entry

if __name__ == "__main__":
    raise SystemExit(entry())
