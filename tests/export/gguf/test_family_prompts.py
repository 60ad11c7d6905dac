"""Prompts of exported models: the form that the file names, templates of the families, and a model without one."""

import json

import pytest
from gguf_models import write_model
from llama import need_llama

from dearlite import Reranker
from dearlite.models.gguf import GgufFile

QUERY = "what made light"
DOCUMENTS = ["the light in the house", "a light", "tea", "he made the light", "in the hall"]
# Qwen's turns, with the tags that mark trained text
GENERATION = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Gemma's, which refuses a system turn, and turns that do not alternate
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def exported(cli, folder, prompt, template):
    settings = folder / "tokenizer_config.json"
    content = json.loads(settings.read_text()) | {"chat_template": template}
    settings.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    output = folder.parent / f"{prompt}.gguf"
    code, _, err = cli("export", folder, "--prompt", prompt, "--quant", "f16", "--no-card", "-o", output)
    assert (code, err) == (0, "")
    return output


@pytest.mark.parametrize(("kind", "template"), [("qwen2", GENERATION), ("gemma2", NO_SYSTEM)])
@pytest.mark.parametrize(("prompt", "mode"), [("setwise-sft", "setwise"), ("chat", "permute")])
def test_file_runs_in_the_mode_of_its_form(cli, tmp_path, kind, template, prompt, mode):
    need_llama()
    path = exported(cli, write_model(tmp_path / "model", kind, max_position_embeddings=4096), prompt, template)
    assert GgufFile(path).metadata["dearlite.prompt"] == prompt
    with Reranker.load(path) as reranker:
        assert f"mode={mode} " in reranker.identity()["options"]
        ranking = reranker.rerank(QUERY, DOCUMENTS)
        assert sorted(hit.index for hit in ranking) == list(range(len(DOCUMENTS)))


SYSTEM = "You are RankLLM, an assistant that ranks passages by relevance to the query."
BEGINNINGS = {
    GENERATION: f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nI will provide you with 1 passages",
    NO_SYSTEM: f"<start_of_turn>user\n{SYSTEM}\n\nI will provide you with 1 passages",
}


@pytest.mark.parametrize("template", BEGINNINGS)
def test_prompt_is_that_of_the_family_s_template(template):
    from dearlite.listwise.prompts import LIST_FORMS
    from dearlite.templates.chat import ChatTemplate

    turns = LIST_FORMS["chat"].turns(QUERY, ["a light"])
    text = "".join(part.text for part in ChatTemplate(template, {"bos_token": ""}).parts(turns))
    assert text.startswith(BEGINNINGS[template])
    assert text.count("Received passage [1].") == 1


def test_tokens_that_take_up_blanks_do_so_in_prompts():
    """As the tokenizers library does with the whole text, whose words here hold no special token."""
    from qwen_tokenizer import libraries, qwen_tokenizer_json
    from tokenizers import AddedToken, Tokenizer

    from dearlite.templates.chat import PromptPart, Strips, encode_parts

    tokenizer = Tokenizer.from_str(qwen_tokenizer_json().decode())
    tokenizer.add_special_tokens(
        [AddedToken("<|user|>", rstrip=True, special=True), AddedToken("<|stop|>", lstrip=True, special=True)]
    )
    words, texts = libraries(tokenizer.to_str().encode())
    special = {token.content: number for number, token in words.get_added_tokens_decoder().items()}
    strips = Strips(frozenset([special["<|stop|>"]]), frozenset([special["<|user|>"]]))
    prompt = ["<|im_end|>\n<|user|>\n ", "a light ", " \n<|stop|>\n<|user|>  <|stop|> b<|user|>\n"]
    parts = [PromptPart(text, number != 1) for number, text in enumerate(prompt)]
    ids = encode_parts(parts, lambda text: texts.encode(text).ids, special, None, strips)
    assert ids == words.encode("".join(prompt)).ids
    assert ids != encode_parts(parts, lambda text: texts.encode(text).ids, special, None)


def test_file_names_the_tokens_that_take_up_blanks(cli, tmp_path):
    need_llama()
    from dearlite.templates.chat import PromptPart

    folder = write_model(tmp_path / "model", "phi3, a window", max_position_embeddings=4096, sliding_window=4096)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    added = {340: ("<|user|>", True), 341: ("<|end|>", True), 342: ("<|x|>", False)}
    settings["added_tokens_decoder"] = {
        number: {"content": text, "special": True, "rstrip": strips, "lstrip": False}
        for number, (text, strips) in added.items()
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    path = exported(cli, folder, "chat", "{% for m in messages %}<|user|>\n{{ m.content }}<|end|>\n{% endfor %}")
    metadata = GgufFile(path).metadata
    assert metadata["dearlite.rstrip"] == [340, 341] and "dearlite.lstrip" not in metadata
    with Reranker.load(path) as reranker:
        vocabulary = reranker._backend.vocabulary
        parts = [PromptPart("<|user|>\n", True), PromptPart("light", False), PromptPart("<|end|>\n<|x|>\n", True)]
        blank = vocabulary.encode("\n")
        assert vocabulary.encode_prompt(parts)[-len(blank) - 2 :] == [341, 342, *blank]
        assert vocabulary.encode_prompt(parts)[:-1] == [1, 340, *vocabulary.encode("light"), 341, 342, *blank][:-1]


def test_model_without_a_template_takes_the_plain_form(cli, tmp_path):
    need_llama()
    folder = write_model(tmp_path / "model", "qwen3", max_position_embeddings=4096)
    path = exported(cli, folder, "plain", None)
    assert "tokenizer.chat_template" not in GgufFile(path).metadata
    with Reranker.load(path) as reranker:
        assert len(reranker.rerank(QUERY, DOCUMENTS).hits) == len(DOCUMENTS)
    command = ("export", folder, "--quant", "f16", "--no-card", "-o", tmp_path / "chat.gguf")
    code, _, err = cli(*command)
    assert code == 2 and "has no chat template, which the prompt form 'chat' needs: choose --prompt plain" in err
