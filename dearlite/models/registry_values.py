"""Names and values of models.toml: their checks, by the field and by the type that its record states."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

KINDS = ("pointwise", "listwise", "cascade", "lexical")
# key of `quality` -> the benchmark whose nDCG@10, between 0 and 1, the model's makers or a comparison publish
QUALITY = {"mteb": "MTEB(eng, v2) retrieval", "nanobeir": "NanoBEIR", "beir": "BEIR"}
# values of `architecture` whose file is made with torch, the encoders of dearlite.export
TRACED = frozenset(
    {
        "albert",
        "bert",
        "camembert",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "megatron-bert",
        "mobilebert",
        "modernbert",
        "mpnet",
        "mt5",
        "rembert",
        "roberta",
        "t5",
        "xlm-roberta",
    }
)


_LARGEST = 10**15  # of a number: sizes in MB and numbers of parameters stay exact in a float
# Characters that a file of some system cannot have, ends that Windows drops, and its devices, with any ending.
_NO_NAME = re.compile(
    r'[\x00-\x1f\x7f<>:"/\\|?*]|^[-. ]|^$|[. ]$|\.(dear|gguf)$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE
)


def is_name(name: str) -> bool:
    """True for a name that can be a file's on every system, and is neither an option nor a model file's own name."""
    return _NO_NAME.search(name) is None


def faults(values: Mapping[str, tuple[str, Any]]) -> list[str]:
    """The faults of the values of a table, {key: (type of its field, value)}; empty if all of them fit."""
    wrong = []
    for key, (kind, value) in values.items():
        fits, words = _CHECKS.get(key) or _TYPES[kind]
        if not fits(value):
            wrong.append(f"{key} {value!r}, which is {words}")
    return wrong


Check = tuple[Callable[[Any], bool], str]  # True for a value that fits; what is wrong with one that does not


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < _LARGEST


def _is_filled(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_file(value: Any) -> bool:
    """True for the path of a GGUF inside a repository."""
    if not isinstance(value, str) or re.search(r"[\x00-\x1f\\:]", value):
        return False
    path = PurePosixPath(value)
    return path.suffix == ".gguf" and str(path) == value and not path.is_absolute() and ".." not in path.parts


def _is_quality(value: Any) -> bool:
    return isinstance(value, dict) and all(
        name in QUALITY and type(figure) in (int, float) and 0 <= figure <= 1 for name, figure in value.items()
    )


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and name.strip() for name in value)


def _are_stages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(stage, str) for stage in value)


# type of a field, as its record states it -> its check
_TYPES: dict[str, Check] = {
    "str": (lambda value: isinstance(value, str), "not a string"),
    "str | None": (lambda value: isinstance(value, str), "not a string"),
    "int": (_is_count, "not a whole number above 0 and below 10^15"),
    "int | None": (_is_count, "not a whole number above 0 and below 10^15"),
    "float | None": (
        lambda value: type(value) in (int, float) and 0 < value < _LARGEST,
        "not a number above 0 and below 10^15",
    ),
    "float": (
        lambda value: type(value) in (int, float) and 0 <= value < _LARGEST,
        "not a number from 0 and below 10^15",
    ),
    "bool": (lambda value: isinstance(value, bool), "neither true nor false"),
}
# field -> its check, where the type says too little
_CHECKS: dict[str, Check] = {
    "kind": (lambda value: value in KINDS, f"not one of {', '.join(KINDS)}"),
    "repository": (_is_filled, "not the name of a repository"),
    "revision": (_is_filled, "not the name of a revision"),
    "file": (_is_file, "not the path of a .gguf file inside the repository"),
    "quality": (_is_quality, f"not a table of numbers from 0 to 1 under {', '.join(QUALITY)}"),
    "aliases": (_are_names, "not a list of names"),
    "stages": (_are_stages, "not a list of models"),
}
