"""The workshop: functions that make and check model files and training data. They need more packages than the runtime.

    from dearlite.export import export, verify
    result = export("path/to/scorer", output="scorer.dear")
    print(result.card["kendall_tau"], verify(result.path).parts)

    from dearlite.export import PointwiseConfig, train_pointwise
    train_pointwise(PointwiseConfig(base="HuggingFaceTB/SmolLM2-135M", data=("train.jsonl",), output="scorer"))

The workshop imports dearlite; dearlite imports it only to run a command of the CLI. The names below are imported at
their first use, so that `import dearlite.export` loads no torch and no onnx.
"""

from typing import TYPE_CHECKING, Any

from dearlite.errors import need

if TYPE_CHECKING:
    from dearlite.export.getting import GetResult, get
    from dearlite.export.options import ExportOptions
    from dearlite.export.pipeline import export, export_model
    from dearlite.export.quality.calibrate import CalibrationResult, calibrate
    from dearlite.export.results import ExportResult
    from dearlite.export.train.config import ListwiseConfig, PointwiseConfig
    from dearlite.export.train.listwise import train_listwise
    from dearlite.export.train.pointwise import train_pointwise
    from dearlite.export.train.records.mine import MinedRecords, MiningOptions, mine
    from dearlite.export.verification import Verification, verify

__all__ = [
    "CalibrationResult",
    "ExportOptions",
    "ExportResult",
    "GetResult",
    "ListwiseConfig",
    "MinedRecords",
    "MiningOptions",
    "PointwiseConfig",
    "Verification",
    "calibrate",
    "export",
    "export_model",
    "get",
    "mine",
    "train_listwise",
    "train_pointwise",
    "verify",
]

_MODULES = {
    "CalibrationResult": "quality.calibrate",
    "ExportOptions": "options",
    "ExportResult": "results",
    "GetResult": "getting",
    "ListwiseConfig": "train.config",
    "MinedRecords": "train.records.mine",
    "MiningOptions": "train.records.mine",
    "PointwiseConfig": "train.config",
    "Verification": "verification",
    "calibrate": "quality.calibrate",
    "export": "pipeline",
    "export_model": "pipeline",
    "get": "getting",
    "mine": "train.records.mine",
    "train_listwise": "train.listwise",
    "train_pointwise": "train.pointwise",
    "verify": "verification",
}

if not TYPE_CHECKING:  # a type checker reads the imports above, and reports a name that is not among them

    def __getattr__(name: str) -> Any:
        """The public function or record called `name`, from its module."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = _MODULES[name]
        return getattr(need(f"{__name__}.{module}", extra="train" if module.startswith("train.") else "export"), name)
