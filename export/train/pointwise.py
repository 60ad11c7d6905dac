"""Stage 1: trains a pointwise scorer on labels and on a teacher's scores from the data (DeAR, section 3).

Texts are encoded by the runtime's own code (PairEncoder, the prompt form), so the model is trained on the ids that it
reads later. Batches are planned before the first step, groups of similar length together; a resumed training gets the
same batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dearlite.errors import UsageError, need
from dearlite.export.train.base import (
    choose_dtype,
    load_base,
    load_tokenizer,
    silence_transformers,
    unpack_base,
    with_lora,
)
from dearlite.export.train.batches import Collator, mean_pair_length, plan_batches
from dearlite.export.train.config import PointwiseConfig
from dearlite.export.train.loop import count_steps, first_process_only, open_output, run, stop_at_nan, trainer_arguments
from dearlite.export.train.losses import RANK_LOSSES, stage_one_loss
from dearlite.export.train.records.groups import Group, read_groups
from dearlite.export.train.throughput import Throughput, format_duration, peak_device_memory_mb
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.pointwise.tokens import PairEncoder

if TYPE_CHECKING:
    from torch import Tensor

_CPU_ROWS = 8  # rows per forward pass on a CPU: 8 was the fastest of 20, 8, 4 and 2
_DRY_RUN_STEPS = 6


def group_loss(model: Any, batch: dict[str, Any], config: PointwiseConfig, *, use_teacher: bool) -> Tensor:
    """The loss of one batch of `Collator`; `use_teacher` includes the teacher's scores. Logits are cast to fp32.

    On a CPU, rows of similar length go through the model a few at a time: less padding is computed, with the same
    gradient.
    """
    import torch

    ids, attention = batch["input_ids"], batch["attention_mask"]
    lengths = attention.sum(-1)
    order = lengths.argsort()
    parts = []
    for rows in order.split(_CPU_ROWS if ids.device.type == "cpu" else len(order)):
        longest = int(lengths[rows].max())
        output = model(input_ids=ids[rows, :longest], attention_mask=attention[rows, :longest])
        parts.append(output.logits[:, 0].float())
    logits = torch.cat(parts)  # (rows,), in `order`
    table = logits.new_zeros(batch["mask"].numel()).index_copy(0, batch["positions"][order], logits)
    table = table.view_as(batch["mask"])  # (queries, passages)
    return stage_one_loss(
        table,
        batch["labels"],
        batch["teacher"] if use_teacher else None,
        batch["mask"],
        rank_loss=config.rank_loss,
        alpha=config.alpha if use_teacher else 0.0,
        temperature=config.temperature,
    )


def load_model(base: str, pad_id: int, config: PointwiseConfig) -> Any:
    """The base with a LoRA and a new score head, both initialised from the seed. Raises UsageError."""
    import torch
    from transformers import AutoModelForSequenceClassification, set_seed

    set_seed(config.seed)
    options = {}
    if choose_dtype(config.dtype) == torch.bfloat16 and not torch.cuda.is_available():
        # torch's fused attention is slow in bf16 on a CPU: SmolLM2-135M trained 473 tokens/s with it, 638 without.
        # Stage 2 uses it: its prompts are long, and the memory of eager attention grows with the square of the length.
        options["attn_implementation"] = "eager"
    model = load_base(AutoModelForSequenceClassification, base, config, num_labels=1, **options)
    model.config.pad_token_id = pad_id
    model.config.use_cache = False
    if not hasattr(model, "score"):
        raise UsageError(f"base {base} is a {model.config.model_type}: stage 1 trains decoders with a score head")
    return with_lora(model, config, "SEQ_CLS", ("score",))


def train_pointwise(
    config: PointwiseConfig, *, dry_run: bool = False, report: Callable[[str], None] | None = None
) -> Path | None:
    """Folder of the trained adapter (`config.output`); None for a dry run.

    A training that was stopped resumes from its last checkpoint. A dry run takes a few steps and reports sizes, number
    of steps, memory and time. `report` receives each line; nothing is printed. With torchrun, every process calls this
    function and `report` is called in the first one only.

    Raises UsageError for settings or an output folder that cannot be used, InvalidInput for a bad training record,
    DearliteError for a loss that is not finite, MissingExtra without the extra `train`.
    """
    torch = need("torch", extra="train")
    need("transformers", extra="train")
    need("peft", extra="train")
    need("accelerate", extra="train")
    report = first_process_only(report)
    for name, value, known in (
        ("rank_loss", config.rank_loss, tuple(RANK_LOSSES)),
        ("prompt", config.prompt, tuple(PAIR_FORMS)),
    ):
        if value not in known:
            raise UsageError(f"{name} is {value!r}: it must be one of {', '.join(known)}")
    if config.passages < 2 or not 0 <= config.alpha <= 1 or config.temperature <= 0:
        raise UsageError("passages must be 2 or more, alpha from 0 to 1, temperature above 0")
    groups, skipped = read_groups(map(Path, config.data), skip_bad=config.skip_bad)
    teacher_only = RANK_LOSSES[config.rank_loss].teacher_only
    use_teacher = groups[0].scored and (config.alpha > 0 or teacher_only)
    if not groups[0].scored and (config.alpha == 1 or teacher_only):
        raise UsageError(
            "the data have no teacher_score, and this loss learns from nothing else: dearlite train mine adds them"
        )
    if config.threads:
        torch.set_num_threads(config.threads)
    with open_output(config) as (folder, checkpoint):
        silence_transformers()
        base = unpack_base(config.base, folder)
        tokenizer = load_tokenizer(base)
        encoder = PairEncoder(tokenizer.backend_tokenizer.to_str().encode(), max_tokens=config.max_tokens)
        collate = Collator(groups, encoder, config, tokenizer.pad_token_id)
        model = load_model(base, tokenizer.pad_token_id, config)
        report(_summary(groups, skipped, use_teacher, model, config))
        if dry_run:
            for line in _dry_run(model, collate, config, use_teacher):
                report(line)
            return None
        return _train(config, folder, checkpoint, model, tokenizer, collate, use_teacher, report)


def _train(
    config: PointwiseConfig,
    folder: Path,
    checkpoint: str | None,
    model: Any,
    tokenizer: Any,
    collate: Collator,
    use_teacher: bool,
    report: Callable[[str], None],
) -> Path:
    from torch.utils.data import SequentialSampler
    from transformers import Trainer, TrainingArguments

    processes = TrainingArguments(**trainer_arguments(config, 1)).world_size
    steps = count_steps(config, len(collate.groups), processes)
    draws = plan_batches(collate.groups, config.batch, steps * config.accumulation * processes, config.seed)
    throughput = Throughput(steps, "pairs")

    class GroupTrainer(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(draws)  # planned already: a resumed training gets the same batches

        def compute_loss(self, model: Any, inputs: dict[str, Any], **_: Any) -> Tensor:
            loss = group_loss(model, inputs, config, use_teacher=use_teacher)
            stop_at_nan(loss, self.state.global_step + 1, lambda: inputs["query_ids"], config.output)
            throughput.count += len(inputs["positions"]) * processes
            return loss

    trainer = GroupTrainer(
        model=model,
        args=TrainingArguments(**trainer_arguments(config, steps)),
        train_dataset=draws,
        data_collator=collate,
        callbacks=[throughput.callback(report)],
        processing_class=tokenizer,
    )
    trainer.model_accepts_loss_kwargs = False
    facts = {"steps": steps, "groups": len(collate.groups), "taught": use_teacher}
    run(trainer, config, checkpoint, facts, head=True, report=report)
    return folder


def _summary(groups: Sequence[Group], skipped: int, use_teacher: bool, model: Any, config: PointwiseConfig) -> str:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    labels = "" if RANK_LOSSES[config.rank_loss].teacher_only else "labels and "
    targets = f"{labels}teacher scores, alpha {config.alpha}" if use_teacher else "labels only"
    left_out = f", {skipped} left out" if skipped else ""
    return (
        f"{len(groups):,} groups{left_out}, {config.passages} passages each; {config.rank_loss} on {targets}\n"
        f"{trained / 1e6:.1f}M of {total / 1e6:.0f}M parameters are trained, in "
        f"{str(choose_dtype(config.dtype)).removeprefix('torch.')}"
    )


def _dry_run(model: Any, collate: Collator, config: PointwiseConfig, use_teacher: bool) -> Iterator[str]:
    """Lines with steps, memory and time of the training, from real steps on batches of all lengths.

    The learning rate is 0, so no weight changes.
    """
    import torch

    steps = count_steps(config, len(collate.groups))
    batches = steps * config.accumulation
    draws = plan_batches(collate.groups, config.batch, batches, config.seed)
    size = min(config.batch, len(collate.groups))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser, dtype = torch.optim.AdamW(trained, lr=0.0), choose_dtype(config.dtype)
    by_length = sorted(range(0, len(draws), size), key=lambda at: mean_pair_length(collate.groups[draws[at][0]]))
    chosen = [by_length[(2 * step + 1) * len(by_length) // (2 * _DRY_RUN_STEPS)] for step in range(_DRY_RUN_STEPS)]
    seconds, tokens, padded_tokens, pairs = 0.0, 0, 0, 0
    for number, at in enumerate([chosen[-1], *chosen]):  # the first batch, a long one, is the warm-up
        start = time.perf_counter()
        batch = collate(draws[at : at + size])
        batch = {name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()}
        with torch.autocast(device, dtype, enabled=dtype == torch.bfloat16):
            loss = group_loss(model, batch, config, use_teacher=use_teacher)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if number:
            seconds += time.perf_counter() - start
            tokens += int(batch["attention_mask"].sum())
            padded_tokens += batch["attention_mask"].numel()
            pairs += len(batch["positions"])
    yield f"{tokens / pairs:.0f} tokens per pair; {100 * (1 - tokens / padded_tokens):.0f}% of a batch is padding"
    yield f"{steps:,} steps of {config.accumulation} x {size} queries: {batches * pairs // _DRY_RUN_STEPS:,} pairs"
    yield f"memory {peak_device_memory_mb() or 0:,} MB"
    duration = format_duration(batches * seconds / _DRY_RUN_STEPS)
    yield f"{pairs / seconds:.1f} pairs/s, {tokens / seconds:,.0f} tokens/s: {duration} in total"
