"""What every command that ranks takes for cascades and long documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from dearlite.errors import UsageError
from dearlite.models.chain import resolve
from dearlite.options import LONG_MODES, Long

Command = TypeVar("Command", bound=Callable[..., Any])
_OPTIONS = (
    click.option(
        "--long",
        "long_mode",
        type=click.Choice(list(LONG_MODES)),
        default="truncate",
        show_default=True,
        help="Long documents: " + "; ".join(f"{name}, {what}" for name, what in LONG_MODES.items()) + ".",
    ),
    click.option("--chunk-tokens", type=int, metavar="N", help="Long documents: a passage's length. [the model's own]"),
    click.option(
        "--keep", type=int, metavar="N", help=f"--long cascade: passages of a document that go on. [{Long().keep}]"
    ),
    click.option("--adaptive", is_flag=True, help="Cascade: a stage gets only what it could bring above the cut."),
)


def cascade_options(command: Command) -> Command:
    """`command` with the options; `long_of` takes them out of what it is called with."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def long_of(given: dict[str, Any]) -> Long | None:
    """What is to become of long documents, None where they are cut. Raises UsageError for what does not fit."""
    mode, tokens, keep = given["long_mode"], given["chunk_tokens"], given["keep"]
    stages = len(resolve(given["model"], best_effort=True).stages)
    if given["adaptive"] and stages < 2:
        raise UsageError("--adaptive is for a cascade, and one model was named: -m NAME -m NAME:30")
    if keep is not None and mode != "cascade":
        raise UsageError("--keep goes with --long cascade: the other modes hand no passages on")
    if mode == "truncate":
        if tokens is not None:
            raise UsageError("--chunk-tokens goes with --long chunk or cascade: name one")
        return None
    if mode == "cascade" and stages < 2:
        raise UsageError("--long cascade needs a stage that picks passages and one that reads them: -m NAME -m NAME:20")
    return Long(mode, tokens, Long().keep if keep is None else keep).checked()
