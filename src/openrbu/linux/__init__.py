"""What a Linux says about itself through its files: facts, without a verdict.

Each module has a frozen dataclass, and a function that reads it from a `Host`. What the facts mean
for an update is in `update/checks/`.
"""
