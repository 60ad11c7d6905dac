"""Reranking a run of many queries without losing work."""
