"""Files in and out: readers of documents, TREC runs and judgements, writing whole or not at all."""
