"""The measured rates of this machine, kept in DEARLITE_HOME so that they are measured once."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from dearlite.errors import DearliteError
from dearlite.files.writing import write_text
from dearlite.models.registry import home
from dearlite.processor import processor_class

_FILE = "rates.json"


@dataclass(frozen=True, slots=True)
class OnnxRates:
    """Rates of int8 graphs in ONNX Runtime, of one thread while all threads work.

    `products`: width of a matrix -> additions and multiplications per second. Besides these, a token takes `value_s`
    seconds for each value of its hidden state in each layer (sums, activations, quantisation), and `pair_s` seconds for
    each of them and each token that it attends to.
    """

    products: Mapping[int, float]
    value_s: float
    pair_s: float

    def operations_per_s(self, width: int) -> float:
        """The rate of products at `width`, interpolated between the measured ones in log2 of the width."""
        widths = sorted(self.products)
        at = min(max(width, widths[0]), widths[-1])
        below = max(w for w in widths if w <= at)
        above = min(w for w in widths if w >= at)
        share = 0.0 if above == below else math.log2(at / below) / math.log2(above / below)
        return self.products[below] * (1 - share) + self.products[above] * share


@dataclass(frozen=True, slots=True)
class GgufRates:
    """Rates of llama.cpp with weights of one type, of all threads together in calls of 512 tokens.

    `operations_per_s` counts products with the matrices. Besides these, a token takes `value_s` seconds for each value
    of its hidden state in each layer: attention, sums, activations.
    """

    operations_per_s: float
    value_s: float


Rates = TypeVar("Rates", OnnxRates, GgufRates)


def kept(kind: type[Rates], name: str, library: str, threads: int, probe: Callable[[], Rates], *, again: bool) -> Rates:
    """The rates of this machine that DEARLITE_HOME has under `name`, or those of `probe`, which are then kept there.

    They are kept for each machine, class of processor, `library` (with its version) and number of threads. With `again`
    they are measured anew. A folder that cannot be written is no error.
    """
    file = home() / _FILE
    key = f"{platform.node()}, {processor_class()}, {library}, {threads} threads: {name}"
    records: dict[str, Any] = {}
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(file.read_text(encoding="utf-8"))
        records = content if isinstance(content, dict) else {}
    if not again and (rates := _read(kind, records.get(key))) is not None:
        return rates
    rates = probe()
    with suppress(OSError, DearliteError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps({**records, key: asdict(rates)}, indent=1) + "\n")
    return rates


def _read(kind: type[Rates], record: Any) -> Rates | None:
    """The rates of a record, None if it is damaged."""
    try:
        values: dict[str, Any] = {name: record[name] for name in kind.__dataclass_fields__}
        if "products" in values:
            values["products"] = {int(width): rate for width, rate in values["products"].items()}
        products: dict[int, Any] = values.get("products", {})
        divisors: list[Any] = [*products, *products.values(), values.get("operations_per_s", 1)]
        numbers: list[Any] = [*divisors, *(value for name, value in values.items() if name != "products")]
        finite = all(type(number) in (int, float) and 0 <= float(number) < math.inf for number in numbers)
        sound = finite and all(divisors)
        return kind(**values) if sound and values.get("products") != {} else None
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None
