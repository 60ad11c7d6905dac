"""Names of models and chains of them, resolved once to files and kinds before a model is loaded.

`minilm-l12:100`, then `dear-8b-listwise:30` is a chain: the second model reranks the best 30 documents of the first.
`resolve` reads models.toml and the first bytes of each file. Its Chain goes to the checks and to loading, so that no
name is looked up twice and no model file is opened twice.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dearlite.errors import DearliteError, MissingExtra, ModelFileError, UsageError
from dearlite.installing import pip_install
from dearlite.models.chain_names import Stage, StageLike, parse_chain
from dearlite.models.formats import LEXICAL, Runner, runner_of
from dearlite.models.gguf import GgufFile
from dearlite.models.gguf_kinds import how_to_instruct, scoring_kind, states_relevance, takes_instruction
from dearlite.models.registry import (
    DEFAULT_MODEL,
    check_all_here,
    find_cascade,
    find_model,
    load_lexical,
    load_registry,
)
from dearlite.templates.families import FAMILIES

if TYPE_CHECKING:
    from dearlite.models.bundle import Bundle
    from dearlite.models.entries import LexicalEntry
    from dearlite.options import Long


@dataclass(frozen=True)
class ResolvedStage:
    """One model of a chain: its file and the class that runs it, or the error that keeps it from running.

    `depth` is the number of documents that the stage gets, None for all. `failure` is set only for a later stage of a
    chain that was resolved with `best_effort`; `path` and `runner` are then None.
    """

    model: str
    depth: int | None
    path: Path | None
    runner: Runner | None
    failure: DearliteError | None = None
    gguf: GgufFile | None = None  # the open file of a GGUF
    words: LexicalEntry | None = None  # the parameters of a lexical stage
    prompt: str | None = None  # the family that the caller names for a GGUF

    @property
    def name(self) -> str:
        """The model's name, or its file's name without the ending."""
        return self.model if self.model in load_registry() else Path(self.model).stem  # a name may hold a dot

    @property
    def kind(self) -> str:
        """The kind of model, "pointwise", "attention", "listwise" or "lexical"; empty for a stage that cannot run."""
        return "" if self.runner is None else self.runner.kind

    @cached_property
    def bundle(self) -> Bundle:
        """The open `.dear` file of a pointwise stage. Raises ModelFileError."""
        from dearlite.models.bundle import Bundle

        assert self.path is not None
        return Bundle(self.path)

    @property
    def opens(self) -> bool:
        """True if the stage's file is whole. A damaged one is reported when it is loaded."""
        try:
            return self.gguf is not None or self.bundle is not None
        except ModelFileError:
            return False

    @property
    def takes_instruction(self) -> bool:
        """True if the prompt of the stage's model has a place for an instruction."""
        if self.kind == "attention":
            return True
        if self.kind != "pointwise" or not self.opens:
            return False
        if self.gguf is not None:
            return takes_instruction(self.gguf, self.prompt)
        template = self.bundle.manifest.template
        return template is not None and template.takes_instruction

    @property
    def has_relevance(self) -> bool:
        """True if a pointwise stage turns its scores into probabilities."""
        if self.gguf is not None:
            return states_relevance(self.gguf, self.prompt)
        return bool(self.bundle.manifest.calibration or self.bundle.manifest.activation)

    @property
    def max_tokens(self) -> int | None:
        """The number of tokens that a pointwise stage reads; None if its file does not state it."""
        return self.bundle.manifest.max_tokens if self.gguf is None else self.gguf.metadata.get("dearlite.max_tokens")

    def take_source(self) -> Path | Bundle | GgufFile | LexicalEntry:
        """The path, or the file where a check has opened it. The stage keeps no reference to a bundle."""
        if self.words is not None:
            return self.words
        assert self.path is not None
        if self.gguf is not None:
            return self.gguf
        bundle: Bundle | None = self.__dict__.pop("bundle", None)
        return self.path if bundle is None else bundle


