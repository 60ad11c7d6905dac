"""The template and the answers of a language model's folder: by its files, by fields of config.json, or by name."""

import json

import pytest
from qwen_tokenizer import qwen_tokenizer_json
from spm_tokenizer import spm_json

pytest.importorskip("jinja2", reason="jinja2 is not installed (extra export)")

from dearlite.errors import CheckpointError, ModelFileError, UsageError
from dearlite.export.source.answers import Answers
from dearlite.export.source.prompts import prompt_of_folder
from dearlite.templates.families import FAMILIES
from dearlite.templates.template import Template, read_template

QWEN = qwen_tokenizer_json()
QWEN3 = {"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024}
# The chat template of the published Qwen3-Reranker says what the README's code does.
PAIR_TEMPLATE = (
    "{%- set task = messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first "
    "| default('Find pages') -%}"
    "<|im_start|>user\n<Instruct>: {{ task }}\n"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n\n"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)


def sentence_transformers_folder(folder, score=None, template=PAIR_TEMPLATE, modules=("Transformer", "LogitScore")):
    """The files of a CrossEncoder that sentence-transformers has saved."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = [
        {"idx": n, "name": str(n), "path": "" if n == 0 else f"{n}_{name}", "type": f"sentence_transformers.x.{name}"}
        for n, name in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_LogitScore").mkdir()
    (folder / "1_LogitScore/config.json").write_text(json.dumps(score or {"true_token_id": 11, "false_token_id": 12}))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    settings = {"default_prompt_name": "query", "prompts": {"query": "Find answers"}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def found(folder, config=QWEN3, *, tokenizer=QWEN, named=None, headed=False, max_tokens=None):
    return prompt_of_folder(folder, tokenizer, config, named=named, headed=headed, max_tokens=max_tokens)


def test_the_files_of_sentence_transformers_say_everything(tmp_path):
    prompt = found(sentence_transformers_folder(tmp_path))
    assert prompt.answers == Answers(11, 12)
    assert prompt.template.instruction == "Find answers"
    assert prompt.template.words("Sort by {date}") == (
        (
            "<|im_start|>user\n<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        ),
        "Sort by {date}",
    )
    assert "<Instruct>: Find pages\n" in prompt.template.parts[0]
    assert prompt.activation == {"scale": 1.0, "bias": 0.0}
    assert "chat template and modules.json" in prompt.told_by


def test_one_token_is_a_logit_without_a_probability(tmp_path):
    prompt = found(sentence_transformers_folder(tmp_path, score={"true_token_id": 3, "false_token_id": None}))
    assert (prompt.answers, prompt.activation) == (Answers(3), None)


def test_a_template_without_the_systems_turn_takes_no_instruction(tmp_path):
    plain = "Q: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }} "
    plain += "D: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }} ="
    template = found(sentence_transformers_folder(tmp_path, template=plain)).template
    assert template == Template(parts=("Q: {query} D: {document} =",))


def test_the_template_of_tokenizer_config_is_read_too(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": PAIR_TEMPLATE}))
    prompt = found(tmp_path)
    ids = {token: json.loads(QWEN)["model"]["vocab"][token] for token in ("yes", "no")}
    assert prompt.answers == Answers(ids["yes"], ids["no"])
    assert found(tmp_path, headed=True).answers is None  # a conversion to one label


def test_the_rerankers_own_vocabulary_tells_the_family(tmp_path):
    prompt = found(tmp_path, QWEN3 | {"vocab_size": 151669}, headed=True)
    family = FAMILIES["qwen3-reranker"]
    assert (prompt.name, prompt.answers, prompt.template.parts) == ("qwen3-reranker", None, family.parts)
    assert "vocab_size 151669" in prompt.told_by
    assert found(tmp_path, QWEN3, headed=True) is None  # a scorer of pairs


def test_a_chat_template_of_dialogues_is_none_of_pairs(tmp_path):
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    with pytest.raises(
        UsageError, match=r"no score head.*--prompt \(qwen3-reranker, zerank, ctxl-v2, tfrank, yes-no\)"
    ):
        found(tmp_path)


def test_yes_no_puts_its_question_into_the_models_chat_template(tmp_path):
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    prompt = found(tmp_path, named="yes-no")
    assert prompt.template.parts == (
        "<|im_start|>user\nQuery: {query}\nPassage: {document}\nDoes the passage answer the query? Answer 'Yes' or "
        "'No'.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    )
    assert prompt.template.instructed[0].startswith("<|im_start|>user\n{instruction}\nQuery: {query}\n")


@pytest.mark.parametrize(("hidden", "bias"), [(896, -4.5), (1536, -6.0)])
def test_the_bias_of_the_probability_follows_the_width(tmp_path, hidden, bias):
    prompt = found(tmp_path, {"model_type": "qwen2", "hidden_size": hidden}, named="mxbai-v2")
    assert prompt.activation == {"scale": 1.0, "bias": bias}
    assert prompt.template.max_query_tokens == 8192 * 3 // 4  # of the texts; the words around them come on top
    assert prompt.max_tokens > 8192


def test_the_models_positions_bound_the_prompt(tmp_path):
    config = {"model_type": "qwen2", "max_position_embeddings": 1024}
    assert found(tmp_path, config, named="mxbai-v2").max_tokens == 1024
    assert found(tmp_path, config, named="mxbai-v2", max_tokens=512).max_tokens == 512


REFUSED = {
    "a LogitScore without a token": (
        lambda folder: sentence_transformers_folder(folder, score={"true_token_id": "yes"}),
        None,
        r"LogitScore module names no token \(true_token_id 'yes'\)",
    ),
    "a LogitScore without a template": (
        lambda folder: sentence_transformers_folder(folder, template=None),
        None,
        "a LogitScore module and no chat template with the roles query and document",
    ),
    "a template without the document": (
        lambda folder: sentence_transformers_folder(folder, template="'document' {{ messages[0].content }} 'query'"),
        None,
        "its chat template leaves out the query or the document",
    ),
    "an embedding model": (
        lambda folder: sentence_transformers_folder(folder, modules=("Transformer", "Pooling", "Normalize")),
        None,
        r"has the module sentence_transformers.x.Pooling .* not supported after a language model: only LogitScore",
    ),
    "modules.json that is no list": (
        lambda folder: (folder / "modules.json").write_text("{}"),
        None,
        r"modules.json cannot be read \(no list of modules\)",
    ),
    "yes-no without a chat template": (
        lambda folder: None,
        "yes-no",
        "no chat template, which --prompt yes-no needs",
    ),
    "another architecture": (lambda folder: None, "bge-v2-gemma", "is for a model of type gemma, and .* is a qwen3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_without_one_prompt_is_refused(tmp_path, case):
    prepare, named, message = REFUSED[case]
    prepare(tmp_path)
    with pytest.raises((CheckpointError, UsageError), match=message) as refusal:
        found(tmp_path, named=named)
    assert "\n" not in str(refusal.value)


def test_an_answer_of_several_tokens_is_refused(tmp_path):
    tokenizer = spm_json(("<bos>",), "<bos> $A")
    with pytest.raises(CheckpointError, match=r"makes \d tokens of 'yes': it must be one token"):
        found(tmp_path, tokenizer=tokenizer, named="qwen3-reranker")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"parts": ["{query}"]}, "no slot {document}"),
        ({"parts": ["{query} {document} {query}"]}, "2 slots {query}"),
        ({"parts": ["{query} {document} {title}"]}, "a slot {title}"),
        ({"parts": ["{query} {document} {"]}, "a brace without its partner"),
        ({"parts": ["{query} {document}"], "instruction": "x"}, "no slot {instruction} for it"),
        ({"parts": ["{query} {document}"], "max_query_tokens": 9}, "in one part with the document"),
        ({"parts": "{query} {document}"}, "does not have the fields parts, instructed"),
        ({"parts": ["{query} {document}"], "max_query_tokens": 0}, "does not have the fields"),
        ({"parts": ["{query} {document}"], "words": 1}, "does not have the fields"),
    ],
)
def test_a_damaged_record_of_a_template_is_refused(record, message):
    whole = {"parts": [], "instructed": [], "instruction": "", "max_query_tokens": None} | record
    with pytest.raises(ModelFileError) as refusal:
        read_template(whole, "m.dear")
    assert message in str(refusal.value)
    assert str(refusal.value).startswith("m.dear: ")


def test_a_record_reads_as_the_template_that_it_is_of():
    template = Template(
        parts=("{{a}} {query}", "{document}"), instructed=("{instruction}{query}{document}",), instruction="x"
    )
    assert read_template(json.loads(json.dumps(template.record())), "m.dear") == template
