"""Access to a server: its keys, and the checks that keep web pages of other sites from using it.

A page that a browser has open can send requests to loopback, and by DNS rebinding even read the answers. Its requests
carry the page's site in `Origin`, and after rebinding its name in `Host`: both are checked.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from dearlite.errors import UsageError
from dearlite.serve.refusals import Refused

_LEAST_KEY = 16  # characters
_KEY = re.compile(r"[!-~]+")
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:/@\[\]]*))(?::[0-9]*)?")  # an address in brackets or a name; a port
_SITE = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/]+")
# path of the page -> its file in the folder page
PAGE_PATHS = {
    "/": "index.html",
    **{
        f"/page/{name}": name
        for name in ("page.css", "page.js", "ask.js", "copy.js", "example.js", "read.js", "show.js", "icon.svg")
    },
}
OPEN_PATHS = frozenset({"/health", "/ready", "/ping", "/openapi.json", *PAGE_PATHS})  # they need no key


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The requests that are let in.

    - `loopback`: True if the server listens on loopback only; then `Host` must name it.
    - `keys`: sha256 digests of the keys; none means that no key is needed.
    - `hosts`: further names in `Host`, in lower case.
    - `origins`: sites whose pages may send requests, as in `Origin`.
    - `open_paths`: paths that need no key.
    """

    loopback: bool = True
    keys: tuple[bytes, ...] = ()
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    open_paths: frozenset[str] = OPEN_PATHS

    def check(self, path: str, headers: Mapping[str, str]) -> None:
        """Raises Refused unless the request is let in; `headers` are found in any letter case."""
        host, origin = headers.get("host", ""), headers.get("origin")
        name = host_name(host)
        if (self.loopback or self.hosts) and not (self.loopback and is_loopback(name)) and name not in self.hosts:
            raise Refused(
                403, f"the host {host[:80]!a} is not this server's: use localhost, or allow it by --allow-host"
            )
        if origin is not None and not self.allows_origin(origin) and origin.lower() not in _own(host):
            raise Refused(403, f"pages of {origin[:80]!a} may not use this server: allow them by --allow-origin")
        if self.keys and path not in self.open_paths and not self.knows(_key_of(headers)):
            raise Refused(401, "no key, or an unknown one: send the header Authorization: Bearer KEY")

    def allows_origin(self, origin: str) -> bool:
        """True if pages of this site may read answers."""
        return origin.lower() in self.origins

    def knows(self, key: str) -> bool:
        """True if `key` is one of the keys. The time does not depend on the key."""
        digest = _digest(key)
        matches = [hmac.compare_digest(digest, known) for known in self.keys]  # all of them: no early end
        return any(matches)


def read_keys(path: str | Path) -> tuple[bytes, ...]:
    """The digests of the keys in a file, one a line.

    Raises UsageError if there is none, and for one that is short or that no header can carry.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is not UTF-8"
        raise UsageError(f"cannot read the keys in {path}: {reason}") from None
    keys = [line.strip() for line in lines if line.strip()]
    if not keys:
        raise UsageError(f"{path} holds no key: write one of {_LEAST_KEY} characters or more on a line")
    if any(len(key) < _LEAST_KEY for key in keys):
        raise UsageError(
            f"{path} holds a key of fewer than {_LEAST_KEY} characters, which can be guessed: use a longer one"
        )
    if not all(_KEY.fullmatch(key) for key in keys):
        raise UsageError(
            f"{path} holds a key with a space, or another character than ASCII's letters, digits and signs, which a "
            "header cannot carry: write another key"
        )
    return tuple(_digest(key) for key in keys)


def host_name(host: str) -> str:
    """The name in a `Host` header, in lower case and without its port; "" for a header that no client may send.

    Example: "[::1]:8080" -> "::1".
    """
    match = _HOST.fullmatch(host.strip().lower())
    return "" if match is None else match[1] or match[2].removesuffix(".")


def is_loopback(name: str) -> bool:
    """True for localhost and the addresses of loopback."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def allowed_hosts(names: Iterable[str]) -> frozenset[str]:
    """Names of hosts as they are compared. Raises UsageError for what no `Host` header can name."""
    hosts = set()
    for name in names:
        host = name.strip().lower().removesuffix(".")
        if not host or host_name(f"[{host}]" if ":" in host else host) != host:
            raise UsageError(
                f"--allow-host {name!a} is no name of a host: give it without scheme, port and path, such as box.lan"
            )
        hosts.add(host)
    return frozenset(hosts)


def allowed_origins(names: Sequence[str]) -> frozenset[str]:
    """Sites as they are compared with `Origin`. Raises UsageError for what no browser sends."""
    sites = [name.strip().rstrip("/").lower() for name in names]
    for name, site in zip(names, sites, strict=True):
        if not _SITE.fullmatch(site):
            raise UsageError(
                f"--allow-origin {name!a} is no site: give its scheme, host and port, such as http://localhost:3000"
            )
    return frozenset(sites)


def _own(host: str) -> tuple[str, str]:
    """The sites of the server's own page."""
    return f"http://{host.lower()}", f"https://{host.lower()}"


def _key_of(headers: Mapping[str, str]) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "replace")).digest()
