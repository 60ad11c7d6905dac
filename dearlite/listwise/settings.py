"""Settings of a listwise model, as its file's metadata has them."""

from __future__ import annotations

from dataclasses import dataclass

from dearlite.errors import ModelFileError
from dearlite.listwise.forms import FORMS
from dearlite.models.gguf import GgufFile

KIND = "listwise"
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Settings from the file's metadata; a file that dearlite did not export gets defaults that suit any model."""

    name: str
    prompt: str
    window: int
    stride: int
    max_tokens: int
    identifiers_from: int | None


def read_settings(file: GgufFile, has_template: bool, context_tokens: int) -> ModelSettings:
    """The settings in the file's `dearlite.*` metadata. Raises ModelFileError for a later schema or another kind."""
    metadata = {key.removeprefix("dearlite."): v for key, v in file.metadata.items() if key.startswith("dearlite.")}
    metadata.pop("calibration", None)  # of the answers yes and no, in a file of another maker
    if metadata and (metadata.get("schema") != _SCHEMA or metadata.get("kind") != KIND):
        raise ModelFileError(
            f"{file.path} has schema {metadata.get('schema')!r} and kind {metadata.get('kind')!r}, which this dearlite "
            "cannot run: update dearlite"
        )
    numbers = ("window", "stride", "max_tokens", "identifiers_from")
    wrong = [f"{name} {metadata[name]!r}" for name in numbers if not isinstance(metadata.get(name, 0), int)]
    wrong += [
        f"{name} {metadata[name]!r}" for name in ("name", "prompt") if not isinstance(metadata.get(name, ""), str)
    ]
    if metadata.get("prompt", next(iter(FORMS))) not in FORMS:
        wrong.append(f"the prompt form {metadata['prompt']!r}")
    if wrong:
        raise ModelFileError(f"{file.path} has {', '.join(wrong)}, which this dearlite cannot run: update dearlite")
    return ModelSettings(
        name=metadata.get("name", file.path.stem),
        prompt=metadata.get("prompt", "chat" if has_template else "plain"),
        window=metadata.get("window", 20),
        stride=metadata.get("stride", 10),
        max_tokens=metadata.get("max_tokens", context_tokens),
        identifiers_from=metadata.get("identifiers_from"),
    )
