"""models.toml and the names it gives: the zoo of shared/reference/dear.md row by row; what an absent model says."""

import importlib.util
import io
import re
from pathlib import Path

import pytest
from tiny_gguf import write_tiny

from dearlite.errors import UsageError
from dearlite.installing import pip_install
from dearlite.listwise.forms import FORMS
from dearlite.models import registry
from dearlite.models.chain import resolve
from dearlite.models.registry import find_model, how_to_get, load_registry, model_file
from dearlite.models.registry_values import TRACED
from dearlite.models.requirements import missing_extra
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.render import facts
from dearlite.templates.families import FAMILIES

L8, L3, L8_INSTRUCT = "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.2-3B", "meta-llama/Llama-3.1-8B-Instruct"
ZOO = [  # name, repository under abdoelsayed/, base
    ("rankllama-13b", "llama2-13b-rankllama-teacher", ""),
    ("dear-8b-listwise", "dear-8b-reranker-listwise-v1", ""),
    ("dear-8b-listwise-lora", "dear-8b-reranker-listwise-lora-v1", L8_INSTRUCT),
    ("dear-8b-ranknet", "dear-8b-reranker-ranknet-v1", ""),
    ("dear-8b-ranknet-lora", "dear-8b-reranker-ranknet-lora-v1", L8),
    ("dear-8b-ce", "dear-8b-reranker-ce-v1", ""),
    ("dear-8b-ce-lora", "dear-8b-reranker-ce-lora-v1", L8),
    ("dear-3b-ranknet", "dear-3b-reranker-ranknet-v1", ""),
    ("dear-3b-ranknet-lora", "dear-3b-reranker-ranknet-lora-v1", L3),
    ("dear-3b-ce", "dear-3b-reranker-ce-v1", ""),
    ("dear-3b-ce-lora", "dear-3b-reranker-ce-lora-v1", L3),
]
SETWISE = {  # size -> layers, H, K, F, rows of the vocabulary, tables, parameters of Qwen2.5-Instruct as published
    "3b": (36, 2048, 256, 11008, 151936, 1, 3_085_938_688),
    "7b": (28, 3584, 512, 18944, 152064, 2, 7_615_616_512),
    "14b": (48, 5120, 1024, 13824, 152064, 2, 14_770_033_664),
}
SELECTORS = [f"{family}-{size}" for family in ("setwise-sft", "rank-r1") for size in SETWISE]
FAMILY_TYPES = ("llama", "llama_bidirec", "qwen2", "qwen3", "gemma")
# Counted by transformers 5.23.0 on the meta device: LlamaForSequenceClassification with one label and, for "lm",
# LlamaForCausalLM, of the shapes in dear.md; 13B of those in the config.json of Llama-2-13b.
PARAMETERS = {"8b": 7_504_928_768, "8b-lm": 8_030_261_248, "3b": 3_212_752_896, "13b": 12_852_029_440}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path))
    return tmp_path


def shape(name):
    return name.split("-")[1]


def test_zoo_is_whole(home):
    of_dear = {name for name, entry in load_registry().items() if entry.repository.startswith("abdoelsayed/")}
    assert of_dear == {name for name, _, _ in ZOO}


@pytest.mark.parametrize(("name", "repository", "base"), ZOO)
def test_entry_names_what_it_is_made_from(home, name, repository, base):
    entry = load_registry()[name]
    assert (entry.repository, entry.base, entry.revision) == (f"abdoelsayed/{repository}", base, "main")
    assert (entry.architecture, entry.embedded) == ("llama", None)
    assert entry.licence == {"8b": "llama3.1", "3b": "llama3.2", "13b": "llama2"}[shape(name)]
    if "listwise" in name:
        assert (entry.kind, entry.prompt, model_file(entry).name) == ("listwise", "plain", f"{name}.gguf")
    else:
        assert (entry.kind, entry.prompt, model_file(entry).name) == ("pointwise", "dear", f"{name}.dear")
        assert (entry.pooling, entry.max_tokens, entry.max_query_tokens) == ("last-token", 228, 32)
        assert entry.prompt in PAIR_FORMS


