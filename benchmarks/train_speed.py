"""Stage-1 training, pairs per second: dearlite's batches, a plain Trainer's, and sentence-transformers' trainer.

    python benchmarks/train_speed.py stage1.toml [--steps 20] [--rounds 5] [--systems dearlite plain …]

All systems train the same base with the same LoRA and dtype, on the same groups, batch size and number of passages,
with RankNet. `plain` is dearlite's loss over groups in random order, each batch as one padded rectangle, as in a plain
Trainer. `sentence-transformers` is CrossEncoderTrainer with RankNetLoss (version 4 or later, with `datasets`). The
systems run alternately in one process, on a CPU; ratios are of adjacent runs, and medians are reported. stage1.toml
holds settings of `dearlite train pointwise`.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measure import describe_machine

from dearlite.export.train import pointwise as stage
from dearlite.export.train.base import choose_dtype, load_tokenizer, unpack_base
from dearlite.export.train.batches import Collator, plan_batches
from dearlite.export.train.config import PointwiseConfig, read_config
from dearlite.export.train.records.groups import Group, read_groups
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.pointwise.tokens import PairEncoder

Step = Callable[[int], int]  # one training step, by its number; returns the number of pairs


def dearlite_step(groups: list[Group], base: str, config: PointwiseConfig, *, plain: bool, steps: int) -> Step:
    """A step (forward, backward, optimiser) over planned batches. `plain`: random batches, one padded pass each."""
    tokenizer = load_tokenizer(base)
    encoder = PairEncoder(tokenizer.backend_tokenizer.to_str().encode(), max_tokens=config.max_tokens)
    collate = Collator(groups, encoder, config, tokenizer.pad_token_id)
    model = stage.load_model(base, tokenizer.pad_token_id, config).train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=config.learning_rate)
    order = plan_batches(groups, config.batch, steps, config.seed)
    if plain:
        random.Random(1).shuffle(order)
    dtype, rows = choose_dtype(config.dtype), 10**9 if plain else stage._CPU_ROWS

    def step(number: int) -> int:
        batch = collate(order[number * config.batch : (number + 1) * config.batch])
        default, stage._CPU_ROWS = stage._CPU_ROWS, rows
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            loss = stage.group_loss(model, batch, config, use_teacher=False)
        stage._CPU_ROWS = default
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return len(batch["positions"])

    return step


def sentence_transformers_rate(groups: list[Group], base: str, config: PointwiseConfig, steps: int) -> float:
    """Pairs per second of CrossEncoderTrainer over `steps` steps of the same groups, with its own collation."""
    from datasets import Dataset
    from peft import LoraConfig
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import RankNetLoss

    form, dtype = PAIR_FORMS[config.prompt], choose_dtype(config.dtype)
    model = CrossEncoder(base, num_labels=1, max_length=config.max_tokens, model_kwargs={"dtype": dtype}, device="cpu")
    model.model.config.pad_token_id = model.tokenizer.pad_token_id
    lora = LoraConfig(
        task_type="SEQ_CLS", r=config.lora_r, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_targets), modules_to_save=["score"],
    )  # fmt: skip
    model.model.add_adapter(lora)
    rows, pairs = [], 0
    for index in range(steps * config.batch):
        group = groups[index % len(groups)]
        passages = group.sample(config.passages, random.Random(f"{config.seed} {index} 0"))
        pairs += len(passages)
        documents = [form.document(passage.document) for passage in passages]
        labels = [1.0] + [0.0] * (len(passages) - 1)
        rows.append({"query": form.query(group.query), "docs": documents, "labels": labels})
    with tempfile.TemporaryDirectory() as folder:
        arguments = CrossEncoderTrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=config.batch, report_to=[], use_cpu=True,
            bf16=dtype == torch.bfloat16, learning_rate=config.learning_rate, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = CrossEncoderTrainer(
            model=model, args=arguments, train_dataset=Dataset.from_list(rows), loss=RankNetLoss(model)
        )
        start = time.perf_counter()
        trainer.train()
        return pairs / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="settings of stage 1 (TOML)")
    parser.add_argument("--steps", type=int, default=20, help="steps per system and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--systems", nargs="+", default=["dearlite", "plain"])
    options = parser.parse_args()
    print(describe_machine())
    config = replace(read_config(options.config, PointwiseConfig), rank_loss="ranknet", alpha=0.0)
    groups, _ = read_groups(map(Path, config.data))
    base = unpack_base(config.base, Path(tempfile.mkdtemp()))
    total = options.steps * options.rounds + 1
    steps = {
        name: dearlite_step(groups, base, config, plain=name == "plain", steps=total)
        for name in options.systems
        if name != "sentence-transformers"
    }
    for step in steps.values():
        step(0)  # warm-up
    rates: dict[str, list[float]] = {name: [] for name in options.systems}
    for number in range(options.rounds):
        for name in options.systems:
            if name in steps:
                start, pairs = time.perf_counter(), 0
                for step_number in range(options.steps):
                    pairs += steps[name](1 + number * options.steps + step_number)
                rates[name].append(pairs / (time.perf_counter() - start))
            else:
                rates[name].append(sentence_transformers_rate(groups, base, config, options.steps))
            print(f"round {number + 1}: {name} {rates[name][-1]:.2f} pairs/s", flush=True)
    first = rates[options.systems[0]]
    for name, values in rates.items():
        ratios: Any = [rate / other for rate, other in zip(first, values, strict=True)]
        print(
            f"{name}: median {statistics.median(values):.2f} pairs/s ({min(values):.2f} to {max(values):.2f}); "
            f"{options.systems[0]} is {statistics.median(ratios):.2f} times as fast"
        )


if __name__ == "__main__":
    main()
