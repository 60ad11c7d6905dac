"""The base class of every kind of model: `rerank` and `rerank_many` are written here, each kind implements `rank`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from dearlite.checks import whole_number
from dearlite.documents import as_documents
from dearlite.errors import InvalidInput, UsageError
from dearlite.models.calibration import SIGMOID
from dearlite.options import Call, Listwise, check_instruction
from dearlite.progress import Progress
from dearlite.tasks import Tasks

if TYPE_CHECKING:
    from dearlite.documents import Document
    from dearlite.fields import Fields
    from dearlite.models.calibration import Calibration
    from dearlite.models.chain import Model
    from dearlite.options import Long
    from dearlite.ranking import PairScore, Ranking

Job = tuple[str, Iterable[object]]  # a query and its documents


class Reranker(Tasks, ABC):
    """A loaded model or cascade. Several threads and asyncio tasks may use it at once. `with` closes it at its end.

    It is pickled and copied as its `recipe`, the model's file and options. In a process that has this model open, the
    copy shares it; another process loads it, once for all copies.

    Make one with `Reranker.load`. `model` is its name. `calibrated` is True if its hits have a `relevance`. `pointwise`
    is True if it scores a document alone, so that `score` and `stream` work. `margin` is in units of its score:
    documents scoring more than `margin` below the cut-off are not passed to the next stage of an adaptive cascade;
    None if that is not calibrated.
    """

    calibrated = False
    margin: float | None = None
    pointwise = True
    _relevance: Calibration | None = None

    @staticmethod
    def load(
        model: Model = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        instruction: str | None = None,
        gpu_layers: int | None = None,
        adapter: str | Path | None = None,
        low_memory: bool = False,
        best_effort: bool = False,
        adaptive: bool = False,
        prompt: str | None = None,
    ) -> Reranker:
        """A Reranker for a model name, a model file, or a list of them, which is a cascade.

        - `model`: a name in models.toml, a path, or a list of stages. A stage is a name or path, with its depth (number
          of documents that it gets) as `"NAME:DEPTH"` or `(name, depth)`; without one a later stage gets 30 documents.
          None: the embedded model, minilm-l12. The models of a cascade are loaded at their first use.
        - `device`: "auto" (a GPU if one works, otherwise the CPU, with a warning that says why), "cpu" or "cuda".
        - `threads`: number of CPU threads, 1 or more. None: the number of physical cores.
        - `instruction`: the task in words, for a model whose prompt has a place for it; in a cascade for those of its
          models. None: the model's own. It is part of `identity`.
        - `prompt`: name of a prompt, for a GGUF that states no score of its own, which is then run as a pointwise
          model: a family of models that answer yes or no (`yes-no` for any instruct model), scored by the logits of the
          answers; or `upr` and `query-likelihood`, scored by the log-probability of the query after the document.
        - `gpu_layers`: number of layers of a model in a GGUF on the GPU, 0 or more. None: all if there is a GPU.
        - `adapter`: path of a LoRA in GGUF form for a listwise model. None: no LoRA.
        - `low_memory`: unload each model of a cascade before the next is loaded.
        - `best_effort`: skip a later stage of a cascade that cannot run; `Ranking.stages` reports the reason.
        - `adaptive`: pass on only the documents whose score is within the calibrated `margin` of the score at rank
          `top_k` (10 if that is None), at most the depth of the stage.

        Raises UnknownModel for a name that does not exist, UsageError for a missing file, a wrong value, and an option
        that does not apply (`gpu_layers` without a listwise model, `instruction` for a model that takes none),
        ModelFileError for a damaged file, MissingExtra if the package that runs the model is not installed, and
        DeviceUnavailable if `device` cannot be used.
        """
        if gpu_layers is not None:
            gpu_layers = whole_number("gpu_layers", gpu_layers, 0, otherwise=", or None for all")
        from dearlite.loading import load  # models.toml is not read before a model is loaded

        reranker: Reranker = load(
            model,
            {"device": device, "threads": threads},
            {"gpu_layers": gpu_layers, "adapter": adapter},
            {"low_memory": low_memory, "best_effort": best_effort, "adaptive": adaptive},
            {"instruction": check_instruction(instruction), "prompt": prompt},
        )
        return reranker

    @property
    @abstractmethod
    def device(self) -> str:
        """The device that runs the model: "cpu", "cuda", or llama.cpp's name of the GPU and its number of layers."""

    @property
    @abstractmethod
    def quantisation(self) -> str:
        """The arithmetic of a pointwise model, for example "int8-per-row", or the type of most weights, "q4_k"."""

    @property
    @abstractmethod
    def threads(self) -> int:
        """Number of CPU threads. A pointwise model runs a document on each, a listwise model one prompt on all."""

    @abstractmethod
    def identity(self, listwise: Listwise | None = None) -> dict[str, str]:
        """Everything that an order depends on besides the texts, as names and values.

        That is the name and sha256 of the model, device, quantisation, prompt and options; of a pointwise model also
        its graph, the version of its engine and the class of processor. Results of calls with equal identities may be
        mixed, results of others may not. Raises UsageError for `listwise` on a pointwise model.
        """

    def rerank(
        self,
        query: str,
        docs: Iterable[object],
        *,
        top_k: int | None = None,
        listwise: Listwise | None = None,
        progress: Progress | None = None,
        cancel: Event | None = None,
        budget_s: float | None = None,
        long: Long | None = None,
        fields: Fields | None = None,
    ) -> Ranking:
        """`docs` sorted by relevance to `query`, best first. Arguments and errors are those of `dearlite.rerank`."""
        self.check_open()
        call = Call(top_k=top_k, listwise=listwise, progress=progress, cancel=cancel, budget_s=budget_s, long=long)
        self._check_stages(call)
        return self.rank([(query, _read(docs, fields))], call)[0]

    def rerank_many(
        self,
        jobs: Iterable[tuple[str, Iterable[object]]],
        *,
        together: int = 8,
        top_k: int | None = None,
        listwise: Listwise | None = None,
        progress: Progress | None = None,
        cancel: Event | None = None,
        long: Long | None = None,
        fields: Fields | None = None,
    ) -> list[Ranking]:
        """One Ranking per job, in order, equal to what `rerank` returns for its query.

        - `jobs`: (query, docs) pairs.
        - `together`: number of queries that a listwise model decodes at once, 1 or more. More are faster and need more
          memory: 128 KiB per token of each prompt for a model of 8B parameters. Default: 8.
        - `progress`: function that is called with (done, total) documents. A listwise model or cascade counts within
          each group of `together` queries.

        The other arguments and the errors are those of `dearlite.rerank`.

        ```python
        from dearlite import Reranker

        reranker = Reranker.load()
        jobs = [
            ("who invented the light bulb?", ["Coffee is good for diet", "Edison's bulb, 1879"]),
            ("is coffee healthy?", ["Coffee is good for diet", "Edison's bulb, 1879"]),
        ]
        for ranking in reranker.rerank_many(jobs, top_k=1):
            print(ranking.query, "->", ranking[0].text)
        # who invented the light bulb? -> Edison's bulb, 1879
        # is coffee healthy? -> Coffee is good for diet
        ```
        """
        self.check_open()
        call = Call(top_k=top_k, listwise=listwise, progress=progress, cancel=cancel, long=long, together=together)
        self._check_stages(call)
        return self.rank([(query, _read(docs, fields)) for query, docs in _checked_jobs(jobs)], call)

    @abstractmethod
    def rank(self, jobs: Sequence[Job], call: Call) -> list[Ranking]:
        """One Ranking per job, in order. `rerank` and `rerank_many` call it; `call` holds their options."""

    def _check_stages(self, call: Call) -> None:
        """Raises UsageError if the long mode needs a second stage and this is a single pointwise model.

        Not part of `rank`: the first stage of a cascade is ranked in this mode.
        """
        if self.pointwise and call.long is not None and call.long.checked().mode == "cascade":
            raise UsageError(needs_two_stages(self.model))

    def empty_documents(self, documents: Sequence[Document]) -> list[int]:
        """Positions of the documents of which the model's tokenizer makes no token. `rank` refuses them as empty.

        Of a cascade: its first stage's.
        """
        return []

    def refuse_empty(self, documents: Sequence[Document], positions: Sequence[int] | None = None) -> None:
        """Raises InvalidInput for the first of `empty_documents`; `positions` are those in the caller's list."""
        if empty := self.empty_documents(documents):
            position = empty[0] if positions is None else positions[empty[0]]
            raise empty_document(documents[empty[0]], position, self.model)

    def span(self, listwise: Listwise | None = None) -> tuple[int, int]:
        """(window, stride) of a call with these options. Raises UsageError for a pointwise model and for a cascade."""
        raise UsageError(f"{self.model} is no listwise model: it has no window and no stride")

    def score(
        self,
        pairs: Iterable[tuple[str, object]],
        *,
        progress: Progress | None = None,
        cancel: Event | None = None,
        fields: Fields | None = None,
    ) -> list[float]:
        """One raw logit per (query, document) pair, in order.

        - `pairs`: a document is a string, a mapping or an object, as for `dearlite.rerank`.
        - `progress`: function that is called with (done, total) pairs.
        - `cancel`: event whose setting ends the call with Cancelled.
        - `fields`: the fields of the documents, as for `dearlite.rerank`.

        Raises UsageError for a listwise model or a cascade, which have no score of a single document, and InvalidInput
        for a pair that cannot be read.
        """
        raise UsageError(_no_score(self.model))

    def relevance_of(self, score: float) -> float:
        """The probability of relevance for a raw logit of `score` or `stream`, from 0 to 1.

        That is the calibration's, else the makers' own, else the sigmoid. Raises UsageError for a listwise model or a
        cascade.
        """
        if not self.pointwise:
            raise UsageError(_no_score(self.model))
        return (self._relevance or SIGMOID)(score)

    def stream(self, pairs: Iterable[tuple[str, Document]]) -> Iterator[PairScore]:
        """Yields the score of each (query, document) pair, in order, as soon as it is known.

        `pairs` is consumed as needed. Queries must be clean (`documents.check_query`). Consecutive pairs with the same
        query encode it once. Raises UsageError for a listwise model or a cascade.
        """
        raise UsageError(_no_score(self.model))


