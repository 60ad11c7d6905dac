"""Families of language models that score a document for a query: a table, one entry for each.

The words are an interface, like a wire format: models were trained with them, and one different character costs
quality. A family is known by fields of config.json (`marks`), never by a model's name; where no mark tells, it is named
(`--prompt NAME`). Both engines read this table. The last two entries score by the likelihood of the query, which
llama.cpp's engine alone reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The prompt and the score of one family.

    - `model_types`: values of config.json's `model_type`. Empty: every decoder.
    - `marks`: field of config.json -> its values, all of which tell this family from others. Empty: it must be named.
    - `parts`, `instructed`, `instruction`: as in `Template`. `chat`, `chat_instructed` in their place: the text of the
      user's turn, around which the model's own chat template puts its words.
    - `yes`, `no`: the tokens whose logits make the score, as text or as id; the score is logit(yes) - logit(no), or
      logit(yes) without `no`. Empty: the model has a score head of its own.
    - `likelihood`: the score is the log-probability of the query's tokens, which follow the words as a part of their
      own. `chat` then stands alone where a model has no chat template.
    - `max_tokens`: the makers' limit. It counts the whole prompt or, with `counts_texts`, what lies between the first
      and the last part that has a slot. `query_share` of it is the longest query's part; (3, 4) stands for 3/4.
    - `own_specials`: the tokenizer puts its own special tokens around the prompt.
    - `scale`, `biases`: probability = sigmoid(scale * score + bias); the bias by `hidden_size`, `None` for others.
      A scale of 0: the makers publish no probability.
    """

    source: str  # of words and reading
    model_types: tuple[str, ...] = ()
    marks: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    instructed: tuple[str, ...] = ()
    instruction: str = ""
    chat: str = ""
    chat_instructed: str = ""
    yes: str | int = ""
    no: str | int = ""
    likelihood: bool = False
    max_tokens: int = 8192
    counts_texts: bool = False
    query_share: tuple[int, int] | None = None
    own_specials: bool = False
    scale: float = 1.0
    biases: Mapping[int | None, float] = field(default_factory=dict)

    def fits(self, config: Mapping[str, Any]) -> bool:
        """True if a model with this config.json can be of the family."""
        return not self.model_types or config.get("model_type") in self.model_types

    def marked(self, config: Mapping[str, Any]) -> bool:
        """True if the fields of config.json tell that the model is of the family."""
        return bool(self.marks) and all(config.get(name) in values for name, values in self.marks.items())

    def bias(self, hidden: int | None) -> float:
        """The bias of the probability for a model of this width."""
        return self.biases.get(hidden, self.biases.get(None, 0.0))


