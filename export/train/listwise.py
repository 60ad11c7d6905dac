"""Stage 2: supervised fine-tuning (TRL) of a language model to write its reasoning and the order of the passages.

Prompts are encoded by the runtime's own code, so training and use cannot differ. Only the answer counts in the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dearlite.errors import InvalidInput, UsageError, need
from dearlite.export.train.base import (
    choose_dtype,
    load_base,
    load_tokenizer,
    silence_transformers,
    unpack_base,
    with_lora,
)
from dearlite.export.train.config import ListwiseConfig
from dearlite.export.train.hf_vocabulary import HfVocabulary, chat_template_of
from dearlite.export.train.loop import (
    count_steps,
    first_process_only,
    open_output,
    run,
    run_trainer,
    stop_at_nan,
    trainer_arguments,
)
from dearlite.export.train.records.rankings import ListRecord, read_list_records
from dearlite.export.train.throughput import Throughput, format_duration, peak_device_memory_mb
from dearlite.listwise.prompts import LIST_FORMS, find_form
from dearlite.listwise.tokens import PromptAndAnswer, PromptEncoder
from dearlite.templates.chat import PromptPart

_DRY_RUN_STEPS = 4  # measured steps, after one warm-up step


class RecordEncoder:
    """Encodes a record as the token ids of prompt and answer, ending with the eos token."""

    def __init__(self, tokenizer: Any, config: ListwiseConfig) -> None:
        self._config, self._vocabulary = config, HfVocabulary(tokenizer)
        self._template, self._eos = chat_template_of(tokenizer), tokenizer.eos_token_id
        self._encoders = {
            reasoned: PromptEncoder(self._vocabulary, find_form(config.prompt, reasoned=reasoned), self._template)
            for reasoned in (False, True)
            if not reasoned or LIST_FORMS[config.prompt].reasons_as
        }

    def __call__(self, record: ListRecord) -> dict[str, list[int]]:
        """`input_ids` and `completion_mask` (1 for tokens of the answer), of equal length.

        Raises InvalidInput for a record that does not fit in `max_tokens`, UsageError for a prompt form without
        reasoning or a base without a chat template that the record needs.
        """
        room = self._config.max_tokens - 1
        encoded = (self._encode_conversation if record.turns else self._encode_ranking)(record, room)
        ids = [*encoded.ids, self._eos]
        return {"input_ids": ids, "completion_mask": [0] * encoded.start + [1] * (len(ids) - encoded.start)}

    def _encode_ranking(self, record: ListRecord, room: int) -> PromptAndAnswer:
        reasoned = bool(record.reasoning)
        if reasoned not in self._encoders:
            raise UsageError(f"prompt {self._config.prompt!r} has no place for the reasoning at {record.location}")
        encoder = self._encoders[reasoned]
        max_tokens = self._config.passage_tokens or None
        passages = [encoder.passage(document, max_tokens, room=room) for document in record.passages]
        answer = record.answer_text(encoder.form.identifiers(len(passages)))
        try:
            return encoder.encode_with_answer(record.query, passages, answer, room=room, reasoned=reasoned)
        except InvalidInput as err:
            raise InvalidInput(f"{record.location}: {err}") from None

    def _encode_conversation(self, record: ListRecord, room: int) -> PromptAndAnswer:
        if self._template is None:
            raise UsageError("the base has no chat template, which records of messages need: name another base")
        parts = self._template.parts(record.turns)
        prompt = self._vocabulary.encode_prompt(parts)
        ids = self._vocabulary.encode_prompt([*parts, PromptPart(record.answer, False)])
        if len(ids) > room:
            raise InvalidInput(
                f"{record.location} has {len(ids)} tokens, max_tokens is {room + 1}: raise it, or set skip_bad"
            )
        return PromptAndAnswer.split(prompt, ids)


def train_listwise(
    config: ListwiseConfig, *, dry_run: bool = False, report: Callable[[str], None] | None = None
) -> Path | None:
    """Folder of the trained adapter (`config.output`); None for a dry run.

    The arguments and errors are those of `train_pointwise`.
    """
    torch = need("torch", extra="train")
    need("transformers", extra="train")
    need("peft", extra="train")
    need("trl", extra="train")
    from transformers import AutoModelForCausalLM, set_seed

    report = first_process_only(report)

    find_form(config.prompt)
    records, skipped = read_list_records(map(Path, config.data), skip_bad=config.skip_bad)
    if config.threads:
        torch.set_num_threads(config.threads)
    with open_output(config) as (folder, checkpoint):
        silence_transformers()
        base = unpack_base(config.base, folder)
        tokenizer = load_tokenizer(base)
        rows, too_long = _encode(records, RecordEncoder(tokenizer, config), config.skip_bad)
        set_seed(config.seed)
        model = load_base(AutoModelForCausalLM, base, config)
        model.config.use_cache = False
        model = with_lora(model, config, "CAUSAL_LM")
        report(_summary(rows, skipped + too_long, model, config))
        if dry_run:
            for line in _dry_run(model, tokenizer, rows, config):
                report(line)
            return None
        return _train(config, folder, checkpoint, model, tokenizer, rows, report)


def _encode(records: Sequence[ListRecord], encode: RecordEncoder, skip_bad: bool) -> tuple[list[dict[str, Any]], int]:
    """The encoded records with their `location`, and the number of those that `skip_bad` left out."""
    rows, skipped = [], 0
    for record in records:
        try:
            rows.append(encode(record) | {"location": record.location})
        except InvalidInput:
            if not skip_bad:
                raise
            skipped += 1
    if not rows:
        raise InvalidInput("there is nothing to train on: no record is left")
    return rows, skipped


def _train(
    config: ListwiseConfig,
    folder: Path,
    checkpoint: str | None,
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    report: Callable[[str], None],
) -> Path:
    trainer, throughput, steps = _make_trainer(config, model, tokenizer, rows)
    trainer.add_callback(throughput.callback(report))
    run(trainer, config, checkpoint, {"steps": steps, "records": len(rows)}, head=False, report=report)
    return folder


def _make_trainer(
    config: ListwiseConfig, model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], **sft_options: Any
) -> tuple[Any, Throughput, int]:
    """TRL's trainer for `rows`, the counter of its tokens, and the number of steps.

    `sft_options` are further arguments of SFTConfig.
    """
    from datasets import Dataset, disable_progress_bars
    from trl import SFTConfig, SFTTrainer

    def sft_config(steps: int) -> Any:
        arguments = trainer_arguments(config, steps) | {
            "max_length": config.max_tokens,
            "completion_only_loss": True,
            "packing": False,
            "group_by_length": True,
        }
        return SFTConfig(**arguments | sft_options)

    disable_progress_bars()
    ids = [{name: row[name] for name in ("input_ids", "completion_mask")} for row in rows]
    steps = count_steps(config, len(rows), sft_config(1).world_size)
    throughput = Throughput(steps, "tokens")

    class AnswerTrainer(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            result = super().compute_loss(model, inputs, *args, **kwargs)
            loss = result[0] if isinstance(result, tuple) else result
            stop_at_nan(loss, self.state.global_step + 1, lambda: _locations(inputs["input_ids"], rows), config.output)
            throughput.count += int(inputs["input_ids"].numel())
            return result

    trainer = AnswerTrainer(
        model=model, args=sft_config(steps), train_dataset=Dataset.from_list(ids), processing_class=tokenizer
    )
    return trainer, throughput, steps


def _locations(batch: Any, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Locations of the records in a batch of ids (records, longest), which is padded on the right."""
    lines = batch.tolist()
    return [row["location"] for row in rows if any(line[: len(row["input_ids"])] == row["input_ids"] for line in lines)]


