"""Stage 2: a language model learns to order passages, and to say why first, by supervised fine-tuning (TRL).

A prompt is encoded by the code that the runtime encodes it with, so the two cannot differ; only the answer is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dearlite.errors import InvalidInput, UsageError, need
from dearlite.export.train.base import choose_dtype, hush, load_base, load_tokenizer, unpack_base, with_lora
from dearlite.export.train.config import ListwiseConfig
from dearlite.export.train.hf_vocabulary import HfVocabulary, template_of
from dearlite.export.train.loop import (
    Clock,
    arguments,
    count_steps,
    hours,
    open_output,
    peak_mb,
    reporter,
    run,
    run_only,
    stop_at_nan,
)
from dearlite.export.train.records.rankings import ListRecord, read_list_records
from dearlite.listwise.chat_template import PromptPart
from dearlite.listwise.prompts import LIST_FORMS, find_form
from dearlite.listwise.tokens import PromptAndAnswer, PromptEncoder

_TRIED = 4  # steps that a dry run measures, after one that warms up


class RecordEncoder:
    """Records to the ids of prompt and answer, with the token that ends the answer."""

    def __init__(self, tokenizer: Any, config: ListwiseConfig) -> None:
        self._config, self._vocabulary = config, HfVocabulary(tokenizer)
        self._template, self._end = template_of(tokenizer), tokenizer.eos_token_id
        self._encoders = {
            reasoned: PromptEncoder(self._vocabulary, find_form(config.prompt, reasoned=reasoned), self._template)
            for reasoned in (False, True)
            if not reasoned or LIST_FORMS[config.prompt].reasons_as
        }

    def __call__(self, record: ListRecord) -> dict[str, list[int]]:
        """`input_ids` and `completion_mask` (1 where the answer is), of equal length."""
        room = self._config.max_tokens - 1
        both = (self._conversation if record.turns else self._ranking)(record, room)
        ids = [*both.ids, self._end]
        return {"input_ids": ids, "completion_mask": [0] * both.start + [1] * (len(ids) - both.start)}

    def _ranking(self, record: ListRecord, room: int) -> PromptAndAnswer:
        reasoned = bool(record.reasoning)
        if reasoned not in self._encoders:
            raise UsageError(f"prompt {self._config.prompt!r} leaves no room for the reasoning at {record.place}")
        encoder = self._encoders[reasoned]
        most = self._config.passage_tokens or None
        passages = [encoder.passage(document, most) for document in record.passages]
        answer = record.written(encoder.form.identifiers(len(passages)))
        try:
            return encoder.encode_with_answer(record.query, passages, answer, room=room, reasoned=reasoned)
        except InvalidInput as err:
            raise InvalidInput(f"{record.place}: {err}") from None

    def _conversation(self, record: ListRecord, room: int) -> PromptAndAnswer:
        if self._template is None:
            raise UsageError("the base has no chat template, which records of messages need: give another base")
        parts = self._template.parts(record.turns)
        prompt = self._vocabulary.encode_prompt(parts)
        ids = self._vocabulary.encode_prompt([*parts, PromptPart(record.answer, False)])
        if len(ids) > room:
            raise InvalidInput(f"{record.place} has {len(ids)} tokens, max_tokens is {room + 1}: raise it, or skip_bad")
        return PromptAndAnswer.split(prompt, ids)


def train_listwise(
    config: ListwiseConfig, *, dry_run: bool = False, on_message: Callable[[str], None] | None = None
) -> Path | None:
    """Folder of the trained adapter (`config.output`); None for a dry run.

    The arguments and errors are those of `train_pointwise`.
    """
    torch = need("torch", extra="train")
    need("transformers", extra="train")
    need("peft", extra="train")
    need("trl", extra="train")
    from transformers import AutoModelForCausalLM, set_seed

    report = reporter(on_message)

    find_form(config.prompt)
    records, skipped = read_list_records(map(Path, config.data), skip_bad=config.skip_bad)
    if config.threads:
        torch.set_num_threads(config.threads)
    with open_output(config) as (folder, checkpoint):
        hush()
        base = unpack_base(config.base, folder)
        tokenizer = load_tokenizer(base)
        rows, cut = _encode(records, RecordEncoder(tokenizer, config), config.skip_bad)
        set_seed(config.seed)
        model = load_base(AutoModelForCausalLM, base, config)
        model.config.use_cache = False
        model = with_lora(model, config, "CAUSAL_LM")
        report(_summary(rows, skipped + cut, model, config))
        if dry_run:
            for line in _try(model, tokenizer, rows, config):
                report(line)
            return None
        return _train(config, folder, checkpoint, model, tokenizer, rows, report)


def _encode(records: Sequence[ListRecord], encode: RecordEncoder, skip_bad: bool) -> tuple[list[dict[str, Any]], int]:
    rows, left = [], 0
    for record in records:
        try:
            rows.append(encode(record) | {"place": record.place})
        except InvalidInput:
            if not skip_bad:
                raise
            left += 1
    if not rows:
        raise InvalidInput("there is nothing to train on: no record is left")
    return rows, left


def _train(
    config: ListwiseConfig,
    folder: Path,
    checkpoint: str | None,
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    report: Callable[[str], None],
) -> Path:
    trainer, clock, steps = _trainer(config, model, tokenizer, rows)
    trainer.add_callback(clock.callback(report))
    run(trainer, config, checkpoint, {"steps": steps, "records": len(rows)}, head=False, report=report)
    return folder


def _trainer(
    config: ListwiseConfig, model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], **more: Any
) -> tuple[Any, Clock, int]:
    """TRL's trainer over `rows`, the clock that hears its tokens, and its steps; `more` are settings of SFTConfig."""
    from datasets import Dataset, disable_progress_bars
    from trl import SFTConfig, SFTTrainer

    def settings(steps: int) -> Any:
        given = {
            "max_length": config.max_tokens,
            "completion_only_loss": True,
            "packing": False,
            "group_by_length": True,
        }
        return SFTConfig(**arguments(config, steps) | given | more)

    disable_progress_bars()
    ids = [{name: row[name] for name in ("input_ids", "completion_mask")} for row in rows]
    steps = count_steps(config, len(rows), settings(1).world_size)
    clock = Clock(steps, "tokens")

    class AnswerTrainer(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **more: Any) -> Any:
            found = super().compute_loss(model, inputs, *args, **more)
            loss = found[0] if isinstance(found, tuple) else found
            stop_at_nan(loss, self.state.global_step + 1, lambda: _places(inputs["input_ids"], rows), config.output)
            clock.done += int(inputs["input_ids"].numel())
            return found

    trainer = AnswerTrainer(
        model=model, args=settings(steps), train_dataset=Dataset.from_list(ids), processing_class=tokenizer
    )
    return trainer, clock, steps