@pytest.mark.parametrize(("name", "_repository", "base"), ZOO)
def test_sizes_follow_from_the_shapes(home, name, _repository, base):
    entry = load_registry()[name]
    parameters = PARAMETERS[shape(name)] / 1e6
    if "listwise" in name:
        # llama.cpp's own table: Llama-3.1-8B in Q4_K_M has 4.89 bits a weight, 4.58 GiB.
        assert entry.size_mb == pytest.approx(4.58 * 2**30 / 1e6, rel=0.005)
    else:
        assert entry.size_mb == pytest.approx(parameters, rel=0.005)  # int8, scales, tokenizer
    whole = "8b-lm" if "listwise" in name or base == L8 else shape(name)
    assert entry.download_mb == pytest.approx(2 * PARAMETERS[whole] / 1e6, rel=0.016)  # bf16; a LoRA adds up to 1.5%
    assert entry.memory_mb > entry.size_mb


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dear-3b-ce", ["`dearlite models get dear-3b-ce`", "downloads 6.4 GB", "needs 9.7 GB of disk"]),
        (
            "dear-8b-ce-lora",
            ["`dearlite models get dear-8b-ce-lora`", "downloads 16.2 GB", f"-lora-v1 and {L8};", "23.7 GB"],
        ),
        ("dear-8b-listwise", ["`dearlite models get dear-8b-listwise`", "16.1 GB", "21.0 GB", "dear-8b-listwise.gguf"]),
    ],
)
def test_absent_model_says_the_command_the_download_and_the_disk(home, name, words):
    with pytest.raises(UsageError) as caught:
        find_model(name)
    for word in [name, str(home), *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_built_model_is_found_by_its_name(home):
    file = home / "models" / "dear-3b-ce.dear"
    file.parent.mkdir()
    file.write_bytes(b"")
    assert find_model("dear-3b-ce") == file


def test_own_entry_needs_only_what_has_no_default(home):
    (home / "models.toml").write_text(
        '[mine]\nkind = "pointwise"\nrepository = "x/y"\narchitecture = "llama"\nprompt = "dear"\n'
        'pooling = "last-position"\nmax_tokens = 228\nlicence = "MIT"\nsize_mb = 1\nmemory_mb = 2\n'
    )
    entry = load_registry()["mine"]
    assert (entry.revision, entry.base, entry.max_query_tokens, entry.download_mb) == ("main", "", None, None)
    with pytest.raises(UsageError, match=r"`dearlite models get mine` makes it at .*not stated.*put its file there"):
        find_model("mine")


def test_comments_of_models_toml_hold_the_counts():
    text = (Path(__file__).parents[2] / "models.toml").read_text(encoding="utf-8").split("# ---- encoders")[0]
    counted = {int(found.replace(",", "")) for found in re.findall(r"([\d,]+) parameters", text)}
    assert counted == set(PARAMETERS.values())


def test_absent_model_is_shown_with_the_command_that_makes_it(home, cli):
    code, out, err = cli("models", "show", "dear-8b-ce-lora")
    assert (code, err) == (0, "")
    for word in (
        "llama3.1",
        f"{L8}",
        "7.5 GB, 8.2 GB of memory",
        "`dearlite models get dear-8b-ce-lora`",
        "downloads 16.2 GB",
    ):
        assert word in " ".join(out.split())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("abdoelsayed/dear-3b-reranker-ce-v1", "dear-3b-ce is not on this machine: `dearlite models get dear-3b-ce`"),
        ("BAAI/bge-reranker-base", "bge-base is not on this machine: `dearlite models get bge-base`"),
        ("cross-encoder/ms-marco-MiniLM-L-6-v2", "minilm-l6 is not on this machine"),  # its former name at the Hub
        ("BAAI/bge-m3", "`dearlite export bge-m3 -o bge-m3.dear`"),
    ],
)
def test_repository_of_the_hub_is_the_registered_model_or_names_the_export(home, name, words):
    with pytest.raises(UsageError) as caught:
        find_model(name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("frozen", "remedy"), [(True, "PyInstaller: --collect-data dearlite"), (False, "install dearlite again")]
)
def test_missing_models_toml_has_the_remedy_of_its_installation(tmp_path, monkeypatch, frozen, remedy):
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "dearlite" / "models" / "registry.py"))
    if frozen:
        monkeypatch.setattr(registry.sys, "frozen", True, raising=False)
    with pytest.raises(UsageError, match=re.escape(remedy)):
        load_registry()


