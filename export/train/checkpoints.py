"""The content of a training's output folder: complete checkpoints, the last two of them, and a complete adapter.

A checkpoint is complete when its trainer_state.json is: transformers writes that last. It is ordered by its step and
never by the time of its files, as transformers would: a clock that was set back would make the newest the oldest.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from dearlite.files.drafts import sync

_KEPT = 2
SAVING = ".adapter.draft"  # the lock of the output folder is its lock
_LAST = "adapter_model.safetensors"  # where it stands, all other files of the adapter do


def last_checkpoint(folder: Path) -> str | None:
    """The last complete checkpoint."""
    complete = [path for path in _checkpoints(folder) if _is_complete(path)]
    return str(complete[-1]) if complete else None


def remove_older(folder: Path) -> None:
    """Removes all but the last two complete checkpoints, and an adapter that was not saved whole."""
    kept = [path for path in _checkpoints(folder) if _is_complete(path)][-_KEPT:]
    for path in [folder / SAVING, *_checkpoints(folder)]:
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)


def keep_last(trainer: Any) -> None:
    """Makes a Trainer remove older checkpoints after each that it saves."""
    from transformers import TrainerCallback

    class KeepLast(TrainerCallback):  # type: ignore[misc]
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                remove_older(Path(args.output_dir))

    trainer.add_callback(KeepLast())


def save_adapter(trainer: Any, folder: Path) -> None:
    """Puts the trained adapter into `folder`: each file is whole, and the weights come last."""
    saving = folder / SAVING
    trainer.save_model(str(saving))
    trainer.accelerator.wait_for_everyone()  # with DeepSpeed every process may write a part
    if not trainer.is_world_process_zero():
        return
    for path in sorted(saving.iterdir(), key=lambda path: path.name == _LAST):
        if os.path.isdir(path):
            shutil.rmtree(folder / path.name, ignore_errors=True)
        else:
            sync(path)
        os.replace(path, folder / path.name)
    saving.rmdir()


def _checkpoints(folder: Path) -> list[Path]:
    """The folders of checkpoints, whole or not, in the order of their steps."""
    paths = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(paths, key=lambda path: int(path.name.rpartition("-")[2]))


def _is_complete(path: Path) -> bool:
    try:
        return isinstance(json.loads((path / "trainer_state.json").read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):  # absent, or cut short by a kill or a full disk
        return False
