"""Names of measures, as ir-measures, trec_eval, ranx, BEIR and MTEB spell them -> the measures of ir-measures.

ALIASES has one entry for each spelling. Values of parameters are checked in `supported`, not here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

from dearlite.errors import UsageError, need

# Other spellings in lower case -> the name in ir-measures, perhaps with parameters.
ALIASES: dict[str, str] = {
    # trec_eval
    "ndcg": "nDCG",
    "ndcg_cut": "nDCG",
    "map": "AP",
    "map_cut": "AP",
    "p": "P",
    "recall": "R",
    "recip_rank": "RR",
    "recip_rank_cut": "RR",
    "success": "Success",
    "bpref": "Bpref",
    "infap": "infAP",
    "rprec": "Rprec",
    "set_p": "SetP",
    "set_recall": "SetR",
    "set_f": "SetF",
    "set_map": "SetAP",
    "set_relative_p": "SetRelP",
    "iprec_at_recall": "IPrec",
    "num_q": "NumQ",
    "num_ret": "NumRet",
    "num_rel": "NumRel",
    "num_rel_ret": "NumRelRet",
    # ranx, BEIR, MTEB and others
    "precision": "P",
    "prec": "P",
    "mrr": "RR",
    "reciprocal_rank": "RR",
    "average_precision": "AP",
    "r-precision": "Rprec",
    "r_precision": "Rprec",
    "f1": "SetF",
    "hits": "NumRelRet",
    "hit": "Success",
    "hit_rate": "Success",
    "hitrate": "Success",
    "hr": "Success",
    "ndcg_burges": "nDCG(dcg='exp-log2')",
}
# Names that other tools use for measures that ir-measures lacks -> the nearest measure.
ELSEWHERE: dict[str, str] = {
    "gm_map": "AP",
    "gm_bpref": "Bpref",
    "11pt_avg": "IPrec@0.1",
    "ndcg_rel": "nDCG",
    "rndcg": "nDCG",
    "utility": "SetP",
    "relative_p": "P@10",
    "dcg": "nDCG",
    "r_cap": "R@10",
    "hole": "Judged@10",
    "top_k_accuracy": "Success@1",
    "accuracy": "Success@1",
}
_SEPARATOR = re.compile(r"[\s,]+(?![^()]*\))")  # a comma within RR(rel=2, judged_only=True)@10 separates nothing
_PARTS = re.compile(r"(?P<name>[^\W\d][\w-]*?)\s*(?:\((?P<params>.*)\))?\s*(?:@(?P<at>[^@]+))?", re.DOTALL)
_CUT = re.compile(r"(?P<name>[^\W\d][\w-]*?)(?:_at_|[._])(?P<at>\d+(?:\.\d+)?)(?P<params>)")


def parse_measures(names: object) -> list[Any]:
    """The measures of ir-measures that `names` name: a string, a measure, or several of either; each comes once.

    Raises UsageError for a name that no measure has, with the nearest names.
    """
    ir_measures = need("ir_measures", extra="eval")
    items = [names] if isinstance(names, (str, ir_measures.Measure)) else names
    if not isinstance(items, Iterable):
        raise UsageError(f"measures is {names!r}: give names such as 'nDCG@10 AP', or a list of them")
    measures: list[Any] = []
    for item in items:
        if isinstance(item, ir_measures.Measure):
            measures.append(_with_params(item, {}))
        elif isinstance(item, str):
            measures += [_parse(name, ir_measures) for name in _split(item)]
        else:
            raise UsageError(f"the measure {item!r} is a {type(item).__name__}: give a name, such as 'nDCG@10'")
    if not measures:
        raise UsageError("no measure is named: nDCG@10 is the usual one")
    return list(dict.fromkeys(measures))


def _split(text: str) -> Iterator[str]:
    """The names in `text`, which spaces or commas separate; trec_eval's `ndcg_cut.5,10` gives two."""
    family = ""
    for name in filter(None, _SEPARATOR.split(text.strip())):
        if family and re.fullmatch(r"\d+(\.\d+)?", name):
            yield f"{family}{name}"
            continue
        matched = _CUT.fullmatch(name)
        family = f"{matched['name']}." if matched and f"{matched['name']}." in name else ""
        yield name


