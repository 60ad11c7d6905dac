"""Errors of the Hub and of the way to it, each a FetchError of one line with its remedy."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dearlite.errors import FetchError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def hub_errors(hub: Any, repository: str, revision: str, endpoint: str, otherwise: str) -> Iterator[None]:
    """Turns errors of huggingface_hub into a FetchError of one line: the request, the Hub's answer, the remedy.

    `otherwise` is a further remedy where no Hub answers; empty without one.
    """
    errors = hub.errors
    try:
        yield
    except errors.HFValidationError:
        raise invalid_name(repository) from None
    except (errors.HTTPError, OSError, RuntimeError) as err:  # RuntimeError: hf_xet's transfers
        # The error of a single file arrives wrapped in an error about the cache.
        cause = err.__cause__ if isinstance(err, errors.LocalEntryNotFoundError) and err.__cause__ else err
        if _is_cached(hub, repository):
            otherwise = f", or set HF_HUB_OFFLINE=1 to use the files that were fetched before{otherwise}"
        raise FetchError(_message(errors, cause, repository, revision, endpoint, otherwise)) from err
    except ValueError as err:  # the response is not JSON
        raise FetchError(f"{endpoint} does not answer as a Hub does ({_short(err)}): check HF_ENDPOINT") from err


def _is_cached(hub: Any, repository: str) -> bool:
    """True if an earlier download left a file of the repository in the cache."""
    folder = Path(hub.constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots"
    return any(os.path.isfile(path) for path in folder.rglob("*"))


def invalid_name(repository: str) -> FetchError:
    """The error for a repository's name that the Hub cannot have."""
    return FetchError(f"{repository!r} is not a repository name: write OWNER/NAME as in the address of its page")


def _message(errors: Any, err: BaseException, repository: str, revision: str, endpoint: str, otherwise: str) -> str:
    """One line that names the request, the Hub's reason and the remedy."""
    status = getattr(getattr(err, "response", None), "status_code", None)
    reason = getattr(err, "server_message", None) or "no reason given"
    log_in = "run `hf auth login` here, or set HF_TOKEN"
    if isinstance(err, errors.GatedRepoError):
        message = f"{repository} is gated: accept its licence at {endpoint}/{repository} while logged in, then {log_in}"
    elif isinstance(err, errors.RepositoryNotFoundError):
        message = f"{endpoint} has no model repository {repository}, or it is private: check the name, or {log_in}"
    elif isinstance(err, errors.RevisionNotFoundError):
        message = f"{repository} has no revision {revision!r}: {endpoint}/{repository}/commits/main lists them"
    elif status in (401, 403):
        message = f"{endpoint} refused {repository} ({status}: {reason}): use a token that may read it; {log_in}"
    elif status is not None:
        message = f"{endpoint} answered {status} for {repository}: run the same command again later"
    elif isinstance(err, OSError) and err.errno in _FULL:
        reason = "the disk is full" if err.errno == errno.ENOSPC else err.strerror
        message = f"{reason} while fetching {repository}: make room, or set HF_HOME to a folder on another disk"
    elif isinstance(err, OSError) and err.filename is not None:
        message = f"cannot use {err.filename} while fetching {repository} ({err.strerror}): set HF_HOME to a folder"
    else:
        message = (
            f"the connection to {endpoint} failed while fetching {repository} ({_short(err)}): check it and run the "
            f"same command again{otherwise}"
        )
    return message


def _short(err: BaseException) -> str:
    """The error's text on one line of at most 160 characters; the name of its class where it has no text."""
    reason = getattr(err.args[0], "reason", None) if err.args else None  # urllib3's, inside the error of requests
    return " ".join(str(reason or err).split())[:160] or type(err).__name__
