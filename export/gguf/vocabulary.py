"""A model's tokenizer as the lists of a GGUF: tokens, types, scores or merges, and the rule that splits text.

Two kinds: byte-level BPE from tokenizer.json (Llama 3, SmolLM2, Qwen, Phi-4), and SentencePiece from tokenizer.model
(Llama 2, Mistral, Gemma, Phi-3), recognised by the files' contents. The special tokens and the chat template are read
with gguf's SpecialVocab, as llama.cpp's converter does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from dearlite.errors import CheckpointError, UsageError, need
from dearlite.export.gguf import sentencepiece
from dearlite.export.source.checkpoint import name_some, read_json
from dearlite.export.source.tokenizer import RESIZE, check_tokenizer, read_settings, special_tokens
from dearlite.foreign import one_line_errors

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # `tokenizer.ggml.token_type`
# llama.cpp splits text before BPE with its own regular expressions, chosen by `tokenizer.ggml.pre`. The entry for a
# tokenizer is found by the ids of a text that covers the differences (digits, contractions, blanks, scripts), without
# special tokens, since files with the same vocabulary may or may not add them.
PRE_TYPES = {
    "17c09da0087319c30f57202a2110bec4d4e6fac157cae04662e683fadbe47b0b": "llama-bpe",  # Llama 3, 3.1, 3.2
    "b88c6f3efbebf5e0cf33fa6c092b095a5d58cbae7219549200f82f10195e920d": "smollm",  # SmolLM, SmolLM2
    "d244bd555f497822e29431139753a4990dbf5b298000637c03593683bd1b73f4": "qwen2",  # Qwen2, Qwen2.5, Qwen3
    "e7656d7783e38df62b78e5f6232a3bb172ad4008f5cde50fa77e1e92e7375bea": "dbrx",  # cl100k: Phi-4
    "8524071a59aef443a3023714c5ddd80e4e670d3d38866fee0888f8366d5fd9b1": "gpt-4o",  # o200k: Phi-4-mini
}
CHECK_TEXT = (
    "dearlite reads 7, 42, 365, 1999 and 1234567 documents…\n\n\tIt's what they've said: "
    "\"we'll rank 'em all\", isn't it?\n"
    "  two  spaces   three    four\r\n x+=1; // ÆØÅ straße naïve ☕🦌👩\u200d🚀 ✓ "
    "文書を並べ替える 문서 순위 документы वर्गीकरण "
    "المستندات ٣٤٥ 3.14 --- *** ###!!!??? DON'T YOU'RE I'D\n \n\t \n"
)
TOKENIZERS = ("bpe", "sentencepiece")
_ADDED_SCORE, _UNUSED_SCORE = -1000.0, -10000.0
_SPECIAL_SHAPES = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
_SPECIAL_NAMES = ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
# SmolLM's models are trained without a first token, whatever their tokenizer.json adds; llama.cpp's converter
# recognises them by the size of their vocabulary.
_WITHOUT_BOS = 49152


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokenizer of a GGUF. Lists are indexed by token id; `scores` is of SentencePiece, `merges` of BPE.

    `special_ids` maps "bos", "eos", "unk", "pad"… to ids, `adds` maps "bos", "eos"… to True if texts get that token.
    """

    model: str  # `tokenizer.ggml.model`: "gpt2" or "llama"
    pre: str
    tokens: Sequence[bytes]
    types: Sequence[int]
    scores: Sequence[float] = ()
    merges: Sequence[str] = ()
    special_ids: dict[str, int] = field(default_factory=dict)
    adds: dict[str, bool] = field(default_factory=dict)
    adds_space_prefix: bool | None = None
    chat_template: Any = None  # a text, or a list of {"name", "template"}
    strips: dict[str, list[int]] = field(default_factory=dict)  # "lstrip", "rstrip" -> tokens that take up blanks


def read_vocabulary(
    folder: Path,
    config: dict[str, Any],
    allowed: Sequence[str] = TOKENIZERS,
    adapter: Path | None = None,
    *,
    space_prefix: bool | None = None,
) -> Vocabulary:
    """The tokenizer of a model folder, or of its adapter if the base has none. Raises CheckpointError, UsageError.

    `config` is the base's config.json: its `vocab_size` is the number of tokens, including those without a text.
    `space_prefix` says if a space is put before a text, None: as the tokenizer's settings do.
    """
    place = next((p for p in (folder, adapter) if p and any(os.path.isfile(p / n) for n in _FILES)), None)
    if place is None:
        raise CheckpointError(f"{folder} has neither {' nor '.join(_FILES)}: fetch the model's tokenizer too")
    settings = read_json(place / "tokenizer_config.json") if os.path.isfile(place / "tokenizer_config.json") else {}
    kind = _kind(place)
    if kind not in allowed:
        raise UsageError(f"{place}: a {kind} tokenizer is not supported for {config.get('model_type')!r}")
    read = _read_bpe if kind == "bpe" else _read_sentencepiece
    lists = read(place, config, settings)
    _check_special_ids(place, config, settings, lists["tokens"])
    special_ids, adds, template = _specials(place, config, len(lists["tokens"]), bpe=kind == "bpe")
    if kind == "bpe":
        adds |= _added_by(place / "tokenizer.json", special_ids)
    if config["vocab_size"] == _WITHOUT_BOS:
        adds["bos"] = False
    prefix = settings.get("add_prefix_space") if space_prefix is None else space_prefix
    return Vocabulary(
        **lists,
        special_ids=special_ids,
        adds=adds,
        adds_space_prefix=prefix,
        chat_template=template,
        strips=_strips(place, settings, len(lists["tokens"])),
    )


