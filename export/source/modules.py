"""The files of sentence-transformers in a cross-encoder's folder: its chain of modules, and how it reads texts.

modules.json names the modules in order, each with a class and a folder that holds its config.json. Names, fields and
defaults are those of sentence-transformers 6.2 (base/model.py, base/modules/transformer.py). Only JSON is read, and no
code of a folder is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tokenizers import Tokenizer

from dearlite.errors import CheckpointError, UsageError, first_line
from dearlite.export.source.checkpoint import read_json
from dearlite.export.source.tokenizer import read_settings

MODULES, SETTINGS, READING = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"
TOKENS, TEXT, SCORES = "token_embeddings", "sentence_embedding", "scores"  # names of values between modules
# transformer_task -> the output of the model in transformers, and the name under which the module gives it on
_TASKS = {"feature-extraction": ("last_hidden_state", TOKENS), "sequence-classification": ("logits", SCORES)}
_LONGEST, _CASES, _ACTIVATION = "max_seq_length", "do_lower_case", "activation_fn"
_READING_KEYS = ("transformer_task", "modality_config", "module_output_name", "unpad_inputs", _LONGEST, _CASES)
_FETCH_AGAIN = "fetch it again"


@dataclass(frozen=True, slots=True)
class Module:
    """A module of a chain: the name of its class, its folder, and the content of its config.json."""

    kind: str
    folder: Path
    config: Mapping[str, Any]

    @property
    def place(self) -> str:
        """The module and its file, for messages."""
        return f"{self.folder / 'config.json'} ({self.kind})"

    def refusal(self, reason: str) -> UsageError:
        """The error for a setting that is not supported."""
        return UsageError(f"{self.place} {reason}: that is not supported")

    def damage(self, reason: str) -> CheckpointError:
        """The error for a file that does not fit the others."""
        return CheckpointError(f"{self.place} {reason}: fetch the model again, all files of one revision")

    def number(self, *names: str) -> int:
        """The whole number above 0 under the first of `names` that config.json has."""
        name = next((name for name in names if name in self.config), names[0])
        value = self.config.get(name)
        if not self.config:
            raise CheckpointError(f"{self.place} is missing: fetch the model again, with the folders of its modules")
        if type(value) is not int or value < 1:
            raise self.damage(f"has {name} {value!r}, no whole number above 0")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """The value true or false under `name`."""
        value = self.config.get(name, default)
        if type(value) is not bool:
            raise self.damage(f"has {name} {value!r}, neither true nor false")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A cross-encoder as modules: `output` of the model in transformers is given to `modules` under the name `name`."""

    output: str
    name: str
    modules: tuple[Module, ...]
    max_tokens: int | None  # the longest pair that the folder's files state


def chain_of(folder: Path, architectures: list[str], kinds: tuple[str, ...]) -> Chain | None:
    """The chain in modules.json of `folder`; None for a model that transformers scores pairs with by itself.

    `architectures` are those of config.json, `kinds` the classes of modules that may follow the transformer. Raises
    UsageError for a chain that is not supported, and CheckpointError for files that do not fit.
    """
    path = folder / MODULES
    if not os.path.isfile(path):
        return None
    settings = read_settings(folder / SETTINGS)
    kind = settings.get("model_type", "SentenceTransformer")
    if kind != "CrossEncoder":
        if any(name.endswith("ForSequenceClassification") for name in architectures):
            return None  # sentence-transformers makes a cross-encoder of it without its modules, too
        raise UsageError(f"{folder} is a {kind} of sentence-transformers ({MODULES}), and no cross-encoder: name one")
    first, *others = read_modules(path, kinds, of="an encoder")
    if first.kind != "Transformer" or first.folder != folder:
        raise UsageError(
            f"{path} begins with {first.kind} in {first.folder}: only a Transformer in {folder} can be read"
        )
    output, name = _output_of(folder)
    if not others and name == SCORES:
        return None
    _check_prompt(folder, settings)
    return Chain(output=output, name=name, modules=tuple(others), max_tokens=_longest(folder))


