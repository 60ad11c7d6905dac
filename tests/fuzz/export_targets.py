"""What an export and a training read: safetensors, adapters, configurations, tokenizers, modules, heads, records."""

from __future__ import annotations

import json
import shutil
import zlib
from functools import partial

import numpy as np
from fuzzing import Fault, Target, by_bytes, by_json, by_json_lines, with_tokens
from mutations import changed_json, json_bytes

LLAMA = {
    "architectures": ["LlamaForSequenceClassification"],
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
    "rope_scaling": {
        **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        "original_max_position_embeddings": 64,
    },
    "pad_token_id": 0,
    "num_labels": 1,
}
_WEIGHTS = {"model.norm.weight": np.ones(4, "<f4"), "score.weight": np.ones((1, 4), "<f4")}
_LORA = {
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": np.ones((2, 4), "<f4"),
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": np.ones((4, 2), "<f4"),
    "base_model.model.score.modules_to_save.weight": np.ones((1, 4), "<f4"),
}
_ADAPTER = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "bias": "none",
    "target_modules": ["q_proj"],
    "use_dora": False,
}


def safetensors(tensors, header=None):
    """The bytes of a file of `tensors`, with `header`, JSON text, in place of its own."""
    entries, data = {}, b""
    for name, value in tensors.items():
        offsets = [len(data), len(data) + value.nbytes]
        entries[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": offsets}
        data += value.tobytes()
    header = json.dumps(entries).encode() if header is None else header
    return len(header).to_bytes(8, "little") + header + data


def _tensors(random, seeds):
    """A file whose header has changed values, or whose bytes have changed."""
    data = random.choice(seeds)
    if random.randrange(3) == 0:
        return by_bytes(random, seeds, (b"F32", b"BF16", b"data_offsets", b"shape"))
    size = int.from_bytes(data[:8], "little")
    header = json_bytes(random, changed_json(random, json.loads(data[8 : 8 + size])))
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def _folder(folder, files):
    """A new folder with `files`."""
    root = folder / "model"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, data in files.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return root


def _read_all(source):
    for name in source.names:
        if source.read(name).shape != source.shape(name):
            raise Fault("another shape")


def _checkpoint(data, folder):
    from dearlite.export.source.checkpoint import Checkpoint

    checkpoint = Checkpoint(_folder(folder, {"config.json": LLAMA, "model.safetensors": data}))
    _read_all(checkpoint)
    checkpoint.sha256s()


def _index(data, folder):
    from dearlite.export.source.checkpoint import Checkpoint

    files = {"config.json": LLAMA, "a.safetensors": safetensors(_WEIGHTS), "model.safetensors.index.json": data}
    _read_all(Checkpoint(_folder(folder, files)))


def _merged(root, base):
    from dearlite.export.source.adapter import Adapter
    from dearlite.export.source.checkpoint import Checkpoint
    from dearlite.export.source.merge import MergedCheckpoint

    _read_all(MergedCheckpoint(Checkpoint(base), Adapter(root)))


def _adapter(config, weights, folder):
    base = folder / "base"
    if not base.exists():
        query = {"model.layers.0.self_attn.q_proj.weight": np.ones((4, 4), "<f4")}
        small = LLAMA | {"hidden_size": 4}
        shutil.move(_folder(folder, {"config.json": small, "model.safetensors": safetensors(_WEIGHTS | query)}), base)
    _merged(_folder(folder, {"adapter_config.json": config, "adapter_model.safetensors": weights}), base)


def _config(data, folder):
    from dearlite.export.source.checkpoint import Checkpoint
    from dearlite.export.source.families import check_tensors, label_count, shape_of
    from dearlite.export.source.inputs import pooling_warning, states_scorer
    from dearlite.export.source.modules import chain_of, stated_activation
    from dearlite.export.source.prompts import prompt_of_folder

    root = _folder(folder, {"config.json": data, "model.safetensors": safetensors(_WEIGHTS)})
    checkpoint = Checkpoint(root)
    config = checkpoint.config
    states_scorer(root, None)
    stated_activation(root, config)
    pooling_warning("last-token", 1, config)
    label_count(config)
    chain_of(root, [], ("Dense", "Pooling"))
    shape = shape_of(config, 128)
    if config.get("num_labels") == 1:
        prompt_of_folder(root, _tokenizer(), config, named=None, headed=True, max_tokens=None)
    if config != LLAMA and shape.layers <= 4:
        check_tensors(checkpoint, shape)


def _tokenizer():
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "<s>", "</s>", "[UNK]", "a", "b", "snow", "yes", "no", "x"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in ("<pad>", "<s>", "</s>", "<|im_start|>")])
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> $B </s>", [("<s>", 1), ("</s>", 2)]
    )
    return tokenizer.to_str().encode()


_SETTINGS = {
    **{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "<pad>", "model_max_length": 128},
    **{
        "additional_special_tokens": ["<|im_start|>"],
        "added_tokens_decoder": {"0": {"content": "<pad>", "special": True}},
    },
    "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
}


