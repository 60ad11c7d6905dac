"""Encoder cross-encoders, exported through optimum and then scored by the runtime, against transformers in fp32."""

import json
import sys

import numpy as np
import onnx
import pytest
import safetensors.numpy

pytest.importorskip("optimum.exporters.onnx", reason="the extra `encoders` is not installed")
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from dearlite import Reranker
from dearlite.cli.main import run
from dearlite.export.encoders import pipeline as encoders
from dearlite.export.encoders import tracing
from dearlite.export.encoders.pipeline import ENCODERS
from dearlite.export.quality.card import Pairs
from dearlite.installing import pip_install
from dearlite.models.bundle import Bundle
from dearlite.models.pair_limit import check_pair_limit
from dearlite.pointwise.onnxruntime import CAPABILITIES

torch.set_num_threads(1)  # the models are tiny: threads would wait for each other

WORDS = "light bulb coffee tea who invented the Edison Momoa plays in Fast X a b c d e f g".split()  # noqa: SIM905
QUERIES = ("who invented the light bulb", "coffee")
DOCS = ("Edison invented the light bulb", "tea", "coffee coffee a b c d e f g Momoa plays in Fast X", "the bulb " * 40)
PAIRS = [(query, document) for query in QUERIES for document in DOCS]

# The ids that a family's configuration gives its special tokens, and whether its tokenizer tells the two texts apart.
BERT_IDS = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
ROBERTA_IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
ROBERTA = ROBERTA_IDS | {"max_position_embeddings": 66, "type_vocab_size": 1}
RELATIVE = {
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
DEBERTA_V3 = RELATIVE | {"share_att_key": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm"}
FAMILIES = {  # model_type -> the name of its classes, and its fields
    "albert": ("Albert", {"embedding_size": 16}),
    "bert": ("Bert", {}),
    "camembert": ("Camembert", ROBERTA),
    "deberta": ("Deberta", RELATIVE),
    "deberta-v2": ("DebertaV2", DEBERTA_V3),
    "distilbert": ("DistilBert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    "electra": ("Electra", {"embedding_size": 16}),
    "megatron-bert": ("MegatronBert", {}),
    "mobilebert": ("MobileBert", {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16}),
    "modernbert": ("ModernBert", {"local_attention": 8, "global_attn_every_n_layers": 2}),
    "mpnet": ("MPNet", ROBERTA),
    "rembert": ("RemBert", {"input_embedding_size": 16}),
    "roberta": ("Roberta", ROBERTA),
    "xlm-roberta": ("XLMRoberta", ROBERTA),
}
WITHOUT_TYPES = {"camembert", "distilbert", "modernbert", "mpnet", "roberta", "xlm-roberta"}


def tokenizer(folder, kind):
    """Words with the family's template: [CLS] A [SEP] B [SEP] and types, or <s> A </s></s> B </s> without."""
    roberta = FAMILIES[kind][1].get("pad_token_id") == 1
    specials = ["<s>", "<pad>", "</s>", "<unk>"] if roberta else ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    vocabulary = {word: n for n, word in enumerate([*specials, *dict.fromkeys(WORDS)])}
    tok = Tokenizer(models.WordLevel(vocabulary, unk_token=specials[3]))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    if roberta:
        tok.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
        named = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    else:
        tok.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
        named = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    inputs = ["input_ids", "attention_mask"] + ([] if kind in WITHOUT_TYPES else ["token_type_ids"])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tok, model_input_names=inputs, **named)
    fast.save_pretrained(folder)
    return fast


def checkpoint(folder, kind, **changes):
    """A small random scorer of the real architecture, its weights large enough that scores differ."""
    family, fields = FAMILIES[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        **{
            "vocab_size": 80,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "num_labels": 1,
            **BERT_IDS,
            **fields,
            **changes,
        }
    )
    net = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        for name, value in net.named_parameters():
            noise = torch.randn_like(value)
            if "norm" in name.lower() and name.endswith("weight"):
                value.copy_(1 + 0.2 * noise)
            else:
                value.copy_(noise * (1.6 / value.shape[-1] ** 0.5 if value.ndim > 1 else 0.2))
    net.save_pretrained(folder)
    return net, tokenizer(folder, kind)


@torch.no_grad()
def reference(net, tok, pairs=PAIRS, max_tokens=64):
    scores = []
    for query, document in pairs:
        inputs = tok(query, document, truncation="longest_first", max_length=max_tokens, return_tensors="pt")
        scores.append(float(net(**inputs).logits[0, 0]))
    return scores


def lora(folder):
    """The folder of a PEFT adapter that changes nothing."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    (folder / "adapter_model.safetensors").write_bytes(
        safetensors.numpy.save({"score.weight": np.zeros((1, 32), np.float32)})
    )
    return folder


def export(folder, target, *options):
    card = () if "--card" in options else ("--no-card",)
    with pytest.raises(SystemExit) as ended:
        run(["export", str(folder), "-o", str(target), *card, *options])
    return ended.value.code


def test_every_family_of_the_table_is_tested():
    assert set(FAMILIES) == {name for name, family in ENCODERS.items() if not family.answers}  # test_t5.py: the others


@pytest.mark.parametrize("kind", FAMILIES)
def test_fp32_export_is_transformers(tmp_path, kind):
    net, tok = checkpoint(tmp_path, kind)
    assert export(tmp_path, tmp_path / "m.dear", "--quant", "fp32") == 0
    reranker = Reranker.load(tmp_path / "m.dear")
    scores = reranker.score(PAIRS)
    assert scores == pytest.approx(reference(net, tok), abs=1e-4)
    assert np.std(scores) > 0.03
    manifest = Bundle(tmp_path / "m.dear").manifest
    assert (manifest.architecture, manifest.prompt, manifest.pooling) == (kind, "plain", "first-token")
    assert manifest.max_tokens == 64  # RoBERTa's 66 positions leave 64
    assert sorted(path.name for path in tmp_path.iterdir() if "m.dear" in path.name) == ["m.dear"]


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "modernbert", "deberta-v2"])
def test_int8_export_is_near_and_does_not_depend_on_company(tmp_path, monkeypatch, kind):
    size = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
    net, tok = checkpoint(tmp_path, kind, **size)
    assert export(tmp_path, tmp_path / "m.dear") == 0
    reranker = Reranker.load(tmp_path / "m.dear", threads=2)
    together = reranker.score(PAIRS)
    expected = np.array(reference(net, tok))
    error = np.abs(together - expected).mean() / expected.std()
    assert error <= 0.12  # measured: 0.057 to 0.086; a random network enlarges what the rounding of its weights does
    assert [reranker.score([pair])[0] for pair in PAIRS] == pytest.approx(together, abs=1e-5)
    assert reranker.score(PAIRS[::-1])[::-1] == pytest.approx(together, abs=1e-5)
    monkeypatch.setitem(CAPABILITIES, "u8s8-exact", lambda: False)  # one graph is exact on every CPU
    elsewhere = Reranker.load(tmp_path / "m.dear")
    assert elsewhere._backend.build.graph == "cpu.onnx"
    assert elsewhere.score(PAIRS) == together
    assert check_pair_limit(Bundle(tmp_path / "m.dear")) >= 4 * 3  # qkv, o, up and down of each layer


def test_int8_covers_the_words_and_all_layers_but_the_head(tmp_path):
    checkpoint(tmp_path, "bert")
    assert export(tmp_path, tmp_path / "m.dear") == 0
    bundle = Bundle(tmp_path / "m.dear")
    tensors = bundle.manifest.tensors
    matrices = {name: t.shape for name, t in tensors.items() if t.dtype == "int8"}
    layer = "bert.encoder.layer.{}.{}.weight"
    assert matrices == {"bert.embeddings.word_embeddings.weight.rows": (80, 32)} | {
        layer.format(number, part): shape
        for number in (0, 1)
        for part, shape in {
            "attention.self.query+key+value": (32, 96),
            "attention.output.dense": (32, 32),
            "intermediate.dense": (32, 64),
            "output.dense": (64, 32),
        }.items()
    }
    assert {tensors[name.removesuffix("weight") + "scale"].shape for name in matrices if "layer" in name} == {
        (96,),
        (32,),
        (64,),
    }
    graph = onnx.load_from_string(bundle.read("cpu.onnx")).graph
    assert [value.name for value in graph.input] == ["ids", "types"]
    assert not {"Where", "ConstantOfShape", "If"} & {node.op_type for node in graph.node}  # nothing of the mask is left


def test_int8_accurate_is_transformers_with_rounded_weights(tmp_path):
    net, tok = checkpoint(tmp_path, "bert", hidden_size=128, intermediate_size=256)
    assert export(tmp_path, tmp_path / "m.dear", "--quant", "int8-accurate") == 0
    exact = reference(net, tok)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if "word_embeddings" in name or ("encoder" in name and value.ndim == 2):  # (rows, hidden), (out, in)
                scale, sums = value.abs().amax(1, keepdim=True) / 127, value[:, ::2] + value[:, 1::2]
                if "word_embeddings" not in name:  # matrices keep the limit of pairs
                    scale = torch.maximum(scale, sums.abs().amax(1, keepdim=True) / 128)
                steps = torch.round(value / scale)
                if "word_embeddings" not in name:
                    steps[:, 1::2] = torch.clamp(steps[:, 1::2], -128 - steps[:, ::2], 128 - steps[:, ::2])
                value.copy_(steps * scale)
    rounded = reference(net, tok)
    scores = Reranker.load(tmp_path / "m.dear").score(PAIRS)
    assert scores == pytest.approx(rounded, abs=2e-3)
    assert np.abs(np.array(scores) - exact).max() > 5e-3


def test_same_model_gives_the_same_bytes(tmp_path):
    checkpoint(tmp_path, "deberta-v2")
    assert export(tmp_path, tmp_path / "m.dear") == 0
    first = (tmp_path / "m.dear").read_bytes()
    assert export(tmp_path, tmp_path / "m.dear", "--force") == 0
    assert (tmp_path / "m.dear").read_bytes() == first


@pytest.mark.parametrize(("pooling", "place"), [("mean", "mean"), ("cls", "first-token")])
def test_pooling_is_a_field_of_the_model(tmp_path, pooling, place):
    sigmoid = {"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "4.1.0"}
    net, tok = checkpoint(tmp_path, "modernbert", classifier_pooling=pooling, sentence_transformers=sigmoid)
    assert export(tmp_path, tmp_path / "m.dear", "--quant", "fp32") == 0
    assert Bundle(tmp_path / "m.dear").manifest.pooling == place
    (hit,) = Reranker.load(tmp_path / "m.dear").rerank(QUERIES[0], DOCS[:1])
    assert hit.relevance == pytest.approx(1 / (1 + np.exp(-hit.score))) and hit.relevance_from == "activation"
    assert Reranker.load(tmp_path / "m.dear").score(PAIRS) == pytest.approx(reference(net, tok), abs=1e-4)


def test_model_too_large_for_one_onnx_file_is_read_the_same(tmp_path, monkeypatch):
    """Above 2 GB optimum writes the weights and the constants of nodes into a separate file."""
    checkpoint(tmp_path, "roberta", max_position_embeddings=514)
    assert export(tmp_path, tmp_path / "one.dear", "--quant", "fp32") == 0
    monkeypatch.setenv("FORCE_ONNX_EXTERNAL_DATA", "1")
    assert export(tmp_path, tmp_path / "two.dear", "--quant", "fp32") == 0
    one, two = Bundle(tmp_path / "one.dear"), Bundle(tmp_path / "two.dear")
    assert two.manifest.tensors == one.manifest.tensors
    assert two.manifest.members["weights.bin"] == one.manifest.members["weights.bin"]


def test_types_are_left_out_where_the_tokenizer_gives_none(tmp_path):
    net, _ = checkpoint(tmp_path, "bert")
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tok = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = reference(net, tok)
    assert export(tmp_path, tmp_path / "m.dear", "--quant", "fp32") == 0
    assert Reranker.load(tmp_path / "m.dear").score(PAIRS) == pytest.approx(expected, abs=1e-4)
    with_types = reference(net, tokenizer(tmp_path, "bert"))
    assert expected != pytest.approx(with_types, abs=0.01)


def test_options_of_the_command_line_are_kept(tmp_path):
    net, tok = checkpoint(tmp_path, "electra")
    assert export(tmp_path, tmp_path / "m.dear", "--quant", "fp32", "--max-tokens", "24", "--prompt", "dear") == 0
    manifest = Bundle(tmp_path / "m.dear").manifest
    assert (manifest.prompt, manifest.max_tokens) == ("dear", 24)
    worded = [(f"query: {query}", f"document:  {document}") for query, document in PAIRS]
    expected = reference(net, tok, worded, max_tokens=24)
    assert Reranker.load(tmp_path / "m.dear").score(PAIRS) == pytest.approx(expected, abs=1e-4)


def test_card_holds_the_file_to_transformers_and_a_floor_refuses_it(tmp_path, monkeypatch, capsys):
    net, tok = checkpoint(tmp_path, "bert")
    rows = tuple((f"q{n // 4}", str(n), query, {"text": text}) for n, (query, text) in enumerate(PAIRS))
    monkeypatch.setattr(encoders, "card_pairs", lambda *_: Pairs("mine", rows, {"q0": {"0": 1}}))
    expected, target = reference(net, tok), tmp_path / "m.dear"
    monkeypatch.setattr(
        "dearlite.export.quality.check.tau_below_floor", lambda card, floor: f"tau {card['kendall_tau']}, below {floor}"
    )
    assert export(tmp_path, target, "--card") == 1
    line = capsys.readouterr().err
    assert "below 0.95: take --quant int8-accurate or fp32 (--force keeps it)" in line
    assert not list(tmp_path.glob("m.dear*"))
    assert export(tmp_path, target, "--card", "--force") == 0
    scores = Reranker.load(target).score(PAIRS)
    card = Bundle(target).card()
    assert card["max_error"] == pytest.approx(np.abs(np.array(scores) - expected).max(), abs=1e-3)
    assert (card["pairs"], card["documents"], card["queries"]) == ("mine", 8, 2)
    assert "below 0.95" in card["below_floor"]


def test_unsupported_models_are_refused_in_one_line_and_leaves_nothing(tmp_path, capsys):
    checkpoint(tmp_path, "bert")
    target, path = tmp_path / "m.dear", tmp_path / "config.json"
    config, weights = json.loads(path.read_text()), tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    capsys.readouterr()

    def refused(*words, options=(), **changes):
        path.write_text(json.dumps(config | changes))
        assert export(tmp_path, target, *options) in (1, 2)
        line = capsys.readouterr().err
        assert line.count("\n") == 1, line
        for word in words:
            assert word in line, line
        assert not list(tmp_path.glob("m.dear*"))
        path.write_text(json.dumps(config))

    refused("'gptj'", "llama", "modernbert", model_type="gptj")
    refused("3 labels", id2label={"0": "a", "1": "b", "2": "c"})
    refused("64 positions", "--max-tokens 65", options=("--max-tokens", "65"))
    refused("--pooling", options=("--pooling", "last-token"))
    refused("--for", options=("--for", "cuda"))
    refused("--quant fp16", options=("--quant", "fp16"))
    refused("LoRA", options=("--adapter", str(lora(tmp_path / "lora"))))
    refused("tokenizer.json", "and the model's embedding has 20 rows", vocab_size=20)
    refused("bert.encoder.layer.2.", "is missing", num_hidden_layers=3)
    refused("bert.encoder.layer.1.", "fits nothing", num_hidden_layers=1)
    refused("(64, 32), not (48, 32)", intermediate_size=48)
    tensors = safetensors.numpy.load(whole)
    headless = {name: value for name, value in tensors.items() if not name.startswith("classifier")}
    weights.write_bytes(safetensors.numpy.save(headless))
    refused("classifier.weight is missing")
    weights.write_bytes(whole[:-100])
    refused("truncated")
    tensors["classifier.weight"][0, 3] = np.nan
    weights.write_bytes(safetensors.numpy.save(tensors))
    refused("classifier.weight", "NaN")
    weights.rename(tmp_path / "pytorch_model.bin")
    refused("pickle", "pytorch_model.bin")


def test_model_whose_graph_has_other_scores_is_refused(tmp_path, monkeypatch, capsys):
    """Only the comparison with transformers protects the user from a wrong rewriting."""
    checkpoint(tmp_path, "bert")
    monkeypatch.setattr(tracing, "_scores", lambda net, rows, takes_types: [7.0] * len(rows))
    capsys.readouterr()
    assert export(tmp_path, tmp_path / "m.dear") == 1
    line = capsys.readouterr().err
    assert "7.00000" in line
    assert line.count("\n") == 1
    assert not list(tmp_path.glob("m.dear*"))


def test_missing_optimum_names_the_extra(tmp_path, monkeypatch, capsys):
    checkpoint(tmp_path, "bert")
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", None)
    assert export(tmp_path, tmp_path / "m.dear") == 1
    assert capsys.readouterr().err == (
        f"dearlite: optimum is needed here and is not installed: {pip_install('encoders')}\n"
    )
