"""The lexical stage of a cascade: BM25 over the documents of a call or of a collection."""
