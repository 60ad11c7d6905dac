"""Prompt forms of models that think before they answer: windows of documents, and documents alone.

As in `prompts.py`, the texts are those that their authors used, and a journal is identified by a hash of the form.

Sources: ReasonRank, arXiv 2508.07050 (8421BCD/ReasonRank e6d3ab4: "reasonrank" is its mode rank_GPT_reasoning,
"rankzephyr-think" its mode rank_GPT_qwen3, RankZephyr's words for models that think on their own); Rearank, arXiv
2505.20046 (the authors' rank_gpt.py); Rank1, arXiv 2502.18418 (orionw/rank1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dearlite.listwise.prompts import RANKLLM_WINDOW, ListForm, PassageLimit, fill, without_identifiers
from dearlite.options import ListwiseMode
from dearlite.templates.chat import Turn


@dataclass(frozen=True, slots=True)
class ThinkForm(ListForm):
    """The prompt of a window whose answer is "<think> … </think> <answer> [2] > [1] </answer>".

    `opener` begins the answer after </think>. `renumbers` holds for the query too.
    """

    opener: str = " <answer> ["

    @property
    def mode(self) -> ListwiseMode:
        return "reason"

    @property
    def reasoning(self) -> str:
        return "think"

    def turns(self, query: str, passages: Sequence[str], *, reasoned: bool = False) -> list[Turn]:
        """As ListForm's."""
        shown = without_identifiers(query) if self.renumbers else query
        return ListForm.turns(self, shown, passages, reasoned=reasoned)


@dataclass(frozen=True, slots=True)
class JudgeForm(ListForm):
    """The prompt about one document, {passage}, that ends where thinking begins. `frame` is "{user}".

    After </think> the model answers with one of `answers`, of which the first stands for a relevant document;
    `closing` ends thinking that the model did not end.
    """

    answers: tuple[str, str] = (" true", " false")
    closing: str = "\n</think>"

    @property
    def mode(self) -> ListwiseMode:
        return "pointwise"

    @property
    def reasoning(self) -> str:
        return "think"

    def turns(self, query: str, passages: Sequence[str], *, reasoned: bool = False) -> list[Turn]:
        """The only turn, about the only one of `passages`."""
        (passage,) = passages
        return [(role, fill(text, query=query, passage=passage)) for role, text in self.head]


_REASONRANK_SYSTEM = (
    "You are RankLLM, an intelligent assistant that can rank passages based on their relevance to the query."
)

THINK_FORMS: dict[str, ThinkForm] = {
    "reasonrank": ThinkForm(
        identifiers_from=1,
        limit=PassageLimit("words", 300),
        head=(
            (
                "system",
                f"{_REASONRANK_SYSTEM} Given a query and a passage list, you first thinks about the reasoning process "
                "in the mind and then provides the answer (i.e., the reranked passage list). The reasoning process and "
                "answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> "
                "reasoning process here </think> <answer> answer here </answer>.",
            ),
            ("user", f"{RANKLLM_WINDOW}The format of the answer should be [] > [], e.g., [2] > [1]."),
        ),
        passage_line="[{i}] {passage}",
        renumbers=True,
        max_new_tokens=3172,
    ),
    "rearank": ThinkForm(
        identifiers_from=1,
        limit=PassageLimit("joined", 400),
        head=(
            (
                "system",
                "You are DeepRerank, an intelligent assistant that can rank passages based on their relevancy to the "
                "search query. You first thinks about the reasoning process in the mind and then provides the user "
                "with the answer.",
            ),
            (
                "user",
                "I will provide you with passages, each indicated by number identifier []. Rank the passages based on "
                "their relevance to the search query.Search Query: {query}. \nRank the {n} passages above based on "
                "their relevance to the search query.The passages should be listed in descending order using "
                "identifiers. The most relevant passages should be listed first. The output format should be <answer> "
                "[] > [] </answer>, e.g., <answer> [1] > [2] </answer>.",
            ),
            ("assistant", "Okay, please provide the passages."),
        ),
        each_passage=(("user", "[{i}] {passage}"), ("assistant", "Received passage [{i}].")),
        tail=(
            (
                "user",
                'Please rank these passages according to their relevance to the search query: "{query}"\n'
                "            Follow these steps exactly:\n"
                "            1. First, within <think> tags, analyze EACH passage individually:\n"
                "            - Evaluate how well it addresses the query\n"
                "            - Note specific relevant information or keywords\n"
                "\n"
                "            2. Then, within <answer> tags, provide ONLY the final ranking in descending order of "
                "relevance using the format: [X] > [Y] > [Z]",
            ),
        ),
        max_new_tokens=2048,
    ),
    "rankzephyr-think": ThinkForm(
        identifiers_from=1,
        limit=PassageLimit("words", 300),
        head=(
            ("system", _REASONRANK_SYSTEM),
            (
                "user",
                f"{RANKLLM_WINDOW}The final ranked list should be enclosed within <answer> </answer> tags, i.e., "
                "<answer> ranked list here </answer>. The format of ranked list should be [] > [], e.g., [2] > [1]. "
                "Only respond with the ranking results, do not say any word or explain.",
            ),
        ),
        passage_line="[{i}] {passage}",
        renumbers=True,
        max_new_tokens=3172,
    ),
}

JUDGE_FORMS: dict[str, JudgeForm] = {
    "rank1": JudgeForm(
        identifiers_from=1,
        limit=PassageLimit("whole", 0),
        head=(
            (
                "user",
                "Determine if the following passage is relevant to the query. Answer only with 'true' or 'false'.\n"
                "Query: {query}\nPassage: {passage}\n<think>",
            ),
        ),
        frame="{user}",
        titled="{title} {text}",
    ),
}
