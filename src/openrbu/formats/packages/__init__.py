"""Vendors' packages: what is inside of them for RBU, and what they are when nothing is.

`search.search_package` looks through a file; `limits` says how far. `streams`, `archives` and
`cabinet` unpack, `signs` says where something may start, `manifest` reads what a package says of
itself, and `not_for_rbu` names what holds nothing.
"""
