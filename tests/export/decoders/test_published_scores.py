"""Pooling, against transformers on right-padded batches, and the comparison with published scores."""

import json
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402

from dearlite import Reranker  # noqa: E402
from dearlite.cli.main import run  # noqa: E402
from dearlite.errors import CheckpointError  # noqa: E402
from dearlite.export.decoders import published_scores  # noqa: E402
from dearlite.export.source.inputs import padding_id  # noqa: E402
from dearlite.models.bundle import Bundle  # noqa: E402
from dearlite.models.registry import load_registry  # noqa: E402

MAX_TOKENS = 64
READINGS = [(pooling, two) for pooling in ("last-token", "last-position") for two in (True, False)]


def tokenizer(folder):
    """A tokenizer of the texts' characters, space included, with Llama-3's template; it pads with <eos>, id 2."""
    letters = sorted(set("".join([*published_scores.DOCUMENTS, published_scores.QUERY, "query: document:  "])))
    vocabulary = {word: n for n, word in enumerate(["!", "<bos>", "<eos>", "<unk>", *letters])}
    tok = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tok.add_special_tokens(["<bos>", "<eos>"])
    tok.post_processor = processors.TemplateProcessing("<bos> $A", "<bos> $A <bos> $B:1", [("<bos>", 1)])
    tok.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<eos>"}, "pad_token": None}))
    return tok


def scorer(folder, seed=0, attention="sdpa"):
    """A small random scorer with DeAR's mismatch: pad_token_id is 0, while the tokenizer pads with <eos>."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        num_labels=1,
        pad_token_id=0,
        eos_token_id=[7, 2],
        attn_implementation=attention,
    )
    net = transformers.LlamaForSequenceClassification(config).eval()
    with torch.no_grad():
        for name, value in net.named_parameters():
            noise = torch.randn_like(value)
            value.copy_(1 + 0.3 * noise if "norm" in name else 1.6 / value.shape[-1] ** 0.5 * noise)
        net.score.weight *= 0.5  # so that int8 is within the tolerance, and no two readings are
    net.save_pretrained(folder)
    return net, tokenizer(folder)


@torch.no_grad()
def reference(net, tok, texts, *, length=None, pooling="last-position", max_tokens=256):
    """Scores of (query, document) texts in one right-padded batch, as transformers gives them.

    With the pooling "last-token" pad_token_id is the padding token, so that transformers finds the last real one.
    """
    tok.enable_truncation(max_tokens, strategy="longest_first")
    rows = [tok.encode(*pair).ids for pair in texts]
    length = length or max(map(len, rows))
    net.config.pad_token_id = 0 if pooling == "last-position" else 2
    return net(
        input_ids=torch.tensor([row + [2] * (length - len(row)) for row in rows]),
        attention_mask=torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows]),
    ).logits[:, 0]


def published_texts(two_spaces):
    return [
        (f"query: {published_scores.QUERY}", f"document: {' ' * two_spaces}{text}")
        for text in published_scores.DOCUMENTS
    ]


def export(folder, target, *options):
    with pytest.raises(SystemExit) as ended:
        run(["export", str(folder), "-o", str(target), "--no-card", *options])
    return ended.value.code


def verify(model):
    with pytest.raises(SystemExit) as ended:
        run(["models", "verify", str(model)])
    return ended.value.code


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_last_position_is_what_transformers_reads_in_a_padded_batch(tmp_path, attention):
    net, tok = scorer(tmp_path, attention=attention)
    options = ("--quant", "fp32", "--pooling", "last-position", "--max-tokens", str(MAX_TOKENS))
    assert export(tmp_path, tmp_path / "m.dear", *options) == 0
    reranker = Reranker.load(tmp_path / "m.dear")
    # Short, one token short of the end (its padding token is the next one), as long as the row, and cut.
    documents = ["b", "no" * 10, *("a" * n for n in range(36, 46)), "light bulb" * 20]
    pairs = [(query, document) for query in ("who", "Edison") for document in documents]
    texts = [(f"query: {query}", f"document:  {document}") for query, document in pairs]
    lengths = {len(tok.encode(*pair).ids) for pair in texts}
    assert {MAX_TOKENS - 1, MAX_TOKENS} <= lengths
    scores = reranker.score(pairs)
    expected = reference(net, tok, texts, length=MAX_TOKENS, max_tokens=MAX_TOKENS)
    assert scores == pytest.approx(expected.tolist(), abs=1e-4)
    last_token = reference(net, tok, texts, length=MAX_TOKENS, max_tokens=MAX_TOKENS, pooling="last-token")
    assert np.abs(np.array(scores) - last_token.numpy()).max() > 0.5  # it is another reading
    assert [reranker.score([pair])[0] for pair in pairs] == pytest.approx(scores, abs=1e-5)
    assert Bundle(tmp_path / "m.dear").manifest.pooling == "last-position"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A scorer, its tokenizer, and files of it: (quant, pooling) -> path, each under a folder that has its entry."""
    folder = tmp_path_factory.mktemp("published")
    net, tok = scorer(folder)
    files = {}
    for quant, pooling in [(q, p) for q in ("fp32", "int8") for p in ("last-token", "last-position")]:
        home = folder / f"{quant}-{pooling}"
        home.mkdir()
        (home / "models.toml").write_text(
            '[mine]\nkind = "pointwise"\nrepository = "x/y"\narchitecture = "llama"\nprompt = "dear"\n'
            f'pooling = "{pooling}"\nmax_tokens = 160\nlicence = "MIT"\nsize_mb = 1\nmemory_mb = 2\ngolden = "tiny"\n'
        )
        options = ("--quant", quant, "--pooling", pooling, "--max-tokens", "160")
        assert export(folder, home / "mine.dear", *options) == 0
        files[quant, pooling] = home / "mine.dear"
    return net, tok, files


