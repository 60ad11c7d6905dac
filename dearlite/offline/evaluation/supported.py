"""The measures that can be computed here: ranges of parameters, and what computes each of them.

trec_eval ends the process for values out of range, so they are refused before it is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from dearlite.errors import MissingExtra, UsageError, need
from dearlite.installing import pip

LARGEST_CUTOFF = 2**31 - 1  # trec_eval compares cutoffs as C ints
LARGEST_GRADE = 1_000_000  # trec_eval counts documents in an array with one cell per grade
LARGEST_GAIN = 10_000  # nDCG without a cutoff compares all pairs of grades

Range = tuple[Callable[[Any], bool], str]  # the test of a value, and the words that say what it must be


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_share(value: object) -> bool:
    return isinstance(value, float) and 0.0 <= value <= 1.0


_RANGES: dict[str, Range] = {
    "cutoff": (lambda value: _is_whole(value) and 1 <= value <= LARGEST_CUTOFF, "a whole number from 1"),
    "rel": (lambda value: _is_whole(value) and 1 <= value <= LARGEST_GRADE, "a whole number from 1"),
    "judged_only": (lambda value: isinstance(value, bool), "True or False"),
    "relative": (lambda value: isinstance(value, bool), "True or False"),
    "normalize": (lambda value: isinstance(value, bool), "True or False"),
    "dcg": (lambda value: value in ("log2", "exp-log2"), "'log2' or 'exp-log2'"),
    # trec_eval's name of the measure has two decimals: 0.125 would be measured at 0.12
    "recall": (
        lambda value: _is_share(value) and value == round(value, 2),
        "a share from 0 to 1 with at most two decimals",
    ),
    # pytrec_eval reads the number from the name, where 1e-07 would be 1
    "beta": (
        lambda value: isinstance(value, float) and re.fullmatch(r"\d+\.\d+", repr(value)) is not None,
        "a number from 0 without an exponent",
    ),
    "p": (_is_share, "a share from 0 to 1"),
    "T": (lambda value: isinstance(value, float) and 0.0 < value < float("inf"), "a number above 0"),
    "min_rel": (lambda value: _is_whole(value) and abs(value) <= LARGEST_GRADE, "a whole number"),
    "max_rel": (lambda value: _is_whole(value) and abs(value) <= LARGEST_GRADE, "a whole number"),
    "gains": (
        lambda value: (
            isinstance(value, dict)
            and all(map(_is_whole, (*value, *value.values())))
            and all(0 <= gain <= LARGEST_GAIN for gain in value.values())
        ),
        "grades and their gains, both whole numbers and gains from 0, such as {1: 3, 2: 7}",
    ),
}
_EXAMPLES = {"cutoff": 10, "recall": 0.1, "rel": 1, "max_rel": 3}
_SUBTOPICS = ("ERR_IA", "nERR_IA", "alpha_DCG", "alpha_nDCG", "NRBP", "nNRBP", "AP_IA", "P_IA", "StRecall")
# Measures of ir-measures that are not computed here, each with the reason and a remedy.
_REFUSED = dict.fromkeys(
    _SUBTOPICS,
    "it needs judgements of subtopics, which dearlite does not read: measure the run with ir-measures itself",
) | {
    "Accuracy": "ir-measures has no value of it for many queries: Success@1 is the share of queries with a relevant "
    "document first"
}


def check_measure(measure: Any) -> None:
    """Raises UsageError for a measure that cannot be computed with any data, MissingExtra for a missing package."""
    name, spec = measure.NAME, measure.SUPPORTED_PARAMS
    if name in _REFUSED:
        raise UsageError(f"{measure} is not measured: {_REFUSED[name]}")
    for key, value in measure.params.items():
        is_valid, words = _RANGES.get(key, (lambda _: True, ""))
        if not is_valid(value):
            raise UsageError(f"{name}: its {key} is {value!r}: it must be {words}, as in {example(measure, key)}")
    missing = [key for key, info in spec.items() if info.required and key not in measure.params]
    missing += ["cutoff"] if _computed_by_gdeval(measure) and "cutoff" not in measure.params else []
    missing += ["rel"] if name == "RBP" and "rel" not in measure.params else []
    if missing:
        raise UsageError(f"{measure} needs a {missing[0]}: write {example(measure, missing[0])}")
    if "max_rel" in spec and measure["min_rel"] >= measure["max_rel"]:
        raise UsageError(f"{measure}: its max_rel must be above its min_rel, {measure['min_rel']}")
    _check_provider(measure)


def example(measure: Any, key: str) -> str:
    """`measure` with a valid value of `key`, and of every parameter that it needs."""
    needed = [name for name, info in measure.SUPPORTED_PARAMS.items() if info.required or name == key]
    params = {name: value for name, value in measure.params.items() if name in _RANGES and _RANGES[name][0](value)}
    examples = {"gains": {1: 3, 2: 7}, "judged_only": True, "relative": True, "normalize": False, "dcg": "log2"}
    examples |= {"beta": 0.5, "p": 0.8, "T": 1.0, "min_rel": 0} | _EXAMPLES
    return str(type(measure)(**params | {name: examples[name] for name in needed if name not in params}))


def largest_grade(measure: Any) -> int:
    """The largest grade that can be measured in reasonable time."""
    if _computed_by_gdeval(measure):
        return 4  # gdeval.pl, $MAX_JUDGMENT
    return LARGEST_GAIN if measure.NAME == "nDCG" and "cutoff" not in measure.params else LARGEST_GRADE


def _computed_by_gdeval(measure: Any) -> bool:
    return bool(measure.NAME == "ERR" or (measure.NAME == "nDCG" and measure["dcg"] == "exp-log2"))


def _check_provider(measure: Any) -> None:
    """Raises an error unless a provider of ir-measures that is installed computes `measure`."""
    ir_measures = need("ir_measures", extra="eval")
    plain = measure(rel=1) if "rel" in measure.params else measure  # `measures` turns any `rel` into 1
    providers = [provider for provider in ir_measures.DefaultPipeline.providers if provider.supports(plain)]
    if any(provider.is_available() for provider in providers):
        return
    if not providers:
        names = " and ".join(measure.params) or "no parameter"
        raise UsageError(f"{measure} is not measured: no provider of ir-measures takes this {names} together")
    provider = providers[0]
    if provider.NAME == "pytrec_eval":
        need("pytrec_eval", extra="eval")
    remedy = provider.install_instructions() or f"install {provider.NAME}"
    if (package := remedy.removeprefix("pip install ")) != remedy:
        remedy = pip(f'install "{package}"')
    raise MissingExtra(f"{measure} is computed by {provider.NAME}, which is not installed: {remedy}")
