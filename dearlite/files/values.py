"""Ids, scores and grades from text, JSON, NumPy and pandas, as plain Python values. Each error names its location."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

from dearlite.errors import InvalidInput
from dearlite.fields import is_missing

_GRADES = 2**31  # trec_eval keeps grades in a C long, which has 32 bits on Windows


def id_text(value: Any, kind: str, where: str) -> str:
    """An id as text; whole numbers (also 1.0, as pandas has them beside missing values) are written without a point.

    `kind` is "query" or "document". Raises InvalidInput for a missing id, and for one of another type.
    """
    if isinstance(value, str) and value.strip():
        return str(value)  # NumPy's strings are a class of their own
    if is_missing(value) or isinstance(value, str):
        raise InvalidInput(f"{where} has no {kind} id: give each {kind} an id")
    number = None if isinstance(value, (bool, bytes)) else _float(value)
    if number is None or not number.is_integer():
        raise InvalidInput(
            f"{where}: the {kind} id {value!r} is a {type(value).__name__}: it must be a string or a whole number"
        )
    if abs(number) >= 2**53 and not isinstance(value, Integral):
        raise InvalidInput(f"{where}: the {kind} id {value} is a float that has lost its last digits: give strings")
    return str(int(value))


def finite_number(value: Any, column: str, where: str) -> float:
    """A number from text or any type of number. Raises InvalidInput for NaN, infinity, a missing value and words."""
    number = None if is_missing(value) else _float(value)
    if number is None or math.isnan(number):
        remedy = ""
        if isinstance(value, str) and "," in value and _float(value.replace(",", ".", 1)) is not None:
            remedy = ": write it with a point instead of the comma"
        shown = repr(value) if isinstance(value, str) or value is None else str(value)
        raise InvalidInput(f"{where}: the {column} {shown} is not a number{remedy}")
    if math.isinf(number):
        raise InvalidInput(f"{where}: the {column} {value!r} is not finite: give a number")
    return number


def whole_grade(value: Any, where: str) -> int:
    """A grade as an int; 1.0 is 1. Raises InvalidInput for any other number with a fraction."""
    number = finite_number(value, "grade", where)
    if not number.is_integer():
        raise InvalidInput(f"{where}: the grade {value!r} is not a whole number: trec_eval takes none else")
    if abs(number) >= _GRADES:
        raise InvalidInput(f"{where}: the grade {value!r} is too large: grades are whole numbers below {_GRADES}")
    return int(number)


def whole_rank(value: Any, where: str) -> int:
    """A rank as an int; 1.0 is 1. Raises InvalidInput for anything else."""
    number = None if is_missing(value) else _float(value)
    if number is None or not number.is_integer():
        raise InvalidInput(f"{where}: the rank {value!r} is not a whole number")
    return int(number)


def _float(value: Any) -> float | None:
    """`value` as a float; None for what is not a number."""
    if isinstance(value, str) and "_" in value:  # 1_0 is ten for Python alone
        return None
    try:
        return None if isinstance(value, (bytes, list, tuple, dict)) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
