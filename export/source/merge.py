"""A base model with a PEFT LoRA adapter, read as one merged model: rows are merged on request.

    W + scale · B A,  scale = alpha / r, or alpha / sqrt(r) with rslora; arXiv 2106.09685 (LoRA), 2312.03732 (rslora)

All arithmetic is float32 on the stored values, whatever the dtype of base and adapter. Tensors that the adapter stores
in full (PEFT's `modules_to_save`: the score head) replace those of the base. Over a base whose output matrix is its
embedding (tie_word_embeddings), an adapter may train one of the two: the merged model then has both, as in PEFT's
forward pass (its merge_and_unload changes both). An adapter with any other setting is refused before the first row is
read: a merge that ignores the setting would give a different model without an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import numpy as np

from dearlite.errors import CheckpointError
from dearlite.export.source.adapter import PREFIX, Adapter, as_list, classifier_names
from dearlite.export.source.checkpoint import Checkpoint, Floats, TensorSource, TensorSpec, name_some, read_rows

EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
HEADS = ("score.", "classifier.")  # prefixes of the heads of sequence classifiers in transformers
_ROWS = 4096  # rows that are compared at once
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_NO_HEAD = (
    'it has no score head and neither has the base: train it with LoraConfig(task_type="SEQ_CLS", '
    'modules_to_save=["score"]), then save_pretrained writes the head into the adapter'
)


class MergedCheckpoint(TensorSource):
    """A checkpoint with an adapter merged in, as a TensorSource; without an adapter, the checkpoint itself.

    Names are those of the classifier: a base saved without the prefix `model.` gets it here. `config` is the base's.
    """

    def __init__(self, checkpoint: Checkpoint, adapter: Adapter | None = None, *, require_head: bool = True) -> None:
        """Raises CheckpointError listing everything that does not fit, a missing score head included."""
        self.checkpoint, self.adapter, self.config = checkpoint, adapter, checkpoint.config
        self._base = {spelling: name for name, spelling in classifier_names(checkpoint.names).items()}
        self.untied = False  # True if the adapter trains one of two matrices that are one in the base
        if not require_head and self.config.get("tie_word_embeddings") and EMBEDDING in self._base:
            self._untie(adapter)
        self._saved: dict[str, TensorSpec] = {}
        self._last_a: tuple[str, Floats] | None = None  # (tensor, its A): all blocks of a tensor need the same A
        headless = require_head and not any(
            name.startswith(HEADS) for name in (*self._base, *(adapter.saved if adapter else ()))
        )
        if adapter is not None:
            misfits = [*adapter.misfits, *self._find_misfits(adapter), *([_NO_HEAD] if headless else [])]
            if require_head and adapter.trains(OUTPUT):
                misfits.append("it trains lm_head, which no scorer has: export it as a .gguf")
            if misfits:
                remedy = (
                    f": give the base that it was trained on ({adapter.base_name or 'see its model card'}), "
                    "or merge it with PEFT (merge_and_unload, save_pretrained) and export that folder"
                )
                raise CheckpointError(
                    f"{adapter.folder} cannot be merged into {checkpoint.folder}: "
                    f"{name_some(misfits, 8, '; ')}{'' if misfits == [_NO_HEAD] else remedy}"
                )
            self._saved = {name: adapter.tensors[tensor] for name, tensor in adapter.saved.items()}
        elif headless:
            raise CheckpointError(
                f"{checkpoint.folder} has no score head (no tensor {' or '.join(f'{head}*' for head in HEADS)}): "
                "it is not a reranker yet, give the adapter that holds one"
            )
        self._names = dict.fromkeys((*self._base, *self._saved))

    @property
    def names(self) -> Collection[str]:
        return self._names.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._saved[name].shape if name in self._saved else self.checkpoint.shape(self._base.get(name, name))

    def rows(self, name: str, start: int, stop: int) -> Floats:
        if name in self._saved:
            assert self.adapter is not None
            return read_rows(self.adapter.saved[name], self._saved[name], start, stop)
        block = self.checkpoint.rows(self._base.get(name, name), start, stop)  # (rows, in)
        sides = self.adapter.lora.get(name.removesuffix(".weight")) if self.adapter else None
        if sides and name.endswith(".weight"):
            assert self.adapter is not None
            tensors = self.adapter.tensors
            cached = self._last_a
            if cached is None or cached[0] != name:  # a local variable: another thread may read another tensor
                a = read_rows(sides["A"], tensors[sides["A"]], 0, self.adapter.rank)  # (r, in)
                cached = self._last_a = (name, a)
            update = read_rows(sides["B"], tensors[sides["B"]], start, stop) @ cached[1]  # (rows, in)
            update *= np.float32(self.adapter.scale)
            block += update
        return block

    def _untie(self, adapter: Adapter | None) -> None:
        """Gives a tied base an output matrix of its own where `adapter` trains one of the two.

        Raises CheckpointError for a file with another output matrix: transformers 4 and vLLM leave it out, transformers
        5 and llama.cpp use it.
        """
        if OUTPUT in self._base and not self._equal(self.checkpoint, self._base[OUTPUT], self._base[EMBEDDING]):
            raise CheckpointError(
                f"{self.checkpoint.folder}: config.json ties the output matrix to the embedding, and the file's "
                "lm_head.weight is another matrix: set tie_word_embeddings to false to use it, or remove the tensor"
            )
        if adapter is not None and (adapter.trains(OUTPUT) or adapter.trains(EMBEDDING)):
            self.untied = True
            self.config = self.config | {"tie_word_embeddings": False}
            self._base.setdefault(OUTPUT, self._base[EMBEDDING])

    def _equal(self, other: TensorSource, name: str, base: str) -> bool:
        """True if the tensor `name` of `other` has the values of the base's tensor `base`."""
        if other.shape(name) != self.checkpoint.shape(base):
            return False
        blocks = zip(other.blocks(name, _ROWS), self.checkpoint.blocks(base, _ROWS), strict=True)
        return all(np.array_equal(ours, theirs) for ours, theirs in blocks)

    def _find_misfits(self, adapter: Adapter) -> list[str]:
        """Messages about adapter tensors that have no counterpart in the base, or another shape."""
        shapes = {name: self.checkpoint.shape(tensor) for name, tensor in self._base.items()}
        fitting = [module for module in adapter.lora if f"{module}.weight" in shapes]
        misfits = []
        if adapter.lora and not fitting:
            misfits.append(
                f"none of its {len(adapter.lora)} modules is in the base: it has {next(iter(adapter.lora))}, "
                f"the base has {next(iter(shapes), 'nothing')}"
            )
        else:
            misfits += [f"{module} is not in the base" for module in adapter.lora if module not in fitting]
        for module in fitting if adapter.rank else ():
            shape, rank = shapes[f"{module}.weight"], adapter.rank
            expected = {"A": (rank, *shape[1:]), "B": (*shape[:1], rank)}
            sides = {side: adapter.tensors[tensor].shape for side, tensor in adapter.lora[module].items()}
            if len(shape) != 2 or any(sizes != expected[side] for side, sizes in sides.items()):
                actual = " and ".join(f"lora_{side} {list(sizes)}" for side, sizes in sides.items())
                misfits.append(f"{module} has {actual}, for r {rank} and a base of {list(shape)}")
        for name, tensor in adapter.copies.items():
            if name not in shapes or not self._equal(adapter, tensor, self._base[name]):
                misfits.append(f"{tensor.removeprefix(PREFIX)} is not the base's {name}")
        hidden = self.config.get("hidden_size")
        for name, tensor in adapter.saved.items():
            sizes = adapter.tensors[tensor].shape
            if name in shapes and sizes != shapes[name]:
                misfits.append(f"{name} is {list(sizes)}, the base's is {list(shapes[name])}")
            elif name not in shapes and not name.startswith(HEADS):
                misfits.append(
                    f"{name} is {'of an unsupported LoRA variant' if '.lora_' in name else 'not in the base'}"
                )
            elif name.endswith("weight") and name.startswith(HEADS) and hidden and sizes[1:] != (hidden,):
                misfits.append(f"{name} is {list(sizes)}, and the base's hidden_size is {hidden}")
        for module in dict.fromkeys(as_list(adapter.config.get("modules_to_save"))):
            # PEFT lists `score` and `classifier` by default; only a module that the model has must be saved.
            tensors_of = re.compile(rf"(.+\.)?{re.escape(module)}\..+")
            if any(map(tensors_of.fullmatch, shapes)) and not any(map(tensors_of.fullmatch, adapter.saved)):
                misfits.append(f"modules_to_save names {module}, and no such tensor was saved")
        return misfits


