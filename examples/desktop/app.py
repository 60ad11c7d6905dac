"""A small desktop app: a query, documents in a field or a file, progress, cancel, a table of results, reasons.

    python examples/desktop/app.py [FILE] [--query TEXT] [--model NAME|FILE]

Freeze it with `pyinstaller --onedir examples/desktop/app.py`: dearlite brings its own hook. The work runs in a thread;
the window only reads a queue, as Tk is not to be touched from elsewhere.
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
import tkinter as tk
from pathlib import Path
from tkinter import filedialog, ttk
from typing import Any

from dearlite import Reranker
from dearlite.errors import Cancelled, DearliteError
from dearlite.files.readers import read_documents

POLL_MS = 50
COLUMNS = {"rank": 50, "was": 50, "relevance": 90, "score": 80, "document": 560}


class App(tk.Tk):
    """The window. `model` is a name or a file, None for the embedded default."""

    def __init__(self, model: str | None) -> None:
        super().__init__()
        self.title("dearlite")
        self.geometry("960x640")
        style = ttk.Style(self)
        if style.theme_use() == "default":  # of X11; Windows and macOS have their own
            style.theme_use("clam")
            style.configure("Horizontal.TProgressbar", background="#2456c7", troughcolor="#e9edf4")  # dark on light
        self._model, self._reranker = model, None
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._cancel = threading.Event()
        self._hits: list[Any] = []
        self._build()
        self.bind("<Control-Return>", lambda _: self.rerank())
        self.bind("<Escape>", lambda _: self.cancel())
        self.bind("<Control-s>", lambda _: self.save())
        self.bind("<Control-q>", lambda _: self.destroy())
        self.after(POLL_MS, self._poll)

    def _build(self) -> None:
        self.columnconfigure(0, weight=1)
        self.rowconfigure(3, weight=1)
        head = ttk.Frame(self, padding=8)
        head.grid(sticky="ew")
        head.columnconfigure(1, weight=1)
        ttk.Label(head, text="Query").grid(row=0, column=0, padx=(0, 8))
        self.query = ttk.Entry(head)
        self.query.grid(row=0, column=1, sticky="ew")
        self.query.bind("<Return>", lambda _: self.rerank())
        self.run_button = ttk.Button(head, text="Rerank", command=self.rerank)
        self.run_button.grid(row=0, column=2, padx=8)
        self.cancel_button = ttk.Button(head, text="Cancel", command=self.cancel, state="disabled")
        self.cancel_button.grid(row=0, column=3)
        ttk.Button(head, text="Open…", command=self.open_file).grid(row=0, column=4, padx=(8, 0))
        self.count = ttk.Label(self, text="Documents, one per line", padding=(8, 0))
        self.count.grid(sticky="w")
        self.documents = tk.Text(self, height=8, wrap="word", undo=True)
        self.documents.grid(row=2, sticky="ew", padx=(8, 24))
        rows = ttk.Scrollbar(self, command=self.documents.yview)
        self.documents.configure(yscrollcommand=rows.set)
        rows.grid(row=2, sticky="nse", padx=(0, 8))
        self.documents.bind("<<Modified>>", self._count)
        self.table = ttk.Treeview(self, columns=list(COLUMNS), show="headings")
        for name, width in COLUMNS.items():
            self.table.heading(name, text=name.capitalize())
            self.table.column(name, width=width, anchor="w" if name == "document" else "e", stretch=name == "document")
        self.table.grid(sticky="nsew", padx=(8, 24), pady=8)
        bar = ttk.Scrollbar(self, command=self.table.yview)
        self.table.configure(yscrollcommand=bar.set)
        bar.grid(row=3, sticky="nse", padx=(0, 8), pady=8)
        self.table.bind("<<TreeviewSelect>>", self._show_reason)
        self.reason = tk.Text(self, height=3, wrap="word", state="disabled", relief="flat")  # a fixed height
        self.reason.grid(sticky="ew", padx=8)
        foot = ttk.Frame(self, padding=8)
        foot.grid(sticky="ew")
        foot.columnconfigure(0, weight=1)
        self.status = ttk.Label(foot, text="Ctrl+Return: rerank. Escape: cancel. Ctrl+S: save.")
        self.status.grid(row=0, column=0, sticky="w")
        self.progress = ttk.Progressbar(foot, length=200)
        self.progress.grid(row=0, column=1)

    def open_file(self, path: str | None = None) -> None:
        """Puts the documents of a file into the field: JSON Lines, CSV, text and the others that dearlite reads."""
        path = path or filedialog.askopenfilename(parent=self)
        if not path:
            return
        try:
            texts = [" ".join(f"{doc.title} {doc.text}".split()) for doc in read_documents(path).documents]
        except DearliteError as err:
            self.status["text"] = str(err)
            return
        self.documents.delete("1.0", "end")
        self.documents.insert("1.0", "\n".join(texts))

    def rerank(self) -> None:
        """Starts the work in a thread."""
        if self.cancel_button.instate(["!disabled"]):
            return  # it runs
        texts = [line for line in self.documents.get("1.0", "end").splitlines() if line.strip()]
        self._cancel.clear()
        self._set_running(True)
        self.progress.configure(maximum=max(1, len(texts)), value=0)
        threading.Thread(target=self._work, args=(self.query.get(), texts), daemon=True).start()

    def _work(self, query: str, texts: list[str]) -> None:
        """Runs in the thread, and reports by events."""
        send = self._events.put
        try:
            if self._reranker is None:
                self._reranker = Reranker.load(self._model)
            ranking = self._reranker.rerank(
                query, texts, cancel=self._cancel, progress=lambda done, total: send(("progress", done))
            )
            send(("ranking", ranking))
        except Cancelled:
            send(("status", "Cancelled."))
        except DearliteError as err:
            send(("status", str(err)))

    def _poll(self) -> None:
        while not self._events.empty():
            kind, value = self._events.get()
            if kind == "progress":
                self.progress["value"] = value
                continue
            if kind == "ranking":
                self._show(value)
            else:
                self.status["text"] = value
            self.progress["value"] = 0
            self._set_running(False)
        self.after(POLL_MS, self._poll)

    def _set_running(self, running: bool) -> None:
        self.run_button["state"] = "disabled" if running else "normal"
        self.cancel_button["state"] = "normal" if running else "disabled"
        if running:
            self.status["text"] = "Reranking…"

    def _show(self, ranking: Any) -> None:
        self._hits = list(ranking)
        self.table.delete(*self.table.get_children())
        for number, hit in enumerate(self._hits):
            relevance = "" if hit.relevance is None else f"{hit.relevance:.0%}"
            score = "" if hit.score is None else f"{hit.score:.2f}"
            values = (number + 1, hit.index + 1, relevance, score, hit.text)
            self.table.insert("", "end", iid=str(number), values=values)
        self.status["text"] = f"{len(self._hits)} documents, {ranking.elapsed_s:.1f} s, {ranking.model}"

    def _show_reason(self, _: object) -> None:
        for number in self.table.selection():
            hit = self._hits[int(number)]
            self.reason["state"] = "normal"
            self.reason.replace("1.0", "end", hit.reason or hit.text)
            self.reason["state"] = "disabled"

    def _count(self, _: object) -> None:
        number = sum(bool(line.strip()) for line in self.documents.get("1.0", "end").splitlines())
        self.count["text"] = f"Documents, one per line: {number:,}" if number else "Documents, one per line"
        self.documents.edit_modified(False)

    def save(self) -> None:
        """Writes the ranking to dearlite-ranking.json in the working folder."""
        if not self._hits:
            self.status["text"] = "No ranking yet."
            return
        rows = [{"index": hit.index, "score": hit.score, "text": hit.text} for hit in self._hits]
        Path("dearlite-ranking.json").write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
        self.status["text"] = "Saved dearlite-ranking.json."

    def destroy(self) -> None:
        """Ends the work too: the process waits for the engine's thread."""
        self._cancel.set()
        super().destroy()

    def cancel(self) -> None:
        """Ends the work at the next document."""
        self._cancel.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", help="documents to open")
    parser.add_argument("--query", default="")
    parser.add_argument("--model", help="a model's name or file; default: the embedded one")
    options = parser.parse_args()
    try:
        app = App(options.model)
    except tk.TclError as err:
        raise SystemExit(f"app.py: no window can be opened ({err}): start it on a desktop") from None
    app.query.insert(0, options.query)
    if options.file:
        app.open_file(options.file)
    app.query.focus_force()
    app.mainloop()


if __name__ == "__main__":
    main()
