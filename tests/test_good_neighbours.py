"""Tests pass on a busy machine and beside another run: they await states, and touch only what they made themselves."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = [path for path in sorted(TESTS.rglob("*.py")) if path != Path(__file__)]
# All processes of a machine, and those of a name: another run's are among them.
OF_OTHERS = re.compile(r"process_iter|psutil\.pids|pkill|killall|pidof")
CLOCKS = {"perf_counter", "monotonic", "time", "process_time"}
# (file, function): why a pause stands before an assertion, or an upper bound of time is asserted.
ALLOWED: dict[tuple[str, str], str] = {}


def faults_of(source):
    """(function, fault) of each pause before an assertion and each upper bound of a measured time."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for block in blocks_of(function):
            for statement, following in zip(block, [*block[1:], None], strict=True):
                if pauses(statement) and isinstance(following, ast.Assert):
                    yield function.name, f"line {statement.lineno}: a pause and then an assertion: use `eventually`"
                if isinstance(statement, ast.Assert) and bounds_time(statement):
                    yield function.name, f"line {statement.lineno}: a machine may stand still: use `eventually`"


def blocks_of(function):
    """The lists of statements in a function."""
    for node in ast.walk(function):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and block:
                yield block


def called(node):
    """Names of the functions that a node calls."""
    calls = [inner.func for inner in ast.walk(node) if isinstance(inner, ast.Call)]
    return {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}


def pauses(statement):
    """True for a `sleep` of some time; one of 0 lets others run."""
    calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)] if is_call(statement) else []
    return any(ast.unparse(call.func).endswith("sleep") and ast.unparse(call.args[0]) != "0" for call in calls)


def is_call(statement):
    return isinstance(statement, ast.Expr) and isinstance(statement.value, (ast.Call, ast.Await))


def bounds_time(statement):
    """True if an assertion has a time that was measured, a difference, on the lesser side of a comparison."""
    for compare in (node for node in ast.walk(statement) if isinstance(node, ast.Compare)):
        sides = [compare.left, *compare.comparators]
        for left, operator, right in zip(sides, compare.ops, sides[1:], strict=False):
            lesser = left if isinstance(operator, (ast.Lt, ast.LtE)) else right
            difference = called(lesser) & CLOCKS and any(isinstance(node, ast.Sub) for node in ast.walk(lesser))
            if difference and isinstance(operator, (ast.Lt, ast.LtE, ast.Gt, ast.GtE)):
                return True
    return False


def test_no_test_depends_on_speed_or_on_others():
    faults = []
    for path in FILES:
        source, name = path.read_text(encoding="utf-8"), path.relative_to(TESTS).as_posix()
        faults += [f"{name}: {word} reaches processes of others" for word in OF_OTHERS.findall(source)]
        faults += [f"{name}: {fault}" for function, fault in faults_of(source) if (name, function) not in ALLOWED]
    assert len(FILES) > 100
    assert faults == []


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ("time.sleep(1)\nassert ended", 1),
        ("await asyncio.sleep(0.2)\nassert not calls", 1),
        ("await asyncio.sleep(0)\nassert not calls", 0),
        ("time.sleep(1)\nprint()\nassert ended", 0),
        ("assert time.perf_counter() - start < 5", 1),
        ("assert 0.5 < time.monotonic() - start <= 8", 1),
        ("assert 1 > monotonic() - start", 1),
        ("assert time.perf_counter() - start > 0.5", 0),
        ("for _ in range(3):\n    sleep(pause_s)\n    assert ended", 1),
        ("assert not late and time.monotonic() < end", 0),
    ],
)
def test_the_guard_can_fail(lines, count):
    source = "async def test():\n" + "".join(f"    {line}\n" for line in lines.splitlines())
    assert len(list(faults_of(source))) == count
