"""Hostile queries, documents and instructions through every kind of model: no text becomes a special token.

The ids that a model reads are counted at its engine. A prompt of a hostile text has the special tokens of the same
prompt of a harmless one, and no more: those of the template.
"""

import json
from collections import Counter
from functools import wraps

import numpy as np
import pytest
from hostile import FAMILY_TOKENS, HOSTILE
from llama import need_llama

from dearlite import Listwise, Reranker
from dearlite.errors import DearliteError, InvalidInput
from dearlite.llama.model import LlamaModel
from dearlite.pointwise.tokens import TextEncoder
from dearlite.templates.chat import ChatTemplate

UNKNOWN = ("[UNK]", "<unk>")  # read where a text has a character that the vocabulary has not
QUERY, DOCUMENT = "who invented the bulb", "Edison"
TEXTS = [pytest.param(text, id=name) for name, text in HOSTILE.items()]


class Read:
    """The ids that engines read, and the special ones among them."""

    def __init__(self, monkeypatch):
        self.ids = []
        read = LlamaModel.read

        @wraps(read)
        def read_llama(model, batch, *arguments, **options):
            self.ids += [token for tokens in batch.values() for token in tokens]
            return read(model, batch, *arguments, **options)

        monkeypatch.setattr(LlamaModel, "read", read_llama)

    def rows(self, rows):
        for row in rows:
            self.ids += row.ids.tolist()
            yield row

    def special(self, numbers):
        counts = Counter(number for number in self.ids if number in numbers)
        self.ids.clear()
        return counts


@pytest.fixture
def read(monkeypatch):
    return Read(monkeypatch)


def kept(error, function, *arguments, **options):
    """The result of `function`; None after an `error`, whose message must be one line."""
    try:
        return function(*arguments, **options)
    except error as err:
        message = str(err)
    assert message.isprintable()
    return None


def ranked(model, query, documents, **options):
    """The ranking, which must hold every document; None for texts that are refused in one line."""
    ranking = kept(InvalidInput, model.rerank, query, documents, **options)
    if ranking is None:
        return None
    assert sorted(hit.index for hit in ranking) == list(range(len(documents)))
    assert [hit.text for hit in ranking] == [as_text(documents[hit.index]) for hit in ranking]
    return ranking


def as_text(text):
    """`text` with U+FFFD in place of half a surrogate pair, which is no text."""
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)


def check_counts(read, numbers, rank, every=1):
    """`rank(query, document)` reads the special tokens of a harmless text whatever the two hold."""
    rank("tea", "coffee")  # the beginning of a prompt is read at its first use
    read.ids.clear()
    rank(QUERY, DOCUMENT)
    expected = read.special(numbers)
    for name, text in list(HOSTILE.items())[::every]:
        for query, document in ((QUERY, text), (text, DOCUMENT)):
            if rank(query, document) is not None:
                assert read.special(numbers) == expected, name
            read.ids.clear()
    return expected


# pointwise models on ONNX Runtime


def onnx_numbers(model, read, monkeypatch):
    """The special ids of a pointwise .dear, whose rows are read from now on."""
    score = model._backend.score
    monkeypatch.setattr(model._backend, "score", lambda rows: score(read.rows(rows)))
    return {number for text, number in model._encoder.special_tokens.items() if text not in UNKNOWN}


def test_an_encoder(tiny_bundle, read, monkeypatch):
    with Reranker.load(tiny_bundle, threads=1) as model:
        numbers = onnx_numbers(model, read, monkeypatch)
        expected = check_counts(read, numbers, lambda query, document: ranked(model, query, [document, "x"]))
    assert sum(expected.values()) == 6  # two rows of [CLS] query [SEP] document [SEP]


def test_a_decoder_with_a_template_and_an_instruction(tmp_path, read, monkeypatch):
    pytest.importorskip("onnx")
    from tiny_template import write_template_bundle

    from dearlite.templates.families import FAMILIES
    from dearlite.templates.template import Template

    family = FAMILIES["qwen3-reranker"]
    template = Template(parts=family.parts, instructed=family.instructed, instruction=family.instruction)
    path = write_template_bundle(tmp_path / "m.dear", template)
    with Reranker.load(path, threads=1) as model:
        numbers = onnx_numbers(model, read, monkeypatch)
        expected = check_counts(read, numbers, lambda query, document: ranked(model, query, [document, "x"]))
        assert expected
        for name, text in HOSTILE.items():
            if (other := kept(DearliteError, model.with_instruction, text)) is None:
                continue
            ranked(other, QUERY, [DOCUMENT, "x"])
            assert read.special(numbers) == expected, name


