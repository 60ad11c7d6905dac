"""Listwise models: one prompt per window of documents, and an order that is always a permutation."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from dearlite.agreement import rank_in_passes
from dearlite.anytime import order_within, rank_within
from dearlite.deadline import Deadline
from dearlite.errors import EngineError, ModelFileError, UsageError, warn
from dearlite.jobs import Job
from dearlite.listwise.encoders import Encoders
from dearlite.listwise.engine import LlamaBackend
from dearlite.listwise.forms import mode_of
from dearlite.listwise.modes import fields_of
from dearlite.listwise.runner import Runner
from dearlite.listwise.runs import run_of
from dearlite.listwise.settings import read_settings
from dearlite.listwise.writing import Writer
from dearlite.loading import Recipe, lasting_name
from dearlite.machine import check_threads
from dearlite.models.gguf import GgufFile
from dearlite.options import Call, Listwise
from dearlite.progress import Progress
from dearlite.ranking import Ranking, check_top_k
from dearlite.reranker import Reranker
from dearlite.stages import QueryState

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
        if adapter is not None and not str(adapter):
            raise UsageError("the name of the adapter is empty: name a LoRA in GGUF form, or leave it out")
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
        template = file.metadata.get(_CHAT_TEMPLATE) or None
        self._settings = read_settings(file, template is not None, self._backend.context_tokens)
        self.model = self._settings.name
        self._encoders = Encoders(self._backend.vocabulary, self._settings, template)
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
        """(window, stride) of a call with `listwise`. In a mode without windows, one holds a list of any length."""
        options = self._options(listwise)
        return options.span if options.has_windows else (sys.maxsize, sys.maxsize)

    def _release(self) -> None:
        self._backend.close()

    def identity(self, listwise: Listwise | None = None) -> dict[str, str]:
        self.check_open()
        options = self._options(listwise)
        prompt, encoder = self._encoders.find(options)
        files = [self._file] if self._lora is None else [self._file, self._lora]
        return {
            "model": self.model,
            "sha256": " + ".join(file.recorded_sha256 or file.sha256() for file in files),
            "device": self.device,
            "quantisation": self.quantisation,
            # The hash covers every field name and value of the form: renaming one invalidates journals and caches.
            "prompt": f"{prompt} {hashlib.sha256(repr(encoder.form).encode()).hexdigest()[:16]}",
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
        if self._encoders.template is None:
            raise UsageError(f"{self.model} has no chat template, which text needs: take an instruct model")
        return Writer(self.model, self._backend, self._encoders.template, self._end_tokens, self._most_tokens)

    def _rank_passes(self, jobs: Sequence[Job], call: Call) -> list[Ranking]:
        """One Ranking per job. Each shuffled pass counts as one query towards `call.batch_size`."""
        top_k, passes = check_top_k(call.top_k), 1 if call.listwise is None else call.listwise.passes
        self.span(call.listwise)  # raises for wrong options before any work
        if passes == 1:
            return self._rank_groups(jobs, call, top_k)
        return rank_in_passes(lambda shuffled: self._rank_groups(shuffled, call, None), jobs, passes, top_k)

    def _rank_groups(self, jobs: Sequence[Job], call: Call, top_k: int | None) -> list[Ranking]:
        """One Ranking per job, `call.batch_size` jobs at a time."""
        groups = (jobs[start : start + call.batch_size] for start in range(0, len(jobs), call.batch_size))
        return [ranking for group in groups for ranking in self._rank_batch(group, call, top_k)]

    def _rank_batch(self, jobs: Sequence[Job], call: Call, top_k: int | None) -> list[Ranking]:
        """One Ranking per job, by the mode of the call."""
        options = self._options(call.listwise)
        _, encoder = self._encoders.find(options)
        runner = Runner(self._backend, encoder, self.model, self._most_tokens, self._end_tokens)
        return run_of(options)(runner, jobs, options, call, top_k)

    def _options(self, listwise: Listwise | None) -> Listwise:
        """The options of a call, with the file's own where it has none. Raises UsageError."""
        options, settings = listwise or Listwise(), self._settings
        mode = mode_of(options.prompt or settings.prompt) if options.mode is None else options.mode
        return options.checked(settings.window, settings.stride, mode)

    @property
    def _most_tokens(self) -> int:
        """The number of tokens of the longest prompt and its answer."""
        return min(self._settings.max_tokens, self._backend.context_tokens)
