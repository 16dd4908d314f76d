"""Makes a command for typer out of a function, and adds what many commands have.

A command is a function that returns an `Answer` (or an exit code). Two things are added:

- a parameter whose type is a dataclass becomes one option for each of its fields, so that commands
  with the same options only name that class;
- `--json`, for each command that returns an `Answer`. `main` searches the words for it, because the
  error of a command line that can't be parsed is JSON, too. A function that prints something before
  it returns has a parameter `as_json`, and gets what `main` has found.

Of a command that is about a machine, `Invocation.said` says which command and machine it is, for
the document of its answer or its error.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

from openrbu._vendor import typer
from openrbu.cli.options import MachineName
from openrbu.cli.show import Answer
from openrbu.errors import UsageError

if TYPE_CHECKING:
    from openrbu.balloon.clock import Clock


@dataclasses.dataclass(frozen=True, slots=True)
class Invocation:
    """How `main` was called: `obj` of typer's context. `clock`: the time for balloon commands;
    None: this computer's. `said`: `command` and `machine` (None: this computer), as soon as a
    command is known that is about a machine."""

    as_json: bool
    clock: Clock | None = None
    said: dict[str, str | None] = dataclasses.field(default_factory=dict)


CommandFunction = Callable[..., "Answer | int"]

_JSON = "as_json"
_JSON_OPTION = Parameter(
    _JSON,
    Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool, typer.Option("--json", help="Print the result, or the error, as one JSON document.")
    ],
)

_CONTEXT = "context"
_CONTEXT_PARAMETER = Parameter(_CONTEXT, Parameter.KEYWORD_ONLY, annotation=typer.Context)


def as_command(function: CommandFunction) -> CommandFunction:
    """The function that typer gets for `function`: see above."""
    own = inspect.signature(function, eval_str=True)
    groups: dict[str, type[Any]] = {
        each.name: each.annotation
        for each in own.parameters.values()
        if isinstance(each.annotation, type) and dataclasses.is_dataclass(each.annotation)
    }
    machines = [each.name for each in own.parameters.values() if _names_machine(each)]
    named = [each.name for each in own.parameters.values() if each.annotation is MachineName]
    parameters: list[Parameter] = []
    for each in own.parameters.values():
        if each.name in groups:
            parameters += _options_of(each.annotation)
        elif each.name != _JSON:
            parameters.append(_machine_once(each) if _names_machine(each) else each)
    if own.return_annotation is not int:
        parameters.append(_JSON_OPTION)
    own_context = [each.name for each in parameters if each.annotation is typer.Context]
    if not own_context:  # typer passes one
        parameters.append(_CONTEXT_PARAMETER)

    def command(**values: Any) -> Answer | int:
        values.pop(_JSON, None)
        for each in machines:
            values[each] = _one_machine(values[each])
        context = values[own_context[0]] if own_context else values.pop(_CONTEXT)
        _tell(context, [values[each] for each in (*machines, *named)])
        for name, kind in groups.items():
            given = {field.name: values.pop(field.name) for field in dataclasses.fields(kind)}
            values[name] = kind(**given)
        if _JSON in own.parameters:
            values[_JSON] = context.obj.as_json
        return function(**values)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return command


def _tell(context: typer.Context, names: list[str | None]) -> None:
    """Note which command and which machine it is; `names`: of the command's one machine, if any."""
    for machine in names:
        context.obj.said.update(command=context.command_path.removeprefix("rbu "), machine=machine)


def _names_machine(parameter: Parameter) -> bool:
    """Whether this is the option `--machine`."""
    hints = getattr(parameter.annotation, "__metadata__", ())
    # In `Annotated`, typer takes the first name of an option for its default, and moves it later.
    return any(getattr(hint, "default", None) == "--machine" for hint in hints)


def _machine_once(parameter: Parameter) -> Parameter:
    """The option `--machine` as one that can be repeated, so that a second name is seen."""
    kind, *hints = get_args(parameter.annotation)
    several = list[str] if kind is str else list[str] | None
    return parameter.replace(annotation=Annotated[several, *hints])


def _one_machine(names: list[str] | None) -> str | None:
    """The machine that a command line names; None: none.

    :raise UsageError: when it names several. The last one would count, and the others, which the
        user had in mind, would not be looked at.
    """
    given = list(dict.fromkeys(names or ()))
    if len(given) > 1:
        raise UsageError(f"one machine at a time, not {', '.join(given)}: use --machine once")
    return given[0] if given else None


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
