"""Model files and names of models: .dear with its manifest and graphs, GGUF headers, models.toml, chat templates."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
from contextlib import contextmanager
from functools import cache

from fuzzing import Fault, Target, by_bytes, by_json, with_tokens
from mutations import any_value, changed_json, json_bytes, mutated

from dearlite.errors import InvalidInput
from dearlite.listwise.answers import read_order, sentences_naming
from dearlite.listwise.subqueries import read_sub_queries
from dearlite.models.bundle import Bundle
from dearlite.models.bundle_kind import kind_of_bundle
from dearlite.models.calibration import read_activation, read_calibration
from dearlite.models.chain import resolve
from dearlite.models.gguf import GgufFile
from dearlite.models.gguf_kinds import calibration_of, prompts_of, scoring_kind, states_relevance, takes_instruction
from dearlite.models.pair_limit import check_pair_limit, int8_factors
from dearlite.models.registry import load_cascades, load_registry
from dearlite.recommend.rates import GgufRates, OnnxRates, kept
from dearlite.reranker import Reranker
from dearlite.templates.chat import ChatTemplate

MANIFEST = "manifest.json"


def _bundle_seeds(folder):
    from tiny_bundle import write_tiny_bundle

    return [write_tiny_bundle(folder / "tiny.dear").read_bytes()]


@cache
def _parts(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sealed(parts, *, align=True):
    """A .dear file of `parts`, whose manifest states their true sizes and hashes."""
    manifest = parts[MANIFEST]
    try:
        record = json.loads(manifest)
        for name, part in parts.items():
            if name != MANIFEST and name in record.get("members", ()):
                record["members"][name] |= {"size_bytes": len(part), "sha256": hashlib.sha256(part).hexdigest()}
        manifest = json.dumps(record).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        for name, part in parts.items():
            archive.writestr(zipfile.ZipInfo(name), manifest if name == MANIFEST else part)
    return stream.getvalue()


def _bundle(random, seeds):
    """A bundle with a changed part and true hashes, or with changed bytes."""
    data = random.choice(seeds)
    if random.randrange(4) == 0:
        return _changed_ends(random, data)
    parts = dict(_parts(data))
    name = random.choice((MANIFEST, MANIFEST, MANIFEST, *parts))
    if name == "tokenizer.json":  # of half a megabyte
        parts[name] = random.choice((b"", b"{}", b"[]", b'{"model": {}}', parts[name][: random.randrange(5000)]))
    elif name == MANIFEST:
        parts[name] = json_bytes(random, changed_json(random, json.loads(parts[name])))
    elif name.endswith(".json"):
        parts[name] = by_json(random, [parts[name]])
    elif name != "weights.bin":
        parts[name] = mutated(random, parts[name])
    if random.randrange(10) == 0:
        parts[random.choice(("card.json", "extra", "a/../b", ""))] = random.choice((b"", b"{}", b"[", b"[1]", b"null"))
    return sealed(parts)


def _changed_ends(random, data):
    """Changed bytes of the records at the file's end, or of its beginning: the middle is weights."""
    size = random.choice((300, 3000))
    if random.randrange(2):
        return data[:-size] + mutated(random, data[-size:], tokens=(b"PK\1\2", b"PK\5\6", b"PK\6\6"))
    return mutated(random, data[:size], tokens=(b"PK\3\4",)) + data[size:]


def _read_bundle(data, folder):
    path = folder / "m.dear"
    path.write_bytes(data)
    kind_of_bundle(path)
    bundle = Bundle(path)
    try:
        bundle.verify()
        bundle.card()
        manifest = bundle.manifest
        for array in bundle.tensors().values():
            array.sum()
        del array
        read_activation(manifest.activation, "m")
        read_calibration(manifest.calibration, "m")
        check_pair_limit(bundle)
        _ = resolve(path).stages[0].takes_instruction
    finally:
        bundle.close()