OWN = {
    "kind": '"pointwise"',
    "repository": '"x/y"',
    "architecture": '"llama"',
    "prompt": '"dear"',
    "pooling": '"last-token"',
    "max_tokens": "228",
    "licence": '"MIT"',
    "size_mb": "1",
    "memory_mb": "2",
}


def write_own(home, **changes):
    lines = [f"{key} = {value}" for key, value in {**OWN, **changes}.items() if value is not None]
    (home / "models.toml").write_text("[mine]\n" + "\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("file", '"../x.gguf"', "not the path of a .gguf file inside the repository"),
        ("file", '"/x.gguf"', "not the path of a .gguf file"),
        ("file", r'"a\\x.gguf"', "not the path of a .gguf file"),
        ("file", '"C:/x.gguf"', "not the path of a .gguf file"),
        ("file", '"model.bin"', "not the path of a .gguf file"),
        ("file", "3", "not the path of a .gguf file"),
        ("quality", "3", "not a table of numbers from 0 to 1 under mteb, nanobeir, beir"),
        ("quality", '{ mteb = "good" }', "not a table of numbers"),
        ("quality", "{ mteb = 50.66 }", "not a table of numbers from 0 to 1"),
        ("quality", "{ mteb = true }", "not a table of numbers"),
        ("quality", "{ mtbe = 0.5 }", "not a table of numbers"),
        ("parameters", '"33M"', "not a whole number above 0"),
        ("parameters", "0", "not a whole number above 0"),
        ("layers", "12.5", "not a whole number"),
        ("hidden", "true", "not a whole number"),
        ("commercial", '"no"', "neither true nor false"),
        ("max_tokens", '"512"', "not a whole number above 0"),
        ("licence", "3", "not a string"),
        ("embedded", "false", "not a string"),
        *((key, "1" + "0" * 400, "not a whole number above 0 and below 10^15") for key in ("size_mb", "parameters")),
        ("known_difference", "inf", "not a number above 0 and below 10^15"),
        ("file", '".gguf"', "not the path of a .gguf file"),
        ("file", '"a//x.gguf"', "not the path of a .gguf file"),
        ("file", '"./x.gguf"', "not the path of a .gguf file"),
        ("file", r'"a\u0000.gguf"', "not the path of a .gguf file"),
        ("repository", '" "', "not the name of a repository"),
        ("revision", '""', "not the name of a revision"),
        ("kind", '"rank"', "not one of pointwise, listwise, cascade"),
        ("kind", None, "missing key 'kind'"),
    ],
)
def test_value_of_another_type_is_refused_by_its_key(home, key, value, words):
    write_own(home, **{key: value})
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        load_registry()
    message = str(caught.value)
    assert (key in message, "[mine]" in message, "\n" in message) == (True, True, False)


NO_NAMES = [
    *(
        "../up",
        "/top",
        "a/b",
        r"a\\b",
        "",
        ".",
        "..",
        ".hidden",
        "-option",
        "a:3",
        "a*",
        "two\\nlines",
        "a\\u0000",
        "a ",
    ),
    *("mine.gguf", "mine.DEAR", "CON", "nul", "Com1", "lpt9.x"),
]


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize("kind", ["model", "cascade"])
def test_name_that_no_file_can_have_everywhere_is_refused(home, kind, name):
    """A model's name is its file's: one that leads out of the folder would be fetched to there."""
    table = "\n".join(f"{key} = {value}" for key, value in OWN.items())
    text = table if kind == "model" else 'kind = "cascade"\nstages = ["minilm-l12"]'
    (home / "models.toml").write_text(f'["{name}"]\n{text}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="its file cannot have that name") as caught:
        load_registry()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["my model", "é-1.5_b", "console", "com", "v2.dear2"])
def test_other_names_are_allowed(home, name):
    write_own(home)
    own = home / "models.toml"
    own.write_text(own.read_text(encoding="utf-8").replace("[mine]", f'["{name}"]'), encoding="utf-8")
    assert model_file(load_registry()[name]).parent == home / "models"


@pytest.mark.parametrize("text", ["a = " + "[" * 20_000, "a = " + "1" * 5000, "a = '\x01'"])
def test_file_that_is_not_toml_is_one_line(home, text):
    (home / "models.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="is not TOML") as caught:
        load_registry()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "words"),
    [("~no such user/x", "no home folder of that user is known"), ("/" + "a" * 300, "cannot read /aaa")],
)
def test_home_that_cannot_be_read_is_one_line(monkeypatch, cli, folder, words):
    monkeypatch.setenv("DEARLITE_HOME", folder)
    code, out, err = cli("models", "list")
    assert (code, out, err.count("\n"), words in err) == (2, "", 1, True), err


