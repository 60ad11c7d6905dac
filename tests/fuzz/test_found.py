"""Inputs with which fuzzing found faults, each cut to its core; they end as any other input must."""

import json
import zlib

import pytest
from export_targets import _ADAPTER, _MODULES, LLAMA, _tokenizer
from file_targets import _cache_bytes, _journal_line
from fuzzing import outcome_of
from targets import TARGETS

from dearlite import Reranker
from dearlite.errors import CheckpointError, DearliteError, InvalidInput, ModelFileError, UsageError, printable
from dearlite.offline.run.results import QueryScores
from dearlite.templates import chat


def strict(data):
    """`data` with blank lines after it: the targets skip bad records of every other input, by its check sum."""
    while zlib.crc32(data) & 1:
        data += b"\n"
    return data


def unknown_token():
    """A tokenizer whose template for one text, and not that for two, names a token that it does not have."""
    raw = json.loads(_tokenizer())
    raw["post_processor"]["single"][0]["SpecialToken"]["id"] = "x"
    return json.dumps(raw).encode()


HEADER = _journal_line(b'{"dearlite": "journal", "schema": 1}')
DEEP = b"[" * 100_000
LONG = "x" * 5000
# target, input, part of its error; "" for a result
FOUND = {
    "bad byte after a carriage return": ("documents.json", b'{"a":\r\n1,\r\xff', "not UTF-8"),
    "bad byte where carriage returns end lines": ("documents.json", b'{"text":\r1,\r\xff}', "d.json:3 is not UTF-8"),
    "CSV with an open file": ("corpus.tsv", b"a\tSnow\n", ""),
    "run with a carriage return in a line": (
        "run.trec",
        strict(b"qid,docid,score\n1,a,2\n1,b\r,1\n"),
        "1 column instead",
    ),
    "run with a long cell": ("run.trec", strict(b"qid,docid,score\n1," + b"a" * 200_000 + b",1\n"), ""),
    "candidate with a score beyond a float": (
        *("candidates.json", b'[{"query": "q", "hits": [{"docid": 1, "content": "a", "score": ' + b"9" * 400 + b"}]}]"),
        "a score that is not a number",
    ),
    "journal nested too deeply": (
        "journal",
        HEADER + _journal_line(DEEP),
        "",
    ),
    "cache with a word as a score": ("cache", _cache_bytes("UPDATE scores SET score = 'word'"), "which is no score"),
    "cache with an infinite score": ("cache", _cache_bytes("UPDATE scores SET score = 9e999"), "which is no score"),
    "cache with more tokens than there are": (
        "cache",
        _cache_bytes("UPDATE scores SET used = 99"),
        "which is no score",
    ),
    "cache with a damaged name": (
        *("cache", _cache_bytes().replace(b"CREATE TABLE scores", b"CREATE T\xf3BLE sc\xf3res")),
        "cannot use",
    ),
    "ignored set of characters": ("gitignore", b"[[a]\n", ""),
    "model of a long name": ("model names", LONG.encode(), "no model"),
    "depth of many digits": ("model names", b"minilm-l12:" + b"9" * 5000, "the depth of stage minilm-l12"),
    "identifier of many digits": ("answers", b"[" + b"9" * 5000 + b"] > [1]", ""),
    "shard of a long name": (
        *("safetensors.index.json", json.dumps({"weight_map": {"score.weight": LONG}}).encode()),
        "lacks 1 of the 1 shards",
    ),
    "model_type that is no name": ("config.json", b'{"model_type": {}}', "architecture {} is not supported"),
    "labels that are no number": ("config.json", b'{"num_labels": "x"}', "no whole number"),
    "half a surrogate pair as a token": (
        "tokenizer_config.json",
        b'{"eos_token": "\\udcff", "pad_token": "\\ud800"}',
        "",
    ),
    "passages that are no list": ("training records", b'{"query": "q", "positives": 1.5}', "passages are a list"),
    "teacher's score beyond a float": (
        "training records",
        strict(b'{"query": "q", "positives": [{"text": "a", "teacher_score": ' + b"9" * 400 + b"}]}"),
        "it must be finite",
    ),
    "name of two lines": ("dense.json", b'{"in_features": 4, "out_features": 1, "a\\nb": 1}', r"has a\nb"),
    "a number of training settings beyond a float": ("train.toml", b"epochs = " + b"9" * 400, "a smaller number"),
    "adapter with a scale beyond a float": (
        *("adapter_config.json", json.dumps(_ADAPTER | {"lora_alpha": 1e300}).encode()),
        "lora_alpha is 1e+300, not a number",
    ),
    "heads of millions of dimensions": (
        "config.json",
        json.dumps(LLAMA | {"head_dim": 2**30}).encode(),
        "4096 at most",
    ),
    "equal factors of a rope scaling": (
        *(
            "config.json",
            json.dumps(LLAMA | {"rope_scaling": LLAMA["rope_scaling"] | {"low_freq_factor": 4.0}}).encode(),
        ),
        "two equal factors",
    ),
    "second Transformer": ("modules.json", json.dumps([_MODULES[0], _MODULES[0]]).encode(), "stands behind the model"),
    "template of a tokenizer with an unknown token": ("tokenizer.json", unknown_token(), "cannot encode 'a'"),
    "training settings nested too deeply": ("train.toml", b"a = " + DEEP, "is not TOML"),
}


