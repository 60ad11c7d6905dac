"""Offline evaluation: runs of many queries, reranked without losing work, and measured as the field measures them."""
