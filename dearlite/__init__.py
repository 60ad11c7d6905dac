"""dearlite: DeAR document reranking on a laptop.

    from dearlite import rerank
    for hit in rerank("who invented the light bulb?", ["Coffee is good for diet", "Edison's bulb, 1879"]):
        print(hit.rank, hit.score, hit.text)

Where to start:

    rerank(query, docs)       a Ranking of Hits, best first; the model stays loaded until `unload()`
    Reranker.load(model)      a model or a cascade, for many calls: rerank, rerank_many, score, arerank, astream
    Listwise(...), Long(...)  options of listwise models and of long documents
    Fields(text=..., id=...)  names of the fields of your records
    rerank_run, evaluate      a whole run of queries, and its measures; `compare` measures existing runs
    DearliteError             the base of all errors, Cancelled among them

Models are named in `dearlite models` on the command line; `dearlite.export` makes them, `dearlite.integrations` has
rerankers for other frameworks, `dearlite.recommend` chooses a model for this machine.

Importing this package loads no model library, and no module of its own: each is imported when a name is first used.
"""

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from dearlite.version import __version__

__all__ = [
    "BudgetTooShort",
    "Cancelled",
    "CheckpointError",
    "Collection",
    "Corpus",
    "DearliteError",
    "DearliteWarning",
    "DeviceUnavailable",
    "DiskFull",
    "Document",
    "EngineError",
    "Evaluation",
    "FetchError",
    "Fields",
    "FolderDocuments",
    "Hit",
    "InvalidInput",
    "JournalInUse",
    "LibraryNotLoaded",
    "Listwise",
    "Long",
    "MissingExtra",
    "ModelFileError",
    "OutOfMemory",
    "Passage",
    "ProgressEvent",
    "Ranking",
    "RankingEvent",
    "RerankEvent",
    "RerankedRun",
    "Reranker",
    "ScoringError",
    "StageReport",
    "StageScore",
    "TextEvent",
    "UnknownModel",
    "UsageError",
    "__version__",
    "arerank",
    "compare",
    "decompose",
    "evaluate",
    "make_collection",
    "read_folder",
    "rerank",
    "rerank_run",
    "unload",
]

# module -> names that it defines, imported at the first use of one: the command line starts without them
_MODULES = {
    "api": "arerank rerank unload",
    "documents": "Document",
    "errors": "BudgetTooShort Cancelled CheckpointError DearliteError DearliteWarning DeviceUnavailable DiskFull "
    "EngineError FetchError InvalidInput JournalInUse LibraryNotLoaded MissingExtra ModelFileError "
    "OutOfMemory ScoringError UnknownModel UsageError",
    "fields": "Fields",
    "folders.passage": "Passage",
    "folders.reading": "FolderDocuments read_folder",
    "lexical.corpus": "Corpus",
    "listwise.subqueries": "decompose",
    "offline": "compare evaluate rerank_run",
    "offline.collection.collection": "Collection make_collection",
    "offline.evaluation.evaluation": "Evaluation",
    "offline.run.results": "RerankedRun",
    "options": "Listwise Long",
    "ranking": "Hit Ranking StageReport StageScore",
    "reranker": "Reranker",
    "tasks": "ProgressEvent RankingEvent RerankEvent TextEvent",
}
_LAZY = {name: f"dearlite.{module}" for module, names in _MODULES.items() for name in names.split()}

if TYPE_CHECKING:
    from dearlite.api import arerank, rerank, unload
    from dearlite.documents import Document
    from dearlite.errors import (
        BudgetTooShort,
        Cancelled,
        CheckpointError,
        DearliteError,
        DearliteWarning,
        DeviceUnavailable,
        DiskFull,
        EngineError,
        FetchError,
        InvalidInput,
        JournalInUse,
        LibraryNotLoaded,
        MissingExtra,
        ModelFileError,
        OutOfMemory,
        ScoringError,
        UnknownModel,
        UsageError,
    )
    from dearlite.fields import Fields
    from dearlite.folders.passage import Passage
    from dearlite.folders.reading import FolderDocuments, read_folder
    from dearlite.lexical.corpus import Corpus
    from dearlite.listwise.subqueries import decompose
    from dearlite.offline import compare, evaluate, rerank_run
    from dearlite.offline.collection.collection import Collection, make_collection
    from dearlite.offline.evaluation.evaluation import Evaluation
    from dearlite.offline.run.results import RerankedRun
    from dearlite.options import Listwise, Long
    from dearlite.ranking import Hit, Ranking, StageReport, StageScore
    from dearlite.reranker import Reranker
    from dearlite.tasks import ProgressEvent, RankingEvent, RerankEvent, TextEvent
else:  # a type checker that saw __getattr__ would accept any name

    def __getattr__(name: str) -> object:
        if name in _LAZY:
            value = globals()[name] = getattr(import_module(_LAZY[name]), name)
            return value
        if not name.startswith("_"):  # dearlite.errors, say, after `import dearlite` alone
            with suppress(ModuleNotFoundError):
                return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
