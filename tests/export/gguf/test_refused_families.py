"""Models of a known family with values that llama.cpp does not compute: one line each, and no file."""

import json

import numpy as np
import pytest
from gguf_models import write_model
from test_gguf_export import tensors

QWEN2, QWEN3, GEMMA2, GEMMA3 = "qwen2", "qwen3", "gemma2", "gemma3"
PHI3, LONG = "phi3, a window", "phi3, longrope on a part of a head"
CASES = {
    "MoE": (PHI3, {"model_type": "phimoe"}, 2, ["architecture 'phimoe'", "none of llama, mistral, qwen2"]),
    "a scaling of another family": (QWEN2, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 2,
                                    ["rope scaling 'yarn' is not supported: it is none of default, linear"]),
    "heads that do not fill the width": (QWEN2, {"head_dim": 32}, 2,
                                         ["4 heads of 32 dimensions, which are not its 64 together"]),
    "an odd head size": (QWEN3, {"head_dim": 24}, 2, ["heads of 24 dimensions (only multiples of 16, 4096 at most)"]),
    "no bias": (QWEN2, {"drop": ["model.layers.0.self_attn.q_proj.bias"]}, 1, ["self_attn.q_proj.bias is missing"]),
    "a bias too many": (QWEN3, {"extra": {"model.layers.0.self_attn.q_proj.bias": np.zeros(128, np.float32)}}, 1,
                        ["q_proj.bias has no place in the file"]),
    "biases by config.json": (QWEN3, {"attention_bias": True}, 2, ["biases in its linear layers"]),
    "no bound of scores": (GEMMA2, {"attn_logit_softcapping": None}, 2, ["attn_logit_softcapping None"]),
    "a bound that Gemma 3 has not": (GEMMA3, {"attn_logit_softcapping": 50.0}, 2, ["attn_logit_softcapping 50.0"]),
    "another scale": (GEMMA2, {"query_pre_attn_scalar": 16}, 2, ["query_pre_attn_scalar 16 (only 32)"]),
    "another theta": (GEMMA2, {"rope_theta": 20000.0}, 2, ["rope_theta is 20000", "has 10000 only"]),
    "another pattern": (GEMMA3, {"sliding_window_pattern": 4}, 2, ["all but every 6th"]),
    "another list of layers": (GEMMA2, {"layer_types": ["full_attention"] * 2}, 2, ["all but every 2th"]),
    "no window": (GEMMA3, {"sliding_window": None}, 2, ["sliding_window None"]),
    "both directions": (GEMMA3, {"use_bidirectional_attention": True}, 2, ["use_bidirectional_attention"]),
    "an output matrix": (GEMMA2, {"tie_word_embeddings": False}, 2, ["output matrix that is not its embedding"]),
    "factors of another size": (LONG, {"partial_rotary_factor": 1.0}, 2, ["8 numbers in each of long_factor"]),
    "its own factor": (LONG, {"rope_scaling": {"type": "longrope", "long_factor": [1.0] * 6, "short_factor": [1.0] * 6,
                              "long_mscale": 1.2}}, 2, ["'longrope' with long_mscale of its own"]),
    "a part of a head that is no pair": (PHI3, {"partial_rotary_factor": 0.2}, 2, ["3 of the 16 dimensions"]),
    "positions that are no number": (PHI3, {"max_position_embeddings": "nan"}, 2, ["max_position_embeddings 'nan'"]),
    "no positions of LongRoPE": (LONG, {"max_position_embeddings": None}, 2, ["needs max_position_embeddings"]),
    "a theta that is no number": (GEMMA3, {"rope_local_base_freq": "x"}, 2, ["has rope_local_base_freq 'x'"]),
    "a part of a head that is no number": (LONG, {"partial_rotary_factor": [1]}, 2, ["partial_rotary_factor [1]"]),
    "a bound that is no number": (GEMMA2, {"final_logit_softcapping": "3"}, 2, ["final_logit_softcapping '3'"]),
    "a list that is a number": (QWEN2, {"architectures": 1.5}, 2, ["architectures 1.5, which is no list"]),
    "a part of a head elsewhere": (QWEN2, {"partial_rotary_factor": 0.5}, 2, ["rotates all dimensions"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_value_that_llama_cpp_does_not_compute_is_refused(cli, tmp_path, case):
    kind, changes, expected, words = CASES[case]
    folder = write_model(tmp_path / "model", kind, **changes)
    code, out, err = cli("export", folder, "--quant", "f16", "--no-card", "-o", tmp_path / "m.gguf")
    assert (code, out, err.count("\n")) == (expected, "", 1), err
    assert [word for word in words if word not in err] == [], err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_layers_without_end_are_refused_before_their_tensors_are_named(cli, tmp_path):
    folder = write_model(tmp_path / "model", QWEN3)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 10**12}))
    code, out, err = cli("export", folder, "--quant", "f16", "--no-card", "-o", tmp_path / "m.gguf")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "1000000000000 layers (at most 10000)" in err


def test_a_text_longer_than_the_original_positions_is_refused_with_the_limit(cli, tmp_path):
    folder = write_model(tmp_path / "model", LONG)
    command = ("export", folder, "--quant", "f16", "--no-card", "-o", tmp_path / "m.gguf")
    code, _, err = cli(*command, "--max-tokens", 600)
    assert code == 2 and "take --max-tokens 512" in err and err.count("\n") == 1
    code, _, err = cli(*command)  # which is the default
    assert code == 0 and "prompts have at most 512 tokens" in err and err.count("\n") == 1


def test_text_part_of_a_model_that_reads_images_is_exported(cli, tmp_path):
    from safetensors.numpy import load_file, save_file

    from dearlite.models.gguf import GgufFile

    plain = write_model(tmp_path / "plain", GEMMA3)
    whole = write_model(tmp_path / "whole", GEMMA3)
    config = json.loads((plain / "config.json").read_text())
    defaults = ("tie_word_embeddings", "hidden_activation", "rope_theta", "rope_local_base_freq")
    inner = {key: value for key, value in config.items() if key not in defaults}
    outer = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "vision_config": {}}
    (whole / "config.json").write_text(json.dumps(outer | {"text_config": inner, "eos_token_id": 2}))
    values = load_file(plain / "model.safetensors")
    images = {"vision_tower.x.weight": np.zeros((2, 2), np.float32), "multi_modal_projector.y": np.zeros(2, np.float32)}
    options = ("--quant", "f16", "--no-card", "-o")
    assert cli("export", plain, *options, tmp_path / "plain.gguf")[0] == 0
    for prefix, number in (("language_model.", 0), ("model.language_model.", 1)):
        names = {name: name.replace("model.", prefix, 1) if number else prefix + name for name in values}
        save_file({names[name]: value for name, value in values.items()} | images, whole / "model.safetensors")
        output = tmp_path / f"{number}.gguf"
        code, _, err = cli("export", whole, *options, output)
        assert (code, err) == (
            0,
            "dearlite: the file reads text only: 2 tensors of the part that reads images are left out\n",
        )
        files = [GgufFile(path) for path in (tmp_path / "plain.gguf", output)]
        assert tensors(tmp_path / "plain.gguf") == tensors(output)
        keys = [{k: v for k, v in f.metadata.items() if k.startswith(("gemma3.", "tokenizer."))} for f in files]
        assert keys[0] == keys[1]
