"""Templates: the words of a prompt around a query, a document and an instruction, as data.

A template is a list of parts. Each part becomes tokens by itself, as its makers' code does it, so that parts say where
texts are tokenised together and where not. In a part, `{query}`, `{document}` and `{instruction}` are slots, and `{{`
and `}}` stand for braces. Special tokens come from a part's own words only: what fills a slot is plain text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from string import Formatter
from typing import Any

from dearlite.errors import ModelFileError

SLOTS = ("query", "document", "instruction")
_NEEDED = ("query", "document")


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The words of a prompt. Only the document is cut to fit; the words after it are always complete.

    - `parts`: the words with the slots query and document, for a call without an instruction.
    - `instructed`: the words with the slot instruction too. Empty: the model takes no instruction.
    - `instruction`: the instruction of a call without one. Empty: such a call uses `parts`.
    - `max_query_tokens`: tokens at which the text of the query's part is cut, where the makers cut it. None: a query
      that leaves no room for a document is refused.

    Raises ModelFileError for parts that have not each slot once, or slots that do not exist.
    """

    parts: tuple[str, ...]
    instructed: tuple[str, ...] = ()
    instruction: str = ""
    max_query_tokens: int | None = None

    def __post_init__(self) -> None:
        _check_slots(self.parts, _NEEDED)
        if self.instructed:
            _check_slots(self.instructed, SLOTS)
        elif self.instruction:
            raise ModelFileError("the template has a default instruction and no slot {instruction} for it")
        if self.max_query_tokens is not None and any("{query}" in part and "{document}" in part for part in self.parts):
            raise ModelFileError("the template cuts the query, which stands in one part with the document: part them")

    @property
    def takes_instruction(self) -> bool:
        """True if the words have a place for an instruction."""
        return bool(self.instructed)

    def words(self, instruction: str | None) -> tuple[tuple[str, ...], str]:
        """The parts of a call, and the instruction that fills their slot; None stands for the template's own."""
        text = self.instruction if instruction is None else instruction
        return (self.instructed, text) if text else (self.parts, "")

    def record(self) -> dict[str, Any]:
        """The template as a JSON object. `read_template` reads it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def read_template(record: Any, where: str) -> Template:
    """The Template of a JSON object. Raises ModelFileError, whose message begins with `where`."""
    if not isinstance(record, Mapping):
        raise ModelFileError(f"{where}: its template is no object: export the model again")
    texts = {name: record.get(name) for name in ("parts", "instructed")}
    names = Template.__dataclass_fields__.keys()
    limit = record.get("max_query_tokens")
    if (
        set(record) != set(names)
        or not all(isinstance(value, list) and all(isinstance(part, str) for part in value) for value in texts.values())
        or not isinstance(record["instruction"], str)
        or not (limit is None or (type(limit) is int and limit > 0))
    ):
        raise ModelFileError(f"{where}: its template does not have the fields {', '.join(names)}: export it again")
    try:
        return Template(**{**record, **{name: tuple(value) for name, value in texts.items() if value is not None}})
    except ModelFileError as err:
        raise ModelFileError(f"{where}: {err}: export the model again") from None


def pieces_of(part: str) -> list[tuple[str, str]]:
    """The words of a part and the slot after them, "" after the last words. Raises ModelFileError for bad braces.

    Example: "query: {query} ??" -> [("query: ", "query"), (" ??", "")].
    """
    try:
        return [(words, slot or "") for words, slot, _, _ in Formatter().parse(part)]
    except ValueError as err:
        raise ModelFileError(f"the template has a brace without its partner ({err}) in {part[:40]!r}") from None


def escaped(text: str) -> str:
    """`text` as words of a part: its braces are no slots."""
    return text.replace("{", "{{").replace("}", "}}")


def _check_slots(parts: Sequence[str], needed: Sequence[str]) -> None:
    slots = [slot for part in parts for _, slot in pieces_of(part) if slot]
    if unknown := [slot for slot in slots if slot not in needed]:
        raise ModelFileError(f"the template has a slot {{{unknown[0]}}}, and only {', '.join(needed)} exist here")
    for name in needed:
        if slots.count(name) != 1:
            count = "no slot" if name not in slots else f"{slots.count(name)} slots"
            raise ModelFileError(f"the template has {count} {{{name}}}: it needs one")
