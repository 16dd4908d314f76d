"""Copies of packages that Debian 12 has too old a version of: README.md beside this file."""