@pytest.mark.parametrize("case", FOUND)
def test_an_input_that_was_a_fault_is_none(tmp_path, case):
    name, data, reason = FOUND[case]
    for module in TARGETS[name].needs:
        pytest.importorskip(module)
    outcome = outcome_of(TARGETS[name], data, tmp_path)
    assert outcome.kind == ("error" if reason else "result"), outcome.text
    assert reason in outcome.text


def test_a_graph_that_onnx_runtime_refuses_prints_nothing(tiny_bundle, monkeypatch, capfd):
    collection = pytest.importorskip("onnxruntime.capi.onnxruntime_inference_collection")

    def refuse(*_):
        raise ValueError("no graph")

    monkeypatch.setattr(collection.InferenceSession, "_create_inference_session", refuse)
    with pytest.raises(DearliteError, match="no graph"):
        Reranker.load(tiny_bundle, threads=1).rerank("a", ["b"])
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("kind", [DearliteError, UsageError, InvalidInput, CheckpointError])
def test_every_error_is_one_line_without_commands_to_a_terminal(kind):
    message = str(kind("the file a\nb\x1b[31m\u202ec\ud800 d\u3000é"))
    assert message == r"the file a\nb\x1b[31m\u202ec\ud800 d" + "\u3000é"
    assert printable(message) == message


def test_a_template_that_never_ends_is_tried_once(monkeypatch):
    pytest.importorskip("jinja2")
    renders, render = [], chat.ChatTemplate._render
    monkeypatch.setattr(chat, "_LONGEST_S", 0.05)
    monkeypatch.setattr(chat.ChatTemplate, "_render", lambda *args: renders.append(args) or render(*args))
    template = chat.ChatTemplate("{% for _ in range(99999) %}{% for _ in range(99999) %}{% endfor %}{% endfor %}", {})
    with pytest.raises(ModelFileError, match=r"it runs for more than 0\.05 s"):
        template.parts([("system", "s"), ("user", "q")])
    assert len(renders) == 1


ENTRY = {"key": "k", "seconds": 0.5, "scores": [1.5, -2], "tokens_used": [3, 4], "tokens_total": [3, 9]}


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": [1.5]},
        {"scores": ["a", "b"]},
        {"scores": None},
        {"scores": [True, 1.0]},
        {"tokens_used": [3, -4]},
        {"tokens_used": [3, 2**70]},
        {"seconds": "x"},
        {"seconds": None},
        {"places": [0, 2]},
        {"places": [0, -1]},
        {"order": [0, 0]},
        {"order": [0]},
        {"order": [1, "0"]},
        {"said": []},
        {"said": {"reasons": []}},
        {"said": {"reasoning": "x"}},
    ],
)
def test_a_journal_entry_of_another_form_is_left_out(changes):
    scores = QueryScores("q", ("a", "b"))
    assert not scores.restore(ENTRY | changes)
    assert scores.missing() == [0, 1] and scores.seconds == 0
    assert scores.restore(ENTRY | {"order": [1, 0], "places": [0, 1]})
    assert list(scores.scores) == [1.5, -2]
