"""Vendors' packages: the images in them, and what the other packages are.

`search.search_package` searches a file, within `limits`. `streams`, `archives` and `cabinet`
unpack; `signatures` finds where an image or an archive may start; `manifest` reads what a package
says about itself; `not_for_rbu` recognises files without an image.
"""
