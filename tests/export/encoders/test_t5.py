"""monoT5: encoder and one decoder step in one graph, held to transformers' T5ForConditionalGeneration in fp32."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optimum.exporters.onnx", reason="the extra `encoders` is not installed")
import torch
import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from dearlite import Reranker
from dearlite.documents import Document
from dearlite.errors import DearliteError, InvalidInput
from dearlite.export import export
from dearlite.export.encoders import pipeline
from dearlite.export.quality.card import Pairs
from dearlite.export.source.prompts import prompt_of_folder
from dearlite.models.bundle import Bundle
from dearlite.pointwise.prompting import prompt_of

torch.set_num_threads(1)  # the models are tiny: threads would wait for each other

WORDS = "light bulb coffee tea who invented the Edison Momoa plays in Fast X is a dark brown drink river city".split()  # noqa: SIM905
QUERIES = ("who invented the light bulb", "coffee")
DOCS = (
    "Edison invented the light bulb",
    "tea",
    "coffee is a dark brown drink. Momoa plays in Fast X",
    "a city by a river",
)
PAIRS = [(query, document) for query in QUERIES for document in DOCS]
ANSWERS = {"t5": ("▁false", "▁true"), "mt5": ("▁no", "▁yes")}
SHAPE = {"d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 64, "num_layers": 2, "relative_attention_num_buckets": 8}


@pytest.fixture(scope="module")
def tokenizers():
    """Unigram tokenizers as SentencePiece makes them: words, characters and the answers of each model type."""

    def made(answers):
        specials = ["<pad>", "</s>", "<unk>", "<extra_id_0>"]
        words = [f"▁{word}" for word in dict.fromkeys([*WORDS, "Query", "Document", "Relevant"])]
        characters = sorted({character for word in words for character in word} | set(":.,1<"))
        vocabulary = [*((piece, 0.0) for piece in specials), *((word, -5 - n / 100) for n, word in enumerate(words))]
        vocabulary += [*((character, -9.0) for character in characters), *((piece, -8.0) for piece in answers)]
        tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
        tokenizer.add_special_tokens(specials)
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
        )
        return transformers.T5TokenizerFast(
            tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", extra_ids=0
        )

    return {kind: made(answers) for kind, answers in ANSWERS.items()}


def write_model(folder, tokenizer, kind="t5", **changes):
    """A small random T5 of the real architecture, its weights large enough that scores differ."""
    torch.manual_seed(0)
    family = {"t5": "T5", "mt5": "MT5"}[kind]
    fields = {"vocab_size": len(tokenizer) + 20, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    config = getattr(transformers, f"{family}Config")(**SHAPE | fields | changes)
    net = getattr(transformers, f"{family}ForConditionalGeneration")(config).eval()
    with torch.no_grad():
        for name, value in net.named_parameters():
            noise = torch.randn_like(value)
            if "layer_norm" in name:
                value.copy_(1 + 0.2 * noise)
            elif value.ndim == 2:
                # T5 does not divide queries by the root of their width; the embedding is that of a table.
                # The score of a trained model depends on the prompt, which the decoder reads by its cross-attention.
                gain = 0.3 if name.endswith(".q.weight") else 6 if name.endswith("EncDecAttention.o.weight") else 1.2
                value.copy_(noise * (1 if "shared" in name or "bias" in name else gain / value.shape[-1] ** 0.5))
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return net


@torch.no_grad()
def reference(net, tokenizer, answers, pairs=PAIRS):
    """log P(true) as pygaggle computes it: the prompt's text, one decoder step, log softmax over the two words."""
    ids = tokenizer.convert_tokens_to_ids(list(answers))
    scores = []
    for query, document in pairs:
        inputs = tokenizer(f"Query: {query} Document: {document} Relevant:", return_tensors="pt")
        logits = net(**inputs, decoder_input_ids=torch.tensor([[net.config.decoder_start_token_id]])).logits
        scores.append(float(torch.log_softmax(logits[0, 0, ids], dim=-1)[1]))
    return scores


def prompt_of_model(tokenizer, max_tokens=512):
    """The prompts of the template that the export takes for a T5 with this tokenizer."""
    data = tokenizer.backend_tokenizer.to_str().encode()
    stated = prompt_of_folder(Path(), data, {"model_type": "t5"}, named=None, headed=True, max_tokens=max_tokens)
    return prompt_of(stated.template, data, stated.max_tokens)


