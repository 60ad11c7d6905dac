"""Kinds of files by their endings: READERS has one entry per kind; other endings are text, if their bytes are."""

from __future__ import annotations

import os
from collections.abc import Callable

from dearlite.folders.content import Content
from dearlite.folders.mail import read_mail
from dearlite.folders.markdown import read_markdown
from dearlite.folders.pages import read_html
from dearlite.folders.pdf import read_pdf
from dearlite.folders.restructured import read_restructured
from dearlite.folders.texts import read_code, read_text
from dearlite.folders.word import read_docx

Reader = Callable[[bytes], Content]

# kind -> endings, its reader
_KINDS: tuple[tuple[str, Reader], ...] = (
    (".txt .text .log", read_text),
    (".md .markdown .mdown .mkd .qmd .rmd", read_markdown),
    (".rst .rest", read_restructured),
    (".html .htm .xhtml", read_html),
    (".eml", read_mail),
    (".pdf", read_pdf),
    (".docx", read_docx),
    (
        ".py .pyi .pyx .js .mjs .cjs .jsx .ts .tsx .java .kt .kts .scala .groovy .c .h .cc .cpp .cxx .hh .hpp .cs .go "
        ".rs .rb .php .pl .pm .lua .r .jl .swift .m .mm .dart .ex .exs .erl .hs .ml .mli .clj .lisp .el .scm .f90 .sql "
        ".sh .bash .zsh .fish .ps1 .bat .cmd .css .scss .less .vue .svelte .toml .yaml .yml .ini .cfg .conf .cmake .mk "
        ".gradle .tf .proto .graphql .ipynb .xml .json .tex .asm .s .v .vhd .zig .nim .d .pas .vb .adb .ads",
        read_code,
    ),
)
READERS: dict[str, Reader] = {ending: reader for endings, reader in _KINDS for ending in endings.split()}
WITH_BYTES = (".pdf", ".docx")  # kinds that are no text, whose NUL bytes are no sign of anything

_BINARY_ENDINGS = (
    ".7z .a .apk .avi .avif .bin .bmp .bz2 .class .dear .deb .dll .dmg .doc .dylib .eot .epub .exe .feather .flac "
    ".gguf .gif .gz .h5 .heic .ico .iso .jar .jpeg .jpg .lz4 .mkv .mov .mp3 .mp4 .mpeg .msi .npy .npz .o .obj "
    ".odp .ods .odt .ogg .onnx .opus .otf .parquet .pickle .pkl .png .ppt .pptx .psd .pt .pth .pyc .pyd .rar .rpm "
    ".safetensors .so .sqlite .sqlite3 .tar .tgz .tif .tiff .ttf .wasm .wav .webm .webp .whl .woff .woff2 .xls "
    ".xlsx .xz .zip .zst"
)
_BINARY = frozenset(_BINARY_ENDINGS.split())


def ending_of(path: str) -> str:
    """The ending of a file's name in lower case, with its dot; "" if it has none."""
    return os.path.splitext(path)[1].lower()


def is_binary_name(path: str) -> bool:
    """True for endings of pictures, sound, archives, programs and other files without text: they are not opened."""
    return ending_of(path) in _BINARY


def reader_of(path: str) -> Reader:
    """The reader for the ending of `path`; that of plain text for an unknown one."""
    return READERS.get(ending_of(path), read_text)
