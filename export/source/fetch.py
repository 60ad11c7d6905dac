"""Downloads a Hugging Face repository into a folder and checks every file against the hash that the Hub lists.

This module deals with the Hub and the disk and has no knowledge of models. Cache, token, endpoint, proxy and offline
mode are those of huggingface_hub (HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE): a file that another tool has
fetched is not fetched again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from dearlite.errors import FetchError, need
from dearlite.export.source.hub_errors import hub_errors, invalid_name
from dearlite.files.hashing import sha256_of
from dearlite.version import __version__

PATTERNS = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "adapter_config.json",
    # A cross-encoder of sentence-transformers: its modules have folders of their own (source/modules.py).
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "*/config.json",
    "LICENSE*",
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# Sub-folders other than those of modules ("2_Dense") hold checkpoints and other formats; consolidated.safetensors has
# the same weights under other names.
_NO_MODULES = ("[!0-9]*/*", "[0-9][!0-9_]*/*", "[0-9][0-9][!_]*/*", "*/*/*")
NEVER = (*_NO_MODULES, "consolidated*", *PICKLES)
ANSWER_TIMEOUT_S = 30
_ATTEMPTS = 5


def fetch(repository: str, revision: str = "main", *, patterns: Sequence[str] = PATTERNS, quiet: bool = False) -> Path:
    """The folder that holds a repository's files at a revision. Raises FetchError.

    Files in the cache are not fetched again, an interrupted download resumes, and a file whose hash differs from the
    Hub's list is deleted. `patterns` select files of the top folder and of modules; what matches NEVER is left
    out.
    """
    return _fetch(repository, revision, {"allow_patterns": list(patterns), "ignore_patterns": list(NEVER)}, quiet=quiet)


def fetch_file(repository: str, name: str, revision: str = "main", *, quiet: bool = False) -> Path:
    """The path of one file of a repository, whatever its format; as `fetch` in all else. Raises FetchError."""
    path = _fetch(repository, revision, {"allow_patterns": [escape(name)], "ignore_patterns": []}, quiet=quiet) / name
    assert os.path.isfile(path)
    return path


def _fetch(repository: str, revision: str, filters: Mapping[str, list[str]], *, quiet: bool) -> Path:
    """The folder that holds the files of a revision that `filters` select."""
    hub, patterns = _hub(), filters["allow_patterns"]
    otherwise = ", or give a GGUF that you have: -m FILE" if patterns[0].endswith(".gguf") else ""
    if hub.constants.HF_HUB_OFFLINE:
        return _cached(hub, repository, revision, filters)
    api = hub.HfApi(library_name="dearlite", library_version=__version__)
    with hub_errors(hub, repository, revision, api.endpoint, otherwise):
        info = api.model_info(repository, revision=revision, files_metadata=True, timeout=ANSWER_TIMEOUT_S)
    files = list(hub.utils.filter_repo_objects(info.siblings, key=_name, **filters))
    if not files and not _needs_weights(patterns):
        raise FetchError(_no_such_file(repository, revision, patterns, info.siblings))
    _refuse_pickles(hub, repository, patterns, [file.rfilename for file in files], info.siblings)
    _check_space(hub, repository, info.sha, files)
    with hub_errors(hub, repository, revision, api.endpoint, otherwise), _progress_bars(hub, shown=not quiet):
        folder = _download(hub, repository, revision, filters)
    if folder.name != info.sha:
        raise FetchError(
            f"{repository} ({revision}) changed on the Hub while it was fetched: run the same command again"
        )
    _check_hashes(repository, folder, {f.rfilename: f.lfs.sha256 if f.lfs else f.blob_id for f in files})
    return folder


def is_reachable(repository: str) -> bool:
    """False if no Hub answers a question about `repository`, or HF_HUB_OFFLINE forbids to ask. The answer may be no.

    huggingface_hub itself repeats a request without an answer for 23 s, for each file, and prints each attempt.
    """
    hub = _hub()
    if hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        hub.HfApi(library_name="dearlite", library_version=__version__).model_info(repository, timeout=ANSWER_TIMEOUT_S)
    except (hub.errors.HTTPError, OSError) as err:
        return getattr(err, "response", None) is not None
    except ValueError:  # not a repository's name, or an answer that is no Hub's
        pass
    return True


def _download(hub: Any, repository: str, revision: str, filters: Mapping[str, list[str]]) -> Path:
    """The repository's snapshot, fetched one file at a time: an interruption loses the file in progress at most."""
    for attempt in range(_ATTEMPTS):
        try:
            return Path(hub.snapshot_download(repository, revision=revision, max_workers=1, **filters))
        except OSError as err:
            # Before 1.0 huggingface_hub resumes by itself after a lost connection, but not after a short response.
            if type(err).__name__ != "ChunkedEncodingError" or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _hub() -> Any:
    """The package huggingface_hub with the submodules that it does not import by itself."""
    for part in ("constants", "errors", "utils"):
        need(f"huggingface_hub.{part}", extra="export")
    return need("huggingface_hub", extra="export")


