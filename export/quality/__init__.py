"""Comparison of a written file with fp32: card, gate, workers; and calibration of scores to probabilities."""