def test_int8_at_the_last_position_is_near(published):
    net, tok, files = published
    scores = Reranker.load(files["int8", "last-position"]).score(
        [(published_scores.QUERY, text) for text in published_scores.DOCUMENTS]
    )
    expected, other = (reference(net, tok, published_texts(two_spaces=True), length=n).numpy() for n in (160, 159))
    assert np.abs(scores - expected).max() <= 0.2
    assert np.abs(scores - expected).mean() < 0.3 * np.abs(other - expected).mean()


@pytest.mark.parametrize("quant", ["fp32", "int8"])
@pytest.mark.parametrize("pooling", ["last-token", "last-position"])
@pytest.mark.parametrize(("published_at", "two_spaces"), READINGS)
def test_verify_names_the_reading_of_the_published_scores(
    published, monkeypatch, capsys, quant, pooling, published_at, two_spaces
):
    net, tok, files = published
    file = files[quant, pooling]
    monkeypatch.setenv("DEARLITE_HOME", str(file.parent))
    scores = reference(net, tok, published_texts(two_spaces), pooling=published_at).to(torch.bfloat16)
    monkeypatch.setitem(published_scores.SCORES, "tiny", tuple(scores.tolist()))
    code = verify(file)
    out, err = capsys.readouterr()
    reading = f"{published_at}, {'two spaces' if two_spaces else 'one space'}"
    table = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines() if line.startswith(" last-")]
    assert len(table) == 4 and [row[0] for row in table if row[1] == "yes"] == [f"{pooling}, two spaces"]
    differences = {row[0]: float(row[2 if row[1] == "yes" else 1]) for row in table}
    assert min(differences, key=differences.get) == reading
    assert differences[reading] <= (0.2 if quant == "int8" else 0.01)  # half a step of bf16 below 2 is 0.004
    if (published_at, two_spaces) == (pooling, True):
        assert (code, err) == (0, "")
        assert out.splitlines()[-1].startswith(f"{reading}: largest difference")
        assert "reproduces" in out.splitlines()[-1]
    else:
        assert code == 1
        assert err.startswith(f"dearlite: {reading}: largest difference") and err.count("\n") == 1
        assert f"this file is read at {pooling}, two spaces" in err


