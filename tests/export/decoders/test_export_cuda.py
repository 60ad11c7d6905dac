"""Decoders' graphs for CUDA without a GPU: run by ONNX Runtime's CPU and, in true fp16, by torch."""

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from half_arithmetic import run_graph  # noqa: E402
from tiny_decoders import DOCS, KINDS, PAIRS, QUERIES, checkpoint, reference  # noqa: E402

from dearlite import DearliteError, Reranker  # noqa: E402
from dearlite.cli.main import run  # noqa: E402
from dearlite.export.decoders.bundle import DecoderModel, write_decoder  # noqa: E402
from dearlite.export.decoders.quantisations import QUANTISATIONS  # noqa: E402
from dearlite.export.source.checkpoint import Checkpoint  # noqa: E402
from dearlite.export.source.merge import MergedCheckpoint  # noqa: E402
from dearlite.models.bundle import Bundle  # noqa: E402
from dearlite.models.facts import PointwiseFacts  # noqa: E402
from dearlite.pointwise.onnxruntime import PROVIDERS, onnxruntime  # noqa: E402

GROUPED = "llama, 4 heads of 1, llama3 scaling"


@pytest.fixture
def cpu_for_cuda(monkeypatch):
    """Runs the graph and the layout for CUDA on ONNX Runtime's CPU provider."""
    monkeypatch.setitem(PROVIDERS, "cuda", "CPUExecutionProvider")


def write(folder, plan, *built_for):
    source = MergedCheckpoint(Checkpoint(folder), None)
    facts = PointwiseFacts(
        name="tiny",
        architecture=source.config["model_type"],
        prompt="dear",
        pooling="last-token",
        max_tokens=96,
        licence="not stated",
        source={},
    )
    target = folder / "m.dear"
    model = DecoderModel(source=source, tokenizer=(folder / "tokenizer.json").read_bytes(), facts=facts)
    write_decoder(model, target, plan=plan, devices=built_for)
    return target


def export(folder, *options):
    with pytest.raises(SystemExit) as ended:
        run(
            [
                "export",
                str(folder),
                "-o",
                str(folder / "m.dear"),
                "--max-tokens",
                "96",
                "--force",
                "--no-card",
                *options,
            ]
        )
    return ended.value.code


def rectangle(tok, pairs):
    """The pairs' ids and mask, padded on the right to the longest."""
    tok.enable_truncation(96, strategy="longest_first")
    rows = [tok.encode(f"query: {query}", f"document:  {document}").ids for query, document in pairs]
    ids, mask = (np.zeros((len(rows), max(map(len, rows))), np.int64) for _ in range(2))
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    return ids, mask


def in_half(bundle, ids, mask):
    build = next(build for build in bundle.manifest.builds if build.device == "cuda")
    scores, largest = run_graph(bundle, build, ids, mask)
    return scores[:, 0], largest


@pytest.mark.parametrize("kind", KINDS)
def test_padded_graph_in_fp32_is_transformers(tmp_path, kind, cpu_for_cuda):
    net, tok = checkpoint(tmp_path, kind)
    target = write(tmp_path, replace(QUANTISATIONS["fp32"], cuda_way="fp32"), "cuda")
    reranker = Reranker.load(target, device="cuda")
    assert reranker._backend.build.layout == "padded"
    assert reranker.score(PAIRS) == pytest.approx(reference(net, tok, PAIRS), abs=1e-4)


def test_rotated_int8_weights_in_the_padded_graph_are_those_of_the_cpu_graph(tmp_path, cpu_for_cuda):
    """Both graphs with q * scale in fp32 and block Hadamards before `down`: only the layouts differ."""
    checkpoint(tmp_path, GROUPED)
    plan = replace(QUANTISATIONS["int8"], way="dequantised", last_way="dequantised", cuda_way="int8-weights")
    target = write(tmp_path, plan, "cpu", "cuda")
    on_cpu, on_cuda = (Reranker.load(target, device=device).score(PAIRS) for device in ("cpu", "cuda"))
    assert on_cuda == pytest.approx(on_cpu, abs=1e-4)


@pytest.mark.parametrize("kind", [GROUPED, "qwen2", "qwen3"])
@pytest.mark.parametrize("quant", ["fp16", "int8"])
def test_half_arithmetic_is_near_fp32_arithmetic_on_the_same_weights(tmp_path, kind, quant, cpu_for_cuda):
    _, tok = checkpoint(tmp_path, kind)
    wide = {"fp16": "fp16-as-fp32", "int8": "int8-weights"}[quant]
    target = write(tmp_path, replace(QUANTISATIONS[quant], cuda_way=wide), "cuda")
    expected = np.array(Reranker.load(target, device="cuda").score(PAIRS))
    target = write(tmp_path, QUANTISATIONS[quant], "cuda")
    scores, _ = in_half(Bundle(target), *rectangle(tok, PAIRS))
    assert np.abs(scores - expected).max() <= 0.02 * expected.std()
    assert Reranker.load(target, device="cuda").score(PAIRS) == pytest.approx(expected, abs=0.02 * expected.std())