def _summary(rows: Sequence[dict[str, Any]], skipped: int, model: Any, config: ListwiseConfig) -> str:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    tokens = sum(len(row["input_ids"]) for row in rows)
    answer_tokens = sum(sum(row["completion_mask"]) for row in rows)
    left_out = f", {skipped} left out" if skipped else ""
    return (
        f"{len(rows):,} records{left_out}, {tokens / len(rows):,.0f} tokens each, "
        f"{answer_tokens / len(rows):,.0f} of them in the answer; prompt form {config.prompt}\n"
        f"{trained / 1e6:.1f}M parameters are trained, in {str(choose_dtype(config.dtype)).removeprefix('torch.')}"
    )


def _dry_run(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], config: ListwiseConfig) -> Iterator[str]:
    """Lines with steps, memory and time of the training, from real steps of its trainer on records of all lengths."""
    by_length = sorted(rows, key=lambda row: len(row["input_ids"]))
    count = (_DRY_RUN_STEPS + 1) * config.batch
    chosen = [by_length[(2 * number + 1) * len(rows) // (2 * count)] for number in range(count)]
    short = replace(config, accumulation=1, max_steps=_DRY_RUN_STEPS + 1)
    trainer, throughput, _ = _make_trainer(short, model, tokenizer, chosen, save_strategy="no", logging_strategy="no")
    trainer.add_callback(throughput.callback(lambda _: None))
    run_trainer(trainer)
    steps = count_steps(config, len(rows))
    records = steps * config.accumulation * config.batch
    rate = throughput.rate()
    tokens = records * sum(len(row["input_ids"]) for row in rows) / len(rows)
    yield f"{steps:,} steps of {config.accumulation} x {config.batch} records"
    yield f"memory {peak_device_memory_mb() or 0:,} MB"
    yield f"{rate:,.0f} tokens/s: {format_duration(tokens / rate)} in total"
