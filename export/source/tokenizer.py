"""The tokenizer of a model folder held to the model: ids to rows of the embedding, tokens of the template, other files.

A part that does not fit gives no error before a text holds the wrong token, and then ends the run in a library. So
every export calls `check_tokenizer` before it writes anything; `probe_texts` are texts for the written file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from dearlite.errors import CheckpointError, first_line
from dearlite.export.source.checkpoint import name_some

_MOST_FAULTS = 6  # in one message
_KINDS = ("bos", "cls", "sep", "eos")
_RARE = "a \x07 \U0010ffff ℵ ꙮ"  # characters that hardly any vocabulary has
_PROBE_CHARACTERS = 400  # of one text
RESIZE = (
    "save the model again after model.resize_token_embeddings(len(tokenizer)), or take the tokenizer that it was "
    "trained with"
)
_SAVE_AGAIN = "fetch model and tokenizer again, both of one revision, or save the tokenizer with its save_pretrained"


def check_tokenizer(folder: Path, tokenizer_json: bytes, rows: int, config: dict[str, Any]) -> None:
    """Raises CheckpointError listing everything in which the tokenizer does not fit a model with `config`.

    `folder` holds the tokenizer's files, `rows` counts the rows of the embedding.
    """
    tokenizer, raw = _read(folder, tokenizer_json)
    beyond = [f"{text!r} has the id {number}" for text, number in _by_id(tokenizer) if not 0 <= number < rows]
    faults = [f"{name_some(beyond, 3)}, and the model's embedding has {rows} rows"] if beyond else []
    template = _template_ids(raw.get("post_processor"))
    faults += _faults_of_library(tokenizer, raw)
    faults += _faults_of_template(tokenizer, template, rows)
    faults += _faults_of_other_files(folder, tokenizer, raw)
    faults += _faults_of_config(folder, tokenizer, set(template.values()), rows, config)
    if faults:
        raise CheckpointError(
            f"{folder / 'tokenizer.json'} does not fit its model: {name_some(faults, _MOST_FAULTS, '; ')}: "
            f"{RESIZE if beyond else _SAVE_AGAIN}"
        )


def probe_texts(tokenizer_json: bytes) -> list[str]:
    """Texts that hold every added token, and the token with the highest id, as a document may hold them."""
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    added = [token.content for _, token in sorted(tokenizer.get_added_tokens_decoder().items())]
    highest = max(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])[0]
    texts = [tokenizer.decode([tokenizer.token_to_id(highest)], skip_special_tokens=False) or highest]
    line = _RARE
    for content in added:
        if len(line) > _PROBE_CHARACTERS:
            texts.append(line)
            line = ""
        line += f" {content} x"
    return [*texts, line]


def read_settings(path: Path) -> dict[str, Any]:
    """The JSON object in a file of the tokenizer; empty without the file. Raises CheckpointError."""
    if not os.path.isfile(path):
        return {}
    try:
        settings = json.loads(path.read_bytes())
        if not isinstance(settings, dict):
            raise ValueError("no object in braces")
    except (OSError, ValueError, RecursionError) as err:
        raise CheckpointError(f"{path} cannot be read ({first_line(err)}): fetch it again") from None
    return settings


def special_tokens(folder: Path) -> set[str]:
    """The texts of the special tokens that tokenizer_config.json and special_tokens_map.json name."""
    values: list[Any] = []
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        settings = read_settings(folder / file)
        values += [value for key, value in settings.items() if key.endswith("_token")]
        more = settings.get("additional_special_tokens")
        values += more if isinstance(more, list) else ()
    return set(map(_content, values))


def _read(folder: Path, tokenizer_json: bytes) -> tuple[Any, dict[str, Any]]:
    """The tokenizer in the library, and its JSON. Raises CheckpointError."""
    try:
        raw = json.loads(tokenizer_json)
        return Tokenizer.from_str(tokenizer_json.decode()), raw
    except Exception as err:  # the library raises bare Exception
        raise CheckpointError(
            f"{folder / 'tokenizer.json'} is not a tokenizer ({first_line(err)}): fetch it again"
        ) from None


def _by_id(tokenizer: Any) -> list[tuple[str, int]]:
    return sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])


def _faults_of_library(tokenizer: Any, raw: dict[str, Any]) -> Iterator[str]:
    """Ids that the library gives otherwise than the file says, ids that two tokens share, and texts that it refuses."""
    for token in raw.get("added_tokens") or ():
        actual = tokenizer.token_to_id(token["content"])
        if actual != token["id"]:  # the library counts on from the size of the vocabulary
            yield f"it gives the added token {token['content']!r} the id {token['id']}, and the library reads {actual}"
    owners: dict[int, str] = {}
    for text, number in tokenizer.get_vocab(with_added_tokens=True).items():
        if owners.setdefault(number, text) != text:
            yield f"{owners[number]!r} and {text!r} share the id {number}"
    for text in ("a", _RARE):
        if reason := _refusal(tokenizer, text):
            yield f"it cannot encode {text!r} ({reason})"


def _refusal(tokenizer: Any, text: str) -> str:
    """The library's reason not to encode `text`, alone or as a pair; empty if it does."""
    try:
        tokenizer.encode(text)
        tokenizer.encode(text, text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as err:  # Exception, or a panic of Rust, which is a BaseException
        return first_line(err)
    return ""


def _template_ids(processor: Any) -> dict[str, int]:
    """Token -> id of the special tokens that a post-processor puts around texts."""
    ids: dict[str, int] = {}
    match processor:
        case {"type": "Sequence", "processors": list(parts)}:
            for part in parts:
                ids |= _template_ids(part)
        case {"type": "TemplateProcessing"}:
            used = [piece["SpecialToken"]["id"] for piece in processor.get("pair") or () if "SpecialToken" in piece]
            table = processor.get("special_tokens") or {}
            for name in used:
                entry = table.get(name) or {"ids": [-1], "tokens": [name]}
                ids |= dict(zip(entry["tokens"], entry["ids"], strict=False))
        case {"cls": [str(cls), int(cls_id)], "sep": [str(sep), int(sep_id)]}:
            ids = {cls: cls_id, sep: sep_id}
    return ids


def _faults_of_template(tokenizer: Any, template: dict[str, int], rows: int) -> Iterator[str]:
    for text, number in template.items():
        actual = tokenizer.token_to_id(text)
        if number < 0 or actual is None:
            yield f"its template puts {text!r} around texts, which is no token of it"
        elif actual != number:
            yield f"its template gives {text!r} the id {number}, and its vocabulary {actual}"
        elif number >= rows:
            yield f"its template puts {text!r} around texts, which is beyond the embedding"


def _faults_of_other_files(folder: Path, tokenizer: Any, raw: dict[str, Any]) -> Iterator[str]:
    """Tokens that transformers would read from another file, with another id or in addition.

    Special tokens that tokenizer.json lacks do no harm: in a text they are plain characters.
    """
    settings = read_settings(folder / "tokenizer_config.json")
    decoder = settings.get("added_tokens_decoder")
    entries = decoder.items() if isinstance(decoder, dict) else ()
    listed = [("tokenizer_config.json", _content(entry), number) for number, entry in entries]
    tokens = read_settings(folder / "added_tokens.json")
    listed += [("added_tokens.json", text, number) for text, number in tokens.items()]
    special = {token["content"] for token in raw.get("added_tokens") or () if token.get("special")}
    special |= {_content(entry) for _, entry in entries if isinstance(entry, dict) and entry.get("special")}
    special |= special_tokens(folder)
    for file, text, number in listed:
        actual = tokenizer.token_to_id(_content(text))
        if str(actual) != str(number) and not (actual is None and text in special):
            yield f"{file} gives {text!r} the id {number}, and tokenizer.json {'none' if actual is None else actual}"


def _content(entry: Any) -> str:
    """The text of a token, stored as it is or as an object. Half a surrogate pair, which no token has, is "?"."""
    return str(entry.get("content") if isinstance(entry, dict) else entry).encode("utf-8", "replace").decode()


def _faults_of_config(
    folder: Path, tokenizer: Any, used: Collection[int], rows: int, config: dict[str, Any]
) -> Iterator[str]:
    """Special tokens of the template that config.json knows under another id, and a padding row that does not exist."""
    settings = read_settings(folder / "tokenizer_config.json")
    pad_id = config.get("pad_token_id")
    if isinstance(pad_id, int) and not 0 <= pad_id < rows:
        yield f"config.json gives the pad token the id {pad_id}, and the model's embedding has {rows} rows"
    for kind in _KINDS:
        stated, text = config.get(f"{kind}_token_id"), _content(settings.get(f"{kind}_token"))
        actual = tokenizer.token_to_id(text)
        if type(stated) is int and actual in used and actual != stated:
            yield f"config.json gives the {kind} token the id {stated}, and tokenizer.json gives {text!r} {actual}"


def tokenizer_json(base: Path, adapter: Path | None) -> tuple[Path, bytes]:
    """The folder of the tokenizer, the base's or else the adapter's, and its tokenizer.json."""
    for folder in (base, adapter):
        if folder is not None and os.path.isfile(folder / "tokenizer.json"):
            return folder, (folder / "tokenizer.json").read_bytes()
    raise CheckpointError(f"{base} has no tokenizer.json: save the model's fast tokenizer there with transformers")
