"""The options of an export as one frozen record: the command line and Python share its defaults and its checks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from dearlite.checks import whole_number
from dearlite.errors import UsageError
from dearlite.files.targets import ending_of, find_target
from dearlite.templates.families import FAMILIES, STATED

Report = Callable[[str], None]  # receives one line of text, without a line end

DEFAULT_QUANT = {"pointwise": "int8", "listwise": "q4_k_m", "attention": "int8"}
DEFAULT_TARGET, DEFAULT_POOLING = "cpu", "last-token"
DEFAULT_WINDOW, DEFAULT_STRIDE = 20, 10
LEAST_TOKENS, LEAST_WINDOW = 8, 2
# kind -> the options that no other kind has
_OWN_OPTIONS = {
    "pointwise": ("target", "pooling", "min_tau"),
    "listwise": ("window", "stride", "min_agreement"),
    "attention": ("heads",),
}
_REGISTERED = ("prompt", "max_tokens", "pooling")  # options whose values models.toml has for a NAME
_SPELLINGS = {"target": "--for"}  # options that the command line spells otherwise than their field


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Options of `dearlite.export.export`. None: the model's own value, or the default of its kind.

    Raises UsageError for a value that no model accepts; `check` compares the options with a kind of model.
    """

    adapter: Path | None = None  # the folder of a PEFT LoRA
    output: Path | None = None
    quant: str | None = None  # an entry of QUANTISATIONS, or of GGUF_QUANTS for a listwise model
    target: str | None = None  # pointwise: an entry of decoders.quantisations.DEVICES
    prompt: str | None = None  # an entry of PAIR_FORMS, of templates.families.STATED, or of FORMS
    max_tokens: int | None = None
    window: int | None = None  # listwise: documents of a prompt
    stride: int | None = None  # listwise: documents that the window moves by
    pooling: str | None = None  # pointwise: an entry of decoders.quantisations.POOLINGS
    heads: str | None = None  # attention: "icr", an entry of source.heads.HEADS, or a file
    card: bool = True  # compare the file with fp32, and keep the comparison in it
    min_tau: float | None = None  # pointwise: the least Kendall's tau against fp32
    min_agreement: float | None = None  # listwise: the least share of positions with fp32's likeliest token
    force: bool = False  # replace an existing file, and keep one that is too inexact
    accept_licence: bool = False  # of a named model: its licence may forbid commercial use

    def __post_init__(self) -> None:
        if self.prompt in FAMILIES and self.prompt not in STATED:
            raise UsageError(
                f"--prompt {self.prompt} is a way to run any causal GGUF, not a part of a file: export one without it "
                f"(-o NAME.gguf), then rerank -m NAME.gguf --prompt {self.prompt}"
            )
        for name, least in (("max_tokens", LEAST_TOKENS), ("window", LEAST_WINDOW), ("stride", 1)):
            if getattr(self, name) is not None:
                whole_number(spelling(name), getattr(self, name), least)
        for name, least in (("min_tau", -1), ("min_agreement", 0)):
            value = getattr(self, name)
            if value is None:
                continue
            if type(value) not in (int, float) or not least <= value <= 1:
                raise UsageError(f"{spelling(name)} is {value!r}: it must be a number from {least} to 1")
            if not self.card:
                raise UsageError(f"{spelling(name)} is compared with the card, which --no-card leaves out: give one")

    @property
    def names_gguf(self) -> bool:
        """True if the quantisation or the output file is that of a GGUF."""
        from dearlite.export.gguf.quants import GGUF_QUANTS

        return self.quant in GGUF_QUANTS or (self.output is not None and self.output.suffix == ".gguf")

    def check(self, model: str, kind: str, *, named: bool = False) -> None:
        """Raises UsageError for options that do not apply to `model`, of `kind`; `named`: it is one of models.toml."""
        unused = [
            spelling(name)
            for other, names in _OWN_OPTIONS.items()
            for name in names
            if other != kind and getattr(self, name) is not None
        ]
        if unused:
            what = "an attention reranker" if kind == "attention" else f"a {kind} model"
            raise UsageError(f"{', '.join(unused)} does not apply to {what}: leave it out")
        if named and (stated := [spelling(name) for name in _REGISTERED if getattr(self, name) is not None]):
            raise UsageError(
                f"{', '.join(stated)} does not apply to {model}, whose own value is in models.toml: leave it out, or "
                "export the folder of the model"
            )
        if kind == "listwise":
            self._check_listwise(model)
        elif kind == "attention":
            self._check_attention(model)
        else:
            self._check_pointwise(model)

    def _check_pointwise(self, model: str) -> None:
        from dearlite.export.decoders.quantisations import DEVICES, POOLINGS, QUANTISATIONS
        from dearlite.export.gguf.quants import GGUF_QUANTS
        from dearlite.pointwise.prompts import PAIR_FORMS

        types = GGUF_QUANTS if self.names_gguf else QUANTISATIONS
        _check_choice("quant", self.quant, types, f"{model}, a pointwise model")
        if self.names_gguf and self.output is not None and find_target(self.output).is_file:
            ending_of(self.output, ("gguf",), needed=True)
        if self.names_gguf and self.target is not None:
            raise UsageError("--for does not apply to a GGUF, which llama.cpp runs on every device: leave it out")
        _check_choice("prompt", self.prompt, (*PAIR_FORMS, *STATED), f"{model}, a pointwise model")
        _check_choice("target", self.target, DEVICES, model)
        _check_choice("pooling", self.pooling, POOLINGS, model)

    def _check_attention(self, model: str) -> None:
        from dearlite.export.decoders.quantisations import QUANTISATIONS

        if self.names_gguf:
            raise UsageError("--heads makes a .dear file, since llama.cpp gives no attention: -o NAME.dear")
        if self.prompt is not None:
            raise UsageError(
                f"--prompt does not apply to --heads, whose words fit every model: leave out {self.prompt}"
            )
        _check_choice("quant", self.quant, QUANTISATIONS, f"{model}, an attention reranker")

    def _check_listwise(self, model: str) -> None:
        from dearlite.export.gguf.quants import GGUF_QUANTS
        from dearlite.listwise.forms import FORMS

        _check_choice("quant", self.quant, GGUF_QUANTS, f"{model}, a listwise model")
        if self.output is not None and self.output.suffix != ".gguf" and find_target(self.output).is_file:
            raise UsageError(
                f"{self.output} does not end in .gguf, the format of a listwise model: -o {self.output.stem}.gguf"
            )
        _check_choice("prompt", self.prompt, FORMS, f"{model}, a listwise model")
        window, stride = self.window or DEFAULT_WINDOW, self.stride or DEFAULT_STRIDE
        if stride > window:
            raise UsageError(
                f"--stride {stride} skips the documents between two windows: give at most --window, {window}"
            )


def spelling(name: str) -> str:
    """The option of the command line for the field `name`: "max_tokens" -> "--max-tokens"."""
    return _SPELLINGS.get(name, "--" + name.replace("_", "-"))


def _check_choice(name: str, value: str | None, choices: Collection[str], model: str) -> None:
    if value is not None and value not in choices:
        raise UsageError(
            f"{spelling(name)} {value} does not apply to {model}: it is one of {', '.join(map(str, choices))}"
        )
