"""Tokenizers written into a GGUF: the ids of a text in llama.cpp are those of the model's own tokenizer.

The expected ids come from the `tokenizers` library with the published vocabularies of SmolLM2 and Llama 3. Those of
Llama 2 are llama.cpp's own (models/ggml-vocab-llama-spm.gguf.out), if DEARLITE_LLAMA_CPP names its folder.
"""

import json
from hashlib import sha256
from pathlib import Path

import pytest
from gguf_models import (
    llama3_tokenizer,
    pieces,
    smollm2_gguf,
    write_model,
    write_sentencepiece,
    write_smollm2_tokenizer,
)
from llama import need_llama
from qwen_tokenizer import qwen_tokenizer_json
from test_gguf_export import F16_ONLY, FACTS, GOLDEN, ORACLE, export
from tokenizers import Tokenizer

from dearlite.errors import CheckpointError, UsageError
from dearlite.export.gguf.metadata import listwise_values
from dearlite.export.gguf.sentencepiece import read_pieces
from dearlite.export.gguf.vocabulary import CHECK_TEXT, PRE_TYPES, read_vocabulary
from dearlite.export.gguf.worker import call_llama
from dearlite.export.gguf.writer import write_head
from dearlite.models.gguf import GgufFile

TINY = "llama, 4 heads of 2, tied"
SENTENCES = """
The quick brown fox jumps over the lazy dog, which isn't remarkable in 1879.|When did Thomas Edison invent the light bulb?
Où est l'Élysée ? À côté, dit-il — « voilà ».|Größenwahn und Übermut tun selten gut; 3,5 % Zinsen für Straße Nr. 12.
¿Dónde está el niño? ¡Aquí!|Il caffè è già lì, perché no?|Não há coração que aguente a saudade.
Zażółć gęślą jaźń.|Příliš žluťoučký kůň úpěl ďábelské ódy.|Árvíztűrő tükörfúrógép.|Pijamalı hasta yağız şoföre çabucak güvendi.
Съешь ещё этих мягких французских булок, да выпей чаю.|Щастя, здоров'я та їжа.
Η γρήγορη καφετιά αλεπού πηδά πάνω από το σκυλί.|Զարմանալի է, բայց հնարավոր։|ქართული ენა მრავალფეროვანია.
שלום עולם, מה שלומך היום?|مرحبا بالعالم، كيف حالك اليوم؟|سلام دنیا، حال شما چطور است؟|اردو میں لکھا ہوا متن۔
हिन्दी में लिखा हुआ एक वाक्य।|বাংলা ভাষায় লেখা একটি বাক্য।|தமிழில் எழுதப்பட்ட வாக்கியம்.|తెలుగు వాక్యం.|ಕನ್ನಡ ವಾಕ್ಯ.|മലയാളം വാക്യം.
你好，世界！今天天气怎么样？|繁體中文的句子，包括標點。|日本語の文章です。カタカナとひらがな、漢字。|한국어 문장입니다. 띄어쓰기 테스트.
ภาษาไทยไม่มีช่องว่าง|ພາສາລາວ|မြန်မာစာ|ᠮᠣᠩᠭᠣᠯ|አማርኛ ጽሑፍ|ⵜⴰⵎⴰⵣⵉⵖⵜ|ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ|བོད་ཡིག
Tiếng Việt có nhiều dấu thanh.|Kiswahili ni lugha ya Afrika Mashariki.|Ọjọ́ dára lónìí.|ʻŌlelo Hawaiʻi|Íslenska er skrítið mál: þ, ð, æ.
🚀|👩‍👩‍👧|🏳️‍🌈 🇫🇷🇯🇵|✅ done ❌ failed|👍🏽👍🏿|1️⃣2️⃣|a😀b 😀 c|🦙🦙🦙|©®™ ½ ² ₿ € £ ¥
I've been told he's there, they'll go, we'd stay, you're right, I'm sure it can't.|'tis|rock 'n' roll|I'VE HE'S THEY'LL|o'clock's''s
3|33|333|3333|33333|333333|3333333|33333333|3.14159|1,000,000.00|1e-5|0x1F|2024-03-19T23:15:29Z|+49 (0)30 123-456|127.0.0.1:8080|50%|#42|v1.2.3
def f(x: int) -> str:|    return f"{x!r:>10}"|if (a && b || !c) { x += 1; }|for (int i = 0; i < n; ++i) printf("%d\\n", i);|SELECT * FROM t WHERE a='b';|<div class="x">&amp;</div>
{"key": [1, 2.5, null, true]}|https://example.org/a/b?c=d&e=f#g|user.name+tag@example.co.uk|C:\\Users\\me\\file.txt|/usr/local/bin/python3.11|rm -rf -- "$HOME"/*
------======= ........ ???? !!!! ;;;; ::::|(((nested [brackets] {here})))|<|eot|>|a<|b|>c|\\u0041|~~strike~~ **bold** _it_
CamelCaseIdentifier snake_case_identifier SCREAMING_SNAKE kebab-case|supercalifragilisticexpialidocious|Donaudampfschifffahrtsgesellschaft|aaaaaaaaaaaaaaaaaaaaaaaaaaaa
""".strip()  # noqa: E501
BLANKS = [
    "",
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\n\n",
    "\n\n\n",
    "\t\n \t",
    " \n",
    "\r\n",
    "\r",
    "a\r\nb",
    "a  b",
    "a   b    c",
]
BLANKS += [
    " a",
    "  a",
    "a ",
    "a  ",
    "\ta",
    "a\n",
    "a\n\nb",
    "a \n b",
    "x" + " " * 40 + "y",
    "\u00a0",
    "a\u00a0b",
    "\u3000",
]
BLANKS += ["\u200b", "a\u200db", "\ufeffa", "e\u0301 é", "\u2028", "ﬁ ﬂ", "Å Å", "\x00", "a\x00b", "\x1b[31mred", "�"]
TEXTS = [text for line in SENTENCES.splitlines() for text in line.split("|") if text]
TEXTS += (
    BLANKS + [f" {text} " for text in TEXTS[::2]] + [f"{a}\n\n{b}" for a, b in zip(TEXTS, TEXTS[7:], strict=False)][::3]
)
TEXTS += [CHECK_TEXT]


