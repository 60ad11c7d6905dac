"""A LoRA merged while it is read, against PEFT's own merge of small trained models; each misfit and its message."""

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from dearlite.errors import CheckpointError
from dearlite.export.source.adapter import Adapter
from dearlite.export.source.checkpoint import Checkpoint
from dearlite.export.source.merge import MergedCheckpoint, check_base

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
from safetensors.torch import load_file, save_file  # noqa: E402

Classifier = transformers.LlamaForSequenceClassification
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def llama_config(**changes):
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_labels": 1, "pad_token_id": 0}
    return transformers.LlamaConfig(**(sizes | heads | changes))


def train(base, folder, **changes):
    """A LoRA of rank 8 on the model in `base`, after a few AdamW steps: B is not zero and the head has moved."""
    torch.manual_seed(7)
    options = {"r": 8, "lora_alpha": 24, "target_modules": PROJECTIONS, "modules_to_save": ["score"]} | changes
    model = peft.get_peft_model(Classifier.from_pretrained(base), peft.LoraConfig(task_type="SEQ_CLS", **options))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    ids = torch.randint(1, 64, (8, 12))
    for _ in range(4):
        loss = torch.nn.functional.mse_loss(model(input_ids=ids).logits[:, 0], torch.linspace(-1, 1, 8))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.save_pretrained(folder)
    assert all(value.abs().max() > 1e-3 for name, value in load_file(weights_of(folder)).items() if "lora_B" in name)
    return folder


def weights_of(adapter):
    return adapter / "adapter_model.safetensors"


@cache
def merged_by_peft(base, adapter):
    """The tensors of PEFT's own merge, with everything in fp32."""
    model = Classifier.from_pretrained(base, dtype=torch.float32, num_labels=1)
    merged = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return {name: value.numpy() for name, value in merged.state_dict().items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folders of the test's bases and adapters, by name."""
    root = tmp_path_factory.mktemp("models")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the matrices are tiny; on a busy machine threads that wait for each other take seconds
    torch.manual_seed(1)
    model = Classifier(llama_config())
    model.save_pretrained(root / "fp32")
    model.save_pretrained(root / "sharded", max_shard_size="20KB")
    Classifier(llama_config()).to(torch.bfloat16).save_pretrained(root / "bf16")
    transformers.LlamaForCausalLM(llama_config()).save_pretrained(root / "causal")
    transformers.LlamaModel(llama_config()).save_pretrained(root / "bare")
    Classifier(llama_config(hidden_size=16, num_hidden_layers=1)).save_pretrained(root / "other")
    train(root / "fp32", root / "lora")
    train(root / "fp32", root / "rslora", use_rslora=True)
    train(root / "fp32", root / "some-layers", layers_to_transform=[1], target_modules=["q_proj", "down_proj"])
    yield {path.name: path for path in root.iterdir()}
    torch.set_num_threads(threads)


@pytest.fixture
def altered(made, tmp_path):
    """A copy of the adapter `lora`, with other fields in its configuration and other tensors."""

    def alter(fields=None, rename=None, tensors=None, drop=()):
        folder = tmp_path / "altered"
        shutil.copytree(made["lora"], folder, dirs_exist_ok=True)
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | (fields or {})))
        saved = load_file(weights_of(made["lora"])) | (tensors or {})
        saved = {name: value for name, value in saved.items() if not any(part in name for part in drop)}
        save_file({rename(name) if rename else name: value for name, value in saved.items()}, weights_of(folder))
        return folder

    return alter


def assert_merged(source, wanted):
    """Every tensor of `wanted` equals that of `source` to 1e-6, read at once and in blocks of five rows."""
    assert set(wanted) <= set(source.names)
    for name, value in wanted.items():
        assert source.shape(name) == value.shape
        assert source.read(name) == pytest.approx(value, abs=1e-6, rel=0), name
        assert np.concatenate(list(source.blocks(name, 5))) == pytest.approx(value, abs=1e-6, rel=0), name


