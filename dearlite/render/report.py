"""An evaluation as one self-contained HTML page: no script, no network access, all texts escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib import resources

from dearlite.errors import counted
from dearlite.offline.evaluation.evaluation import Evaluation, System
from dearlite.offline.evaluation.measures import without_ties
from dearlite.render.charts import Bar, Point, gain_chart, time_chart
from dearlite.render.evaluation import best_values, difference_lines, is_significant, number, p_text
from dearlite.render.snippet import mark_terms, plain, query_terms, snippet

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_LOST_QUERIES = 5  # shown in detail
_DOCUMENTS = 5  # shown for each of the two runs
_NO_TEXTS = "Documents have their ids alone: runs were compared without a corpus, which has the texts."
_MEANINGS = {
    "nDCG": "sum of the grades, discounted by rank, divided by that of the ideal order of all judged documents",
    "RR": "reciprocal of the rank of the first relevant document",
    "AP": "precision at the rank of each relevant document, averaged over all relevant documents",
    "R": "share of the relevant documents within the cut-off",
    "P": "share of the documents within the cut-off that are relevant",
    "Success": "1 if a relevant document is within the cut-off, else 0",
}


def report_html(evaluation: Evaluation) -> str:
    """The HTML page. It loads nothing; a content security policy in its head forbids it."""
    style = resources.files("dearlite.render").joinpath("report.css").read_text(encoding="utf-8")
    sections = (
        ("Results", _results(evaluation)),
        ("Gain and loss per query", _gains(evaluation)),
        ("Quality and time", _times(evaluation)),
        ("The queries with the largest loss", _worst(evaluation)),
        ("How to reproduce it", _reproduce(evaluation)),
        ("Notes on the measures", _notes(evaluation)),
    )
    body = "".join(f"<section><h2>{title}</h2>{html}</section>" for title, html in sections if html)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{_text(evaluation.name)}: {_text(evaluation.subject)}</title><link rel="icon" href="data:,">'
        f"<style>{style}</style></head><body><main>{_head(evaluation)}{body}</main></body></html>\n"
    )


def _head(evaluation: Evaluation) -> str:
    measure, subject = evaluation.main_measure, evaluation.subject
    value = evaluation.values[subject][measure]
    headline = f"<b>{measure} {value:.4f}</b>"
    if (first := _first_stage(evaluation)) is not None:
        comparison = evaluation.comparison(first, measure)
        if comparison is not None:
            before = evaluation.values[first][measure]
            headline = (
                f"{_text(measure)} <b>{before:.4f} → {value:.4f}</b> "
                f'<span class="{"up" if comparison.delta >= 0 else "down"}">{comparison.delta:+.4f}</span>, '
                f"p {p_text(comparison.p_holm)}: "
                f"{counted(comparison.wins, 'query')} better, {comparison.ties} the same, {comparison.losses} worse"
            )
    return (
        f"<header><p class=kicker>{_text(evaluation.name)}, {counted(len(evaluation.qrels), 'query')}</p>"
        f"<h1>{_text(subject)}</h1><p class=lead>{headline}</p></header>"
    )


def _results(evaluation: Evaluation) -> str:
    best = best_values(evaluation)
    timed = any(system.seconds_per_query is not None for system in evaluation.systems)
    head = ["system", *evaluation.measures, *(["s/query", "tokens/s"] if timed else [])]
    rows = []
    for system in evaluation.systems:
        cells = []
        for measure in evaluation.measures:
            value = evaluation.values[system.name].get(measure)
            text = number(value, 4) + ("†" if is_significant(evaluation, system, measure) else "")
            bold = system.run is not None and value == best[measure]
            cells.append(f"<td>{f'<b>{text}</b>' if bold else text}</td>")
        if timed:
            cells.append(
                f"<td>{number(system.seconds_per_query, 3)}</td><td>{number(system.tokens_per_second, 0)}</td>"
            )
        role = "" if system.role in ("reranked", system.name) else f" <small>{system.role}</small>"
        kind = "subject" if system.name == evaluation.subject else system.role.replace(" ", "-")
        rows.append(f'<tr class="{kind}"><th scope="row">{_text(system.name)}{role}</th>{"".join(cells)}</tr>')
    titles = "".join(f'<th scope="col">{_text(name)}</th>' for name in head)
    lines = "".join(f"<li>{_text(line)}</li>" for line in difference_lines(evaluation))
    return (
        f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f"<ul>{lines}</ul>"
    )


def _gains(evaluation: Evaluation) -> str:
    first = _first_stage(evaluation)
    if first is None:
        return ""
    measure = evaluation.main_measure
    bars = [
        Bar(delta, plain(f"{query_id} {evaluation.queries.get(query_id, '')}")[:160])
        for query_id, delta in evaluation.deltas(first, measure).items()
    ]
    title = f"{measure} per query: difference from {plain(first)}"
    return f"<figure>{gain_chart(bars, title)}<figcaption>{_text(title)}</figcaption></figure>"


def _times(evaluation: Evaluation) -> str:
    measure, points = evaluation.main_measure, []
    for system in evaluation.systems:
        value = evaluation.values[system.name].get(measure)
        if value is not None:
            kind = "subject" if system.name == evaluation.subject else "published" if system.run is None else "run"
            points.append(Point(plain(system.name), value, system.seconds_per_query, kind))
    if not any(point.seconds for point in points):
        return ""
    title = f"{measure} over seconds per query"
    note = "Dashed: time unknown. Grey: as published, on the authors' machine."
    return f"<figure>{time_chart(points, title, measure)}<figcaption>{_text(title)}. {note}</figcaption></figure>"


def _worst(evaluation: Evaluation) -> str:
    first = _first_stage(evaluation)
    if first is None:
        return ""
    measure = evaluation.main_measure
    deltas = sorted(evaluation.deltas(first, measure).items(), key=lambda pair: pair[1])
    lost = [_query(evaluation, first, query_id, delta) for query_id, delta in deltas[:_LOST_QUERIES] if delta < 0]
    if not lost:
        return "<p>No query lost.</p>"
    return ("" if evaluation.documents else f"<p>{_NO_TEXTS}</p>") + "".join(lost)


def _query(evaluation: Evaluation, first: str, query_id: str, delta: float) -> str:
    query = evaluation.queries.get(query_id, "")
    sides = []
    for title, name in (("before", first), ("after", evaluation.subject)):
        run = evaluation.system(name).run or {}
        order = list(without_ties(run.get(query_id, {}), "rank"))[:_DOCUMENTS]
        value = evaluation.per_query[name][evaluation.main_measure][query_id]
        items = (
            "".join(_document(evaluation, query_id, query, document_id) for document_id in order)
            or "<li>no documents</li>"
        )
        sides.append(
            f"<div><h4>{title}: {_text(name)} <small>{_text(evaluation.main_measure)} {value:.4f}</small></h4>"
            f"<ol>{items}</ol></div>"
        )
    return (
        f'<article><h3 dir="auto">{_text(query) or "query"} <small>{_text(query_id)}</small> '
        f'<span class="down">{delta:+.4f}</span></h3><div class="sides">{"".join(sides)}</div></article>'
    )


def _document(evaluation: Evaluation, query_id: str, query: str, document_id: str) -> str:
    title, text = evaluation.documents.get(document_id, ("", ""))
    grade = evaluation.qrels.get(query_id, {}).get(document_id)
    kind = "none" if grade is None else "good" if grade > 0 else "bad"
    judgement = "not judged" if grade is None else f"grade {grade}"
    terms = query_terms(query)
    shown = snippet(plain(text), terms, 220)
    full_text = f"<details><summary>whole text</summary><p>{_text(text)}</p></details>" if shown != plain(text) else ""
    heading = f"<b>{_text(title)}</b> " if title else ""
    return (
        f'<li dir="auto"><span class="grade {kind}">{judgement}</span> <code>{_text(document_id)}</code> '
        f"{heading}{mark_terms(shown, terms)}{full_text}</li>"
    )


def _reproduce(evaluation: Evaluation) -> str:
    facts = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td>{_text(str(value))}</td></tr>'
        for name, value in evaluation.facts.items()
    )
    command = f"<pre>{_text(evaluation.command)}</pre>" if evaluation.command else ""
    return f'{command}<div class="wide"><table class="facts"><tbody>{facts}</tbody></table></div>'


def _notes(evaluation: Evaluation) -> str:
    kinds = dict.fromkeys(measure.split("@")[0].split("(")[0] for measure in evaluation.measures)
    meanings = [f"{kind}: {_MEANINGS[kind]}" for kind in kinds if kind in _MEANINGS]
    return _list(
        (*evaluation.notes, *meanings, "measures: those of trec_eval, through ir-measures; means over all queries")
    )


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _first_stage(evaluation: Evaluation) -> str | None:
    """The system that the subject is compared with: the first stage, else the first other run; None without one."""
    others: list[System] = [
        system for system in evaluation.systems if system.run is not None and system.name != evaluation.subject
    ]
    first_stages = (system.name for system in others if system.role == "first stage")
    return next(first_stages, others[0].name if others else None)


def _text(text: str) -> str:
    return escape(plain(text))
