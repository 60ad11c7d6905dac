"""What the command line takes for listwise models, the same for every command that ranks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from dearlite.errors import UsageError
from dearlite.listwise.prompts import LIST_FORMS
from dearlite.options import DEFAULT_REASONING_TOKENS, LISTWISE_MODES, Listwise

Command = TypeVar("Command", bound=Callable[..., Any])
_MODES = ", ".join(f"{name} ({what})" for name, what in LISTWISE_MODES.items())
_OPTIONS = (
    click.option("--mode", type=click.Choice(list(LISTWISE_MODES)), help=f"Listwise: {_MODES}. [default: permute]"),
    click.option("--explain", is_flag=True, help="Listwise: the model says why first; the same as --mode reason."),
    click.option("--window", type=int, metavar="N", help="Listwise: documents compared at once. [default: the file's]"),
    click.option("--stride", type=int, metavar="N", help="Listwise: how far windows lie apart. [default: half of it]"),
    click.option(
        "--passage-tokens",
        type=int,
        metavar="N",
        help="Listwise: tokens of a document that are read. Fewer are faster.",
    ),
    click.option(
        "--reasoning-tokens",
        type=int,
        metavar="N",
        help=f"Listwise: tokens that --explain may write. [default: {DEFAULT_REASONING_TOKENS}]",
    ),
    click.option(
        "--passes",
        type=int,
        metavar="N",
        help="Listwise: N orders of shuffled documents, fused by mean rank. [default: 1]",
    ),
    click.option(
        "--prompt", type=click.Choice(list(LIST_FORMS)), help="Listwise: the prompt form. [default: the file's]"
    ),
)
_LOADING = (
    click.option(
        "--gpu-layers", metavar="auto|N", help="Listwise: layers on the GPU. [default: all where there is one]"
    ),
    click.option("--adapter", metavar="FILE", help="Listwise: a LoRA in GGUF form, put on the model."),
)


def listwise_options(command: Command) -> Command:
    """`command` with the options; `listwise_of` and `loading_of` take them out of what it is called with."""
    for option in reversed((*_OPTIONS, *_LOADING)):
        command = option(command)
    return command


def listwise_of(given: dict[str, Any], *, stream: bool) -> Listwise | None:
    """The record for what was given, None where nothing was. With `stream` reasons go to stderr as they come."""
    explain = given.pop("explain")
    if explain and given["mode"] not in (None, "reason"):
        raise UsageError(f"--explain is --mode reason: leave out --mode {given['mode']}")
    given["mode"] = "reason" if explain else given["mode"]
    names = ("mode", "window", "stride", "passage_tokens", "reasoning_tokens", "passes", "prompt")
    fields = {name: given[name] for name in names if given[name] is not None}
    if not fields:
        return None
    return Listwise(**fields, on_text=_write if stream and fields.get("mode") == "reason" else None)


def loading_of(given: dict[str, Any]) -> dict[str, Any]:
    """`gpu_layers` and `adapter`, as `Reranker.load` takes them."""
    layers = given["gpu_layers"]
    if layers in (None, "auto"):
        return {"gpu_layers": None, "adapter": given["adapter"]}
    if not layers.isdecimal():
        raise UsageError(f"--gpu-layers {layers}: it is auto, or a whole number from 0")
    return {"gpu_layers": int(layers), "adapter": given["adapter"]}


def _write(text: str) -> None:
    """What a model writes goes on the screen line by line, and moves nothing else there."""
    sys.stderr.write("".join(char if char.isprintable() or char == "\n" else " " for char in text))
    sys.stderr.flush()