def test_disk_of_a_published_file_is_its_size_where_no_download_is_stated(home):
    write_own(home, file='"x.gguf"', size_mb="1500")
    assert registry.disk_mb(load_registry()["mine"]) == 1500


def test_facts_of_an_own_entry(home):
    write_own(home, file='"q8/x.gguf"', commercial="false", quality="{ mteb = 0.5, beir = 1 }", layers="2")
    entry = load_registry()["mine"]
    assert (entry.commercial, entry.layers, entry.hidden) == (False, 2, None)
    assert dict(entry.quality) == {"mteb": 0.5, "beir": 1}
    assert model_file(entry) == home / "models" / "mine.gguf"  # although it is pointwise
    with pytest.raises(TypeError):
        entry.quality["mteb"] = 1.0


def test_embedded_model_has_the_published_facts(home):
    entry = load_registry()["minilm-l12"]
    assert (entry.parameters, entry.layers, entry.hidden) == (33_360_385, 12, 384)
    assert entry.matrix_parameters == 12 * (4 * 384 * 384 + 2 * 384 * 1536)
    assert (entry.quality, entry.commercial, entry.file) == ({"mteb": 0.5066, "nanobeir": 0.6369}, True, "")


@pytest.mark.parametrize(("name", "_repository", "_base"), ZOO)
def test_parameters_follow_from_the_shapes(home, name, _repository, _base):
    entry = load_registry()[name]
    size = shape(name)
    assert entry.parameters == PARAMETERS["8b-lm" if "listwise" in name else size]
    vocabulary = {"8b": 128256, "3b": 128256, "13b": 32000}[size]
    outside = (2 * entry.layers + 1) * entry.hidden + vocabulary * entry.hidden  # norms, and the embedding
    head = 0 if "listwise" in name else entry.hidden  # the listwise models write words: their output matrix stays
    assert entry.matrix_parameters == entry.parameters - outside - head


# name -> layers, H, F, parameters. They are those that mteb (05662e7f) and transformers state, of ettin without
# its head.
ENCODERS = {
    "tinybert-l2": (2, 128, 512, 4_386_049),
    "minilm-l2": (2, 384, 1536, 15_615_745),
    "minilm-l4": (4, 384, 1536, 19_164_673),
    "minilm-l6": (6, 384, 1536, 22_713_601),
    "minilm-l12": (12, 384, 1536, 33_360_385),
    "bge-base": (12, 768, 3072, 278_044_417),
    "bge-large": (24, 1024, 4096, 559_891_457),
    "bge-v2-m3": (24, 1024, 4096, 567_755_777),
    "bge-v2-m3-gguf": (24, 1024, 4096, 567_755_777),
    "mxbai-xsmall-v1": (12, 384, 1536, 70_830_337),
    "mxbai-base-v1": (12, 768, 3072, 184_422_913),
    "mxbai-large-v1": (24, 1024, 4096, 435_062_785),
    "gte-modernbert": (22, 768, 1152, 149_605_633),
    "granite-english-r2": (22, 768, 1152, 149_605_633),
    "ettin-17m": (7, 256, 384, 16_797_440),
    "ettin-32m": (10, 384, 576, 31_883_136),
    "ettin-68m": (19, 512, 768, 68_144_640),
    "ettin-150m": (22, 768, 1152, 149_014_272),
    "ettin-400m": (28, 1024, 2624, 394_781_696),
    "ettin-1b": (28, 1792, 3840, 1_028_050_688),
}
# name -> layers, H, F, Q, K, rows of the vocabulary, matrices of that many rows (two if untied), parameters
DECODERS = {
    "qwen3-reranker-0.6b": (28, 1024, 3072, 2048, 1024, 151669, 1, 595_776_512),
    "qwen3-reranker-0.6b-gguf": (28, 1024, 3072, 2048, 1024, 151669, 1, 595_776_512),
    "qwen3-reranker-4b": (36, 2560, 9728, 4096, 1024, 151669, 1, 4_021_784_576),
    "qwen3-reranker-8b": (36, 4096, 12288, 4096, 1024, 151669, 2, 8_188_548_096),
    "mxbai-base-v2": (24, 896, 4864, 896, 128, 151936, 1, 494_032_768),
    "mxbai-large-v2": (28, 1536, 8960, 1536, 256, 151936, 1, 1_543_714_304),
    "bge-v2-gemma": (18, 2048, 16384, 2048, 256, 256000, 1, 2_506_172_416),
    "zerank-1-small": (28, 2048, 6144, 2048, 1024, 151936, 1, 1_720_577_024),
    "zerank-1": (36, 2560, 9728, 4096, 1024, 151936, 1, 4_022_470_656),
    "zerank-2": (36, 2560, 9728, 4096, 1024, 151936, 1, 4_022_468_096),
    "nemotron-1b": (16, 2048, 8192, 2048, 512, 128256, 1, 1_235_816_448),
}