def _cached(hub: Any, repository: str, revision: str, filters: Mapping[str, list[str]]) -> Path:
    """The folder from an earlier download, found without the network."""
    incomplete = FetchError(
        f"{repository} ({revision}) is not complete in {hub.constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids "
        "downloads: unset HF_HUB_OFFLINE, or fetch it on a machine with a network and copy that folder"
    )
    try:
        folder = Path(hub.snapshot_download(repository, revision=revision, local_files_only=True, **filters))
    except hub.errors.LocalEntryNotFoundError:
        raise incomplete from None
    except hub.errors.HFValidationError:
        raise invalid_name(repository) from None
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if os.path.isfile(path)]
    names = list(hub.utils.filter_repo_objects(files, **filters))
    shards = {shard for name in names if name.endswith(".index.json") for shard in _shards(folder / name)}
    weights = {name for name in names if name.endswith(".safetensors")}
    if not names or (_needs_weights(filters["allow_patterns"]) and (not weights or shards - weights)):
        raise incomplete
    # The cache names the blob of a large file by its sha256, so this hash is known without the Hub.
    blobs = {name: (folder / name).resolve().name for name in names}
    _check_hashes(repository, folder, {n: blob for n, blob in blobs.items() if re.fullmatch("[0-9a-f]{64}", blob)})
    return folder


def _shards(index: Path) -> set[str]:
    """The files named by an index; empty for a damaged index, which has a better error where the model is read."""
    try:
        return set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()


def _needs_weights(patterns: Iterable[str]) -> bool:
    return any(pattern.endswith(".safetensors") for pattern in patterns)


def _refuse_pickles(
    hub: Any, repository: str, patterns: Sequence[str], names: Sequence[str], siblings: Sequence[Any]
) -> None:
    """Raises FetchError for a repository without *.safetensors, unless `patterns` request no weights."""
    if not _needs_weights(patterns) or any(name.endswith(".safetensors") for name in names):
        return
    pickles = [p.rfilename for p in hub.utils.filter_repo_objects(siblings, allow_patterns=PICKLES, key=_name)]
    if pickles:
        raise FetchError(
            f"{repository} has its weights only as pickle ({pickles[0]}), which can run code when it is read: convert "
            "them to safetensors (https://huggingface.co/spaces/safetensors/convert), or use another repository"
        )
    raise FetchError(
        f"{repository} holds no *.safetensors, so it is not a model or has another format: use another repository"
    )


def _no_such_file(repository: str, revision: str, patterns: Sequence[str], siblings: Sequence[Any]) -> str:
    """The message for a repository without a file that `patterns` select: its files of the same ending."""
    ending = Path(patterns[0]).suffix
    others = sorted(name for name in map(_name, siblings) if name.endswith(ending))
    listed = ", ".join(others[:6]) or f"none that ends in {ending}"
    return f"{repository} ({revision}) has no file {', '.join(patterns)}: it has {listed}; name one of them"


def _name(sibling: Any) -> str:
    return str(sibling.rfilename)


def _check_space(hub: Any, repository: str, commit: str, files: Sequence[Any]) -> None:
    """Raises FetchError when the files that are missing in the cache are larger than the free space of its disk."""
    absent = [
        f for f in files if not isinstance(hub.try_to_load_from_cache(repository, f.rfilename, revision=commit), str)
    ]
    needed = sum(file.size or 0 for file in absent)
    cache = Path(hub.constants.HF_HUB_CACHE).absolute()
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if os.path.isdir(folder))).free
    if needed > free:
        raise FetchError(
            f"{repository} needs {needed / 1e9:.1f} GB in {cache}, where {free / 1e9:.1f} GB are free: "
            "make room, or set HF_HOME to a folder on a larger disk"
        )


def _check_hashes(repository: str, folder: Path, hashes: Mapping[str, str | None]) -> None:
    """Raises FetchError when a file is missing or its hash differs from `hashes`; deletes files with a wrong hash.

    A hash of 64 digits is a sha256. A hash of 40 digits is git's: the sha1 of "blob SIZE", a zero byte and the content.
    """
    wrong = []
    for name, expected in hashes.items():
        path = folder / name
        if not os.path.isfile(path):
            wrong.append(f"{name} (missing)")
        elif expected and (actual := _hash(path, like=expected)) != expected:
            path.resolve().unlink()
            path.unlink(missing_ok=True)  # the snapshot's link to the blob
            wrong.append(f"{name} (hash {actual[:12]}…, listed {expected[:12]}…)")
    if wrong:
        raise FetchError(
            f"{repository} did not arrive as the Hub lists it: {', '.join(wrong)}; "
            "the wrong files are deleted, the others are kept: run the same command again"
        )


def _hash(path: Path, *, like: str) -> str:
    """The file's sha1 as git computes it, or its sha256: the kind of the hash `like`."""
    if len(like) == hashlib.sha1().digest_size * 2:
        content = path.read_bytes()  # git stores small files only
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return sha256_of(path)


@contextmanager
def _progress_bars(hub: Any, *, shown: bool) -> Iterator[None]:
    """Leaves huggingface_hub's progress bars (on stderr) as configured, or disables them inside the block."""
    off_before = hub.utils.are_progress_bars_disabled()
    if not shown and not off_before:
        hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        if not shown and not off_before:
            hub.utils.enable_progress_bars()
