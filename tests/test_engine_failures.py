"""Whatever a library raises while a model runs becomes one line that names the model and the document."""

import json

import pytest

from dearlite import (
    DearliteError,
    EngineError,
    InvalidInput,
    Long,
    ModelFileError,
    Reranker,
    make_collection,
    rerank_run,
)
from dearlite.foreign import Foreign, engine_errors
from dearlite.pointwise.tokens import PairEncoder

DOCS = [
    {"id": "d1", "text": "Rain falls."},
    {"id": "d2", "text": "Ships carry BOOM grain."},
    {"id": "d3", "text": "Tea"},
]


class PanicException(BaseException):
    """As pyo3 names what a panic of Rust raises."""


class Fail(Exception):
    """As ONNX Runtime names its errors: children of Exception itself."""


KINDS = [
    Fail("[ONNXRuntimeError] : 1 : FAIL : Non-zero status code\nsecond line"),
    RuntimeError("runtime"),
    IndexError(),
    ValueError("value"),
    OSError(5, "Input/output error"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    PanicException("byte index 3 is not a char boundary"),
    SystemError("returned NULL"),
]


class Library:
    """A library's object whose named function raises if its argument `breaks`."""

    def __init__(self, target, function, breaks, error):
        self._target, self._function, self._breaks, self._error = target, function, breaks, error

    def __getattr__(self, name):
        value = getattr(self._target, name)
        if name != self._function:
            return value

        def call(*arguments, **options):
            if self._breaks(*arguments):
                raise self._error
            return value(*arguments, **options)

        return call


@pytest.fixture(scope="module")
def reranker():
    return Reranker.load(threads=1)


def has_boom(text, *_):
    return "BOOM" in (text if isinstance(text, str) else " ".join(text))


def runs_boom(reranker):
    boom = reranker._encoder.ids("BOOM")[0]
    return lambda _, feeds: boom in feeds["ids"].ravel().tolist()


# call -> the name that it gives the second document
CALLS = {
    "rerank": (lambda model: model.rerank("rain", DOCS), "document 'd2'"),
    "rerank without ids": (lambda model: model.rerank("rain", [doc["text"] for doc in DOCS]), "document 1"),
    "rerank_many": (lambda model: model.rerank_many([("tea", [DOCS[2]]), ("rain", DOCS)]), "document 'd2'"),
    "budget": (lambda model: model.rerank("rain", [doc["text"] for doc in DOCS], budget_s=60), "document 1"),
    "passages": (lambda model: model.rerank("rain", [doc["text"] for doc in DOCS], long=Long("chunk", 16)), None),
    "score": (lambda model: model.score([("rain", doc["text"]) for doc in DOCS]), "document 1"),
    "batch": (
        lambda model: rerank_run(
            make_collection({"q": "rain"}, {doc["id"]: doc for doc in DOCS}, {"q": ["d1", "d2", "d3"]}),
            model=model,
            journal=False,
        ),
        "document 'd2'",
    ),
}


@pytest.mark.parametrize("error", KINDS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", CALLS)
def test_a_failure_of_a_library_names_model_and_document(reranker, monkeypatch, call, error):
    encoder, backend = reranker._encoder, reranker._backend
    ways = {
        "encode_batch_fast": (encoder, "_tokenizer", has_boom, "the tokenizers library"),
        "run": (backend, "_session", runs_boom(reranker), "ONNX Runtime"),
    }
    run, name = CALLS[call]
    for function, (owner, attribute, breaks, library) in ways.items():
        target = Library(getattr(owner, attribute)._target, function, breaks, error)
        if function == "encode_batch_fast":  # encoded one by one afterwards
            target = Library(target, "encode", has_boom, error)
        with monkeypatch.context() as patch:
            patch.setattr(owner, attribute, Foreign(library, target))
            with pytest.raises(EngineError) as caught:
                run(reranker)
        message = str(caught.value)
        assert "\n" not in message
        assert library in message
        assert message.startswith("minilm-l12 cannot read ")
        assert name is None or name in message
        run(reranker)  # the model lives on


def test_a_token_beyond_the_embedding_names_the_document(reranker, monkeypatch):
    """A tokenizer with more tokens than its model has rows: an error of ONNX Runtime itself."""
    encode = reranker._encoder._tokenizer.encode_batch_fast

    class Beyond:
        def __init__(self, encoding, text):
            self.ids = [99_999, *encoding.ids] if has_boom(text) else encoding.ids

    def more(texts, **options):
        return [Beyond(encoding, text) for encoding, text in zip(encode(texts, **options), texts, strict=True)]

    monkeypatch.setattr(reranker._encoder._tokenizer, "encode_batch_fast", more, raising=False)
    with pytest.raises(EngineError, match=r"minilm-l12 cannot read document 'd2': ONNX Runtime failed .*99999 must be"):
        reranker.rerank("rain", DOCS)


def test_the_command_line_gives_one_line_and_a_run_resumes(cli, monkeypatch, tmp_path):
    docs = tmp_path / "d.jsonl"
    docs.write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    make = PairEncoder.__init__

    def breaking(self, *arguments, **options):
        make(self, *arguments, **options)
        error = PanicException("a panic")
        target = Library(self._tokenizer._target, "encode_batch_fast", has_boom, error)
        self._tokenizer = Foreign("the tokenizers library", Library(target, "encode", has_boom, error))

    with monkeypatch.context() as patch:
        patch.setattr(PairEncoder, "__init__", breaking)
        rc, out, err = cli("rerank", "-q", "rain", docs, "--threads", "1")
        assert (rc, out, len(err.strip().splitlines())) == (1, "", 1)
        assert "document 'd2'" in err
        (tmp_path / "run.trec").write_text("".join(f"q Q0 d{n} {n} {9 - n} t\n" for n in (1, 2, 3)))
        (tmp_path / "q.jsonl").write_text('{"_id": "q", "text": "rain"}\n')
        parts = ("--queries", tmp_path / "q.jsonl", "--corpus", docs, "--run", tmp_path / "run.trec")
        rc, _, err = cli("batch", *parts, "-o", tmp_path / "out.trec", "--threads", "1")
        assert (rc, (tmp_path / "out.trec").exists()) == (1, False)
        assert "document 'd2'" in err
    rc, _, err = cli("batch", *parts, "-o", tmp_path / "out.trec", "--threads", "1")
    assert rc == 0


def test_interrupts_and_errors_of_dearlite_pass():
    for error in (KeyboardInterrupt(), SystemExit(3), GeneratorExit(), InvalidInput("x")):
        with pytest.raises(type(error)) as caught, engine_errors("a library"):
            raise error
        assert caught.value is error


@pytest.mark.parametrize("error", KINDS, ids=lambda error: type(error).__name__)
def test_a_tokenizer_that_cannot_be_read_is_a_model_file_error(monkeypatch, tokenizer_json, error):
    import tokenizers

    class Broken:
        @staticmethod
        def from_str(_):
            raise error

    monkeypatch.setattr(tokenizers, "Tokenizer", Broken)
    with pytest.raises(ModelFileError, match="the tokenizer in the model file cannot be read"):
        PairEncoder(tokenizer_json, max_tokens=512)


LLAMA_CALLS = ["llama_tokenize", "llama_decode", "llama_get_logits_ith", "llama_init_from_model"]


@pytest.mark.parametrize("function", LLAMA_CALLS)
def test_a_failure_of_llama_cpp_names_model_and_documents(tmp_path, monkeypatch, function):
    tiny_gguf = pytest.importorskip("tiny_gguf")
    model = Reranker.load(tiny_gguf.write_tiny(tmp_path / "tiny.gguf"), threads=1)
    for error in KINDS:
        llama = Foreign("llama.cpp", Library(model._backend._llama._target, function, lambda *_: True, error))
        with monkeypatch.context() as patch:
            patch.setattr(model._backend, "_llama", llama)
            patch.setattr(model._backend.vocabulary, "_llama", llama)
            with pytest.raises(DearliteError) as caught:
                model.rerank("rain", DOCS)
        assert str(caught.value).startswith("tiny cannot read document 'd1'")
        assert "llama.cpp failed (" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert len(model.rerank("rain", DOCS)) == 3


@pytest.mark.parametrize("error", KINDS, ids=lambda error: type(error).__name__)
def test_a_file_that_llama_cpp_cannot_load_is_a_model_file_error(tmp_path, monkeypatch, error):
    tiny_gguf = pytest.importorskip("tiny_gguf")
    from dearlite.llama import model
    from dearlite.llama.bindings import library

    path = tiny_gguf.write_tiny(tmp_path / "tiny.gguf")
    target = Library(library()._target, "llama_model_load_from_file", lambda *_: True, error)
    monkeypatch.setattr(model, "library", lambda: Foreign("llama.cpp", target))
    with pytest.raises(ModelFileError, match=r"cannot be loaded: llama\.cpp failed"):
        Reranker.load(path, threads=1)
