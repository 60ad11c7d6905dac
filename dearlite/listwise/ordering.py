"""Ordering the documents of a query in windows, by the modes of `modes.MODES`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event

from dearlite.documents import as_documents, check_query
from dearlite.errors import Cancelled
from dearlite.foreign import naming
from dearlite.jobs import Job, name_of
from dearlite.listwise.decoding import Decoding, GenerationOptions, Order
from dearlite.listwise.modes import MODES, decode_of
from dearlite.listwise.runner import Runner
from dearlite.listwise.state import WindowMeter, WindowState
from dearlite.listwise.tokens import PromptEncoder, WindowPrompt
from dearlite.llama.model import Interrupted
from dearlite.options import Call, Listwise
from dearlite.ranking import Ranking

Windows = Sequence[tuple[WindowState, tuple[int, int]]]  # of several queries, each with its span


def order_jobs(
    runner: Runner[PromptEncoder], jobs: Sequence[Job], options: Listwise, call: Call, top_k: int | None
) -> list[Ranking]:
    """One Ranking per job; in each round, one window of every unfinished job is decoded.

    Raises Cancelled, of a single job with the ranking so far, and InvalidInput for a window that does not fit.
    """
    start = time.perf_counter()
    states = [
        WindowState(check_query(query), as_documents(docs), runner.encoder, options, runner.most_tokens)
        for query, docs in jobs
    ]
    meter = WindowMeter(states, call.progress)
    running = [(state, state.windows()) for state in states if state.documents]
    pending = [(state, windows, next(windows)) for state, windows in running]
    while pending:
        windows_now = [(state, span) for state, _, span in pending]
        try:
            orders = _order_windows(runner, windows_now, options, call.cancel, meter)
        except Cancelled as err:
            if len(states) == 1:
                err.partial = states[0].partial(runner.model, runner.backend.device, time.perf_counter() - start)
            raise
        remaining = []
        for (state, windows, _), order in zip(pending, orders, strict=True):
            try:
                remaining.append((state, windows, windows.send(order)))
            except StopIteration:
                continue
        pending = remaining
    elapsed_s = (time.perf_counter() - start) / len(states) if states else 0.0
    return [state.ranking(runner.model, runner.backend.device, elapsed_s, top_k) for state in states]


@dataclass(frozen=True, slots=True)
class _Read:
    """The prompt of a window, its decoding, and the tokens that both need."""

    prompt: WindowPrompt
    decoding: Decoding[Order]
    room: int


def _order_windows(
    runner: Runner[PromptEncoder], windows: Windows, options: Listwise, cancel: Event | None, meter: WindowMeter
) -> list[Order]:
    """The order of each window. All prompts are encoded before the model reads the first."""
    reads = [_read(runner, state, span, options, cancel) for state, span in windows]
    state, (start, end) = windows[0]
    first = _name_of_window(state, start, end) + (f", or another of {len(windows)} windows" if windows[1:] else "")
    with meter.round([read.prompt for read in reads]) as on_tokens, naming(runner.model, first):
        try:
            return runner.backend.run(
                [read.decoding for read in reads], max(read.room for read in reads), cancel=cancel, on_tokens=on_tokens
            )
        except Interrupted:
            raise Cancelled(meter.done, meter.total) from None


def _read(
    runner: Runner[PromptEncoder], state: WindowState, span: tuple[int, int], options: Listwise, cancel: Event | None
) -> _Read:
    """The reading of one window. Raises InvalidInput if it does not fit."""
    assert options.mode is not None, "checked"
    (start, end), encoder, mode = span, runner.encoder, MODES[options.mode]
    with naming(runner.model, _name_of_window(state, start, end)):
        answer = encoder.answer(end - start)
    generation = _generation(runner, options, cancel, answer.most_tokens)
    budget = answer.most_tokens + (0 if mode.opened else generation.max_tokens)
    passages = []
    for index in state.order[start:end]:
        with naming(runner.model, name_of(state.documents[index], index)):
            passages.append(state.passage(index))
    with naming(runner.model, _name_of_window(state, start, end)):
        prompt = encoder.encode(
            state.query, passages, room=runner.most_tokens - budget, reasoned=mode.reasoned, opened=mode.opened
        )
    state.record_tokens(state.order[start:end], prompt)
    decoding = decode_of(options.mode, encoder.form)(prompt.ids, answer, generation)
    return _Read(prompt, decoding, len(prompt.ids) + budget)


def _generation(
    runner: Runner[PromptEncoder], options: Listwise, cancel: Event | None, answer_tokens: int
) -> GenerationOptions:
    assert options.mode is not None, "checked"
    if MODES[options.mode].reasoned:
        return runner.generation(options.reasoning_tokens, options.on_text, cancel, answer_tokens)
    return runner.generation(runner.encoder.form.max_new_tokens, options.on_text)


def _name_of_window(state: WindowState, start: int, end: int) -> str:
    names = [name_of(state.documents[index], index) for index in state.order[start:end]]
    return f"{names[0]}, or another of its window of {len(names)}" if names[1:] else names[0]