def refusal(base, adapter, **options):
    with pytest.raises(CheckpointError) as caught:
        MergedCheckpoint(Checkpoint(base), adapter and Adapter(adapter), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("base", "adapter"),
    [("fp32", "lora"), ("fp32", "rslora"), ("fp32", "some-layers"), ("sharded", "lora"), ("bf16", "lora"),
     ("causal", "lora"), ("causal", "rslora"), ("bare", "lora")],
)  # fmt: skip
def test_merge_is_that_of_peft(made, base, adapter):
    wanted = merged_by_peft(made[base], made[adapter])
    source = MergedCheckpoint(Checkpoint(made[base]), Adapter(made[adapter]))
    assert_merged(source, wanted)
    assert len(source.names) == len(wanted) + (base == "causal")  # its lm_head, which no classifier reads
    # The merge is seen at all: the adapter moved its matrices by far more than the tolerance.
    plain = MergedCheckpoint(Checkpoint(made[base]), None, require_head=False)
    name = "model.layers.1.self_attn.q_proj.weight"
    assert np.abs(source.read(name) - plain.read(name)).max() > 1e-3


def test_score_head_is_the_adapters(made):
    head = load_file(weights_of(made["lora"]))["base_model.model.score.weight"].numpy()
    before = Checkpoint(made["fp32"]).read("score.weight")
    assert np.abs(head - before).max() > 1e-3
    assert (
        MergedCheckpoint(Checkpoint(made["fp32"]), Adapter(made["lora"])).read("score.weight").tolist() == head.tolist()
    )


def test_bf16_adapter_is_merged_in_fp32(made, altered):
    tensors = {name: value.to(torch.bfloat16) for name, value in load_file(weights_of(made["lora"])).items()}
    folder = altered(tensors=tensors)
    assert_merged(MergedCheckpoint(Checkpoint(made["fp32"]), Adapter(folder)), merged_by_peft(made["fp32"], folder))


def test_tensors_between_the_adapters_are_the_bases(made):
    source = MergedCheckpoint(Checkpoint(made["bf16"]), Adapter(made["some-layers"]))
    wanted = load_file(made["bf16"] / "model.safetensors")
    for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"):
        assert np.array_equal(source.read(name), wanted[name].float().numpy())


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace("lora_A", "lora_A.default").replace("lora_B", "lora_B.default"),
        lambda name: name.replace("score.weight", "score.modules_to_save.weight"),
        lambda name: name.replace("score.weight", "score.modules_to_save.default.weight"),
        lambda name: name.replace("model.model.layers", "model.layers"),  # trained on the bare model
    ],
)
def test_other_spellings_of_the_names_are_the_same_adapter(made, altered, rename):
    folder = altered(rename=rename)
    for base in ("fp32", "bare"):
        source = MergedCheckpoint(Checkpoint(made[base]), Adapter(folder))
        assert_merged(source, merged_by_peft(made[base], made["lora"]))


def test_without_an_adapter_it_is_the_base(made):
    checkpoint = Checkpoint(made["fp32"])
    source = MergedCheckpoint(checkpoint)
    assert source.config == checkpoint.config
    assert_merged(source, {name: checkpoint.read(name) for name in checkpoint.names})
    with pytest.raises(CheckpointError, match=r"has no tensor 'model\.layers\.9"):
        source.read("model.layers.9.mlp.up_proj.weight")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"use_dora": True}, "use_dora is true"),
        ({"rank_pattern": {"q_proj": 4}}, 'rank_pattern is {"q_proj": 4}'),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern is"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices is [1, 2]"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is true"),
        ({"lora_bias": True}, "lora_bias is true"),
        ({"use_something_new": {"a": 1}}, "use_something_new is"),
        ({"bias": "all"}, "bias is 'all', and only 'none'"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3', and only 'LORA'"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4', which changes the base"),
        ({"r": 4}, "layers.0.mlp.down_proj has lora_A [8, 48] and lora_B [32, 8], for r 4 and a base of [32, 48]"),
        ({"r": None}, "r is None"),
        ({"lora_alpha": "24"}, "lora_alpha is '24'"),
        ({"layers_to_transform": [1]}, "layers_to_transform is 1, and the layers are 0, 1"),
        ({"layers_to_transform": 0}, "layers_to_transform is 0, and the layers are 0, 1"),
        ({"modules_to_save": ["score", "norm"]}, "modules_to_save names norm, and no such tensor was saved"),
    ],
)
def test_configurations_that_mean_another_merge_are_refused(made, altered, fields, why):
    message = refusal(made["fp32"], altered(fields))
    assert message.count(why) == 1
    assert "merge it with PEFT (merge_and_unload, save_pretrained)" in message


