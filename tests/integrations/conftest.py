"""A loaded model for the frameworks, and documents of which it knows the order."""

import os

import pytest

from dearlite import Reranker

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "false")  # read when Haystack is imported

QUERY = "who invented the light bulb?"
TEXTS = [
    "Coffee is good for diet",
    "Thomas Edison invented the light bulb in 1879",
    "KEPCO fixes light problems",
    "Coffee is good for diet",
]
ORDER = [1, 2, 0, 3]  # equal texts keep their order


@pytest.fixture(scope="session")
def reranker():
    with Reranker.load(threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def relevance(reranker):
    """Text -> calibrated relevance, by dearlite's own call."""
    return {hit.text: hit.relevance for hit in reranker.rerank(QUERY, TEXTS)}


@pytest.fixture(scope="session")
def logits(reranker):
    return {hit.text: hit.score for hit in reranker.rerank(QUERY, TEXTS)}
