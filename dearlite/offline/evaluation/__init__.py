"""Measures, significance tests and the published evaluation."""
