"""The HTML report: it loads nothing, escapes all texts, and opens without messages in the console."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dearlite.offline.evaluation.evaluation import System, compare
from dearlite.render.report import report_html

pytest.importorskip("ir_measures", reason="the extra dearlite[eval] is not installed")
EVIL = "<script>alert(1)</script><img src=https://evil.example/x.png onerror=alert(2)> \"'&amp; \x1b[31m\x00\u202egpj"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# What the browser asks for by itself (its clock, its dictionaries), whatever page is open.
OWN = re.compile(r"^https?://[^/]*\.(google|gstatic|gvt1|googleapis)\.com[:/]")


class Page(HTMLParser):
    """Tags, attributes and text, as a browser would read them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)


def evaluation(texts=EVIL):
    queries = {f"q{number}{texts}": f"what is {texts} number {number}?" for number in range(8)}
    qrels = {query_id: {"a": 1, "b": 0} for query_id in queries}
    good, bad = {"a": 2.0, "b": 1.0, "c": 0.5}, {"b": 2.0, "a": 1.0, "c": 0.5}
    first = dict.fromkeys(queries, good)
    ours = {query_id: bad if position < 6 else good for position, query_id in enumerate(queries)}
    systems = [
        System("first stage", "first stage", first),
        System(f"ours {texts}", "reranked", ours, seconds_per_query=0.2, tokens_per_second=5000.0),
        System(f"theirs {texts}", "published", None, seconds_per_query=21.5, published={"nDCG@10": 0.7}),
        System("untimed", "published", None, published={"nDCG@10": 0.6}),
    ]
    documents = dict.fromkeys("abc", (f"title {texts}", f"{texts} a text that is long. " * 30))
    return compare(
        systems,
        qrels,
        name=f"name {texts}",
        notes=[f"note {texts}"],
        command=f"dearlite eval {texts}",
        facts={"model": texts, "sha256": "0" * 64},
        queries=queries,
        documents=documents,
    )


def test_texts_are_text_and_nothing_is_loaded():
    html = report_html(evaluation())
    page = Page(html)
    assert not {"script", "img", "iframe", "object", "embed", "a", "form", "base"} & set(page.tags)
    assert not [attribute for attribute in page.attributes if attribute[1].startswith("on")]
    links = [value for _, name, value in page.attributes if name in ("href", "src", "srcset", "action", "data")]
    assert links == ["data:,"]
    assert "url(" not in html and "@import" not in html
    assert any("default-src 'none'" in (value or "") for _, _, value in page.attributes)
    shown = "".join(page.texts)
    assert "<script>alert(1)</script>" in shown and "&amp;" in shown
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", html)


def test_it_shows_measures_comparisons_and_grades():
    made = evaluation("plain")
    html = report_html(made)
    shown = "".join(Page(html).texts)
    for measure in made.measures:
        assert measure in shown and f"{made.values[made.subject][measure]:.4f}" in shown
    assert "0 queries better, 2 the same, 6 worse" in shown
    assert html.count("<article>") == 5  # the worst five of the six that lost
    assert shown.count("before: first stage") == shown.count("after: ours plain") == 5
    assert "grade 1" in shown and "grade 0" in shown and "not judged" in shown
    assert "dearlite eval plain" in shown and "0" * 64 in shown
    assert html.count("<svg") == 2 and "theirs plain" in html


def test_without_times_or_losses_a_page_leaves_them_out():
    run = {"q": {"a": 1.0}}
    made = compare([System("one", "first stage", run), System("two", "reranked", run)], {"q": {"a": 1}}, name="x")
    html = report_html(made)
    assert "Quality and time" not in html and "No query lost." in html


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the page is parsed, not opened")
@pytest.mark.parametrize("texts", [EVIL, "plain"])
def test_a_browser_opens_it_in_silence(texts, tmp_path):
    """A net log holds every request that a page makes, its console goes to stderr."""
    (tmp_path / "report.html").write_text(report_html(evaluation(texts)), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--disable-background-networking", "--disable-component-update", "--no-first-run"]
    command += ["--enable-logging=stderr"]
    command += [f"--log-net-log={tmp_path / 'net.json'}", "--window-size=1200,2400", "--virtual-time-budget=2000"]
    command += [f"--screenshot={tmp_path / 'page.png'}", (tmp_path / "report.html").as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (tmp_path / "page.png").stat().st_size > 20_000, ended.stderr
    assert "CONSOLE" not in ended.stderr, ended.stderr
    log = json.loads(repaired(tmp_path / "net.json"))
    requested = {event["params"]["url"] for event in log["events"] if "url" in event.get("params", {})}
    outside = {url for url in requested if not url.startswith(("file:", "data:", "chrome:", "about:", "devtools:"))}
    assert not {url for url in outside if not OWN.search(url)}


def test_the_browser_test_can_fail(tmp_path):
    """The same flags on a page that does load and complain, so that silence means something."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    (tmp_path / "loud.html").write_text("<script>console.error('heard')</script><img src=http://127.0.0.1:9/x.png>")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--enable-logging=stderr", f"--log-net-log={tmp_path / 'net.json'}", "--virtual-time-budget=2000"]
    command += [f"--screenshot={tmp_path / 'page.png'}", (tmp_path / "loud.html").as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "CONSOLE" in ended.stderr and "heard" in ended.stderr
    assert "http://127.0.0.1:9/x.png" in repaired(tmp_path / "net.json")


def repaired(path: Path) -> str:
    """The net log as JSON: a browser that ends at once may leave its list open."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        json.loads(text)
    except ValueError:
        text = text.rstrip().rstrip(",") + "]}"
    return text
