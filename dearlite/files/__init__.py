"""File input and output: readers of documents, TREC runs and judgements, atomic writing, and hashes."""
