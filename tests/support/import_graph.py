"""Imports between the files and folders of a checkout, read with `ast`: floors, circles and arrows that run up.

    python tests/support/import_graph.py [CHECKOUT]

Every import counts: at the top of a file, inside a function, and under TYPE_CHECKING. The script needs the standard
library only, so that it reads any commit.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

Graph = dict[str, set[str]]  # a file or a room -> those that it imports


def modules_of(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module; the folder `export` is the package dearlite.export.

    Left out are files that cannot be imported by their name: hooks of PyInstaller.
    """
    modules = {}
    for folder, package in (("dearlite", "dearlite"), ("export", "dearlite.export")):
        for file in sorted((root / folder).rglob("*.py")):
            parts = file.relative_to(root / folder).with_suffix("").parts
            if not all(map(str.isidentifier, parts)):
                continue
            modules[".".join((package, *(part for part in parts if part != "__init__")))] = file
    return modules


def imports_of(file: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    """Modules of the project that `file` imports; `from package import module` counts as that module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in submodules if name in modules)
            if any(name not in modules for name in submodules):
                yield node.module


def import_graph(root: Path) -> Graph:
    """Module -> modules that it imports."""
    modules = modules_of(root)
    return {name: set(imports_of(file, modules)) - {name} for name, file in modules.items()}


def rooms(graph: Graph, modules: Mapping[str, Path]) -> Graph:
    """The graph between rooms: a file directly in a package's root is a room of its own, a folder below it is one."""
    room = {name: room_of(name, modules[name]) for name in graph}
    whole: Graph = {name: set() for name in room.values()}
    for name, targets in graph.items():
        whole[room[name]] |= {room[target] for target in targets} - {room[name]}
    return whole


def room_of(module: str, file: Path) -> str:
    """`dearlite/files/trec.py` -> dearlite.files; `dearlite/errors.py` -> dearlite.errors."""
    if file.name == "__init__.py" or module.rpartition(".")[0] in ("dearlite", "dearlite.export"):
        return module
    return module.rpartition(".")[0]


def circles(graph: Graph) -> list[set[str]]:
    """Groups of two or more that reach one another (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = set(stack[stack.index(node) :])
            del stack[stack.index(node) :]
            if len(group) > 1:
                groups.append(group)

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return groups


def upward(graph: Graph) -> list[tuple[str, str]]:
    """Arrows that must go before no circle is left: back edges of a depth-first walk, most-importing nodes first."""
    state: dict[str, int] = {}
    back: list[tuple[str, str]] = []

    def visit(node: str) -> None:
        state[node] = 1
        for target in sorted(graph[node]):
            if state.get(target) == 1:
                back.append((node, target))
            elif target not in state:
                visit(target)
        state[node] = 2

    for node in sorted(graph, key=lambda name: (-len(graph[name]), name)):
        if node not in state:
            visit(node)
    return back


def floors(graph: Graph) -> dict[str, int]:
    """Floor of each node: 0 imports nothing, otherwise one above the highest it imports; upward arrows are left out."""
    up = set(upward(graph))
    heights: dict[str, int] = {}

    def height(node: str) -> int:
        if node not in heights:
            below = [height(target) for target in graph[node] if (node, target) not in up]
            heights[node] = 1 + max(below, default=-1)
        return heights[node]

    for node in graph:
        height(node)
    return heights


def _lines(root: Path) -> Iterable[str]:
    modules, graph = modules_of(root), import_graph(root)
    for what, each in (("files", graph), ("rooms", rooms(graph, modules))):
        found = circles(each)
        arrows = sum(map(len, each.values()))
        yield (
            f"{what}: {len(each)}, imports {arrows}, floors {1 + max(floors(each).values())}, circles {len(found)}, "
            f"upward imports {len(upward(each))}"
        )
        yield from (f"  circle of {len(group)}: {', '.join(sorted(group))}" for group in found)
        yield from (f"  up: {source} -> {target}" for source, target in upward(each))


if __name__ == "__main__":
    print("\n".join(_lines(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2])))
