"""Options of the model: files, device, handling of long documents, and those of cascades and of listwise models.

`model_options` adds them to a command, which gets them checked, as one ModelOptions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import wraps
from typing import Any

import click

from dearlite.checks import whole_number
from dearlite.cli.options.listwise import LISTWISE_OPTIONS, listwise_of
from dearlite.cli.options.spoken import options_named
from dearlite.cli.options.types import Command, Option, with_options
from dearlite.errors import UsageError
from dearlite.loading import GOES_WITH
from dearlite.machine import DEVICES
from dearlite.models.chain import Chain, resolve
from dearlite.models.chain_names import DEFAULT_HEAD
from dearlite.models.registry import DEFAULT_MODEL
from dearlite.options import LONG_MODES, Device, Listwise, ListwiseMode, Long, LongMode, SortName, check_instruction
from dearlite.templates.families import FAMILIES

_LONG_MODES = "; ".join(f"{name} ({description})" for name, description in LONG_MODES.items())
_MODEL: tuple[Option, ...] = (
    click.option(
        "-m",
        "--model",
        "names",
        multiple=True,
        default=(DEFAULT_MODEL,),
        show_default=True,
        metavar="NAME|FILE[:DEPTH]",
        help="Name or file of the model. Repeat it to add a stage of a cascade: the stage reranks the best DEPTH "
        f"documents of the stage before, {DEFAULT_HEAD} if no DEPTH is given.",
    ),
    click.option(
        "--first",
        metavar="NAME[:DEPTH]",
        help="First stage by words, before the models of -m: bm25:200 passes the best 200 documents on to them.",
    ),
    click.option(
        "--language",
        metavar="NAME",
        help="Language of the words that a first stage compares, german or de for one; none for words as they are. "
        "[default: english]",
    ),
    click.option(
        "--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Device that runs the model."
    ),
    click.option("--threads", type=int, metavar="N", help="Number of CPU threads. [default: one per physical core]"),
    click.option(
        "--instruction",
        metavar="TEXT",
        help="The task in words, for a model whose prompt has a place for it. [default: the model file's]",
    ),
    click.option(
        "--long",
        "long_mode",
        type=click.Choice(list(LONG_MODES)),
        default="truncate",
        show_default=True,
        help=f"Treatment of documents that are longer than the model's input: {_LONG_MODES}.",
    ),
    click.option(
        "--chunk-tokens",
        type=int,
        metavar="N",
        help="With --long chunk or cascade: length of a passage in tokens. "
        "[default: as many as the model reads, with --long cascade at most 180]",
    ),
    click.option(
        "--keep",
        type=int,
        metavar="N",
        help="With --long cascade: number of passages per document that a stage passes on to the next. "
        f"[default: {Long().keep}]",
    ),
    click.option(
        "--adaptive",
        is_flag=True,
        help="Cascade: pass on only documents within the calibrated margin of the cut-off.",
    ),
)
_ONE_CALL: tuple[Option, ...] = (
    click.option("--low-memory", is_flag=True, help="Cascade: hold only one model in memory at a time."),
    click.option(
        "--best-effort", is_flag=True, help="Cascade: skip a later stage that cannot run, and report it on stderr."
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """The options of `Reranker.load`. `gpu_layers` is None for all layers, if there is a GPU."""

    device: Device = "auto"
    threads: int | None = None
    instruction: str | None = None
    prompt: str | None = None  # the family as which a GGUF is run
    language: str | None = None
    gpu_layers: int | None = None
    adapter: str | None = None
    low_memory: bool = False
    best_effort: bool = False
    adaptive: bool = False

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `Reranker.load`."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """The resolved model or cascade, and the options to load and to call it with.

    Raises UsageError for options that do not apply to the model; no model is loaded.
    """

    chain: Chain
    loading: Loading
    listwise: Listwise | None = None
    long: Long | None = None

    def __post_init__(self) -> None:
        if self.loading.threads is not None:
            whole_number("--threads", self.loading.threads)
        if check_instruction(self.loading.instruction) is not None:
            self.chain.check_instruction()
        self._check_cascade()
        self._check_listwise()
        self._check_long()
        self.chain.check(long=self.long)

    @property
    def name(self) -> str:
        """The name of the model, of a cascade the names of its stages. Example: "minilm-l12>dear-8b"."""
        return ">".join(stage.name for stage in self.chain.stages)

    def _check_cascade(self) -> None:
        flags = {
            "--adaptive": self.loading.adaptive,
            "--low-memory": self.loading.low_memory,
            "--best-effort": self.loading.best_effort,
        }
        names = [name for name, value in flags.items() if value]
        if names and len(self.chain.stages) < 2:
            verb = "is" if len(names) == 1 else "are"
            raise UsageError(f"{' and '.join(names)} {verb} for a cascade, and one model was named: -m NAME -m NAME:30")

    def _check_listwise(self) -> None:
        if any(stage.runner is None for stage in self.chain.stages):  # a stage that cannot run may take them
            return
        takes = {name for stage in self.chain.stages if stage.runner is not None for name in stage.runner.options}
        values = {name: getattr(self.loading, name) for name in ("gpu_layers", "adapter", "prompt", "language")}
        if names := [name for name, value in values.items() if value is not None and name not in takes]:
            reason = "no stage is one" if self.chain.cascade else f"{self.name} is {self.chain.stages[0].kind}"
            options = " and ".join("--" + name.replace("_", "-") for name in names)
            verb = "goes" if len(names) == 1 else "go"
            them = "it" if len(names) == 1 else "them"
            raise UsageError(f"{options} {verb} with {GOES_WITH[names[-1]]}, and {reason}: leave {them} out")
        if any(stage.kind == "listwise" for stage in self.chain.stages):
            return
        attention = any(stage.kind == "attention" for stage in self.chain.stages)
        if self.listwise is None or (attention and not self.listwise.beside_passes):
            return
        values = self.listwise.beside_passes or {"passes": self.listwise.passes}
        shown = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in values.items())
        needs = f"modes, windows and reasons ({shown})"
        if self.chain.cascade:
            raise UsageError(f"{self.name} has no listwise stage: {needs} need one")
        raise UsageError(f"{self.name} is {self._kind}: {needs} need a listwise model")

    def _check_long(self) -> None:
        if self.long is None:
            return
        if self.long.mode == "cascade" and sum(stage.kind != "lexical" for stage in self.chain.stages) < 2:
            raise UsageError(
                "--long cascade needs a stage that picks passages and one that reads them: -m NAME -m NAME:20"
            )
        if self.chain.stages[0].kind in ("listwise", "attention"):
            if self.chain.cascade:
                raise UsageError(
                    f"{self.name} begins with {self._kind}, which reads no passages: begin with a pointwise model"
                )
            raise UsageError(
                f"{self.name} is {self._kind} and reads a document's beginning: put a pointwise stage before it"
            )

    @property
    def _kind(self) -> str:
        """The kind of the first stage, with its article."""
        kind = self.chain.stages[0].kind
        return "an attention reranker" if kind == "attention" else f"a {kind} model"


def model_options(*, one_call: bool = False) -> Callable[[Command], Command]:
    """A decorator that adds the options to a command and calls it with them as one argument, `model`: ModelOptions.

    With `one_call` the options that only a single call takes are added too: --low-memory and --best-effort.
    """
    options = (*_MODEL, *(_ONE_CALL if one_call else ()), *LISTWISE_OPTIONS)

    def decorate(command: Command) -> Command:
        @wraps(command)
        def callback(
            *,
            names: tuple[str, ...],
            first: str | None,
            language: str | None,
            device: Device,
            threads: int | None,
            instruction: str | None,
            long_mode: LongMode,
            chunk_tokens: int | None,
            keep: int | None,
            adaptive: bool,
            mode: ListwiseMode | None,
            explain: bool,
            window: int | None,
            stride: int | None,
            passage_tokens: int | None,
            reasoning_tokens: int | None,
            group_size: int | None,
            sort: SortName | None,
            sort_k: int | None,
            shuffle_seed: int | None,
            passes: int | None,
            prompt: str | None,
            gpu_layers: int | None,
            adapter: str | None,
            low_memory: bool = False,
            best_effort: bool = False,
            **others: Any,
        ) -> None:
            family = prompt if prompt in FAMILIES else None  # else a form of listwise prompts
            listwise = listwise_of(
                mode=mode,
                explain=explain,
                window=window,
                stride=stride,
                passage_tokens=passage_tokens,
                reasoning_tokens=reasoning_tokens,
                group_size=group_size,
                sort=sort,
                sort_k=sort_k,
                shuffle_seed=shuffle_seed,
                passes=passes,
                prompt=None if family else prompt,
            )
            model = ModelOptions(
                chain=_chain(names, first, best_effort, family),
                loading=Loading(
                    device=device,
                    threads=threads,
                    instruction=instruction,
                    prompt=family,
                    language=language,
                    gpu_layers=gpu_layers,
                    adapter=adapter,
                    low_memory=low_memory,
                    best_effort=best_effort,
                    adaptive=adaptive,
                ),
                listwise=listwise,
                long=long_of(long_mode, chunk_tokens, keep),
            )
            command(model=model, **others)

        return with_options(callback, options)

    return decorate


def _chain(names: Sequence[str], first: str | None, best_effort: bool, family: str | None) -> Chain:
    """The stages of -m, after the lexical stage of --first. Raises UsageError if that is none."""
    chain = resolve(names if first is None else (first, *names), best_effort=best_effort, prompt=family)
    if first is not None and chain.stages[0].kind != "lexical":
        raise UsageError(f"--first {first}: it ranks by no words: name bm25:200, or give it as the first -m")
    return chain


def long_of(mode: LongMode, chunk_tokens: int | None, keep: int | None) -> Long | None:
    """The treatment of long documents, None for truncation. Raises UsageError for options that `mode` does not use."""
    if keep is not None and mode != "cascade":
        raise UsageError("--keep goes with --long cascade: the other modes pass no passages on")
    if mode == "truncate":
        if chunk_tokens is not None:
            raise UsageError("--chunk-tokens goes with --long chunk or cascade: name one")
        return None
    with options_named({"passage_tokens": "--chunk-tokens", "keep": "--keep"}):
        return Long(mode, chunk_tokens, Long().keep if keep is None else keep).checked()
