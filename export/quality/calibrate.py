"""`dearlite.export.calibrate`: scores the judged pairs of a split, fits the scores to probabilities, writes the fit.

A pair is a query and a document of the first stage's run. It is relevant if its grade is above zero; a document without
a judgement counts as not relevant, as in the measures. The fitted probability is therefore that of a candidate of this
first stage, with this score, being judged relevant.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dearlite.errors import DearliteError, UsageError
from dearlite.export.quality.fit import JudgedScores, expected_calibration_error, fit_logistic, fit_margin, sigmoid
from dearlite.files.drafts import Draft
from dearlite.files.outputs import check_outputs, make_folder
from dearlite.files.targets import ending_of, reason_of
from dearlite.files.trec import Qrels, read_qrels
from dearlite.models.bundle import Bundle
from dearlite.models.bundle_writer import add_members
from dearlite.models.gguf import GgufFile, is_gguf
from dearlite.models.gguf_writer import seal, write_with_text
from dearlite.models.registry import find_model
from dearlite.offline import rerank_run
from dearlite.offline.collection.collection import Collection, collection_files, open_collection
from dearlite.offline.collection.runs import open_qrels
from dearlite.offline.collection.source import Source
from dearlite.offline.run.run_files import input_files
from dearlite.progress import Progress
from dearlite.reranker import Reranker
from dearlite.templates.families import FAMILIES


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationResult:
    """A written model file, and the calibration in it: relevance = sigmoid(scale * score + bias).

    `ece` is the expected calibration error of the fit, `ece_sigmoid` that of the uncalibrated sigmoid, both on the
    pairs of the fit. `margin` is in score units.
    """

    path: Path
    scale: float
    bias: float
    margin: float
    fitted_on: str
    pairs: int
    relevant: int
    ece: float
    ece_sigmoid: float

    def record(self) -> dict[str, Any]:
        """The object that a `.dear` file's manifest holds under "calibration", and a GGUF `dearlite.calibration`."""
        return {
            "kind": "logistic",
            "scale": self.scale,
            "bias": self.bias,
            "margin": self.margin,
            "fitted_on": self.fitted_on,
            "pairs": self.pairs,
            "relevant": self.relevant,
            "ece": self.ece,
            "ece_sigmoid": self.ece_sigmoid,
        }


def judged_scores(
    collection: Collection,
    qrels: Qrels,
    reranker: Reranker,
    progress: Progress | bool | None = None,
    journal: Path | None = None,
) -> JudgedScores:
    """The model's scores of the collection's run with their judgements; queries without judgements are left out.

    Each score is written to `journal` at once; pairs that the journal holds already are not scored again.
    """
    reranked = rerank_run(collection, model=reranker, journal=journal or False, progress=progress)
    scores: list[float] = []
    relevant: list[bool] = []
    queries: list[int] = []
    for number, (query_id, documents) in enumerate(reranked.run.items()):
        if query_id in qrels:
            scores += documents.values()
            relevant += [qrels[query_id].get(document_id, 0) > 0 for document_id in documents]
            queries += [number] * len(documents)
    return JudgedScores(np.array(scores, np.float64), np.array(relevant, bool), np.array(queries, np.int64))


