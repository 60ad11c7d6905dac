"""Checkpoints by their steps, whatever the clock says; a half-written one is none; an adapter appears whole."""

import json
import os
from types import SimpleNamespace

import pytest
from posix_only import need_posix

from dearlite.errors import UsageError
from dearlite.export.train.checkpoints import last_checkpoint, remove_older, save_adapter
from dearlite.export.train.config import PointwiseConfig
from dearlite.export.train.loop import open_output


def write_checkpoint(folder, step, *, state='{"global_step": 1}', mtime=0):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "optimizer.pt").write_bytes(b"state")
    if state is not None:
        (path / "trainer_state.json").write_text(state)
    os.utime(path, (mtime, mtime))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_clock_that_was_set_back_removes_no_new_checkpoint(tmp_path):
    for step, mtime in ((4, 3000), (8, 3600), (12, 10)):
        write_checkpoint(tmp_path, step, mtime=mtime)
    remove_older(tmp_path)
    assert names(tmp_path) == ["checkpoint-12", "checkpoint-8"]
    assert last_checkpoint(tmp_path).endswith("checkpoint-12")


@pytest.mark.parametrize("state", [None, "", '{"global_step": 12, "log_his'])
def test_a_half_written_checkpoint_is_none(tmp_path, state):
    for step in (4, 8):
        write_checkpoint(tmp_path, step)
    write_checkpoint(tmp_path, 12, state=state)
    write_checkpoint(tmp_path, "best")  # not a checkpoint of transformers
    assert last_checkpoint(tmp_path).endswith("checkpoint-8")
    remove_older(tmp_path)
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-8", "checkpoint-best"]


def test_an_adapter_appears_whole_and_its_weights_last(tmp_path):
    seen = []

    def save_model(folder):
        os.makedirs(folder)
        for name in ("adapter_model.safetensors", "README.md", "adapter_config.json"):
            with open(os.path.join(folder, name), "w") as stream:
                stream.write("new")
        seen.append(names(tmp_path))

    (tmp_path / "adapter_model.safetensors").write_text("old")
    accelerator = SimpleNamespace(wait_for_everyone=lambda: None)
    save_adapter(SimpleNamespace(save_model=save_model, accelerator=accelerator, is_world_process_zero=bool), tmp_path)
    assert (tmp_path / "adapter_model.safetensors").read_text() == "old"  # a process of another rank moves nothing
    trainer = SimpleNamespace(
        save_model=lambda folder: None, accelerator=accelerator, is_world_process_zero=lambda: True
    )
    save_adapter(trainer, tmp_path)
    assert seen == [[".adapter.draft", "adapter_model.safetensors"]]
    assert names(tmp_path) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"new"}


def test_a_training_killed_before_its_first_checkpoint_starts_again(tmp_path):
    """What it leaves: settings, perhaps as a draft, and an adapter that was not saved whole."""
    need_posix()
    data, folder = tmp_path / "data.jsonl", tmp_path / "out"
    data.write_text("{}\n")
    config = PointwiseConfig(base="x", data=(str(data),), output=str(folder))
    (folder / ".adapter.draft").mkdir(parents=True)
    (folder / ".settings.json.0123456789abcdef.draft").write_text('{"half')
    with open_output(config) as (_, checkpoint):
        assert checkpoint is None
    assert names(folder) == ["settings.json", "training.lock"]
    (folder / "notes.txt").touch()
    with pytest.raises(UsageError, match="is not empty and holds no training"), open_output(config):
        pass
    write_checkpoint(folder, 4)
    write_checkpoint(folder, 8, state="")
    with open_output(config) as (_, checkpoint):
        assert checkpoint.endswith("checkpoint-4")
    assert json.loads((folder / "settings.json").read_text())["base"] == "x"
    assert "checkpoint-8" not in names(folder)
