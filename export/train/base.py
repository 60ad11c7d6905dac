"""Loads the base model and its tokenizer, adds the LoRA, and checks the adapter that training saved."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dearlite.errors import DearliteError, UsageError
from dearlite.export.source.adapter import Adapter
from dearlite.export.source.fetch import is_reachable
from dearlite.export.train.config import TrainConfig
from dearlite.files.hashing import sha256_of
from dearlite.foreign import one_line_errors
from dearlite.models.gguf import GgufFile

if TYPE_CHECKING:
    import torch

_FETCH = "name a folder in Hugging Face's layout, a repository of the Hub that this machine reaches, or a .gguf file"


def silence_transformers() -> None:
    """Turns off transformers' progress bars and warnings: its warning about a new score head is expected here."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def unpack_base(base: str, folder: Path) -> str:
    """`base` itself, or the path of FOLDER/base for a .gguf file: its weights in fp32, in Hugging Face's layout.

    Raises UsageError for a missing file, and in a process of torchrun when the file has not been unpacked yet.
    """
    if not base.endswith(".gguf"):
        return base
    source, target = Path(base), folder / "base"
    if not os.path.isfile(source):
        raise UsageError(f"base {base}: no such file")
    digest = sha256_of(source)
    origin = target / "unpacked_from.txt"
    if not os.path.exists(origin) or origin.read_text(encoding="utf-8") != digest:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UsageError(
                f"base {base} is not unpacked yet: run the same command with --dry-run in one process first"
            )
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        failure = f"base {base} cannot be unpacked"
        # A progress bar that no setting turns off goes to stderr.
        with (
            one_line_errors(failure, "name its folder in Hugging Face's layout", UsageError),
            redirect_stderr(StringIO()),
        ):
            model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(target)
            tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
            _correct_tokenizer(tokenizer, GgufFile(source).metadata)
            tokenizer.save_pretrained(target)
        origin.write_text(digest, encoding="utf-8")
    return str(target)


def _correct_tokenizer(tokenizer: Any, metadata: Mapping[str, Any]) -> None:
    """Sets the special tokens and the pre-tokenizer from the GGUF's metadata, where transformers guesses them.

    transformers takes SmolLM2's first token for its eos. It splits a text as GPT-2 does where the file says `smollm`,
    which splits digits one by one (llama.cpp, `LLAMA_VOCAB_PRE_TYPE_SMOLLM`).
    """
    if metadata.get("tokenizer.ggml.pre") == "smollm":
        from tokenizers.pre_tokenizers import ByteLevel, Digits
        from tokenizers.pre_tokenizers import Sequence as Steps

        splits = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)]
        tokenizer.backend_tokenizer.pre_tokenizer = Steps(splits)
    tokens = metadata["tokenizer.ggml.tokens"]
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        token_id = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if token_id is not None:
            setattr(tokenizer, f"{name}_token", tokens[token_id])
    if hasattr(tokenizer, "add_bos_token"):  # SentencePiece vocabularies add bos unless the file says otherwise
        default = metadata.get("tokenizer.ggml.model") == "llama"
        tokenizer.add_bos_token = bool(metadata.get("tokenizer.ggml.add_bos_token", default))


def load_tokenizer(base: str) -> Any:
    """The base's fast tokenizer. Without a pad token it pads with eos, as DeAR does. Raises UsageError."""
    from transformers import AutoTokenizer

    with one_line_errors(f"base {base}: its tokenizer cannot be read", _FETCH, UsageError):
        tokenizer = AutoTokenizer.from_pretrained(
            base, use_fast=True, trust_remote_code=False, local_files_only=_is_local(base)
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UsageError(f"base {base}: its tokenizer has neither a pad nor an eos token: give it one")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _is_local(base: str) -> bool:
    """True if `base` is a folder, or a name of the Hub's while no Hub answers: only files on this machine count."""
    return os.path.isdir(base) or not is_reachable(base)


def choose_dtype(name: str) -> torch.dtype:
    """The type for `name` (auto, bf16 or fp32); "auto" is bf16 if the GPU, or the CPU's instructions, support it."""
    import torch

    if name not in ("auto", "bf16", "fp32"):
        raise UsageError(f"dtype is {name!r}: it must be auto, bf16 or fp32")
    if name != "auto":
        return torch.bfloat16 if name == "bf16" else torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    has_bf16 = (
        getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() or getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    )
    return torch.bfloat16 if has_bf16 else torch.float32


def load_base(kind: Any, base: str, config: TrainConfig, **options: Any) -> Any:
    """The base model, in the training's dtype or in four bits (NF4, QLoRA: Dettmers et al. 2023). Raises UsageError.

    `kind` is one of transformers' Auto classes; `options` are further arguments of its `from_pretrained`.
    """
    dtype = choose_dtype(config.dtype)
    if config.load_in_4bit:
        from transformers import BitsAndBytesConfig

        options["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}  # one GPU per process of torchrun
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=["score", "lm_head"],
        )
    with one_line_errors(f"base {base} cannot be loaded", _FETCH, UsageError):
        return kind.from_pretrained(
            base, dtype=dtype, trust_remote_code=False, local_files_only=_is_local(base), **options
        )


def with_lora(model: Any, config: TrainConfig, task: str, full_modules: Sequence[str] = ()) -> Any:
    """`model` wrapped by PEFT: LoRA on the projections; `full_modules` are trained and saved in full.

    With `config.adapter`, the LoRA and these modules start from that adapter's weights. `task` is PEFT's task type.
    Raises UsageError.
    """
    from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training

    if config.load_in_4bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=config.gradient_checkpointing)
    elif config.gradient_checkpointing:
        model.enable_input_require_grads()
    if config.adapter:
        _check_start(Path(config.adapter), task, head="score" in full_modules)
        failure = f"adapter {config.adapter} does not fit {config.base}"
        with one_line_errors(failure, "name the base that it was trained on", UsageError):
            trained = PeftModel.from_pretrained(model, config.adapter, is_trainable=True)
        # The adapter's recorded base path may no longer exist: PEFT would query the Hub for it at each save.
        trained.peft_config["default"].base_model_name_or_path = model.name_or_path
        return trained
    lora = LoraConfig(
        task_type=task,
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_targets),
        modules_to_save=list(full_modules) or None,
    )
    with one_line_errors(f"lora_targets do not fit {config.base}", "name modules that it has", UsageError):
        return get_peft_model(model, lora)


def _check_start(folder: Path, task: str, *, head: bool) -> None:
    """Raises UsageError unless `folder` holds a complete adapter for `task`."""
    try:
        kind = Adapter(folder).config.get("task_type")
        check_adapter(folder, head=head)
    except DearliteError as err:
        raise UsageError(f"adapter {folder} cannot be continued: {err}") from None
    if kind != task:
        raise UsageError(f"adapter {folder} was trained for task {kind}, this stage trains {task}")


def check_adapter(folder: Path, *, head: bool) -> None:
    """Raises DearliteError if the saved adapter lacks its LoRA or, with `head`, its trained score head."""
    from safetensors import safe_open

    path = folder / "adapter_model.safetensors"
    if not os.path.exists(path):
        raise DearliteError(f"{folder} has no adapter_model.safetensors: the training did not complete, run it again")
    with one_line_errors(f"{path} cannot be read", "run the training again"), safe_open(path, "np") as tensors:
        names = list(tensors.keys())
    if not any("lora_A" in name for name in names):
        raise DearliteError(f"{path} holds no LoRA: check lora_targets")
    if head and not any(name.endswith("score.weight") for name in names):
        raise DearliteError(f"{path} was saved without its score head: put score in modules_to_save")
