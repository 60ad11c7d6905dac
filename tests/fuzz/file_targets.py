"""Files of texts, numbers and settings: documents, queries, runs, judgements, candidates, journals, caches, names."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import zlib
from functools import partial
from pathlib import Path

from fuzzing import Fault, Target, by_bytes, by_json, by_json_lines, with_tokens
from mutations import any_value, changed_json, json_bytes, mutated

from dearlite.errors import InvalidInput
from dearlite.files.readers import read_documents
from dearlite.files.trec import read_qrels, read_run
from dearlite.offline.collection.candidates import read_candidates
from dearlite.offline.collection.memory import as_corpus, as_qrels, as_queries, as_run
from dearlite.offline.collection.texts import read_corpus, read_queries
from dearlite.offline.run.cache import ScoreCache
from dearlite.offline.run.journal import Journal
from dearlite.ranking import PairScore

DOCUMENTS = (
    '{"id": "a", "title": "Snow", "text": "Snow falls in winter."}\n{"id": "b", "text": "Zürich 雪"}\n',
    '{"_id": 7, "contents": "x"}\n\n{"docid": "8", "payload": {"text": "y", "title": "t"}}\n',
    '"a text"\n"another"\n',
)
DOCUMENT_LISTS = (
    '[{"id": "a", "text": "Snow"}, {"id": "b", "text": "雪", "score": 1.5}]',
    '{"results": [{"page_content": "x", "metadata": {"id": "1"}}, {"page_content": "y"}]}',
    '["a", "b"]',
)
TABLES = ('id,title,text\n1,"Snow, and ice","It ""falls"""\n2,,雪\n', "text\nrain\nsnow\n", "id;text\n1;a\n2;b\n")
QUERIES = ('{"_id": "1", "text": "snow?"}\n{"_id": "2", "text": "rain"}\n', '{"qid": 1, "query": "a"}\n')
RUNS = ("1 Q0 a 1 2.5 tag\n1 Q0 b 2 1.5 tag\n2 Q0 a 1 -1e-3 tag\n", "1\ta\t1\n1\tb\t2\n", "qid,docid,score\n1,a,2\n")
QRELS = ("1 0 a 2\n1 0 b 0\n2 0 a 1\n", "query-id\tcorpus-id\tscore\n1\ta\t1\n", "1 a 1\n2 b 3\n")
NESTED = ('{"1": {"a": 2, "b": 1}, "2": {"a": 3}}', '[{"query_id": "1", "doc_id": "a", "score": 2}]')
CANDIDATES = (
    '[{"query": "snow", "hits": [{"content": "a", "qid": 1, "docid": "7", "rank": 1, "score": 14.9}, '
    '{"content": "b", "qid": 1, "docid": "8", "rank": 2, "score": 1}]}]',
    '[{"query": {"text": "snow", "qid": 1}, "candidates": [{"docid": "7", "score": 14, "doc": {"contents": "…"}}]}]',
    '[{"question": "snow", "ctxs": [{"id": "7", "title": "t", "text": "x", "score": "14.9"}]}]',
    '[{"query": "snow", "documents": ["a", "b"]}]',
)
_RECORD_WORDS = (b'"text"', b'"id"', b'"_id"', b'"title"', b'"score"', b'"query"', b'"docid"', b"\n{", b"Q0", b"NaN")


def _file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _documents(name, data, folder):
    path, options = _file(folder, name, data), {"skip_bad": bool(zlib.crc32(data) & 1)}
    file = read_documents(str(path), **options)
    if not len(file.documents) == len(file.locations) > 0 or not all(
        each.text or each.title for each in file.documents
    ):
        raise Fault(f"{len(file.documents)} documents, {len(file.locations)} locations, or an empty text")
    file.note_ids(positions=True)
    for document in file.documents:
        document.text.encode()  # lone surrogates are no text


def _run(name, data, folder):
    for scores in read_run(_file(folder, name, data), skip_bad=bool(zlib.crc32(data) & 1))[0].values():
        if sorted(scores.values(), reverse=True) != list(scores.values()):
            raise Fault("a run is out of order")


def _corpus(name, data, folder):
    read_corpus([_file(folder, name, data)], ids={"a", "7"}, skip_bad=bool(zlib.crc32(data) & 1))


def _zipped(random, seeds):
    """Gzip whose texts, or whose bytes, are changed."""
    if random.randrange(2):
        return gzip.compress(by_json_lines(random, [gzip.decompress(seed) for seed in seeds]), 1, mtime=0)
    return by_bytes(random, seeds)


