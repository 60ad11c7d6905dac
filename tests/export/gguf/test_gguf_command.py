"""`dearlite export` of listwise models: the written file, refusals in one line, and no file after a failure."""

import json
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from gguf_models import KINDS, smollm2_gguf, write_dequantised_smollm2, write_model, write_smollm2_tokenizer
from llama import need_llama
from safetensors.numpy import load_file, save_file

from dearlite.models.gguf import GgufFile

TINY = "llama, 4 heads of 1, llama3 scaling, untied"
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(autouse=True)
def few_texts(monkeypatch):
    monkeypatch.setattr("dearlite.export.gguf.card._MOST_TOKENS", 400)


def refused(result, code, *words):
    """Asserts that the call failed with `code`, nothing on stdout, and one line that contains `words`."""
    exit_code, out, err = result
    assert (exit_code, out) == (code, ""), err
    assert err.startswith("dearlite: ") and err.count("\n") == 1 and "Traceback" not in err
    for word in words:
        assert word in err


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model", TINY)


def write_lora(folder, *, rename=None, drop=(), rank=2, **fields):
    """A LoRA of rank 2 on the first layer's q_proj (64, 64), of a base called model."""
    folder.mkdir()
    random = np.random.default_rng(1)
    tensors = {
        f"{Q0}.lora_A.weight": random.standard_normal((rank, 64), np.float32),
        f"{Q0}.lora_B.weight": random.standard_normal((64, rank), np.float32),
    }
    tensors = {(rename or {}).get(name, name): value for name, value in tensors.items() if name not in drop}
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "model"} | fields
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_folder_becomes_a_file_with_its_card(cli, tmp_path, model):
    need_llama()
    lora, output = write_lora(tmp_path / "lora"), tmp_path / "m.gguf"
    code, out, err = cli(
        "export", model, "--adapter", lora, "--prompt", "rankzephyr", "--window", 8, "--stride", 4, "-o", output,
        "--min-agreement", 0.2,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "s per GB of weights, peak memory" in out and "the same likeliest token at" in out
    file = GgufFile(output)
    metadata = file.metadata
    assert file.verify()
    assert metadata["general.file_type"] == 15  # q4_k_m is the default
    keys = ("name", "prompt", "window", "stride", "max_tokens", "reasoning")
    assert [metadata[f"dearlite.{key}"] for key in keys] == ["m", "rankzephyr", 8, 4, 512, "none"]
    assert json.loads(metadata["dearlite.source"])["adapter"] == "lora"
    assert json.loads(metadata["dearlite.card"])["positions"] > 100
    assert left_in(tmp_path) == ["lora", "m.gguf", "model"]


def test_folder_of_a_lora_finds_its_base(cli, tmp_path, model):
    lora = write_lora(tmp_path / "lora", base_model_name_or_path=str(model))
    assert cli("export", lora, "--quant", "f16", "--no-card", "-o", tmp_path / "a.gguf")[0] == 0
    assert cli("export", model, "--adapter", lora, "--quant", "f16", "--no-card", "-o", tmp_path / "b.gguf")[0] == 0
    assert (tmp_path / "a.gguf").stat().st_size == (tmp_path / "b.gguf").stat().st_size


def test_name_is_listwise_by_its_entry(cli, tmp_path, model, monkeypatch):
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    entry = """[tiny]
    kind = "listwise"
    repository = "owner/tiny"
    architecture = "llama"
    prompt = "plain"
    pooling = "none"
    max_tokens = 300
    licence = "mit"
    size_mb = 1
    memory_mb = 1
    """
    (tmp_path / "home" / "models.toml").write_text(entry)
    monkeypatch.setattr("dearlite.export.source.inputs.fetch", lambda repository, revision="main": model)
    refused(cli("export", "tiny", "--quant", "int8"), 2, "--quant int8 does not apply to tiny, a listwise model")
    code, _, err = cli("export", "tiny", "--quant", "f16", "--no-card")
    assert (code, err) == (0, "dearlite: tiny: licence mit\n")
    metadata = GgufFile(tmp_path / "home" / "models" / "tiny.gguf").metadata
    assert [metadata[f"dearlite.{key}"] for key in ("name", "prompt", "max_tokens", "licence", "identifiers_from")] == [
        "tiny", "plain", 300, "mit", 0,
    ]  # fmt: skip
    source = json.loads(metadata["dearlite.source"])
    assert (source["repository"], source["revision"]) == ("owner/tiny", "main")


def test_existing_file_stays_unless_forced(cli, tmp_path, model):
    output = tmp_path / "m.gguf"
    output.write_text("mine")
    refused(cli("export", model, "-o", output), 2, "m.gguf exists: --force replaces it")
    assert output.read_text() == "mine"
    assert cli("export", model, "--quant", "f16", "--no-card", "-o", output, "--force")[0] == 0
    assert GgufFile(output).verify()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--quant", "q4_k_m", "-o", "m.dear"], ["m.dear does not end in .gguf, the format of a listwise model"]),
        (["--quant", "int8", "-o", "m.gguf"], ["--quant int8 does not apply to", "a listwise model", "q4_k_m"]),
        (["--pooling", "last-token", "-o", "m.gguf"], ["--pooling does not apply to a listwise model"]),
        (["--for", "cuda", "--min-tau", "0.9", "-o", "m.gguf"], ["--for, --min-tau does not apply"]),
        (["--prompt", "dear", "-o", "m.gguf"], ["--prompt dear does not apply to", "a listwise model", "rankgpt"]),
        (
            ["--stride", "21", "-o", "m.gguf"],
            ["--stride 21 skips the documents between two windows: give at most --window, 20"],
        ),
        (["--max-tokens", "600", "-o", "m.gguf"], ["--max-tokens 600 is more than", "max_position_embeddings, 512"]),
        (["--quant", "q4_k_m"], ["name the file to write: -o model.gguf"]),
        (["--window", "10", "-o", "m.dear"], ["--window does not apply to a pointwise model"]),
        (["--prompt", "rankgpt", "-o", "m.dear"], ["--prompt rankgpt does not apply to", "a pointwise model", "dear"]),
    ],
)
def test_options_that_do_not_fit_are_refused(cli, tmp_path, model, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    refused(cli("export", model, *options), 2, *words)
    assert left_in(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"model_type": "qwen2_moe"}, 2, ["architecture 'qwen2_moe' cannot be written as GGUF here",
          "it is none of llama, mistral, qwen2, qwen3, gemma2, gemma3_text, phi3"]),
        ({"model_type": "gpt_neox"}, 2, ["architecture 'gpt_neox'"]),
        ({"architectures": ["LlamaForSequenceClassification"]}, 1, ["no tokenizer.json"]),  # read as a scorer
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, 2, ["rope scaling 'yarn' is not supported"]),
        ({"hidden_act": "gelu"}, 2, ["hidden_act 'gelu'"]),
        ({"drop": ["model.norm.weight", "model.layers.1.mlp.up_proj.weight"]}, 1,
         ["model.norm.weight is missing", "model.layers.1.mlp.up_proj.weight is missing"]),
        ({"extra": {"model.layers.0.self_attn.q_proj.bias": np.zeros(64, np.float32), "what": np.zeros(3, np.float32)},
          "drop": ["model.norm.weight"]}, 1,
         ["q_proj.bias has no place in the file", "what has no place", "model.norm.weight is missing"]),
        ({"extra": {"model.norm.weight": np.ones(32, np.float32)}}, 1, ["model.norm.weight is [32], not [64]"]),
        ({"drop": ["lm_head.weight"], "extra": {"score.weight": np.ones((1, 64), np.float32)}}, 2,
         ["is a scorer", "score.weight and no lm_head.weight", ".dear", "`architectures`"]),
        ({"extra": {"model.layers.0.mlp.up_proj.weight": np.full((128, 64), 7e4, np.float32)}}, 1,
         ["model.layers.0.mlp.up_proj.weight holds values beyond f16's range (7e+04"]),
        ({"extra": {"model.layers.0.mlp.up_proj.weight": np.full((128, 64), np.nan, np.float32)}}, 1, ["NaN"]),
        ({"tokenizer": False}, 1, ["neither tokenizer.json nor tokenizer.model"]),
    ],
)  # fmt: skip
def test_models_that_do_not_fit_are_refused(cli, tmp_path, changes, code, words):
    folder = write_model(tmp_path / "model", TINY, **changes)
    result = cli("export", folder, "--quant", "f16", "--no-card", "-o", tmp_path / "m.gguf")
    refused(result, code, *words)
    assert left_in(tmp_path) == ["model"]


