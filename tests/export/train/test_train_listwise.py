"""Stage 2: its records and evidence, the runtime's own prompt ids, only the answer learnt, and an end that exports."""

import json
from hashlib import sha256
from pathlib import Path

import gguf_models
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("trl")

import transformers  # noqa: E402
from tiny_gguf import TOKENS, cut_tokenizer, write_tiny  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from dearlite.documents import Document  # noqa: E402
from dearlite.errors import DearliteError, InvalidInput, UsageError  # noqa: E402
from dearlite.export.gguf.vocabulary import CHECK_TEXT, PRE_TYPES, read_vocabulary  # noqa: E402
from dearlite.export.train import listwise as stage  # noqa: E402
from dearlite.export.train.base import load_tokenizer  # noqa: E402
from dearlite.export.train.config import ListwiseConfig  # noqa: E402
from dearlite.export.train.hf_vocabulary import HfVocabulary, chat_template_of  # noqa: E402
from dearlite.export.train.records.evidence import sentences  # noqa: E402
from dearlite.export.train.records.rankings import read_list_records  # noqa: E402
from dearlite.listwise.engine import LlamaBackend  # noqa: E402
from dearlite.listwise.prompts import LIST_FORMS  # noqa: E402
from dearlite.listwise.tokens import PromptEncoder  # noqa: E402
from dearlite.models.gguf import GgufFile  # noqa: E402
from dearlite.templates.chat import ChatTemplate  # noqa: E402

