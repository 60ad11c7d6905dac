"""The template and the answers of a language model's folder: as its files state them, or of the table of families.

The files of sentence-transformers state everything (modules.json, 1_LogitScore/config.json, a chat template with the
roles query and document, config_sentence_transformers.json). Without them fields of config.json may tell the family
(`templates.families`); where they fit several, the user names one (--prompt). Nothing is guessed from a model's name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from dearlite.errors import CheckpointError, ModelFileError, UsageError
from dearlite.export.source.answers import Answers
from dearlite.export.source.modules import MODULES, SETTINGS, read_modules
from dearlite.export.source.tokenizer import read_settings
from dearlite.templates.assembly import ModelWords, assemble, rendered
from dearlite.templates.chat import ChatTemplate
from dearlite.templates.families import FAMILIES, Family, families_of, marked_family
from dearlite.templates.template import Template

OF_FOLDER = "chat-template"  # the name of a template that the folder's own files state
_PAIR = (("query", "{query}"), ("document", "{document}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOfModel:
    """The words of a model's prompt, its limit, and the reading of its score. `told_by` says where they come from."""

    name: str
    template: Template
    max_tokens: int
    answers: Answers | None  # None: the model has a score head of its own
    activation: dict[str, float] | None
    told_by: str


def prompt_of_folder(
    folder: Path,
    tokenizer: bytes,
    config: Mapping[str, Any],
    *,
    named: str | None,
    headed: bool,
    max_tokens: int | None,
) -> PromptOfModel | None:
    """The prompt of a decoder in `folder`; None for a scorer that reads a pair of texts.

    `named` is the family that the user names, `headed` is True for a model with a score head. Raises UsageError where
    fields of config.json fit several families, and CheckpointError for files that do not state one template.
    """
    family, chat = marked_family(config), _chat_template(folder)
    score = _logit_score(folder) if named is None else None
    if named is None and (score is not None or _has_pair_roles(chat)):
        return _of_folder(folder, tokenizer, config, chat, score, headed=headed, max_tokens=max_tokens)
    if named is None and family is None:
        if headed:
            return None
        fitting = [name for name in families_of(config) if chat or not FAMILIES[name].chat]
        raise UsageError(
            f"{folder} has no score head, and its files do not tell which prompt it was trained with: name it with "
            f"--prompt ({', '.join(fitting)}), or give the adapter that holds a head"
        )
    name = named or family
    assert name is not None
    entry = FAMILIES[name]
    if not entry.fits(config):
        raise UsageError(
            f"--prompt {name} is for a model of type {' or '.join(entry.model_types)}, and {folder} is a "
            f"{config.get('model_type')}: name its own"
        )
    marks = " and ".join(f"{key} {config[key]}" for key in entry.marks)
    told_by = f"--prompt {name}" if named else f"{marks} in config.json"
    return _of_family(name, entry, folder, tokenizer, config, headed=headed, max_tokens=max_tokens, told_by=told_by)


def _of_family(
    name: str,
    family: Family,
    folder: Path,
    tokenizer: bytes,
    config: Mapping[str, Any],
    *,
    headed: bool,
    max_tokens: int | None,
    told_by: str,
) -> PromptOfModel:
    encode, special = _vocabulary(tokenizer)
    words = ModelWords(
        encode=encode,
        special=special,
        chat=_chat_template(folder) if family.chat else None,
        around=own_specials(tokenizer) if family.own_specials else ("", ""),
        positions=positions if type(positions := config.get("max_position_embeddings")) is int else None,
        hidden=config.get("hidden_size"),
    )
    try:
        assembled = assemble(name, words, max_tokens=max_tokens)
    except ModelFileError as err:
        raise CheckpointError(f"{folder}: {err}") from None
    return PromptOfModel(
        name=name,
        template=assembled.template,
        max_tokens=assembled.max_tokens,
        answers=None if headed or family.yes == "" else _answers(family, folder, tokenizer),
        activation=assembled.activation,
        told_by=told_by,
    )


