"""The page at `/`: its files and headers, and a path through it in Chromium."""

import json
import re
import socket
import sys
import threading
from contextlib import contextmanager
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import pytest

from dearlite.fields import TEXT_FIELDS
from dearlite.models.chain import resolve
from dearlite.options import LISTWISE_MODES, LONG_MODES
from dearlite.serve.access import PAGE_PATHS, Access, read_keys
from dearlite.serve.models import Models, serve_model

uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra serve)")
create_app = import_module("dearlite.serve.app").create_app

PAGE = files("dearlite.serve") / "page"
SOURCE = {name: (PAGE / name).read_text(encoding="utf-8") for name in PAGE_PATHS.values()}


def test_every_file_of_the_page_is_served_with_its_type(client):
    types = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert set(PAGE_PATHS.values()) == {entry.name for entry in PAGE.iterdir()}
    for path, name in PAGE_PATHS.items():
        answer = client.get(path)
        assert answer.status_code == 200 and answer.text == SOURCE[name]
        assert answer.headers["content-type"].split(";")[0] == types[name.rpartition(".")[2]]
        again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["cache-control"] == "no-cache"


def test_the_page_may_load_and_ask_this_server_only(client):
    policy = client.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy and "http" not in policy
    html = SOURCE["index.html"]
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", html)
    assert not re.search(r"https?://", html + SOURCE["page.css"])


def test_texts_never_become_markup():
    for name, source in SOURCE.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", source), (
            name
        )


def test_a_key_is_asked_for_by_the_page_itself(serve):
    locked = serve(access=Access(keys=(b"x",)))
    assert {locked.get(path).status_code for path in PAGE_PATHS} == {200}
    assert locked.get("/v1/models").status_code == 401


def test_options_and_field_names_are_those_of_the_library():
    def options_of(select):
        block = re.search(rf'<select id="{select}".*?</select>', SOURCE["index.html"], re.DOTALL)[0]
        return re.findall(r'value="(\w+)"', block)

    assert options_of("long") == list(LONG_MODES)
    assert options_of("mode") == list(LISTWISE_MODES)
    names = re.search(r"TEXT_FIELDS = \[(.*?)\]", SOURCE["read.js"], re.DOTALL)[1]
    assert re.findall(r'"(\w+)"', names) == list(TEXT_FIELDS)