def vocabulary_file(folder, output, size, **special_ids):
    """A GGUF of the folder's tokenizer alone."""
    config = {"model_type": "llama", "vocab_size": size, "bos_token_id": 1, "eos_token_id": 2} | special_ids
    vocabulary = read_vocabulary(folder, config)
    write_head(output, "llama", [("general.file_type", 1), *listwise_values(FACTS)], vocabulary)
    return vocabulary


def ids_of(path, texts):
    return call_llama("tokenise", {"path": str(path), "texts": texts})["rows"]


def differing(ids, expected, texts):
    return [(text, a, b) for text, a, b in zip(texts, ids, expected, strict=True) if a != b]


def test_there_are_at_least_200_texts():
    assert len(set(TEXTS)) >= 200


def test_smollm2_texts_have_the_ids_of_its_tokenizer(tmp_path):
    need_llama()
    folder = write_smollm2_tokenizer(tmp_path / "model", GgufFile(smollm2_gguf()).metadata)
    vocabulary_file(folder, tmp_path / "v.gguf", 49152)
    assert GgufFile(tmp_path / "v.gguf").metadata["tokenizer.ggml.pre"] == "smollm"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    expected = [tokenizer.encode(text).ids for text in TEXTS]
    assert differing(ids_of(tmp_path / "v.gguf", TEXTS), expected, TEXTS) == []


