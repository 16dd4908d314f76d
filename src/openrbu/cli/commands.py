"""A function as a command for typer: what many commands have is written once, and added here.

A command is a function that gives an `Answer` (or an exit code). Two things are added:

- a parameter whose type is a dataclass becomes one option for each of its fields, so that commands
  that take the same options name that class and nothing else;
- `--json`, for each command that gives an `Answer`. The function is told (`as_json`) only where it
  asks for it, because it says something before the answer; `main` shows the answer either way.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Annotated, Any, get_type_hints

import typer

from openrbu.cli.show import Answer

CommandFunction = Callable[..., "Answer | int"]

_JSON = "as_json"
_JSON_OPTION = Parameter(
    _JSON,
    Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool, typer.Option("--json", help="Show the answer as one JSON document, errors too.")
    ],
)


def as_command(function: CommandFunction) -> CommandFunction:
    """What typer is given for `function`: see above."""
    own = inspect.signature(function, eval_str=True)
    groups: dict[str, type[Any]] = {
        each.name: each.annotation
        for each in own.parameters.values()
        if isinstance(each.annotation, type) and dataclasses.is_dataclass(each.annotation)
    }
    parameters: list[Parameter] = []
    for each in own.parameters.values():
        if each.name in groups:
            parameters += _options_of(each.annotation)
        elif each.name != _JSON:
            parameters.append(each)
    if own.return_annotation is not int:
        parameters.append(_JSON_OPTION)

    def command(**values: Any) -> Answer | int:
        as_json = values.pop(_JSON, False)
        for name, kind in groups.items():
            given = {field.name: values.pop(field.name) for field in dataclasses.fields(kind)}
            values[name] = kind(**given)
        if _JSON in own.parameters:
            values[_JSON] = as_json
        return function(**values)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return command


def _options_of(kind: type[Any]) -> list[Parameter]:
    """A parameter for each field of a dataclass of options."""
    hints = get_type_hints(kind, include_extras=True)
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(kind)
    ]
