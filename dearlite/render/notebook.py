"""A ranking as HTML, for a notebook. All texts are escaped."""

from __future__ import annotations

from html import escape

from dearlite.ranking import Ranking
from dearlite.render.snippet import mark_terms, plain, query_terms, snippet


def ranking_html(ranking: Ranking) -> str:
    """An HTML table of the ranking."""
    terms = query_terms(ranking.query)
    rows = []
    for hit in ranking:
        moved = hit.index + 1 - hit.rank
        arrow = f"▲ {moved}" if moved > 0 else f"▼ {-moved}" if moved < 0 else "·"
        title = f"<b>{escape(plain(hit.title))}</b> " if hit.title else ""
        text = mark_terms(snippet(plain(hit.text), terms, 240), terms)
        score = "not scored" if hit.score is None else f"{hit.score:.3f}"
        cells = (str(hit.rank), arrow, score, escape(plain(hit.id or "")), title + text)
        rows.append("<tr>" + "".join(f"<td style='text-align:left'>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th style='text-align:left'>{name}</th>" for name in ("#", "moved", "score", "id", "document"))
    note = escape(f"{ranking.model} on {ranking.device}, {ranking.total} documents in {ranking.elapsed_s:.2f} s")
    caption = f"<caption>{escape(plain(ranking.query))} <small>({note})</small></caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
