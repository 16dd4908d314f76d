"""openrbu: Remote BIOS Update for Linux, whole and in user space.

Data flows one way: image → packets → driver → memory → (restart) → BIOS → flash → result.
The subpackages are those stations; each knows only the ones before it.
"""

__version__ = "0.3.0"
