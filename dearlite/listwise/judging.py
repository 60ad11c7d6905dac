"""Judging each document of a query alone: the model reasons about it, and the score is P(true)."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence

from dearlite.documents import Document, as_documents, check_query
from dearlite.errors import Cancelled
from dearlite.foreign import naming
from dearlite.jobs import Job, name_of
from dearlite.listwise.decoding import Decoding, GenerationOptions
from dearlite.listwise.encoders import JudgeEncoder
from dearlite.listwise.groups import continued
from dearlite.listwise.runner import Runner
from dearlite.listwise.state import ListState
from dearlite.listwise.thinking import judge
from dearlite.listwise.tokens import WindowPrompt
from dearlite.llama.model import Interrupted
from dearlite.options import Call, Listwise
from dearlite.progress import Meter
from dearlite.ranking import Ranking

_Waiting = deque[tuple["JudgeState", int]]  # documents that no sequence has begun


class JudgeState(ListState):
    """One query's documents while they are judged. The order so far is by score, then the unread in their order."""

    def __init__(
        self, query: str, documents: Sequence[Document], encoder: JudgeEncoder, options: Listwise, room: int, model: str
    ) -> None:
        """`room` is the number of tokens of the longest prompt, `model` a name for messages."""
        super().__init__(query, documents, encoder, options, room)
        self.prompts: list[WindowPrompt] = []
        self._texts_by_index: dict[int, str] = {}
        for index, document in enumerate(documents):
            with naming(model, name_of(document, index)):
                self.prompts.append(encoder.judged(query, self.passage(index), room))

    def record(self, index: int, score: float, text: str, *, hurried: bool) -> None:
        """Records the score of a document and the reasoning before it."""
        self._scores[index] = score
        self._read.add(index)
        self._hurried |= hurried
        self.record_tokens([index], self.prompts[index])
        if text:
            self._reasons[index] = self._texts_by_index[index] = text
            self._texts = [self._texts_by_index[read] for read in sorted(self._texts_by_index)]
        self.order.sort(key=lambda index: (-self._scores.get(index, -1.0), index))


def judge_jobs(
    runner: Runner[JudgeEncoder], jobs: Sequence[Job], options: Listwise, call: Call, top_k: int | None
) -> list[Ranking]:
    """One Ranking per job; `call.batch_size` documents at a time are judged side by side, in the order of the jobs.

    All prompts of a round are read before a text is written. With a budget the first document is therefore judged
    alone, and a round never has more documents than the time left is enough for.
    Raises Cancelled, of a single job with the ranking so far, and InvalidInput for a document that does not fit.
    """
    start = time.perf_counter()
    backend, encoder, model = runner.backend, runner.encoder, runner.model
    answer = encoder.answer(1)
    # The text of a document is passed on when it is whole: several are written side by side.
    generation = runner.generation(options.reasoning_tokens, None, call.cancel, answer.most_tokens)
    beyond = options.reasoning_tokens + answer.most_tokens
    states = [
        JudgeState(check_query(query), as_documents(docs), encoder, options, runner.most_tokens - beyond, model)
        for query, docs in jobs
    ]
    waiting: _Waiting = deque((state, index) for state in states for index in range(len(state.documents)))
    meter = Meter(len(waiting), call.progress)

    def on_answer(text: str) -> None:
        if text and options.on_text is not None:
            options.on_text(f"{text}\n\n")
        meter.reach(meter.done + 1)

    longest = max((len(prompt.ids) for state in states for prompt in state.prompts), default=0)
    width = call.batch_size if generation.left_s is None else 1
    try:
        with naming(model, "a document"):
            while waiting:
                round_start, count = time.perf_counter(), min(width, len(waiting))
                queues = [waiting if generation.left_s is None else deque([waiting.popleft()]) for _ in range(count)]
                decodings = [_judge_all(queue, encoder, generation, on_answer) for queue in queues]
                backend.run(decodings, longest + beyond, cancel=call.cancel)
                if generation.left_s is not None:  # as many as the time left is enough for
                    document_s = max(1e-6, time.perf_counter() - round_start) / count
                    width = max(1, int(min(call.batch_size, generation.left_s() / document_s)))
    except Interrupted:
        cancelled = Cancelled(meter.done, meter.total)
        if len(states) == 1:
            cancelled.partial = states[0].partial(model, backend.device, time.perf_counter() - start)
        raise cancelled from None
    elapsed_s = (time.perf_counter() - start) / max(1, len(states))
    return [state.ranking(model, backend.device, elapsed_s, top_k) for state in states]


def _judge_all(
    waiting: _Waiting, encoder: JudgeEncoder, generation: GenerationOptions, on_answer: Callable[[str], None]
) -> Decoding[None]:
    """Judges one waiting document after another in a sequence.

    Each prompt is read whole. Sums of a product depend on the number of its rows, and greedy text on their last bits:
    a score would depend on the documents before it.
    """
    held: list[int] = []
    while waiting:
        state, index = waiting.popleft()
        verdict = yield from continued(
            judge(state.prompts[index].ids, encoder.answer(1), generation), held, afresh=True
        )
        assert verdict.scores is not None
        state.record(index, math.exp(verdict.scores[0]), verdict.text, hurried=verdict.hurried)
        on_answer(verdict.text)
