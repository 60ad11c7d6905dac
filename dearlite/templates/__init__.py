"""The words around a query and a document in the prompt of a language model, as data, and their tokens."""
