"""The attention heads of an attention reranker: of named models, or of a list in a file.

A head is written `layer-head`, both from 0, and a list is such heads with commas between them, as in the configurations
of QRHead (princeton-pli/QRHead). The published lists were found with NQ; each is for one model, whose shape is checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dearlite.errors import UsageError
from dearlite.export.source.families import LlamaShape

ALL = "icr"  # every head of every layer (arXiv 2410.02642)
_MOST_CHARACTERS = 10**6  # of a file
_ITEM = re.compile(r"(\d{1,4})-(\d{1,4})")
_QUOTED = 40  # characters of an unreadable part in a message


@dataclass(frozen=True, slots=True)
class HeadList:
    """A published list, and the model that it is for: the numbers of its layers and of the heads of a layer."""

    model: str
    layers: int
    heads: int
    chosen: str


# Source: princeton-pli/QRHead, src/qrretriever/configs/*_qr_head_NQ.yaml (arXiv 2506.09944), the best 16 heads.
HEADS: dict[str, HeadList] = {
    "qrhead-llama-3.2-1b": HeadList(
        *("Llama-3.2-1B-Instruct", 16, 32),
        "8-21,8-14,7-22,6-31,8-28,10-26,10-0,5-5,8-3,6-30,8-0,7-26,7-25,7-23,11-4,8-20",
    ),
    "qrhead-llama-3.2-3b": HeadList(
        *("Llama-3.2-3B-Instruct", 28, 24),
        "13-16,12-12,13-23,13-21,15-18,12-3,21-20,12-1,13-2,13-1,12-6,12-11,13-0,15-22,18-19,18-11",
    ),
    "qrhead-llama-3.1-8b": HeadList(
        *("Llama-3.1-8B-Instruct", 32, 32),
        "14-22,13-16,14-28,14-31,16-19,14-1,16-26,17-24,14-0,13-0,16-25,13-12,13-1,13-10,17-27,20-14",
    ),
    "qrhead-qwen2.5-7b": HeadList(
        *("Qwen2.5-7B-Instruct", 28, 28),
        "16-19,16-2,16-20,16-14,16-0,15-24,16-18,17-18,16-1,19-18,19-19,18-16,16-17,19-25,19-17,20-21",
    ),
    "qrhead-qwen3-8b": HeadList(
        *("Qwen3-8B", 36, 32),
        "21-31,21-18,20-15,22-4,21-11,20-16,21-17,19-13,21-10,21-8,18-5,20-14,19-14,24-13,17-4,19-28",
    ),
}


def read_heads(value: str, shape: LlamaShape) -> Mapping[int, tuple[int, ...]]:
    """Layer -> its heads in rising order, of `value`: "icr", a name of HEADS, or a file. Layers without a head are out.

    Raises UsageError for a name that does not exist, a file that is no list, and heads that a model of `shape` does not
    have.
    """
    if value == ALL:
        return {layer: tuple(range(shape.heads)) for layer in range(shape.layers)}
    if value in HEADS:
        published = HEADS[value]
        if (published.layers, published.heads) != (shape.layers, shape.heads):
            raise UsageError(
                f"--heads {value} is for {published.model}, of {published.layers} layers with {published.heads} heads, "
                f"and this model has {shape.layers} with {shape.heads}: give the list of this model, or --heads {ALL}"
            )
        text = published.chosen
    elif value:
        text = _read_file(value)
    else:
        raise UsageError(f"the name in --heads is empty: give a file, or one of {', '.join((ALL, *HEADS))}")
    heads: dict[int, set[int]] = {}
    for item in filter(None, re.split(r"[\s,]+", text)):
        match = _ITEM.fullmatch(item.strip("\"'"))
        if match is None:
            raise UsageError(
                f"{value} holds {item[:_QUOTED]!r}: write a head as layer-head, both from 0, with commas between them, "
                "as in 8-21,8-14"
            )
        layer, head = int(match[1]), int(match[2])
        if layer >= shape.layers or head >= shape.heads:
            raise UsageError(
                f"{value} names the head {item}, and this model has the layers 0 to {shape.layers - 1} with the heads "
                f"0 to {shape.heads - 1}: the list is for another model"
            )
        if head in heads.setdefault(layer, set()):
            raise UsageError(f"{value} names the head {item} twice: name each head once")
        heads[layer].add(head)
    if not heads:
        raise UsageError(f"{value} names no head: write heads as layer-head, as in 8-21,8-14, or give --heads {ALL}")
    return {layer: tuple(sorted(heads[layer])) for layer in sorted(heads)}


def written(heads: Mapping[int, tuple[int, ...]]) -> str:
    """The list as text, for the manifest."""
    return ",".join(f"{layer}-{head}" for layer, numbers in heads.items() for head in numbers)


def _read_file(value: str) -> str:
    path = Path(value)
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(_MOST_CHARACTERS + 1)
    except FileNotFoundError:
        raise UsageError(
            f"--heads {value} is neither a file nor a name: the names are {', '.join((ALL, *HEADS))}"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"{value} is no text: write heads as layer-head, as in 8-21,8-14") from None
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or err
        raise UsageError(f"cannot read the heads in {value}: {reason}") from None
    if len(text) > _MOST_CHARACTERS:
        raise UsageError(f"{value} has more than {_MOST_CHARACTERS:,} characters: it is no list of heads")
    return text
