"""Token ids of each family's prompt against its makers' steps, written here with the tokenizers library alone."""

import random

import pytest
from qwen_tokenizer import libraries, qwen_tokenizer_json
from spm_tokenizer import spm_json

from dearlite.documents import Document
from dearlite.errors import InvalidInput
from dearlite.export.source.prompts import prompt_of_folder
from dearlite.pointwise.prompting import prompt_of

TOKENS = 300  # of a prompt: long texts are cut
FRAGMENTS = [
    "who invented", "the light bulb?", "<|im_end|>\n<|im_start|>system\n", "</think>", "北京 是", "\n\n  ",
    "naïve café", "123,456.78", "🙂", "<think>", "don't", "\tfoo", "x=1;", "{query}", "{}", "<|endoftext|>", "<bos>",
    "<|begin_of_text|>", "a" * 50, "yes", "</s><s>",
]  # fmt: skip


def texts(count: int) -> list[tuple[str, str, str]]:
    """(query, document, instruction), short and long, with special tokens, braces and blanks; the same each time."""
    rng = random.Random(7)

    def text(size: int) -> str:
        parts = (rng.choice(FRAGMENTS) + rng.choice(["", " ", "\n"]) for _ in range(size))
        return "".join(parts).strip() or "a"

    sizes = [(1, 1), (2, 4), (5, 9), (3, 60), (1, 150)]
    return [(text(q), text(d), text(2)) for q, d in (sizes[n % len(sizes)] for n in range(count))]


def prompt(tmp_path, name, tokenizer, config, instruction=None, max_tokens=TOKENS):
    """The prompt of the family as an export finds it, at `max_tokens`, and its record."""
    stated = prompt_of_folder(tmp_path, tokenizer, config, named=name, headed=name == "nemotron", max_tokens=max_tokens)
    return prompt_of(stated.template, tokenizer, stated.max_tokens, instruction), stated


def ids_of(prompt, query, document):
    (row,) = prompt.rows(prompt.query(query), [Document(document)])
    return row.ids.tolist()


WEB = "Given a web search query, retrieve relevant passages that answer the query"


def qwen3(words, texts, query, document, instruction):
    """README of Qwen3-Embedding: prefix and suffix alone, the body as one text, cut at its end."""
    prefix = words.encode(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    ).ids
    suffix = words.encode("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n").ids
    body = f"<Instruct>: {instruction or WEB}\n<Query>: {query}\n<Document>: {document}"
    return prefix + texts.encode(body).ids[: TOKENS - len(prefix) - len(suffix)] + suffix


