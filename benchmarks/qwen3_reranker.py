"""The shape of Qwen3-Reranker-0.6B, random weights: dearlite beside bare llama.cpp and transformers, in one run.

    python benchmarks/qwen3_reranker.py FOLDER --tokenizer tokenizer.json

Writes a bf16 checkpoint of that shape, its export in int8 (timed) and its GGUF in Q8_0 to FOLDER, once. Each system
has its own process (2 GB) and reads the same prompts of the family `qwen3-reranker`; rounds are interleaved, each of
other pairs of NovelEval. Random weights allow no conclusion about quality; scores show that all compute the same.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from llama_systems import LlamaCpp, Row, _fill, _open_llama_cpp, flat_documents
from measure import describe_machine
from pointwise import REPOSITORY, SETTLE_S, print_progress, read_work
from systems import Score, Work
from workers import Round, SystemFailed, Worker

FAMILY = "qwen3-reranker"
BATCH = 8
# config.json of the published model
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 151669, "tie_word_embeddings": True, "rms_norm_eps": 1e-6, "rope_theta": 1000000,
    "max_position_embeddings": 40960, "hidden_act": "silu", "attention_bias": False, "torch_dtype": "bfloat16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one checkpoint, and settings of all systems."""

    checkpoint: Path
    gguf: Path
    dear: Path
    max_tokens: int
    threads: int

    def rows(self, work: Work) -> Iterator[Row]:
        """The ids of each pair and the length of the query's part, by dearlite's encoder."""
        from dearlite.models.bundle import Bundle
        from dearlite.pointwise.prompting import prompt_of

        bundle = Bundle(self.dear)
        form = bundle.manifest.template
        assert form is not None
        prompt = prompt_of(form, bundle.read("tokenizer.json"), self.max_tokens)
        for query, document in flat_documents(work):
            (row,) = prompt.rows(prompt.query(query), [document])
            yield row.ids.tolist(), row.prefix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the checkpoint and the model files; 2.6 GB")
    parser.add_argument("--tokenizer", type=Path, required=True, help="Qwen3's tokenizer.json")
    parser.add_argument("--pairs", type=int, default=40, help="of all rounds together (default: 40)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    limit = "begin no round that would end after S seconds (default: 500)"
    parser.add_argument("--limit-s", type=float, metavar="S", default=500, help=limit)
    parser.add_argument("--only", nargs="+", metavar="KEY", help="systems to run")
    options = parser.parse_args()
    machine = describe_machine()
    files = make_files(options.folder, options.tokenizer, options.threads)
    work = read_work(REPOSITORY / "export" / "data" / "noveleval", "run_bm25.trec", options.pairs)
    pairs = [(query, text) for query, texts in work for text in texts]
    size = -(-len(pairs) // options.rounds)
    slices = [grouped(pairs[at : at + size]) for at in range(0, len(pairs), size)]
    systems = {key: load for key, load in SYSTEMS.items() if not options.only or key in options.only}
    rounds: dict[str, list[Round]] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for key, load in systems.items():
            print_progress(f"loading {key}")
            try:
                workers[key] = stack.enter_context(Worker(key, files, load))
            except SystemFailed as err:
                print(f"{key}: {err}")
        for worker in workers.values():
            worker.run([(pairs[0][0], [pairs[0][1]])])
        start = time.perf_counter()
        for number, part in enumerate(slices):
            elapsed_s = time.perf_counter() - start
            if number and elapsed_s * (number + 1) / number > options.limit_s:
                print_progress(f"stopped after {number} of {len(slices)} rounds: --limit-s {options.limit_s:g}")
                del slices[number:]
                break
            keys = list(workers)
            for position in range(len(keys)):
                key = keys[(position + number) % len(keys)]
                print_progress(f"round {number + 1} of {len(slices)}: {key}")
                time.sleep(SETTLE_S)
                rounds.setdefault(key, []).append(workers[key].run(part))
    tokens = [sum(len(ids) for ids, _ in files.rows(part)) for part in slices]
    report(machine, files, rounds, tokens, sum(len(texts) for part in slices for _, texts in part))


def grouped(pairs: list[tuple[str, str]]) -> Work:
    """Queries in order, each with its texts."""
    work: dict[str, list[str]] = {}
    for query, text in pairs:
        work.setdefault(query, []).append(text)
    return list(work.items())


def make_files(folder: Path, tokenizer: Path, threads: int) -> Files:
    """The files under `folder`; those that exist are kept."""
    checkpoint = folder / "checkpoint"
    files = Files(checkpoint, folder / "q8_0.gguf", folder / "int8.dear", 1024, threads)
    if not (checkpoint / "config.json").exists():
        write_checkpoint(checkpoint, tokenizer)
    if not files.dear.exists():
        command = [sys.executable, "-m", "dearlite.cli.main", "export", str(checkpoint), "-o", str(files.dear)]
        command += ["--prompt", FAMILY, "--no-card", "--max-tokens", str(files.max_tokens)]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        print(f"export to int8: {time.perf_counter() - start:.0f} s, {files.dear.stat().st_size / 1e6:.0f} MB")
    if not files.gguf.exists():
        write_gguf(checkpoint, files.gguf)
    return files


def write_checkpoint(folder: Path, tokenizer: Path) -> None:
    """Random weights in bf16 with the tensor names of transformers."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    c = CONFIG
    hidden, ffn, size = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    queries, keys = c["num_attention_heads"] * size, c["num_key_value_heads"] * size  # type: ignore[operator]
    tensors = {"model.embed_tokens.weight": (c["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    for number in range(int(c["num_hidden_layers"])):  # type: ignore[call-overload]
        at = f"model.layers.{number}"
        tensors |= {
            f"{at}.self_attn.q_proj.weight": (queries, hidden), f"{at}.self_attn.k_proj.weight": (keys, hidden),
            f"{at}.self_attn.v_proj.weight": (keys, hidden), f"{at}.self_attn.o_proj.weight": (hidden, queries),
            f"{at}.self_attn.q_norm.weight": (size,), f"{at}.self_attn.k_norm.weight": (size,),
            f"{at}.mlp.gate_proj.weight": (ffn, hidden), f"{at}.mlp.up_proj.weight": (ffn, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, ffn),
            f"{at}.input_layernorm.weight": (hidden,), f"{at}.post_attention_layernorm.weight": (hidden,),
        }  # fmt: skip
    weights = {
        name: (torch.ones(sides) if len(sides) == 1 else 0.02 * torch.randn(*sides)).to(torch.bfloat16)
        for name, sides in tensors.items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}))
    (folder / "config.json").write_text(json.dumps(c))


def write_gguf(folder: Path, file: Path) -> None:
    """The checkpoint in Q8_0 with its vocabulary, as llama.cpp's converter writes it."""
    import gguf
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(file, "qwen3")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    tokens = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    tokens |= {number: token["content"] for number, token in added.items()}
    count = config["vocab_size"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([tokens.get(number, f"[PAD{number}]") for number in range(count)])
    kinds = [(3 if added[n]["special"] else 4) if n in added else 1 if n in tokens else 5 for n in range(count)]
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_add_bos_token(False)
    writer.add_eos_token_id(next(number for number, token in tokens.items() if token == "<|im_end|>"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name).float().numpy()
            kind = gguf.GGMLQuantizationType.Q8_0 if tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
            target = names.get_name(name, try_suffixes=(".weight",))
            writer.add_tensor(target, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load_transformers(dtype: str, files: Files) -> Score:
    """The card's way: batches padded on the left, the logits of the last position alone."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(files.threads)
    model = AutoModelForCausalLM.from_pretrained(files.checkpoint, dtype=getattr(torch, dtype)).eval()
    yes, no = answers(files)

    def score(work: Work) -> list[float]:
        rows, scores = [ids for ids, _ in files.rows(work)], []
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            width = max(map(len, batch))
            ids = torch.tensor([[0] * (width - len(row)) + row for row in batch])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
            with torch.inference_mode():
                logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=1).logits[:, -1].float()
            scores += (logits[:, yes] - logits[:, no]).tolist()
        return scores

    return score


def load_llama_cpp(settings: LlamaCpp, files: Files) -> Score:
    """Bare calls: `settings.sequences` documents a call, logits of last tokens only."""
    import llama_cpp

    context, memory = _open_llama_cpp(settings, files)  # type: ignore[arg-type]
    batch = llama_cpp.llama_batch_init(settings.sequences * files.max_tokens, 0, settings.sequences)
    yes, no = answers(files)

    def score(work: Work) -> list[float]:
        rows, scores = list(files.rows(work)), []
        for start in range(0, len(rows), settings.sequences):
            outputs = _fill(batch, rows[start : start + settings.sequences], settings.shared_prefix)
            llama_cpp.llama_memory_clear(memory, False)
            if (status := llama_cpp.llama_decode(context, batch)) != 0:
                raise RuntimeError(f"llama_decode ended with {status}")
            for index in outputs:
                logits = llama_cpp.llama_get_logits_ith(context, index)
                scores.append(float(logits[yes] - logits[no]))
        return scores

    return score


def load_dearlite(name: str, files: Files) -> Score:
    """Reranker.rerank, a query at a time."""
    from dearlite import Reranker

    options: dict[str, Any] = {"prompt": FAMILY} if name == "gguf" else {}
    reranker = Reranker.load(getattr(files, name), device="cpu", threads=files.threads, **options)
    return lambda work: [score for query, texts in work for score in reranker.score([(query, t) for t in texts])]


def answers(files: Files) -> tuple[int, int]:
    """The ids of yes and no."""
    vocabulary = json.loads((files.checkpoint / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    return vocabulary["yes"], vocabulary["no"]


def _bare(sequences: int, ubatch: int) -> Any:
    settings = LlamaCpp(sequences, ubatch, flash_attention=True, unified=True, shared_prefix=True)
    return partial(load_llama_cpp, settings)


SYSTEMS: dict[str, Any] = {
    "transformers fp32": partial(load_transformers, "float32"),
    "transformers bf16": partial(load_transformers, "bfloat16"),
    "llama.cpp Q8_0, whole rows": partial(
        load_llama_cpp, LlamaCpp(4, 512, flash_attention=True, unified=False, shared_prefix=False)
    ),
    "llama.cpp Q8_0, query once, 4 x 512": _bare(4, 512),
    "llama.cpp Q8_0, query once, 8 x 512": _bare(8, 512),
    "llama.cpp Q8_0, query once, 8 x 1024": _bare(8, 1024),
    "llama.cpp Q8_0, query once, 8 x 256": _bare(8, 256),
    "dearlite Q8_0": partial(load_dearlite, "gguf"),
    "dearlite int8": partial(load_dearlite, "dear"),
}


def report(
    machine: dict[str, Any], files: Files, rounds: dict[str, list[Round]], tokens: list[int], pairs: int
) -> None:
    """Prints the table."""
    print(f"{machine['date']}; {machine['cpu']}, {machine['cpus']} CPUs, {' '.join(machine['flags'])}; ", end="")
    print(f"load average {machine['load_1min']:.2f} at the start; {files.threads} threads")
    print(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    count = len(next(iter(rounds.values())))
    print(f"{pairs} pairs, {sum(tokens) / pairs:.0f} tokens a pair; medians of {count} rounds")
    print(f"file sizes: Q8_0 {files.gguf.stat().st_size / 1e6:.0f} MB, int8 {files.dear.stat().st_size / 1e6:.0f} MB")
    speeds = {key: [len(r.scores) / r.elapsed_s for r in done] for key, done in rounds.items()}
    bare = max((statistics.median(rates) for key, rates in speeds.items() if key.startswith("llama.cpp")), default=0.0)
    reference = next(iter(rounds.values()))
    print(
        f"{'system':<40} {'docs/s':>8} {'low-high':>13} {'x bare':>7} {'tokens/s':>9} {'peak MB':>8} {'difference':>11}"
    )
    for key, done in rounds.items():
        rate = statistics.median(speeds[key])
        paces = statistics.median(t / r.elapsed_s for t, r in zip(tokens, done, strict=True))
        pairs_of = zip(done, reference, strict=True)
        difference = np.mean([abs(np.subtract(r.scores, ref.scores)).mean() for r, ref in pairs_of])
        print(
            f"{key:<40} {rate:8.3f} {min(speeds[key]):6.3f}-{max(speeds[key]):6.3f} "
            f"{rate / bare if bare else float('nan'):7.2f} {paces:9.0f} {done[-1].peak_rss_mb:8.0f} {difference:11.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