def test_verify_says_that_other_weights_are_not_the_published_ones(tmp_path, monkeypatch, capsys):
    published, mine = tmp_path / "published", tmp_path / "mine"
    published.mkdir(), mine.mkdir()
    scores = reference(*scorer(published), published_texts(two_spaces=True)).tolist()
    monkeypatch.setitem(published_scores.SCORES, "8b-ce", tuple(scores))
    scorer(mine, seed=1)
    assert export(mine, tmp_path / "dear-8b-ce.dear", "--max-tokens", "160") == 0  # its name is the file's
    assert "--pooling last-position" in capsys.readouterr().err  # the two ids of this model differ
    assert verify(tmp_path / "dear-8b-ce.dear") == 1
    out, err = capsys.readouterr()
    assert "members match their sha256" in out
    assert "no reading is within 0.25" in err and "not the published model" in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["dear-8b-ce-lora", "of-my-own"])
def test_verify_says_where_no_scores_are_published(tmp_path, capsys, name):
    scorer(tmp_path)
    assert export(tmp_path, tmp_path / f"{name}.dear", "--max-tokens", "96") == 0
    assert verify(tmp_path / f"{name}.dear") == 0
    assert f"{name}: models.toml names no published scores" in capsys.readouterr().out


def test_registry_names_published_scores_of_whole_models_only():
    of_dear = {name: entry for name, entry in load_registry().items() if entry.repository.startswith("abdoelsayed/")}
    named = {name: entry.golden for name, entry in of_dear.items() if entry.golden}
    assert named == {f"dear-{golden_name}": golden_name for golden_name in published_scores.SCORES}
    assert all(len(scores) == len(published_scores.DOCUMENTS) == 5 for scores in published_scores.SCORES.values())
    # Each stands on bf16's grid: 8 significant bits.
    values = [score for scores in published_scores.SCORES.values() for score in scores]
    assert torch.tensor(values).to(torch.bfloat16).tolist() == values


def test_verdict_names_every_reading_that_is_within_the_tolerance():
    def reading(pooling, own, *scores):
        return published_scores.ScoreReading(pooling, two_spaces=True, own=own, scores=scores, published=(1.0, 3.0))

    near, nearest = reading("last-token", True, 1.2, 3.0), reading("last-position", False, 1.0, 2.9)
    reproduces, line = published_scores.verdict([near, nearest, reading("last-position", False, 1.0, 4.0)], "tiny")
    assert reproduces
    assert line.startswith("last-position, two spaces: largest difference 0.10: reproduces")
    assert line.endswith("so do, within 0.25: last-token, two spaces, as this file is read (0.20)")


def test_agreement_counts_pairs_in_order():
    reading = published_scores.ScoreReading(
        "last-token", two_spaces=True, own=True, scores=(1.0, 3.0, 2.0), published=(1.5, 2.0, 3.0)
    )
    assert (reading.agreeing_pairs, reading.largest_difference, reading.mean_difference) == (
        2,
        1.0,
        pytest.approx(2.5 / 3),
    )
    assert reading.name == "last-token, two spaces"


def added(**ids):
    return json.dumps({"added_tokens": [{"content": f"<{name}>", "id": n} for name, n in ids.items()]}).encode()


@pytest.mark.parametrize(
    ("config_of_tokenizer", "config", "expected"),
    [
        ({"pad_token": "<pad>", "eos_token": "<eos>"}, {"eos_token_id": 9}, 5),
        ({"pad_token": None, "eos_token": {"content": "<eos>"}}, {"eos_token_id": 9}, 6),
        ({"eos_token": "<unknown>"}, {"eos_token_id": [9, 6]}, 9),
        (None, {"eos_token_id": 0}, 0),
        (None, {"eos_token_id": []}, None),
        (None, {}, None),
    ],
)
def test_padding_token_is_the_tokenizers_own_or_eos(tmp_path, config_of_tokenizer, config, expected):
    if config_of_tokenizer is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config_of_tokenizer))
    assert padding_id(tmp_path, added(pad=5, eos=6), config) == expected


def test_unreadable_tokenizer_raises_in_one_line(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        padding_id(tmp_path, added(), {})
    with pytest.raises(CheckpointError, match="cannot be read"):
        padding_id(tmp_path / "none", b"[1]", {})


def test_last_position_needs_a_padding_token(tmp_path, capsys):
    scorer(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))
    capsys.readouterr()
    assert export(tmp_path, tmp_path / "m.dear", "--pooling", "last-position") == 2
    err = capsys.readouterr().err
    assert "eos" in err and err.count("\n") == 1
    assert not (tmp_path / "m.dear").exists()
