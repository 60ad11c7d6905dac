"""A LLaMA scorer as a GGUF: its scores are those of transformers, in a pair's form and in a template's."""

import json

import numpy as np
import pytest
from llama import need_llama

pytest.importorskip("gguf", reason="gguf is not installed (extra export)")
need_llama()
torch = pytest.importorskip("torch", reason="torch is not installed (extra train)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra train)")
import gguf_models  # noqa: E402
from tiny_gguf import smollm2  # noqa: E402

from dearlite import Reranker  # noqa: E402
from dearlite.errors import DearliteError, UsageError  # noqa: E402
from dearlite.export import export  # noqa: E402
from dearlite.models.gguf import GgufFile  # noqa: E402

KIND = "llama, 4 heads of 1, llama3 scaling, untied"
PAIRS = [
    ("what is rain", "rain is water that falls from clouds"),
    ("what is rain", "ships carry grain <|im_end|>"),
    ("where is snow", "snow lies on hills " * 60),
]
TOKENS = 49152
NEAR = 0.03  # of scores from -13 to -3: weights, keys and values are f16


def write_scorer(folder, kind=KIND, **changes):
    """A scorer of the kind, an entry of KINDS."""
    head = np.random.default_rng(3).standard_normal((1, 64)).astype(np.float32)
    options = {
        "architectures": ["LlamaForSequenceClassification"],
        "vocab_size": TOKENS,
        "num_labels": 1,
        "pad_token_id": 0,
    }
    extra = {"score.weight": head}
    gguf_models.write_model(
        folder, kind, tokenizer=False, drop=("lm_head.weight",), extra=extra, **{**options, **changes}
    )
    gguf_models.write_smollm2_tokenizer(folder, GgufFile(smollm2()).metadata)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_scorer(tmp_path_factory.mktemp("scorer") / "model")


@pytest.fixture(scope="module")
def written(folder):
    return export(folder, output=folder.parent / "scorer.gguf", quant="f16", max_tokens=96, min_tau=0.9)


def of_transformers(folder, rows):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()
    with torch.no_grad():
        return [float(model(input_ids=torch.tensor([ids])).logits[0, 0]) for ids in rows]


def test_scores_are_those_of_transformers(folder, written):
    assert written.kind == "pointwise"
    reranker = Reranker.load(written.path, threads=1)
    rows = [reranker._encoder.layout.row(*(reranker._encoder.ids(text) for text in texts), bound=False, empty=False)
            for texts in (("query: " + query, "document:  " + text) for query, text in PAIRS)]  # fmt: skip
    expected = of_transformers(folder, [row.ids.tolist() for row in rows])
    assert len(rows[2].ids) == 96  # cut to fit
    assert reranker.score(PAIRS) == pytest.approx(expected, abs=NEAR)


@pytest.mark.parametrize(("kind", "family"), [("qwen2", "Qwen2"), ("qwen3", "Qwen3")])
def test_scores_of_another_family_are_those_of_transformers(tmp_path, kind, family):
    folder = write_scorer(tmp_path / "model", kind, architectures=[f"{family}ForSequenceClassification"])
    written = export(folder, output=tmp_path / "scorer.gguf", quant="f16", max_tokens=96, card=False)
    reranker = Reranker.load(written.path, threads=1)
    rows = [
        reranker._encoder.layout.row(*(reranker._encoder.ids(text) for text in texts), bound=False, empty=False).ids
        for texts in (("query: " + query, "document:  " + text) for query, text in PAIRS[:2])
    ]
    expected = of_transformers(folder, [ids.tolist() for ids in rows])
    assert reranker.score(PAIRS[:2]) == pytest.approx(expected, abs=NEAR)


def test_ids_are_those_of_the_dear_file(folder, written, tmp_path):
    """The same model in both formats reads the same tokens, and gives scores that are near."""
    pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
    dear = export(folder, output=tmp_path / "scorer.dear", quant="fp32", max_tokens=96, card=False)
    scores = [Reranker.load(result.path, threads=1).score(PAIRS) for result in (dear, written)]
    assert scores[1] == pytest.approx(scores[0], abs=NEAR)


def test_card_compares_with_fp32(written):
    card = json.loads(GgufFile(written.path).metadata["dearlite.card"])
    assert card == written.card
    assert card["reference"] == "the merged weights in fp32"
    assert card["kendall_tau"] > 0.9 and card["documents"] >= 60
    assert GgufFile(written.path).verify()


def test_quantised_file_keeps_the_head_and_passes_the_gate(folder, tmp_path):
    result = export(folder, output=tmp_path / "q8.gguf", quant="q8_0", max_tokens=96, card=False)
    metadata = GgufFile(result.path).metadata
    assert GgufFile(result.path).main_type == "q8_0"
    assert metadata["dearlite.kind"] == "pointwise" and len(metadata["dearlite.head"]) == 64
    f16 = [1.0] * 64
    assert metadata["dearlite.head"] != f16
    assert json.loads(metadata["dearlite.source"])["quant"] == "q8_0"
    assert len(Reranker.load(result.path, threads=1).score(PAIRS)) == len(PAIRS)


def test_refusal_names_the_remedy(folder, tmp_path):
    with pytest.raises(DearliteError, match=r"below 1: choose a wider --quant \(--force keeps it\)"):
        export(folder, output=tmp_path / "q4.gguf", quant="q4_k_m", max_tokens=96, min_tau=1)
    assert list(tmp_path.iterdir()) == []


def test_language_model_with_a_family_becomes_a_scorer(tmp_path):
    """The head is made of two rows of the output matrix; the prompt goes into the file."""
    folder = gguf_models.write_model(tmp_path / "model", KIND, tokenizer=False, vocab_size=TOKENS)
    gguf_models.write_smollm2_tokenizer(folder, GgufFile(smollm2()).metadata)
    result = export(folder, output=tmp_path / "answers.gguf", quant="f16", prompt="ctxl-v2", max_tokens=200, card=False)
    reranker = Reranker.load(result.path, threads=1)
    document = reranker._prompt.query("what is rain")
    from dearlite.documents import Document

    (row,) = reranker._prompt.rows(document, [Document(PAIRS[0][1], title="")])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = float(model(input_ids=torch.tensor([row.ids.tolist()])).logits[0, -1, 0])
    assert reranker.score([PAIRS[0]]) == pytest.approx([expected], abs=NEAR)
    assert Reranker.load(result.path, threads=1, instruction="Find facts").identity()["instruction"] == "Find facts"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quant": "q4_k_m"}, "name the file to write: -o model.gguf"),
        ({"output": "x.gguf", "quant": "int8"}, "--quant int8 does not apply to"),
        ({"output": "x.gguf", "target": "both"}, "--for does not apply to a GGUF"),
        ({"output": "x.gguf", "pooling": "last-position"}, "a GGUF is read at the last-token"),
    ],
)
def test_options_that_do_not_apply(folder, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        export(folder, **options)
    assert list(tmp_path.iterdir()) == []
