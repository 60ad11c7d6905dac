"""T5 rerankers (monoT5): the encoder reads the prompt, and one step of the decoder answers in one of two words.

The score is log P(true) of the two words alone, as its makers compute it (castorini/pygaggle@08339dd): the log softmax
over the logits of both words at the decoder's first position. The decoder sees one token, so that its self-attention is
the value of that token, and only its keys and values of the encoder's output run on every token of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from dearlite.errors import CheckpointError, need
from dearlite.export.encoders.networks import Network, load
from dearlite.export.source.checkpoint import Checkpoint

PROBABILITY = {"kind": "exp"}  # the manifest's activation: the score is the log of the makers' probability
_LARGE = 8.0  # difference of the logits above which the log softmax is -exp(-difference), to 1e-7
_INPUTS = "distilbert"  # a model type with the same inputs, ids and mask, for optimum's settings


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """The scorer that two words make of a T5: the ids of `false` and `true` in its vocabulary."""

    false: int
    true: int

    def __str__(self) -> str:
        return f"log softmax of lm_head[{self.false}], lm_head[{self.true}] at [{self.true}]"

    def load(self, checkpoint: Checkpoint) -> Network:
        """The model of the folder. Raises CheckpointError for tensors that do not fit, and for ids beyond its rows."""
        net = load(checkpoint, need("transformers", extra="encoders").AutoModelForSeq2SeqLM)
        config = net.config
        start = config.decoder_start_token_id
        start = config.pad_token_id if start is None else start
        rows = net.get_output_embeddings().weight.shape[0]
        for name, number in (("start", start), ("false", self.false), ("true", self.true)):
            if type(number) is not int or not 0 <= number < rows:
                raise CheckpointError(
                    f"{checkpoint.folder}: the {name} token of its decoder has the id {number}, and the output matrix "
                    f"has {rows} rows: fetch the model again, all files of one revision"
                )
        return Network(_complete(net, start, self), _one_step(net, start, self), _INPUTS)


def first_answer(folder: Path, tokenizer: bytes, answers: Sequence[tuple[str, str]]) -> FirstAnswer:
    """The first of `answers`, pairs of pieces for false and true, that the tokenizer has. Raises CheckpointError."""
    vocabulary = Tokenizer.from_str(tokenizer.decode())
    for words in answers:
        false, true = map(vocabulary.token_to_id, words)
        if false is not None and true is not None:
            return FirstAnswer(false, true)
    listed = " or ".join(f"{true!r} and {false!r}" for false, true in answers)
    raise CheckpointError(f"{folder / 'tokenizer.json'} has no pieces {listed}, in which a T5 reranker answers")


def _complete(net: Any, start: int, answer: FirstAnswer) -> Any:
    """Transformers' own model, asked for the logits of the first position: the reference."""
    import torch
    from transformers.modeling_outputs import SequenceClassifierOutput

    class Complete(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.config, self.net = net.config, net

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            first = torch.full((1, 1), start)
            logits = self.net(input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=first).logits
            both = logits[:, 0, [answer.false, answer.true]]
            return SequenceClassifierOutput(logits=torch.log_softmax(both, dim=-1)[:, 1:])

    return Complete().eval()


def _one_step(net: Any, start: int, answer: FirstAnswer) -> Any:
    """The same score in the operations that it needs, to be traced."""
    import torch
    from transformers.modeling_outputs import SequenceClassifierOutput

    head = net.get_output_embeddings().weight.detach()
    scale = net.config.d_model**-0.5 if net.config.tie_word_embeddings else 1.0
    heads = net.config.num_heads

    class Layer(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, block: Any) -> None:
            super().__init__()
            self.own, self.cross, self.feed_forward = block.layer

        def forward(self, hidden: Any, encoded: Any) -> Any:
            own, cross = self.own.SelfAttention, self.cross.EncDecAttention
            hidden = hidden + own.o(own.v(self.own.layer_norm(hidden)))
            query, key, value = (
                part.reshape(1, -1, heads, part.shape[-1] // heads).transpose(1, 2)
                for part in (cross.q(self.cross.layer_norm(hidden)), cross.k(encoded), cross.v(encoded))
            )  # (1, heads, tokens, width of a head); T5 does not scale them
            weights = torch.softmax(query @ key.transpose(2, 3), dim=-1)
            hidden = hidden + cross.o((weights @ value).transpose(1, 2).reshape(1, 1, -1))
            return self.feed_forward(hidden)

    class OneStep(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.config, self.encoder, self.norm = net.config, net.encoder, net.decoder.final_layer_norm
            self.decoder = torch.nn.ModuleList(map(Layer, net.decoder.block))
            self.register_buffer("start", net.decoder.embed_tokens.weight.detach()[start].reshape(1, 1, -1).clone())
            self.register_buffer("difference", (head[answer.true] - head[answer.false]) * scale)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            encoded = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            hidden = self.start  # (1, 1, width)
            for layer in self.decoder:
                hidden = layer(hidden, encoded)
            odds = (self.norm(hidden) * self.difference).sum(-1)  # (1, 1): log of P(true) / P(false)
            score = torch.log_softmax(torch.cat([torch.zeros_like(odds), odds], dim=-1), dim=-1)[:, 1:]
            # Near 0 the log softmax has steps of 6e-8, and documents would tie.
            return SequenceClassifierOutput(logits=torch.where(odds > _LARGE, -torch.exp(-odds), score))

    return OneStep().eval()
