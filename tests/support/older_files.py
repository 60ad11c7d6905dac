"""A model file that dearlite wrote before the limit of pairs (2026-11-28), and its scores.

It is the network of tiny_bundle.py with 16 columns and 2,100 tokens; its int8 weights span the whole range, and it has
a graph for each class of CPU. `IN_FP32` are the scores of the same weights in fp32 arithmetic, by the same exporter.
"""

from pathlib import Path

WIDE_GRAPH = Path(__file__).parents[1] / "data" / "wide_graph.dear"
PAIRS = [
    ("who made the first film", "the film was made in the first war"),
    ("who made the first film", "he was born in a city"),
    ("state", "north of the state"),
]
SCORES = [-0.28822, -0.22673, 0.6354]
IN_FP32 = [-0.29296, -0.24008, 0.60432]