# name -> prompt, layers, H, F, K, rows of the vocabulary, matrices of that many rows, parameters, and the size in MB by
# llama.cpp's choice of types for Q4_K_M, added up by hand
THINKING = {
    "rank1-0.5b": ("rank1", 24, 896, 4864, 128, 151936, 1, 494_032_768, 398),
    "rank1-1.5b": ("rank1", 28, 1536, 8960, 256, 151936, 1, 1_543_714_304, 986),
    "rank1-7b": ("rank1", 28, 3584, 18944, 512, 152064, 2, 7_615_616_512, 4683),
    "reasonrank-7b": ("reasonrank", 28, 3584, 18944, 512, 152064, 2, 7_615_616_512, 4683),
    "rearank-7b": ("rearank", 28, 3584, 18944, 512, 152064, 2, 7_615_616_512, 4683),
}


@pytest.mark.parametrize("name", THINKING)
def test_model_that_thinks_has_the_shape_of_its_base(home, name):
    entry = load_registry()[name]
    prompt, layers, hidden, ffn, k, rows, tables, published, size_mb = THINKING[name]
    matrices = layers * (2 * hidden * hidden + 2 * hidden * k + 3 * hidden * ffn) + rows * hidden
    assert (entry.kind, entry.prompt, model_file(entry).name) == ("listwise", prompt, f"{name}.gguf")
    assert (entry.layers, entry.hidden, entry.parameters) == (layers, hidden, published)
    assert entry.matrix_parameters == matrices
    assert 0 < published - matrices - (tables - 1) * rows * hidden < published / 1000  # norms and biases
    assert entry.size_mb == pytest.approx(size_mb, abs=2)
    assert entry.download_mb == pytest.approx(2 * published / 1e6, abs=19)
    assert entry.memory_mb > entry.size_mb
    assert FORMS[prompt].reasoning == "think"


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_has_the_shape_and_the_size_of_its_published_count(home, name):
    entry, (layers, hidden, ffn, published) = load_registry()[name], ENCODERS[name]
    ettin = name.startswith("ettin")
    head = hidden * hidden + 3 * hidden + 1 if ettin else 0
    gated = 3 if entry.architecture == "modernbert" else 2
    assert (entry.layers, entry.hidden, entry.parameters) == (layers, hidden, published + head)
    assert entry.matrix_parameters == layers * (4 * hidden * hidden + gated * hidden * ffn)
    assert 0.95 < entry.size_mb / (entry.parameters / 1e6) < (1.45 if entry.parameters < 5e7 else 1.15)
    if not entry.file and entry.download_mb is not None:
        assert entry.download_mb == pytest.approx(entry.parameters * (2 if "mxbai" in name else 4) / 1e6, abs=18)


@pytest.mark.parametrize("name", DECODERS)
def test_language_model_has_the_shape_of_its_published_count(home, name):
    entry, (layers, hidden, ffn, q, k, rows, tables, published) = load_registry()[name], DECODERS[name]
    matrices = layers * (2 * hidden * q + 2 * hidden * k + 3 * hidden * ffn)
    assert (entry.layers, entry.hidden, entry.parameters) == (layers, hidden, published)
    assert entry.matrix_parameters == matrices
    rest = published - matrices - tables * rows * hidden  # norms, biases, a head: less than a thousandth
    assert 0 < rest < published / 1000
    if entry.file:
        assert entry.size_mb == entry.download_mb == 639  # 639,153,184 bytes
    else:
        assert entry.size_mb == pytest.approx((matrices + rows * hidden) / 1e6, rel=0.06)
        assert entry.download_mb == pytest.approx(published * (4 if "gemma" in name else 2) / 1e6, abs=19)


