"""Scores of documents from the attention that their tokens get: arrays in, scores out.

The definition is that of ICR (arXiv 2410.02642; OSU-NLP-Group/In-Context-Reranking, "masked_NA_calibration"), which
QRHead shares for its own heads (princeton-pli/QRHead).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DEVIATIONS = 2.0  # a token this far below its document's mean is left out


def document_scores(
    attention: NDArray[np.float32], null_attention: NDArray[np.float32], spans: Sequence[tuple[int, int]]
) -> list[float]:
    """One score per span (start, stop) of positions: the sum of its calibrated weights, without outliers.

    Both arrays have one mean weight per position: from the tokens of the query, and of the query without content. A
    position's calibrated weight is their difference. Left out are positions at or below the mean of the span minus two
    standard deviations (of a sample: n - 1); a span of one position is its weight.
    """
    difference = attention.astype(np.float64) - null_attention
    scores = []
    for start, stop in spans:
        weights = difference[start:stop]
        if len(weights) > 1:
            weights = weights[weights > weights.mean() - _DEVIATIONS * weights.std(ddof=1)]
        scores.append(float(weights.sum()))
    return scores
