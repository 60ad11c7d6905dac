"""A run as blocks on a Ray cluster."""
