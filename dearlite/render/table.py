"""Rankings on a terminal: rank, change of rank, relevance, id, and the part of the text with the query's terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.table import Table
from rich.text import Text

from dearlite.errors import counted
from dearlite.ranking import Hit, Ranking
from dearlite.render.console import console_of
from dearlite.render.notes import notes_of
from dearlite.render.scale import Scale, movement, scale_of
from dearlite.render.snippet import plain, query_terms, snippet, term_spans, without_title

_BAR_WIDTH = 8
_DISAGREE = 5  # two stages disagree if their ranks of a document differ by at least this much
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BETWEEN = 3  # spaces between two columns
_NARROW = 70  # columns of a terminal, below which bars and movements are left out
_WIDE = 90  # from which the raw score stands beside the relevance
_MORE = 3  # places of a file's other passages
_LEAST_ROOM = 20  # columns of the documents' text, by which its length is chosen
_LEAST_PLACE = 8  # columns of the place of a passage, which leaves room for its text
_LEAST_TEXT = 16  # with fewer, other columns are left out
_EDGES = 2  # columns beside the table


@dataclass(frozen=True, slots=True)
class RankingView:
    """A rich renderable of a ranking: the query, the table, and its notes, of which `note` is the last.

    It has the width of the console that prints it. `short`: the text of a document is a line, without its title.
    """

    ranking: Ranking
    note: str = ""
    short: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ranking, width = self.ranking, options.max_width
        yield ranking_title(ranking)
        if not ranking:
            yield Text(f"None of the {counted(ranking.total, 'document')} is relevant enough.", style="dim")
            return
        scale, narrow, staged = scale_of(ranking), width < _NARROW, len(ranking.stages) > 1
        table = _rows(ranking, scale, width, narrow=narrow, staged=staged, short=self.short)
        yield table
        measured = any(column.header == scale.name for column in table.columns)
        notes = ["" if narrow or staged else scale.note, *(notes_of(ranking) if measured else ()), self.note]
        yield from (Text(line, style="dim") for line in notes if line)


def ranking_table(ranking: Ranking) -> RankingView:
    """The ranking as a rich renderable."""
    return RankingView(ranking)


def print_ranking(ranking: Ranking, stream: TextIO, note: str = "") -> None:
    """Prints `ranking` to `stream`, in colour if it is a terminal and NO_COLOR is unset. `note` is its last line."""
    console_of(stream).print(RankingView(ranking, note))


def ranking_text(ranking: Ranking, stream: TextIO, note: str = "", *, short: bool = False) -> str:
    """The text that `print_ranking` prints, with the escape codes of the terminal that `stream` is.

    `short`: with a line of each text.
    """
    console = console_of(stream)
    with console.capture() as capture:
        console.print(RankingView(ranking, note, short))
    return capture.get()


def _rows(ranking: Ranking, scale: Scale, width: int, *, narrow: bool, staged: bool, short: bool) -> Table:
    terms = query_terms(ranking.query)
    # header -> cells; the widths of all columns but the last are known, the last gets the rest
    columns: dict[str, list[Text]] = {"#": [Text(str(hit.rank)) for hit in ranking]}
    passages = any(hasattr(hit.document, "place_fields") for hit in ranking)  # of files, in the order of their names
    if not narrow and not passages:
        columns["moved"] = [_movement(hit) for hit in ranking]
    if staged:
        columns["by stage"] = [_ranks(hit, len(ranking.stages)) for hit in ranking]
    if not staged or scale.relevance:
        columns[scale.name] = [_measured(hit, scale, bar=not narrow and not staged) for hit in ranking]
    if scale.relevance and not staged and width >= _WIDE:
        columns["score"] = [_raw(hit) for hit in ranking]
    if passages:
        size = max(_LEAST_PLACE, min(max(_LEAST_ROOM, width // 3), width // 2 - _LEAST_PLACE))
        columns["place"] = [place_text(hit, size) for hit in ranking]
    elif any(hit.id is not None for hit in ranking):
        columns["id"] = [Text(plain(hit.id or "")) for hit in ranking]
    sizes = {name: max(len(name), *(cell.cell_len for cell in cells)) for name, cells in columns.items()}
    if "id" in sizes:
        sizes["id"] = min(sizes["id"], max(8, width // 6))
    for name in ("id", scale.name):  # a document that cannot be read says less than either
        if name in sizes and width - _EDGES - sum(size + _BETWEEN for size in sizes.values()) < _LEAST_TEXT:
            del sizes[name]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, expand=False)
    for name, size in sizes.items():
        right = name in ("#", "moved", "score") or (narrow and name == scale.name)
        table.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis", max_width=size)
    table.add_column("document", overflow="fold")
    room = width - _EDGES - sum(size + _BETWEEN for size in sizes.values())
    size = room if short else 2 * max(_LEAST_ROOM, room) - 4
    for row, hit in enumerate(ranking):
        table.add_row(*(columns[name][row] for name in sizes), _document(hit, terms, size, short=short))
    return table


def place_name(hit: Hit, size: int | None = None) -> str:
    """The place of a passage, of `size` columns at most: the head of a long path is cut, as lines stand at its end."""
    name = plain(hit.id or "")
    if size is not None and cell_len(name) > size:
        while cell_len(name) > size - 1:
            name = name[1:]
        name = f"…{name}"
    return name


def place_text(hit: Hit, size: int | None = None) -> Text:
    """`place_name` as a link to the file."""
    place = Text(place_name(hit, size))
    uri = getattr(hit.document, "uri", None)
    if uri:
        place.stylize(Style(link=uri))
    return place


def more_passages(hit: Hit) -> str:
    """The number of the file's other passages, and the places of the best of them in the file."""
    name = getattr(hit.document, "printable_path", "")
    places = ", ".join(plain(place.removeprefix(name).lstrip(": ")) for place in hit.more[:_MORE])
    return f"{len(hit.more)} more: {places}{', …' * (len(hit.more) > _MORE)}"


