"""Imports run one way: the table says which rooms a room may import, function-level imports included."""

from collections import Counter
from pathlib import Path

import pytest
from import_graph import circles, floors, import_graph, modules_of, rooms

ROOT = Path(__file__).parents[1]
_BASE = "installing errors progress renamed display version checks readable prefixes foreign fields"
_RECORDS = f"{_BASE} documents options deadline machine processor scores ranking hits jobs passages"
_RUNTIME = f"{_RECORDS} files templates models loading reranker stages anytime"
# room -> rooms that it may import; a file directly in dearlite/ or export/ is a room of its own
MAY_IMPORT = {
    "installing": "",
    "errors": "installing",
    "progress": "errors",
    "display": "",
    "renamed": "errors",
    "version": "",
    "checks": "errors",
    "readable": "",
    "fields": "errors",
    "prefixes": "",
    "foreign": "errors",
    "deadline": "errors",
    "processor": "",
    "cores": "errors processor",
    "machine": "errors checks cores",
    "options": "errors checks progress readable",
    "documents": "errors readable fields",
    "scores": "errors",
    "rows": "",
    "ranking": "errors checks display rows",
    "hits": "documents scores ranking",
    "passages": "errors readable documents ranking hits",
    "files": "errors readable fields documents ranking",
    "templates": "errors prefixes",
    "folders": "errors checks readable documents ranking",
    "models": "installing errors checks options files templates",
    "loading": "errors options models",
    "lifetime": "errors options loading",
    "tasks": "errors renamed fields options progress ranking lifetime",
    "fusion": "errors progress documents options deadline scores ranking jobs",
    "reranker": "fusion tasks errors checks progress renamed fields documents options ranking jobs models loading",
    "relevance": "scores ranking reranker",
    "jobs": "errors fields documents",
    "agreement": "errors documents scores ranking jobs",
    "stages": "errors progress documents ranking hits passages",
    "anytime": "errors progress documents options deadline ranking hits jobs passages reranker stages",
    "pointwise": f"{_RUNTIME} llama",
    "llama": "installing errors foreign templates models",
    "listwise": f"{_RUNTIME} agreement llama",
    "attention": f"{_RUNTIME} agreement pointwise",
    "lexical": "errors fields options documents progress ranking models loading jobs reranker stages",
    "cascade_stage": "reranker",
    "cascade": f"{_RUNTIME} lifetime lexical cascade_stage",
    "recommend": "errors checks options deadline foreign machine processor files templates models pointwise listwise "
    "llama",
    "frozen": "",
    "integrations": "installing errors options readable documents progress ranking relevance models reranker",
    "kept": "models reranker",
    "api": "renamed fields options progress ranking models reranker kept tasks",
    "offline.collection": "errors checks fields documents files models reranker lexical",
    "offline.run": f"{_RECORDS} files models loading reranker offline.collection",
    "offline.cluster": f"{_RECORDS} files models loading reranker offline.collection offline.run",
    "offline.evaluation": f"{_RECORDS} files offline.collection offline.run",
    "offline": "renamed fields options models files reranker loading progress offline.collection offline.run "
    "offline.evaluation",
    "serve": f"{_RUNTIME} relevance version",
    "render": "errors fields documents scores ranking files offline.evaluation",
    "dearlite": f"{_RECORDS} folders lexical listwise tasks api reranker offline offline.collection offline.evaluation "
    "offline.run",
    "cli.options": f"{_RECORDS} models templates files loading listwise offline.collection offline.run render",
    "cli": f"{_RUNTIME} api fusion folders pointwise llama listwise recommend offline offline.collection offline.run "
    "offline.cluster offline.evaluation render serve cli.options",
    "__main__": "cli",
    "export.onnx": "",
    "export.source": "errors version files templates models",
    "export.numerics": "errors models export.source",
    "export.quality": f"{_RECORDS} reranker templates models files pointwise offline offline.collection offline.run",
    "export.decoders": "errors documents files machine models pointwise export.source export.numerics export.onnx "
    "export.quality",
    "export.encoders": "errors foreign files reranker models pointwise export.source export.numerics export.onnx "
    "export.quality",
    "export.gguf": "errors foreign files machine templates models pointwise llama listwise export.source "
    "export.numerics export.quality",
    "export.train.records": f"{_RECORDS} reranker templates models files listwise offline offline.collection "
    "offline.run",
    "export.train": f"{_RECORDS} version templates models files pointwise llama listwise offline.collection "
    "offline.run render export.source export.train.records",
    "export.options": "errors checks files templates pointwise listwise export.decoders export.gguf",
    "export.results": "models export.source",
    "export.attention": "errors documents files models attention export.options export.results export.source "
    "export.quality export.decoders",
    "export.pointwise": "errors templates models pointwise export.options export.results export.source export.quality "
    "export.decoders export.encoders export.gguf",
    "export.listwise": "errors models listwise export.options export.results export.source export.quality export.gguf",
    "export.pipeline": "errors machine templates models export.options export.results export.source "
    "export.pointwise export.listwise export.attention",
    "export.golden": "errors templates models reranker",
    "export.verification": "errors models export.options export.golden export.decoders",
    "export.getting": "errors templates models files export.options export.results export.pipeline export.source",
    "export": "errors export.options export.results export.pipeline export.verification export.getting export.quality "
    "export.train export.train.records",
    "export.command": "files templates pointwise listwise export.options export.results export.pipeline export.quality "
    "export.source export.decoders export.gguf",
}


def short(room: str) -> str:
    return room.removeprefix("dearlite.")


def strangers(graph: dict[str, set[str]]) -> list[str]:
    """Imports between rooms that the table does not list."""
    allowed = {room: set(targets.split()) for room, targets in MAY_IMPORT.items()}
    return [
        f"{short(room)} imports {short(target)}"
        for room, targets in graph.items()
        for target in targets
        if short(target) not in allowed.get(short(room), set())
    ]


def test_a_room_imports_only_what_the_table_lists():
    graph = rooms(import_graph(ROOT), modules_of(ROOT))
    assert not strangers(graph)
    assert {short(room) for room in graph} == set(MAY_IMPORT), "a new room needs a row in the table"


def test_the_table_itself_has_no_circle():
    assert not circles({room: set(targets.split()) for room, targets in MAY_IMPORT.items()})


def test_no_circle_between_files():
    assert not circles(import_graph(ROOT))


def test_a_forbidden_import_inside_a_function_is_seen(tmp_path):
    for folder in ("dearlite/models", "dearlite/render", "export"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "dearlite/__init__.py").touch()
    (tmp_path / "dearlite/render/table.py").touch()
    (tmp_path / "dearlite/models/bundle.py").write_text("def show():\n    from dearlite.render import table\n")
    graph = rooms(import_graph(tmp_path), modules_of(tmp_path))
    assert strangers(graph) == ["models imports render"]


@pytest.mark.parametrize(
    ("graph", "groups", "height"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, [], 3),
        ({"a": {"b"}, "b": {"a"}, "c": set()}, [{"a", "b"}], 2),
        (
            {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set()},
            [{"a", "b", "c"}],
            3,
        ),  # b is walked first: a -> b runs up
    ],
)
def test_circles_and_floors_of_a_small_graph(graph, groups, height):
    assert circles(graph) == groups
    assert 1 + max(floors(graph).values()) == height


def test_no_two_test_files_have_one_name():
    """pytest imports test files by their name alone, and fails to collect the second of a name."""
    names = [path.name for path in ROOT.glob("tests/**/test_*.py")]
    assert [name for name, count in Counter(names).items() if count > 1] == []