def calibrate(
    model: str | Path,
    source: str | Path | Collection | None = None,
    *,
    split: str,
    output: str | Path,
    queries: str | Path | None = None,
    corpus: str | Path | Sequence[str | Path] = (),
    run: str | Path | None = None,
    qrels: str | Path | Qrels | None = None,
    depth: int | None = 100,
    prompt: str | None = None,
    journal: str | Path | None = None,
    progress: Progress | bool | None = None,
) -> CalibrationResult:
    """The calibration of `model` fitted on the judged pairs of `source`, and the model file with it at `output`.

    `model` is a pointwise model: a name of models.toml or a file; `output` has its format. `prompt` is the family of a
    language model in a GGUF that states no score of its own; the calibration then holds for that prompt only.

    `source` is a collection's folder or a Collection; `queries`, `corpus`, `run` and `qrels` name files in place of the
    folder's. The first `depth` documents of each query are scored. `split` names these pairs in the file: a development
    split, never a test split. With `journal` each score is kept at once, and the same call continues from it.
    `progress(done, total)` counts pairs; True is a bar or a line on stderr.

    Raises UsageError for a listwise model or a missing file, InvalidInput for pairs that no curve fits.

    Examples:
        >>> from dearlite.export import calibrate
        >>> result = calibrate("minilm-l12", "nfcorpus-dev", split="NFCorpus dev", output="m.dear")  # doctest: +SKIP
        >>> result.scale, result.bias  # doctest: +SKIP
        (0.297402, -0.858609)

    """
    if prompt in FAMILIES and FAMILIES[prompt].likelihood:
        raise UsageError(
            f"--prompt {prompt} gives the likelihood of the query, which cannot be compared between queries: no "
            "calibration fits it"
        )
    path = find_model(str(model))
    named = None if path == Path(model) else path  # the file of a registered model is not replaced
    _check_output(
        path, named, output, journal, Source(source=source, queries=queries, corpus=corpus, run=run, qrels=qrels)
    )
    collection, grades = _judged_collection(source, queries, corpus, run, qrels, depth)
    reranker = Reranker.load(path, prompt=prompt)
    if not reranker.pointwise:
        raise UsageError(
            f"{path} is a listwise model, which has no score of a single document: name a pointwise model, or the "
            "family of its answers with --prompt"
        )
    pairs = judged_scores(collection, grades, reranker, progress, None if journal is None else Path(journal))
    scale, bias = fit_logistic(pairs)
    result = CalibrationResult(
        path=Path(output),
        scale=round(scale, 6),
        bias=round(bias, 6),
        margin=round(fit_margin(pairs), 4),
        fitted_on=split,
        pairs=len(pairs.scores),
        relevant=int(pairs.relevant.sum()),
        ece=round(expected_calibration_error(sigmoid(scale * pairs.scores + bias), pairs.relevant), 4),
        ece_sigmoid=round(expected_calibration_error(sigmoid(pairs.scores), pairs.relevant), 4),
    )
    reranker.close()  # the output may be the model's own file
    _write_calibrated(path, result, prompt)
    return result


def _check_output(
    model: Path, kept: Path | None, output: str | Path, journal: str | Path | None, source: Source
) -> None:
    """Raises UsageError for an output that cannot be written, or that is a file of the collection or `kept`.

    The model's own file may be the output: it is replaced by its calibrated copy, when that is complete.
    """
    ending_of(output, ("gguf",) if is_gguf(model) else ("dear",), needed=True)
    if journal is not None:
        make_folder(Path(journal).parent)
    check_outputs({"--output": output, "--journal": journal}, input_files(source, {"MODEL": kept}))
    if journal is not None:
        check_outputs({"--journal": journal}, {"MODEL": model})


def _judged_collection(
    source: str | Path | Collection | None,
    queries: str | Path | None,
    corpus: str | Path | Sequence[str | Path],
    run: str | Path | None,
    qrels: str | Path | Qrels | None,
    depth: int | None,
) -> tuple[Collection, Qrels]:
    """The collection, opened unless `source` is one, and its judgements. Raises UsageError without judgements."""
    if isinstance(source, Collection):
        judgements = source.qrels if qrels is None else qrels
        if judgements is None:
            raise UsageError(f"the collection {source.name} has no judgements: name them with qrels")
        return source, open_qrels(judgements)
    parts = {"queries": queries, "run": run}
    parts |= {} if isinstance(qrels, Mapping) else {"qrels": qrels}
    files = collection_files(source, parts, [corpus] if isinstance(corpus, (str, Path)) else corpus)
    collection = open_collection(
        None, queries=files["queries"][0], corpus=files["corpus"], run=files["run"][0], depth=depth, skip_bad=True
    )
    return collection, qrels if isinstance(qrels, Mapping) else read_qrels(files["qrels"][0])


def _write_calibrated(path: Path, result: CalibrationResult, prompt: str | None) -> None:
    """Copies the model file at `path` to `result.path`, with the calibration in its manifest or metadata."""
    try:
        with Draft(result.path) as draft:
            if is_gguf(path):
                _write_gguf(GgufFile(path), draft.path, result.record() | ({"prompt": prompt} if prompt else {}))
            else:
                shutil.copyfile(path, draft.path)
                add_members(draft.path, {}, calibration=result.record())
                Bundle(draft.path)
            draft.commit()
    except OSError as err:
        raise DearliteError(f"cannot write {result.path}: {reason_of(err)}") from None


def _write_gguf(file: GgufFile, output: Path, calibration: dict[str, Any]) -> None:
    """Writes a copy of `file` with the calibration, and the hash of the copy where `file` has its own."""
    write_with_text(file, output, "dearlite.calibration", json.dumps(calibration))
    if file.recorded_sha256 is not None:
        seal(output)
    GgufFile(output)
