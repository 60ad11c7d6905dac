"""The families of causal models written as GGUF: llama.cpp's logits of the file are transformers' of the model.

Each tiny model has a LoRA, applied by PEFT in transformers and merged by the export. Rows are longer than the windows
of the models that have some. Tensors and keys are held to llama.cpp's own converter in test_gguf_export.py.
"""

import json

import numpy as np
import pytest
from gguf_models import KINDS, write_model
from llama import need_llama
from test_gguf_export import EAGER, F16_ONLY, export

from dearlite.export.gguf import worker
from dearlite.export.gguf.architectures import text_config
from dearlite.export.gguf.networks import find_network
from dearlite.export.gguf.quants import size_bytes
from dearlite.export.gguf.weights import Weight, weights_of
from dearlite.export.quality.gate import QualityGate
from dearlite.llama.bindings import library
from dearlite.models.gguf import GgufFile

ROWS = [list(range(3, 103)), list(range(300, 200, -3)), [7, 9, 11]]
POSITIONS = [[0, 40, 99], [5, 33], [2]]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith(("llama", "mistral"))])
def test_file_has_the_logits_of_transformers_with_the_adapter(tmp_path, monkeypatch, kind):
    need_llama()
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    folder = write_model(tmp_path / "model", kind)
    net = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **EAGER)
    torch.manual_seed(0)
    modules = "all-linear" if not kind.startswith("phi3") else ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    model = peft.get_peft_model(net, peft.LoraConfig("CAUSAL_LM", r=4, lora_alpha=8, target_modules=modules)).eval()
    with torch.no_grad():
        plain = net(torch.tensor([ROWS[0]])).logits[0, -1].numpy()
        for name, value in model.named_parameters():
            if "lora_" in name:
                value.copy_(0.1 * torch.randn_like(value))
        expected = np.concatenate(
            [model(torch.tensor([row])).logits[0, at].numpy() for row, at in zip(ROWS, POSITIONS, strict=True)]
        )
    assert abs(plain - expected[2]).max() > 0.1  # the adapter changes the model
    model.save_pretrained(tmp_path / "lora")
    monkeypatch.setattr(Weight, "is_matrix", property(lambda _: False))  # a file in f32
    export(folder, tmp_path / "m.gguf", adapter=tmp_path / "lora", **F16_ONLY)
    np.save(tmp_path / "logits.npy", expected)
    monkeypatch.setattr(worker, "_context", f32_context)
    monkeypatch.setattr(worker, "_drop_pages", lambda _: None)
    job = {"path": str(tmp_path / "m.gguf"), "rows": ROWS, "positions": POSITIONS}
    card = worker.compare_logits(job | {"logits": str(tmp_path / "logits.npy")})
    assert card["argmax_agreement"] == 1
    # llama.cpp looks GELU, which Gemma has, up in a table of f16 values.
    assert card["max_error"] < (5e-3 if kind.startswith("gemma") else 1e-3)
    assert np.ptp(expected) > 1  # logits that differ


def f32_context(model, tokens):
    """A context of llama.cpp whose keys and values are f32."""
    llama = library()
    params = llama.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = tokens
    params.type_k = params.type_v = llama.GGML_TYPE_F32
    params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return llama.llama_init_from_model(model, params)


@pytest.mark.parametrize(
    ("kind", "hidden", "types"),
    [
        ("qwen2", 256, {"blk.0.attn_q.weight": "q4_k", "blk.0.attn_q.bias": "f32", "token_embd.weight": "q4_k"}),
        (
            "phi3, longrope on a part of a head",
            256,
            {"blk.1.attn_qkv.weight": "q6_k", "rope_factors_long.weight": "f32"},
        ),
        # No multiple of 256: wider types than the k-types; the rows of ffn_down are of 128 values.
        (
            "gemma3",
            320,
            {"blk.0.ffn_up.weight": "q5_0", "token_embd.weight": "q8_0", "blk.6.post_ffw_norm.weight": "f32"},
        ),
    ],
)
def test_quantised_file_is_compared_with_fp32(tmp_path, monkeypatch, kind, hidden, types):
    need_llama()
    monkeypatch.setattr("dearlite.export.gguf.card._MOST_TOKENS", 400)
    changes = {"rope_scaling": SCALED} if kind.startswith("phi3") else {}
    folder = write_model(tmp_path / "model", kind, hidden_size=hidden, **changes)
    card = export(folder, tmp_path / "m.gguf", quant="q4_k_m", gate=QualityGate(floor=0.0))
    file = GgufFile(tmp_path / "m.gguf")
    assert {name: file.tensors[name].type for name in types} == types
    assert card["positions"] > 100 and card["kl"] < 1
    config = text_config(json.loads((folder / "config.json").read_text()))
    weights = weights_of(config, *find_network(config, 512))
    size = sum(tensor.size_bytes for name, tensor in file.tensors.items() if not name.startswith("rope_factors"))
    assert size <= size_bytes("q4_k_m", [weight.shape for weight in weights])


SCALED = {"type": "longrope", "long_factor": [2.0] * 24, "short_factor": [1.5] * 24}  # of 48 of 64 dimensions
