"""Rerankers for other frameworks, one module per framework, which is imported only when its module is.

Each loads a model as `Reranker.load` does, or takes a loaded `Reranker`; changes no input; and gives scores from 0 to 1
(`dearlite.relevance`), or raw scores with `raw_scores`.
"""
