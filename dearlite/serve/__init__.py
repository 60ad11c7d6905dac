"""The rerank server: HTTP for the clients of Cohere, Jina, vLLM, TEI, infinity, llama.cpp and Voyage.

`requests`, `shapes`, `turns` and `models` know nothing of HTTP; `app` is the ASGI application, which `server`
runs.
"""
