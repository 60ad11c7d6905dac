"""The families of causal models written as GGUF: llama.cpp's logits of the file are transformers' of the model.

Each tiny model has a LoRA, applied by PEFT in transformers and merged by the export. Rows are longer than the windows
of the models that have some. Tensors and keys are held to llama.cpp's own converter in test_gguf_export.py.
"""

import numpy as np
import pytest
from gguf_models import KINDS, write_model
from llama import need_llama
from test_gguf_export import EAGER, F16_ONLY, export

from dearlite.export.gguf import worker
from dearlite.export.gguf.weights import Weight
from dearlite.llama.bindings import library

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