def _graph(random, seeds):
    """A bundle whose ONNX graph has changed bytes, or whose weights, tokenizer or manifest differ in values."""
    parts = dict(_parts(random.choice(seeds)))
    name = random.choice([name for name in parts if name.endswith(".onnx")])
    match random.randrange(4):
        case 0:
            parts[MANIFEST] = json_bytes(random, changed_json(random, json.loads(parts[MANIFEST])))
        case 1:
            raw = json.loads(parts["tokenizer.json"])
            vocabulary, raw["model"]["vocab"] = raw["model"]["vocab"], {}
            raw = changed_json(random, raw)
            if isinstance(raw, dict) and isinstance(raw.get("model"), dict) and raw["model"].get("vocab") == {}:
                raw["model"]["vocab"] = vocabulary
            parts["tokenizer.json"] = json_bytes(random, raw)
        case _:
            parts[name] = mutated(random, parts[name])
    return sealed(parts)


def _rank(data, folder):
    path = folder / "m.dear"
    path.write_bytes(data)
    with Reranker.load(path, threads=1, device="cpu") as reranker:
        ranking = reranker.rerank("snow?", ["snow falls", "rain"])
    if len(ranking) != 2:
        raise Fault("a document is lost")


def _read_graph(data, folder):
    int8_factors(data)


# GGUF


def gguf_bytes(metadata, tensors, *, version=3):
    """A GGUF file. `metadata` maps keys to JSON values, `tensors` names to (dimensions, type, offset)."""
    out = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(metadata))]
    for key, value in metadata.items():
        kind, encoded = _gguf_value(value)
        out += [_gguf_text(key), struct.pack("<I", kind), encoded]
    for name, (shape, kind, offset) in tensors.items():
        out += [_gguf_text(name), struct.pack("<I", len(shape)), *(struct.pack("<Q", side) for side in shape)]
        out.append(struct.pack("<IQ", kind, offset))
    head = b"".join(out)
    return head + bytes(-len(head) % 32) + bytes(256)


def _gguf_text(text):
    data = str(text).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data)) + data


def _gguf_value(value):
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 11, struct.pack("<q", (value + 2**63) % 2**64 - 2**63)
    if isinstance(value, float):
        return 12, struct.pack("<d", value)
    if isinstance(value, list):
        items = [_gguf_value(item) for item in value]
        kind = items[0][0] if items else 8
        return 9, struct.pack("<IQ", kind, len(items)) + b"".join(encoded for _, encoded in items)
    return 8, _gguf_text(value if isinstance(value, str) else json.dumps(value))


_METADATA = {
    "general.architecture": "qwen3",
    "general.name": "tiny",
    "qwen3.context_length": 512,
    "qwen3.attention.causal": True,
    "tokenizer.chat_template": "{{ messages }}",
    "tokenizer.ggml.tokens": ["a", "b"],
    "dearlite.kind": "pointwise",
    "dearlite.template": '{"instructed": true}',
    "dearlite.calibration": '{"a": 1.0, "b": 0.0, "prompt": "yes-no"}',
}
_TENSORS = {"cls.output.weight": ((4, 2), 0, 0), "token_embd.weight": ((8, 2), 1, 32), "q": ((32,), 2, 64)}


def _gguf(random, seeds):
    """A file with changed metadata or tensors, or with changed bytes."""
    if random.randrange(3) == 0:
        return by_bytes(random, seeds, (b"GGUF", b"general.architecture", struct.pack("<Q", 2**40)))
    metadata, tensors = dict(_METADATA), dict(_TENSORS)
    for _ in range(random.choice((1, 1, 3))):
        key = random.choice((*metadata, "x", "dearlite.sha256", "general.alignment"))
        value = random.choice((any_value(random), changed_json(random, metadata.get(key, 0))))
        metadata[key] = value
        if random.randrange(4) == 0:
            del metadata[key]
    if random.randrange(2):
        sides = (0, 1, 2, 32, 2**20, 2**32, 2**63)
        shape = tuple(random.choice(sides) for _ in range(random.choice((0, 1, 2, 4, 5))))
        tensors[random.choice((*tensors, ""))] = shape, random.choice((0, 1, 2, 5, 8, 39, 99)), random.choice(sides)
    try:
        return gguf_bytes(metadata, tensors, version=random.choice((3, 3, 3, 2, 1, 4)))
    except (RecursionError, struct.error, ValueError):
        return seeds[0]


