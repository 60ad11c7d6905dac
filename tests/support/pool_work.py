"""Functions for the processes of a pool, which import them by this module's name: a test file has none there."""


def uses(model):
    """Number of calls of this function with one loaded model, in one process."""
    model._backend.uses = getattr(model._backend, "uses", 0) + 1
    return model._backend.uses


def scored(model, query, docs):
    """The index and the score of each document, best first."""
    return [(hit.index, hit.score) for hit in model.rerank(query, docs)]