CASES = {
    "t5, plain, tied": ("t5", {"feed_forward_proj": "relu", "tie_word_embeddings": True}),
    "mt5, gated, untied": (
        "mt5",
        {
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
            "num_decoder_layers": 3,
            "decoder_start_token_id": 5,
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_fp32_file_gives_the_scores_of_transformers(tmp_path, tokenizers, case):
    kind, changes = CASES[case]
    net = write_model(tmp_path, tokenizers[kind], kind, **changes)
    export(tmp_path, output=tmp_path / "m.dear", quant="fp32", card=False)
    reranker = Reranker.load(tmp_path / "m.dear")
    scores = reranker.score(PAIRS)
    assert scores == pytest.approx(reference(net, tokenizers[kind], ANSWERS[kind]), abs=1e-4)
    assert np.std(scores) > 0.05
    hit = reranker.rerank(*QUERIES[:1], DOCS)[0]
    assert hit.relevance == pytest.approx(np.exp(hit.score), rel=1e-6)
    assert hit.relevance_from == "activation"
    manifest = Bundle(tmp_path / "m.dear").manifest
    assert (manifest.architecture, manifest.prompt, manifest.pooling, manifest.max_tokens) == (
        kind,
        "monot5",
        "decoder",
        512,
    )
    assert manifest.embedding_rows == len(tokenizers[kind]) + 20
    assert manifest.source["head"].startswith("log softmax of lm_head[")


def test_int8_covers_encoder_and_decoder_and_passes_the_gate(tmp_path, monkeypatch, tokenizers):
    write_model(tmp_path, tokenizers["t5"], feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    rng = random.Random(1)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 30))) for _ in range(20)]
    rows = tuple((f"q{n}", str(m), q, {"text": text}) for n, q in enumerate(QUERIES) for m, text in enumerate(texts))
    monkeypatch.setattr(pipeline, "card_pairs", lambda *_: Pairs("words", rows, {}))
    card = export(tmp_path, output=tmp_path / "m.dear").card
    assert card["kendall_tau"] >= 0.95
    assert card["mean_error"] / card["spread_of_scores"] <= 0.05  # measured: 0.032
    tensors = Bundle(tmp_path / "m.dear").manifest.tensors
    floats = {name for name, tensor in tensors.items() if tensor.dtype != "int8" and len(tensor.shape) == 2}
    assert floats == {"encoder.embed_tokens.weight.scale"}  # every matrix is int8
    names = {name.removesuffix(".weight") for name in tensors if name.endswith(".weight")}
    assert {"encoder.block.1.layer.0.SelfAttention.q+k+v", "decoder.1.q", "decoder.1.o"} <= names
    assert not {"decoder.0.v", "decoder.0.q"} & names  # the first token is always the same


def test_ids_are_those_of_the_makers(tokenizers):
    """One text, with the tokenizer's own end, as castorini/pygaggle gives it to the tokenizer."""
    tokenizer, rng = tokenizers["t5"], random.Random(5)
    prompt = prompt_of_model(tokenizer)
    for _ in range(100):
        query = " ".join(rng.choices([*WORDS, "café", "Query:", "x  y"], k=rng.randint(1, 8)))
        document = " ".join(rng.choices([*WORDS, "¿1?", "Relevant:", "a,b", "\n"], k=rng.randint(1, 60))).strip()
        expected = tokenizer(f"Query: {query} Document: {document} Relevant:")["input_ids"]
        (row,) = prompt.rows(prompt.query(query), [Document(document)])
        assert row.ids.tolist() == expected


def test_only_the_document_is_cut_and_no_text_ends_the_prompt(tokenizers):
    tokenizer = tokenizers["t5"]
    prompt = prompt_of_model(tokenizer, max_tokens=40)
    (row,) = prompt.rows(prompt.query("coffee"), [Document("tea " * 100)])
    tail = tokenizer(" Relevant:")["input_ids"]
    assert len(row.ids) == 40
    assert row.ids.tolist()[-len(tail) :] == tail
    assert (
        row.ids.tolist()[: 40 - len(tail)]
        == tokenizer("Query: coffee Document: " + "tea " * 100)["input_ids"][: 40 - len(tail)]
    )
    (row,) = prompt.rows(prompt.query("tea </s>"), [Document("coffee </s> <pad>")])
    assert [number for number in row.ids.tolist() if number in (0, 1)] == [1]
    with pytest.raises(InvalidInput, match="shorten the query"):
        prompt.query("tea " * 40)


def test_bad_folders_and_options_are_one_line(tmp_path, tokenizers):
    write_model(tmp_path, tokenizers["t5"])
    config = json.loads((tmp_path / "config.json").read_text())

    def refused(*words, changes=(), **options):
        (tmp_path / "config.json").write_text(json.dumps(config | dict(changes)))
        with pytest.raises(DearliteError) as caught:
            export(tmp_path, output=tmp_path / "m.dear", card=False, **options)
        line = str(caught.value)
        assert "\n" not in line
        for word in words:
            assert word in line, line
        assert not list(tmp_path.glob("*m.dear*"))

    refused("--prompt plain", "t5", prompt="plain")
    refused("--prompt zerank", "qwen3", prompt="zerank")
    refused("--pooling", "t5", pooling="last-token")
    refused("--for", target="cuda")
    refused("--quant fp16", quant="fp16")
    refused("'▁yes' and '▁no'", "tokenizer.json", changes={"model_type": "mt5"})
    refused("start token", "id 4000", changes={"decoder_start_token_id": 4000})
    refused("decoder.block.2.", "is missing", changes={"num_decoder_layers": 3})
    refused("embedding has 20 rows", changes={"vocab_size": 20})
