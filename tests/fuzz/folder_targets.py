"""The user's own files and folders: each kind that `read_folder` reads, and the rules of a .gitignore."""

from __future__ import annotations

import io
import zipfile
from functools import partial

from fuzzing import Fault, Target, by_bytes, with_tokens
from mutations import mutated

from dearlite.folders import read_folder

_PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>endobj\n"
    b"4 0 obj<</Length 41>>stream\nBT /F 12 Tf 20 100 Td (Snow falls) Tj ET\nendstream endobj\n"
    b"5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\ntrailer<</Root 1 0 R/Size 6>>\n%%EOF\n"
)
_MAIL = (
    b'From: "A" <a@example.org>\r\nTo: b@example.org\r\nSubject: =?utf-8?q?Sn=C3=B6w?=\r\nMIME-Version: 1.0\r\n'
    b'Content-Type: multipart/alternative; boundary="x"\r\n\r\n--x\r\nContent-Type: text/plain; charset=utf-8\r\n'
    b"Content-Transfer-Encoding: base64\r\n\r\nU25vdyBmYWxscw==\r\n--x\r\nContent-Type: text/html\r\n\r\n"
    b"<p>Snow</p>\r\n--x--\r\n"
)
_PAGE = (
    b'<!doctype html><html><head><meta charset="utf-8"><title>T</title></head><body><h1>Head</h1><p>First <b>para</b>'
    b"<table><tr><td>a<td>b</table><ul><li>x<li>y</ul><pre>\n a\n</pre><script>var x</script><br>end</body></html>"
)
_MARKDOWN = (
    b"---\ntitle: T\n---\n# Head\n\nText *a*.\n\n```py\n# no head\n```\n\nSetext\n====\n\n"
    b"| a | b |\n|---|---|\n| 1 | 2 |\n"
)
_RST = b"Head\n====\n\nText ``a``.\n\n.. note:: b\n\n   c\n\nSub\n---\n\n* x\n* y\n"
_CODE = b'"""Doc."""\n\n\ndef f(x):\n    return x  # why\n\n\nclass A:\n    pass\n'
_RULES = b"# rules\n*.log\n!keep.log\n/build/\ndocs/**/x\na[0-9].txt\n\\#x\n"

# kind -> ending, seeds, words of the format
_KINDS = {
    "txt": ((b"Snow falls.\n\nRain too. " * 20, "雪が降る。".encode() * 40, "Größe".encode("utf-16")), ()),
    "md": ((_MARKDOWN,), (b"#", b"```", b"~~~", b"---\n", b"===\n", b"- ", b"> ", b"|", b"![](", b"<!--", b"    ")),
    "rst": ((_RST,), (b"====\n", b"----\n", b".. ", b"::", b"``", b"+---+", b"|")),
    "html": (
        (_PAGE, _PAGE.replace(b"utf-8", b"koi8-r")),
        *(
            (
                b"<",
                b">",
                b"</",
                b"<p>",
                b"<table>",
                b"<svg>",
                b"<!--",
                b"-->",
                b"<![CDATA[",
                b"&#x110000;",
                b"&amp;",
                b"<?",
            ),
        ),
    ),
    "eml": (
        (_MAIL, b"Subject: s\n\nSnow falls.\n"),
        *(
            (
                b"\r\n\r\n",
                b"--x\r\n",
                b"--x--",
                b"charset=",
                b"utf-7",
                b"=?x?q?=FF?=",
                b"base64",
                b"quoted-printable",
                b"=\r\n",
            ),
        ),
    ),
    "pdf": (
        (_PDF,),
        (b"obj", b"endobj", b"stream\n", b"<<", b">>", b"[", b"R", b"/Length 99999999", b"/Kids[2 0 R]", b"xref"),
    ),
    "py": ((_CODE,), (b"def ", b"class ", b"    ", b"\t", b"#", b'"""')),
}


def _read(ending, data, folder):
    path = folder / f"f{ending}"
    path.write_bytes(data)
    documents = read_folder(path, window=100 + len(data) % 7)
    for document in documents:
        document.text.encode()
        if not document.text.strip():
            raise Fault("a passage without text")
        if not document.record.place:
            raise Fault("a passage without a place")


def _docx_seeds(folder):
    import docx

    document = docx.Document()
    document.add_heading("Head", 1)
    document.add_paragraph("Snow falls.")
    cells = document.add_table(rows=1, cols=2).rows[0].cells
    cells[0].text, cells[1].text = "a", "b"
    document.save(stream := io.BytesIO())
    return [stream.getvalue()]


_XML = (
    b"<w:p>",
    b"</w:p>",
    b"<w:tbl>",
    b"<w:t>",
    b"&lol;",
    b"<!DOCTYPE a [<!ENTITY lol SYSTEM 'file:///etc/passwd'>]>",
    b"w:val=",
)


def _docx(random, seeds):
    """A ZIP with a changed part, or changed bytes."""
    if random.randrange(3) == 0:
        return by_bytes(random, seeds, (b"PK\3\4", b"PK\1\2", b"PK\5\6", b"word/document.xml"))
    with zipfile.ZipFile(io.BytesIO(random.choice(seeds))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    wanted = [name for name in parts if name.endswith(("document.xml", "Types].xml", ".rels", "styles.xml"))]
    name = random.choice(wanted)
    parts[name] = mutated(random, parts[name], tokens=_XML)
    with zipfile.ZipFile(stream := io.BytesIO(), "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, part in parts.items():
            archive.writestr(zipfile.ZipInfo(name), part)
    return stream.getvalue()


def _rules(data, folder):
    root = folder / "tree"
    if not root.exists():
        for name in ("a.log", "keep.log", "build/x.txt", "docs/y/x", "a1.txt", "b.txt"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("snow")
    (root / ".gitignore").write_bytes(data)
    (root / "docs" / ".gitignore").write_bytes(data[::-1])
    read_folder(root)


_NEEDS = {"html": ("lxml",), "eml": ("lxml",), "pdf": ("pypdfium2",), "docx": ("docx",)}
TARGETS = (
    *(
        Target(
            name=f"folder.{kind}",
            read=partial(_read, f".{kind}"),
            seeds=lambda folder, seeds=seeds: seeds,
            make=with_tokens(*words),
            needs=_NEEDS.get(kind, ()),
            share=0.5,
            short=100,
        )
        for kind, (seeds, words) in _KINDS.items()
    ),
    Target(
        name="folder.docx",
        read=partial(_read, ".docx"),
        seeds=_docx_seeds,
        make=_docx,
        needs=("docx",),
        share=0.1,
        short=40,
    ),
    Target(
        name="gitignore",
        read=_rules,
        seeds=lambda folder: [_RULES],
        make=with_tokens(b"*", b"**", b"/", b"!", b"[", b"]", b"\\", b"?", b"[!", b"{a,b}", b"#"),
        needs=("pathspec",),
        share=0.2,
        short=60,
    ),
)
