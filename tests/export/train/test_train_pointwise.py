"""Stage 1 end to end on a tiny model: it learns, goes on as if never stopped, and ends in an adapter that exports."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny_decoders
from safetensors.numpy import load_file, save_file

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("accelerate")

from dearlite import Reranker  # noqa: E402
from dearlite.cli.main import COMMANDS  # noqa: E402
from dearlite.errors import DearliteError, UsageError  # noqa: E402
from dearlite.export.train import base as train_base  # noqa: E402
from dearlite.export.train import loop as training  # noqa: E402
from dearlite.export.train import pointwise as stage  # noqa: E402
from dearlite.export.train.config import PointwiseConfig  # noqa: E402

KIND = "llama, 4 heads of 4, 10000"
WORDS = ("bulb", "coffee", "tea", "Momoa", "Edison", "X")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny_decoders.checkpoint(folder, KIND)
    tiny_decoders.tokenizer(folder)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "bos_token": "<bos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Groups whose positive holds the query's word; the teacher says so, too."""
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    with open(path, "w", encoding="utf-8") as stream:
        for number in range(48):
            word = WORDS[number % len(WORDS)]
            others = [one for one in WORDS if one != word]
            positive = {"docid": "p", "text": f"the {word} a b", "teacher_score": 3.0}
            negatives = [
                {"docid": f"n{at}", "text": f"{one} c d {'e f ' * at}", "teacher_score": -3.0 - at / 10}
                for at, one in enumerate(others)
            ]
            row = {"query_id": f"q{number}", "query": f"who {word}", "positives": [positive], "negatives": negatives}
            stream.write(json.dumps(row) + "\n")
    return path


@pytest.fixture
def settings(base, data, tmp_path):
    def make(**changes):
        given = {"base": str(base), "data": (str(data),), "output": str(tmp_path / "out"), "dtype": "fp32"}
        given |= {"max_steps": 8, "passages": 4, "batch": 4, "log_steps": 1, "save_steps": 4, "threads": 1}
        return PointwiseConfig(**(given | changes))

    return make


def curve(config):
    return [(one["step"], one["loss"]) for one in json.loads((training_json(config)).read_text())["curve"]]


def training_json(config):
    return stage.Path(config.output) / "training.json"


def tensors(config):
    return load_file(stage.Path(config.output) / "adapter_model.safetensors")


def test_it_learns_and_says_what_it_did(settings):
    said = []
    config = settings(max_steps=30, learning_rate=1e-2, batch=2, accumulation=1, log_steps=5, save_steps=100)
    folder = stage.train_pointwise(config, report=said.append)
    losses = [loss for _, loss in curve(config)]
    assert losses[-1] < 0.5 * losses[0], losses
    report = json.loads((folder / "training.json").read_text())
    assert report["steps"] == 30 and report["taught"] and len(next(iter(report["data_sha256"].values()))) == 64
    assert "48 groups, 4 passages each" in said[0] and said[-1].startswith("step 30 of 30  loss ")


def test_a_stopped_training_ends_as_an_undisturbed_one(settings, monkeypatch, tmp_path):
    whole = settings(output=str(tmp_path / "whole"))
    stage.train_pointwise(whole)
    real = stage.stop_at_nan

    def die(loss, step, names, folder):
        if step == 7:
            raise KeyboardInterrupt
        real(loss, step, names, folder)

    config, said = settings(), []
    monkeypatch.setattr(stage, "stop_at_nan", die)
    with pytest.raises(KeyboardInterrupt):
        stage.train_pointwise(config)
    monkeypatch.setattr(stage, "stop_at_nan", real)
    stage.train_pointwise(config, report=said.append)
    assert any("resuming from" in line and line.endswith("checkpoint-4") for line in said)
    assert curve(config) == curve(whole)
    one, other = tensors(config), tensors(whole)
    assert one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def test_a_clock_that_is_set_back_costs_no_checkpoint(settings, monkeypatch):
    config, real = settings(save_steps=2), stage.stop_at_nan

    def set_back(loss, step, names, folder):
        real(loss, step, names, folder)
        for path in stage.Path(folder).glob("checkpoint-*"):
            seconds = 1e9 - 3600 * int(path.name.partition("-")[2])
            os.utime(path, (seconds, seconds))

    monkeypatch.setattr(stage, "stop_at_nan", set_back)
    folder = stage.train_pointwise(config)
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-6", "checkpoint-8"]
    assert not list(folder.glob(".*.draft"))


