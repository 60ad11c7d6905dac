"""The base class of every kind of model: `rerank` and `rerank_many` are written here, each kind implements `rank`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, TypeVar, cast

from dearlite.checks import whole_number
from dearlite.errors import UsageError
from dearlite.fusion import rank_queries
from dearlite.jobs import Job, checked_jobs, empty_document, read_docs
from dearlite.models.calibration import SIGMOID
from dearlite.options import Call, Listwise, check_instruction
from dearlite.progress import Progress, shown
from dearlite.renamed import with_former_names
from dearlite.tasks import Tasks

if TYPE_CHECKING:
    from typing import Self

    from dearlite.documents import Document
    from dearlite.fields import Fields
    from dearlite.models.calibration import Calibration
    from dearlite.models.chain import Model
    from dearlite.options import Device, Fuse, Long
    from dearlite.ranking import PairScore, Ranking

T = TypeVar("T")


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

    def __new__(cls, *args: object, **options: object) -> Self:
        if cls is Reranker:
            arguments = [*map(repr, args), *(f"{name}={value!r}" for name, value in options.items())]
            raise UsageError(f"a Reranker is loaded, not constructed: Reranker.load({', '.join(arguments)})")
        return super().__new__(cls)

    @staticmethod
    def load(
        model: Model = None,
        *,
        device: Device = "auto",
        threads: int | None = None,
        instruction: str | None = None,
        gpu_layers: int | None = None,
        adapter: str | Path | None = None,
        low_memory: bool = False,
        best_effort: bool = False,
        adaptive: bool = False,
        prompt: str | None = None,
        language: str | None = None,
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
        - `language`: language of the words that a lexical stage (`"bm25:100"`) compares, "german" or "de" for one, or
          "none" for words as they are. None: English.
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
            {"instruction": check_instruction(instruction), "prompt": prompt, "language": language},
        )
        return reranker

    def __repr__(self) -> str:
        if self._closed:
            return f"<{type(self).__name__} {self.model}, closed>"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"<{type(self).__name__} {self.model}, {self.quantisation} on {self.device}, {threads}>"

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

    @with_former_names
    def rerank(
        self,
        query: str | Sequence[str],
        docs: Iterable[T],
        *,
        top_k: int | None = None,
        listwise: Listwise | None = None,
        progress: Progress | bool | None = None,
        cancel: Event | None = None,
        budget_s: float | None = None,
        long: Long | None = None,
        fields: Fields | None = None,
        fuse: Fuse | None = None,
    ) -> Ranking[T]:
        """`docs` sorted by relevance to `query`, best first. Arguments and errors are those of `dearlite.rerank`.

        Examples:
            >>> from dearlite import Reranker
            >>> with Reranker.load() as reranker:
            ...     ranking = reranker.rerank("light bulb", ["Coffee is good for diet", "Edison's bulb, 1879"])
            >>> ranking[0].document, len(ranking[:1])
            ("Edison's bulb, 1879", 1)

        """
        self.check_open()
        with shown(progress) as callback:
            call = Call(top_k=top_k, listwise=listwise, progress=callback, cancel=cancel, budget_s=budget_s, long=long)
            self._check_stages(call)
            return cast("Ranking[T]", rank_queries(self, query, read_docs(docs, fields), call, fuse))

    @with_former_names
    def rerank_many(
        self,
        jobs: Iterable[tuple[str, Iterable[T]]],
        *,
        batch_size: int = 8,
        top_k: int | None = None,
        listwise: Listwise | None = None,
        progress: Progress | bool | None = None,
        cancel: Event | None = None,
        long: Long | None = None,
        fields: Fields | None = None,
    ) -> list[Ranking[T]]:
        """One Ranking per job, in order, equal to what `rerank` returns for its query.

        - `jobs`: (query, docs) pairs.
        - `batch_size`: number of queries that a listwise model decodes at once, 1 or more. More are faster and need
          more memory: 128 KiB per token of each prompt for a model of 8B parameters. Default: 8.
        - `progress`: True, or a function that is called with (done, total) documents. A listwise model or cascade
          counts within each group of `batch_size` queries.

        The other arguments and the errors are those of `dearlite.rerank`.

        Examples:
            >>> from dearlite import Reranker
            >>> docs = ["Coffee is good for diet", "Edison's bulb, 1879"]
            >>> jobs = [("who invented the light bulb?", docs), ("is coffee healthy?", docs)]
            >>> for ranking in Reranker.load().rerank_many(jobs, top_k=1):
            ...     print(ranking.query, "->", ranking[0].text)
            who invented the light bulb? -> Edison's bulb, 1879
            is coffee healthy? -> Coffee is good for diet

        """
        self.check_open()
        with shown(progress) as callback:
            call = Call(
                top_k=top_k, listwise=listwise, progress=callback, cancel=cancel, long=long, batch_size=batch_size
            )
            self._check_stages(call)
            rankings = self.rank([(query, read_docs(docs, fields)) for query, docs in checked_jobs(jobs)], call)
            return cast("list[Ranking[T]]", rankings)

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
        progress: Progress | bool | None = None,
        cancel: Event | None = None,
        fields: Fields | None = None,
    ) -> list[float]:
        """One raw logit per (query, document) pair, in order.

        - `pairs`: a document is a string, a mapping or an object, as for `dearlite.rerank`.
        - `progress`: True, or a function that is called with (done, total) pairs; as for `dearlite.rerank`.
        - `cancel`: event whose setting ends the call with Cancelled.
        - `fields`: the fields of the documents, as for `dearlite.rerank`.

        Raises UsageError for a listwise model or a cascade, which have no score of a single document, and InvalidInput
        for a pair that cannot be read.

        Examples:
            >>> from dearlite import Reranker
            >>> query = "Who invented the light bulb?"
            >>> documents = ["Thomas Edison invented the light bulb in 1879", "Coffee is good for diet"]
            >>> scores = Reranker.load().score([(query, document) for document in documents])
            >>> [f"{score:+.0f}" for score in scores]
            ['+10', '-11']

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


def _no_score(model: str) -> str:
    return f"{model} is no pointwise model and has no score of a single document: call rerank, or load a .dear model"


def needs_two_stages(model: str) -> str:
    """The message for long mode "cascade" on a single model."""
    return f"{model} is one stage, and long mode cascade needs a stage before it that picks passages: give two models"
