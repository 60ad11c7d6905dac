"""Listwise models: windows of documents, a prompt each, and an order that is always a permutation."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from dearlite.anytime import order_within, rank_within
from dearlite.deadline import Deadline
from dearlite.documents import as_documents, check_query
from dearlite.errors import Cancelled, ModelFileError, UsageError
from dearlite.listwise.agreement import fuse, shuffled_orders
from dearlite.listwise.chat_template import ChatTemplate
from dearlite.listwise.decoding import (
    Answer,
    Decoding,
    GenerationOptions,
    Order,
    Tokens,
    first,
    generate,
    permute,
    reason,
)
from dearlite.listwise.engine import Interrupted, LlamaBackend
from dearlite.listwise.prompts import LIST_FORMS, find_form
from dearlite.listwise.state import WindowMeter, WindowState
from dearlite.listwise.tokens import PromptEncoder
from dearlite.machine import check_threads
from dearlite.models.gguf import GgufFile
from dearlite.options import Call, Listwise
from dearlite.progress import Progress
from dearlite.ranking import Ranking, check_top_k
from dearlite.reranker import Job, Reranker
from dearlite.stages import QueryState

KIND = "listwise"
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to get an order: whether the prompt asks for reasons, ends with "[", and how it is decoded."""

    reasoned: bool
    opened: bool
    decode: Callable[[Tokens, Answer, GenerationOptions], Decoding[Order]]


MODES: dict[str, Mode] = {
    "permute": Mode(False, True, lambda prompt, answer, _: permute(prompt, answer)),
    "first": Mode(False, True, lambda prompt, answer, _: first(prompt, answer)),
    "reason": Mode(True, False, reason),
    "generate": Mode(False, False, generate),
}


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the file says of itself; a file of another maker says nothing, and gets what suits any model."""

    name: str
    prompt: str
    window: int
    stride: int
    max_tokens: int
    identifiers_from: int | None


class ListwiseReranker(Reranker):
    """A listwise model in one GGUF. Calls from several threads take turns."""

    pointwise = False

    def __init__(
        self,
        path: Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        gpu_layers: int | None = None,
        adapter: str | Path | None = None,
    ) -> None:
        """Loads `path`; `Reranker.load` is the usual way here."""
        file = GgufFile(path)
        lora = None if adapter is None else GgufFile(adapter)
        if file.metadata.get("general.type") == "adapter":
            raise UsageError(f"{path} is a LoRA adapter alone: give its base as the model, and this with --adapter")
        if lora is not None and lora.metadata.get("general.type") != "adapter":
            raise UsageError(f"{adapter} is no LoRA adapter in GGUF form: convert it first")
        self._file, self._lora = file, lora
        self._backend = LlamaBackend(
            file, device=device, gpu_layers=gpu_layers, threads=check_threads(threads), adapter=lora
        )
        vocabulary = self._backend.vocabulary
        source = file.metadata.get("tokenizer.chat_template")
        self._template = ChatTemplate(source, vocabulary.template_tokens) if source else None
        self._facts = _facts(file, self._template is not None, self._backend.context_tokens)
        self.model = self._facts.name
        self._encoders: dict[str, PromptEncoder] = {}
        self._ends = vocabulary.end_tokens()
        for note in self._backend.notes:
            warnings.warn(note, stacklevel=3)

    @property
    def device(self) -> str:
        return self._backend.device

    @property
    def quantisation(self) -> str:
        return self._file.main_type

    @property
    def threads(self) -> int:
        return self._backend.threads

    def span(self, listwise: Listwise | None = None) -> tuple[int, int]:
        """(window, stride) of a call with these options."""
        return (listwise or Listwise()).checked(self._facts.window, self._facts.stride).span

    def identity(self, listwise: Listwise | None = None) -> dict[str, str]:
        options = (listwise or Listwise()).checked(self._facts.window, self._facts.stride)
        form = self._encoder(options.prompt or self._facts.prompt, MODES[options.mode].reasoned).form
        names = ("mode", "window", "stride", "passage_tokens", "reasoning_tokens", "passes")
        files = [self._file] if self._lora is None else [self._file, self._lora]
        return {
            "model": self.model,
            "sha256": " + ".join(file.recorded_sha256 or file.sha256() for file in files),
            "device": self.device,
            "quantisation": self.quantisation,
            "prompt": f"{options.prompt or self._facts.prompt} {hashlib.sha256(repr(form).encode()).hexdigest()[:16]}",
            "options": " ".join(f"{name}={getattr(options, name)}" for name in names),
        }

    def rank(self, jobs: Sequence[Job], call: Call) -> list[Ranking]:
        """A Ranking for each job; the windows of `call.together` queries are decoded side by side.

        Each of them has its keys and values in memory at once (8B: 128 KiB a token).
        """
        if call.long is not None and call.long.checked().mode != "truncate":
            raise UsageError(
                f"{self.model} is a listwise model and reads a document's beginning: put a pointwise stage before it"
            )
        if call.together < 1:
            raise UsageError(f"together is {call.together}: it must be 1 or more")
        if call.budget_s is not None:

            def stage(query: QueryState, deadline: Deadline, heard: Progress) -> tuple[Ranking, set[int]]:
                shown = query.shown(query.order, passages=False)
                return order_within(self, query.text, shown, call.listwise, deadline, heard, first=True)

            return [rank_within(self.model, self.margin, job, call, stage) for job in jobs]
        return self._ranked(jobs, call.together, call.top_k, call.listwise, call.progress, call.cancel)

    def _ranked(
        self,
        jobs: Iterable[tuple[str, Iterable[object]]],
        together: int,
        top_k: int | None,
        listwise: Listwise | None,
        progress: Progress | None,
        cancel: Event | None,
    ) -> list[Ranking]:
        """A Ranking for each job; with several passes each of them is `together`'s work like another query."""
        top_k, passes = check_top_k(top_k), 1 if listwise is None else listwise.passes
        self.span(listwise)  # what is wrong with the options is told before any work
        if passes == 1:
            shown, orders = list(jobs), []
        else:
            given = [(query, as_documents(docs)) for query, docs in jobs]
            orders = [shuffled_orders(len(docs), passes) for _, docs in given]
            shown = [
                (query, [docs[index] for index in order])
                for (query, docs), tries in zip(given, orders, strict=True)
                for order in tries
            ]
        found = list[Ranking]()
        for start in range(0, len(shown), together):
            group = shown[start : start + together]
            found += self._rank(group, top_k if passes == 1 else None, listwise, progress, cancel)
        if passes == 1:
            return found
        return [fuse(found[at * passes : (at + 1) * passes], tries, top_k) for at, tries in enumerate(orders)]

    def _rank(
        self,
        jobs: Sequence[tuple[str, Iterable[object]]],
        top_k: int | None,
        listwise: Listwise | None,
        progress: Progress | None,
        cancel: Event | None,
    ) -> list[Ranking]:
        start = time.perf_counter()
        top_k = check_top_k(top_k)
        options = (listwise or Listwise()).checked(self._facts.window, self._facts.stride)
        mode = MODES[options.mode]
        encoder = self._encoder(options.prompt or self._facts.prompt, mode.reasoned)
        work = [WindowState(check_query(q), as_documents(docs), encoder, options) for q, docs in jobs]
        meter = WindowMeter(work, progress)
        live = [(one, one.windows()) for one in work if one.documents]
        asked = [(one, windows, next(windows)) for one, windows in live]
        while asked:
            orders = self._decide([(one, span) for one, _, span in asked], encoder, options, cancel, meter)
            following = []
            for (one, windows, _), order in zip(asked, orders, strict=True):
                try:
                    following.append((one, windows, windows.send(order)))
                except StopIteration:
                    continue
            asked = following
        elapsed = time.perf_counter() - start
        return [one.ranking(self.model, self.device, elapsed / len(work), top_k) for one in work]

    def _decide(
        self,
        asked: Sequence[tuple[WindowState, tuple[int, int]]],
        encoder: PromptEncoder,
        options: Listwise,
        cancel: Event | None,
        meter: WindowMeter,
    ) -> list[Order]:
        """The order of each window that is asked for: all prompts are counted before the first is read."""
        mode = MODES[options.mode]
        limit = min(self._facts.max_tokens, self._backend.context_tokens)
        written = options.reasoning_tokens if mode.reasoned else encoder.form.max_new_tokens
        decodings, rooms, prompts = [], [], []
        for one, (start, end) in asked:
            answer = encoder.answer(end - start)
            ranked = sum(map(len, answer.paths)) + len(answer.lead)
            budget = ranked + (0 if mode.opened else written)
            prompt = encoder.encode(
                one.query,
                [one.passage(index) for index in one.order[start:end]],
                room=limit - budget,
                reasoned=mode.reasoned,
                opened=mode.opened,
            )
            writing = GenerationOptions(self._backend.vocabulary.token_bytes, self._ends, written, options.on_text)
            decodings.append(mode.decode(prompt.ids, answer, writing))
            rooms.append(len(prompt.ids) + budget)
            prompts.append(prompt)
            one.saw(start, end, prompt)
        with meter.round(prompts) as heard:
            try:
                return self._backend.run(decodings, max(rooms), cancel=cancel, on_tokens=heard)
            except Interrupted:
                raise Cancelled(meter.done, meter.total) from None

    def _encoder(self, name: str, reasoned: bool) -> PromptEncoder:
        form = find_form(name, reasoned=reasoned)
        if self._facts.identifiers_from is not None and name == self._facts.prompt and not reasoned:
            form = replace(form, identifiers_from=self._facts.identifiers_from)
        key = f"{name} {reasoned}"
        if key not in self._encoders:
            self._encoders[key] = PromptEncoder(self._backend.vocabulary, form, self._template)
        return self._encoders[key]


