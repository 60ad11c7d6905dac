"""Changes of a GGUF's metadata: a copy with a text in it, and the file's own hash. Tensors stay as they are."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from dearlite.models.gguf import SHA256, STRING, GgufFile

_COUNT_AT = 16  # offset of the number of metadata entries, after magic, version and number of tensors


def write_with_text(file: GgufFile, output: Path, key: str, text: str) -> None:
    """Writes a copy of `file` to `output` in which the metadata entry `key` is the string `text`.

    An entry that exists must be a string. The copy's own hash (`dearlite.sha256`), if it has one, is not renewed.
    """
    value = struct.pack("<Q", len(text.encode())) + text.encode()
    with open(file.path, "rb") as source, open(output, "wb") as copy:
        head = bytearray(source.read(file.tensors_end))
        if key in file.metadata:
            start, size = file.value_span(key)
            head[start - 8 : start + size] = value  # 8: the string's length
        else:
            name = key.encode()
            entry = struct.pack("<Q", len(name)) + name + struct.pack("<I", STRING) + value
            head[file.metadata_end : file.metadata_end] = entry
            head[_COUNT_AT : _COUNT_AT + 8] = struct.pack("<Q", len(file.metadata) + 1)
        alignment = file.metadata.get("general.alignment", 32)
        copy.write(head + b"\0" * (-len(head) % alignment))
        source.seek(file.data_start)
        shutil.copyfileobj(source, copy, 2**20)


def seal(path: Path) -> None:
    """Writes the sha256 of the file at `path` into its own `dearlite.sha256`, which it must have."""
    file = GgufFile(path)
    digest = file.sha256()
    with open(path, "r+b") as out:
        out.seek(file.value_span(SHA256)[0])
        out.write(digest.encode())
