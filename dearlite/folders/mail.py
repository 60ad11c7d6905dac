"""A mail (`.eml`): subject, sender, date and the text, by the standard library. Attachments are not opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dearlite.errors import first_line
from dearlite.folders.content import Content, Unreadable
from dearlite.folders.encodings import decode
from dearlite.folders.pages import read_html

if TYPE_CHECKING:
    from email.message import EmailMessage

_LONGEST = 4_000  # characters of a header: the time of the parser grows with their square
_HEADERS = ("Subject", "From", "Date")


def read_mail(data: bytes) -> Content:
    """The content of a mail: its text part, else its HTML part. It has no lines: what is read was decoded."""
    from email import message_from_bytes, policy  # not for every `dearlite rerank`: it takes as long as the rest
    from email.headerregistry import HeaderRegistry

    known = HeaderRegistry()

    def header(name: str, value: str) -> Any:
        return known(name, value[:_LONGEST])

    try:
        message = message_from_bytes(data, policy=policy.default.clone(header_factory=header))
        headers = {name: _line(message.get(name)) for name in _HEADERS}
        cut = [name for name, value in message.raw_items() if name in _HEADERS and len(str(value)) > _LONGEST]
        body, note = _body(message)
    except Unreadable:
        raise
    except Exception as err:  # the parser of headers fails on damaged ones in many ways
        raise Unreadable(f"is no mail that can be read ({first_line(err)})") from None
    if not any(headers.values()) and not body.strip():
        raise Unreadable("is no mail: it has no header and no text")
    note = "; ".join(filter(None, [note, *(f"its {name} was cut at {_LONGEST:,} characters" for name in cut)]))
    head = "\n".join(f"{name}: {value}" for name, value in headers.items() if value)
    return Content(f"{head}\n\n{body}" if head else body, title=headers["Subject"], note=note)


def _line(value: object) -> str:
    return " ".join(str(value).split()) if value else ""


def _body(message: EmailMessage) -> tuple[str, str]:
    part = message.get_body(preferencelist=("plain", "html"))
    if part is None:
        return "", ""
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    charset = part.get_content_charset("")
    if part.get_content_type() == "text/html":
        page = read_html(data)
        return page.text, page.note
    return decode(data, charset)
