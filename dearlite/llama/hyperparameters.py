"""A check of a GGUF's hyperparameters and vocabulary, made before llama.cpp sees the file."""

from __future__ import annotations

import re
from math import isfinite

from dearlite.errors import ModelFileError
from dearlite.models.gguf import GgufFile


def check_hyperparameters(file: GgufFile) -> None:
    """Raises ModelFileError for values at which the library ends the process, and for parts that do not fit."""
    family = str(file.metadata.get("general.architecture"))
    own = {key: value for key, value in file.metadata.items() if key.startswith(f"{family}.")}
    wrong = [
        f"{key} is {value}"
        for key, value in own.items()
        if isinstance(value, float) and (not isfinite(value) or (key.endswith("epsilon") and value <= 0))
    ]
    numbers = [int(name.split(".")[1]) for name in file.tensors if re.match(r"blk\.\d+\.", name)]
    blocks, stated = max(numbers, default=-1) + 1, own.get(f"{family}.block_count")
    if not isinstance(stated, int) or not 1 <= stated <= blocks:
        wrong.append(f"{family}.block_count is {stated}, and there are {blocks} blocks")
    tokens, embedding = file.metadata.get("tokenizer.ggml.tokens"), file.tensors.get("token_embd.weight")
    if isinstance(tokens, list) and embedding is not None and embedding.shape[1:] != (len(tokens),):
        wrong.append(f"its tokenizer has {len(tokens)} tokens, and its embedding {embedding.shape[-1]} rows")
    if wrong:
        raise ModelFileError(
            f"{file.path} is not a complete language model ({'; '.join(wrong)}): fetch or export it again"
        )