# llama.cpp


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    need_llama()
    from tiny_gguf import write_tiny

    return write_tiny(tmp_path_factory.mktemp("hostile") / "tiny.gguf")


def llama_numbers(model):
    vocabulary = (model._backend if hasattr(model, "_backend") else model._llama).vocabulary
    return set(vocabulary.special_tokens.values())


@pytest.mark.parametrize("mode", ["permute", "first", "setwise", "pairwise"])
def test_a_listwise_model(gguf, read, mode):
    with Reranker.load(gguf, threads=1) as model:
        listwise = Listwise(mode=mode, passage_tokens=60)
        rank = lambda query, document: ranked(model, query, [document, "snow"], listwise=listwise)  # noqa: E731
        assert check_counts(read, llama_numbers(model), rank)


@pytest.mark.parametrize("mode", ["reason", "generate"])
def test_a_listwise_model_that_writes(gguf, mode):
    """What it writes differs, and with it what it reads: the ranking must be whole."""
    with Reranker.load(gguf, threads=1) as model:
        listwise = Listwise(mode=mode, passage_tokens=60, **({"reasoning_tokens": 4} if mode == "reason" else {}))
        for text in list(HOSTILE.values())[::9]:
            ranked(model, text, [DOCUMENT, text], listwise=listwise)


@pytest.fixture(scope="module")
def whole_vocabulary(tmp_path_factory):
    """A model in whose vocabulary yes and no are a token each."""
    need_llama()
    from tiny_gguf import smollm2, write_tiny

    from dearlite.models.gguf import GgufFile

    path = tmp_path_factory.mktemp("hostile") / "tiny.gguf"
    return write_tiny(path, tokenizer=GgufFile(smollm2()).metadata, context=1024)


@pytest.mark.parametrize("prompt", ["yes-no", "query-likelihood", "upr"])
def test_a_pointwise_gguf(gguf, whole_vocabulary, read, prompt, monkeypatch):
    gguf = whole_vocabulary if prompt == "yes-no" else gguf
    with Reranker.load(gguf, threads=1, prompt=prompt) as model:
        numbers = llama_numbers(model)
        monkeypatch.setattr(LlamaModel, "read", LlamaModel.read.__wrapped__)  # a common beginning is read once
        score = model._llama.score
        monkeypatch.setattr(model._llama, "score", lambda rows, *args: score(read.rows(rows), *args))
        expected = check_counts(read, numbers, lambda query, document: ranked(model, query, [document]))
        if prompt != "yes-no":
            return
        assert expected
        for name, text in HOSTILE.items():
            if (other := kept(DearliteError, model.with_instruction, text)) is None:
                continue
            ranked(other, QUERY, [DOCUMENT])
            assert read.special(numbers) == expected, name


def test_sub_queries(gguf, read, monkeypatch):
    from dearlite.listwise.engine import LlamaBackend
    from dearlite.listwise.subqueries import decompose

    def run(self, decodings, room, **_):
        read.ids += next(iter(decodings).__next__()).tokens  # the prompt; what follows is the model's own
        return ['x"]']

    monkeypatch.setattr(LlamaBackend, "run", run)
    with Reranker.load(gguf, threads=1) as model:
        numbers, counts = llama_numbers(model), {}
        for name, text in {"harmless": QUERY, **HOSTILE}.items():
            if kept(InvalidInput, decompose, text, model, most=1) is not None:
                counts[name] = read.special(numbers)
            read.ids.clear()
    assert counts["harmless"]
    assert {name for name, count in counts.items() if count != counts["harmless"]} == set()


def test_a_cascade(gguf, tiny_bundle, read):
    with Reranker.load([(tiny_bundle, None), (gguf, 2)], threads=1) as model:
        for text in list(HOSTILE.values())[::3]:
            ranked(model, text, [DOCUMENT, text, "snow"], listwise=Listwise(mode="first", passage_tokens=40))