@pytest.mark.parametrize("quant", ["fp16", "int8"])
def test_cuda_score_does_not_depend_on_company_or_padding(tmp_path, quant, cpu_for_cuda):
    _, tok = checkpoint(tmp_path, GROUPED)
    assert export(tmp_path, "--for", "cuda", "--quant", quant) == 0
    reranker = Reranker.load(tmp_path / "m.dear", device="cuda")
    together = reranker.score(PAIRS)
    assert np.std(together) > 0.1
    assert [reranker.score([pair])[0] for pair in PAIRS] == pytest.approx(together, abs=1e-3)
    assert reranker.score(PAIRS[::-1])[::-1] == pytest.approx(together, abs=1e-3)
    ids, mask = rectangle(tok, PAIRS)
    others = np.where(mask == 1, ids, 7)  # another token in the padding
    bundle = Bundle(tmp_path / "m.dear")
    assert in_half(bundle, others, mask)[0] == pytest.approx(in_half(bundle, ids, mask)[0], abs=1e-6)


def test_activations_beyond_fp16_overflow_nowhere(tmp_path):
    """Inputs and outputs of `down` are above 65504, as in some real models."""
    net, tok = checkpoint(tmp_path, GROUPED)
    with torch.no_grad():
        for layer in net.model.layers:
            layer.mlp.gate_proj.weight[:8] *= 150
            layer.mlp.up_proj.weight[:8] *= 150
            layer.mlp.down_proj.weight[:3] *= 4
    net.save_pretrained(tmp_path)
    seen = []
    hook = net.model.layers[0].mlp.down_proj.register_forward_hook(
        lambda module, inputs, out: seen.append([float(x.abs().max()) for x in (*inputs, out)])
    )
    expected = np.array(reference(net, tok, PAIRS))
    hook.remove()
    assert np.max(seen, axis=0).min() > 65504
    scores, largest = in_half(Bundle(write(tmp_path, QUANTISATIONS["fp16"], "cuda")), *rectangle(tok, PAIRS))
    assert largest < 65504
    assert np.abs(scores - expected).max() <= 0.05 * expected.std()


def test_file_for_both_shares_one_set_of_weights(tmp_path, cpu_for_cuda):
    checkpoint(tmp_path, "mistral")
    sizes, builds = {}, {}
    for target in ("cpu", "cuda", "both"):
        assert export(tmp_path, "--for", target) == 0
        bundle = Bundle(tmp_path / "m.dear")
        sizes[target] = bundle.manifest.members["weights.bin"].size_bytes
        builds[target] = [(build.device, build.layout) for build in bundle.manifest.builds]
        assert json.loads(bundle.read("config.json"))["model_type"] == "mistral"
    assert sizes["cpu"] == sizes["cuda"] == sizes["both"]
    cpu = ("cpu", "shared-prefix")
    assert builds == {
        "cpu": [cpu],
        "cuda": [("cuda", "padded")],
        "both": [cpu, ("cuda", "padded")],
    }
    assert Reranker.load(tmp_path / "m.dear", device="cuda").device == "cuda"


def test_machine_without_cuda_takes_the_cpu_graph_or_says_what_to_do(tmp_path, monkeypatch):
    checkpoint(tmp_path, GROUPED)
    monkeypatch.setattr(onnxruntime(), "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert export(tmp_path, "--for", "both") == 0
    assert Reranker.load(tmp_path / "m.dear", device="auto").device == "cpu"
    with pytest.raises(DearliteError, match="built without CUDA"):
        Reranker.load(tmp_path / "m.dear", device="cuda")
    assert export(tmp_path, "--for", "cuda") == 0
    with pytest.raises(DearliteError, match=r"m\.dear .*no graph for it.*--for both") as caught:
        Reranker.load(tmp_path / "m.dear")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--quant", "fp32", "--for", "both"], ["--quant fp32", "--quant fp16"]),
        (["--pooling", "last-position", "--for", "cuda"], ["last-position", "--for cpu"]),
    ],
)
def test_what_cuda_has_no_graph_for_is_refused(tmp_path, capsys, options, words):
    checkpoint(tmp_path, GROUPED)
    capsys.readouterr()
    assert export(tmp_path, *options) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert all(word in line for word in words)
    assert not (tmp_path / "m.dear").exists()


def test_pairs_have_different_lengths():
    """A condition of the tests above: a batch of PAIRS is padded."""
    assert len({len(query.split()) + len(document.split()) for query in QUERIES for document in DOCS}) > 4