@pytest.mark.parametrize("name", SELECTORS)
def test_setwise_model_is_a_lora_over_qwen(home, name):
    entry, size = load_registry()[name], name.rpartition("-")[2]
    layers, hidden, k, ffn, rows, tables, published = SETWISE[size]
    family = {"rank-r1": "Rank-R1", "setwise-sft": "Setwise-SFT"}[name.removesuffix(f"-{size}")]
    assert (entry.kind, entry.prompt) == ("listwise", family.lower())
    assert entry.repository == f"ielabgroup/{family}-{size.upper()}-v0.1"
    assert entry.base == f"Qwen/Qwen2.5-{size.upper()}-Instruct"
    assert (entry.layers, entry.hidden, entry.parameters) == (layers, hidden, published)
    matrices = layers * (2 * hidden * hidden + 2 * hidden * k + 3 * hidden * ffn)
    assert entry.matrix_parameters == matrices + rows * hidden
    vectors = layers * (3 * hidden + 2 * k) + hidden  # biases and norms
    assert published == matrices + tables * rows * hidden + vectors
    lora = 16 * layers * (2 * 2 * hidden + 2 * (hidden + k))
    assert entry.download_mb == pytest.approx(2 * (published + lora) / 1e6 + 22, abs=1)
    assert 8 * entry.size_mb * 1e6 / published == pytest.approx(4.95, abs=0.1)  # bits per weight of q4_k_m
    assert entry.memory_mb > entry.size_mb + 2 * layers * k * 2 * 5000 / 1e6


def test_every_model_has_its_facts_and_can_be_run(home):
    listed = [*ENCODERS, *DECODERS, *SELECTORS, *THINKING, *(name for name, _, _ in ZOO)]
    known = load_registry()
    assert sorted(known) == sorted(listed)
    for entry in known.values():
        assert entry.architecture in {"bert", "xlm-roberta", "modernbert", "deberta-v2", *FAMILY_TYPES}, entry.name
        assert entry.prompt in ({*FORMS} if entry.kind == "listwise" else {*PAIR_FORMS, *FAMILIES}), entry.name
        if entry.prompt in FAMILIES:
            assert FAMILIES[entry.prompt].fits({"model_type": entry.architecture}), entry.name
            assert entry.max_tokens == FAMILIES[entry.prompt].max_tokens, entry.name
        forbids = "-nc-" in entry.licence or entry.licence == "qwen-research"
        assert entry.commercial != forbids, entry.name
        assert bool(entry.file) == entry.name.endswith("-gguf"), entry.name


def hide(monkeypatch, *modules):
    """Makes the modules ones that are not installed."""
    whole = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in modules else whole(name))


@pytest.mark.parametrize(
    ("name", "modules", "extra"),
    [
        ("bge-base", ("torch",), "encoders"),
        ("ettin-17m", ("onnx", "torch"), "encoders"),
        ("mxbai-xsmall-v1", ("optimum",), "encoders"),
        ("qwen3-reranker-0.6b", ("onnx", "torch"), "export"),
        ("dear-8b-listwise", ("gguf",), "export"),
        ("bge-v2-m3-gguf", ("huggingface_hub",), "export"),
    ],
)
def test_extra_of_an_absent_model_is_named_before_any_download(home, cli, monkeypatch, name, modules, extra):
    import dearlite.export.source.fetch

    hide(monkeypatch, *modules)
    monkeypatch.setattr(dearlite.export.source.fetch, "_hub", lambda: pytest.fail("the Hub was asked"))
    assert missing_extra(load_registry()[name]) == extra
    code, out, err = cli("models", "get", name)
    assert (code, out, err.count("\n")) == (1, "", 1)
    does = "fetch" if name.endswith("-gguf") else "make"
    assert err.startswith(f"dearlite: {modules[-1] if extra == 'encoders' else modules[0]} is needed to {does} {name} ")
    assert pip_install(extra) in err
    code, out, _ = cli("models", "show", name)
    assert code == 0 and f"first {pip_install(extra)}" in " ".join(out.split())