def _checked_jobs(jobs: Iterable[object]) -> Iterator[Job]:
    """`jobs` one by one. Raises InvalidInput for what is no pair of a query and its documents."""
    if isinstance(jobs, (str, bytes, Mapping)) or not isinstance(jobs, Iterable):
        remedy = "give its items(), the pairs" if isinstance(jobs, Mapping) else "give a list of (query, docs) pairs"
        raise InvalidInput(f"jobs is a {type(jobs).__name__}: {remedy}")
    for position, job in enumerate(jobs):
        if not isinstance(job, Sequence) or isinstance(job, (str, bytes)) or len(job) != 2:
            raise InvalidInput(f"job {position} is a {type(job).__name__}: it must be a pair (query, docs)")
        yield job[0], job[1]


def _read(docs: Iterable[object], fields: Fields | None) -> Iterable[object]:
    """`docs` as Documents, by the caller's `fields`; unchanged without: every kind of model knows the usual names."""
    return docs if fields is None else as_documents(docs, fields)


def name_of(document: Document, position: int) -> str:
    """The name of a document in a message: its id, or its position in the call, from 0."""
    return f"document {position if document.id is None else repr(document.id)}"


def no_tokens(document: Document, model: str) -> str:
    """The reason why `model` cannot read `document`, as the rest of a sentence about it."""
    text = ascii((document.title + document.text).strip()[:20])
    return f"is empty for {model}, whose tokenizer makes no token of {text}"


def empty_document(document: Document, position: int, model: str) -> InvalidInput:
    """The error for a document of which the tokenizer of `model` makes no token."""
    return InvalidInput(f"{name_of(document, position)} {no_tokens(document, model)}: remove it, or give it a text")


def _no_score(model: str) -> str:
    return f"{model} is no pointwise model and has no score of a single document: call rerank, or load a .dear model"


def needs_two_stages(model: str) -> str:
    """The message for long mode "cascade" on a single model."""
    return f"{model} is one stage, and long mode cascade needs a stage before it that picks passages: give two models"