def _facts(file: GgufFile, has_template: bool, context_tokens: int) -> _Facts:
    """The file's `dearlite.*` metadata. Raises ModelFileError for a later schema or another kind."""
    given = {key.removeprefix("dearlite."): v for key, v in file.metadata.items() if key.startswith("dearlite.")}
    if given and (given.get("schema") != _SCHEMA or given.get("kind") != KIND):
        what = f"schema {given.get('schema')!r} and kind {given.get('kind')!r}"
        raise ModelFileError(f"{file.path} has {what}, which this dearlite cannot run: update dearlite")
    numbers = ("window", "stride", "max_tokens", "identifiers_from")
    wrong = [f"{name} {given[name]!r}" for name in numbers if not isinstance(given.get(name, 0), int)]
    wrong += [f"{name} {given[name]!r}" for name in ("name", "prompt") if not isinstance(given.get(name, ""), str)]
    if given.get("prompt", next(iter(LIST_FORMS))) not in LIST_FORMS:
        wrong.append(f"the prompt form {given['prompt']!r}")
    if wrong:
        raise ModelFileError(f"{file.path} has {', '.join(wrong)}, which this dearlite does not know: update dearlite")
    return _Facts(
        name=given.get("name", file.path.stem),
        prompt=given.get("prompt", "chat" if has_template else "plain"),
        window=given.get("window", 20),
        stride=given.get("stride", 10),
        max_tokens=given.get("max_tokens", context_tokens),
        identifiers_from=given.get("identifiers_from"),
    )
