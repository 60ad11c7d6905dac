"""Options of listwise models, the same for every command that reranks."""

from __future__ import annotations

import sys

import click

from dearlite.cli.options.types import GpuLayers, Option
from dearlite.errors import UsageError
from dearlite.listwise.forms import FORMS, mode_of, writes_reasons
from dearlite.options import (
    DEFAULT_GROUP_SIZE,
    DEFAULT_REASONING_TOKENS,
    DEFAULT_SORT_K,
    LISTWISE_MODES,
    SORTS,
    Listwise,
    ListwiseMode,
    SortName,
)
from dearlite.templates.families import FAMILIES

_MODES = "; ".join(f"{name} ({description})" for name, description in LISTWISE_MODES.items())
_SORTS = "; ".join(f"{mode}: {', '.join(sorts)}" for mode, sorts in SORTS.items())
_FORMS = "; ".join(
    f"--mode {mode}: {', '.join(name for name in FORMS if mode_of(name) == mode)}"
    for mode in dict.fromkeys(map(mode_of, FORMS))
)
_LARGEST_WINDOW = sys.maxsize  # in place of the model's own window, which is not known before it is loaded


def _names(*, likelihood: bool) -> str:
    return ", ".join(name for name, family in FAMILIES.items() if family.likelihood == likelihood)


LISTWISE_OPTIONS: tuple[Option, ...] = (
    click.option(
        "--mode",
        type=click.Choice(list(LISTWISE_MODES)),
        help=f"Listwise: the way in which the model orders documents: {_MODES}. "
        "[default: that of the prompt form, which is permute for most models]",
    ),
    click.option(
        "--explain", is_flag=True, help="Listwise: write the model's reasoning first; the same as --mode reason."
    ),
    click.option(
        "--window", type=int, metavar="N", help="Listwise: number of documents per prompt. [default: the model file's]"
    ),
    click.option(
        "--stride",
        type=int,
        metavar="N",
        help="Listwise: number of documents between the starts of two windows. "
        "[default: half of --window, or the model file's]",
    ),
    click.option(
        "--passage-tokens",
        type=int,
        metavar="N",
        help="Listwise: read at most N tokens per document; fewer are faster. [default: as many as fit]",
    ),
    click.option(
        "--reasoning-tokens",
        type=int,
        metavar="N",
        help="Listwise: write at most N tokens of reasoning per prompt, with --mode reason or pointwise, or --prompt "
        "rank-r1; then the reasoning is closed, and the answer follows. "
        f"[default: {DEFAULT_REASONING_TOKENS}]",
    ),
    click.option(
        "--group-size",
        type=int,
        metavar="N",
        help=f"Listwise, --mode setwise: compare N documents at a time. [default: {DEFAULT_GROUP_SIZE}]",
    ),
    click.option(
        "--sort",
        type=click.Choice(list(dict.fromkeys(name for sorts in SORTS.values() for name in sorts))),
        help=f"Listwise: the sorting algorithm of a mode that sorts ({_SORTS}). [default: heap]",
    ),
    click.option(
        "--sort-k",
        type=int,
        metavar="N",
        help="Listwise: put the best N documents in order, with a mode that sorts; the others keep their order. "
        f"[default: {DEFAULT_SORT_K}]",
    ),
    click.option(
        "--shuffle-seed",
        type=int,
        metavar="N",
        help="Listwise, --mode setwise: shuffle the documents of each comparison, the same in every run. "
        "[default: as the authors of the prompt did]",
    ),
    click.option(
        "--passes",
        type=int,
        metavar="N",
        help="Listwise, and attention rerankers: permutation self-consistency: rank N times, at most 100, each time "
        "after the first with the documents shuffled, and order by mean rank. [default: 1]",
    ),
    click.option(
        "--prompt",
        type=click.Choice([*FORMS, *FAMILIES]),
        metavar="NAME",
        help=f"GGUF: prompt form of a listwise model ({_FORMS}), or the way to run a language model "
        f"pointwise: by its answer yes or no ({_names(likelihood=False)}), or by the likelihood of the query "
        f"({_names(likelihood=True)}). [default: the model file's]",
    ),
    click.option(
        "--gpu-layers",
        type=GpuLayers(),
        metavar="auto|N",
        help="GGUF: number of layers on the GPU. [default: auto, which is all of them if there is a GPU]",
    ),
    click.option("--adapter", metavar="FILE", help="Listwise: LoRA adapter in GGUF format to apply to the model."),
)


def listwise_of(
    *,
    mode: ListwiseMode | None,
    explain: bool,
    window: int | None,
    stride: int | None,
    passage_tokens: int | None,
    reasoning_tokens: int | None,
    passes: int | None,
    prompt: str | None,
    group_size: int | None = None,
    sort: SortName | None = None,
    sort_k: int | None = None,
    shuffle_seed: int | None = None,
) -> Listwise | None:
    """The record of the options, None if no option is set. Raises UsageError for values that no model accepts."""
    if explain and mode not in (None, "reason"):
        raise UsageError(f"--explain is --mode reason: leave out --mode {mode}")
    if explain:
        mode = "reason"
    if reasoning_tokens is not None and (mode or prompt) and not writes_reasons(mode, prompt):
        raise UsageError(
            f"--reasoning-tokens {reasoning_tokens} goes with --mode reason (or --explain), with --mode pointwise, or "
            "with --mode setwise --prompt rank-r1: name it"
        )
    numbers = (window, stride, passage_tokens, reasoning_tokens, passes, group_size, sort_k, shuffle_seed)
    if all(value is None for value in (mode, prompt, sort, *numbers)):
        return None
    listwise = Listwise(
        mode=mode,
        window=window,
        stride=stride,
        passage_tokens=passage_tokens,
        prompt=prompt,
        reasoning_tokens=DEFAULT_REASONING_TOKENS if reasoning_tokens is None else reasoning_tokens,
        passes=1 if passes is None else passes,
        group_size=group_size,
        sort=sort,
        sort_k=sort_k,
        shuffle_seed=shuffle_seed,
    )
    stated = mode or (mode_of(prompt) if prompt in FORMS else None)
    if stated is None:  # the model file decides the mode
        listwise.check_values()
    else:
        listwise.checked(window=_LARGEST_WINDOW, stride=1, mode=stated)
    return listwise
