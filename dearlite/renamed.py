"""Names of options and arguments that changed. A former name works for one version, and a line names the new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import iscoroutinefunction, signature
from typing import Any, ParamSpec, TypeVar, cast

from dearlite.errors import UsageError, warn

# Former name of an argument -> its name; on the command line the same words are options, with dashes.
FORMER = {"together": "batch_size"}
# A second name of an argument, where both read well: a list of queries.
ALSO = {"queries": "query"}
# Names in the packages and services of others -> the name here; refused by name, so that there is one word for each.
ELSEWHERE = {"documents": "docs", "passages": "docs", "top_n": "top_k"}

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def option_of(name: str) -> str:
    """The option of an argument: `batch_size` -> `--batch-size`."""
    return f"--{name.replace('_', '-')}"


def note_of(former: str, name: str) -> str:
    """The line that a former name gives."""
    return f"{former} is called {name} now: the former name ends with the next version"


def with_former_names(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`function`, which takes its arguments by their former names too, with a DearliteWarning.

    It raises UsageError for a name `ELSEWHERE`, and for an argument that is given by both names. A name of `ALSO` that
    is an argument of `function` itself keeps its meaning.
    """
    own = signature(function).parameters
    names = FORMER | {other: name for other, name in ALSO.items() if name in own and other not in own}
    if iscoroutinefunction(function):

        @wraps(function)
        async def renaming_coroutine(*args: Any, **options: Any) -> Any:
            return await function(*args, **_renamed(options, names))

        return cast("Callable[Arguments, Result]", renaming_coroutine)

    @wraps(function)
    def renaming(*args: Any, **options: Any) -> Any:
        return function(*args, **_renamed(options, names))

    return cast("Callable[Arguments, Result]", renaming)


def _renamed(options: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    if options.keys().isdisjoint({*names, *ELSEWHERE}):
        return options
    for name in ELSEWHERE.keys() & options.keys():
        raise UsageError(f"{name} is called {ELSEWHERE[name]} here: give {ELSEWHERE[name]}=")
    renamed = {}
    for name, value in options.items():
        current = names.get(name, name)
        if current in renamed or (current != name and current in options):
            raise UsageError(f"{current} is given twice, also by another name: give it once")
        if name in FORMER:
            warn(note_of(name, current))
        renamed[current] = value
    return renamed
