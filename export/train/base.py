"""What is trained: the base as it is loaded, its tokenizer, and the LoRA around it, which is checked at the end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dearlite.errors import DearliteError, UsageError, first_line
from dearlite.export.source.merge import Adapter
from dearlite.export.train.config import TrainConfig
from dearlite.files.hashing import sha256_of
from dearlite.models.gguf import GgufFile

if TYPE_CHECKING:
    import torch


def hush() -> None:
    """Takes transformers' own bars and remarks off the screen: what it says of a new score head is no news here."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def unpack_base(base: str, folder: Path) -> str:
    """`base`, or FOLDER/base with the weights of a .gguf file in fp32, as a folder that Hugging Face's tools read."""
    if not base.endswith(".gguf"):
        return base
    source, target = Path(base), folder / "base"
    if not source.is_file():
        raise UsageError(f"base {base}: no such file")
    digest = sha256_of(source)
    mark = target / "unpacked_from.txt"
    if not mark.exists() or mark.read_text(encoding="utf-8") != digest:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UsageError(f"base {base} is not unpacked yet: run the same with --dry-run in one process first")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        with redirect_stderr(StringIO()):  # a bar that nothing else takes off the screen
            model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(target)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        _as_the_file_says(tokenizer, GgufFile(source).metadata)
        tokenizer.save_pretrained(target)
        mark.write_text(digest, encoding="utf-8")
    return str(target)


def _as_the_file_says(tokenizer: Any, metadata: Mapping[str, Any]) -> None:
    """Sets by the GGUF what transformers makes of its own accord: the special tokens, and how a text is split.

    transformers takes SmolLM2's first token for its eos, and splits a text as GPT-2 does where the file says `smollm`,
    whose digits each stand alone (llama.cpp, `LLAMA_VOCAB_PRE_TYPE_SMOLLM`).
    """
    if metadata.get("tokenizer.ggml.pre") == "smollm":
        from tokenizers.pre_tokenizers import ByteLevel, Digits
        from tokenizers.pre_tokenizers import Sequence as Steps

        splits = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)]
        tokenizer.backend_tokenizer.pre_tokenizer = Steps(splits)
    tokens = metadata["tokenizer.ggml.tokens"]
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        number = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if number is not None:
            setattr(tokenizer, f"{name}_token", tokens[number])
    if hasattr(tokenizer, "add_bos_token"):  # a SentencePiece vocabulary has one unless the file says no
        default = metadata.get("tokenizer.ggml.model") == "llama"
        tokenizer.add_bos_token = bool(metadata.get("tokenizer.ggml.add_bos_token", default))


def load_tokenizer(base: str) -> Any:
    """The base's fast tokenizer, its pad token set: eos where it has none, as DeAR has it."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base, use_fast=True, trust_remote_code=False)
    except (OSError, ValueError) as err:
        raise UsageError(f"base {base}: no tokenizer can be read there ({first_line(err)})") from None
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UsageError(f"base {base}: its tokenizer has neither a pad nor an eos token: give it one")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def choose_dtype(name: str) -> torch.dtype:
    """fp32 or bf16; "auto" is bf16 where the GPU, or the CPU's own instructions, have it."""
    import torch

    if name not in ("auto", "bf16", "fp32"):
        raise UsageError(f"dtype is {name!r}: it is auto, bf16 or fp32")
    if name != "auto":
        return torch.bfloat16 if name == "bf16" else torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    has_bf16 = (
        getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() or getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    )
    return torch.bfloat16 if has_bf16 else torch.float32


def load_base(kind: Any, base: str, config: TrainConfig, **more: Any) -> Any:
    """The frozen weights: in the training's dtype, or in four bits (NF4, QLoRA: Dettmers et al. 2023)."""
    dtype = choose_dtype(config.dtype)
    if config.load_in_4bit:
        from transformers import BitsAndBytesConfig

        more["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}  # of torchrun, each on its own card
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=["score", "lm_head"],
        )
    try:
        return kind.from_pretrained(base, dtype=dtype, trust_remote_code=False, **more)
    except (OSError, ValueError, ImportError) as err:
        raise UsageError(f"base {base} cannot be loaded: {first_line(err)}") from None


def with_lora(model: Any, config: TrainConfig, task: str, whole: Sequence[str] = ()) -> Any:
    """`model` in PEFT's wrapping: LoRA on the projections, the modules of `whole` trained and saved whole.

    With `config.adapter` the LoRA and those modules begin as that adapter has them. Raises UsageError.
    """
    from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training

    if config.load_in_4bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=config.gradient_checkpointing)
    elif config.gradient_checkpointing:
        model.enable_input_require_grads()
    if config.adapter:
        _check_first(Path(config.adapter), task, head="score" in whole)
        try:
            trained = PeftModel.from_pretrained(model, config.adapter, is_trainable=True)
        except (ValueError, RuntimeError) as err:
            raise UsageError(f"adapter {config.adapter} does not fit {config.base}: {first_line(err)}") from None
        # Where its base was once may be no place of today: PEFT would ask the Hub for it at each save.
        trained.peft_config["default"].base_model_name_or_path = model.name_or_path
        return trained
    lora = LoraConfig(
        task_type=task,
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_targets),
        modules_to_save=list(whole) or None,
    )
    try:
        return get_peft_model(model, lora)
    except ValueError as err:
        raise UsageError(f"lora_targets do not fit {config.base}: {first_line(err)}") from None


def _check_first(folder: Path, task: str, *, head: bool) -> None:
    """Raises UsageError for what is no adapter to go on from for `task`."""
    try:
        kind = Adapter(folder).config.get("task_type")
        check_adapter(folder, head=head)
    except DearliteError as err:
        raise UsageError(f"adapter {folder} cannot be gone on from: {err}") from None
    if kind != task:
        raise UsageError(f"adapter {folder} is of task {kind}, and this stage's is {task}")


def check_adapter(folder: Path, *, head: bool) -> None:
    """Raises DearliteError where the adapter lacks its LoRA or, of a scorer, the trained head."""
    from safetensors import safe_open

    path = folder / "adapter_model.safetensors"
    if not path.exists():
        raise DearliteError(f"{folder} has no adapter_model.safetensors: the training did not end well")
    with safe_open(path, "np") as tensors:
        names = list(tensors.keys())
    if not any("lora_A" in name for name in names):
        raise DearliteError(f"{path} holds no LoRA: check lora_targets")
    if head and not any(name.endswith("score.weight") for name in names):
        raise DearliteError(f"{path} was saved without its score head: put score in modules_to_save")