def test_a_training_may_begin_with_an_adapter(settings, base, tmp_path):
    first = settings(max_steps=30, learning_rate=1e-2, lora_r=4, log_steps=10, batch=2, accumulation=1)
    stage.train_pointwise(first)
    written = stage.Path(first.output) / "adapter_config.json"
    written.write_text(json.dumps(json.loads(written.read_text()) | {"base_model_name_or_path": "gone/base"}))
    more = settings(adapter=first.output, output=str(tmp_path / "more"), max_steps=1, learning_rate=0.0, log_steps=1)
    stage.train_pointwise(more)
    one, other = tensors(first), tensors(more)
    assert one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)
    fresh = settings(output=str(tmp_path / "fresh"), max_steps=1, log_steps=1)
    stage.train_pointwise(fresh)
    assert curve(more)[0][1] < 0.5 * curve(fresh)[0][1]  # the same batch: what was learnt before is there
    assert json.loads((tmp_path / "more/adapter_config.json").read_text())["base_model_name_or_path"] == str(base)


def test_an_adapter_that_cannot_be_continued_is_refused(settings, base, tmp_path):
    folder = tmp_path / "adapter"
    with pytest.raises(UsageError, match=r"cannot be continued: .* has no adapter_config.json"):
        stage.train_pointwise(settings(adapter=str(folder)))
    stage.train_pointwise(settings(output=str(folder), max_steps=1))
    names = tensors(settings(output=str(folder)))
    save_file({n: t for n, t in names.items() if not n.endswith("score.weight")}, folder / "adapter_model.safetensors")
    with pytest.raises(UsageError, match="without its score head"):
        stage.train_pointwise(settings(adapter=str(folder)))
    save_file({n: np.ones((3, 3), np.float32) for n in names}, folder / "adapter_model.safetensors")
    with pytest.raises(UsageError, match="does not fit"):
        stage.train_pointwise(settings(adapter=str(folder)))
    written = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(written | {"task_type": "CAUSAL_LM"}))
    with pytest.raises(UsageError, match="was trained for task CAUSAL_LM, this stage trains SEQ_CLS"):
        stage.train_pointwise(settings(adapter=str(folder)))


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(settings, monkeypatch):
    real, config, count = stage.group_loss, settings(), []

    def poisoned(*args, **kwargs):
        count.append(1)
        return real(*args, **kwargs) * (float("nan") if len(count) > 10 else 1.0)

    monkeypatch.setattr(stage, "group_loss", poisoned)
    with pytest.raises(DearliteError, match=r"the loss is nan at step 6 \(records q\d+, q\d+, q\d+, q\d+\)") as caught:
        stage.train_pointwise(config)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(stage, "group_loss", real)
    said = []
    stage.train_pointwise(config, report=said.append)
    assert any(line.endswith("checkpoint-4") for line in said)


def test_the_adapter_exports_and_scores_as_torch_does(settings, base, cli, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    config = settings(max_steps=20, learning_rate=5e-3, batch=2, accumulation=1)
    folder = stage.train_pointwise(config)
    code, _, err = cli("export", base, "--adapter", folder, "-o", tmp_path / "tiny.dear", "--quant", "fp32")
    assert code == 0, err
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = 0
    model = PeftModel.from_pretrained(model, folder).merge_and_unload().eval()
    tok = AutoTokenizer.from_pretrained(base)
    scores = Reranker.load(tmp_path / "tiny.dear").score(tiny_decoders.PAIRS)
    for (query, document), score in zip(tiny_decoders.PAIRS, scores, strict=True):
        ids = tok(f"query: {query}", f"document:  {document}", truncation="longest_first", max_length=228)
        with torch.inference_mode():
            expected = float(model(input_ids=torch.tensor([ids["input_ids"]])).logits[0, 0])
        assert score == pytest.approx(expected, abs=2e-3)


def test_passes_of_a_few_rows_have_the_gradient_of_one(settings, monkeypatch):
    config = settings(lora_dropout=0.0)
    groups, _ = stage.read_groups([stage.Path(config.data[0])])
    tok = train_base.load_tokenizer(config.base)
    encoder = stage.PairEncoder(tok.backend_tokenizer.to_str().encode(), max_tokens=config.max_tokens)
    collate = stage.Collator(groups, encoder, config, tok.pad_token_id)
    model, found = stage.load_model(config.base, tok.pad_token_id, config).train(), []
    batch = collate([(0, 0), (7, 0), (13, 0), (20, 0)])
    assert batch["input_ids"].shape[0] == 16 and batch["mask"].all()
    for rows in (3, 99):
        monkeypatch.setattr(stage, "_CPU_ROWS", rows)
        model.zero_grad()
        loss = stage.group_loss(model, batch, config, use_teacher=True)
        loss.backward()
        found.append((loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)  # fp32 sums in another order


def test_a_dry_run_says_what_it_will_take_and_trains_nothing(settings):
    config, said = settings(), []
    assert stage.train_pointwise(config, dry_run=True, report=said.append) is None
    text = "\n".join(said)
    assert "8 steps of 2 x 4 queries: 256 pairs" in text and "pairs/s" in text and "memory" in text
    assert not list(stage.Path(config.output).glob("*.safetensors"))
    stage.train_pointwise(settings(max_steps=1, alpha=0.3))  # and it claims the folder for nothing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank_loss": "hinge"}, "rank_loss is 'hinge': it must be one of ce, ranknet"),
        ({"prompt": "none"}, "prompt is 'none'"),
        ({"passages": 1}, "passages must be 2 or more"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"lora_targets": ("nothing",)}, "lora_targets do not fit"),
        ({"data": ("nowhere.jsonl",)}, "nowhere.jsonl"),
        ({"base": "nowhere/at-all"}, "base nowhere/at-all"),
    ],
)
def test_wrong_settings_are_one_line(settings, changes, message, monkeypatch):
    def sleep(seconds):
        raise AssertionError(f"waited {seconds} s")

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # where nothing answers
    monkeypatch.setattr("time.sleep", sleep)
    with pytest.raises(UsageError, match=message) as caught:
        stage.train_pointwise(settings(**changes))
    assert "\n" not in str(caught.value)