def _read_gguf(data, folder):
    path = folder / "m.gguf"
    path.write_bytes(data)
    file = GgufFile(path)
    file.sha256()
    file.verify()
    _ = scoring_kind(file), file.main_type, file.recorded_sha256
    for prompt in (None, "yes-no", "qwen3-reranker", *prompts_of(file)[:2]):
        takes_instruction(file, prompt)
        calibration_of(file, prompt)
        states_relevance(file, prompt)
        resolve(path, prompt=prompt)


# tables and texts


@contextmanager
def _home(folder):
    before = os.environ.get("DEARLITE_HOME")
    os.environ["DEARLITE_HOME"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("DEARLITE_HOME")
        if before is not None:
            os.environ["DEARLITE_HOME"] = before


def _read_registry(data, folder):
    (folder / "models.toml").unlink(missing_ok=True)  # a new file: the registry keeps what it has parsed
    (folder / "models.toml").write_bytes(data)
    os.utime(folder / "models.toml", ns=(int.from_bytes(hashlib.sha256(data).digest()[:7]),) * 2)
    with _home(folder):
        load_registry(), load_cascades()
        for name in ("minilm-l12", "mine"):
            resolve(name, best_effort=True)


def _read_rates(data, folder):
    (folder / "rates.json").write_bytes(data)
    with _home(folder):
        for kind, rates in ((OnnxRates, OnnxRates({32: 1.0}, 1.0, 1.0)), (GgufRates, GgufRates(1.0, 1.0))):
            read = kept(kind, "r", "l", 1, lambda rates=rates: rates, again=False)
            if kind is OnnxRates:
                read.operations_per_s(64)


def _rates_seeds(folder):
    with _home(folder):
        kept(OnnxRates, "r", "l", 1, lambda: OnnxRates({32: 1.0, 64: 2.0}, 1.0, 1.0), again=True)
    return [(folder / "rates.json").read_bytes(), b"{}"]


_TEMPLATES = (
    b"{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}{{ eos_token }}{% endfor %}<|assistant|>",
    b"{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}"
    b"{% set messages = messages[1:] %}{% endif %}"
    b"{%- for m in messages -%}[INST] {{ m.content }} [/INST]{%- endfor -%}",
)
_JINJA = (
    *(
        b"{{",
        b"}}",
        b"{%",
        b"%}",
        b"{% for x in range(999999999) %}",
        b"{% endfor %}",
        b"{% if ",
        b"{% endif %}",
        b"| tojson",
    ),
    *(
        b"messages",
        b"raise_exception('x')",
        b"strftime_now('%Y')",
        b"'a' * 99999999",
        b"2 ** 99999999",
        b"{#",
        b"#}",
        b"loop",
    ),
    *(
        b".__class__.__mro__",
        b"{% set x = namespace() %}",
        b"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        b"| join",
        b"~",
    ),
    *(
        b"{% generation %}",
        b"{% endgeneration %}",
        b"| center(99999999)",
        b"| indent(9999999)",
        b"[0]",
        b"'%99999999d' % 1",
    ),
    *(
        b"'{:99999999}'.format(1)",
        b"range(99999999) | list",
        b"lipsum(n=9999)",
        b"| batch(2)",
        b"{% include 'x' %}",
        b"cycler()",
    ),
)


def _render(data, folder):
    template = ChatTemplate(data.decode("utf-8", "replace"), {"bos_token": "<s>", "eos_token": "</s>"})
    for turns in ([("user", "snow {{ x }}")], [("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "z")]):
        parts = template.parts(turns)
        if [part.text for part in parts if not part.special and part.text not in [text for _, text in turns]]:
            raise Fault("a text that nobody gave")


def _names(data, folder):
    name = data.decode("utf-8", "surrogateescape")
    resolve(name, best_effort=True)
    resolve(["minilm-l12:50", name], best_effort=True)


def _answers(data, folder):
    text = data.decode("utf-8", "replace")
    order, _ = read_order(text, ["1", "2", "3"])
    if len({*order}) != len(order) or not {*order} <= {0, 1, 2}:
        raise Fault(f"{order} is no order")
    sentences_naming(text, ["1", "2"])
    if any(not query.isprintable() for query in read_sub_queries(text, "q", 3)):
        raise Fault("a sub-query with control characters")


def _json_errors(function):
    """`function` of the JSON in an input."""

    def read(data, folder):
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise InvalidInput("no JSON") from None
        function(value)

    return read


_TOML = (
    b'[mine]\nkind = "pointwise"\nrepository = "a/b"\nlicence = "MIT"\narchitecture = "bert"\nprompt = "plain"\n'
    b'pooling = "first-token"\nmax_tokens = 512\nsize_mb = 35\nmemory_mb = 156\nembedded = "data/minilm-l12.dear"\n'
    b'aliases = ["c/d"]\nparameters = 33360385\nlayers = 12\nhidden = 384\nquality = { mteb = 0.5 }\nabout = "x"\n',
    b'[mine]\nkind = "cascade"\nstages = ["minilm-l12:100", "minilm-l12"]\n',
    b'[mine]\nkind = "lexical"\nk1 = 1.2\nb = 0.7\nlanguage = "english"\n',
)
TARGETS = (
    Target(name="dear", read=_read_bundle, seeds=_bundle_seeds, make=_bundle, needs=("onnx",), share=0.05, short=30),
    Target(
        name="dear.load",
        read=_rank,
        seeds=_bundle_seeds,
        make=_graph,
        needs=("onnx", "onnxruntime"),
        share=0.02,
        short=15,
    ),
    Target(
        name="onnx",
        read=_read_graph,
        seeds=lambda folder: [
            part for name, part in _parts(_bundle_seeds(folder)[0]).items() if name.endswith(".onnx")
        ],
        needs=("onnx",),
        share=0.1,
        short=60,
    ),
    Target(
        name="gguf",
        read=_read_gguf,
        seeds=lambda folder: [gguf_bytes(_METADATA, _TENSORS)],
        make=_gguf,
        share=0.5,
        short=150,
    ),
    Target(
        name="models.toml",
        read=_read_registry,
        seeds=lambda folder: _TOML,
        make=with_tokens(
            b"[mine]", b"[[mine]]", b"= ", b'"""', b"'", b"[a.b]", b"1979-05-27", b"inf", b"stages", b"aliases"
        ),
        share=0.5,
    ),
    Target(name="rates.json", read=_read_rates, seeds=_rates_seeds, make=by_json, share=0.1, short=20),
    Target(
        name="chat template",
        read=_render,
        seeds=lambda folder: _TEMPLATES,
        make=with_tokens(*_JINJA),
        needs=("jinja2",),
        share=0.1,
        short=60,
    ),
    Target(
        name="model names",
        read=_names,
        seeds=lambda folder: [b"minilm-l12", b"minilm-l12:30"],
        make=with_tokens(
            b":", b"/", b"\\", b"..", b"CON", b"NUL", b"-", b"@", b"owner/name", b":-1", b".dear", b".gguf"
        ),
        share=0.3,
    ),
    Target(
        name="answers",
        share=3.0,
        read=_answers,
        seeds=lambda folder: [b"<think>[1]</think>[2] > [1] > [3]", b'["a", "b\\n"] because [1].'],
        make=with_tokens(
            b"[1]", b" > ", b"</think>", b"<think>", b'["', b'"]', b'", "', b"[", b"\\u", b"[999999999999]"
        ),
    ),
)
