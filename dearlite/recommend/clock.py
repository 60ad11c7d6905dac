"""Predicted seconds of a model on this machine; rates are measured, or read from DEARLITE_HOME, when needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dearlite.errors import LibraryNotLoaded, MissingExtra
from dearlite.listwise.forms import FORMS
from dearlite.machine import check_threads, versions_of
from dearlite.models.entries import ModelEntry
from dearlite.recommend.prediction import Workload, gguf_type, seconds_in_llama, seconds_in_onnx
from dearlite.recommend.rates import GgufRates, OnnxRates, kept

ONNX = "onnx"  # the rates of `.dear` files; any other name is a type of GGUF
_PACKAGES = {True: ("onnxruntime", "onnxruntime-gpu"), False: ("llama-cpp-python", "llama-cpp-py-sync")}


class Clock:
    """The rates of this machine with `threads` threads, measured again if `again` is set.

    None: as many as the engines take, which may be fewer for llama.cpp. `report` is called with a line before a
    measurement.
    """

    def __init__(
        self, threads: int | None, *, again: bool = False, report: Callable[[str], None] | None = None
    ) -> None:
        self.threads, self._again = check_threads(threads), again
        self._llama_threads = check_threads(threads, in_step=True)
        self._report = report or (lambda line: None)
        self._rates: dict[str, OnnxRates | GgufRates | str] = {}

    def seconds(self, entry: ModelEntry, work: Workload) -> float | str:
        """Seconds of one call of the loaded model, or the reason why they cannot be predicted."""
        if entry.kind == "listwise" and entry.prompt in FORMS and FORMS[entry.prompt].reasoning == "think":
            return "its thinking has no predictable length"
        rates = self.rates(gguf_type(entry) if entry.kind == "listwise" or entry.file else ONNX)
        if isinstance(rates, str):
            return rates
        if isinstance(rates, OnnxRates):
            seconds = seconds_in_onnx(entry, work, rates, self.threads)
        else:
            seconds = seconds_in_llama(entry, work, rates)
        return "its shape is not stated" if seconds is None else seconds

    def rates(self, name: str) -> OnnxRates | GgufRates | str:
        """The rates under `name`: ONNX, or a type of GGUF. A text if the library is not there."""
        if name not in self._rates:
            library = "ONNX Runtime" if name == ONNX else "llama.cpp"
            try:
                self._rates[name] = self._known(name)
            except MissingExtra:
                self._rates[name] = f"{library} is not installed"
            except LibraryNotLoaded:
                self._rates[name] = f"{library} does not load"
        return self._rates[name]

    def _known(self, name: str) -> OnnxRates | GgufRates:
        library = " ".join(f"{package} {number}" for package, number in versions_of(*_PACKAGES[name == ONNX]).items())
        if name == ONNX:
            return kept(OnnxRates, name, library, self.threads, self._measure_onnx, again=self._again)
        return kept(GgufRates, name, library, self._llama_threads, partial(self._measure_gguf, name), again=self._again)

    def _measure_onnx(self) -> OnnxRates:
        from dearlite.pointwise.onnxruntime import onnxruntime
        from dearlite.recommend.onnx_probe import probe_onnx

        onnxruntime()
        self._report("measuring ONNX Runtime on this machine, once")
        return probe_onnx(self.threads)

    def _measure_gguf(self, name: str) -> GgufRates:
        from dearlite.llama.bindings import library
        from dearlite.recommend.gguf_probe import probe_gguf

        library()
        self._report(f"measuring llama.cpp with {name} on this machine, once")
        return probe_gguf(name, self._llama_threads)