def test_an_output_that_is_taken(settings, tmp_path):
    config = settings(max_steps=1)
    with training.open_output(config), pytest.raises(UsageError, match="in use by another training"):
        stage.train_pointwise(config)
    stage.train_pointwise(config)
    with pytest.raises(UsageError, match=r"holds another training \(alpha differ\)"):
        stage.train_pointwise(settings(max_steps=1, alpha=0.2))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty and holds no training"):
        stage.train_pointwise(settings(output=str(tmp_path / "full")))


# torchrun's own launch, of a function in processes that fork from it: they import torch and transformers once.
TORCHRUN = """
import sys, uuid
import peft, transformers
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from dearlite.cli.main import run
import dearlite.export.train.pointwise
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer
config = LaunchConfig(
    min_nodes=1, max_nodes=1, nproc_per_node=2, start_method="fork", run_id=str(uuid.uuid4()),
    rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0,
)
def train(arguments):
    try:
        run(arguments)
    except SystemExit as end:
        assert end.code == 0, end.code
elastic_launch(config, train)(sys.argv[1:])
"""


def test_two_processes_train_as_one_that_accumulates(settings, base, data, tmp_path):
    """Each takes every second batch; the mean of their gradients is that of two batches one after the other."""
    alone = settings(output=str(tmp_path / "alone"), batch=2, accumulation=2, lora_dropout=0.0, max_steps=3)
    stage.train_pointwise(alone)
    pair = dataclasses.replace(alone, output=str(tmp_path / "pair"), accumulation=1)
    lines = [f"{name} = {json.dumps(value)}" for name, value in pair.to_dict().items()]
    (tmp_path / "pair.toml").write_text("\n".join(lines))
    run = subprocess.run(
        [sys.executable, "-c", TORCHRUN, "train", "pointwise", str(tmp_path / "pair.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("holds the adapter") == run.stdout.count("48 groups") == 1, run.stdout
    one, other = tensors(alone), tensors(pair)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-6, err_msg=name)
    assert json.loads(training_json(pair).read_text())["steps"] == 3


def test_settings_of_several_gpus_are_read(settings, monkeypatch, tmp_path):
    sharded, zero = tmp_path / "fsdp.yaml", tmp_path / "zero.json"
    sharded.write_text("fsdp_config:\n  fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer\n")
    config = settings(distributed=str(sharded))
    with pytest.raises(UsageError, match=r"fsdp.yaml: FSDP and DeepSpeed need a GPU, and torch sees none"):
        stage.train_pointwise(config)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    given = training.distributed_arguments(str(sharded))
    assert given["fsdp_config"] == {"fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer"}
    assert (
        training.distributed_arguments(str(zero)) == {"deepspeed": str(zero)}
        and training.distributed_arguments("") == {}
    )
    for text, message in (("- 1", "holds no FSDP settings"), ("a: [", "cannot be read as YAML")):
        sharded.write_text(text)
        with pytest.raises(UsageError, match=message):
            training.distributed_arguments(str(sharded))


def test_a_base_without_a_pad_token(base, settings, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in base.iterdir():
        if path.name != "tokenizer_config.json":
            (bare / path.name).write_bytes(path.read_bytes())
    (bare / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(UsageError, match="neither a pad nor an eos token"):
        stage.train_pointwise(settings(base=str(bare)))
    (bare / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<unk>"}')
    assert train_base.load_tokenizer(str(bare)).pad_token == "<unk>"


def test_an_adapter_without_its_head_is_refused(tmp_path):
    with pytest.raises(DearliteError, match="no adapter_model"):
        train_base.check_adapter(tmp_path, head=True)
    save_file(
        {"base_model.model.x.lora_A.weight": np.zeros((1, 1), np.float32)}, tmp_path / "adapter_model.safetensors"
    )
    with pytest.raises(DearliteError, match="without its score head"):
        train_base.check_adapter(tmp_path, head=True)
    train_base.check_adapter(tmp_path, head=False)


def test_the_command_is_there(cli):
    assert "train" in COMMANDS
    for name in ("pointwise", "listwise", "mine"):
        code, out, _ = cli("train", name, "--help")
        assert code == 0 and "Usage: dearlite train" in out
