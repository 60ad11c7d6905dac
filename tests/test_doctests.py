"""The examples in the docstrings of public names print what stands below them."""

import doctest
import inspect

import pytest

import dearlite


def examples():
    """The examples of each public function and class, and of the methods that a class defines or inherits."""
    finder, runs = doctest.DocTestFinder(recurse=False), {}
    for name in dearlite.__all__:
        value = getattr(dearlite, name)
        members = [(name, value)]
        if inspect.isclass(value):
            members += [(f"{name}.{member}", getattr(value, member)) for member in dir(value) if member[0] != "_"]
        for path, member in members:
            runs.update((path, test) for test in finder.find(member, path) if test.examples)
    return runs


EXAMPLES = examples()


def test_the_first_names_of_a_program_have_examples():
    assert {"rerank", "Reranker.rerank", "Reranker.rerank_many", "Reranker.score", "Ranking.above"} <= EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_prints_what_stands_below_it(name):
    report = []
    failed = doctest.DocTestRunner(verbose=False).run(EXAMPLES[name], out=report.append).failed
    assert not failed, "".join(report)
