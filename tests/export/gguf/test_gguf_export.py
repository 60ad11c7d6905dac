"""Language models written as GGUF: tensors and metadata as llama.cpp's converter writes them, and the file's sha256.

The reference is llama.cpp's convert_hf_to_gguf.py. It runs if DEARLITE_LLAMA_CPP names its folder. The hashes of its
tensors of the tiny models are in data/gguf_golden.json, so that every machine compares with them.
"""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf_models import KINDS, VOCABULARY, config_of, smollm2_gguf, tensors_of, write_model, write_smollm2_tokenizer
from llama import need_llama

from dearlite.errors import UsageError
from dearlite.export.gguf.metadata import ListwiseFacts
from dearlite.export.gguf.networks import find_network
from dearlite.export.gguf.pipeline import export_gguf
from dearlite.export.gguf.quants import GGUF_QUANTS, size_bytes
from dearlite.export.gguf.reference import Reference
from dearlite.export.gguf.weights import check_weights, weights_of
from dearlite.export.gguf.worker import call_llama
from dearlite.export.gguf.writer import write_weights
from dearlite.export.quality.gate import QualityGate
from dearlite.export.source.adapter import Adapter
from dearlite.export.source.checkpoint import Checkpoint
from dearlite.export.source.merge import MergedCheckpoint
from dearlite.models.gguf import GgufFile

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "gguf_golden.json").read_text())
FACTS = ListwiseFacts(
    name="tiny", prompt="chat", window=20, stride=10, max_tokens=512, licence="not stated", source={"folder": "x"}
)
ORACLE = os.environ.get("DEARLITE_LLAMA_CPP", "")
EAGER = {"attn_implementation": "eager"}  # the others leave out the bound of Gemma 2's scores
F16_ONLY = {"quant": "f16", "gate": QualityGate(card=False)}


def export(folder, output, *, adapter=None, facts=FACTS, **options):
    source = MergedCheckpoint(Checkpoint(folder), adapter and Adapter(adapter), require_head=False)
    return export_gguf(source, facts, output, **options)[1]


def tensors(path):
    """name -> (type, sides, sha256 of its bytes), read by dearlite's own reader of headers."""
    data = path.read_bytes()
    return {
        name: [t.type, list(t.shape), hashlib.sha256(data[t.offset : t.offset + t.size_bytes]).hexdigest()]
        for name, t in GgufFile(path).tensors.items()
    }


def values(path, name):
    """The numbers of a tensor in the file."""
    tensor = GgufFile(path).tensors[name]
    data = path.read_bytes()[tensor.offset : tensor.offset + tensor.size_bytes]
    return np.frombuffer(data, {"f16": "<f2", "f32": "<f4"}[tensor.type])


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_and_numbers_are_those_of_the_official_converter(tmp_path, kind):
    export(write_model(tmp_path / "model", kind), tmp_path / "m.gguf", **F16_ONLY)
    written, expected = tensors(tmp_path / "m.gguf"), dict(GOLDEN["tensors"][kind])
    if "rope_freqs.weight" in expected:  # computed by a power, whose last bit differs between C libraries
        written.pop("rope_freqs.weight")
        expected.pop("rope_freqs.weight")
        assert values(tmp_path / "m.gguf", "rope_freqs.weight") == pytest.approx(GOLDEN["rope_freqs"], rel=1e-6)
    assert written == expected
    metadata = GgufFile(tmp_path / "m.gguf").metadata
    numbers = {k: v for k, v in metadata.items() if k.startswith(f"{metadata['general.architecture']}.")}
    # The converter leaves out the size of Mistral's heads, which follows from the others.
    heads = {f"llama.attention.{part}_length": 16 for part in ("key", "value")} if kind == "mistral" else {}
    assert numbers == GOLDEN["hyperparameters"][kind] | heads


