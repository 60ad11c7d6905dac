"""Writes tests/data/minilm_fp32_scores.json: transformers' fp32 scores for the embedded model's weights.

    python tests/support/make_references.py MODEL.onnx        (the published int8 file; see export/encoders/minilm.py)

The matrices are the published int8 values times their scale; the network is transformers' own BERT, not ours.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tokenizers
import torch
import transformers
from noveleval import REFERENCES, pairs

from dearlite.export.encoders.bert import BertModel, Embedding, Norm
from dearlite.export.encoders.minilm import MODEL_SHA256, TOKENIZER_SHA256, read_published
from dearlite.export.onnx.linear import Linear


def state_dict(model: BertModel) -> dict[str, torch.Tensor]:
    """The parameters under the names that BertForSequenceClassification uses."""
    state: dict[str, torch.Tensor] = {}

    def linear(name: str, layer: Linear) -> None:
        state[f"{name}.weight"] = torch.tensor(layer.weight).float().T * torch.tensor(layer.scale)[:, None]
        state[f"{name}.bias"] = torch.tensor(layer.bias)

    def norm(name: str, value: Norm) -> None:
        state[f"{name}.LayerNorm.weight"], state[f"{name}.LayerNorm.bias"] = map(torch.tensor, (value.gain, value.bias))

    def table(name: str, value: Embedding) -> None:
        state[f"bert.embeddings.{name}.weight"] = (torch.tensor(value.table).float() - value.zero) * value.scale

    table("word_embeddings", model.words)
    table("position_embeddings", model.positions)
    table("token_type_embeddings", model.types)
    norm("bert.embeddings", model.norm)
    for number, layer in enumerate(model.layers):
        at = f"bert.encoder.layer.{number}"
        linear(f"{at}.attention.self.query", layer.query)
        linear(f"{at}.attention.self.key", layer.key)
        linear(f"{at}.attention.self.value", layer.value)
        linear(f"{at}.attention.output.dense", layer.output)
        norm(f"{at}.attention.output", layer.attention_norm)
        linear(f"{at}.intermediate.dense", layer.up)
        linear(f"{at}.output.dense", layer.down)
        norm(f"{at}.output", layer.norm)
    linear("bert.pooler.dense", model.pooler)
    linear("classifier", model.classifier)
    return state


def network(model: BertModel) -> transformers.BertForSequenceClassification:
    """transformers' network with these parameters, in fp32."""
    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=12, intermediate_size=1536, num_labels=1
    )
    net = transformers.BertForSequenceClassification(config)
    missing, unexpected = net.load_state_dict(state_dict(model), strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"bert.embeddings.position_ids"}, missing
    return net.eval()


def tokenizer(path: Path) -> tokenizers.Tokenizer:
    """The published tokenizer, cutting pairs to 512 tokens as the published model was used."""
    tok = tokenizers.Tokenizer.from_file(str(path))
    tok.no_padding()
    tok.enable_truncation(512, strategy="longest_first")
    return tok


@torch.no_grad()
def scores(
    net: transformers.BertForSequenceClassification, tok: tokenizers.Tokenizer, rows: list[tuple[str, str]]
) -> list[float]:
    """One pair a call, so that nothing is padded."""
    out = []
    for query, text in rows:
        encoding = tok.encode(query, text)
        ids, types = torch.tensor([encoding.ids]), torch.tensor([encoding.type_ids])
        out.append(float(net(input_ids=ids, token_type_ids=types).logits[0, 0]))
    return out


def main() -> None:
    path = Path(sys.argv[1])
    rows = pairs()
    net, tok = network(read_published(path)), tokenizer(path.with_name("tokenizer.json"))
    values = scores(net, tok, [(query, text) for _, _, query, text in rows])
    origin = {
        "command": "python tests/support/make_references.py MODEL.onnx",
        "model_sha256": MODEL_SHA256,
        "tokenizer_sha256": TOKENIZER_SHA256,
        "dtype": "float32",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "run": "run_bm25.trec",
    }
    table = {f"{qid} {docid}": round(value, 6) for (qid, docid, _, _), value in zip(rows, values, strict=True)}
    REFERENCES.write_text(json.dumps({"origin": origin, "scores": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
