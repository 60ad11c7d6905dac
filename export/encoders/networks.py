"""The scorer of a folder as modules of torch: transformers' own classifier, or its model with a head after it.

This module uses torch and transformers (the extra `encoders`) and imports them when it is called. It reads safetensors
only and runs no code from the folder.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from dearlite.errors import CheckpointError, need
from dearlite.export.encoders.heads import Head, score_of, tensors_of
from dearlite.export.source.checkpoint import Checkpoint, name_some
from dearlite.foreign import one_line_errors


@dataclass(frozen=True, slots=True)
class Network:
    """A scorer in torch, fp32; the output of both modules has `logits`, (1, 1).

    `reference` is transformers' own computation, `traced` gives the same score and is traced. `inputs` is the model
    type whose inputs optimum gives it.
    """

    reference: Any
    traced: Any
    inputs: str


class Scorer(Protocol):
    """The way in which the model of a folder scores a pair."""

    def load(self, checkpoint: Checkpoint) -> Network:
        """The model of the folder. Raises CheckpointError for tensors that are missing, left over or misshapen."""
        ...


@dataclass(frozen=True, slots=True)
class Classifier:
    """A classifier of transformers with one label, or its model with `head` in place of the classifier."""

    head: Head | None = None

    def load(self, checkpoint: Checkpoint) -> Network:
        transformers, head = need("transformers", extra="encoders"), self.head
        if head is None or head.output == "logits":
            net = load(checkpoint, transformers.AutoModelForSequenceClassification)
        else:
            # The pooler is for the output of a classifier, which the head does not read; few folders have its weights.
            net = load(checkpoint, transformers.AutoModel, unread="pooler.")
        scorer = net if head is None else _with_head(net, head)
        return Network(scorer, scorer, net.config.model_type)


def load(checkpoint: Checkpoint, auto: Any, unread: str = "") -> Any:
    """The model that the class `auto` of transformers makes of the folder; tensors named `unread`… may be missing."""
    torch = need("torch", extra="encoders")
    failure = f"{checkpoint.folder}: transformers cannot load the model of its config.json"
    with one_line_errors(failure, "fetch config.json again, of the revision of the weights", CheckpointError):
        net, info = auto.from_pretrained(
            checkpoint.folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # reported below, together with the other errors
            output_loading_info=True,
        )
    missing = [name for name in sorted(info["missing_keys"]) if not (unread and name.startswith(unread))]
    wrong = [f"{name} is missing" for name in missing]
    wrong += [f"{name} fits nothing" for name in sorted(info["unexpected_keys"])]
    sides = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    for name in sorted(info["mismatched_keys"]):
        wrong.append(f"{name} is {_shape(checkpoint, name)}, not {sides[name]}")
    if wrong:
        # transformers would initialise the missing tensors with random numbers.
        raise CheckpointError(f"the checkpoint is not the scorer of its config.json: {name_some(wrong, 6, '; ')}")
    return net.eval()


def _shape(checkpoint: Checkpoint, name: str) -> object:
    """The tensor's shape in the file, whose names may have the prefix of the model."""
    names: Collection[str] = checkpoint.names
    return next((checkpoint.shape(own) for own in names if own == name or own.endswith(f".{name}")), "other")


def _with_head(base: Any, head: Head) -> Any:
    """A module whose `logits` are the score of `head`, so that both are traced as one classifier."""
    import torch
    from transformers.modeling_outputs import SequenceClassifierOutput

    class HeadedModel(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.config, self.base = base.config, base
            self.names = {name: f"head_{name.replace('.', '_')}" for name in tensors_of(head)}
            for name, values in tensors_of(head).items():
                self.register_buffer(self.names[name], torch.from_numpy(values))

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            output = self.base(input_ids=input_ids, attention_mask=attention_mask, **types)[head.output]
            tensors = {name: getattr(self, own) for name, own in self.names.items()}
            return SequenceClassifierOutput(logits=score_of(head, output, tensors))

    return HeadedModel().eval()
