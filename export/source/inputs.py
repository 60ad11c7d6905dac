"""Where an export reads and writes: a name's or a folder's files, the LoRA over them, the file that is made."""

from __future__ import annotations

from pathlib import Path

from dearlite.errors import UsageError
from dearlite.export.source.fetch import fetch
from dearlite.export.source.merge import Adapter
from dearlite.models.registry import ModelEntry, model_file


def output_of(output: Path | None, entry: ModelEntry | None, force: bool, *, suffix: str) -> Path:
    """The file to write, its folder made where it is a NAME's. Raises UsageError when it is there and not `force`."""
    if output is None:
        if entry is None:
            raise UsageError(f"name the file to write: -o model{suffix}")
        output = model_file(entry)
        output.parent.mkdir(parents=True, exist_ok=True)
    if output.exists() and not force:
        raise UsageError(f"{output} exists: --force replaces it")
    if not output.parent.is_dir():
        raise UsageError(f"cannot write {output}: the folder {output.parent} does not exist; make it first")
    return output


def folders_of(model: str, entry: ModelEntry | None, adapter: Path | None) -> tuple[Path, Path | None]:
    """The base's folder and the LoRA's, fetched where they are repositories."""
    if entry is not None:
        if entry.base and adapter is not None:
            raise UsageError(f"{entry.name} is a LoRA already: export its base's folder with --adapter instead")
        main = fetch(entry.repository, entry.revision)
        return (fetch(entry.base), main) if entry.base else (main, adapter)
    folder = Path(model)
    if adapter is not None or not (folder / "adapter_config.json").is_file():
        return folder, adapter
    base = Adapter(folder).base_name
    if not base:
        raise UsageError(f"{folder} is a LoRA that names no base: give the base's folder, and this with --adapter")
    return (Path(base) if Path(base).is_dir() else fetch(base)), folder