def _parquet_tables():
    import pyarrow

    yield pyarrow.table({"id": ["a", "b"], "text": ["Snow", "雪"], "score": [1.5, None]})
    yield pyarrow.table({"text": ["a", "b"], "tags": [["x"], []], "meta": [{"k": 1}, None], "blob": [b"\xff", b""]})
    yield pyarrow.table({"_id": [1, 2], "title": ["t", None], "text": pyarrow.array(["c", "c"]).dictionary_encode()})


def _parquet_seeds(folder):
    from pyarrow import parquet

    seeds = []
    for table in _parquet_tables():
        parquet.write_table(table, stream := io.BytesIO(), compression="none")
        seeds.append(stream.getvalue())
    return seeds


def _parquet(random, seeds):
    """A file with changed bytes, or with columns of any types and names."""
    if random.randrange(3):
        return mutated(random, random.choice(seeds), seeds, (b"PAR1", b"schema", b"text"))
    import pyarrow
    from pyarrow import parquet

    columns = {random.choice(("text", "id", "title", "Text", "", "a\nb", "\0")): [any_value(random)] * 2 for _ in "abc"}
    try:
        parquet.write_table(pyarrow.table(columns), stream := io.BytesIO())
    except (pyarrow.ArrowException, OverflowError, UnicodeError, TypeError):
        return seeds[0]
    return stream.getvalue()


# journal and cache: what dearlite wrote itself, and a disk or another program changed

_ENTRIES = (
    {"dearlite": "journal", "schema": 1},
    {"key": "ab" * 16, "query": "1", "ids": ["a", "b"], "scores": [1.5, -2.0], "tokens": [[3, 3], [4, 9]]},
)