def ranking_title(ranking: Ranking) -> Text:
    """The query or queries, with the number of hits where they are not all, and the fusion of several queries."""
    title = Text(plain(snippet(ranking.query, set(), 200)), style="bold")
    if 0 < len(ranking) < ranking.total:
        grouped = any(hit.more for hit in ranking)
        count = (
            f"{len(ranking)} files, of {ranking.total} passages" if grouped else f"{len(ranking)} of {ranking.total}"
        )
        title.append(f"  (best {count})", style="not bold dim")
    if ranking.fusion is not None:
        title.append(f"  (fused by {ranking.fusion})", style="not bold dim")
    return title


def _movement(hit: Hit) -> Text:
    """The number of ranks that the document moved up or down from the caller's order."""
    moved = movement(hit)
    if moved == 0:
        return Text("·", style="dim")
    return Text(f"▲ {moved}", style="green") if moved > 0 else Text(f"▼ {-moved}", style="red")


def _measured(hit: Hit, scale: Scale, *, bar: bool) -> Text:
    """The relevance or the score as a number, with a bar before it where there is one."""
    number, share = scale.number(hit), scale.share(hit)
    if not number:  # a listwise stage gives no relevance
        return Text("not scored" if hit.score is None else "", style="dim")
    if not bar or (scale.low is None and not scale.relevance):
        return Text(number)
    eighths = round((share or 0.0) * _BAR_WIDTH * 8)
    blocks = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    return Text.assemble((f"{blocks:<{_BAR_WIDTH}}", "cyan"), f" {number:>{4 if scale.relevance else 7}}")


def _raw(hit: Hit) -> Text:
    """The raw score, dimmed: it means nothing across queries."""
    return Text("" if hit.score is None else f"{hit.score:.3f}", style="dim")


def _ranks(hit: Hit, stages: int) -> Text:
    """The rank from each stage, in the order of stages; ≠ marks a document on which the last two disagree."""
    ranks = [stage.rank for stage in hit.stages]
    text = Text(" → ".join(map(str, ranks)) if ranks else "not scored", style="cyan" if ranks else "dim")
    if len(ranks) == stages and abs(ranks[-1] - ranks[-2]) >= _DISAGREE:
        text.append("  ≠", style="bold red")
    return text


def _document(hit: Hit, terms: set[str], width: int, *, short: bool) -> Text:
    title = plain(hit.title)
    text = Text("" if short and hit.text else title, style="bold")
    if text and hit.text:
        text.append("  ", style="not bold")
    start, end = hit.passage or (0, len(hit.text))
    body = plain(without_title(hit.text[start:end], title))
    body = snippet(body, terms, max(4, width) if short else max(40, width - len(title)))
    shift = len(text)
    text.append(body, style="not bold")
    for a, b in term_spans(body, terms):
        text.stylize("bold yellow", shift + a, shift + b)
    if end - start < len(hit.text):
        text.append(f" [characters {start:,} to {end:,} of {len(hit.text):,}]", style="not bold dim")
    if hit.more:
        text.append(f" [{more_passages(hit)}]", style="not bold dim")
    if hit.best_query is not None:
        text.append(f" [nearest query: {snippet(plain(hit.best_query), terms, 40)}]", style="not bold dim")
    if hit.reason:
        text.append(f"\n→ {snippet(plain(hit.reason), terms, 2 * width)}", style="not bold italic dim")
    if hit.truncated:
        total = f"at least {hit.tokens_total}" if hit.tokens_total_is_bound else hit.tokens_total
        text.append(f" [read {hit.tokens_used} of {total} tokens]", style="not bold dim")
    return text