def test_prompts_are_as_long_as_a_window_that_llama_cpp_does_not_have(cli, tmp_path):
    folder, output = write_model(tmp_path / "model", "mistral", sliding_window=64), tmp_path / "m.gguf"
    command = ("export", folder, "--quant", "f16", "--no-card", "-o", output)
    refused(cli(*command, "--max-tokens", 65), 2, "sliding_window 64 below 65 tokens (--max-tokens 64 fits)")
    assert left_in(tmp_path) == ["model"]
    code, _, err = cli(*command)
    assert code == 0 and err.startswith("dearlite: prompts have at most 64 tokens: ") and err.count("\n") == 1
    assert GgufFile(output).metadata["dearlite.max_tokens"] == 64


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rename": {f"{Q0}.lora_A.weight": "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"}},
         ["layers.9.self_attn.q_proj", "has lora_A without lora_B", "has lora_B without lora_A"]),
        ({"use_dora": True, "rank_pattern": {"q_proj": 4}}, ["use_dora is true", "rank_pattern is"]),
        ({"rank": 3}, ["lora_A [3, 64]", "for r 2"]),
        ({"peft_type": "IA3"}, ["peft_type is 'IA3'"]),
    ],
)  # fmt: skip
def test_adapters_that_do_not_fit_are_refused(cli, tmp_path, model, changes, words):
    lora = write_lora(tmp_path / "lora", **changes)
    refused(cli("export", model, "--adapter", lora, "-o", tmp_path / "m.gguf"), 1, "cannot be merged", *words)
    assert left_in(tmp_path) == ["lora", "model"]