def _of_folder(
    folder: Path,
    tokenizer: bytes,
    config: Mapping[str, Any],
    chat: ChatTemplate | None,
    score: Answers | None,
    *,
    headed: bool,
    max_tokens: int | None,
) -> PromptOfModel:
    if chat is None or not _has_pair_roles(chat):
        raise CheckpointError(
            f"{folder} has a LogitScore module and no chat template with the roles query and document: name its prompt "
            f"with --prompt ({', '.join(families_of(config))})"
        )
    settings = read_settings(folder / SETTINGS)
    prompts = settings.get("prompts")
    default = prompts.get(settings.get("default_prompt_name")) if isinstance(prompts, dict) else None
    try:
        parts = rendered(chat, _PAIR)
    except ModelFileError:
        raise CheckpointError(
            f"{folder}: its chat template leaves out the query or the document: name its prompt with --prompt "
            f"({', '.join(families_of(config))})"
        ) from None
    try:
        instructed = rendered(chat, (("system", "{instruction}"), *_PAIR))
        Template(parts=parts, instructed=instructed)
    except ModelFileError:
        instructed = ()  # the template leaves out the system's turn: it has no place for an instruction
    instruction = default if isinstance(default, str) and instructed else ""
    family = marked_family(config)
    if score is None and not headed:  # as sentence-transformers reads a causal model without modules.json
        ids = [_token_id(tokenizer, word, folder) for word in ("yes", "no")]
        score = Answers(*ids)
    bounded = FAMILIES[family].max_tokens if family is not None else 8192
    scale, bias = (1.0, 0.0) if score is None or score.no is not None else (0.0, 0.0)
    if "Sigmoid" in str(settings.get("activation_fn")):
        scale = 1.0
    return PromptOfModel(
        name=OF_FOLDER,
        template=Template(parts=parts, instructed=instructed, instruction=instruction),
        max_tokens=_within(config, max_tokens or bounded),
        answers=None if headed else score,
        activation={"scale": scale, "bias": bias} if scale else None,
        told_by="its chat template" + (" and modules.json" if score is not None else ""),
    )


def _chat_template(folder: Path) -> ChatTemplate | None:
    """The chat template of `folder`: chat_template.jinja, or the entry of tokenizer_config.json; None without one."""
    settings = read_settings(folder / "tokenizer_config.json")
    file = folder / "chat_template.jinja"
    source = (
        file.read_text(encoding="utf-8", errors="replace") if os.path.isfile(file) else settings.get("chat_template")
    )
    if isinstance(source, list):  # several templates by name
        source = next((entry.get("template") for entry in source if entry.get("name") == "default"), None)
    if not isinstance(source, str) or not source.strip():
        return None
    tokens: dict[str, object] = {"enable_thinking": False}  # the answer comes at once
    for name in ("bos_token", "eos_token"):
        token = settings.get(name)
        tokens[name] = str((token.get("content") if isinstance(token, dict) else token) or "")
    try:
        return ChatTemplate(source, tokens)
    except ModelFileError as err:
        raise CheckpointError(f"{folder}: {err}") from None


def _has_pair_roles(chat: ChatTemplate | None) -> bool:
    """True if the template treats the roles query and document, by name."""
    return chat is not None and all(re.search(rf"""["']{role}["']""", chat.source) for role, _ in _PAIR)


def own_specials(tokenizer: bytes) -> tuple[str, str]:
    """The special tokens that the tokenizer puts before and after one text, as words."""
    encoding = Tokenizer.from_str(tokenizer.decode()).encode("a")
    own = [number for number, mask in enumerate(encoding.special_tokens_mask) if not mask]
    return "".join(encoding.tokens[: own[0]]), "".join(encoding.tokens[own[-1] + 1 :])


def _vocabulary(tokenizer: bytes) -> tuple[Any, dict[str, int]]:
    library = Tokenizer.from_str(tokenizer.decode())
    library.no_truncation()
    library.encode_special_tokens = True
    special = {token.content: n for n, token in library.get_added_tokens_decoder().items() if token.special}
    return lambda text: library.encode(text, add_special_tokens=False).ids, special


def _within(config: Mapping[str, Any], max_tokens: int) -> int:
    positions = config.get("max_position_embeddings")
    return min(max_tokens, positions) if type(positions) is int else max_tokens


def _answers(family: Family, folder: Path, tokenizer: bytes) -> Answers:
    ids = [
        word if isinstance(word, int) else _token_id(tokenizer, word, folder)
        for word in (family.yes, family.no)
        if word != ""
    ]
    return Answers(*ids)


def _token_id(tokenizer: bytes, word: str, folder: Path) -> int:
    """The id of the one token that `word` is. Raises CheckpointError if it is several."""
    encode, _ = _vocabulary(tokenizer)
    ids = encode(word)
    if len(ids) != 1:
        raise CheckpointError(f"the tokenizer in {folder} makes {len(ids)} tokens of {word!r}: it must be one token")
    return int(ids[0])


def _logit_score(folder: Path) -> Answers | None:
    """The tokens that a LogitScore module of the folder states; None without a module. Raises CheckpointError."""
    path = folder / MODULES
    if not os.path.isfile(path):
        return None
    modules = read_modules(path, ("LogitScore",), of="a language model")
    settings = next((module.config for module in modules if module.kind == "LogitScore"), None)
    if settings is None:
        return None
    yes, no = settings.get("true_token_id"), settings.get("false_token_id")
    if type(yes) is not int or not (no is None or type(no) is int):
        raise CheckpointError(f"{folder}: its LogitScore module names no token (true_token_id {yes!r}): fetch it again")
    return Answers(yes, no)
