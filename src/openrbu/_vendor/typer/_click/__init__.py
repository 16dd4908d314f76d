"""
Code taken and adapted from Click: https://github.com/pallets/click/releases/tag/8.3.1
"""

from __future__ import annotations

from .core import Command as Command
from .core import Context as Context
from .core import Parameter as Parameter
from .exceptions import ClickException as ClickException
from .utils import echo as echo
