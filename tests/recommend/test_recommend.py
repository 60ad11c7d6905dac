"""`recommend` and `dearlite models recommend` with fixed rates: order, reasons, advice, output, and what is kept."""

import json
from dataclasses import FrozenInstanceError

import pytest

from dearlite.errors import MissingExtra, UsageError
from dearlite.recommend import clock, gguf_probe, onnx_probe, recommend
from dearlite.recommend.choice import seconds_text
from dearlite.recommend.rates import GgufRates, OnnxRates

ENTRY = """[{name}]
kind = "pointwise"
repository = "me/{name}"
architecture = "bert"
prompt = "plain"
pooling = "first-token"
max_tokens = 512
licence = "{licence}"
size_mb = 10
memory_mb = {memory}
download_mb = 40
matrix_parameters = {matrices}
layers = 1
hidden = 64
{more}
"""
# name, 10^6 parameters in matrices, memory, quality: 100 documents of 200 tokens take 2.2 s for each 10^6
MODELS = [
    ("small", 1, 100, 0.4, True),
    ("good", 2, 200, 0.6, True),
    ("closed", 1, 100, 0.7, False),
    ("large", 1, 5000, 0.9, True),
    ("slow", 10, 200, 0.8, True),
    ("unknown", 1, 100, None, True),
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A registry of MODELS alone, in a machine of 10^10 operations a second and thread, that is measured at no cost."""
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path))
    tables = []
    for name, matrices, memory, quality, commercial in MODELS:
        more = "" if quality is None else f"quality = {{ mteb = {quality} }}"
        licence = "MIT" if commercial else "cc-by-nc-4.0"
        more += "" if commercial else "\ncommercial = false"
        values = {"name": name, "matrices": matrices * 10**6, "memory": memory, "more": more, "licence": licence}
        tables.append(ENTRY.format(**values))
    shipped = tmp_path / "shipped.toml"
    shipped.write_text("\n".join(tables))
    monkeypatch.setattr("dearlite.models.registry._shipped", lambda: shipped)
    calls = []
    rates = OnnxRates({256: 1e10}, 0.0, 0.0)
    monkeypatch.setattr(onnx_probe, "probe_onnx", lambda threads: calls.append(threads) or rates)
    monkeypatch.setattr(gguf_probe, "probe_gguf", lambda kind, threads: GgufRates(1e10, 0.0))
    monkeypatch.setattr("dearlite.cli.models_recommend.nvidia_gpu_present", lambda: False)
    return tmp_path, calls


def names(models):
    return [model.name for model in models]


def test_the_best_quality_that_fits_comes_first_and_reasons_follow(home):
    result = recommend(within_s=5.0, memory_mb=1000, threads=2)
    assert names(result.models) == ["closed", "good", "small", "large", "slow"]
    assert names(result.unranked) == ["unknown"]
    assert result.best.name == "closed"
    assert [m.reasons for m in result.models] == [(), (), (), ("too large",), ("too slow",)]
    # 100 documents of 220 tokens, 2 x 10^6 operations each, at 10^10 a second on two threads
    assert result.models[2].seconds == pytest.approx(100 * 220 * 2e6 / 1e10 / 2)
    assert result.models[1].get == "dearlite models get good"
    assert result.models[0].get == "dearlite models get closed --accept-licence"
    assert result.advice == ""
    with pytest.raises(FrozenInstanceError):
        result.within_s = 1.0


def test_commercial_use_excludes_licences_that_forbid_it(home):
    result = recommend(within_s=5.0, memory_mb=1000, threads=2, commercial=True)
    assert result.best.name == "good"
    assert next(m for m in result.models if m.name == "closed").reasons == ("non-commercial",)


def test_a_file_that_is_here_needs_no_command(home):
    folder, _ = home
    (folder / "models").mkdir()
    (folder / "models" / "good.dear").touch()
    assert next(m for m in recommend(threads=2).models if m.name == "good").get == ""


# Memory: 100 MB, attention 2 threads x 220^2 x 11 bytes, texts 100 x 2,200 bytes; together 101.3
@pytest.mark.parametrize(
    ("limits", "advice"),
    [
        ({"within_s": 2.0}, "no model fits; small is the nearest: give --within 2.2s, or fewer --docs or --tokens"),
        ({"memory_mb": 99}, "no model fits; small is the nearest: give --memory 102MB"),
        (
            {"within_s": 1.0, "memory_mb": 99},
            "no model fits; small is the nearest: give --within 2.2s, or fewer --docs or --tokens, and --memory 102MB",
        ),
    ],
)
def test_the_nearest_model_and_its_limits_are_named_where_none_fits(home, limits, advice):
    result = recommend(**({"within_s": 5.0, "memory_mb": 1000, "threads": 2, "commercial": True} | limits))
    assert (result.best, result.advice) == (None, advice)
    enough = recommend(within_s=2.3, memory_mb=102, threads=2, commercial=True)
    assert enough.best.name == "small"  # what the advice says is enough


def test_rates_are_measured_once_for_each_number_of_threads(home):
    folder, calls = home
    lines = []
    for threads in (2, 2, 3):
        recommend(threads=threads, report=lines.append)
    assert calls == [2, 3]
    assert lines == 2 * ["measuring ONNX Runtime on this machine, once"]
    recommend(threads=2, measure=True)
    assert calls == [2, 3, 2]
    kept = folder / "rates.json"
    for damage in (
        "{",
        "[]",
        kept.read_text().replace("10000000000.0", '"fast"'),
        kept.read_text().replace("10", "-1"),
        kept.read_text().replace("10000000000.0", "0"),
        kept.read_text().replace("10000000000.0", "1" + "0" * 400),
        kept.read_text().replace("10000000000.0", "true"),
        kept.read_text().replace('"256"', '"0"'),
        "[" * 100_000,
    ):
        calls.clear()
        kept.write_text(damage)
        recommend(threads=2)
        assert calls == [2], damage


def test_a_folder_that_cannot_be_written_is_no_error(home, monkeypatch):
    folder, _ = home
    monkeypatch.setenv("DEARLITE_HOME", str(folder / "shipped.toml"))  # a file
    assert recommend(threads=2, within_s=5.0, memory_mb=1000).best.name == "closed"


def test_a_missing_library_is_the_reason_of_its_models(home, monkeypatch):
    def missing():
        raise MissingExtra("no onnxruntime")

    monkeypatch.setattr("dearlite.pointwise.onnxruntime.onnxruntime", missing)
    result = recommend(threads=2)
    assert {m.reasons[0] for m in result.models} == {"ONNX Runtime is not installed"}
    assert {m.seconds for m in result.models} == {None}
    assert result.advice.startswith("no model fits, and none can be predicted")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"documents": 0}, "documents is 0"),
        ({"tokens": 1.5}, "tokens is 1.5"),
        ({"within_s": -1}, "-1"),
        ({"memory_mb": 0}, "memory_mb is 0"),
        ({"memory_mb": "8GB"}, "memory_mb is '8GB'"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_wrong_arguments_are_refused(home, options, words):
    with pytest.raises(UsageError, match=words):
        recommend(**options)


def test_the_table_fits_80_columns_and_has_the_command(home, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = cli("models", "recommend", "--within", "5s", "--memory", "1GB", "--threads", 2, "--tokens", 600)
    assert (code, err) == (0, "dearlite: measuring ONNX Runtime on this machine, once\n")
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0] == "No model fits; closed is the nearest: give --within 5.2s, or fewer --docs or --tokens."
    assert lines[-1].startswith("Documents are cut at a model's maximum: 492 tokens in ")
    arguments = ("models", "recommend", "--within", "5s", "--memory", "1GB", "--threads", 2)
    code, out, err = cli(*arguments)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "2 more do not fit: --all lists them."
    assert [line.split()[0] for line in out.splitlines() if "MIT" in line or "cc-by" in line] == [
        *("closed", "good", "small", "unknown")
    ]
    _, out, _ = cli(*arguments, "--all")
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0] == ("Take closed: 2.2s, 101 MB; `dearlite models get closed --accept-licence` downloads 40 MB.")
    rows = [line.split() for line in lines if "MIT" in line or "cc-by" in line]
    assert [row[0] for row in rows] == ["closed", "good", "small", "large", "slow", "unknown"]
    assert rows[1] == ["good", "0.6000", "4.4s", "201", "MB", "MIT", "get", "40", "MB"]
    assert [row[-1] for row in rows[3:5]] == ["large", "slow"]
    assert all(len(line) <= 80 for line in lines[3:])


def test_the_registry_s_own_table_fits_80_columns(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path))
    monkeypatch.setattr(onnx_probe, "probe_onnx", lambda threads: OnnxRates({256: 1e11}, 0.0, 0.0))
    monkeypatch.setattr(clock.Clock, "_measure_gguf", lambda self, kind: GgufRates(1e11, 0.0))
    _, out, _ = cli("models", "recommend", "--memory", "100MB", "--threads", 1, "--all")
    tables = [line.rstrip() for line in out.splitlines()[3:] if "slow, large" in line]
    assert len(tables) > 30
    assert max(map(len, tables)) <= 80


def test_json_has_every_model_and_the_best(home, cli):
    code, out, _ = cli("models", "recommend", "--within", "5s", "--memory", "1GB", "--threads", 2, "--json")
    result = json.loads(out)
    assert (code, result["best"], result["memory_mb"], result["gpu"]) == (0, "closed", 1000, False)
    assert [m["name"] for m in result["models"]] == ["closed", "good", "small", "large", "slow"]
    assert result["models"][3]["reasons"] == ["too large"]


def test_a_gpu_is_said_to_be_left_out(home, cli, monkeypatch):
    monkeypatch.setattr("dearlite.cli.models_recommend.nvidia_gpu_present", lambda: True)
    _, out, _ = cli("models", "recommend", "--threads", 2)
    assert "The times are not those of this machine's GPU" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--within", "0s"], "'0s' is not a time above 0"),
        (["--memory", "8"], "'8' is not an amount of memory, such as 8GB or 512MB"),
        (["--memory", "-1GB"], "'-1GB' is not an amount of memory"),
        (["--memory", "nanGB"], "'nanGB' is not an amount of memory"),
        (["--docs", 0], "0 is not in the range"),
        (["--threads", 0], "threads is 0"),
    ],
)
def test_wrong_options_are_one_line(home, cli, options, words):
    code, out, err = cli("models", "recommend", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


@pytest.mark.parametrize(
    ("seconds", "text", "up"),
    [
        (0.417, "0.42s", "0.42s"),
        (3.14, "3.1s", "3.2s"),
        (51.2, "51s", "52s"),
        (258, "4.3m", "4.3m"),
        (7560, "2.1h", "2.1h"),
    ],
)
def test_durations_have_two_digits(seconds, text, up):
    assert (seconds_text(seconds), seconds_text(seconds, up=True)) == (text, up)
