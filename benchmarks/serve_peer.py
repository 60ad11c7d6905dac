"""A rerank endpoint as it is usually written: sentence-transformers' CrossEncoder behind FastAPI, for serve.py.

    python benchmarks/serve_peer.py FOLDER PORT_FILE

FOLDER is the published model in sentence-transformers' layout (published.py). The port is written to PORT_FILE.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from published import MAX_TOKENS
from pydantic import BaseModel
from sentence_transformers import CrossEncoder


class Body(BaseModel):
    """A request."""

    query: str
    documents: list[str]


def make_app(folder: str) -> FastAPI:
    """The application; FastAPI runs the function of the endpoint in its pool of threads."""
    model = CrossEncoder(
        folder,
        backend="onnx",
        device="cpu",
        max_length=MAX_TOKENS,
        local_files_only=True,
        model_kwargs={"provider": "CPUExecutionProvider", "file_name": "onnx/model.onnx"},
    )
    app = FastAPI()

    @app.post("/rerank")
    def rerank(body: Body) -> dict[str, list[dict[str, float]]]:
        pairs = [(body.query, text) for text in body.documents]
        scores = [float(score) for score in model.predict(pairs, batch_size=32, show_progress_bar=False)]
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        return {"results": [{"index": index, "relevance_score": scores[index]} for index in order]}

    return app


if __name__ == "__main__":
    app = make_app(sys.argv[1])
    bound = socket.create_server(("127.0.0.1", 0))
    Path(sys.argv[2]).write_text(str(bound.getsockname()[1]))
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[bound])
