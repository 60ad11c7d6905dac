"""Attention rerankers: a list is ranked by the attention that its documents get from the query, without any text."""
