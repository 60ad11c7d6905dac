"""Rankings on a terminal: rank, change of rank, score bar, id, and the part of the text with the query's terms."""

from __future__ import annotations

from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dearlite.ranking import Hit, Ranking
from dearlite.render.snippet import plain, query_terms, snippet, term_spans

_BAR_WIDTH = 8
_DISAGREE = 5  # two stages disagree if their ranks of a document differ by at least this much
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def print_ranking(ranking: Ranking, stream: TextIO) -> None:
    """Prints `ranking` to `stream`, in colour if it is a terminal and NO_COLOR is unset."""
    console = Console(file=stream, highlight=False)
    console.print(ranking_table(ranking, console.width))


def ranking_table(ranking: Ranking, width: int = 100) -> Table:
    """A rich Table of the ranking for a terminal of `width` columns."""
    terms = query_terms(ranking.query)
    with_ids = any(hit.id is not None for hit in ranking)
    scores = [hit.score for hit in ranking if hit.score is not None]
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    table = Table(box=SIMPLE_HEAD, title=_title(ranking), title_justify="left", pad_edge=False, expand=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("moved", justify="right", no_wrap=True)
    staged = len(ranking.stages) > 1  # scores of two models do not compare: show the ranks instead
    table.add_column("by stage" if staged else "score", no_wrap=True)
    if with_ids:
        table.add_column("id", no_wrap=True, overflow="ellipsis", max_width=max(8, width // 6))
    table.add_column("document", overflow="fold")
    ids = max((len(plain(hit.id or "")) for hit in ranking), default=0)
    room = max(20, width - 32 - (min(ids, width // 6) + 2 if with_ids else 0))
    for hit in ranking:
        score = _ranks(hit, len(ranking.stages)) if staged else _score(hit.score, low, high)
        cells = [Text(str(hit.rank)), _movement(hit), score]
        if with_ids:
            cells.append(Text(plain(hit.id or "")))
        table.add_row(*cells, _document(hit, terms, 2 * room - 4))
    return table


def _title(ranking: Ranking) -> Text:
    title = Text(plain(snippet(ranking.query, set(), 200)), style="bold")
    if len(ranking) < ranking.total:
        title.append(f"  (best {len(ranking)} of {ranking.total})", style="not bold dim")
    return title


def _movement(hit: Hit) -> Text:
    """The number of ranks that the document moved up or down from the caller's order."""
    moved = hit.index + 1 - hit.rank
    if moved == 0:
        return Text("·", style="dim")
    return Text(f"▲ {moved}", style="green") if moved > 0 else Text(f"▼ {-moved}", style="red")


def _score(score: float | None, low: float, high: float) -> Text:
    """The score as a bar, from the lowest to the highest score shown, and as a number."""
    if score is None:
        return Text("not scored", style="dim")
    share = 1.0 if high == low else (score - low) / (high - low)
    eighths = round(share * _BAR_WIDTH * 8)
    bar = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    return Text.assemble((f"{bar:<{_BAR_WIDTH}}", "cyan"), f" {score:7.3f}")


def _ranks(hit: Hit, stages: int) -> Text:
    """The rank from each stage, in the order of stages; ≠ marks a document on which the last two disagree."""
    ranks = [stage.rank for stage in hit.stages]
    text = Text(" → ".join(map(str, ranks)) if ranks else "not scored", style="cyan" if ranks else "dim")
    if len(ranks) == stages and abs(ranks[-1] - ranks[-2]) >= _DISAGREE:
        text.append("  ≠", style="bold red")
    return text


def _document(hit: Hit, terms: set[str], width: int) -> Text:
    title = plain(hit.title)
    text = Text(title, style="bold")
    if title and hit.text:
        text.append("  ", style="not bold")
    start, end = hit.passage or (0, len(hit.text))
    body = snippet(plain(hit.text[start:end]), terms, max(40, width - len(title)))
    shift = len(text)
    text.append(body, style="not bold")
    for a, b in term_spans(body, terms):
        text.stylize("bold yellow", shift + a, shift + b)
    if end - start < len(hit.text):
        text.append(f" [characters {start:,} to {end:,} of {len(hit.text):,}]", style="not bold dim")
    if hit.reason:
        text.append(f"\n→ {snippet(plain(hit.reason), terms, 2 * width)}", style="not bold italic dim")
    if hit.truncated:
        total = f"at least {hit.tokens_total}" if hit.tokens_total_is_bound else hit.tokens_total
        text.append(f" [read {hit.tokens_used} of {total} tokens]", style="not bold dim")
    return text
