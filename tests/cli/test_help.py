"""Help pages: their sections and examples, without extras, and for who types a command wrong or none at all."""

import re
import shlex
import subprocess
import sys

import click
import pytest
from command_tree import commands

import dearlite
from dearlite.cli.help_pages import EXAMPLES, LEAST, SECTIONS
from dearlite.cli.main import COMMANDS, main

EXTRAS = """accelerate anyio gguf huggingface_hub ir_datasets ir_measures jinja2 llama_cpp matplotlib mcp onnx
onnxruntime optimum pandas peft pyarrow ray safetensors starlette torch transformers uvicorn"""
# Runs each command's --help in a process in which no extra is installed; prints the failures.
WITHOUT_EXTRAS = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS.split()}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from click.testing import CliRunner
from dearlite.cli.main import main
for path in sys.argv[1:]:
    result = CliRunner().invoke(main, [*path.split(), "--help"])
    if result.exit_code or not result.output.startswith("Usage: "):
        print(path, result.output, result.exception)
"""


def page(cli, *path):
    code, out, err = cli(*path, "--help")
    assert (code, err) == (0, "")
    return out


def test_every_help_page_works_without_extras():
    paths = {" ".join(path.split()[:depth]) for path in commands() for depth in (1, 2)}
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS, *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("arguments", [[], ["train"]])
def test_no_command_is_the_help_page_and_no_error(cli, arguments):
    code, out, err = cli(*arguments)
    assert (code, err) == (0, "")
    assert out == page(cli, *arguments)


@pytest.mark.parametrize("path", [(), ("rerank",), ("models", "show"), ("train", "mine"), ("help",)])
def test_help_is_the_page_of_the_command(cli, path):
    assert cli("help", *path) == (0, page(cli, *path), "")


def test_version_is_that_of_the_option(cli):
    assert cli("version") == cli("--version")
    assert dearlite.__version__ in cli("version")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reranks"], "no command 'reranks': did you mean rerank? (see dearlite -h)"),
        (["Models"], "no command 'Models': did you mean models?"),
        (["models", "lst"], "no command 'lst': did you mean list? (see dearlite models -h)"),
        (["help", "modls"], "did you mean models?"),
        (["help", "models", "shw"], "did you mean show? (see dearlite models -h)"),
        (["help", "doctor", "x"], "dearlite doctor has no command 'x'"),
        (["xyzzy"], "no command 'xyzzy': it is one of rerank, batch, "),
    ],
)
def test_a_misspelt_command_gets_the_nearest(cli, arguments, words):
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_files_without_a_command_get_the_command_for_them(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7.txt").write_text("rain")
    assert "to rank documents: dearlite rerank 7.txt" in cli("7.txt", "docs.jsonl")[2]


def test_every_command_has_examples_that_it_takes():
    tree = commands()
    assert {path for path in EXAMPLES if path not in tree} == {"models", "train"}  # groups
    assert set(tree) - set(EXAMPLES) == set()
    assert all(len(EXAMPLES[path]) == 3 for path, command in tree.items() if len(command.params) > 3)
    for path, lines in EXAMPLES.items():
        for line in lines:
            assert len(line) <= 78
            words = shlex.split(line.partition("|")[2] if line.startswith("cat ") else line)
            words = words[: words.index("|")] if "|" in words else words
            assert words[0] == "dearlite"
            ctx, arguments = click.Context(main, **main.context_settings), words[1:]
            while isinstance(ctx.command, click.Group) and arguments:
                _, command, arguments = ctx.command.resolve_command(ctx, arguments)
                ctx = click.Context(command, parent=ctx)
            ctx.command.make_parser(ctx).parse_args(list(arguments))  # an unknown option raises
            assert path.split()[0] in words


def sections_of(text):
    return re.findall(r"^(\w[\w ]*):$", text, re.MULTILINE)


def test_options_are_in_sections_where_there_are_many(cli):
    text = page(cli, "rerank")
    names = [
        "Query and documents",
        "Files and folders",
        "Output",
        "Model",
        "Long documents",
        "Cascade",
        "Listwise models",
        "Other options",
    ]
    assert sections_of(text) == ["Examples", *names]
    output = text.partition("\nOutput:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^  (?:-\w, )?(--[\w-]+)", output, re.MULTILINE)[:3] == ["--top-k", "--all", "--min-relevance"]
    assert sections_of(page(cli, "bench")) == ["Examples", "Options"]


def test_every_option_of_a_page_with_sections_is_in_one():
    known = {option for options in SECTIONS.values() for option in options}
    for path, command in commands().items():
        options = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
        if len(options) >= LEAST:
            assert [option.opts for option in options if not known & set(option.opts)] == [], path


def test_the_first_page_loads_none_of_the_commands():
    code = (
        "import sys\nfrom dearlite.cli.main import run\ntry: run(['--help'])\nexcept SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('dearlite.') or name == 'numpy'], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"'([\w.]+)'", done.stderr))
    commands_loaded = {module for module, *_ in COMMANDS.values()} & loaded
    assert commands_loaded <= {"dearlite.cli.help"}
    assert not loaded & {"dearlite.ranking", "dearlite.reranker", "dearlite.documents", "numpy"}
