"""Maps of physical memory: what is where, as a strip on a terminal, as a picture, as a page.

`memory_map` is the model, `usage` and `survey` make it; the others draw it. See docs/scan.md.
"""