def test_numbers_and_null_of_unknown_fields_do_no_harm(made, altered):
    folder = altered({"some_new_size": 16, "some_new_name": "x", "some_new_switch": False, "some_new_map": None})
    assert MergedCheckpoint(Checkpoint(made["fp32"]), Adapter(folder)).names


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"drop": ["layers.1.mlp.up_proj.lora_B"]}, "model.layers.1.mlp.up_proj has lora_A without lora_B"),
        ({"drop": ["layers.1.mlp.up_proj.lora_A"]}, "model.layers.1.mlp.up_proj has lora_B without lora_A"),
        (
            {"tensors": {f"{Q0}.lora_A.weight": torch.zeros(8, 31)}},
            "has lora_A [8, 31] and lora_B [32, 8], for r 8 and a base of [32, 32]",
        ),
        (
            {"tensors": {f"{Q0}.lora_magnitude_vector": torch.zeros(32)}},
            "lora_magnitude_vector is of an unsupported LoRA variant",
        ),
        ({"tensors": {f"{Q0}.lora_A.default.weight": torch.zeros(8, 32)}}, "is there twice"),
        ({"tensors": {f"{Q0}.weight": torch.zeros(32, 32)}}, "both a LoRA and a full weight"),
        ({"tensors": {f"{Q0}.lora_B.bias": torch.zeros(32)}}, "lora_B.bias is of an unsupported LoRA variant"),
        ({"tensors": {"base_model.model.a\nb": torch.zeros(1)}}, r"a\nb is not in the base"),
        ({"tensors": {"base_model.model.model.norm.weight": torch.zeros(31)}}, "is [31], the base's is [32]"),
        ({"tensors": {"model.norm.weight": torch.zeros(32)}}, "does not begin with base_model.model."),
        ({"tensors": {"score.weight": torch.zeros(1, 32)}}, "score.weight is there twice, under two names"),
        ({"drop": ["lora_"]}, "it holds no LoRA matrices"),
        ({"tensors": {"base_model.model.score.weight": torch.zeros(2, 32)}}, "is [2, 32], the base's is [1, 32]"),
        ({"rename": lambda name: name.replace("layers.1", "layers.2")}, "layers.2.mlp.down_proj is not in the base"),
        ({"rename": lambda name: name.replace("model.layers", "decoder.layers")}, "none of its 14 modules is in the"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(made, altered, change, why):
    assert why in refusal(made["fp32"], altered(**change))


def test_new_head_must_have_the_width_of_the_base(made, altered):
    folder = altered(tensors={"base_model.model.score.weight": torch.zeros(1, 31)})
    assert "score.weight is [1, 31], and the base's hidden_size is 32" in refusal(made["causal"], folder)


def test_all_misfits_come_in_one_line(made, altered):
    fields = {"use_dora": True, "bias": "all", "fan_in_fan_out": True, "base_model_name_or_path": "meta-llama/X"}
    message = refusal(made["fp32"], altered(fields, tensors={"base_model.model.extra": torch.zeros(1)}))
    assert message.count("; ") == 3
    for part in (
        "use_dora",
        "bias is 'all'",
        "fan_in_fan_out",
        "extra is not in the base",
        "trained on (meta-llama/X)",
    ):
        assert part in message


def test_many_misfits_are_counted(made):
    # Layer 1 is not there (7 modules), nothing of layer 0 has the shape (7), and the head has not either.
    message = refusal(made["other"], made["lora"])
    assert message.count("; ") == 7
    assert "and 7 more" in message


def test_adapter_without_a_head_is_refused(made, altered):
    folder = altered({"modules_to_save": None}, drop=["score"])
    message = refusal(made["causal"], folder)
    assert "no score head" in message
    assert 'modules_to_save=["score"]' in message
    assert "merge it with PEFT" not in message
    assert MergedCheckpoint(Checkpoint(made["causal"]), Adapter(folder), require_head=False).names
    assert MergedCheckpoint(Checkpoint(made["fp32"]), Adapter(folder)).names  # this base has a head of its own
    assert "no score head" in refusal(made["causal"], None)


def test_head_that_was_named_and_not_saved_is_refused(made, altered):
    assert "modules_to_save names score" in refusal(made["fp32"], altered(drop=["score"]))


def test_nan_in_the_adapter_names_its_tensor(made, altered):
    bad = torch.zeros(32, 8)
    bad[9, 3] = torch.nan
    source = MergedCheckpoint(Checkpoint(made["fp32"]), Adapter(altered(tensors={f"{Q0}.lora_B.weight": bad})))
    source.rows("model.layers.0.self_attn.q_proj.weight", 0, 9)
    with pytest.raises(CheckpointError, match=r"layers\.0\.self_attn\.q_proj\.lora_B\.weight' holds NaN"):
        source.read("model.layers.0.self_attn.q_proj.weight")


def test_folders_that_are_no_adapter(made, tmp_path):
    with pytest.raises(CheckpointError, match=r"has no adapter_config\.json: give the folder that PEFT"):
        Adapter(made["fp32"])
    shutil.copy(made["lora"] / "adapter_config.json", tmp_path)
    with pytest.raises(CheckpointError, match=r"has no adapter_model.safetensors: fetch"):
        Adapter(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(CheckpointError, match=r"pickle only \(adapter_model.bin\), which can run code"):
        Adapter(tmp_path)


def test_another_base_by_name_is_a_warning(made, tmp_path):
    def check(asked, base=made["fp32"]):
        return check_base({"base_model_name_or_path": asked}, Checkpoint(base))

    assert check(None) is None
    assert check("someone/fp32") is None
    assert check("C:\\models\\FP32\\") is None
    assert "was trained on meta-llama/Llama-3.2-3B" in check("meta-llama/Llama-3.2-3B")
    cached = tmp_path / "models--meta-llama--Llama-3.2-3B" / "snapshots" / "0f3a"
    shutil.copytree(made["fp32"], cached)
    assert check("meta-llama/Llama-3.2-3B", cached) is None
    assert Adapter(made["lora"]).base_name == str(made["fp32"])


_PEAK = """
import re, sys
from dearlite.export.source.checkpoint import Checkpoint
from dearlite.export.source.adapter import Adapter
from dearlite.export.source.merge import MergedCheckpoint
def peak_mb():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
source = MergedCheckpoint(Checkpoint(sys.argv[1]), Adapter(sys.argv[2]), require_head=False)
name = "model.layers.0.self_attn.q_proj.weight"
source.rows(name, 0, 512)
before = peak_mb()
total = sum(float(block.sum()) for block in source.blocks(name, 512))
assert not {"torch", "transformers", "safetensors"} & set(sys.modules)
print(total, peak_mb() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_merging_holds_a_block_and_needs_no_torch(tmp_path):
    rows, columns = 32_768, 1536
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        folder.mkdir()
    (base / "config.json").write_text("{}")
    save_file({"model.layers.0.self_attn.q_proj.weight": torch.zeros(rows, columns)}, base / "model.safetensors")
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 1}')
    matrices = {f"{Q0}.lora_A.weight": torch.ones(2, columns), f"{Q0}.lora_B.weight": torch.ones(rows, 2)}
    save_file(matrices, weights_of(adapter))
    command = [sys.executable, "-c", _PEAK, str(base), str(adapter)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    total, grown_mb = map(float, done.stdout.split())
    assert total == rows * columns  # 1 / 2 x (1 x 1 + 1 x 1) in each place
    assert grown_mb < 30  # of 201; a block and its change are 3 MB each


TIED_ADAPTERS = {
    "both saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "LoRA on the output matrix": {"target_modules": ["q_proj", "lm_head"]},
    "embedding saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "output matrix saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "neither": {"target_modules": ["q_proj"]},
}


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    """A language model whose output matrix is its embedding, as Llama 3.2 and SmolLM2."""
    folder = tmp_path_factory.mktemp("tied") / "base"
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def trained_over(folder, target, **settings):
    """An adapter over `folder` with random matrices, saved to `target`; gives PEFT's model."""
    net = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = peft.get_peft_model(net, peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                value.add_(0.1 * torch.randn_like(value))
    model.save_pretrained(target)
    return model.eval()


@pytest.mark.parametrize("name", TIED_ADAPTERS)
def test_adapter_over_a_tied_base_gives_the_logits_of_peft(tied, tmp_path, name):
    model = trained_over(tied, tmp_path / "lora", **TIED_ADAPTERS[name])
    source = MergedCheckpoint(Checkpoint(tied), Adapter(tmp_path / "lora"), require_head=False)
    assert source.untied == (name != "neither")
    assert source.config["tie_word_embeddings"] == (name == "neither")
    config = transformers.LlamaConfig.from_pretrained(tied, tie_word_embeddings=not source.untied)
    net = transformers.LlamaForCausalLM(config).eval()
    net.load_state_dict({n: torch.from_numpy(source.read(n)) for n in source.names}, strict=source.untied)
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        assert net(ids).logits.numpy() == pytest.approx(model(ids).logits.numpy(), abs=1e-4)


def test_copy_of_a_base_matrix_that_differs_is_refused(tied, tmp_path):
    trained_over(tied, tmp_path / "lora", **TIED_ADAPTERS["LoRA on the output matrix"])
    path = tmp_path / "lora" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("lm_head.base_layer.weight"))
    tensors[name][5, 5] += 1
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"lm_head\.base_layer\.weight is not the base's lm_head\.weight"):
        MergedCheckpoint(Checkpoint(tied), Adapter(tmp_path / "lora"), require_head=False)


def test_another_output_matrix_under_tied_embeddings_is_refused(tied, tmp_path):
    tensors = load_file(tied / "model.safetensors")
    (tmp_path / "config.json").write_bytes((tied / "config.json").read_bytes())
    for change, refused in ((0, False), (1, True)):
        repeated = tensors["model.embed_tokens.weight"] + change
        save_file(tensors | {"lm_head.weight": repeated}, tmp_path / "model.safetensors")
        if not refused:
            assert not MergedCheckpoint(Checkpoint(tmp_path), require_head=False).untied
            continue
        with pytest.raises(
            CheckpointError, match=r"lm_head\.weight is another matrix: set tie_word_embeddings to false"
        ):
            MergedCheckpoint(Checkpoint(tmp_path), require_head=False)


def test_output_matrix_trained_for_a_scorer_is_refused(tied, tmp_path):
    trained_over(tied, tmp_path / "lora", **TIED_ADAPTERS["output matrix saved"])
    with pytest.raises(CheckpointError, match="it trains lm_head, which no scorer has"):
        MergedCheckpoint(Checkpoint(tied), Adapter(tmp_path / "lora"))