def mxbai(words, texts, query, document, instruction):
    """mxbai-rerank 0.1.6: the query's text to 3/4, then the document's, words around them not counted."""
    prefix = words.encode(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
    ).ids
    sep = words.encode("\n").ids
    task = words.encode(
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
    ).ids
    suffix = words.encode("<|im_end|>\n<|im_start|>assistant\n").ids
    max_length = TOKENS - len(prefix) - len(sep) - len(task) - len(suffix)
    text = f"query: {query}"
    if instruction:
        text = f"instruction: {instruction}\n{text}"
    first = texts.encode(text).ids[: max_length * 3 // 4]
    second = (sep + texts.encode(f"document: {document}").ids)[: max_length - len(first)]
    return prefix + first + second + sep + task + suffix


def zerank(words, texts, query, document, instruction):
    """One rendered text; only the document is cut. Special tokens end what is encoded together."""
    if instruction:
        query = f"<query>{query}</query>\n<instruction>{instruction}</instruction>"
    start, end = words.token_to_id("<|im_start|>"), words.token_to_id("<|im_end|>")
    newline = texts.encode("\n").ids
    head = [start, *texts.encode(f"system\n{query}").ids, end, *newline, start]
    tail = [end, *newline, start, *texts.encode("assistant\n").ids]
    return head + texts.encode(f"user\n{document}").ids[: TOKENS - len(head) - len(tail)] + tail


def bge(words, texts, query, document, instruction):
    """FlagEmbedding's README, get_inputs: pieces alone, max_length of bos, query, newline and document."""
    sep = texts.encode("\n", add_special_tokens=False).ids
    ask = texts.encode(
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
        "prediction of either 'Yes' or 'No'.",
        add_special_tokens=False,
    ).ids
    max_length = TOKENS - len(sep) - len(ask)
    first = texts.encode(f"A: {query}", add_special_tokens=False).ids[: max_length * 3 // 4]
    second = sep + texts.encode(f"B: {document}", add_special_tokens=False).ids
    first = [words.token_to_id("<bos>"), *first]
    return first + second[: max_length - len(first)] + sep + ask


def ctxl(words, texts, query, document, instruction):
    """One text, the query after the document: the document alone is cut."""
    head = f"Check whether a given document contains information helpful to answer the query.\n<Document> {document}"
    tail = f"\n<Query> {query} {instruction} ??" if instruction else f"\n<Query> {query} ??"
    ids = texts.encode(head + tail).ids
    end = texts.encode(tail).ids
    return ids if len(ids) <= TOKENS else texts.encode(head).ids[: TOKENS - len(end)] + end


def nemotron(words, texts, query, document, instruction):
    """One text after the tokenizer's own first token, cut at its end."""
    ids = texts.encode(f"question:{query} \n \n passage:{document}", add_special_tokens=False).ids
    return [words.token_to_id("<|begin_of_text|>"), *ids][:TOKENS]


QWEN, GEMMA = qwen_tokenizer_json(), spm_json(("<pad>", "<eos>", "<bos>"), "<bos> $A")
LLAMA = spm_json(("<|begin_of_text|>", "<|end_of_text|>"), "<|begin_of_text|> $A")
CASES = {  # family -> tokenizer, config.json, the makers' steps, instructions that it takes
    "qwen3-reranker": (QWEN, {"model_type": "qwen3", "vocab_size": 151669}, qwen3, True),
    "mxbai-v2": (QWEN, {"model_type": "qwen2", "hidden_size": 896}, mxbai, True),
    "zerank": (QWEN, {"model_type": "qwen3"}, zerank, True),
    "ctxl-v2": (QWEN, {"model_type": "qwen3"}, ctxl, True),
    "bge-v2-gemma": (GEMMA, {"model_type": "gemma"}, bge, False),
    "nemotron": (LLAMA, {"model_type": "llama_bidirec"}, nemotron, False),
}


@pytest.mark.parametrize("name", CASES)
def test_ids_are_those_of_the_makers_steps(tmp_path, name):
    tokenizer, config, steps, instructed = CASES[name]
    words, plain = libraries(tokenizer)
    refused = cut = 0
    forms = {None: prompt(tmp_path, name, tokenizer, config)[0]}
    for query, document, instruction in texts(100):
        for stated in (None, instruction) if instructed and len(forms) < 20 else (None,):
            form = forms.get(stated) or prompt(tmp_path, name, tokenizer, config, stated)[0]
            forms[stated] = form
            try:
                ids = ids_of(form, query, document)
            except InvalidInput:  # the makers would cut the document away, or the query
                refused += 1
                continue
            assert ids == steps(words, plain, query, document, stated), (query, document, stated)
            cut += len(ids) == TOKENS
    assert cut > 10 and refused < 10


@pytest.mark.parametrize("name", ["qwen3-reranker", "mxbai-v2", "zerank", "bge-v2-gemma"])
def test_the_querys_part_is_the_same_for_all_documents(tmp_path, name):
    tokenizer, config, *_ = CASES[name]
    form, _ = prompt(tmp_path, name, tokenizer, config)
    query = form.query("who invented the light bulb?")
    rows = list(form.rows(query, [Document(text) for text in ("Edison", "\U0001f642!", "tea " * 200, "\nno", "1")]))
    (shared,) = {row.prefix for row in rows}
    assert len({tuple(row.ids[:shared]) for row in rows}) == 1
    common = min(next(n for n, (a, b) in enumerate(zip(rows[0].ids, row.ids)) if a != b) for row in rows[1:])  # noqa: B905
    assert common - 4 <= shared <= common


def test_words_before_a_document_are_shared_by_all_queries(tmp_path):
    tokenizer, config, *_ = CASES["ctxl-v2"]
    form, _ = prompt(tmp_path, "ctxl-v2", tokenizer, config)
    rows = [next(form.rows(form.query(query), [Document("tea")])) for query in ("who", "the light bulb?")]
    assert rows[0].prefix == rows[1].prefix > 20


def test_tokens_are_counted_before_the_cut(tmp_path):
    form, _ = prompt(tmp_path, "qwen3-reranker", QWEN, CASES["qwen3-reranker"][1])
    short, long, huge = form.rows(
        form.query("who"), [Document(text) for text in ("tea", "tea " * 400, "tea " * 60_000)]
    )
    assert (short.truncated, short.tokens_total_is_bound) == (False, False)
    whole = len(libraries(QWEN)[1].encode(" tea" * 400).ids)
    assert (long.tokens_used, long.tokens_total_is_bound) == (TOKENS, False)
    assert whole < long.tokens_total < whole + 150
    assert huge.tokens_used == TOKENS < huge.tokens_total
    assert huge.tokens_total_is_bound
    assert huge.ids.tolist() == long.ids.tolist()
