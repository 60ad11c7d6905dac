"""Training records: groups, rankings, and mining them from a collection."""