def _tokenizer_files(tokenizer, settings, folder):
    from dearlite.export.source.frames import reading_of
    from dearlite.export.source.inputs import padding_id
    from dearlite.export.source.tokenizer import check_tokenizer, probe_texts, special_tokens

    root = _folder(folder, {"config.json": LLAMA, "tokenizer.json": tokenizer, "tokenizer_config.json": settings})
    check_tokenizer(root, tokenizer, 64, LLAMA)
    probe_texts(tokenizer)
    padding_id(root, tokenizer, LLAMA)
    special_tokens(root)
    reading_of(root, tokenizer, "0-1")


_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
]


_PARTS = (
    {"word_embedding_dimension": 4, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
    {"in_features": 4, "out_features": 1, "bias": True, "module_output_name": "scores"},
    {"model_type": "CrossEncoder"},
)


def _modules(part, data, folder):
    """Reads a folder in which `data` is a part: 0 and 1 are modules' settings, 2 the model's, 3 the list of modules."""
    from dearlite.export.encoders.heads import read_head
    from dearlite.export.source.checkpoint import Checkpoint

    parts = list(_PARTS)
    modules = json.dumps(_MODULES).encode() if part < 3 else data
    if part < 3:
        parts[part] = data
    files = {"modules.json": modules, "1_Pooling/config.json": parts[0], "2_Dense/config.json": parts[1]}
    weights = safetensors({"linear.weight": np.ones((1, 4), "<f4"), "linear.bias": np.ones(1, "<f4")})
    files |= {"2_Dense/model.safetensors": weights, "config_sentence_transformers.json": parts[2]}
    files["config.json"] = LLAMA | {"hidden_size": 4}
    files["model.safetensors"] = safetensors(_WEIGHTS)
    read_head(Checkpoint(_folder(folder, files)))


def _heads(data, folder):
    from dearlite.export.source.families import shape_of
    from dearlite.export.source.heads import read_heads

    (folder / "heads.txt").write_bytes(data)
    read_heads(str(folder / "heads.txt"), shape_of(LLAMA, 128))


def _training(data, folder):
    from dearlite.export.train.config import ListwiseConfig, PointwiseConfig, read_config

    (folder / "train.toml").write_bytes(data)
    read_config(folder / "train.toml", (PointwiseConfig, ListwiseConfig)[zlib.crc32(data) & 1], ["seed=7"])


def _records(data, folder):
    from dearlite.export.train.records.groups import read_groups
    from dearlite.export.train.records.rankings import read_list_records

    (folder / "t.jsonl").write_bytes(data)
    (read_groups, read_list_records)[b"messages" in data]([folder / "t.jsonl"], skip_bad=bool(zlib.crc32(data) & 1))


def _json(value):
    return lambda folder: [json.dumps(value).encode()]


TARGETS = (
    Target(name="safetensors", read=_checkpoint, seeds=lambda _: [safetensors(_WEIGHTS)], make=_tensors, share=0.3),
    Target(
        name="safetensors.index.json",
        read=_index,
        seeds=_json({"weight_map": dict.fromkeys(_WEIGHTS, "a.safetensors")}),
        make=by_json,
        share=0.2,
        short=100,
    ),
    Target(
        name="adapter_config.json",
        read=lambda data, folder: _adapter(data, safetensors(_LORA), folder),
        seeds=_json(_ADAPTER),
        make=by_json,
        share=0.2,
        short=100,
    ),
    Target(
        name="adapter.safetensors",
        read=lambda data, folder: _adapter(_ADAPTER, data, folder),
        seeds=lambda _: [safetensors(_LORA)],
        make=_tensors,
        share=0.2,
        short=100,
    ),
    Target(name="config.json", read=_config, seeds=_json(LLAMA), make=by_json, needs=("tokenizers",), share=0.3),
    Target(
        name="tokenizer.json",
        read=lambda data, folder: _tokenizer_files(data, _SETTINGS, folder),
        seeds=lambda _: [_tokenizer()],
        make=by_json,
        share=0.2,
        short=100,
    ),
    Target(
        name="tokenizer_config.json",
        read=lambda data, folder: _tokenizer_files(_tokenizer(), data, folder),
        seeds=_json(_SETTINGS),
        make=by_json,
        share=0.2,
        short=100,
    ),
    *(
        Target(name=name, read=partial(_modules, part), seeds=_json(value), make=by_json, share=0.1, short=50)
        for part, (name, value) in enumerate(
            zip(("pooling.json", "dense.json", "cross-encoder.json", "modules.json"), (*_PARTS, _MODULES), strict=True)
        )
    ),
    Target(
        name="heads",
        share=3.0,
        read=_heads,
        seeds=lambda _: [b"0-1,1-0\n1-1"],
        make=with_tokens(b"-", b",", b"0-0", b'"', b"9999-9999"),
    ),
    Target(
        name="train.toml",
        read=_training,
        seeds=lambda _: [b'base = "a/b"\ndata = ["x.jsonl"]\noutput = "o"\nepochs = 1\nlora_r = 8\n'],
        make=with_tokens(b"= ", b"[a]", b'"""', b"inf", b"seed", b"alpha = 1", b"[[", b"]]", b"true", b"1e9"),
        share=0.3,
    ),
    Target(
        name="training records",
        read=_records,
        seeds=lambda _: [
            b'{"query": "q", "positives": [{"text": "a", "teacher_score": 1.5}], '
            b'"negatives": [{"text": "b", "teacher_score": 1}]}',
            b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "[1] > [2]"}]}',
        ],
        make=by_json_lines,
        share=0.5,
    ),
)