def _strips(folder: Path, settings: dict[str, Any], size: int) -> dict[str, list[int]]:
    """The added tokens that take up the blanks before ("lstrip") and after them ("rstrip"), without empty lists.

    llama.cpp knows such tokens by the model's name only (Phi-3); the file has them as `dearlite.*` keys.
    """
    decoder = settings.get("added_tokens_decoder", {})
    added = [entry | {"id": int(number)} for number, entry in decoder.items() if isinstance(entry, dict)]
    if os.path.isfile(folder / "tokenizer.json"):
        added += read_json(folder / "tokenizer.json").get("added_tokens") or []
    sides = {
        side: sorted({entry["id"] for entry in added if entry.get(side) and entry["id"] < size})
        for side in ("lstrip", "rstrip")
    }
    return {side: ids for side, ids in sides.items() if ids}


_FILES = ("tokenizer.json", "tokenizer.model")


def _kind(folder: Path) -> str:
    """An entry of TOKENIZERS: byte-level BPE if tokenizer.json is one, else SentencePiece."""
    if os.path.isfile(folder / "tokenizer.json"):
        splitter = read_json(folder / "tokenizer.json").get("pre_tokenizer") or {}
        parts = [splitter, *(splitter.get("pretokenizers") or [])]
        if any(part.get("type") == "ByteLevel" for part in parts):
            return "bpe"
    if os.path.isfile(folder / "tokenizer.model"):
        return "sentencepiece"
    raise CheckpointError(
        f"{folder}/tokenizer.json is not a byte-level BPE, and there is no tokenizer.model: fetch that file of the "
        "model too (it holds the scores that llama.cpp merges by)"
    )


