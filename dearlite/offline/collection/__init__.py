"""Queries, documents, judgements and first-stage runs, read and checked together."""
