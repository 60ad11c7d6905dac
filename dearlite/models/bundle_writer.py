"""The writing of `.dear` files (bundle.py describes them): whole, or members added to a finished one."""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from dearlite.errors import ModelFileError
from dearlite.files.drafts import Draft
from dearlite.models.bundle import LOCAL_HEADER_BYTES, MANIFEST, TENSOR_ALIGNMENT, WEIGHTS
from dearlite.models.facts import PointwiseFacts
from dearlite.models.manifest import Build, Manifest, Member, Tensor, parse_manifest

WEIGHTS_ALIGNMENT = 4096
_ZIP64_EXTRA_BYTES = 20
_ALIGNMENT_EXTRA = 0xD935


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

    def finish(
        self,
        members: Mapping[str, bytes],
        facts: PointwiseFacts,
        builds: Iterable[Build],
        *,
        pair_limited: bool = False,
    ) -> Manifest:
        """The manifest. Writes it after the small members; the runtime takes the first of `builds` that fits.

        `pair_limited` states that the int8 matrices keep the limit of models/pair_limit.py.
        """
        assert self._weights is not None, "finish was called twice"
        self._weights.close()
        self._weights = None
        self._members[WEIGHTS] = Member(self._size, self._digest.hexdigest())
        for name, data in members.items():
            self._archive.writestr(_entry(name, None), data)
            self._members[name] = Member(len(data), hashlib.sha256(data).hexdigest())
        manifest = Manifest(
            kind=facts.kind,
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
            template=facts.template,
            activation=facts.activation,
            attention=facts.attention,
            pair_limited=pair_limited,
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
        head = align_in.fp.tell() + LOCAL_HEADER_BYTES + len(name) + _ZIP64_EXTRA_BYTES + 6  # 6: id, size, alignment
        padding = -head % WEIGHTS_ALIGNMENT
        info.extra = struct.pack("<HHH", _ALIGNMENT_EXTRA, 2 + padding, WEIGHTS_ALIGNMENT) + b"\0" * padding
    return info