def test_no_extra_is_named_for_packages_that_the_model_does_not_need(home, monkeypatch):
    hide(monkeypatch, "onnx", "gguf", "torch", "transformers", "optimum")
    known = load_registry()
    assert missing_extra(known["minilm-l12"]) is None
    assert missing_extra(known["bge-v2-m3-gguf"]) is None
    assert "first pip" not in how_to_get(known["bge-v2-m3-gguf"], home)


def test_traced_architectures_are_those_of_the_export():
    assert set(pytest.importorskip("dearlite.export.encoders.pipeline").ENCODERS) == TRACED


@pytest.mark.parametrize("name", ["qwen3-reranker-0.6b", "bge-v2-m3"])
def test_model_that_is_published_as_a_gguf_too_names_it(home, name):
    with pytest.raises(UsageError, match=f"`dearlite models get {name}-gguf` fetches it without export"):
        find_model(name)


@pytest.mark.parametrize("arguments", [("models", "get"), ("export",)])
def test_get_and_export_take_the_repository_of_a_model(home, cli, monkeypatch, arguments):
    pytest.importorskip("optimum", reason="the extra dearlite[encoders] is not installed")
    fetched = []

    def stop(repository, *_):
        fetched.append(repository)
        raise UsageError("stopped")

    monkeypatch.setattr("dearlite.export.source.inputs.fetch", stop)
    code, _, err = cli(*arguments, "baai/bge-reranker-base")
    assert (code, fetched) == (2, ["BAAI/bge-reranker-base"]) and "bge-base: licence MIT" in err


def test_get_names_the_nearest_model(home, cli):
    code, out, err = cli("models", "get", "bge-bse")
    assert (code, out, err.count("\n")) == (2, "", 1) and "nearest: bge-base" in err and "model file" not in err


@pytest.mark.parametrize("talks", [True, False])
def test_show_of_a_language_model_names_the_prompts_that_fit(cli, tmp_path, talks):
    file = write_tiny(tmp_path / "mine.gguf", chat_template="" if not talks else None)
    if not talks:
        file.write_bytes(file.read_bytes().replace(b"tokenizer.chat_template", b"tokenizer.char_template"))
    code, out, err = cli("models", "show", file)
    facts = dict(re.split(r" {2,}", line, maxsplit=1) for line in out.splitlines() if re.search(r"\S {2,}\S", line))
    assert (code, err, facts["name"]) == (0, "", "mine")
    assert facts["context"].endswith(" tokens") and facts["chat template"] == ("yes" if talks else "none")
    fits = "yes-no, upr, query-likelihood" if talks else "upr, query-likelihood"
    assert facts["--prompt"].startswith(f"{fits}; ctxl-v2, tfrank")


