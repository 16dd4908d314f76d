"""The hardware revision of a system, which stands beside its ID in an image's list of systems."""

MAX_REVISION = 7
"""The list has 3 bits for it (docs/reference/image.md, I2)."""
