"""Changes of one part of a model folder, for tests that every mismatch of two parts is refused by name."""

import json
import shutil
from pathlib import Path

from safetensors.numpy import load_file, save_file


def copy_of(folder, target):
    """A copy of a model folder that may be changed."""
    shutil.copytree(folder, target)
    for path in target.iterdir():
        path.chmod(0o644)
    return target


def edit_json(name, **changes):
    """A change of a JSON file's fields, which is written if it is missing; a field set to `...` is removed."""

    def change(folder):
        path = Path(folder, name)
        fields = (json.loads(path.read_text()) if path.is_file() else {}) | changes
        path.write_text(json.dumps({key: value for key, value in fields.items() if value is not ...}))

    return change


def config(**changes):
    """A change of config.json."""
    return edit_json("config.json", **changes)


def tokenizer(edit):
    """A change of tokenizer.json: `edit` receives its content."""

    def change(folder):
        path = Path(folder, "tokenizer.json")
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return change


def added(number, text, *, special=False):
    """An added token in tokenizer.json."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return tokenizer(lambda content: content["added_tokens"].append({"id": number, "content": text} | flags))


def tensors(edit):
    """A change of the weights: `edit` receives name -> array."""

    def change(folder):
        path = Path(folder, "model.safetensors")
        values = {name: value.copy() for name, value in load_file(path).items()}
        edit(values)
        save_file(values, path, metadata={"format": "pt"})

    return change


def both(*changes):
    """Several changes, one after the other."""

    def change(folder):
        for part in changes:
            part(folder)

    return change
