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
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from dearlite.errors import ModelFileError, UsageError
from dearlite.files.drafts import Draft
from dearlite.models.facts import PointwiseFacts
from dearlite.models.manifest import Build, Manifest, Member, Tensor, parse_manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

TENSOR_ALIGNMENT = 64
WEIGHTS_ALIGNMENT = 4096
WEIGHTS = "weights.bin"
MANIFEST = "manifest.json"
# Larger members are hashed by `verify` only: hashing them would take longer than loading them.
_HASH_ON_OPEN_BYTES = 256 * 2**20
_LOCAL_HEADER_BYTES = 30
_ZIP64_EXTRA_BYTES = 20
_ALIGNMENT_EXTRA = 0xD935


class Bundle:
    """An open `.dear` file. Layout, schema, sizes and the sha256 of its members (up to 256 MiB) have been checked."""

    def __init__(self, path: str | Path) -> None:
        """Raises UsageError if the file cannot be read, ModelFileError if it is incomplete, edited or no bundle."""
        self.path = Path(path)
        self._map: mmap.mmap | None = None  # the mapped file, from the first call of `tensors` on
        try:
            file = open(self.path, "rb")
        except OSError as err:
            raise UsageError(f"cannot read the model file {self.path}: {err.strerror}") from None
        with file:
            self._offsets = self._locate(file)
            self.manifest: Manifest = parse_manifest(self._bytes(file, MANIFEST), str(self.path))
            self._check_sizes()
            small = [name for name, m in self.manifest.members.items() if m.size_bytes <= _HASH_ON_OPEN_BYTES]
            self._check_hashes(file, small)

    def read(self, name: str) -> bytes:
        """The bytes of a member. Raises ModelFileError if the bundle has no member of this name."""
        if name not in self._offsets:
            raise ModelFileError(f"{self.path} has no member {name}: export the model again")
        with open(self.path, "rb") as file:
            return self._bytes(file, name)

    def card(self) -> dict[str, Any]:
        """The quality card, empty if the bundle has none."""
        card: dict[str, Any] = json.loads(self.read("card.json")) if "card.json" in self._offsets else {}
        return card

    def tensors(self, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
        """Name -> read-only view of the mapped file, for `names`, all if None. Pages are read at their first use."""
        start, size = self._offsets[WEIGHTS]
        if self._map is None:
            with open(self.path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        weights = np.frombuffer(self._map, np.uint8, size, start)
        specs = {name: self.manifest.tensors[name] for name in (self.manifest.tensors if names is None else names)}
        return {
            name: weights[spec.offset : spec.offset + spec.size_bytes].view(spec.dtype).reshape(spec.shape)
            for name, spec in specs.items()
        }

    def release_pages(self) -> None:
        """Drops the mapped pages from memory; they are read again when used. No effect on Windows (no madvise)."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def verify(self) -> None:
        """Checks the sha256 of every member, of any size. Raises ModelFileError for the first that differs."""
        with open(self.path, "rb") as file:
            self._check_hashes(file, self.manifest.members)

    def sha256(self) -> str:
        """The sha256 of the manifest. It identifies all content, since the manifest has the sha256 of each member."""
        return hashlib.sha256(self.read(MANIFEST)).hexdigest()

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
                    header = file.read(_LOCAL_HEADER_BYTES)
                    name_size, extra_size = struct.unpack("<HH", header[26:30])
                    start = info.header_offset + _LOCAL_HEADER_BYTES + name_size + extra_size
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


class BundleWriter:
    """Writes a bundle tensor by tensor, with at most one block of one tensor in memory.

    A context manager: call `add_tensor` for every tensor, then `finish`. The file gets its name only when it is
    complete (files/drafts.py). Equal content gives equal bytes.
    """

    def __init__(self, path: str | Path) -> None:
        self._draft = Draft(path)
        self._archive = zipfile.ZipFile(self._draft.path, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._members: dict[str, Member] = {}
        self._tensors: dict[str, Tensor] = {}
        self._weights: IO[bytes] | None = self._archive.open(_entry(WEIGHTS, self._archive), "w", force_zip64=True)
        self._digest = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> BundleWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._weights is None:  # otherwise `finish` was not called: there is no bundle
                self._archive.close()
                self._draft.commit()
        finally:
            self._discard()

    def _discard(self) -> None:
        """Removes the partial file if it still exists. Closing it may fail (full disk): it is removed all the same."""
        with suppress(OSError):
            if self._weights is not None:
                self._weights.close()
        file, self._archive.fp = (
            self._archive.fp,
            None,
        )  # else the archive writes its directory when garbage-collected
        with suppress(OSError):
            if file is not None:
                file.close()
        self._draft.close()

    def add_tensor(self, name: str, dtype: str, shape: tuple[int, ...], blocks: Iterable[bytes]) -> None:
        """Appends one tensor at the next multiple of 64 bytes. `blocks` are its bytes, little-endian, in C order.

        An int8 tensor with -128 is refused: Arm CPUs without dot products add two products in 16 bits, and twice
        (-128)(-128) is one more than they hold (ONNX Runtime 1.32: the sum is 65536 too low).
        """
        if name in self._tensors:
            raise ModelFileError(f"tensor {name} was already written: give each tensor its own name")
        self._append(b"\0" * (-self._size % TENSOR_ALIGNMENT))
        tensor = Tensor(dtype, shape, self._size)
        for block in blocks:
            if dtype == "int8" and b"\x80" in block:
                raise ModelFileError(f"tensor {name} holds -128, which some CPUs multiply wrongly: scale it by max/127")
            self._append(block)
        if self._size - tensor.offset != tensor.size_bytes:
            raise ModelFileError(
                f"tensor {name}, {dtype} {shape}, has {self._size - tensor.offset} bytes instead of {tensor.size_bytes}"
            )
        self._tensors[name] = tensor

    def finish(self, members: Mapping[str, bytes], facts: PointwiseFacts, builds: Iterable[Build]) -> Manifest:
        """The manifest. Writes it after the small members; the runtime takes the first of `builds` that fits."""
        assert self._weights is not None, "finish was called twice"
        self._weights.close()
        self._weights = None
        self._members[WEIGHTS] = Member(self._size, self._digest.hexdigest())
        for name, data in members.items():
            self._archive.writestr(_entry(name, None), data)
            self._members[name] = Member(len(data), hashlib.sha256(data).hexdigest())
        manifest = Manifest(
            kind="pointwise",
            name=facts.name,
            architecture=facts.architecture,
            prompt=facts.prompt,
            pooling=facts.pooling,
            max_tokens=facts.max_tokens,
            licence=facts.licence,
            source=facts.source,
            builds=tuple(builds),
            members=self._members,
            tensors=self._tensors,
            calibration=facts.calibration,
        )
        self._archive.writestr(_entry(MANIFEST, None), manifest.to_json())
        return manifest

    def _append(self, data: bytes) -> None:
        assert self._weights is not None, "tensors come before finish"
        self._weights.write(data)
        self._digest.update(data)
        self._size += len(data)


def add_members(path: Path, members: Mapping[str, bytes], **facts: Any) -> None:
    """Adds small members to a finished bundle and replaces the fields `facts` of its manifest, in place.

    An interrupted call leaves a damaged file, so that callers do this before the file gets its final name.
    """
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        manifest = parse_manifest(archive.read(MANIFEST), str(path))
        last = archive.infolist()[-1]
        assert last.filename == MANIFEST, "the writer puts the manifest last"
        # New members and the directory are written from `start_dir` on: over the manifest, the last member.
        archive.filelist.pop()
        del archive.NameToInfo[MANIFEST]
        archive.start_dir = last.header_offset
        added = dict(manifest.members)
        for name, data in members.items():
            archive.writestr(_entry(name, None), data)
            added[name] = Member(len(data), hashlib.sha256(data).hexdigest())
        archive.writestr(_entry(MANIFEST, None), replace(manifest, members=added, **facts).to_json())


def _entry(name: str, align_in: zipfile.ZipFile | None) -> zipfile.ZipInfo:
    """A stored member with a fixed date: bytes repeat. In the archive `align_in` its data starts at 4096 n bytes."""
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = 3
    info.external_attr = 0o644 << 16
    if align_in is not None:
        assert align_in.fp is not None
        head = align_in.fp.tell() + _LOCAL_HEADER_BYTES + len(name) + _ZIP64_EXTRA_BYTES + 6  # 6: id, size, alignment
        padding = -head % WEIGHTS_ALIGNMENT
        info.extra = struct.pack("<HHH", _ALIGNMENT_EXTRA, 2 + padding, WEIGHTS_ALIGNMENT) + b"\0" * padding
    return info
