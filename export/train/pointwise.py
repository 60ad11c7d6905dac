"""Stage 1: a pointwise student, taught by labels and by a teacher's scores that stand in the data (DeAR, section 3).

The texts go through the very code that the runtime uses (PairEncoder, the prompt form), so that what is trained is what
is read later. Batches are planned before the first step: groups of like length together, the same whatever happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dearlite.errors import UsageError, need
from dearlite.export.train.base import choose_dtype, hush, load_base, load_tokenizer, unpack_base, with_lora
from dearlite.export.train.batches import Collator, length_of, plan
from dearlite.export.train.config import PointwiseConfig
from dearlite.export.train.loop import (
    Clock,
    arguments,
    count_steps,
    hours,
    open_output,
    peak_mb,
    reporter,
    run,
    stop_at_nan,
)
from dearlite.export.train.losses import RANK_LOSSES, stage_one
from dearlite.export.train.records.groups import Group, read_groups
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.pointwise.tokens import PairEncoder

if TYPE_CHECKING:
    from torch import Tensor

_CPU_ROWS = 8  # rows of a pass on a CPU: 8 were the fastest of 20, 8, 4 and 2
_TRIED = 6  # steps that a dry run takes


def group_loss(model: Any, batch: dict[str, Any], config: PointwiseConfig, *, taught: bool) -> Tensor:
    """The loss of one batch: logits in fp32 at their places, then `stage_one`.

    On a CPU the rows go through in passes of a few of like length: less padding is computed, the gradient is the same.
    """
    import torch

    ids, attended = batch["input_ids"], batch["attention_mask"]
    lengths = attended.sum(-1)
    order = lengths.argsort()
    parts = []
    for rows in order.split(_CPU_ROWS if ids.device.type == "cpu" else len(order)):
        longest = int(lengths[rows].max())
        found = model(input_ids=ids[rows, :longest], attention_mask=attended[rows, :longest])
        parts.append(found.logits[:, 0].float())
    logits = torch.cat(parts)
    table = logits.new_zeros(batch["mask"].numel()).index_copy(0, batch["places"][order], logits)
    table = table.view_as(batch["mask"])
    return stage_one(
        table,
        batch["labels"],
        batch["teacher"] if taught else None,
        batch["mask"],
        rank_loss=config.rank_loss,
        alpha=config.alpha if taught else 0.0,
        temperature=config.temperature,
    )


def load_model(base: str, pad_id: int, config: PointwiseConfig) -> Any:
    """The base with a new score head, in its LoRA. The head and the LoRA are drawn from the seed."""
    import torch
    from transformers import AutoModelForSequenceClassification, set_seed

    set_seed(config.seed)
    more = {}
    if choose_dtype(config.dtype) == torch.bfloat16 and not torch.cuda.is_available():
        # torch's fused attention is slow in bf16 on a CPU: SmolLM2-135M trained 473 tokens/s with it, 638 without.
        # Stage 2 keeps it: its prompts are long, and eager attention's memory grows with the square of the length.
        more["attn_implementation"] = "eager"
    model = load_base(AutoModelForSequenceClassification, base, config, num_labels=1, **more)
    model.config.pad_token_id = pad_id
    model.config.use_cache = False
    if not hasattr(model, "score"):
        raise UsageError(f"base {base} is a {model.config.model_type}: stage 1 trains decoders with a score head")
    return with_lora(model, config, "SEQ_CLS", ("score",))


def train_pointwise(
    config: PointwiseConfig, *, dry_run: bool = False, on_message: Callable[[str], None] | None = None
) -> Path | None:
    """Folder of the trained adapter (`config.output`); None for a dry run.

    A training that was stopped resumes from its last checkpoint. A dry run takes a few steps and reports sizes, number
    of steps, memory and time. `on_message` receives each line of the report; nothing is printed. With torchrun, every
    process calls this function and `on_message` is called in the first one only.

    Raises UsageError for settings or an output folder that cannot be used, InvalidInput for a bad training record,
    DearliteError for a loss that is not finite, MissingExtra without the extra `train`.
    """
    torch = need("torch", extra="train")
    need("transformers", extra="train")
    need("peft", extra="train")
    need("accelerate", extra="train")
    report = reporter(on_message)
    for name, value, known in (
        ("rank_loss", config.rank_loss, tuple(RANK_LOSSES)),
        ("prompt", config.prompt, tuple(PAIR_FORMS)),
    ):
        if value not in known:
            raise UsageError(f"{name} is {value!r}: it is one of {', '.join(known)}")
    if config.passages < 2 or not 0 <= config.alpha <= 1 or config.temperature <= 0:
        raise UsageError("passages is 2 or more, alpha from 0 to 1, temperature above 0")
    groups, skipped = read_groups(map(Path, config.data), skip_bad=config.skip_bad)
    by_teacher = RANK_LOSSES[config.rank_loss].by_teacher
    taught = groups[0].scored and (config.alpha > 0 or by_teacher)
    if not groups[0].scored and (config.alpha == 1 or by_teacher):
        raise UsageError(
            "the data have no teacher_score: this loss has nothing else to learn from (dearlite train mine)"
        )
    if config.threads:
        torch.set_num_threads(config.threads)
    with open_output(config) as (folder, checkpoint):
        hush()
        base = unpack_base(config.base, folder)
        tokenizer = load_tokenizer(base)
        encoder = PairEncoder(tokenizer.backend_tokenizer.to_str().encode(), max_tokens=config.max_tokens)
        collate = Collator(groups, encoder, config, tokenizer.pad_token_id)
        model = load_model(base, tokenizer.pad_token_id, config)
        report(_summary(groups, skipped, taught, model, config))
        if dry_run:
            for line in _try(model, collate, config, taught):
                report(line)
            return None
        return _train(config, folder, checkpoint, model, tokenizer, collate, taught, report)


def _train(
    config: PointwiseConfig,
    folder: Path,
    checkpoint: str | None,
    model: Any,
    tokenizer: Any,
    collate: Collator,
    taught: bool,
    report: Callable[[str], None],
) -> Path:
    from torch.utils.data import SequentialSampler
    from transformers import Trainer, TrainingArguments

    given = TrainingArguments(**arguments(config, 1))
    steps = count_steps(config, len(collate.groups), given.world_size)
    given = TrainingArguments(**arguments(config, steps))
    order = plan(collate.groups, config.batch, steps * config.accumulation * given.world_size, config.seed)
    clock = Clock(steps, "pairs")

    class GroupTrainer(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(order)  # it is in order already, and so a resumed training meets the same batches

        def compute_loss(self, model: Any, inputs: dict[str, Any], **_: Any) -> Tensor:
            loss = group_loss(model, inputs, config, taught=taught)
            stop_at_nan(loss, self.state.global_step + 1, lambda: inputs["names"], config.output)
            clock.done += len(inputs["places"]) * given.world_size
            return loss

    trainer = GroupTrainer(
        model=model,
        args=given,
        train_dataset=order,
        data_collator=collate,
        callbacks=[clock.callback(report)],
        processing_class=tokenizer,
    )
    trainer.model_accepts_loss_kwargs = False
    facts = {"steps": steps, "groups": len(collate.groups), "taught": taught}
    run(trainer, config, checkpoint, facts, head=True, report=report)
    return folder


def _summary(groups: Sequence[Group], skipped: int, taught: bool, model: Any, config: PointwiseConfig) -> str:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in model.parameters())
    labels = "" if RANK_LOSSES[config.rank_loss].by_teacher else "labels and "
    lessons = f"{labels}the teacher's scores, alpha {config.alpha}" if taught else "labels alone"
    left = f", {skipped} left out" if skipped else ""
    return (
        f"{len(groups):,} groups{left}, {config.passages} passages of each; {lessons}, {config.rank_loss}\n"
        f"{trained / 1e6:.1f}M of {whole / 1e6:.0f}M parameters are trained, in "
        f"{str(choose_dtype(config.dtype)).removeprefix('torch.')}"
    )


def _try(model: Any, collate: Collator, config: PointwiseConfig, taught: bool) -> Iterator[str]:
    """Some real batches of all lengths, forwards and backwards, and what the whole will take by them."""
    import torch

    steps = count_steps(config, len(collate.groups))
    batches = steps * config.accumulation
    order = plan(collate.groups, config.batch, batches, config.seed)
    size = min(config.batch, len(collate.groups))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser, dtype = torch.optim.AdamW(trained, lr=0.0), choose_dtype(config.dtype)
    by_length = sorted(range(0, len(order), size), key=lambda at: length_of(collate.groups[order[at][0]]))
    chosen = [by_length[(2 * one + 1) * len(by_length) // (2 * _TRIED)] for one in range(_TRIED)]
    seconds, tokens, kept, pairs = 0.0, 0, 0, 0
    for number, at in enumerate([chosen[-1], *chosen]):  # the first, a long one, warms up
        start = time.perf_counter()
        batch = collate(order[at : at + size])
        batch = {name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()}
        with torch.autocast(device, dtype, enabled=dtype == torch.bfloat16):
            loss = group_loss(model, batch, config, taught=taught)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if number:
            seconds += time.perf_counter() - start
            tokens += int(batch["attention_mask"].sum())
            kept += batch["attention_mask"].numel()
            pairs += len(batch["places"])
    yield f"{tokens / pairs:.0f} tokens a pair; {100 * (1 - tokens / kept):.0f}% of a batch is padding"
    yield f"{steps:,} steps of {config.accumulation} x {size} queries: {batches * pairs // _TRIED:,} pairs"
    yield f"memory {peak_mb() or 0:,} MB"
    yield f"{pairs / seconds:.1f} pairs/s, {tokens / seconds:,.0f} tokens/s: {hours(batches * seconds / _TRIED)} in all"