def _read_bpe(folder: Path, config: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    path, size = folder / "tokenizer.json", config["vocab_size"]
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as err:  # the library raises bare Exception
        raise CheckpointError(f"{path} is not a tokenizer ({err}): fetch it again") from None
    check_tokenizer(folder, path.read_bytes(), size, config)
    by_id = {number: text for text, number in tokenizer.get_vocab(with_added_tokens=True).items()}
    added = tokenizer.get_added_tokens_decoder()
    tokens, types = [], []
    for number in range(size):
        text = by_id.get(number)
        kind = UNUSED if text is None else NORMAL
        if text is None:
            text = f"[PAD{number}]"
        elif number in added:
            if not added[number].normalized:  # llama.cpp searches for them in the raw text
                ids = tokenizer.encode(text, add_special_tokens=False).ids
                text = tokenizer.decode(ids, skip_special_tokens=False)
            kind = CONTROL if added[number].special or _looks_special(text) else USER_DEFINED
            text = text if kind == CONTROL else text.replace("▁", " ")
        tokens.append(text.encode())
        types.append(kind)
    return {
        "model": "gpt2", "pre": _pre_type(tokenizer, path), "tokens": tokens, "types": types, "merges": _merges(path),
    }  # fmt: skip


def _added_by(path: Path, special_ids: dict[str, int]) -> dict[str, bool]:
    """The keys "bos" and "eos": True if tokenizer.json itself puts the first or the last token around a text.

    Written in any case: without it llama.cpp decides by the pre-type.
    """
    ids = Tokenizer.from_file(str(path)).encode("a").ids
    return {
        kind: bool(kind in special_ids and len(ids) > 1 and ids[at] == special_ids[kind])
        for kind, at in (("bos", 0), ("eos", -1))
    }


def _pre_type(tokenizer: Tokenizer, path: Path) -> str:
    """The tokenizer's value in PRE_TYPES. Raises UsageError for a tokenizer without one."""
    digest = sha256(str(tokenizer.encode(CHECK_TEXT, add_special_tokens=False).ids).encode()).hexdigest()
    if digest not in PRE_TYPES:
        raise UsageError(
            f"{path}: this tokenizer ({digest[:12]}…) is none of {', '.join(sorted(set(PRE_TYPES.values())))}, so it "
            "is not known how llama.cpp must split its text: convert the model with llama.cpp's convert_hf_to_gguf.py, "
            "or open an issue to add it"
        )
    return PRE_TYPES[digest]


def _merges(path: Path) -> list[str]:
    """Pairs as `left right`. A space within a part, which only the list form can have, is written as Ġ."""
    pairs = (read_json(path).get("model") or {}).get("merges") or []
    return [pair if isinstance(pair, str) else " ".join(part.replace(" ", "Ġ") for part in pair) for pair in pairs]


def _read_sentencepiece(folder: Path, config: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    size = config["vocab_size"]
    tokens = [f"[PAD{number}]" for number in range(size)]
    scores, types = [_UNUSED_SCORE] * size, [UNUSED] * size
    # A piece of SentencePiece's type "user defined" becomes a normal token, as in llama.cpp's converter.
    kinds = {sentencepiece.UNKNOWN: UNKNOWN, sentencepiece.CONTROL: CONTROL, sentencepiece.UNUSED: UNUSED}
    kinds[sentencepiece.BYTE] = BYTE
    pieces = sentencepiece.read_pieces(folder / "tokenizer.model")
    added = list(_added_tokens(folder, settings))
    _check_pieces(folder, pieces, added, size)
    for number, piece in enumerate(pieces):
        tokens[number], scores[number], types[number] = piece.text, piece.score, kinds.get(piece.type, NORMAL)
    for _, text, number, special in added:
        if number < size:
            tokens[number] = text if special else text.replace("▁", " ")
            scores[number], types[number] = _ADDED_SCORE, CONTROL if special else USER_DEFINED
    encoded = [text.encode() for text in tokens]
    return {"model": "llama", "pre": "default", "tokens": encoded, "types": types, "scores": scores}


def _added_tokens(folder: Path, settings: dict[str, Any]) -> Iterator[tuple[str, str, int, bool]]:
    """(file, text, id, special) of the tokens that added_tokens.json and tokenizer_config.json add."""
    for text, number in read_settings(folder / "added_tokens.json").items():
        yield "added_tokens.json", text, int(number), False
    for key, entry in settings.get("added_tokens_decoder", {}).items():
        text = entry["content"]
        yield "tokenizer_config.json", text, int(key), bool(entry.get("special") or _looks_special(text))


def _check_pieces(
    folder: Path,
    pieces: Sequence[sentencepiece.SentencePiece],
    added: Sequence[tuple[str, str, int, bool]],
    size: int,
) -> None:
    """Raises CheckpointError for tokens beyond the embedding, and for an added token in the place of a piece.

    Special tokens beyond the embedding do no harm: the file lacks them, and in a text they are plain characters.
    """
    faults = []
    if len(pieces) > size:
        faults.append(f"tokenizer.model has {len(pieces)} tokens")
    special_names = special_tokens(folder)
    for file, text, number, special in added:
        if number >= size and not special and text not in special_names:
            faults.append(f"{file} gives {text!r} the id {number}")
    if faults:
        raise CheckpointError(
            f"{folder}: {name_some(faults, 4, '; ')}, and the model's embedding has {size} rows: {RESIZE}"
        )
    for file, text, number, _ in added:
        if number < len(pieces) and pieces[number].type == sentencepiece.NORMAL and pieces[number].text != text:
            raise CheckpointError(
                f"{folder}: {file} gives {text!r} the id {number}, which is {pieces[number].text!r} in "
                "tokenizer.model: fetch both again, of one revision"
            )


def _check_special_ids(folder: Path, config: dict[str, Any], settings: dict[str, Any], tokens: Sequence[bytes]) -> None:
    """Raises CheckpointError for a special token that config.json or tokenizer_config.json names and no token is."""
    faults = []
    for kind in ("bos", "eos", "pad", "unk"):
        stated = config.get(f"{kind}_token_id")
        for number in stated if isinstance(stated, list) else [stated]:
            if type(number) is int and number >= len(tokens):
                faults.append(f"config.json gives the {kind} token the id {number} of {len(tokens)} tokens")
    for kind in ("bos", "eos"):
        text = settings.get(f"{kind}_token")
        text = text.get("content") if isinstance(text, dict) else text
        if isinstance(text, str) and text.encode() not in tokens:
            faults.append(f"tokenizer_config.json names the {kind} token {text!r}, which the tokenizer does not have")
    if faults:
        raise CheckpointError(
            f"{folder}: {'; '.join(faults)}: fetch config.json and the tokenizer's files again, of one revision"
        )


def _looks_special(text: str) -> bool:
    """True for a text in the form of a special token: some models do not mark their turn markers as special."""
    return text in _SPECIAL_NAMES or any(text.startswith(a) and text.endswith(b) for a, b in _SPECIAL_SHAPES)


def _specials(
    folder: Path, config: dict[str, Any], size: int, *, bpe: bool
) -> tuple[dict[str, int], dict[str, bool], Any]:
    """The ids of the special tokens, those that are added to texts, and the chat template."""
    gguf = need("gguf", extra="export")
    remedy = "fetch config.json and the tokenizer's files again"
    with one_line_errors(f"{folder}: its special tokens cannot be read", remedy, CheckpointError):
        reader = gguf.SpecialVocab(folder, load_merges=False, n_vocab=None if bpe else size)
    ids = dict(reader.special_token_ids)
    for kind in reader.special_token_types:  # an adapter's folder has no config.json
        number = config.get(f"{kind}_token_id")
        if isinstance(number, int) and 0 <= number < size:
            ids.setdefault(kind, number)
    return ids, dict(reader.add_special_token), reader.chat_template
