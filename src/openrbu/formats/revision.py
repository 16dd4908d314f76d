"""The hardware revision of a system, which an image's list of systems has with its ID."""

MAX_REVISION = 7
"""The list has 3 bits for it (docs/reference/image.md, I2)."""
