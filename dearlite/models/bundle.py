"""The `.dear` file: one pointwise model in one ZIP whose members are stored, not compressed.

    manifest.json   facts about the model, and sha256 and size of every other member (manifest.py)
    tokenizer.json  the tokenizer, in the format of the tokenizers library
    *.onnx          one graph per kind of device, without weights
    weights.bin     the tensors, each at a multiple of 64 bytes; the member's data starts at a multiple of 4096
    card.json       the quality card (optional); LICENSE

Nothing is extracted: the weights are memory-mapped inside the ZIP. A bundle may therefore be renamed and moved,
processes share its pages, and it may be larger than memory or than 2 GB. `unzip -l` lists its members.
Format: PKWARE APPNOTE 6.3 (ZIP64 records for weights.bin); the padding that aligns a member is an extra field 0xD935,
which zipalign introduced.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from dearlite.errors import ModelFileError, UsageError
from dearlite.models.held import HeldFile, hold, state_of
from dearlite.models.manifest import Manifest, parse_manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

TENSOR_ALIGNMENT = 64
WEIGHTS = "weights.bin"
MANIFEST = "manifest.json"
# Larger members are hashed by `verify` only: hashing them would take longer than loading them.
_HASH_ON_OPEN_BYTES = 256 * 2**20
LOCAL_HEADER_BYTES = 30


class Bundle:
    """An open `.dear` file. Layout, schema, sizes and the sha256 of its members (up to 256 MiB) have been checked."""

    def __init__(self, path: str | Path) -> None:
        """Raises UsageError if the file cannot be read, ModelFileError if it is incomplete, edited or no bundle."""
        self.path = Path(path)
        self._file = self.path.absolute()  # the process may change its working folder
        self._map: mmap.mmap | None = None  # the mapped file, from the first call of `tensors` on
        self._held: HeldFile | None = None
        try:
            file = open(self.path, "rb")
        except OSError as err:
            raise UsageError(f"cannot read the model file {self.path}: {err.strerror}") from None
        with file:
            self._state = state_of(os.fstat(file.fileno()))
            self._offsets = self._locate(file)
            manifest = self._bytes(file, MANIFEST)
            self.manifest: Manifest = parse_manifest(manifest, str(self.path))
            self._sha256 = hashlib.sha256(manifest).hexdigest()
            self._check_sizes()
            small = [name for name, m in self.manifest.members.items() if m.size_bytes <= _HASH_ON_OPEN_BYTES]
            self._check_hashes(file, small)

    def read(self, name: str) -> bytes:
        """The bytes of a member. Raises ModelFileError if the bundle has no member of this name."""
        if name not in self._offsets:
            raise ModelFileError(f"{self.path} has no member {name}: export the model again")
        if self._held is not None:  # another file may have the name now
            return self._held.read(*self._offsets[name])
        with open(self._file, "rb") as file:
            return self._bytes(file, name)

    def card(self) -> dict[str, Any]:
        """The quality card, empty if the bundle has none."""
        card: dict[str, Any] = json.loads(self.read("card.json")) if "card.json" in self._offsets else {}
        return card

    def tensors(self, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
        """Name -> read-only view of the mapped file, for `names`, all if None. Pages are read at their first use."""
        start, size = self._offsets[WEIGHTS]
        if self._map is None:
            self._held = hold(self._file, self._state)
            with open(self._file if self._held is None else os.dup(self._held.descriptor), "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        weights = np.frombuffer(self._map, np.uint8, size, start)
        specs = {name: self.manifest.tensors[name] for name in (self.manifest.tensors if names is None else names)}
        return {
            name: weights[spec.offset : spec.offset + spec.size_bytes].view(spec.dtype).reshape(spec.shape)
            for name, spec in specs.items()
        }

    def check_unchanged(self) -> None:
        """Raises ModelFileError if the mapped file was written to."""
        if self._held is not None:
            self._held.check()

    def release_pages(self) -> None:
        """Drops the mapped pages from memory; they are read again when used. No effect on Windows (no madvise)."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Unmaps the weights, or lets the last array of `tensors` do so. Windows replaces no file that is mapped."""
        (mapped, held), (self._map, self._held) = (self._map, self._held), (None, None)
        if held is not None:
            held.close()
        with suppress(BufferError):  # arrays that are still in use
            if mapped is not None:
                mapped.close()

    def verify(self) -> None:
        """Checks the sha256 of every member, of any size. Raises ModelFileError for the first that differs."""
        with open(self._file, "rb") as file:
            self._check_hashes(file, self.manifest.members)

    def sha256(self) -> str:
        """The sha256 of the manifest. It identifies all content, since the manifest has the sha256 of each member."""
        return self._sha256

    def _locate(self, file: IO[bytes]) -> dict[str, tuple[int, int]]:
        """Member -> (offset of its data in the file, size), in bytes. Raises ModelFileError for a damaged ZIP."""
        offsets: dict[str, tuple[int, int]] = {}
        try:
            with zipfile.ZipFile(file) as archive:
                for info in archive.infolist():
                    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                        raise ModelFileError(
                            f"{self.path}: member {info.filename} is compressed or encrypted: export the model again"
                        )
                    file.seek(info.header_offset)
                    header = file.read(LOCAL_HEADER_BYTES)
                    name_size, extra_size = struct.unpack("<HH", header[26:30])
                    start = info.header_offset + LOCAL_HEADER_BYTES + name_size + extra_size
                    offsets[info.filename] = (start, info.file_size)
                    if info.filename == MANIFEST:
                        file.seek(start)
                        if zlib.crc32(file.read(info.file_size)) != info.CRC:
                            raise ModelFileError(f"{self.path}: {MANIFEST} is damaged: fetch or export it again")
        except (zipfile.BadZipFile, struct.error, OSError, ValueError, NotImplementedError) as err:
            raise ModelFileError(
                f"{self.path} is not a complete .dear file ({err}): fetch or export it again"
            ) from None
        if MANIFEST not in offsets:
            raise ModelFileError(f"{self.path} is no .dear file but a ZIP without {MANIFEST}: export the model again")
        return offsets

    def _check_sizes(self) -> None:
        members = self.manifest.members
        wrong = [f"{name} is missing" for name in members if name not in self._offsets]
        wrong += [f"{name} was added" for name in self._offsets if name not in members and name != MANIFEST]
        for name, member in members.items():
            size = self._offsets.get(name, (0, member.size_bytes))[1]
            if size != member.size_bytes:
                wrong.append(f"{name} has {size} bytes instead of {member.size_bytes}")
        for build in self.manifest.builds:
            tensors = [f"tensor {name}" for name in build.tensors if name not in self.manifest.tensors]
            missing = [*([] if build.graph in members else [build.graph]), *tensors]
            wrong += [f"{name} of the {build.device} build is missing" for name in missing]
        if "tokenizer.json" not in members:
            wrong.append("tokenizer.json is missing")
        end = members[WEIGHTS].size_bytes if WEIGHTS in members else 0
        for name, tensor in self.manifest.tensors.items():
            if tensor.offset % TENSOR_ALIGNMENT or not 0 <= tensor.offset <= tensor.offset + tensor.size_bytes <= end:
                wrong.append(f"tensor {name} is outside {WEIGHTS} or not aligned")
        if wrong:
            raise ModelFileError(
                f"{self.path} was changed after it was written ({'; '.join(wrong[:5])}): fetch or export it again"
            )

    def _check_hashes(self, file: IO[bytes], names: Iterable[str]) -> None:
        for name in names:
            start, size = self._offsets[name]
            file.seek(start)
            if _sha256(file, size) != self.manifest.members[name].sha256:
                raise ModelFileError(
                    f"{self.path}: {name} does not match its sha256: the file is damaged, fetch or export it again"
                )

    def _bytes(self, file: IO[bytes], name: str) -> bytes:
        start, size = self._offsets[name]
        file.seek(start)
        return file.read(size)


def _sha256(file: IO[bytes], size: int) -> str:
    digest = hashlib.sha256()
    while size > 0 and (block := file.read(min(size, 2**20))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()
