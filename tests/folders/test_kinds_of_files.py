"""Readers of web pages, mails, PDF and Word: real small files that the tests write, and damaged ones."""

import io
import re
import sys
import zipfile
from email.message import EmailMessage

import pytest

import dearlite
from dearlite.folders import read_folder
from dearlite.folders.content import Unreadable
from dearlite.folders.mail import read_mail
from dearlite.folders.pages import read_html
from dearlite.folders.pdf import read_pdf
from dearlite.folders.word import read_docx
from dearlite.installing import pip_install

ANSWER = "The home office costs 1,260 euros a year."


@pytest.fixture
def lxml():
    return pytest.importorskip("lxml.etree", reason="lxml is not installed (extra files)")


def make_pdf(pages, password=None):
    fpdf = pytest.importorskip("fpdf", reason="fpdf2 is not installed (extra test)")
    pytest.importorskip("pypdfium2", reason="pypdfium2 is not installed (extra files)")
    pdf = fpdf.FPDF()
    pdf.set_font("Helvetica", size=12)
    for text in pages:
        pdf.add_page()
        if text:
            pdf.multi_cell(0, text=text)
    if password:
        pdf.set_encryption(owner_password="owner", user_password=password)
    return bytes(pdf.output())


def make_docx(*blocks, title=""):
    docx = pytest.importorskip("docx", reason="python-docx is not installed (extra files)")
    document = docx.Document()
    document.core_properties.title = title
    for level, text in blocks:
        if isinstance(text, list):
            table = document.add_table(rows=0, cols=len(text[0]))
            for row in text:
                for cell, words in zip(table.add_row().cells, row, strict=True):
                    cell.text = words
        elif level:
            document.add_heading(text, level)
        else:
            document.add_paragraph(text)
    stream = io.BytesIO()
    document.save(stream)
    return stream.getvalue()


def unreadable(reader, data):
    """The reason for which `reader` refuses `data`."""
    with pytest.raises(Unreadable) as caught:
        reader(data)
    return str(caught.value)


def text_or_reason(reader, data):
    """The text of damaged `data`, or the reason, which must be one line; any other error fails the test."""
    try:
        return reader(data).text
    except Unreadable as err:
        reason = str(err)
    assert "\n" not in reason
    return reason


# Web pages

PAGE = """<!doctype html>
<html><head><title>My
 page</title><style>p { color: red }</style></head>
<body><!-- a
comment --><script>var unseen = 1;</script>
<h1>Head<i>ing</i></h1>
<p>First <b>para</b>graph
on &lt;two&gt; lines.</p>tail
<table><tr><td>a</td><td>b</td></tr>
<tr><td>c</td></tr></table>
<h2>Second</h2><ul><li>x<li>y</ul>
<template>unseen</template><p>end
</body></html>
"""


def test_a_page_is_the_text_that_a_browser_shows(lxml):
    content = read_html(PAGE.encode())
    assert content.text == (
        "Heading\n\nFirst paragraph\non <two> lines.\n\ntail\n\na b\nc\n\nSecond\n\nx\n\ny\n\nend".replace("\\\n", "\n")
    )
    assert [(heading.level, heading.title) for heading in content.headings] == [(1, "Heading"), (2, "Second")]
    assert [content.text[heading.start : heading.end] for heading in content.headings] == ["Heading", "Second"]
    assert content.title == "My page"


def test_the_lines_of_a_page_are_those_of_its_source(lxml):
    content, lines = read_html(PAGE.encode()), PAGE.split("\n")
    for word in ("First", "lines", "tail", "a b", "c", "Second", "x", "y", "end"):
        line = lines[
            content.line(content.text.index("\n" + word) + 1 if word in "acxy" else content.text.index(word)) - 1
        ]
        assert word[0] in line and word.split()[-1] in line, word


