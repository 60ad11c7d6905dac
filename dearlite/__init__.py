"""dearlite: DeAR document reranking on a laptop.

    from dearlite import rerank
    for hit in rerank("who invented the light bulb?", ["Coffee is good for diet", "Edison's bulb, 1879"]):
        print(hit.rank, hit.score, hit.text)

Importing this package loads no model library: ONNX Runtime and the rest are imported where they are first used.
"""

from dearlite.api import rerank
from dearlite.documents import Document
from dearlite.errors import DearliteError
from dearlite.offline import evaluate, rerank_run
from dearlite.options import Listwise, Long
from dearlite.ranking import Hit, Ranking
from dearlite.reranker import Reranker
from dearlite.version import __version__

__all__ = [
    "DearliteError",
    "Document",
    "Hit",
    "Listwise",
    "Long",
    "Ranking",
    "Reranker",
    "__version__",
    "evaluate",
    "rerank",
    "rerank_run",
]