def _parse(text: str, ir_measures: Any) -> Any:
    """The measure that one name stands for."""
    known = ir_measures.measures.registry
    for pattern in (_PARTS, _CUT):
        matched = pattern.fullmatch(text)
        if matched is None or (name := _known_name(matched["name"], known)) is None:
            continue
        canonical = _PARTS.fullmatch(name)
        assert canonical is not None
        measure, params = known[canonical["name"]], _params(canonical["params"], text)
        params |= _params(matched["params"], text)
        if matched["at"] is not None:
            params[measure.AT_PARAM] = _value(matched["at"], text)
        elif matched["name"].lower().endswith("_cut"):  # trec_eval measures it at nine cutoffs
            raise UsageError(f"{text} needs a cutoff: write {text}_10, or {measure}@10")
        return _with_params(measure, params)
    raise UsageError(f"no measure {text!r} ({_nearest(text, known)}): use names of ir-measures, such as nDCG@10")


def _known_name(name: str, known: Iterable[str]) -> str | None:
    """The name in ir-measures of a measure that some tool calls `name`; None if there is none.

    ir-measures' own spelling comes first: `R` is recall, in any case.
    """
    if name in known:
        return name
    lower = name.lower()
    return ALIASES.get(lower) or next((own for own in known if own.lower() == lower), None)


def _params(text: str | None, name: str) -> dict[str, Any]:
    """The parameters of `rel=2, judged_only=True`. Raises UsageError for anything but literals with names."""
    if not text:
        return {}
    try:
        call = ast.parse(f"_({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("a parameter without a name")
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (ValueError, SyntaxError, AssertionError, MemoryError, RecursionError):
        raise UsageError(
            f"no measure {name!r}: its parameters are not of the form NAME(rel=2, judged_only=True)@10"
        ) from None


def _value(text: str, name: str) -> Any:
    """The number after @."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise UsageError(f"no measure {name!r}: {text.strip()!r} after @ is not a number") from None


def _with_params(measure: Any, params: dict[str, Any]) -> Any:
    """`measure` with `params`; IPrec@1 is IPrec@1.0. Raises UsageError for a parameter that it does not have."""
    spec = measure.SUPPORTED_PARAMS
    if unknown := [name for name in (*measure.params, *params) if name not in spec]:
        takes = f"it takes {', '.join(spec)}" if spec else "it takes none"
        raise UsageError(f"{measure.NAME} has no parameter {unknown[0]!r}: {takes}")
    return measure(
        **{
            name: float(value) if spec[name].dtype is float and type(value) is int else value
            for name, value in params.items()
        }
    )


def _nearest(text: str, known: Iterable[str]) -> str:
    """The known names nearest to `text`, in ir-measures' spelling and with the cutoff of `text`."""
    matched = _PARTS.fullmatch(text) or _CUT.fullmatch(text)
    name, at = (matched["name"], matched["at"]) if matched else (re.split(r"[@(]", text)[0], None)
    cut = _CUT.fullmatch(name)
    name, at = (cut["name"], cut["at"]) if cut else (name, at)
    if (lower := name.lower()) in ELSEWHERE:
        return f"ir-measures has none of that name; nearest: {ELSEWHERE[lower]}"
    spellings = {own.lower(): own for own in known if own.isascii()} | ALIASES
    near = get_close_matches(lower, spellings, n=3, cutoff=0.6)
    names = dict.fromkeys(f"{spellings[spelling]}@{at}" if at else spellings[spelling] for spelling in near)
    return f"nearest: {', '.join(names) or 'none'}"