def test_comments_and_scripts_of_many_lines_move_no_line(lxml):
    page = "<p>\n<!-- a\n\nb -->\nfour <script>\n\n</script> six\n<svg><title>x\n\n</title></svg>\nten\n</p>"
    content, lines = read_html(page.encode()), page.split("\n")
    for word in ("four", "ten"):
        assert word in lines[content.line(content.text.index(word)) - 1], word


def test_lines_go_on_where_the_parser_counts_no_further(lxml):
    content = read_html(b"<p>a</p>\n" * 70_000 + b"<p>last")
    assert content.line(content.text.index("last")) == 70_001


def test_a_page_nested_too_deep_is_named(lxml):
    page = read_html(b"<p>first</p>" + b"<div>" * 3000 + b"deep" + b"</div>" * 3000)
    assert page.text == "first" and page.note.startswith(
        "is read in part, as the parser stopped (elements are nested too deep, "
    )
    assert unreadable(read_html, b"<div>" * 100_000 + b"text") == (
        "is no HTML that can be read (elements are nested too deep, line 1)"
    )
    assert read_html(b"<p>&foo <b></p><x y=<z></table><![CDATA[").note == ""


def test_a_page_declares_its_encoding_and_utf_8_comes_first(lxml):
    russian = '<meta charset="koi8-r"><p>Привет, мир'
    assert read_html(russian.encode("koi8-r")).text == "Привет, мир"
    assert read_html(russian.encode()).text == "Привет, мир"
    western = read_html('<meta charset="nonsense"><p>Straße in Köln'.encode("cp1252"))
    assert western.text == "Straße in Köln"
    assert western.note == "is not UTF-8 and is read as Windows-1252"


@pytest.mark.parametrize("page", ["", "  \n", "<!-- only a comment -->", "<script>x</script>", "<?php echo 1 ?>"])
def test_a_page_without_text_is_empty(lxml, page):
    assert read_html(page.encode()).text == ""