@pytest.mark.skipif(not ORACLE, reason="DEARLITE_LLAMA_CPP is not set to a folder with convert_hf_to_gguf.py")
@pytest.mark.parametrize("kind", KINDS)
def test_file_is_that_of_the_official_converter_at_hand(tmp_path, kind):
    pytest.importorskip("sentencepiece", reason="the converter needs it")
    byte_level = not kind.startswith(("gemma", "phi3"))  # which have a SentencePiece tokenizer in the converter
    vocabulary = GgufFile(smollm2_gguf()).metadata if byte_level else {}
    folder = write_model(tmp_path / "model", kind, **({"tokenizer": False, "vocab_size": 49152} if byte_level else {}))
    if byte_level:
        write_smollm2_tokenizer(folder, vocabulary)
    script, output = Path(ORACLE) / "convert_hf_to_gguf.py", tmp_path / "official.gguf"
    command = [sys.executable, script, folder, "--outtype", "f16", "--outfile", output]
    subprocess.run(command, check=True, capture_output=True)
    export(folder, tmp_path / "m.gguf", **F16_ONLY)
    assert tensors(tmp_path / "m.gguf") == tensors(output)
    metadata, expected = GgufFile(tmp_path / "m.gguf").metadata, GgufFile(output).metadata
    # The size of heads depends on the transformers beside the converter; it is what llama.cpp computes anyway. That no
    # last token is added is what llama.cpp does where nothing is said. Qwen's converter leaves out two statements that
    # llama.cpp makes of a byte-level tokenizer anyway.
    ours = {"tokenizer.ggml.add_eos_token": False}
    if metadata["general.architecture"] == "llama":
        ours |= dict.fromkeys(("llama.attention.key_length", "llama.attention.value_length"), metadata[ROPE_DIMENSIONS])
    elif byte_level:
        ours |= {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_space_prefix": False}
    own = ("general.name", "general.version", "general.license")

    def common(metadata):
        return {k: v for k, v in metadata.items() if not k.startswith("dearlite.") and k not in own}

    assert common(metadata) == ours | common(expected)
    # What it makes of this tokenizer is what the package's file has, which its makers exported.
    for key, value in vocabulary.items():
        if key.startswith("tokenizer."):
            assert metadata[key] == value, key


ROPE_DIMENSIONS = "llama.rope.dimension_count"


@pytest.mark.parametrize("shards", [1, 3])
def test_file_records_its_facts_and_its_sha256(tmp_path, shards):
    folder = write_model(tmp_path / "model", "llama, 4 heads of 2, tied", shards=shards)
    export(folder, tmp_path / "m.gguf", **F16_ONLY)
    file = GgufFile(tmp_path / "m.gguf")
    metadata = file.metadata
    assert file.verify()
    fields = ("schema", "kind", "name", "prompt", "licence", "reasoning")
    assert {key: metadata[f"dearlite.{key}"] for key in fields} == {
        "schema": 1, "kind": "listwise", "name": "tiny", "prompt": "chat", "licence": "not stated",
        "reasoning": "steps",
    }  # fmt: skip
    assert {key: metadata[f"dearlite.{key}"] for key in ("window", "stride", "max_tokens", "identifiers_from")} == {
        "window": 20, "stride": 10, "max_tokens": 512, "identifiers_from": 1,
    }  # fmt: skip
    assert json.loads(metadata["dearlite.card"]) == {}
    assert file.value_span("dearlite.card")[1] == 4096
    source = json.loads(metadata["dearlite.source"])
    assert source["folder"] == "x" and source["quant"] == "f16" and source["versions"]["numpy"] == np.__version__
    for path in folder.glob("*.safetensors"):
        assert source[f"sha256 {path.name}"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sum(key.startswith("sha256 ") for key in source) == shards
    assert metadata["general.architecture"] == "llama" and metadata["general.file_type"] == 1
    assert tensors(tmp_path / "m.gguf") == GOLDEN["tensors"]["llama, 4 heads of 2, tied"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf", "model"]


def test_block_size_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("dearlite.export.gguf.writer._VALUES_AT_ONCE", 16 * 64)
    kind = "llama, 4 heads of 1, llama3 scaling, untied"
    export(write_model(tmp_path / "model", kind), tmp_path / "m.gguf", **F16_ONLY)
    written = tensors(tmp_path / "m.gguf")
    assert {name: written[name] for name in written if name != "rope_freqs.weight"} == {
        name: value for name, value in GOLDEN["tensors"][kind].items() if name != "rope_freqs.weight"
    }


@pytest.mark.parametrize("rslora", [False, True])
def test_merge_is_that_of_peft(tmp_path, rslora):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    kind = "llama, 4 heads of 1, llama3 scaling, untied"
    folder = write_model(tmp_path / "model", kind)
    net = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=12, target_modules=modules, use_rslora=rslora)
    model = peft.get_peft_model(net, lora)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_" in name:
                value.copy_(0.2 * torch.randn_like(value))
    model.save_pretrained(tmp_path / "lora")
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    (tmp_path / "merged" / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes())
    export(folder, tmp_path / "ours.gguf", adapter=tmp_path / "lora", **F16_ONLY)
    # What PEFT saves has no tokenizer_config.json, and so no chat template.
    plain = replace(FACTS, prompt="plain")
    with pytest.raises(UsageError, match="no chat template"):
        export(tmp_path / "merged", tmp_path / "theirs.gguf", **F16_ONLY)
    export(tmp_path / "merged", tmp_path / "theirs.gguf", facts=plain, **F16_ONLY)
    differing, total = 0, 0
    for name in GgufFile(tmp_path / "ours.gguf").tensors:
        ours, theirs = (values(tmp_path / file, name) for file in ("ours.gguf", "theirs.gguf"))
        assert ours.astype(np.float32) == pytest.approx(theirs.astype(np.float32), rel=2**-10, abs=2**-24), name
        differing, total = differing + int((ours != theirs).sum()), total + ours.size
    # fp32 sums in another order may round the other way in f16, and rarely do.
    assert differing < 2e-3 * total
    source = json.loads(GgufFile(tmp_path / "ours.gguf").metadata["dearlite.source"])
    weights = (tmp_path / "lora" / "adapter_model.safetensors").read_bytes()
    assert source["sha256 adapter_model.safetensors"] == hashlib.sha256(weights).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_reference_has_the_logits_of_transformers(tmp_path, kind):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = write_model(tmp_path / "model", kind)
    rows = [np.arange(3, 3 + 40), np.arange(300, 200, -1), np.array([7])]
    positions = [[0, 5, 39], [98, 99], [0]]
    source = MergedCheckpoint(Checkpoint(folder), require_head=False)
    family, shape = find_network(source.config, 100)
    weights = weights_of(source.config, family, shape)
    reference = Reference(shape, rows, positions)
    (tmp_path / "data").touch()
    write_weights(tmp_path / "data", source, weights, watcher=reference)
    logits = reference.finish(source, tied=source.config["tie_word_embeddings"])
    net = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **EAGER).eval()
    with torch.no_grad():
        expected = np.concatenate(
            [net(torch.tensor(row)[None]).logits[0, at].numpy() for row, at in zip(rows, positions, strict=True)]
        )
    assert logits.shape == (6, VOCABULARY)
    assert logits == pytest.approx(expected, abs=1e-3)
    assert np.ptp(expected) > 1  # logits that differ


def test_quantising_in_slabs_changes_nothing(tmp_path):
    need_llama()
    folder = write_model(tmp_path / "model", "llama, 4 heads of 1, llama3 scaling, untied", hidden_size=256)
    export(folder, tmp_path / "m.gguf", **F16_ONLY)
    made = []
    for size in (64 * 2**20, 0, 2**14):  # 0: the library's own, 8 GiB
        job = {"path": str(tmp_path / "m.gguf"), "output": str(tmp_path / f"{size}.gguf"), "quant": "q4_k_m"}
        call_llama("quantise", job | {"buffer_bytes": size})
        made.append((tmp_path / f"{size}.gguf").read_bytes())
    assert made[0] == made[1] == made[2]
    file = GgufFile(tmp_path / "0.gguf")
    # Every key passes through, the places of card and hash at their full length.
    before = GgufFile(tmp_path / "m.gguf").metadata | {"general.file_type": 15}
    assert file.metadata == before
    assert file.tensors["blk.0.ffn_gate.weight"].type == "q4_k"
    assert file.tensors["blk.0.attn_norm.weight"].type == "f32"


@pytest.mark.parametrize("quant", GGUF_QUANTS)
def test_every_type_runs_and_its_size_is_within_the_bound(tmp_path, monkeypatch, quant):
    need_llama()
    monkeypatch.setattr("dearlite.export.gguf.card._MOST_TOKENS", 400)
    folder = write_model(tmp_path / "model", "mistral", hidden_size=256)
    card = export(folder, tmp_path / "m.gguf", quant=quant, gate=QualityGate(floor=0.0))
    file = GgufFile(tmp_path / "m.gguf")
    assert file.verify()
    assert json.loads(file.metadata["dearlite.card"]) == card
    assert card["positions"] > 100 and card["tokens"] > card["positions"]
    assert card["text"].startswith("noveleval/run_bm25.trec")
    assert card["kl"] < {"f16": 1e-4, "q8_0": 0.05}.get(quant, 1.0)
    shapes = [weight.shape for weight in weights_of(*_parts(folder))]
    assert sum(tensor.size_bytes for tensor in file.tensors.values()) <= size_bytes(quant, shapes)
    assert file.metadata["general.file_type"] == GGUF_QUANTS[quant].file_type


def _parts(folder):
    config = json.loads((folder / "config.json").read_text())
    return config, *find_network(config, 200)


def test_bf16_and_f16_weights_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    for dtype in (torch.bfloat16, torch.float16):
        folder = write_model(tmp_path / str(dtype), "mistral")
        stored = {name: value.to(dtype) for name, value in load_file(folder / "model.safetensors").items()}
        save_file(stored, folder / "model.safetensors")
        export(folder, tmp_path / "m.gguf", **F16_ONLY)
        expected = stored["model.layers.1.mlp.down_proj.weight"].to(torch.float16).numpy().ravel()
        assert (values(tmp_path / "m.gguf", "blk.1.ffn_down.weight") == expected).all()


def test_rotary_tables_and_a_repeated_output_matrix_are_left_out(tmp_path):
    kind = "llama, 4 heads of 2, tied"
    config = config_of(kind)
    values_of = tensors_of(config)
    extra = {
        "lm_head.weight": values_of["model.embed_tokens.weight"].copy(),
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32),
    }
    folder = write_model(tmp_path / "model", kind, extra=extra)
    source = MergedCheckpoint(Checkpoint(folder), require_head=False)
    config, family, network = _parts(folder)
    check_weights(source, weights_of(config, family, network), folder, family)
    export(folder, tmp_path / "m.gguf", **F16_ONLY)
    assert tensors(tmp_path / "m.gguf") == GOLDEN["tensors"][kind]