@pytest.mark.parametrize("begins", [False, True])
def test_llama3_texts_have_the_ids_of_its_tokenizer(tmp_path, begins):
    need_llama()
    raw = json.loads(llama3_tokenizer().read_text(encoding="utf-8"))
    bos = "<|begin_of_text|>"
    if begins:  # as the files of 3.1 and 3.2 have it
        whole = [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        template = {
            "type": "TemplateProcessing", "single": whole, "pair": [*whole, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos: {"id": bos, "ids": [128000], "tokens": [bos]}},
        }  # fmt: skip
        raw["post_processor"] = {"type": "Sequence", "processors": [raw["post_processor"], template]}
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    settings = {"bos_token": bos, "eos_token": "<|eot_id|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text("{{ bos_token }}", encoding="utf-8")
    vocabulary = vocabulary_file(
        folder, tmp_path / "v.gguf", 128256, bos_token_id=128000, eos_token_id=[128001, 128009]
    )
    metadata = GgufFile(tmp_path / "v.gguf").metadata
    assert metadata["tokenizer.ggml.pre"] == "llama-bpe"
    assert metadata["tokenizer.ggml.bos_token_id"] == 128000
    assert metadata["tokenizer.ggml.eos_token_id"] == 128009
    assert metadata["tokenizer.ggml.add_bos_token"] is begins
    assert metadata["tokenizer.chat_template"] == "{{ bos_token }}"
    assert vocabulary.types[128000:] == [3] * 256
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    expected = [tokenizer.encode(text).ids for text in TEXTS]
    assert all(ids[:1] == [128000] for ids in expected) is begins
    assert differing(ids_of(tmp_path / "v.gguf", TEXTS), expected, TEXTS) == []


def test_a_tokenizer_that_splits_otherwise_has_another_pre_type():
    """Llama 3's vocabulary with GPT-2's splitting gives other ids, so it is not recognised as Llama 3."""
    raw = json.loads(llama3_tokenizer().read_text(encoding="utf-8"))
    pre_types = {}
    for name, splitter in (("own", raw["pre_tokenizer"]), ("other", {"type": "ByteLevel", "add_prefix_space": False})):
        raw["pre_tokenizer"] = splitter | ({} if name == "own" else {"trim_offsets": True, "use_regex": True})
        ids = Tokenizer.from_str(json.dumps(raw)).encode(CHECK_TEXT, add_special_tokens=False).ids
        pre_types[name] = PRE_TYPES.get(sha256(str(ids).encode()).hexdigest())
    assert pre_types == {"own": "llama-bpe", "other": None}


def test_sentencepiece_vocabulary_is_that_of_the_official_converter(tmp_path):
    export(write_model(tmp_path / "model", next(iter(GOLDEN["tensors"]))), tmp_path / "m.gguf", **F16_ONLY)
    metadata = GgufFile(tmp_path / "m.gguf").metadata
    hashed = {k: sha256(json.dumps(v).encode()).hexdigest() if isinstance(v, list) else v for k, v in metadata.items()}
    assert {k: v for k, v in hashed.items() if not k.startswith(("general.", "dearlite."))} == GOLDEN["metadata"]


@pytest.mark.skipif(
    not ORACLE, reason="DEARLITE_LLAMA_CPP is not set to a folder with models/ggml-vocab-llama-spm.gguf"
)
def test_llama2_texts_have_the_expected_ids(tmp_path):
    need_llama()
    official = Path(ORACLE) / "models" / "ggml-vocab-llama-spm.gguf"
    expected = GgufFile(official).metadata
    lists = [expected[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type")]
    write_sentencepiece(tmp_path / "tokenizer.model", list(zip(*lists, strict=True)))
    vocabulary_file(tmp_path, tmp_path / "v.gguf", 32000)
    metadata = GgufFile(tmp_path / "v.gguf").metadata
    for name in ("model", "tokens", "scores", "token_type"):
        assert metadata[f"tokenizer.ggml.{name}"] == expected[f"tokenizer.ggml.{name}"]
    texts = Path(f"{official}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")[:-1]
    # The expected ids lack the token that begins a text.
    ids = [[int(number) for number in line.split()] for line in Path(f"{official}.out").read_text().splitlines()]
    assert len(texts) > 40
    assert differing([row[1:] for row in ids_of(tmp_path / "v.gguf", texts)], ids, texts) == []


@pytest.mark.skipif(not ORACLE, reason="DEARLITE_LLAMA_CPP is not set to a folder with models/ggml-vocab-qwen2.gguf")
def test_qwen_texts_have_the_ids_of_its_tokenizer(tmp_path):
    """Qwen's published vocabulary, from llama.cpp's tests, with its way to split texts."""
    need_llama()
    official = GgufFile(Path(ORACLE) / "models" / "ggml-vocab-qwen2.gguf").metadata
    whole = json.loads(qwen_tokenizer_json())
    whole["added_tokens"] = []
    whole["model"]["vocab"] = {text: n for n, text in enumerate(official["tokenizer.ggml.tokens"])}
    whole["model"]["merges"] = official["tokenizer.ggml.merges"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": None, "add_bos_token": False}))
    size = len(official["tokenizer.ggml.tokens"])
    vocabulary_file(tmp_path, tmp_path / "v.gguf", size, model_type="qwen2", bos_token_id=151643, eos_token_id=151643)
    metadata = GgufFile(tmp_path / "v.gguf").metadata
    assert (metadata["tokenizer.ggml.pre"], metadata["tokenizer.ggml.add_bos_token"]) == ("qwen2", False)
    assert metadata["tokenizer.ggml.merges"] == official["tokenizer.ggml.merges"]
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = [text for text in TEXTS if tokenizer.normalizer.normalize_str(text) == text]  # llama.cpp normalises nothing
    expected = [tokenizer.encode(text).ids for text in texts]
    assert len(texts) > 200
    assert differing(ids_of(tmp_path / "v.gguf", texts), expected, texts) == []


def test_added_tokens_and_their_types(tmp_path):
    write_sentencepiece(tmp_path / "tokenizer.model", pieces())
    added = {
        "340": {"content": "<|turn|>", "special": False},
        "341": {"content": "▁two words", "special": False},
        "342": {"content": "<x>", "special": True},
        "900": {"content": "beyond", "special": True},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added, "bos_token": "<s>"}))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"mine": 343}))
    vocabulary = read_vocabulary(
        tmp_path, {"vocab_size": 384, "eos_token_id": [2, 3], "pad_token_id": 0, "bos_token_id": 1}
    )
    assert vocabulary.tokens[340:344] == [b"<|turn|>", b" two words", b"<x>", b"mine"]
    assert vocabulary.types[340:344] == [3, 4, 3, 4]  # control, user-defined
    assert vocabulary.scores[340:344] == [-1000.0] * 4
    assert (vocabulary.tokens[383], vocabulary.types[383], vocabulary.scores[383]) == (b"[PAD383]", 5, -10000.0)
    assert vocabulary.special_ids == {"bos": 1, "pad": 0}  # a list of end tokens concerns generation only


