"""A Hugging Face repository -> a folder on this machine, every file held to the hash that the Hub lists.

Knows the Hub and the disk, nothing of models. Cache, token, endpoint, proxy and offline mode are huggingface_hub's own
(HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE): what another tool has fetched is not fetched again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dearlite.errors import FetchError, need
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
    "LICENSE*",
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# Sub-folders hold checkpoints and other formats, consolidated.safetensors the same weights under other names.
NEVER = ("*/*", "consolidated*", *PICKLES)
ANSWER_TIMEOUT_S = 30
_ATTEMPTS = 5


def fetch(repository: str, revision: str = "main", *, patterns: Sequence[str] = PATTERNS, quiet: bool = False) -> Path:
    """The folder that holds a repository's files at a revision. Raises FetchError.

    Files that are here are not fetched again, a dropped connection goes on where it broke, and what does not have the
    hash that the Hub lists is deleted. `patterns` choose among the files at the top; NEVER is left out in any case.
    """
    hub = _hub()
    wanted = {"allow_patterns": list(patterns), "ignore_patterns": list(NEVER)}
    if hub.constants.HF_HUB_OFFLINE:
        return _cached(hub, repository, revision, wanted)
    api = hub.HfApi(library_name="dearlite", library_version=__version__)
    with _told(hub.errors, repository, revision, api.endpoint):
        info = api.model_info(repository, revision=revision, files_metadata=True, timeout=ANSWER_TIMEOUT_S)
    files = list(hub.utils.filter_repo_objects(info.siblings, key=_name, **wanted))
    _refuse_pickles(hub, repository, patterns, [file.rfilename for file in files], info.siblings)
    _check_space(hub, repository, info.sha, files)
    with _told(hub.errors, repository, revision, api.endpoint), _bars(hub, shown=not quiet):
        folder = _download(hub, repository, revision, wanted)
    if folder.name != info.sha:
        raise FetchError(
            f"{repository} ({revision}) changed on the Hub while it was fetched: run the same command again"
        )
    _check_hashes(repository, folder, {f.rfilename: f.lfs.sha256 if f.lfs else f.blob_id for f in files})
    return folder


def _download(hub: Any, repository: str, revision: str, wanted: Mapping[str, list[str]]) -> Path:
    """The repository's snapshot, one file after another: what an interrupted download loses is the file it was at."""
    for attempt in range(_ATTEMPTS):
        try:
            return Path(hub.snapshot_download(repository, revision=revision, max_workers=1, **wanted))
        except OSError as err:
            # Below 1.0 huggingface_hub goes on by itself after a lost connection, but not after a short answer.
            if type(err).__name__ != "ChunkedEncodingError" or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _hub() -> Any:
    """huggingface_hub, with those of its parts that it does not import by itself."""
    for part in ("constants", "errors", "utils"):
        need(f"huggingface_hub.{part}", extra="export")
    return need("huggingface_hub", extra="export")


def _cached(hub: Any, repository: str, revision: str, wanted: Mapping[str, list[str]]) -> Path:
    """The folder as it was fetched before, without a look at the network."""
    absent = FetchError(
        f"{repository} ({revision}) is not whole in {hub.constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids to fetch "
        "it: unset HF_HUB_OFFLINE, or fetch once where there is a network and copy that folder"
    )
    try:
        folder = Path(hub.snapshot_download(repository, revision=revision, local_files_only=True, **wanted))
    except hub.errors.LocalEntryNotFoundError:
        raise absent from None
    except hub.errors.HFValidationError:
        raise _no_name(repository) from None
    names = list(hub.utils.filter_repo_objects([path.name for path in folder.iterdir()], **wanted))
    shards = {shard for name in names if name.endswith(".index.json") for shard in _shards(folder / name)}
    weights = {name for name in names if name.endswith(".safetensors")}
    if _needs_weights(wanted["allow_patterns"]) and (not weights or shards - weights):
        raise absent
    # The cache calls the blob of a large file by its sha256, which so is known without the Hub.
    blobs = {name: (folder / name).resolve().name for name in names}
    _check_hashes(repository, folder, {n: blob for n, blob in blobs.items() if re.fullmatch("[0-9a-f]{64}", blob)})
    return folder


def _shards(index: Path) -> set[str]:
    """The files that an index names; none where it is damaged, which the reader of the model tells better."""
    try:
        return set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()


def _needs_weights(patterns: Iterable[str]) -> bool:
    return any(pattern.endswith(".safetensors") for pattern in patterns)


def _refuse_pickles(
    hub: Any, repository: str, patterns: Sequence[str], names: Sequence[str], siblings: Sequence[Any]
) -> None:
    if not _needs_weights(patterns) or any(name.endswith(".safetensors") for name in names):
        return
    pickles = [p.rfilename for p in hub.utils.filter_repo_objects(siblings, allow_patterns=PICKLES, key=_name)]
    if pickles:
        raise FetchError(
            f"{repository} has its weights only as pickle ({pickles[0]}), which can run code when it is read: convert "
            "them to safetensors (https://huggingface.co/spaces/safetensors/convert), or take another repository"
        )
    raise FetchError(f"{repository} holds no *.safetensors: it is no model, or its weights are in another format")


