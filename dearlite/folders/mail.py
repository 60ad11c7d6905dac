"""A mail (`.eml`): subject, sender, date and the text, by the standard library. Attachments are not opened."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from dearlite.errors import first_line
from dearlite.folders.content import Content, Unreadable
from dearlite.folders.encodings import decode
from dearlite.folders.pages import read_html

if TYPE_CHECKING:
    from email.message import Message

_LONGEST = 4_000  # characters of a header: the time of the parser grows with their square
_HEADERS = ("Subject", "From", "Date")
_BOUNDARY = re.compile(rb"boundary\s*[*=]", re.IGNORECASE)
_MOST_WORK = 10_000_000  # lines times the parts that may be nested: the parser compares each line with each boundary


def read_mail(data: bytes) -> Content:
    """The content of a mail: its text part, else its HTML part. It has no lines: what is read was decoded."""
    from email import message_from_bytes, policy  # not for every `dearlite rerank`: it takes as long as the rest

    lines, nested = data.count(b"\n") + data.count(b"\r"), len(_BOUNDARY.findall(data))
    if lines * nested > _MOST_WORK:
        raise Unreadable(f"has {lines:,} lines in {nested:,} nested parts: not read")
    try:
        # this policy reads no header that is not asked for: of 10,000 parts they would take a minute
        message: Message = message_from_bytes(data, policy=policy.compat32)
        raw = {name.title(): str(value) for name, value in reversed(list(message.raw_items()))}
        parse = policy.default.header_factory
        headers = {
            name: " ".join(str(parse(name, " ".join(raw[name][:_LONGEST].splitlines()))).split())
            for name in _HEADERS
            if name in raw
        }
        body, note = _body(message)
    except Unreadable:
        raise
    except RecursionError:
        raise Unreadable("is no mail that can be read (its parts are nested too deep)") from None
    except Exception as err:  # the parser of headers fails on damaged ones in many ways
        raise Unreadable(f"is no mail that can be read ({first_line(err)})") from None
    if not any(headers.values()) and not body.strip():
        raise Unreadable("is no mail: it has no header and no text")
    cut = [name for name in headers if len(raw[name]) > _LONGEST]
    note = "; ".join(filter(None, [note, *(f"its {name} was cut at {_LONGEST:,} characters" for name in cut)]))
    head = "\n".join(f"{name}: {value}" for name, value in headers.items() if value)
    return Content(f"{head}\n\n{body}" if head else body, title=headers.get("Subject", ""), note=note)


def _body(message: Message) -> tuple[str, str]:
    """The text of the first plain part, else of the first part in HTML, and a note."""
    parts = list(_texts(message))
    part = next((part for part in parts if part.get_content_type() != "text/html"), next(iter(parts), None))
    if part is None:
        return "", ""
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    if part.get_content_type() == "text/html":
        page = read_html(data)
        return page.text, page.note
    return decode(data, str(part.get_content_charset("")))


def _texts(message: Message) -> Iterator[Message]:
    """The parts of a mail that hold plain text or HTML, but no attachments and no other mails."""
    parts = [message]
    while parts:
        part = parts.pop()
        kind = part.get_content_type()
        if part.get_content_disposition() == "attachment":
            continue
        if not part.is_multipart():
            if kind in ("text/plain", "text/html") or kind.startswith("multipart/"):  # without a boundary
                yield part
        elif kind.startswith("multipart/"):
            inner = cast("list[Message]", part.get_payload())
            parts += reversed([_root(part, inner)] if kind == "multipart/related" else inner)


def _root(part: Message, inner: list[Message]) -> Message:
    """The part that is shown of a page and its pictures."""
    start = part.get_param("start")
    return next((other for other in inner if start and other.get("content-id") == start), inner[0])
