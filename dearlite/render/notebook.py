"""A ranking as HTML, for a notebook. All texts are escaped."""

from __future__ import annotations

from html import escape

from dearlite.errors import counted
from dearlite.ranking import Hit, Ranking
from dearlite.render.notes import notes_of
from dearlite.render.scale import Scale, movement, scale_of
from dearlite.render.snippet import mark_terms, plain, query_terms, snippet, without_title
from dearlite.render.table import more_passages, place_name

_CELL = "text-align:left;vertical-align:top"
# An id of a path or an address is cut, not broken at its hyphens, and leaves the width to the document.
_ID = f"{_CELL};max-width:12em;white-space:nowrap;overflow:hidden;text-overflow:ellipsis"
_PLACE = f"{_CELL};white-space:nowrap"
_PLACE_COLUMNS = 40
_QUERY_CHARACTERS = 60  # of the query that a document answers
_TRACK = "width:5em;height:.6em;border-radius:.3em;background:rgba(128,128,128,.25);margin-top:.35em"


def ranking_html(ranking: Ranking) -> str:
    """An HTML table of the ranking; a sentence if it has no hits."""
    documents = counted(ranking.total, "document")
    note = escape(f"{ranking.model} on {ranking.device}, {documents} in {ranking.elapsed_s:.2f} s")
    note += "" if ranking.fusion is None else f"; fused by {escape(ranking.fusion)}"
    query = escape(plain(ranking.query))
    if not ranking:
        return f"<p>{query} <small>({note})</small><br>None of the {documents} is relevant enough.</p>"
    terms, scale = query_terms(ranking.query), scale_of(ranking)
    passages = any(hasattr(hit.document, "place_fields") for hit in ranking)  # of files, in the order of their names
    named = passages or any(hit.id is not None for hit in ranking)
    names = ["#", *([] if passages else ["moved"]), scale.name, *(["score"] if scale.relevance else [])]
    names += [*(["place" if passages else "id"] if named else []), "document"]
    head = "".join(f"<th style='{_CELL}'>{name}</th>" for name in names)
    body = "".join(f"<tr>{_row(hit, scale, terms, passages=passages, named=named)}</tr>" for hit in ranking)
    notes = "; ".join([note, *(escape(line) for line in (scale.note, *notes_of(ranking)) if line)])
    caption = f"<caption>{query} <small>({notes})</small></caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(hit: Hit, scale: Scale, terms: set[str], *, passages: bool, named: bool) -> str:
    moved, score = movement(hit), hit.score
    arrow = f"▲ {moved}" if moved > 0 else f"▼ {-moved}" if moved < 0 else "·"
    cells = [str(hit.rank), *([] if passages else [arrow]), _measured(hit, scale)]
    if scale.relevance:
        cells.append("" if score is None else f"<span style='opacity:.6'>{score:.3f}</span>")
    title = f"<b>{escape(plain(hit.title))}</b> " if hit.title else ""
    text = mark_terms(snippet(plain(without_title(hit.text, hit.title)), terms, 240), terms)
    notes = [more_passages(hit)] if hit.more else []
    if hit.best_query is not None:
        notes.append(f"nearest query: {snippet(plain(hit.best_query), terms, _QUERY_CHARACTERS)}")
    faint = "".join(f" <small style='opacity:.6'>[{escape(note)}]</small>" for note in notes)
    shown = "".join(f"<td style='{_CELL}'>{cell}</td>" for cell in cells)
    name = _name(hit, passages=passages) if named else ""
    return f"{shown}{name}<td style='{_CELL}'>{title}{text}{faint}</td>"


def _name(hit: Hit, *, passages: bool) -> str:
    """The cell of the id; of a passage its place, as a link to the file."""
    name = escape(plain(hit.id or ""), quote=True)
    if not passages:
        return f"<td style='{_ID}' title='{name}'>{name}</td>"
    shown, uri = escape(place_name(hit, _PLACE_COLUMNS)), getattr(hit.document, "uri", None)
    link = shown if uri is None else f"<a href='{escape(uri, quote=True)}'>{shown}</a>"
    return f"<td style='{_PLACE}' title='{name}'>{link}</td>"


def _measured(hit: Hit, scale: Scale) -> str:
    """The relevance or the score as a number, with a bar below it where there is one."""
    number, share = scale.number(hit), scale.share(hit)
    if not number:
        return "<i>not scored</i>" if hit.score is None else ""
    if share is None:
        return number
    bar = f"width:{100 * share:.0f}%;height:100%;border-radius:.3em;background:#2a7fb8"
    return f"{number}<div style='{_TRACK}'><div style='{bar}'></div></div>"