SAMPLES = Path(__file__).parents[4] / "shared" / "data" / "samples" / "llm4ranking__toy_data_listwise_train.jsonl"
TEXTS = ["Coffee  is\tgood", "Édison 1879, naïve 漢字 🙂", " leading <|im_end|>", "12345 and 6 [3] > [1]"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A random LLaMA with SmolLM2's chat template and a part of its vocabulary."""
    folder = tmp_path_factory.mktemp("base")
    gguf_models.write_smollm2_tokenizer(folder, cut_tokenizer("smollm"))
    torch.manual_seed(0)
    fields = {"vocab_size": TOKENS, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    fields |= {
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "initializer_range": 0.3,
    }
    config = transformers.LlamaConfig(**fields, bos_token_id=1, eos_token_id=2, pad_token_id=2)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(base):
    return load_tokenizer(str(base))


@pytest.fixture
def known_as_smollm(base, monkeypatch):
    """Lets an export recognise the part of SmolLM2's vocabulary as it does the whole: by the ids of its check text."""
    ids = Tokenizer.from_file(str(base / "tokenizer.json")).encode(CHECK_TEXT, add_special_tokens=False).ids
    monkeypatch.setitem(PRE_TYPES, sha256(str(ids).encode()).hexdigest(), "smollm")


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", tokenizer=cut_tokenizer("smollm"))


@pytest.fixture(scope="module")
def llama(tiny_gguf):
    file = GgufFile(tiny_gguf)
    vocabulary = LlamaBackend(file).vocabulary
    return vocabulary, ChatTemplate(file.metadata["tokenizer.chat_template"], vocabulary.template_tokens)


def record(**changes):
    passages = [{"docid": str(n), "text": text} for n, text in enumerate(TEXTS)]
    return {"query_id": "1", "query": "who's?", "passages": passages, "order": [2, 0, 3, 1]} | changes


def written(tmp_path, *rows):
    path = tmp_path / "list.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def settings(base, path, **changes):
    given = {"base": str(base), "data": (str(path),), "output": str(path.parent / "out"), "dtype": "fp32"}
    given |= {"max_steps": 4, "batch": 1, "accumulation": 1, "log_steps": 1, "save_steps": 2, "threads": 1}
    return ListwiseConfig(**(given | changes))


@pytest.mark.parametrize("name", LIST_FORMS)
@pytest.mark.parametrize("opened", [True, False])
def test_prompt_ids_are_those_of_the_runtime(name, opened, tokenizer, llama):
    found = []
    for vocabulary, template in (llama, (HfVocabulary(tokenizer), chat_template_of(tokenizer))):
        encoder = PromptEncoder(vocabulary, LIST_FORMS[name], template)
        passages = [encoder.passage(Document(text, title="A title"), 7) for text in TEXTS]
        found.append(encoder.encode("who's?", passages, room=4000, reasoned=False, opened=opened))
    assert found[0] == found[1]


def test_the_answer_follows_the_prompt_as_the_runtime_decodes_it(tmp_path, base, tokenizer, llama):
    """The runtime reads the prompt and "[", then decodes one identifier's path after another: the same ids."""
    (row,), _ = read_list_records([written(tmp_path, record())])
    encode = stage.RecordEncoder(tokenizer, settings(base, tmp_path / "x.jsonl"))
    both = encode(row)
    encoder = PromptEncoder(llama[0], LIST_FORMS["chat"], llama[1])
    passages = [encoder.passage(document) for document in row.passages]
    opened = encoder.encode(row.query, passages, room=5000, reasoned=False, opened=True).ids
    paths = encoder.answer(4).paths
    decoded = [*opened]
    for place in row.order:
        decoded += paths[place]
    ids = both["input_ids"]
    shared = next(at for at, pair in enumerate(zip(ids, decoded, strict=False)) if pair[0] != pair[1])
    assert shared >= len(decoded) - len(paths[0])  # the last identifier has no "> [" behind it
    start = both["completion_mask"].index(1)
    answer = b"".join(llama[0].token_bytes(one) for one in ids[start:-1]).decode()
    assert answer == "[3] > [1] > [4] > [2]" and ids[-1] == tokenizer.eos_token_id
    assert ids[:start] == list(encoder.encode(row.query, passages, room=5000, reasoned=False, opened=False).ids)


def test_reasoning_comes_first_and_asks_for_steps(tmp_path, base, tokenizer, llama):
    (row,), _ = read_list_records([written(tmp_path, record(reasoning='[3] "it leads"'))])
    both = stage.RecordEncoder(tokenizer, settings(base, tmp_path / "x.jsonl"))(row)
    start = both["completion_mask"].index(1)
    text = b"".join(llama[0].token_bytes(one) for one in both["input_ids"][start:-1]).decode()
    assert text == '[3] "it leads"\n\n[3] > [1] > [4] > [2]'
    assert "Step 3." in tokenizer.decode(both["input_ids"][:start])
    with pytest.raises(UsageError, match=r"'rankgpt' has no place for the reasoning at list\.jsonl:1"):
        stage.RecordEncoder(tokenizer, settings(base, tmp_path / "x.jsonl", prompt="rankgpt"))(row)


def test_what_does_not_fit_is_cut_from_the_passages_never_from_the_answer(tmp_path, base, tokenizer):
    passages = [{"text": "word " * 300}, {"text": "short"}]
    (row,), _ = read_list_records([written(tmp_path, record(passages=passages, order=[1, 0]))])
    encode = stage.RecordEncoder(tokenizer, settings(base, tmp_path / "x.jsonl", max_tokens=400))
    both = encode(row)
    assert len(both["input_ids"]) <= 400
    answer = both["input_ids"][both["completion_mask"].index(1) : -1]
    assert tokenizer.decode(answer) == "[2] > [1]"
    with pytest.raises(InvalidInput, match=r"list\.jsonl:1: a window of 2 passages does not fit"):
        stage.RecordEncoder(tokenizer, settings(base, tmp_path / "x.jsonl", max_tokens=100))(row)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (record(order=[0, 1, 2]), "order must contain each index from 0 to 3 once"),
        (record(order=[0, 1, 2, 2]), "order must contain"),
        (record(order=None), "order must contain"),
        (record(passages=[]), "order must contain|have no order"),
        (record(passages=[{"text": "a"}], order=[0]), "1 passages have no order to learn"),
        (record(reasoning=3), "reasoning is a int"),
        (record(query=""), "query"),
        ({"messages": [{"role": "user", "content": "x"}]}, "the last message must be the assistant's"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "a message has a role"),
        ({"text": "x"}, "a record has query, passages and order, or messages"),
    ],
)
def test_bad_records_are_one_line(tmp_path, row, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        read_list_records([written(tmp_path, row)])
    assert str(caught.value).count("\n") == 0 and "list.jsonl:1" in str(caught.value)
    assert read_list_records([written(tmp_path, row, record())], skip_bad=True)[1] == 1


def test_published_conversations_are_taken_as_they_stand(tokenizer, base, tmp_path):
    if not SAMPLES.exists():
        pytest.skip("RankZephyr's sample records are not on this machine: their passages may not be passed on")
    records, skipped = read_list_records([SAMPLES])
    assert len(records) == 100 and not skipped
    both = stage.RecordEncoder(tokenizer, settings(base, tmp_path / "x.jsonl"))(records[0])
    answer = both["input_ids"][both["completion_mask"].index(1) : -1]
    assert tokenizer.decode(answer) == records[0].answer


def test_sentences_are_the_text():
    assert sentences("One is a start. Two are a pair! Is it three of them?") == [
        "One is a start.",
        "Two are a pair!",
        "Is it three of them?",
    ]
    assert sentences("Dr. Who came here at last.") == ["Dr. Who came here at last."]
    text = "He said so. Then the others (all of them) went on to talk. No."
    assert " ".join(sentences(text)) == text
    assert sentences("  ") == []


def test_it_learns_the_answer_and_goes_on(tmp_path, base, monkeypatch, capfd):
    path = written(tmp_path, *[record(query=f"who {n}?", order=[1, 0, 3, 2]) for n in range(4)])
    config = settings(base, path, max_steps=30, learning_rate=2e-2, log_steps=5, save_steps=10, warmup=0.0)
    real, said = stage.stop_at_nan, []

    def die(loss, step, *rest):
        if step == 15:
            raise DearliteError("stopped here")
        real(loss, step, *rest)

    monkeypatch.setattr(stage, "stop_at_nan", die)
    with pytest.raises(DearliteError, match="stopped here"):
        stage.train_listwise(config, report=said.append)
    monkeypatch.setattr(stage, "stop_at_nan", real)
    folder = stage.train_listwise(config, report=said.append)
    assert any(line.endswith("checkpoint-10") for line in said)
    losses = [one["loss"] for one in json.loads((folder / "training.json").read_text())["curve"]]
    assert losses[-1] < 0.8 * losses[0], losses
    assert (folder / "adapter_model.safetensors").exists()
    assert "examples/s" not in capfd.readouterr().err  # no bars of the libraries below


def test_the_command_ends_with_the_export_that_comes_next(tmp_path, base, cli, monkeypatch, known_as_smollm):
    """What it prints, run as it stands, makes a GGUF."""
    path = written(tmp_path, record())
    config = tmp_path / "list.toml"
    config.write_text(f'base = "{base}"\ndata = ["{path}"]\noutput = "trained"\nmax_steps = 1\ndtype = "fp32"\n')
    code, out, err = cli("train", "listwise", config)
    assert code == 0, err
    printed = out.strip().splitlines()[-1].split(": dearlite ")[1]
    monkeypatch.chdir(tmp_path)
    code, _, err = cli(*printed.split(), "--quant", "f16", "--no-card")
    assert code == 0, err
    assert printed.endswith("-o trained.gguf")
    assert GgufFile(tmp_path / "trained.gguf").metadata["general.architecture"] == "llama"


def test_the_loss_is_of_the_answer_alone(tmp_path, base, tokenizer):
    path = written(tmp_path, record())
    config = settings(base, path, max_steps=1, lora_dropout=0.0)
    folder = stage.train_listwise(config)
    (first,) = json.loads((folder / "training.json").read_text())["curve"]
    (row,), _ = read_list_records([path])
    both = stage.RecordEncoder(tokenizer, config)(row)
    ids, start = torch.tensor([both["input_ids"]]), both["completion_mask"].index(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.inference_mode():
        each = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
    assert first["loss"] == pytest.approx(each[start - 1 :].mean().item(), rel=1e-3)
    assert first["loss"] != pytest.approx(each.mean().item(), rel=1e-3)


def test_a_dry_run_trains_nothing(tmp_path, base):
    said = []
    config = settings(base, written(tmp_path, *[record()] * 4))
    assert stage.train_listwise(config, dry_run=True, report=said.append) is None
    assert "4 records, " in said[0] and any("tokens/s" in line for line in said)
    assert not list(Path(config.output).glob("*.safetensors"))
    assert stage.train_listwise(config, report=said.append) is not None  # what a dry run leaves is in no training's way


def test_a_gguf_is_unpacked_with_its_own_special_tokens(tmp_path, tiny_gguf, llama, known_as_smollm):
    """transformers alone reads SmolLM2's eos as <|im_start|>: the file's ids count."""
    from dearlite.export.train.base import unpack_base

    folder = unpack_base(str(tiny_gguf), tmp_path)
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    text = "query: who's?  12 naïve 漢字\n\n3.5%"
    assert tokenizer(text).input_ids == llama[0].encode(text)
    assert read_vocabulary(Path(folder), {"vocab_size": TOKENS}).pre == "smollm"  # what an export to GGUF asks for
    assert unpack_base(folder, tmp_path) == folder  # a folder is taken as it is


def test_a_loss_that_is_no_number_names_its_records(tmp_path, base, monkeypatch):
    from trl import SFTTrainer

    path = written(tmp_path, *[record(query=f"who {n}?") for n in range(3)])
    real = SFTTrainer.compute_loss
    monkeypatch.setattr(SFTTrainer, "compute_loss", lambda *args, **more: real(*args, **more) * float("nan"))
    with pytest.raises(DearliteError, match=r"the loss is nan at step 1 \(records list\.jsonl:[123]\)"):
        stage.train_listwise(settings(base, path))