def _places(batch: Any, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Where the records of a batch of ids (records, longest), padded on the right, stand."""
    lines = batch.tolist()
    return [row["place"] for row in rows if any(line[: len(row["input_ids"])] == row["input_ids"] for line in lines)]


def _summary(rows: Sequence[dict[str, Any]], left: int, model: Any, config: ListwiseConfig) -> str:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    tokens = sum(len(row["input_ids"]) for row in rows)
    answers = sum(sum(row["completion_mask"]) for row in rows)
    return (
        f"{len(rows):,} records" + (f", {left} left out" if left else "") + f", {tokens / len(rows):,.0f} tokens each, "
        f"{answers / len(rows):,.0f} of them the answer; prompt form {config.prompt}\n"
        f"{trained / 1e6:.1f}M parameters are trained, in {str(choose_dtype(config.dtype)).removeprefix('torch.')}"
    )


def _try(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], config: ListwiseConfig) -> Iterator[str]:
    """Some real steps over records of all lengths, by the very trainer, and what the whole will take by them."""
    by_length = sorted(rows, key=lambda row: len(row["input_ids"]))
    count = (_TRIED + 1) * config.batch
    chosen = [by_length[(2 * one + 1) * len(rows) // (2 * count)] for one in range(count)]
    tried = replace(config, accumulation=1, max_steps=_TRIED + 1)
    trainer, clock, _ = _trainer(tried, model, tokenizer, chosen, save_strategy="no", logging_strategy="no")
    trainer.add_callback(clock.callback(lambda _: None))
    run_only(trainer)
    steps = count_steps(config, len(rows))
    records = steps * config.accumulation * config.batch
    rate = clock.rate()
    whole = records * sum(len(row["input_ids"]) for row in rows) / len(rows)
    yield f"{steps:,} steps of {config.accumulation} x {config.batch} records"
    yield f"memory {peak_mb() or 0:,} MB"
    yield f"{rate:,.0f} tokens/s: {hours(whole / rate)} in all"
