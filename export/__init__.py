"""The workshop: makes the model files that the runtime loads. Installed as `dearlite.export`, with heavier needs.

It imports dearlite; dearlite never imports it, except for a command of the CLI at the moment it is called.

    from dearlite.export import PointwiseConfig, train_pointwise
    train_pointwise(PointwiseConfig(base="HuggingFaceTB/SmolLM2-135M", data=("train.jsonl",), output="scorer"))

The names below are imported at their first use, so that `import dearlite.export` loads no torch and no onnx.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dearlite.export.train.config import ListwiseConfig, PointwiseConfig
    from dearlite.export.train.listwise import train_listwise
    from dearlite.export.train.pointwise import train_pointwise
    from dearlite.export.train.records.mine import MinedRecords, MiningOptions, mine

__all__ = [
    "ListwiseConfig",
    "MinedRecords",
    "MiningOptions",
    "PointwiseConfig",
    "mine",
    "train_listwise",
    "train_pointwise",
]

_MODULES = {
    "ListwiseConfig": "train.config",
    "MinedRecords": "train.records.mine",
    "MiningOptions": "train.records.mine",
    "PointwiseConfig": "train.config",
    "mine": "train.records.mine",
    "train_listwise": "train.listwise",
    "train_pointwise": "train.pointwise",
}

if not TYPE_CHECKING:  # a type checker reads the imports above, and reports a name that is not among them

    def __getattr__(name: str) -> Any:
        """The public function or record called `name`, from its module."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
