"""The parts of help pages that commands share: sections of options, and examples of each command.

Data alone: `dearlite.cli.help` shows them. Options of a section that a command lacks are skipped.
"""

# section -> options, in the order of a page; those of no section come last, under "Other options"
SECTIONS = {
    "Query and documents": (
        "--query",
        "--queries",
        "--corpus",
        "--run",
        "--depth",
        "--docs-format",
        "--text-field",
        "--id-field",
        "--title-field",
        "--delimiter",
        "--skip-bad",
    ),
    "Evaluation": (
        "--qrels",
        "--measures",
        "--ties",
        "--scored",
        "--baseline",
        "--suite",
        "--all-pairs",
        "--test",
        "--confidence",
        "--seed",
    ),
    "Output": (
        "--top-k",
        "--all",
        "--min-relevance",
        "--format",
        "--output",
        "--jsonl",
        "--query-id",
        "--report",
        "--json",
        "--csv",
        "--per-query",
        "--per-query-long",
        "--plot",
        "--latex",
        "--no-pager",
        "--quiet",
    ),
    "Server": ("--port", "--host", "--api-key-file", "--also", "--allow-host", "--allow-origin", "--stdio"),
    "Limits": ("--max-documents", "--max-body", "--max-queue", "--max-time"),
    "Model": (
        "--model",
        "--device",
        "--threads",
        "--budget",
        "--instruction",
        "--prompt",
        "--gpu-layers",
        "--adapter",
    ),
    "Journal and cache": ("--journal", "--no-journal", "--cache"),
    "Long documents": ("--long", "--chunk-tokens", "--keep"),
    "Cascade": ("--adaptive", "--low-memory", "--best-effort"),
    "Listwise models": (
        "--mode",
        "--explain",
        "--window",
        "--stride",
        "--passage-tokens",
        "--reasoning-tokens",
        "--passes",
        "--batch-size",
        "--batch-size",
    ),
    "Ray cluster": ("--ray", "--actors", "--actor-gpus", "--block-queries"),
}
LEAST = 20  # options of a command whose page has sections

# command -> its examples, each a line of a shell
EXAMPLES = {
    "rerank": (
        "dearlite rerank query.txt docs.jsonl -k 5",
        "dearlite rerank -q 'who wrote it?' notes.txt -o best.csv",
        "cat docs.jsonl | dearlite rerank -q 'heavy rain' - | head -n 3",
    ),
    "batch": (
        "dearlite batch FOLDER -o out.trec",
        "dearlite batch --queries q.tsv docs.jsonl -o out.trec",
        "dearlite batch FOLDER -m minilm-l12 -m model.gguf:20 -o out.trec",
    ),
    "eval": (
        "dearlite eval FOLDER --report report.html",
        "dearlite eval FOLDER --scored out.trec --measures 'nDCG@10 AP'",
        "dearlite eval --qrels qrels.tsv bm25.trec out.trec",
    ),
    "serve": (
        "dearlite serve",
        "dearlite serve -m model.gguf --also minilm-l12 --port 9000",
        "dearlite serve --host 0.0.0.0 --api-key-file keys.txt",
    ),
    "mcp": (
        "dearlite mcp",
        "dearlite mcp -m minilm-l12 -m model.gguf:10",
        "dearlite mcp --max-documents 200 --max-time 20s",
    ),
    "models": (
        "dearlite models",
        "dearlite models show minilm-l12",
        "dearlite models recommend --docs 50 --within 1s",
    ),
    "models list": ("dearlite models list",),
    "models show": ("dearlite models show minilm-l12", "dearlite models show model.gguf"),
    "models recommend": (
        "dearlite models recommend",
        "dearlite models recommend --docs 50 --within 500ms --memory 2GB",
        "dearlite models recommend --commercial --all --json",
    ),
    "models get": ("dearlite models get ettin-150m", "dearlite models get bge-v2-m3 --force"),
    "models verify": ("dearlite models verify minilm-l12", "dearlite models verify model.dear"),
    "models calibrate": (
        "dearlite models calibrate model.dear FOLDER --split dev -o new.dear",
        "dearlite models calibrate m.gguf FOLDER --prompt yes-no --split dev -o n.gguf",
        "dearlite models calibrate m.dear FOLDER --depth 30 --split dev -o new.dear",
    ),
    "export": (
        "dearlite export ettin-150m",
        "dearlite export path/to/scorer --adapter path/to/lora -o scorer.dear",
        "dearlite export path/to/listwise --quant q4_k_m -o listwise.gguf",
    ),
    "train": (
        "dearlite train mine FOLDER -o records.jsonl",
        "dearlite train pointwise stage1.toml",
        "dearlite train listwise stage2.toml --dry-run",
    ),
    "train pointwise": (
        "dearlite train pointwise stage1.toml",
        "dearlite train pointwise stage1.toml --dry-run",
        "dearlite train pointwise stage1.toml --set epochs=1 --set seed=7",
    ),
    "train listwise": (
        "dearlite train listwise stage2.toml",
        "dearlite train listwise stage2.toml --dry-run",
        "dearlite train listwise stage2.toml --set epochs=1",
    ),
    "train mine": (
        "dearlite train mine FOLDER -o records.jsonl",
        "dearlite train mine FOLDER -m ettin-150m --depths 1-10,11-50 -o r.jsonl",
        "dearlite train mine FOLDER --listwise --limit 1000 -o records.jsonl",
    ),
    "bench": ("dearlite bench", "dearlite bench -m ettin-150m --tokens 200", "dearlite bench --threads 1 --json"),
    "doctor": ("dearlite doctor",),
    "help": ("dearlite help", "dearlite help rerank", "dearlite help models show"),
    "version": ("dearlite version",),
}