def test_tokenizer_of_the_adapter_serves_a_base_without_one(tmp_path):
    folder = write_model(tmp_path / "model", TINY, tokenizer=False)
    (tmp_path / "lora").mkdir()
    write_sentencepiece(tmp_path / "lora" / "tokenizer.model", pieces())
    config = json.loads((folder / "config.json").read_text())
    vocabulary = read_vocabulary(folder, config, adapter=tmp_path / "lora")
    assert vocabulary.special_ids == {"bos": 1, "eos": 2}
    with pytest.raises(CheckpointError, match=r"neither tokenizer.json nor tokenizer.model"):
        read_vocabulary(folder, config)


def test_unknown_tokenizers_are_refused(tmp_path):
    metadata = GgufFile(smollm2_gguf()).metadata
    folder = write_smollm2_tokenizer(tmp_path / "model", metadata)
    raw = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    other = json.loads(json.dumps(raw))
    other["model"]["merges"] = other["model"]["merges"][:1000]
    (folder / "tokenizer.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(UsageError, match=r"none of dbrx, gpt-4o, llama-bpe, qwen2, smollm.*convert_hf_to_gguf.py"):
        read_vocabulary(folder, {"vocab_size": 49152})
    (folder / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"'.+' has the id 32000.+ the model's embedding has 32000 rows"):
        read_vocabulary(folder, {"vocab_size": 32000})
    raw["pre_tokenizer"] = None  # as Llama 2's has it
    (folder / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"there is no tokenizer.model: fetch"):
        read_vocabulary(folder, {"vocab_size": 49152})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "holds no pieces"),
        (b"not a protobuf", "not a SentencePiece model"),
        (b"\x0a\x7f\x0a\x01a", "ends within field 1"),
        (b"\x0a\x05\x0a\x01\xff\x18\x01", "not a SentencePiece model"),
        (b"\x0a\x05\x0a\x01a\x18\x09", "piece 'a' is of type 9"),
        (b"\xff" * 12, "ends within a number"),
    ],
)
def test_damaged_sentencepiece_models_are_refused(tmp_path, data, words):
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(CheckpointError, match=words):
        read_pieces(tmp_path / "tokenizer.model")


def test_pieces_are_read_back(tmp_path):
    write_sentencepiece(tmp_path / "tokenizer.model", pieces())
    assert [(piece.text, piece.score, piece.type) for piece in read_pieces(tmp_path / "tokenizer.model")] == pieces()