@dataclass(frozen=True, slots=True)
class Chain:
    """Resolved stages. `cascade` is True where they run as a cascade: several stages, or one with a depth."""

    stages: tuple[ResolvedStage, ...]
    cascade: bool

    def check(self, *, calibrated: bool = False, long: Long | None = None) -> None:
        """Raises UsageError for options that no stage of the chain can follow; no model is loaded.

        `calibrated`: a pointwise stage must turn its scores into probabilities. `long`: its passages must fit the first
        stage's window.
        """
        if not calibrated and (long is None or long.passage_tokens is None):
            return
        stages = [stage for stage in self.stages if stage.kind == "pointwise" and stage.opens]
        if calibrated and stages and not any(stage.has_relevance for stage in stages):
            names = " and ".join(stage.name for stage in stages)
            raise UsageError(f"{names} carries no calibration, which --min-relevance needs: dearlite models calibrate")
        if long is not None and long.passage_tokens is not None and stages:
            window = stages[0].max_tokens
            if window is not None and long.passage_tokens >= window:
                raise UsageError(
                    f"passages of {long.passage_tokens} tokens are longer than the {window} that {stages[0].name} "
                    "reads with a query: take fewer"
                )

    def check_instruction(self) -> None:
        """Raises UsageError unless the prompt of one stage has a place for an instruction; no model is loaded."""
        if any(stage.takes_instruction for stage in self.stages):
            return
        if any(stage.kind == "pointwise" and not stage.opens for stage in self.stages):
            return  # a damaged file is reported when it is loaded
        names = " and ".join(stage.name for stage in self.stages)
        verb = "take" if len(self.stages) > 1 else "takes"
        file = self.stages[0].gguf if len(self.stages) == 1 else None
        if file is not None and (reason := how_to_instruct(file, self.stages[0].prompt)):
            raise UsageError(f"{names} takes no instruction {reason}")
        raise UsageError(
            f"{names} {verb} no instruction: leave it out, or name a model whose prompt has a place for it"
        )


Model = str | Path | Sequence[StageLike] | Chain | None


def resolve(model: Model, *, best_effort: bool = False, prompt: str | None = None) -> Chain:
    """The files and kinds of a model or chain. None is the embedded default; a Chain is returned unchanged.

    `prompt` names the family that a GGUF without a score of its own is run as; without it models.toml does for a name.

    Raises UsageError for a missing file, a depth larger than the one before, or a pointwise stage after a listwise one,
    ModelFileError for a file of no known format, and MissingExtra for a package that a cascade's stage needs. With
    `best_effort` only the first stage must be able to run; the error of a later one becomes its `failure`.
    """
    if isinstance(model, Chain):
        return model
    if prompt is not None and prompt not in FAMILIES:
        raise UsageError(f"no prompt {prompt!r} of a pointwise GGUF: it is one of {', '.join(FAMILIES)}")
    names = [model or DEFAULT_MODEL] if model is None or isinstance(model, (str, Path)) else list(model)
    stages = parse_chain(names)
    cascade = len(stages) > 1 or stages[0].depth is not None or find_cascade(stages[0].model) is not None
    if not best_effort:
        check_all_here([stage.model for stage in stages])
    resolved: list[ResolvedStage] = []
    for stage in stages:
        try:
            link = _resolved(stage, prompt)
            if cascade and link.runner is not None and not any(map(importlib.util.find_spec, link.runner.packages)):
                package, extra = link.runner.packages[0], link.runner.extra
                raise MissingExtra(f"stage {stage.model} needs {package}: {pip_install(extra)}")
            resolved.append(link)
        except (UsageError, ModelFileError, MissingExtra) as err:
            if not (best_effort and resolved):
                raise
            resolved.append(ResolvedStage(stage.model, stage.depth, None, None, err))
    listwise = False
    for position, link in enumerate(resolved):
        if position and link.kind == "lexical":
            raise UsageError(f"stage {link.model} ranks by words, without the order before it: put it first")
        if listwise and link.kind in ("pointwise", "attention"):
            raise UsageError(
                f"stage {link.model} is {link.kind} and follows a listwise one, whose order its scores would undo: "
                "put the listwise stages last"
            )
        listwise |= link.kind == "listwise"
    return Chain(tuple(resolved), cascade)


def _resolved(stage: Stage, prompt: str | None) -> ResolvedStage:
    """The file and kind of one stage. Raises UsageError and ModelFileError."""
    if (words := load_lexical().get(stage.model)) is not None:
        return ResolvedStage(stage.model, stage.depth, None, LEXICAL, words=words)
    path = find_model(stage.model)
    family = prompt or _registered_family(stage.model)
    runner, gguf = runner_of(path, family)
    if prompt is None and (gguf is None or scoring_kind(gguf) is not None):
        family = None  # the file states its own
    return ResolvedStage(stage.model, stage.depth, path, runner, gguf=gguf, prompt=family)


def _registered_family(name: str) -> str | None:
    """The family of models.toml for a pointwise model called `name`; None if it has another prompt, or no entry."""
    entry = load_registry().get(name)
    return entry.prompt if entry is not None and entry.kind == "pointwise" and entry.prompt in FAMILIES else None
