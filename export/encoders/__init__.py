"""Exports encoders through optimum to `.dear` files."""