@pytest.mark.parametrize(
    ("options", "words"),
    [((), "no instruction as a listwise model"), (("--prompt", "upr"), "no instruction with --prompt upr, which has")],
)
def test_instruction_without_a_place_names_the_prompt_that_has_one(cli, tmp_path, options, words):
    file = write_tiny(tmp_path / "mine.gguf")
    (tmp_path / "d.txt").write_text("Edison\n")
    code, out, err = cli("rerank", "-q", "x", tmp_path / "d.txt", "-m", file, "--instruction", "Find it", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"mine takes {words}" in err and "leave it out, or take --prompt yes-no (or ctxl-v2, tfrank, if" in err


@pytest.mark.parametrize(
    "name",
    [
        "cross-encoder/ms-marco-MiniLM-L-12-v2",
        "Cross-Encoder/MS-MARCO-MiniLM-L-12-v2",
        "cross-encoder/ms-marco-MiniLM-L12-v2",
        "minilm-l12",
    ],
)
def test_the_embedded_model_by_its_names_at_the_hub(name, embedded_path):
    assert find_model(name) == embedded_path
    (stage,) = resolve([f"{name}:5"]).stages
    assert (stage.name, stage.depth, stage.kind) == ("minilm-l12", 5, "pointwise")


def test_a_file_comes_before_a_name_at_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "BAAI" / "bge-reranker-base"
    file.parent.mkdir()
    write_tiny(file)
    assert find_model("BAAI/bge-reranker-base") == Path("BAAI/bge-reranker-base")


def test_two_models_of_one_repository_are_named(home):
    shipped = (Path(__file__).parents[2] / "models.toml").read_text()
    table = shipped[shipped.index("[bge-base]") : shipped.index("[bge-large]")]
    (home / "models.toml").write_text(table.replace("[bge-base]", "[mine]"))
    with pytest.raises(UsageError, match="BAAI/bge-reranker-base has several models here: name one of them, bge-base"):
        find_model("BAAI/bge-reranker-base")


def test_a_former_name_finds_the_model_and_the_file_made_under_it(home):
    shipped = (Path(__file__).parents[2] / "models.toml").read_text()
    table = shipped[shipped.index("[bge-base]") : shipped.index("[bge-large]")].replace(
        "BAAI/bge-reranker-base", "me/x"
    )
    own = table.replace("[bge-base]", "[renamed]").replace("architecture", 'aliases = ["former"]\narchitecture')
    (home / "models.toml").write_text(own)
    (home / "models").mkdir()
    file = home / "models" / "former.dear"
    file.write_bytes(b"x")
    assert find_model("renamed") == find_model("former") == file
    (home / "models.toml").write_text(own.replace('["former"]', '"former"'))
    with pytest.raises(UsageError, match="aliases 'former', which is not a list of names"):
        find_model("renamed")


def test_every_missing_model_of_a_cascade_is_named_at_once(home, cli):
    code, _, err = cli("rerank", "-q", "x", "-m", "dear", __file__, "--docs-format", "txt")
    assert code == 2 and len(err.strip().splitlines()) == 1
    assert "dear-3b-ce and dear-8b-listwise are not on this machine" in err
    assert "`dearlite models get dear-3b-ce` (6.4 GB), `dearlite models get dear-8b-listwise` (16.1 GB)" in err


def test_list_fits_80_columns_and_describes_with_v(home, cli, monkeypatch):
    monkeypatch.setattr(facts, "_PIPE_WIDTH", 80)
    code, out, _ = cli("models")
    lines = out.splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    assert code == 0 and max(map(len, lines)) <= 80 and names[names.index("name") + 2] == "minilm-l12"
    assert set(load_registry()) <= set(names)  # one line a model
    assert "The embedded default" not in out
    code, out, _ = cli("models", "-v")
    assert code == 0 and "The embedded default" in out and "DeAR's two stages" in out
    code, _, err = cli("models", "-v", "show", "bge-base")
    assert code == 2 and "`dearlite models list -v`" in err


def test_path_and_removal_of_a_model(home, cli, monkeypatch):
    assert cli("models", "path", "minilm-l12")[1].strip().endswith("minilm-l12.dear")
    code, out, err = cli("models", "path", "bge-base")
    assert (code, out) == (2, "") and "dearlite models get bge-base" in err
    file = home / "models" / "bge-base.dear"
    file.parent.mkdir()
    file.write_bytes(b"x" * 10_000_000)
    assert cli("models", "path", "BAAI/bge-reranker-base")[1].strip() == str(file)
    code, _, err = cli("models", "remove", "bge-base")
    assert code == 2 and "add --yes" in err and file.is_file()
    monkeypatch.setattr("sys.stdin", Answers("n\n"))
    code, _, err = cli("models", "remove", "bge-base")
    assert code == 0 and "0.01 GB" in err and "nothing was removed" in err and file.is_file()
    monkeypatch.setattr("sys.stdin", Answers("y\n"))
    code, out, _ = cli("models", "remove", "BAAI/bge-reranker-base")
    assert code == 0 and out.startswith(f"removed {file}: 0.01 GB") and not file.exists()
    file.write_bytes(b"x")
    assert cli("models", "remove", "bge-base", "--yes")[0] == 0 and not file.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minilm-l12", "is a part of the package"),
        ("dear", "is a cascade: name one of its models, dear-3b-ce, dear-8b-listwise"),
        ("bge-base", "bge-base is not on this machine"),
        ("bge-bass", "no model 'bge-bass' (nearest: bge-base"),
    ],
)
def test_what_is_not_removed(home, cli, name, message):
    code, _, err = cli("models", "remove", name, "--yes")
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1


class Answers(io.StringIO):
    """Standard input of a terminal."""

    def isatty(self):
        return True


def test_the_former_name_of_a_model_is_an_alias_and_its_file_stays_in_use(monkeypatch, tmp_path):
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path))
    assert registry.registered_name("teacher") == "rankllama-13b"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "teacher.dear").touch()
    assert find_model("rankllama-13b") == find_model("teacher") == tmp_path / "models" / "teacher.dear"