@pytest.mark.parametrize("part", ["<div>", "<!--", "<a ", "</", "&", "<![CDATA[", "<table><tr><td>", "<b><i>"])
def test_a_hostile_page_ends_in_time(lxml, part):
    """A megabyte of one construct that is never closed: linear work, and no limit of recursion."""
    text_or_reason(read_html, (part * (1_000_000 // len(part)) + "text").encode())


# Mails


def make_mail(subject="Straße und Wege", **parts):
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["Date"] = subject, "Ann <ann@example.org>", "Mon, 01 Jan 2024 00:00:00 +0000"
    if "plain" in parts:
        mail.set_content(parts["plain"], cte="base64")
    if "html" in parts:
        (mail.add_alternative if "plain" in parts else mail.set_content)(parts["html"], subtype="html")
    mail.add_attachment(b"secret attachment", maintype="application", subtype="zip", filename="a.zip")
    return mail.as_bytes()


def test_a_mail_has_its_headers_and_its_text_but_no_attachment():
    content = read_mail(make_mail(plain=ANSWER, html="<p>other"))
    assert content.text == (
        "Subject: Straße und Wege\nFrom: Ann <ann@example.org>\nDate: Mon, 01 Jan 2024 00:00:00 +0000\n\n"
        + ANSWER
        + "\n"
    )
    assert content.title == "Straße und Wege"
    assert content.line(0) is None


@pytest.mark.parametrize("value", ["=?utf-8?q?a?= " * 50_000, "(" * 20_000, "a <a@b.c>, " * 20_000])
def test_a_long_header_of_a_mail_ends_in_time(value):
    data = b"Subject: Costs\nFrom: " + value.encode() + b"\n\n" + ANSWER.encode()
    assert text_or_reason(read_mail, data).startswith(("Subject: Costs", "is no mail"))


def test_a_header_that_is_cut_is_named():
    content = read_mail(b"Subject: " + b"costs of ships " * 500 + b"\n\n" + ANSWER.encode())
    assert content.note == "its Subject was cut at 4,000 characters"
    assert read_mail(b"Subject: costs\n\n" + ANSWER.encode()).note == ""


def test_a_mail_of_html_alone_is_read_as_a_page(lxml):
    assert read_mail(make_mail(html="<p>A <b>bold</b> text<script>x</script>")).text.endswith("\n\nA bold text")


@pytest.mark.parametrize(
    "data",
    [
        b"Subject: =?utf-8?b?////?=\nFrom: <<>>\nDate: nonsense\n\ntext",
        b"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\ntext",
        b"Subject: x\nContent-Type: text/plain; charset=nonsense\n\ntext",
        b"Subject: x\nContent-Transfer-Encoding: base64\n\ntext",
        b"Subject:\nFrom: @@,;<\nContent-Type: ;;;\n\ntext",
    ],
)
def test_a_damaged_mail_is_read_as_far_as_it_goes(data):
    assert text_or_reason(read_mail, data)


@pytest.mark.parametrize("charset", ["undefined", "idna", "punycode", "zlib", "klingon", "unicode_escape"])
def test_a_charset_that_is_none_is_not_used(lxml, charset):
    """Each of Python's codecs with one of these names fails in its own way, or takes quadratic time."""
    note = "is not UTF-8 and is read as Windows-1252"
    mail = b"Subject: x\nContent-Type: text/plain; charset=%s\n\ncaf\xe9 and more" % charset.encode()
    assert (read_mail(mail).text, read_mail(mail).note) == ("Subject: x\n\ncafé and more", note)
    page = b"<meta charset=%s><p>caf\xe9 and more" % charset.encode()
    assert (read_html(page).text, read_html(page).note) == ("café and more", note)


def nested_mail(depth, text="text"):
    opening = [f'Content-Type: multipart/mixed; boundary="b{n}"\n\n--b{n}\n' for n in range(depth)]
    return f"Subject: x\n{''.join(opening)}Content-Type: text/plain\n\n{text}\n".encode()


def test_a_mail_of_many_parts_ends_in_time():
    parts = "".join(f"--b\nContent-Type: text/plain\n\npart {number}\n" for number in range(10_000))
    mail = f"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n{parts}--b--\n"
    assert read_mail(mail.encode()).text == "Subject: x\n\npart 0"
    assert read_mail(nested_mail(100)).text == "Subject: x\n\ntext"
    assert unreadable(read_mail, nested_mail(1500)) == "is no mail that can be read (its parts are nested too deep)"
    assert unreadable(read_mail, nested_mail(90, "\n" * 300_000)) == "has 300,274 lines in 90 nested parts: not read"
    forwarded = b"Content-Type: message/rfc822\n\n" * 3000 + b"text"
    assert unreadable(read_mail, forwarded) == "is no mail that can be read (its parts are nested too deep)"


def test_the_text_of_a_mail_is_its_page_with_pictures_or_a_part_without_boundary(lxml):
    related = (
        'Content-Type: multipart/related; boundary=b; start="<2>"\n\n--b\nContent-Type: text/html\n\nnot this\n'
        "--b\nContent-Type: text/html\nContent-ID: <2>\n\n<p>the page\n--b--\n"
    )
    assert read_mail(related.encode()).text == "the page"
    assert read_mail(b"Content-Type: multipart/mixed\n\nplain all the same").text == "plain all the same"


def test_a_file_that_is_no_mail():
    assert unreadable(read_mail, b"\n\n\n") == "is no mail: it has no header and no text"


# PDF


def test_the_passages_of_a_pdf_have_their_page(tmp_path):
    (tmp_path / "report.pdf").write_bytes(make_pdf(["First page.", "Filler. " * 150 + ANSWER, "", "Last page."]))
    documents = read_folder(tmp_path)
    assert [document.id for document in documents] == [
        f"{tmp_path / 'report.pdf'} {place}" for place in ("p. 1", "p. 2", "p. 2 (2)", "p. 4")
    ]
    assert [document.record.page for document in documents] == [1, 2, 2, 4]
    assert {document.record.first_line for document in documents} == {None}
    assert ANSWER in " ".join(documents[2].text.split())
    content = read_pdf((tmp_path / "report.pdf").read_bytes())
    assert all(content.text[d.record.start : d.record.end] == d.text for d in documents)


def test_pdfs_that_cannot_be_read():
    good = make_pdf(["text"])
    assert unreadable(read_pdf, make_pdf(["text"], password="x")) == (
        "is encrypted: save it without its password (qpdf --decrypt)"
    )
    for data in (b"%PDF-1.4 nonsense", good[:200], b""):
        assert unreadable(read_pdf, data) == "is no PDF that can be read (it is damaged, or another kind of file)"
    assert unreadable(read_pdf, make_pdf(["", ""])) == (
        "has no text: its pages are pictures (ocrmypdf adds their text)"
    )


def pdf_that_states(count, kids="3 0 R"):
    """A PDF of one page, or of the given `kids`, that says to have `count` pages."""
    page = "<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>"
    text = "BT /F 12 Tf 20 100 Td (Apples.) Tj ET"
    data, starts = b"%PDF-1.4\n", []
    for number, entry in enumerate(
        [
            "<</Type/Catalog/Pages 2 0 R>>",
            f"<</Type/Pages/Kids[{kids}]/Count {count}>>",
            page,
            f"<</Length {len(text)}>>stream\n{text}\nendstream",
            "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        ],
        start=1,
    ):
        starts.append(len(data))
        data += f"{number} 0 obj\n{entry}\nendobj\n".encode()
    table = "".join(f"{start:010} 00000 n \n" for start in starts)
    return data + (
        f"xref\n0 6\n0000000000 65535 f \n{table}trailer<</Size 6/Root 1 0 R>>\nstartxref\n{len(data)}\n%%EOF".encode()
    )


def test_a_pdf_that_states_a_false_number_of_pages():
    pytest.importorskip("pypdfium2", reason="pypdfium2 is not installed (extra files)")
    for count in (1, 0, -3):
        content = read_pdf(pdf_that_states(count))
        assert (content.text, content.note) == ("Apples.", "")
    assert read_pdf(pdf_that_states(3)).note == "has pages that cannot be read: 2, 3"
    content = read_pdf(pdf_that_states(1_000_000))
    assert len(content.page_starts) == 1001  # a million takes 14 s
    assert content.note == (
        "has pages that cannot be read: 2, 3, 4, 5, 6, …; of the 1,000,000 pages that it says to have, those after "
        "1,001 were not tried"
    )
    assert unreadable(read_pdf, pdf_that_states(7, kids="2 0 R 2 0 R")) == (
        "is a damaged PDF: none of its 7 pages can be read"
    )


def test_no_damage_to_a_pdf_ends_the_call(tmp_path):
    good = make_pdf(["text of the page"])
    for position in range(0, len(good), 41):
        for data in (good[:position], good[:position] + b"\xff\0\n" + good[position + 3 :]):
            text_or_reason(read_pdf, data)


# Word


def test_the_passages_of_a_word_document_have_their_heading(tmp_path):
    data = make_docx(
        (0, "Opening."),
        (1, "Taxes"),
        (2, "Costs"),
        (0, ANSWER),
        (0, [["a", "b"], ["c", "d"]]),
        (1, "End"),
        (0, "x" * 20),
    )
    (tmp_path / "letter.docx").write_bytes(data)
    documents = read_folder(tmp_path)
    assert [document.record.heading for document in documents] == ["", "Taxes > Costs", "End"]
    assert [document.id for document in documents] == [
        f"{tmp_path / 'letter.docx'}{place}" for place in ("", " § Costs", " § End")
    ]
    assert documents[1].text == f"Taxes\n\nCosts\n\n{ANSWER}\n\na\tb\nc\td"
    text = read_docx(data).text
    assert all(text[d.record.start : d.record.end] == d.text for d in documents)


def changed_docx(old, new, *blocks):
    """A Word document whose main part has `new` in the place of `old`, all of it for None."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(make_docx(*(blocks or [(0, "x")])))) as good,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as changed,
    ):
        for name in good.namelist():
            part = good.read(name)
            if name == "word/document.xml":
                text = part.decode()
                assert old is None or old in text
                part = (new if old is None else text.replace(old, new, 1)).encode()
            changed.writestr(name, part)
    return stream.getvalue()


def bomb(size):
    """A small ZIP of a Word document whose main part unpacks to `size` bytes."""
    return changed_docx(None, " " * size)


def test_text_in_links_controls_insertions_and_inner_tables_is_read_but_no_deletion():
    def paragraph(text, tag="t"):
        return f"<w:r><w:{tag}>{text}</w:{tag}></w:r>"

    inner = f"<w:tbl><w:tr><w:tc><w:p>{paragraph('inner cell')}</w:p></w:tc></w:tr></w:tbl>"
    blocks = (
        f"<w:p>{paragraph('one ')}<w:ins>{paragraph('inserted ')}</w:ins><w:del>{paragraph('gone', 'delText')}</w:del>"
        f"<w:hyperlink>{paragraph('linked')}</w:hyperlink></w:p>"
        f"<w:sdt><w:sdtContent><w:p>{paragraph('control')}</w:p></w:sdtContent></w:sdt>"
        f"<w:tbl><w:tr><w:tc><w:p>{paragraph('cell')}</w:p>{inner}</w:tc></w:tr></w:tbl>"
    )
    assert read_docx(changed_docx("<w:body>", f"<w:body>{blocks}")).text == (
        "one inserted linked\n\ncontrol\n\ncell\ninner cell\n\nx"
    )


def test_a_document_of_too_many_elements_is_refused_before_they_are_made():
    data = changed_docx("<w:body>", "<w:body>" + "<w:p/>" * 2_100_000)
    assert len(data) < 60_000
    assert re.fullmatch(
        r"unpacks to 2,100,\d\d\d elements in word/document.xml: not opened \(.*\)", unreadable(read_docx, data)
    )


def test_a_zip_bomb_is_refused_before_it_is_unpacked():
    data = bomb(60_000_000)
    assert len(data) < 100_000
    assert unreadable(read_docx, data).startswith("unpacks to 61 MB in 17 parts: ")


def test_a_zip_bomb_that_declares_a_small_size_gives_no_more_than_that():
    data = bytearray(bomb(60_000_000))
    declared, small = (60_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    assert data.count(declared) == 2  # in the entry and in the directory
    data = bytes(data).replace(declared, small)
    assert unreadable(read_docx, data) == "is no Word document that can be read (it is damaged, or no .docx)"


def test_word_documents_that_cannot_be_read():
    assert unreadable(read_docx, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1").startswith("is encrypted, or an old .doc: ")
    assert unreadable(read_docx, b"PK nonsense") == (
        "is no Word document that can be read (it is damaged, or no .docx)"
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "x")
    assert unreadable(read_docx, stream.getvalue()) == (
        "is no Word document that can be read (its part [Content_Types].xml is missing)"
    )
    encrypted = bytearray(make_docx((0, "text")))
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        for match in re.finditer(re.escape(mark), bytes(encrypted)):
            encrypted[match.start() + flags] |= 1
    assert unreadable(read_docx, bytes(encrypted)) == "is encrypted: save it as .docx without a password"
    assert unreadable(read_docx, changed_docx("<w:body>", "<w:body>" + "<w:x>" * 1000)) == (
        "is no Word document that can be read (its parts are nested too deep)"
    )
    assert unreadable(read_docx, changed_docx("<w:body>", "<w:body")) == (
        "is no Word document that can be read (its XML is damaged)"
    )
    good = make_docx((0, "text"))
    for position in range(0, len(good), len(good) // 40):
        text_or_reason(read_docx, good[:position] + b"\xff\0\n" + good[position + 3 :])


def test_entities_of_a_word_document_read_no_file(tmp_path):
    (tmp_path / "secret.txt").write_text("secret words")
    stream = io.BytesIO()
    entity = f'<!DOCTYPE x [<!ENTITY e SYSTEM "{(tmp_path / "secret.txt").as_uri()}">]>'
    with zipfile.ZipFile(io.BytesIO(make_docx((0, "MARK")))) as good, zipfile.ZipFile(stream, "w") as bad:
        for name in good.namelist():
            part = good.read(name)
            if name == "word/document.xml":
                head, rest = part.split(b"?>", 1)
                part = head + b"?>" + entity.encode() + rest.replace(b"MARK", b"MARK &e;")
            bad.writestr(name, part)
    assert "secret words" not in text_or_reason(read_docx, stream.getvalue())


# All kinds together


def test_the_answer_is_found_in_each_kind_and_its_place_opened(tmp_path, lxml, embedded_path):
    """One folder per kind with the answer and two other texts: the best passage leads to the answer's line or page."""
    other = "Mix flour and sugar.", "Bake the cake for an hour at 180 degrees."
    files = {
        "a.txt": "\n\n".join((*other, ANSWER)),
        "a.md": f"# Cake\n\n{other[0]}\n{other[1]}\n\n# Taxes\n\n{ANSWER}\n",
        "a.rst": f"Cake\n====\n\n{other[0]}\n\nTaxes\n=====\n\n{ANSWER}\n",
        "a.py": f"{'x = 1' * 200}\n\n# {ANSWER}\n",
        "a.html": f"<h1>Cake</h1>\n<p>{other[0]}\n<h1>Taxes</h1>\n<p>{ANSWER}",
        "a.eml": make_mail(plain=ANSWER),
        "a.pdf": make_pdf([*other, ANSWER]),
        "a.docx": make_docx((1, "Cake"), (0, other[0]), (1, "Taxes"), (0, ANSWER)),
    }
    lines = {"a.txt": 5, "a.md": 8, "a.rst": 9, "a.py": 3, "a.html": 4}
    reranker = dearlite.Reranker.load(embedded_path)
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        best = reranker.rerank("What does the home office cost?", read_folder(path))[0]
        assert "1,260" in best.text
        place = best.document
        if name in lines:
            assert place.first_line <= lines[name] <= place.last_line
            assert ANSWER in path.read_text().split("\n")[lines[name] - 1]
        assert place.page == (3 if name == "a.pdf" else None)
        assert place.heading == ("Taxes" if name in ("a.md", "a.rst", "a.html", "a.docx") else "")


def test_a_merged_cell_is_read_once_whatever_it_says_to_span():
    docx = pytest.importorskip("docx", reason="python-docx is not installed (extra files)")
    document = docx.Document()
    table = document.add_table(rows=1, cols=3)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
    table.cell(0, 2).text = "last"
    stream = io.BytesIO()
    document.save(stream)
    assert read_docx(stream.getvalue()).text == "wide\tlast"
    table.cell(0, 0)._tc.grid_span = 10**9
    stream = io.BytesIO()
    document.save(stream)
    assert read_docx(stream.getvalue()).text == "wide\tlast"


@pytest.mark.parametrize(
    ("module", "name", "data"),
    [("pypdfium2", "a.pdf", b"%PDF"), ("docx", "a.docx", b"PK"), ("lxml.etree", "a.html", b"<p>x")],
)
def test_a_missing_library_is_one_line_and_the_others_are_read(tmp_path, monkeypatch, module, name, data):
    monkeypatch.setitem(sys.modules, module, None)
    for number in range(3):
        (tmp_path / f"{number}{name}").write_bytes(data)
    with pytest.raises(dearlite.MissingExtra, match=re.escape(pip_install("files")) + "$"):
        read_folder(tmp_path)
    (tmp_path / "b.txt").write_text("text")
    documents = read_folder(tmp_path)
    assert [document.text for document in documents] == ["text"]
    assert len(documents.skipped["without a reader"]) == 3
    assert len(documents.problems) == 1
    assert documents.problems[0].startswith(f"{tmp_path / ('0' + name)} is left out, and others of its kind: ")