def stated_activation(folder: Path, config: Mapping[str, Any]) -> dict[str, float] | None:
    """The makers' probability as the manifest states it, where the folder states a sigmoid; None otherwise.

    The name of the function is in config_sentence_transformers.json, or in config.json as versions before 5.4 write it.
    """
    older = config.get("sentence_transformers")
    stated = (
        read_settings(folder / SETTINGS).get(_ACTIVATION),
        older.get(_ACTIVATION) if isinstance(older, dict) else None,
        config.get("sbert_ce_default_activation_function"),
    )
    name = next((str(value) for value in stated if value is not None), "")
    return {"scale": 1.0, "bias": 0.0} if name.endswith(".Sigmoid") else None


def read_modules(path: Path, kinds: tuple[str, ...], *, of: str) -> list[Module]:
    """The modules that modules.json at `path` lists: Transformer, and classes of `kinds`, which may follow `of`.

    Raises UsageError for other classes, and CheckpointError for a file that cannot be read.
    """
    try:
        entries = json.loads(path.read_bytes())
        if not isinstance(entries, list) or not entries:
            raise ValueError("no list of modules")
        classes = [(str(entry["type"]), str(entry["path"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
        raise CheckpointError(f"{path} cannot be read ({first_line(err)}): {_FETCH_AGAIN}") from None
    modules = []
    for name, where in classes:
        if (inside := PurePosixPath(where)).is_absolute() or ".." in inside.parts or {"\\", ":"} & set(where):
            raise CheckpointError(f"{path} names a folder outside its own ({where!r}): do not use this model")
        package, _, kind = name.rpartition(".")
        folder = path.parent / inside
        if package.partition(".")[0] != "sentence_transformers" or kind not in ("Transformer", *kinds):
            raise UsageError(
                f"{path} has the module {name} in {folder}, which is not supported after {of}: only "
                f"{', '.join(kinds)} are"
            )
        config = {} if kind == "Transformer" else read_settings(folder / "config.json")
        modules.append(Module(kind, folder, config))
    return modules


def _output_of(folder: Path) -> tuple[str, str]:
    """The output of the model in transformers that the transformer's module gives on, and the name that it gives it."""
    path = folder / READING
    config = read_json(path) if os.path.isfile(path) else {}
    task = config.get("transformer_task", "feature-extraction")
    if not isinstance(task, str) or task not in _TASKS:
        raise UsageError(f"{path} has transformer_task {task!r}, which is not supported: only {', '.join(_TASKS)} are")
    if others := [name for name in config if name not in _READING_KEYS and config[name]]:
        raise UsageError(f"{path} has {', '.join(others)}: that is not supported")
    output, name = _TASKS[task]
    texts = [{"text": {"method": "forward", "method_output_name": value}} for value in (output, [output])]
    if (modality := config.get("modality_config")) not in (None, *texts):
        raise UsageError(f"{path} has the modality_config {modality!r}, which is not supported: only {texts[0]!r} is")
    name = config.get("module_output_name") or name
    if not isinstance(name, str):
        raise CheckpointError(f"{path} has module_output_name {name!r}: {_FETCH_AGAIN}")
    if config.get(_CASES) and _tells_cases_apart(folder / "tokenizer.json"):
        raise UsageError(f"{path} has {_CASES}, and its tokenizer tells letter cases apart: that is not supported")
    return output, name


def _tells_cases_apart(path: Path) -> bool:
    """True if the tokenizer reads "A" otherwise than "a". A missing or damaged file has a better error later."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception:  # the library has no class of its own for its errors
        return False
    return bool(tokenizer.encode("A").ids != tokenizer.encode("a").ids)


def _check_prompt(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raises UsageError for words that sentence-transformers would put before each query."""
    prompts, name = settings.get("prompts"), settings.get("default_prompt_name")
    if isinstance(prompts, dict) and prompts.get(name):
        raise UsageError(
            f"{folder / SETTINGS} puts the prompt {name!r} before each query, which is not supported for an encoder"
        )


def _longest(folder: Path) -> int | None:
    """The least number of tokens at which the folder's files cut a pair; None if none states one."""
    stated = (
        read_settings(folder / READING).get(_LONGEST),
        read_settings(folder / "tokenizer_config.json").get("model_max_length"),
    )
    return min((number for number in stated if type(number) is int and number > 0), default=None)