def _journal_line(text: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _journal_seeds(folder):
    return [b"", b"".join(_journal_line(json.dumps(entry).encode()) for entry in _ENTRIES)]


def _journal(random, seeds):
    """Entries with changed values, whose check sums are right, or changed bytes."""
    if random.randrange(3) == 0:
        return by_bytes(random, seeds)
    entries = list(_ENTRIES[: random.choice((1, 2, 2))]) * random.choice((1, 1, 2))
    at = random.randrange(len(entries))
    entries[at] = changed_json(random, entries[at])
    lines = [_journal_line(json_bytes(random, entry).replace(b"\n", b" ")) for entry in entries]
    return b"".join(lines)[: random.choice((None, None, -1, -9))]


def _read_journal(data, folder):
    path = _file(folder, "run.journal", data)
    with Journal(path) as journal:
        before = list(journal.entries())
        journal.add({"key": "new"})
        if list(journal.entries()) != [*before, {"key": "new"}]:
            raise Fault("an entry is lost")


def _cache_bytes(*statements):
    """A database in which `statements` were run on a cache with one score."""
    database = sqlite3.connect(":memory:")
    database.execute("PRAGMA page_size=512")
    database.execute("PRAGMA application_id=1684365682")
    database.execute(
        "CREATE TABLE scores (key BLOB PRIMARY KEY, score REAL NOT NULL, used INTEGER NOT NULL, total INTEGER NOT NULL)"
        " WITHOUT ROWID"
    )
    database.execute("INSERT INTO scores VALUES (?, 1.5, 3, 9)", (b"k" * 16,))
    for statement in statements:
        database.execute(statement)
    database.commit()
    data = database.serialize()
    database.close()
    return data


_STATEMENTS = (
    "DROP TABLE scores",
    "ALTER TABLE scores RENAME COLUMN score TO points",
    "ALTER TABLE scores ADD COLUMN more TEXT",
    "UPDATE scores SET score = 'word'",
    "UPDATE scores SET score = x'ff00'",
    "UPDATE scores SET score = 9e999",
    "UPDATE scores SET used = -1",
    "UPDATE scores SET used = 9, total = 3",
    "UPDATE scores SET used = 'x', total = 2.5",
    "UPDATE scores SET total = 9223372036854775807",
    "CREATE VIEW v AS SELECT * FROM scores",
    "CREATE TABLE other (a)",
    "PRAGMA application_id=5",
    "DROP TABLE scores; ",
)


def _cache(random, seeds):
    """A cache that statements or bytes have changed."""
    if random.randrange(4) == 0:
        return _cache_bytes(random.choice(_STATEMENTS))
    return by_bytes(random, seeds, (b"SQLite format 3\0", b"CREATE TABLE scores"))


def _read_cache(data, folder):
    for ending in ("", "-wal", "-shm"):
        (folder / f"scores.cache{ending}").unlink(missing_ok=True)
    with ScoreCache(_file(folder, "scores.cache", data)) as cache:
        for score in cache.find([b"k" * 16, b"other"]).values():
            used, total = score.tokens_used, score.tokens_total
            if not (type(score.score) is float and type(used) is type(total) is int and 0 <= used <= total):
                raise Fault(f"{score} is no score")
        cache.add([(b"n" * 16, PairScore(0.5, 1, 1))])


def _encoded(*texts):
    return lambda folder: [text.encode() for text in texts]


def _from_memory(data, folder):
    """Runs, judgements, queries and documents as objects of the caller."""
    try:
        value = json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        raise InvalidInput("no JSON") from None
    (as_run, as_qrels, as_queries, as_corpus)[zlib.crc32(data) % 4](value)


_CSV = with_tokens(b'"', b'""', b",", b";", b"\t", b"text", b"id", b'"\n"', b"\n\n", b"sep=;\n")
_TREC = with_tokens(b"Q0", b" 0 ", b"\t", b"qid", b"docid", b"score", b"rank", b"1e5", b"nan", b"-inf", b"#", b'"')
_LINES, _JSON = partial(by_json_lines, tokens=_RECORD_WORDS), partial(by_json, tokens=_RECORD_WORDS)
TARGETS = (
    Target(name="documents.jsonl", read=partial(_documents, "d.jsonl"), seeds=_encoded(*DOCUMENTS), make=_LINES),
    Target(name="documents.json", read=partial(_documents, "d.json"), seeds=_encoded(*DOCUMENT_LISTS), make=_JSON),
    Target(name="documents.csv", share=3.0, read=partial(_documents, "d.csv"), seeds=_encoded(*TABLES), make=_CSV),
    Target(
        name="documents.tsv",
        share=3.0,
        read=partial(_documents, "d.tsv"),
        seeds=_encoded("id\ttext\n1\ta\n"),
        make=_CSV,
    ),
    Target(name="documents.txt", share=3.0, read=partial(_documents, "d.txt"), seeds=_encoded("rain\nsnow\n", "雪\n")),
    Target(
        name="documents.jsonl.gz",
        read=partial(_documents, "d.jsonl.gz"),
        seeds=lambda folder: [gzip.compress(text.encode(), mtime=0) for text in DOCUMENTS],
        make=_zipped,
    ),
    Target(
        name="documents.parquet",
        read=partial(_documents, "d.parquet"),
        seeds=_parquet_seeds,
        make=_parquet,
        needs=("pyarrow",),
        share=0.2,
    ),
    Target(
        name="queries.jsonl",
        read=lambda data, folder: read_queries(_file(folder, "q.jsonl", data)),
        seeds=_encoded(*QUERIES),
        make=_LINES,
    ),
    Target(
        name="queries.tsv",
        share=3.0,
        read=lambda data, folder: read_queries(_file(folder, "q.tsv", data)),
        seeds=_encoded("1\tsnow?\n2\train\n", "qid\tquery\n1\ta\n"),
        make=_CSV,
    ),
    Target(name="corpus.jsonl", read=partial(_corpus, "c.jsonl"), seeds=_encoded(*DOCUMENTS[:2]), make=_LINES),
    Target(
        name="corpus.tsv", share=3.0, read=partial(_corpus, "c.tsv"), seeds=_encoded("a\tSnow\nb\tice\n"), make=_CSV
    ),
    Target(name="run.trec", share=3.0, read=partial(_run, "r.trec"), seeds=_encoded(*RUNS), make=_TREC),
    Target(name="run.json", read=partial(_run, "r.json"), seeds=_encoded(*NESTED), make=_JSON),
    Target(
        name="qrels",
        share=3.0,
        read=lambda data, folder: read_qrels(_file(folder, "qrels.txt", data)),
        seeds=_encoded(*QRELS),
        make=_TREC,
    ),
    Target(
        name="qrels.json",
        read=lambda data, folder: read_qrels(_file(folder, "qrels.json", data)),
        seeds=_encoded(*NESTED),
        make=_JSON,
    ),
    Target(
        name="candidates.json",
        read=lambda data, folder: read_candidates(
            _file(folder, "c.json", data), depth=10, skip_bad=bool(zlib.crc32(data) & 1)
        ),
        seeds=_encoded(*CANDIDATES),
        make=_JSON,
    ),
    Target(name="objects", read=_from_memory, seeds=_encoded('{"1": {"text": "2"}}', *NESTED), make=_JSON),
    Target(name="journal", read=_read_journal, seeds=_journal_seeds, make=_journal, share=0.3),
    Target(name="cache", read=_read_cache, seeds=lambda folder: [_cache_bytes()], make=_cache, share=0.1, short=60),
)