@contextmanager
def served(app):
    """The address of an application on a socket."""
    bound = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def url(tiny):
    """The address of a server of the small model."""
    with served(create_app(Models((tiny,)))) as url:
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One page for all tests of the file."""
    chromium = import_module("chromium")
    if chromium.CHROMIUM is None or sys.platform == "win32":
        pytest.skip("no chromium on this machine, or no pipes for its protocol")
    browser = chromium.Browser(tmp_path_factory.mktemp("chromium") / "profile")
    yield browser
    browser.close()


@pytest.fixture
def page(browser, url):
    """The page, freshly opened. At the end its console must be empty, and no other address asked for."""
    browser.loud.clear()
    browser.requested.clear()
    browser.open(url)
    browser.wait("document.getElementById('serving').textContent")
    yield browser
    assert browser.loud == []
    assert {address for address in browser.requested if not address.startswith(url)} == set()


def fill(page, query, documents):
    page.run("document.getElementById('query').focus()")
    page.type(query)
    page.press("Tab")  # the format
    page.press("Tab")
    page.type(documents)


def ranked(page, count):
    page.wait(f"document.querySelectorAll('.hit').length === {count} && !document.getElementById('go').disabled")


def text(page, selector):
    return page.run(f"document.querySelector({selector!r}).innerText")


def test_the_example_is_ranked_by_two_clicks(page, tiny):
    page.click("#example")
    ranked(page, 7)
    query = page.run("document.getElementById('query').value")
    documents = page.run("document.getElementById('documents').value").split("\n")
    ranking = tiny.reranker.rerank(query, documents)
    shown = page.run("[...document.querySelectorAll('.hit .text')].map(e => e.textContent)")
    assert shown == [hit.text for hit in ranking]
    moves = page.run("[...document.querySelectorAll('.move')].map(e => e.title)")
    assert moves == [f"number {hit.index + 1} in the given order" for hit in ranking]
    widths = page.run("[...document.querySelectorAll('.bar i')].map(e => e.style.width)")
    assert [float(width[:-1]) for width in widths] == sorted((float(width[:-1]) for width in widths), reverse=True)
    assert not page.run("document.getElementById('empty').offsetParent")


def test_it_works_by_keyboard_and_shows_texts_as_texts(page):
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script> 'quoted' \"twice\" 🦊"
    fill(page, "bulb <b>bold</b>", f"{evil}\nCoffee\n")
    page.press("Enter", modifiers=2)
    ranked(page, 2)
    assert evil in page.run("[...document.querySelectorAll('.hit .text')].map(e => e.textContent)")
    assert page.run("document.querySelectorAll('#answer img, #answer script, #answer b').length") == 0
    assert page.run("document.activeElement.id") == "answer"
    assert text(page, "#status").startswith("2 documents ranked.")


def test_a_missing_field_and_a_refusal_are_told_in_words(page):
    page.click("#go")
    assert text(page, "#problem") == "Write a query first."
    assert page.run("document.getElementById('example').offsetParent !== null")
    assert page.run("document.activeElement.id") == "query"
    fill(page, "bulb", '{"text": "Coffee"}\n{"text": 1')
    page.click("#go")
    assert text(page, "#problem").startswith("Line 2 is not JSON: ")
    page.run("document.getElementById('documents').value = '{\"name\": 5}'")
    page.click("#go")
    page.wait("document.getElementById('problem').textContent.startsWith('Document 0 has no text')")
    page.loud.clear()  # the browser itself notes a status of 400


def test_cuts_copies_and_options(page):
    fill(
        page,
        "bulb",
        '{"id": "long", "title": "Lamps", "text": "' + "lamp " * 3000 + '"}\n{"id": "b", "text": "Coffee"}',
    )
    page.run("document.getElementById('options').open = true; document.getElementById('top').value = 1")
    page.click("#go")
    ranked(page, 1)
    page.run("document.getElementById('top').value = ''")
    page.click("#go")
    ranked(page, 2)
    assert re.search(r"cut: \d+ of [\d,]+ tokens were read", text(page, ".foot:has(.cut)"))
    assert "1 of 2 documents is longer than the model's input" in text(page, "#warnings")
    page.click(".foot button")
    assert page.run("document.querySelector('.foot button').ariaExpanded") == "true"
    page.run("navigator.clipboard.writeText = async text => { window.copied = text; }")
    for form, part in {"json": '"id": "long"', "curl": "-d '{", "python": "urllib.request.urlopen(request)"}.items():
        page.click(f"[data-copy={form}]")
        page.wait(f"window.copied?.includes({part!r})")
    compile(page.run("window.copied"), "copied.py", "exec")


def test_documents_that_were_not_read_have_no_score(page):
    fill(page, "bulb", '{"id": "a", "text": "Edison"}\n{"text": "Coffee"}\n{"text": ""}')
    page.run("document.getElementById('raw').value = 'raw'")
    page.click("#go")
    ranked(page, 3)
    rows = page.run("[...document.querySelectorAll('.score')].map(e => e.innerText.replaceAll('\\n', ' '))")
    assert "not read" in rows[2] and not any("not read" in row for row in rows[:2])
    assert "2 of 3 read" in text(page, "#facts") and re.search(r"bars from -?[\d.]+ to ", text(page, "#facts"))
    page.run("navigator.clipboard.writeText = async text => { window.copied = text; }")
    page.click("[data-copy=json]")
    page.wait("window.copied")
    hits = json.loads(page.run("window.copied"))
    assert {hit["id"] for hit in hits} == {"a", None} and hits[2]["score"] is None


READ = [
    ("a\nb\n\n", "auto", ["a", "b"]),
    ("a\nb\n\nc", "auto", ["a\nb", "c"]),
    ("a\r\nb\n\nc", "lines", ["a", "b", "c"]),
    ('{"text": "a"}\n"b"\n', "auto", [{"text": "a"}, "b"]),
    ('["a", "b"]', "auto", ["a", "b"]),
    ('{"query": "q", "documents": ["a"]}', "auto", ["a"]),
    ("[1] no JSON\nb", "auto", ["[1] no JSON", "b"]),
    ('id;text\n1;"a; ""b""\nc"\n', "auto", [{"id": "1", "text": 'a; "b"\nc'}]),
    ("n,abstract\n1,a long text\n", "csv", [{"n": "1", "abstract": "a long text", "text": "a long text"}]),
    ("well, text\n", "auto", ["well, text"]),
    ("", "auto", []),
]


def test_documents_are_read_from_every_format(page):
    cases = [[text, form] for text, form, _ in READ]
    script = f"import('/page/read.js').then(m => {cases!r}.map(([t, f]) => m.readDocuments(t, f).documents))"
    assert page.run(script) == [documents for _, _, documents in READ]


def test_a_key_and_another_model_are_chosen(browser, tiny, tiny_bundle, tmp_path):
    (tmp_path / "keys").write_text("correct-horse-battery\n")
    other = serve_model(resolve(tiny_bundle), {"threads": 1}, name="other")
    app = create_app(Models((tiny, other)), access=Access(keys=read_keys(tmp_path / "keys")))
    with served(app) as url:
        browser.loud.clear()
        browser.open(url)
        browser.wait("document.activeElement.id === 'key'")
        assert text(browser, "#stopped") == "This server needs a key."
        assert browser.loud == [] and not browser.run("document.getElementById('metrics').offsetParent")
        browser.type("correct-horse-battery")
        browser.press("Tab")
        browser.wait("document.getElementById('model').length === 2")
        browser.run("document.getElementById('model').selectedIndex = 1")
        browser.click("#example")
        ranked(browser, 7)
        assert text(browser, "#facts").endswith("other on cpu")
        browser.run("navigator.clipboard.writeText = async text => { window.copied = text; }")
        browser.click("[data-copy=curl]")
        browser.wait("window.copied")
        copied = browser.run("window.copied")
        assert "Bearer $DEARLITE_KEY" in copied and "correct-horse" not in copied and '"model": "other"' in copied


def test_work_is_stopped_by_escape(page):
    page.run("document.getElementById('documents').value = ('bulb '.repeat(300) + '\\n').repeat(400)")
    page.click("#query")
    page.type("bulb")
    page.press("Enter", modifiers=2)
    page.wait("document.getElementById('progress').value > 0")
    page.press("Escape")
    page.wait("!document.getElementById('go').disabled")
    assert text(page, "#stopped") == "Stopped."
    assert text(page, "#status") == "Stopped." and page.run("document.getElementById('stop').hidden")


def test_dropped_files_are_read(page):
    page.run(
        "const data = new DataTransfer();"
        "data.items.add(new File(['Edison, 1879'], 'a.txt')); data.items.add(new File(['Coffee'], 'b.md'));"
        "dispatchEvent(new DragEvent('drop', {dataTransfer: data, cancelable: true}))"
    )
    page.wait("document.getElementById('count').textContent.startsWith('2 documents')")
    assert '{"id":"a.txt","text":"Edison, 1879"}' in page.run("document.getElementById('documents').value")
    page.run(
        "const pdf = new DataTransfer(); pdf.items.add(new File([new Uint8Array([37, 80, 255, 0])], 'c.pdf'));"
        "dispatchEvent(new DragEvent('drop', {dataTransfer: pdf, cancelable: true}))"
    )
    page.wait("document.getElementById('problem').textContent.includes('c.pdf is no text')")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(page, width):
    page.resize(width, 844, phone=width < 500)
    page.click("#example")
    ranked(page, 7)
    page.run("document.getElementById('options').open = true")
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    page.resize(1280, 800)


@pytest.mark.parametrize("dark", [False, True])
def test_axe_has_no_serious_finding(page, dark):
    """axe-core, where node_modules of the checkout or a folder above has it."""
    places = [folder / "node_modules/axe-core/axe.min.js" for folder in Path(__file__).resolve().parents]
    axe = next((place for place in places if place.exists()), None)
    if axe is None:
        pytest.skip("axe-core is not installed (npm install axe-core)")
    page.dark(dark)
    page.run(axe.read_text(encoding="utf-8"))
    findings = []
    for selector, count in (("#options summary", 0), ("#example", 7)):
        page.click(selector)
        ranked(page, count)
        result = page.run("axe.run()")
        findings += [(rule["id"], rule["impact"], rule["nodes"][0]["html"]) for rule in result["violations"]]
    page.dark(False)
    assert [finding for finding in findings if finding[1] in ("serious", "critical")] == []