def check_base(adapter_config: dict[str, Any], checkpoint: Checkpoint) -> str | None:
    """A warning when the adapter names another base than the checkpoint's folder and configuration do, else None.

    It is not an error because folders are renamed and repositories move. `MergedCheckpoint` checks that tensors fit.
    """
    trained_on = str(adapter_config.get("base_model_name_or_path") or "")
    known = [checkpoint.folder.resolve().name, *_repositories(checkpoint)]
    if not trained_on or _last_part(trained_on) in map(_last_part, known):
        return None
    return (
        f"the adapter was trained on {trained_on} and is merged into {checkpoint.folder}, which has another name: "
        "make sure that it is the same model"
    )


def refuse_other_base(adapter_config: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Raises CheckpointError when adapter and base each name a repository and the two names differ.

    The tensors of a base and of its instruct version have the same shapes: their merge would run and write nonsense.
    A folder that names no repository is not refused; `check_base` returns a warning for it.
    """
    trained_on = str(adapter_config.get("base_model_name_or_path") or "")
    named = [name for name in _repositories(checkpoint) if _REPOSITORY.fullmatch(name)]
    if check_base(adapter_config, checkpoint) and _REPOSITORY.fullmatch(trained_on) and named:
        raise CheckpointError(
            f"the adapter was trained on {trained_on} and {checkpoint.folder} is {named[0]}: give the base that it was "
            "trained on (--force merges it anyway)"
        )


def _repositories(checkpoint: Checkpoint) -> list[str]:
    """The base's repository names: from its path in the Hub's cache (models--owner--name) and from its config.json."""
    parts = checkpoint.folder.resolve().parts
    cached = [part.removeprefix("models--").replace("--", "/") for part in parts if part.startswith("models--")]
    return [*cached, str(checkpoint.config.get("_name_or_path") or "")]


def _last_part(name: str) -> str:
    """The last component of a repository name or path, in lower case."""
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()
