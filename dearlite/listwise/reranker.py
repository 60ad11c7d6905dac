"""Listwise models: one prompt per window of documents, and an order that is always a permutation."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Event

from dearlite.anytime import order_within, rank_within
from dearlite.deadline import Deadline
from dearlite.documents import as_documents, check_query
from dearlite.errors import Cancelled, EngineError, ModelFileError, UsageError, warn
from dearlite.foreign import naming
from dearlite.jobs import Job, name_of
from dearlite.listwise.agreement import fuse, shuffled_orders
from dearlite.listwise.decoding import GenerationOptions, Order
from dearlite.listwise.engine import LlamaBackend
from dearlite.listwise.group_prompts import GROUP_FORMS, find_group_form
from dearlite.listwise.groups import GroupEncoder, check_reasoning
from dearlite.listwise.modes import MODES, fields_of
from dearlite.listwise.prompts import ListForm, find_form
from dearlite.listwise.settings import read_settings
from dearlite.listwise.sorting import Runner, form_for, sort_jobs
from dearlite.listwise.state import WindowMeter, WindowState
from dearlite.listwise.tokens import PromptEncoder
from dearlite.listwise.writing import Writer
from dearlite.llama.model import Interrupted
from dearlite.loading import Recipe, lasting_name
from dearlite.machine import check_threads
from dearlite.models.gguf import GgufFile
from dearlite.options import DEFAULT_REASONING_TOKENS, Call, Listwise
from dearlite.progress import Progress
from dearlite.ranking import Ranking, check_top_k
from dearlite.reranker import Reranker
from dearlite.stages import QueryState
from dearlite.templates.chat import ChatTemplate

_CHAT_TEMPLATE = "tokenizer.chat_template"  # metadata key


class ListwiseReranker(Reranker):
    """A listwise model in one GGUF. Calls from several threads take turns."""

    pointwise = False

    def __init__(
        self,
        source: Path | GgufFile,
        *,
        device: str = "auto",
        threads: int | None = None,
        gpu_layers: int | None = None,
        adapter: str | Path | None = None,
    ) -> None:
        """Loads a file, open or given by its path; usually called by `Reranker.load`."""
        file = source if isinstance(source, GgufFile) else GgufFile(source)
        path = file.path
        lora = None if adapter is None else GgufFile(adapter)
        if file.metadata.get("general.type") == "adapter":
            raise UsageError(
                f"{path} is a LoRA adapter, not a model: give its base as the model, and this file with --adapter"
            )
        if lora is not None and lora.metadata.get("general.type") != "adapter":
            raise UsageError(f"{adapter} is not a LoRA adapter in GGUF format: convert it first")
        self._file, self._lora = file, lora
        options = {"gpu_layers": gpu_layers, "adapter": None if adapter is None else lasting_name(adapter)}
        self.recipe = Recipe(lasting_name(path), {"device": device, "threads": threads}, options)
        try:
            self._backend = LlamaBackend(
                file, device=device, gpu_layers=gpu_layers, threads=check_threads(threads, in_step=True), adapter=lora
            )
        except EngineError as err:
            raise ModelFileError(f"{path} cannot be loaded: {err.reason}: fetch or export it again") from err
        has_template = bool(file.metadata.get(_CHAT_TEMPLATE))
        self._settings = read_settings(file, has_template, self._backend.context_tokens)
        self.model = self._settings.name
        self._encoders: dict[str, PromptEncoder] = {}
        self._group_encoders: dict[str, GroupEncoder] = {}
        self._end_tokens = self._backend.vocabulary.end_tokens()
        for note in self._backend.notes:
            warn(note)

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
        """(window, stride) of a call with `listwise`."""
        return (listwise or Listwise()).checked(self._settings.window, self._settings.stride).span

    def _release(self) -> None:
        self._backend.close()

    def identity(self, listwise: Listwise | None = None) -> dict[str, str]:
        self.check_open()
        options = (listwise or Listwise()).checked(self._settings.window, self._settings.stride)
        prompt = options.prompt or self._settings.prompt
        if options.sorts:
            prompt, encoder = self._group_encoder(options)
            form: ListForm = encoder.form
        else:
            form = self._encoder(prompt, MODES[options.mode].reasoned).form
        files = [self._file] if self._lora is None else [self._file, self._lora]
        return {
            "model": self.model,
            "sha256": " + ".join(file.recorded_sha256 or file.sha256() for file in files),
            "device": self.device,
            "quantisation": self.quantisation,
            # The hash covers every field name and value of the form: renaming one invalidates journals and caches.
            "prompt": f"{prompt} {hashlib.sha256(repr(form).encode()).hexdigest()[:16]}",
            "options": " ".join(f"{name}={getattr(options, name)}" for name in fields_of(options)),
        }

    def rank(self, jobs: Sequence[Job], call: Call) -> list[Ranking]:
        """One Ranking per job; the windows of `call.batch_size` queries are decoded side by side.

        The keys and values of all of them are in memory at the same time (8B model: 128 KiB per token).
        """
        if call.long is not None and call.long.checked().mode != "truncate":
            raise UsageError(
                f"{self.model} is a listwise model and reads only the beginning of a document: put a pointwise stage "
                "before it"
            )
        if call.budget_s is not None:

            def stage(query: QueryState, deadline: Deadline, progress: Progress) -> tuple[Ranking, set[int]]:
                documents = query.shown(query.order, passages=False)
                return order_within(self, query.text, documents, call.listwise, deadline, progress, first=True)

            return [rank_within(self.model, self.margin, job, call, stage) for job in jobs]
        return self._rank_passes(jobs, call)

    def writer(self) -> Writer:
        """The model as a writer of text. Raises UsageError for a model without a chat template."""
        self.check_open()
        if self._template is None:
            raise UsageError(f"{self.model} has no chat template, which text needs: take an instruct model")
        return Writer(self.model, self._backend, self._template, self._end_tokens, self._most_tokens)

    def _rank_passes(self, jobs: Sequence[Job], call: Call) -> list[Ranking]:
        """One Ranking per job. Each shuffled pass counts as one query towards `call.batch_size`."""
        top_k, passes = check_top_k(call.top_k), 1 if call.listwise is None else call.listwise.passes
        self.span(call.listwise)  # raises for wrong options before any work
        if passes == 1:
            return self._rank_groups(jobs, call, top_k)
        queries = [(query, as_documents(docs)) for query, docs in jobs]
        orders = [shuffled_orders(len(documents), passes) for _, documents in queries]
        shuffled: list[Job] = [
            (query, [documents[index] for index in order])
            for (query, documents), orders_of_query in zip(queries, orders, strict=True)
            for order in orders_of_query
        ]
        try:
            rankings = self._rank_groups(shuffled, call, None)
        except Cancelled as err:
            err.partial = None  # the passes are fused at their end
            raise
        return [
            fuse(rankings[number * passes : (number + 1) * passes], orders_of_query, top_k)
            for number, orders_of_query in enumerate(orders)
        ]

    def _rank_groups(self, jobs: Sequence[Job], call: Call, top_k: int | None) -> list[Ranking]:
        """One Ranking per job, `call.batch_size` jobs at a time."""
        groups = (jobs[start : start + call.batch_size] for start in range(0, len(jobs), call.batch_size))
        return [ranking for group in groups for ranking in self._rank_batch(group, call, top_k)]

    def _rank_batch(self, jobs: Sequence[Job], call: Call, top_k: int | None) -> list[Ranking]:
        """One Ranking per job; in each round, one window of every unfinished job is decoded."""
        start = time.perf_counter()
        options = (call.listwise or Listwise()).checked(self._settings.window, self._settings.stride)
        if options.sorts:
            groups = self._group_encoder(options)[1]
            runner = Runner(self._backend, groups, self.model, self._most_tokens, self._end_tokens)
            return sort_jobs(runner, jobs, options, call, top_k)
        encoder = self._encoder(options.prompt or self._settings.prompt, MODES[options.mode].reasoned)
        states = [
            WindowState(check_query(query), as_documents(docs), encoder, options, self._most_tokens)
            for query, docs in jobs
        ]
        meter = WindowMeter(states, call.progress)
        running = [(state, state.windows()) for state in states if state.documents]
        pending = [(state, windows, next(windows)) for state, windows in running]
        while pending:
            windows_now = [(state, span) for state, _, span in pending]
            try:
                orders = self._order_windows(windows_now, encoder, options, call.cancel, meter)
            except Cancelled as err:
                if len(states) == 1:
                    err.partial = states[0].partial(self.model, self.device, time.perf_counter() - start)
                raise
            remaining = []
            for (state, windows, _), order in zip(pending, orders, strict=True):
                try:
                    remaining.append((state, windows, windows.send(order)))
                except StopIteration:
                    continue
            pending = remaining
        elapsed_s = time.perf_counter() - start
        return [state.ranking(self.model, self.device, elapsed_s / len(states), top_k) for state in states]

    def _order_windows(
        self,
        windows: Sequence[tuple[WindowState, tuple[int, int]]],
        encoder: PromptEncoder,
        options: Listwise,
        cancel: Event | None,
        meter: WindowMeter,
    ) -> list[Order]:
        """The order of each window. All prompts are encoded before the model reads the first."""
        mode = MODES[options.mode]
        limit = self._most_tokens
        max_new_tokens = options.reasoning_tokens if mode.reasoned else encoder.form.max_new_tokens
        generation = GenerationOptions(
            self._backend.vocabulary.token_bytes, self._end_tokens, max_new_tokens, options.on_text
        )
        decodings, rooms, prompts = [], [], []
        for state, (start, end) in windows:
            with naming(self.model, _name_of_window(state, start, end)):
                answer = encoder.answer(end - start)
            answer_tokens = sum(map(len, answer.paths)) + len(answer.lead)
            budget = answer_tokens + (0 if mode.opened else max_new_tokens)
            passages = []
            for index in state.order[start:end]:
                with naming(self.model, name_of(state.documents[index], index)):
                    passages.append(state.passage(index))
            with naming(self.model, _name_of_window(state, start, end)):
                prompt = encoder.encode(
                    state.query, passages, room=limit - budget, reasoned=mode.reasoned, opened=mode.opened
                )
            decodings.append(mode.decode(prompt.ids, answer, generation))
            rooms.append(len(prompt.ids) + budget)
            prompts.append(prompt)
            state.record_tokens(state.order[start:end], prompt)
        state, (start, end) = windows[0]
        first = _name_of_window(state, start, end) + (f", or another of {len(windows)} windows" if windows[1:] else "")
        with meter.round(prompts) as on_tokens, naming(self.model, first):
            try:
                return self._backend.run(decodings, max(rooms), cancel=cancel, on_tokens=on_tokens)
            except Interrupted:
                raise Cancelled(meter.done, meter.total) from None

    @property
    def _most_tokens(self) -> int:
        """The number of tokens of the longest prompt and its answer."""
        return min(self._settings.max_tokens, self._backend.context_tokens)

    def _encoder(self, name: str, reasoned: bool) -> PromptEncoder:
        """The encoder of the prompt form `name`, made once."""
        if name in GROUP_FORMS:
            raise UsageError(f"the prompt form {name!r} goes with --mode {GROUP_FORMS[name].mode}: take that mode")
        form = find_form(name, reasoned=reasoned)
        if self._settings.identifiers_from is not None and name == self._settings.prompt and not reasoned:
            form = replace(form, identifiers_from=self._settings.identifiers_from)
        key = f"{name} {reasoned}"
        if key not in self._encoders:
            # A template is read for the forms that need it: one that cannot be read does not stop the others.
            template = self._template if form.frame is None else None
            self._encoders[key] = PromptEncoder(self._backend.vocabulary, form, template)
        return self._encoders[key]

    def _group_encoder(self, options: Listwise) -> tuple[str, GroupEncoder]:
        """The prompt form's name and the encoder of a mode that sorts, made once. Raises UsageError."""
        name, form = find_group_form(options)
        check_reasoning(form, options.reasoning_tokens != DEFAULT_REASONING_TOKENS, name)
        form = form_for(form, bool(self._file.metadata.get(_CHAT_TEMPLATE)))
        key = f"{name} {form.seed}"
        if key not in self._group_encoders:
            template = self._template if form.frame is None else None
            self._group_encoders[key] = GroupEncoder(self._backend.vocabulary, form, template)
        return name, self._group_encoders[key]

    @cached_property
    def _template(self) -> ChatTemplate | None:
        """The model's chat template; None for a file without one. Raises ModelFileError if it cannot be read."""
        source = self._file.metadata.get(_CHAT_TEMPLATE)
        return ChatTemplate(source, self._backend.vocabulary.template_tokens) if source else None


def _name_of_window(state: WindowState, start: int, end: int) -> str:
    names = [name_of(state.documents[index], index) for index in state.order[start:end]]
    return f"{names[0]}, or another of its window of {len(names)}" if names[1:] else names[0]
