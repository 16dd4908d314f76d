"""Typer, build great CLIs. Easy to code. Based on Python type hints."""

from __future__ import annotations

__version__ = "0.28.0"

from shutil import get_terminal_size as get_terminal_size

from ._click.exceptions import BadParameter as BadParameter
from ._click.utils import echo as echo
from ._click.utils import format_filename as format_filename
from .exceptions import Abort as Abort
from .exceptions import Exit as Exit
from .exceptions import TyperException as TyperException
from .main import Typer as Typer
from .models import Context as Context
from .models import FileBinaryRead as FileBinaryRead
from .models import FileBinaryWrite as FileBinaryWrite
from .models import FileText as FileText
from .models import FileTextWrite as FileTextWrite
from .params import Argument as Argument
from .params import Option as Option
