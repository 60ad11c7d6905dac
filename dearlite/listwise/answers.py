"""Strict parsing of a listwise model's text: an order "[2] > [1] > [3]", and the sentences about each passage."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

THINK_END = "</think>"
_CHAIN = re.compile(r"\[\s*\d+\s*\](?:\s*>\s*\[\s*\d+\s*\])+")
_SINGLE = re.compile(r"\[\s*\d+\s*\]")
_NUMBER = re.compile(r"\d+")
_LONGEST = 20  # digits of an identifier that count: a model that repeats one digit writes a number of thousands
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")


def read_order(text: str, names: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Positions in `names` in the order of the text's last chain `[i] > [j]`, and the problems of that chain.

    Text up to a closing </think> is reasoning and not searched. The first occurrence of a name counts. No missing name
    is added, and no number outside the chain is read. Example: "Step 1 … [4]. [2] > [1] > [2]" with the names 1, 2, 3
    -> (1, 0), and the problems "[2] twice" and "[3] missing".
    """
    answer = text.rpartition(THINK_END)[2]
    chains = list((_CHAIN if len(names) > 1 else _SINGLE).finditer(answer))
    if not chains:
        return (), ("no order [i] > [j] in the answer",)
    chain = chains[-1]
    written = [str(int(number[:_LONGEST])) for number in _NUMBER.findall(chain[0])]
    positions = {name: position for position, name in enumerate(names)}
    problems = [f"[{name}] twice" for name, times in Counter(written).items() if times > 1]
    problems += [f"[{name}] unknown" for name in dict.fromkeys(written) if name not in positions]
    problems += [f"[{name}] missing" for name in names if name not in written]
    if answer[chain.end() :].lstrip().startswith(">"):
        problems.append("the order breaks off, or holds something else than identifiers")
    return tuple(positions[name] for name in dict.fromkeys(written) if name in positions), tuple(problems)


def sentences_naming(text: str, names: Sequence[str]) -> list[str]:
    """For each name, the sentences and lines of `text` that contain it as [name], joined; empty if there are none."""
    sentences = [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]
    return [" ".join(sentence for sentence in sentences if f"[{name}]" in sentence) for name in names]