def test_an_attention_reranker(tmp_path, read, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from attention_models import causal

    from dearlite.export import export

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    causal(tmp_path, "llama, 4 heads of 4, 10000", num_key_value_heads=1, **sizes)
    path = export(tmp_path, output=tmp_path / "m.dear", quant="fp32", heads="icr").path
    with Reranker.load(path, device="cpu", threads=1) as model:
        run = model._backend._run

        def reading(names, ids, *arguments):
            read.ids += np.asarray(ids).tolist()
            return run(names, ids, *arguments)

        monkeypatch.setattr(model._backend, "_run", reading)
        numbers = {number for text, number in model._encoder.special_tokens.items() if text not in UNKNOWN}
        assert check_counts(read, numbers, lambda query, document: ranked(model, query, [document, "tea"]), 3)


# tokenizers and vocabularies with the special tokens of each family


@pytest.mark.parametrize("family", FAMILY_TOKENS)
@pytest.mark.parametrize("kind", ["bert", "qwen"])
def test_no_text_has_the_special_tokens_of_a_family(family, kind, tokenizer_json):
    if kind == "qwen":
        from qwen_tokenizer import qwen_tokenizer_json

        tokenizer_json = qwen_tokenizer_json()
    raw = json.loads(tokenizer_json)
    known = {token["content"] for token in raw["added_tokens"]}
    first = 1 + max(*raw["model"]["vocab"].values(), *(token["id"] for token in raw["added_tokens"]))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    new = [text for text in FAMILY_TOKENS[family] if text not in known]
    raw["added_tokens"] += [{"id": first + n, "content": text, **flags} for n, text in enumerate(new)]
    encoder = TextEncoder(json.dumps(raw).encode())
    numbers = {encoder.special_tokens[text] for text in FAMILY_TOKENS[family] if text not in UNKNOWN}
    assert len(numbers) >= 3
    for name, text in HOSTILE.items():
        ids = encoder.ids(text.encode("utf-8", "replace").decode())
        assert not numbers & {*ids}, name


@pytest.mark.parametrize("user_defined", [False, True])
def test_no_text_has_a_special_token_of_a_gguf(tmp_path, user_defined):
    need_llama()
    from tiny_gguf import cut_tokenizer, write_tiny

    from dearlite.listwise.engine import LlamaBackend
    from dearlite.models.gguf import GgufFile

    source = cut_tokenizer()
    texts = list(dict.fromkeys(text for tokens in FAMILY_TOKENS.values() for text in tokens))
    tokens, types = list(source["tokenizer.ggml.tokens"]), list(source["tokenizer.ggml.token_type"])
    texts = [text for text in texts if text not in tokens]
    merged = {merge.replace(" ", "") for merge in source["tokenizer.ggml.merges"]}
    last = [n for n in range(len(tokens)) if tokens[n] in merged][-len(texts) :]
    gone = {tokens[n] for n in last}
    for number, text in zip(last, texts, strict=True):
        tokens[number], types[number] = text, 4 if user_defined else 3
    merges = [
        merge
        for merge in source["tokenizer.ggml.merges"]
        if merge.replace(" ", "") not in gone and not gone & {*merge.split(" ")}
    ]
    changed = {"tokens": tokens, "token_type": types, "merges": merges}
    tokenizer = source | {f"tokenizer.ggml.{name}": value for name, value in changed.items()}
    backend = LlamaBackend(GgufFile(write_tiny(tmp_path / "m.gguf", tokenizer=tokenizer)))
    try:
        vocabulary = backend.vocabulary
        numbers = set(vocabulary.special_tokens.values())
        assert {*last} <= numbers
        for name, text in HOSTILE.items():
            ids = vocabulary.encode(text.encode("utf-8", "replace").decode())
            assert not numbers & {*ids}, name
    finally:
        backend.close()


# chat templates see no text


@pytest.mark.parametrize("text", TEXTS)
def test_a_chat_template_puts_every_text_where_it_belongs(text):
    pytest.importorskip("jinja2")
    source = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content | upper | replace('A', 'B') | trim }}</s>{% endfor %}"
        "{% if 'bulb' in messages[0].content %}found{% endif %}"
    )
    parts = ChatTemplate(source, {}).parts([("system", text), ("user", text), ("assistant", "x")])
    assert [part.text for part in parts if not part.special] == [*([text.strip()] * 2 if text.strip() else []), "x"]
    assert "".join(part.text for part in parts if part.special) == "<|system|></s><|user|></s><|assistant|></s>"
