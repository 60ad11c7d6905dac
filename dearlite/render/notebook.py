"""A ranking as HTML, for a notebook. All texts are escaped."""

from __future__ import annotations

from html import escape

from dearlite.errors import counted
from dearlite.ranking import Hit, Ranking
from dearlite.render.scale import Scale, movement, scale_of
from dearlite.render.snippet import mark_terms, plain, query_terms, snippet

_CELL = "text-align:left;vertical-align:top"
# An id of a path or an address is cut, not broken at its hyphens, and leaves the width to the document.
_ID = f"{_CELL};max-width:12em;white-space:nowrap;overflow:hidden;text-overflow:ellipsis"
_TRACK = "width:5em;height:.6em;border-radius:.3em;background:rgba(128,128,128,.25);margin-top:.35em"


def ranking_html(ranking: Ranking) -> str:
    """An HTML table of the ranking; a sentence if it has no hits."""
    documents = counted(ranking.total, "document")
    note = escape(f"{ranking.model} on {ranking.device}, {documents} in {ranking.elapsed_s:.2f} s")
    query = escape(plain(ranking.query))
    if not ranking:
        return f"<p>{query} <small>({note})</small><br>None of the {documents} is relevant enough.</p>"
    terms, scale = query_terms(ranking.query), scale_of(ranking)
    names = ["#", "moved", scale.name, *(["score"] if scale.relevance else []), "id", "document"]
    head = "".join(f"<th style='{_CELL}'>{name}</th>" for name in names)
    body = "".join(f"<tr>{_row(hit, scale, terms)}</tr>" for hit in ranking)
    caption = f"<caption>{query} <small>({note}{'; ' if scale.note else ''}{escape(scale.note)})</small></caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(hit: Hit, scale: Scale, terms: set[str]) -> str:
    moved, score = movement(hit), hit.score
    arrow = f"▲ {moved}" if moved > 0 else f"▼ {-moved}" if moved < 0 else "·"
    cells = [str(hit.rank), arrow, _measured(hit, scale)]
    if scale.relevance:
        cells.append("" if score is None else f"<span style='opacity:.6'>{score:.3f}</span>")
    name = escape(plain(hit.id or ""), quote=True)
    title = f"<b>{escape(plain(hit.title))}</b> " if hit.title else ""
    text = mark_terms(snippet(plain(hit.text), terms, 240), terms)
    shown = "".join(f"<td style='{_CELL}'>{cell}</td>" for cell in cells)
    return f"{shown}<td style='{_ID}' title='{name}'>{name}</td><td style='{_CELL}'>{title}{text}</td>"


def _measured(hit: Hit, scale: Scale) -> str:
    """The relevance or the score as a number, with a bar below it where there is one."""
    number, share = scale.number(hit), scale.share(hit)
    if not number:
        return "<i>not scored</i>" if hit.score is None else ""
    if share is None:
        return number
    bar = f"width:{100 * share:.0f}%;height:100%;border-radius:.3em;background:#2a7fb8"
    return f"{number}<div style='{_TRACK}'><div style='{bar}'></div></div>"
