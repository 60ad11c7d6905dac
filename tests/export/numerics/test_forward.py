"""The exporter's own fp32 pass, against transformers and against the runtime's graphs."""

import random

import numpy as np
import pytest
from tiny_decoders import KINDS, PAIRS, QUERIES, WORDS, checkpoint, reference

from dearlite import Reranker
from dearlite.documents import Document
from dearlite.export.decoders.bundle import DecoderModel, write_decoder
from dearlite.export.decoders.quantisations import QUANTISATIONS
from dearlite.export.numerics.forward import ForwardPass
from dearlite.export.quality.card import Pairs
from dearlite.export.quality.check import quality_card, tau_below_floor
from dearlite.export.quality.texts import encode_pairs
from dearlite.export.source.checkpoint import Checkpoint
from dearlite.export.source.families import shape_of
from dearlite.export.source.merge import MergedCheckpoint
from dearlite.models.facts import PointwiseFacts

RECORDS = [(query, Document(text)) for query, text in PAIRS]


def facts(pooling="last-token"):
    return PointwiseFacts(
        name="tiny",
        architecture="llama",
        prompt="dear",
        pooling=pooling,
        max_tokens=96,
        licence="not stated",
        source={},
    )


def written(folder, plan, *, studied=0, pad_id=None, records=RECORDS):
    """The bundle's path, and the fp32 pass during its export; `studied` of the pairs are also calibration rows."""
    source = MergedCheckpoint(Checkpoint(folder), None)
    tokenizer = (folder / "tokenizer.json").read_bytes()
    rows = [row.ids for row in encode_pairs(tokenizer, "dear", 96, records)]
    plan = QUANTISATIONS[plan]
    shape = shape_of(source.config, 96)
    forward = ForwardPass(shape, rows[:studied], rows, block_hadamard=plan.uses_block_hadamard(shape), pad_id=pad_id)
    pooling = "last-token" if pad_id is None else "last-position"
    model = DecoderModel(source=source, tokenizer=tokenizer, facts=facts(pooling), pad_id=pad_id)
    write_decoder(model, folder / "m.dear", plan=plan, forward=forward)
    return folder / "m.dear", forward


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("plan", ["int8", "fp32"])
def test_the_pass_scores_as_transformers_does(tmp_path, kind, plan):
    net, tok = checkpoint(tmp_path, kind)
    _, forward = written(tmp_path, plan, studied=3)
    assert forward.scores == pytest.approx(reference(net, tok, PAIRS), abs=1e-4)


def test_the_pass_reads_the_last_position_as_the_graph_does(tmp_path):
    checkpoint(tmp_path, "llama, 4 heads of 1, llama3 scaling")
    path, forward = written(tmp_path, "fp32", pad_id=1)
    assert forward.scores == pytest.approx(Reranker.load(path).score(PAIRS), abs=1e-4)
    assert not np.allclose(forward.scores, written(tmp_path, "fp32")[1].scores, atol=0.01)


def test_calibrated_int8_is_nearer_to_fp32_on_other_texts(tmp_path):
    """With activations in 15 bits, so that only the rounding of the weights differs."""
    words = random.Random(1)
    texts = [" ".join(words.choices(WORDS, k=length)) for length in range(10, 60)]
    records = [(query, Document(text)) for query in QUERIES for text in texts]
    checkpoint(tmp_path, "llama, 4 heads of 1, llama3 scaling", hidden_size=256, intermediate_size=512)
    errors = []
    for studied in (0, 60):
        path, forward = written(tmp_path, "int8-accurate", studied=studied, records=records)
        scores = Reranker.load(path).score(records)
        errors.append(np.abs(np.array(scores) - forward.scores)[60:].mean())
    assert errors[1] < 0.9 * errors[0]


def test_the_card_separates_a_good_file_from_a_bad_one(tmp_path):
    checkpoint(tmp_path, "mistral")
    path, forward = written(tmp_path, "fp32")
    rows = tuple((query, str(place), query, {"text": text}) for place, (query, text) in enumerate(PAIRS))
    pairs = Pairs("tiny", rows, {})
    card = quality_card(path, pairs, forward.scores, "cpu")
    assert card["kendall_tau"] == 1 and card["max_error"] <= 0.001 and card["documents"] == len(PAIRS)
    assert card["peak_rss_mb"] > 10 and card["versions"]["onnxruntime"]
    assert tau_below_floor(card, 0.95) == ""
    bad = quality_card(path, pairs, forward.scores[::-1], "cpu")
    assert "below 0.95" in tau_below_floor(bad, 0.95)
    path.write_bytes(path.read_bytes()[:-100])
    broken = quality_card(path, pairs, forward.scores, "cpu")
    assert "m.dear" in broken["not_scored"] and "could not be compared" in tau_below_floor(broken, 0.95)
