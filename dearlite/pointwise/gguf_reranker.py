"""Pointwise models in GGUF files, on llama.cpp: the same rankings, stages and budgets as those of a `.dear` file."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from dearlite.errors import EngineError, ModelFileError, UsageError, warn
from dearlite.llama.bindings import installed_build
from dearlite.llama.model import Interrupted
from dearlite.loading import Recipe, lasting_name
from dearlite.machine import check_threads
from dearlite.models.gguf import GgufFile
from dearlite.pointwise.arguments import check_no_listwise
from dearlite.pointwise.gguf_engine import GgufBackend
from dearlite.pointwise.gguf_settings import read_gguf_settings
from dearlite.pointwise.reranker import PointwiseReranker
from dearlite.processor import processor_class

if TYPE_CHECKING:
    from dearlite.options import Listwise
    from dearlite.pointwise.tokens import TokenRow


class GgufReranker(PointwiseReranker):
    """A pointwise model in one GGUF. Calls from several threads take turns."""

    def __init__(
        self,
        source: Path | GgufFile,
        *,
        device: str = "auto",
        threads: int | None = None,
        gpu_layers: int | None = None,
        instruction: str | None = None,
        prompt: str | None = None,
    ) -> None:
        """Loads a file, open or given by its path; usually called by `Reranker.load`."""
        file = source if isinstance(source, GgufFile) else GgufFile(source)
        own = {"gpu_layers": gpu_layers, "instruction": instruction, "prompt": prompt}
        self.recipe = Recipe(lasting_name(file.path), {"device": device, "threads": threads}, pointwise=own)
        try:
            self._backend = self._llama = backend = GgufBackend(
                file, device=device, gpu_layers=gpu_layers, threads=check_threads(threads, in_step=True)
            )
        except EngineError as err:
            raise ModelFileError(f"{file.path} cannot be loaded: {err.reason}: fetch or export it again") from err
        vocabulary = backend.vocabulary
        self._file = file
        self._settings = settings = read_gguf_settings(file, vocabulary, backend.context_tokens, prompt)
        if instruction is not None and not settings.takes_instruction:
            raise UsageError(
                f"{settings.name} takes no instruction (its prompt {settings.prompt} has no place for one): "
                "leave it out"
            )
        backend.reading = settings.reading
        self.model = settings.name
        self._set_relevance(settings.calibration, settings.activation, str(file.path))
        self._prompt = settings.prompts(vocabulary, instruction)
        self._encoder = self._prompt.texts
        for note in self._backend.notes:
            warn(note)

    @property
    def quantisation(self) -> str:
        return self._file.main_type

    def _release(self) -> None:
        self._llama.close()

    def identity(self, listwise: Listwise | None = None) -> dict[str, str]:
        self.check_open()
        check_no_listwise(listwise, self.model)
        return {
            "model": self.model,
            "sha256": self._file.recorded_sha256 or self._file.sha256(),
            "device": self.device,
            "quantisation": self.quantisation,
            **self._prompt.identity(self._settings.prompt),
            "llama.cpp": installed_build().package,
            "processor": processor_class(),
        }

    def _stream(self, rows: Iterator[TokenRow], cancel: Event | None) -> Generator[float, None, None]:
        try:
            yield from self._llama.score(rows, cancel)
        except Interrupted:
            return
