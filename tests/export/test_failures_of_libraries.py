"""Whatever a library raises during an export or a training is one line with a remedy, and leaves no file."""

import pytest
from gguf_models import write_model

from dearlite.errors import DearliteError
from dearlite.export import export
from dearlite.export.train import base as training
from dearlite.export.train import loop
from dearlite.export.train.config import PointwiseConfig
from dearlite.foreign import one_line_errors

TINY = "llama, 4 heads of 1, llama3 scaling, untied"
PANIC = type("PanicException", (BaseException,), {})
FAILURES = [
    RuntimeError("first line\nsecond line"), ValueError("bad"), KeyError("x"), TypeError(), AssertionError(),
    OSError("no file named x in y.\nSecond."), PANIC("index out of bounds"), ImportError("no module"),
]  # fmt: skip


def fails(error):
    def call(*_, **__):
        raise error

    return call


def assert_one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    assert message.count(": ") >= 1 and "Traceback" not in message


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("listwise") / "model", TINY)


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("target", ["gguf.SpecialVocab", "gguf.GGUFWriter.add_token_list"])
def test_gguf_package(model, tmp_path, monkeypatch, target, error):
    monkeypatch.setattr(target, fails(error))
    with pytest.raises(DearliteError) as caught:
        export(model, output=tmp_path / "m.gguf", quant="f16", card=False)
    assert_one_line(caught)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "target",
    [
        "transformers.AutoModelForSequenceClassification.from_pretrained",
        "optimum.exporters.onnx.convert.export",
        "dearlite.export.encoders.tracing.simplify",
        "onnxruntime.InferenceSession",
    ],
)
def test_libraries_of_an_encoder(encoder, tmp_path, monkeypatch, target, error):
    monkeypatch.setattr(target, fails(error))
    with pytest.raises(DearliteError) as caught:
        export(encoder, output=tmp_path / "m.dear", quant="fp32", card=False)
    assert_one_line(caught)
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    pytest.importorskip("optimum.exporters.onnx", reason="the extra `encoders` is not installed")
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=1,
        max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "b", "c", "d"]
    tok = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    tok.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tok.save(str(folder / "tokenizer.json"))
    return folder


class _Auto:
    """A class with transformers' and PEFT's loading method, which fails."""

    def __init__(self, error):
        self.from_pretrained = fails(error)


class _Trainer:
    def __init__(self, error):
        self.train = fails(error)

    def remove_callback(self, _):
        pass

    def add_callback(self, _):
        pass


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_libraries_of_a_training(tmp_path, monkeypatch, error):
    pytest.importorskip("peft")
    config = PointwiseConfig(base="b", data=("d",), output=str(tmp_path), dtype="fp32", gradient_checkpointing=False)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\x00" * 20)
    monkeypatch.setattr("transformers.AutoTokenizer", _Auto(error))
    monkeypatch.setattr("peft.get_peft_model", fails(error))
    calls = [
        lambda: training.load_tokenizer("b"),
        lambda: training.load_base(_Auto(error), "b", config),
        lambda: training.with_lora(object(), config, "SEQ_CLS"),
        lambda: training.check_adapter(tmp_path, head=False),
        lambda: loop.run_trainer(_Trainer(error)),
    ]
    for call in calls:
        with pytest.raises(DearliteError) as caught:
            call()
        assert_one_line(caught)


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), SystemExit(3), OSError(28, "No space left")])
def test_interrupts_and_errors_of_the_system_pass(error):
    with pytest.raises(type(error)), one_line_errors("x", "y"):
        raise error