def _name(sibling: Any) -> str:
    return str(sibling.rfilename)


def _check_space(hub: Any, repository: str, commit: str, files: Sequence[Any]) -> None:
    """Raises FetchError where the files that are not here yet are more than the cache's disk can take."""
    absent = [
        f for f in files if not isinstance(hub.try_to_load_from_cache(repository, f.rfilename, revision=commit), str)
    ]
    needed = sum(file.size or 0 for file in absent)
    cache = Path(hub.constants.HF_HUB_CACHE).absolute()
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.is_dir())).free
    if needed > free:
        raise FetchError(
            f"{repository} needs {needed / 1e9:.1f} GB in {cache}, where {free / 1e9:.1f} GB are free: "
            "make room, or set HF_HOME to a folder on a larger disk"
        )


def _check_hashes(repository: str, folder: Path, hashes: Mapping[str, str | None]) -> None:
    """Raises FetchError, and deletes what is wrong, where a file is missing or has another hash than `hashes` says.

    A hash of 64 digits is a sha256, one of 40 git's: the sha1 of "blob SIZE", a zero byte and the content.
    """
    wrong = []
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            wrong.append(f"{name} (missing)")
        elif expected and (found := _hash(path, like=expected)) != expected:
            path.resolve().unlink()
            path.unlink(missing_ok=True)  # the snapshot's link to the blob
            wrong.append(f"{name} (hash {found[:12]}…, listed {expected[:12]}…)")
    if wrong:
        raise FetchError(
            f"{repository} did not arrive as the Hub lists it: {', '.join(wrong)}; "
            "what was wrong is deleted, the rest is kept: run the same command again"
        )


def _hash(path: Path, *, like: str) -> str:
    if len(like) == hashlib.sha1().digest_size * 2:
        content = path.read_bytes()  # git keeps small files only
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _bars(hub: Any, *, shown: bool) -> Iterator[None]:
    """huggingface_hub's progress bars (on stderr) as they were set, or off for the while."""
    off_before = hub.utils.are_progress_bars_disabled()
    if not shown and not off_before:
        hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        if not shown and not off_before:
            hub.utils.enable_progress_bars()


@contextmanager
def _told(errors: Any, repository: str, revision: str, endpoint: str) -> Iterator[None]:
    """What huggingface_hub raises, as one line: what was asked for, what the Hub said, what to do."""
    try:
        yield
    except errors.HFValidationError:
        raise _no_name(repository) from None
    except (errors.HTTPError, OSError, RuntimeError) as err:  # RuntimeError: hf_xet's transfers
        # A file's own error comes wrapped in one about the cache.
        cause = err.__cause__ if isinstance(err, errors.LocalEntryNotFoundError) and err.__cause__ else err
        raise FetchError(_line(errors, cause, repository, revision, endpoint)) from err
    except ValueError as err:  # no JSON
        raise FetchError(f"{endpoint} does not answer as a Hub does ({_short(err)}): check HF_ENDPOINT") from err


def _no_name(repository: str) -> FetchError:
    return FetchError(f"{repository!r} is no repository's name: write OWNER/NAME as in the address of its page")


def _line(errors: Any, err: BaseException, repository: str, revision: str, endpoint: str) -> str:
    status = getattr(getattr(err, "response", None), "status_code", None)
    words = getattr(err, "server_message", None) or "no reason given"
    log_in = "run `hf auth login` here, or set HF_TOKEN"
    if isinstance(err, errors.GatedRepoError):
        said = f"{repository} is gated: accept its licence at {endpoint}/{repository} while logged in, then {log_in}"
    elif isinstance(err, errors.RepositoryNotFoundError):
        said = f"{endpoint} has no model repository {repository}, or it is private: check the name, or {log_in}"
    elif isinstance(err, errors.RevisionNotFoundError):
        said = f"{repository} has no revision {revision!r}: {endpoint}/{repository}/commits/main lists them"
    elif status in (401, 403):
        said = f"{endpoint} refused {repository} ({status}: {words}): use a token that may read it; {log_in}"
    elif status is not None:
        said = f"{endpoint} answered {status} for {repository}: run the same command again later"
    elif isinstance(err, OSError) and err.errno == errno.ENOSPC:
        said = f"the disk is full while fetching {repository}: make room, or set HF_HOME to a folder on a larger disk"
    else:
        said = (
            f"the connection to {endpoint} failed while fetching {repository} ({_short(err)}): check it and run the "
            "same command again, or set HF_HUB_OFFLINE=1 to use what was fetched before"
        )
    return said


def _short(err: BaseException) -> str:
    return " ".join(str(err).split())[:160] or type(err).__name__