def test_adapter_with_a_score_head_is_refused(cli, tmp_path, model):
    lora = write_lora(tmp_path / "lora")
    tensors = load_file(lora / "adapter_model.safetensors")
    tensors["base_model.model.score.weight"] = np.ones((1, 64), np.float32)
    save_file(tensors, lora / "adapter_model.safetensors")
    result = cli("export", model, "--adapter", lora, "-o", tmp_path / "m.gguf")
    refused(result, 1, "score.weight has no place in the file")


def test_another_base_is_reported(cli, tmp_path, model):
    lora = write_lora(tmp_path / "lora", base_model_name_or_path="meta-llama/other")
    code, _, err = cli("export", model, "--adapter", lora, "--quant", "f16", "--no-card", "-o", tmp_path / "m.gguf")
    assert code == 0
    assert "trained on meta-llama/other and is merged into" in err and err.count("\n") == 1


def test_a_base_that_names_another_repository_is_refused(cli, tmp_path):
    """The names, because the tensors of a base and of its instruct version have the same shapes."""
    base = write_model(tmp_path / "base", next(iter(KINDS)), _name_or_path="meta-llama/Llama-3.1-8B")
    lora = write_lora(tmp_path / "lora", base_model_name_or_path="meta-llama/Llama-3.1-8B-Instruct")
    command = ("export", base, "--adapter", lora, "--quant", "f16", "--no-card", "-o", tmp_path / "m.gguf")
    refused(cli(*command), 1, "trained on meta-llama/Llama-3.1-8B-Instruct", "is meta-llama/Llama-3.1-8B:", "--force")
    assert left_in(tmp_path) == ["base", "lora"]
    code, _, err = cli(*command, "--force")
    assert code == 0
    assert "is merged into" in err


