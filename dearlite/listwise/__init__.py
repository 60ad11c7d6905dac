"""Listwise models, which order a window of documents: prompts, token ids, llama.cpp, permutations."""