_QWEN3_HEAD = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_QWEN3_TAIL = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_QWEN_SYSTEM = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n"
)
_MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document "
    "pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment "
    "(0 for not relevant, 1 for relevant).\nRelevance:"
)
_CTXL_HEAD = "Check whether a given document contains information helpful to answer the query.\n<Document> {document}\n"
_TFRANK_SYSTEM = (
    "<|im_start|>system\nBased on the relevance of the Documents to the Query and the Instruct provided to complete "
    "the task.\n<|im_end|>\n<|im_start|>user\n"
)
_TFRANK_ASK = (
    "\nPlease directly output the relevance judgment (yes or no), followed by the relevance score in parentheses, "
    "e.g., yes(score) or no(score). /no think\n<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
_YES_NO = "Query: {query}\nPassage: {document}\nDoes the passage answer the query? Answer 'Yes' or 'No'."

FAMILIES: dict[str, Family] = {
    "qwen3-reranker": Family(
        source="QwenLM/Qwen3-Embedding README, f4ad0c4: the transformers form",
        model_types=("qwen3",),
        # The rerankers' own vocabulary; the base models have 267 rows more.
        marks={"model_type": ("qwen3",), "vocab_size": (151669,)},
        parts=(_QWEN3_HEAD, "<Query>: {query}\n<Document>: {document}", _QWEN3_TAIL),
        instructed=(
            _QWEN3_HEAD,
            "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}",
            _QWEN3_TAIL,
        ),
        instruction=_WEB_SEARCH,
        yes="yes",
        no="no",
    ),
    "mxbai-v2": Family(  # ProRank too
        source="the package mxbai-rerank 0.1.6, mxbai_rerank_v2.py",
        model_types=("qwen2",),
        parts=(
            _QWEN_SYSTEM,
            "query: {query}",
            "\n",
            "document: {document}",
            "\n",
            _MXBAI_TASK,
            "<|im_end|>\n<|im_start|>assistant\n",
        ),
        instructed=(
            _QWEN_SYSTEM,
            "instruction: {instruction}\nquery: {query}",
            "\n",
            "document: {document}",
            "\n",
            _MXBAI_TASK,
            "<|im_end|>\n<|im_start|>assistant\n",
        ),
        yes="1",
        no="0",
        counts_texts=True,
        query_share=(3, 4),
        biases={896: -4.5, None: -6.0},
    ),
    "zerank": Family(
        source="vLLM's template; zeroentropy-ai/zbench 7e9d787",
        model_types=("qwen3",),
        parts=(
            "<|im_start|>system\n{query}<|im_end|>\n<|im_start|>user\n{document}<|im_end|>\n<|im_start|>assistant\n",
        ),
        instructed=(
            "<|im_start|>system\n<query>{query}</query>\n<instruction>{instruction}</instruction><|im_end|>\n"
            "<|im_start|>user\n{document}<|im_end|>\n<|im_start|>assistant\n",
        ),
        yes="Yes",
        max_tokens=32768,
        scale=0.2,
    ),
    "ctxl-v2": Family(
        source="vLLM's template; mteb a905523d",
        model_types=("qwen2", "qwen3", "llama", "mistral"),
        parts=(_CTXL_HEAD + "<Query> {query} ??",),
        instructed=(_CTXL_HEAD + "<Query> {query} {instruction} ??",),
        yes=0,
        own_specials=True,
        scale=0.0,
    ),
    "tfrank": Family(
        source="TFRank 1876596, its evaluation without thinking",
        model_types=("qwen3", "qwen2", "llama"),
        parts=(_TFRANK_SYSTEM + "<Query>: {query}\n\n\n<Document>: {document}" + _TFRANK_ASK,),
        instructed=(
            _TFRANK_SYSTEM
            + "<Instruct>: {instruction}\n\n\n<Query>: {query}\n\n\n<Document>: {document}"
            + _TFRANK_ASK,
        ),
        instruction=_WEB_SEARCH,
        yes="yes",
        no="no",
        max_tokens=4096,
    ),
    "bge-v2-gemma": Family(
        source="FlagOpen/FlagEmbedding 7ed43d6, README",
        model_types=("gemma",),
        parts=(
            "<bos>A: {query}",
            "\n",
            "B: {document}",
            "\n",
            "Given a query A and a passage B, determine whether the passage contains an answer to the query by "
            "providing a prediction of either 'Yes' or 'No'.",
        ),
        yes="Yes",
        max_tokens=1024,
        counts_texts=True,
        query_share=(3, 4),
    ),
    "nemotron": Family(
        source="vLLM's template; the model's own code for mask and pooling",
        model_types=("llama_bidirec",),
        marks={"model_type": ("llama_bidirec",)},
        parts=("question:{query} \n \n passage:{document}",),
        max_tokens=4096,
        own_specials=True,
    ),
    "monot5": Family(
        source="castorini/pygaggle 08339dd: the words of training, which one later tool ends with a blank",
        model_types=("t5", "mt5"),
        marks={"model_type": ("t5", "mt5")},
        parts=("Query: {query} Document: {document} Relevant:",),
        max_tokens=512,
        own_specials=True,
        scale=0,  # the score is a log probability
    ),
    "yes-no": Family(
        source="zero-shot: the question of ielab/llm-rankers b36517b, query first",
        chat=_YES_NO,
        chat_instructed="{instruction}\n" + _YES_NO,
        yes="Yes",
        no="No",
        max_tokens=2048,
    ),
    "upr": Family(
        # Its code joins "Passage: " to the text with one more blank, and also scores the end of the question.
        source="DevSinghSachan/unsupervised-passage-reranking 250f550, upr_gpt.py",
        chat="Passage:  {document}. Please write a question based on this passage.",
        likelihood=True,
        max_tokens=2048,
        scale=0.0,
    ),
    "query-likelihood": Family(
        source="qlm of ielab/llm-rankers b36517b",
        chat="Passage: {document}\nPlease write a question based on this passage.",
        likelihood=True,
        max_tokens=2048,
        scale=0.0,
    ),
}

STATED = tuple(
    name for name, family in FAMILIES.items() if not family.likelihood
)  # those that an exported file can have


def families_of(config: Mapping[str, Any]) -> list[str]:
    """The names of the families that a model with this config.json can be of, and that a file can state."""
    return [name for name in STATED if FAMILIES[name].fits(config)]


def marked_family(config: Mapping[str, Any]) -> str | None:
    """The family that the fields of config.json tell; None if they tell none."""
    return next((name for name, family in FAMILIES.items() if family.marked(config)), None)