def test_too_little_disk_is_reported_before_the_work(cli, tmp_path, model, monkeypatch):
    need_llama()
    monkeypatch.setattr("dearlite.export.gguf.pipeline.shutil.disk_usage", lambda _: SimpleNamespace(free=10**6))
    result = cli("export", model, "--quant", "q4_k_m", "-o", tmp_path / "m.gguf")
    refused(result, 1, "GB of f16 on the way", "are free: make room")
    assert left_in(tmp_path) == ["model"]


def test_inexact_file_is_refused_unless_forced(cli, tmp_path, model):
    need_llama()
    output = tmp_path / "m.gguf"
    result = cli("export", model, "--quant", "iq4_xs", "--min-agreement", 1, "-o", output)
    refused(result, 1, "m.gguf is not written", "below 1.0: choose a wider --quant (--force keeps it)")
    assert left_in(tmp_path) == ["model"]
    code, _, err = cli("export", model, "--quant", "iq4_xs", "--min-agreement", 1, "-o", output, "--force")
    assert code == 0 and "kept by --force" in err
    assert "below_floor" in json.loads(GgufFile(output).metadata["dearlite.card"])
    assert GgufFile(output).verify()


@pytest.mark.parametrize("task", ["tokenise", "quantise", "compare"])
@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_nothing_is_left_of_an_export_that_ends_early(cli, tmp_path, model, monkeypatch, task, how):
    need_llama()
    real = subprocess.run

    def ending(command, **options):
        if command[-1] == task:
            if how == "interrupted":
                raise KeyboardInterrupt
            return SimpleNamespace(returncode=-9, stderr="", stdout="")
        return real(command, **options)

    monkeypatch.setattr("dearlite.export.quality.worker.subprocess.run", ending)
    code, out, err = cli("export", model, "-o", tmp_path / "m.gguf")
    assert (code, out) == (130 if how == "interrupted" else 1, "")
    assert "Traceback" not in err
    if how == "killed":
        assert "llama.cpp ended with -9" in err
    assert left_in(tmp_path) == ["model"]


def test_interrupted_writing_leaves_nothing(cli, tmp_path, model, monkeypatch):
    def ending(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("dearlite.export.gguf.writer._as_f16", ending)
    assert cli("export", model, "--quant", "f16", "--no-card", "-o", tmp_path / "m.gguf")[0] == 130
    assert left_in(tmp_path) == ["model"]


def test_damaged_shards_are_reported(cli, tmp_path):
    folder = write_model(tmp_path / "model", TINY, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    result = cli("export", folder, "--quant", "f16", "--no-card", "-o", tmp_path / "m.gguf")
    refused(result, 1, "lacks 1 of the 3 shards", "model-00002-of-00003.safetensors")


def test_real_model_in_q8_agrees_with_fp32(cli, tmp_path):
    """SmolLM2 135M, dequantised from its Q4_1 file and exported again."""
    need_llama()
    pytest.importorskip("torch")
    path = smollm2_gguf()
    file = GgufFile(path)
    folder = write_smollm2_tokenizer(tmp_path / "model", file.metadata)
    write_dequantised_smollm2(folder, path, file.metadata, file.tensors)
    assert cli("export", folder, "--quant", "q8_0", "-o", tmp_path / "m.gguf")[0] == 0
    card = json.loads(GgufFile(tmp_path / "m.gguf").metadata["dearlite.card"])
    assert card["argmax_agreement"] >= 0.93  # measured: 0.95 of 682 positions
    assert card["kl"] < 0.01  # measured: 0.0045
    shutil.rmtree(folder)
