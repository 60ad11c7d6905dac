"""The scorer of a folder as a module of torch: transformers' own classifier, or its model with a head after it.

This module uses torch and transformers (the extra `encoders`) and imports them when it is called. It reads safetensors
only and runs no code from the folder.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from dearlite.errors import CheckpointError, need
from dearlite.export.encoders.heads import Head, score_of, tensors_of
from dearlite.export.source.checkpoint import Checkpoint, name_some
from dearlite.foreign import one_line_errors


def load_network(checkpoint: Checkpoint, head: Head | None) -> Any:
    """The scorer in fp32: its output has `logits`, (1, 1).

    Raises CheckpointError for tensors that are missing, left over or misshapen.
    """
    transformers = need("transformers", extra="encoders")
    if head is None or head.output == "logits":
        net = load(checkpoint, transformers.AutoModelForSequenceClassification)
    else:
        # The pooler is for the output of a classifier, which the head does not read; few folders have its weights.
        net = load(checkpoint, transformers.AutoModel, unread="pooler.")
    return net if head is None else _with_head(net, head)


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
