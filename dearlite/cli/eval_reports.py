"""The files that `dearlite eval` writes: JSON, CSV, LaTeX, an HTML report and a plot."""

from __future__ import annotations

from dataclasses import dataclass

from dearlite.cli.streams import has_stdout
from dearlite.files.targets import ending_of, leads_to_stdout
from dearlite.files.writing import write_text
from dearlite.offline.evaluation.evaluation import Evaluation
from dearlite.render.plot import check_plot, write_plot

_ENDINGS = {
    "--json": ("json",),
    "--csv": ("csv",),
    "--latex": ("tex", "latex", "txt"),
    "--per-query": ("csv",),
    "--per-query-long": ("csv",),
    "--report": ("html", "htm"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """The files that an evaluation is written to, "-" for stdout, None for none."""

    json: str | None
    csv: str | None
    latex: str | None
    per_query: str | None
    per_query_long: str | None
    report: str | None
    plot: str | None

    def paths(self) -> dict[str, str]:
        """Option -> path of each file that is written."""
        paths = {
            "--json": self.json,
            "--csv": self.csv,
            "--latex": self.latex,
            "--per-query": self.per_query,
            "--per-query-long": self.per_query_long,
            "--report": self.report,
            "--plot": self.plot,
        }
        return {option: path for option, path in paths.items() if path is not None}

    def check_endings(self) -> None:
        """Raises UsageError for a file whose ending is that of another format."""
        for option, path in self.paths().items():
            if option == "--plot":
                check_plot(path)
            else:
                ending_of(path, _ENDINGS[option], remedy=f", each also .gz, for {option}")


def write_reports(evaluation: Evaluation, reports: Reports) -> None:
    """Writes the files, and the table to stdout if no file is stdout."""
    from dearlite.render import evaluation as render

    if reports.json is not None:
        write_text(reports.json, render.evaluation_json(evaluation), json=True)
    if reports.csv is not None:
        write_text(reports.csv, render.evaluation_csv(evaluation))
    if reports.per_query is not None:
        write_text(reports.per_query, render.per_query_csv(evaluation))
    if reports.per_query_long is not None:
        write_text(reports.per_query_long, render.per_query_long_csv(evaluation))
    if reports.latex is not None:
        write_text(reports.latex, render.evaluation_latex(evaluation))
    if reports.report is not None:
        from dearlite.render.report import report_html

        write_text(reports.report, report_html(evaluation))
    if has_stdout() and not any(map(leads_to_stdout, reports.paths().values())):
        render.print_evaluation(evaluation)
    if reports.plot is not None:
        write_plot(evaluation, reports.plot)
