"""Exports LLaMA-family scorers to `.dear` files, one tensor at a time."""
