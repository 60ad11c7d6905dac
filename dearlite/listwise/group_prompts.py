"""Prompt forms of the modes that sort: the words around the few documents of a comparison, and the labels to pick from.

As in `prompts.py`, the texts are those that their authors used, and a journal is identified by a hash of the form.

Sources: Setwise, arXiv 2310.09497, and pairwise ranking prompting, arXiv 2306.17563, both in the words of
ielab/llm-rankers; Rank-R1 and Setwise-SFT, arXiv 2503.06034 (its training scripts). "setwise-prior" is Setwise with a
sentence of ours, for Setwise Insertion (arXiv 2504.10509), which asks the model to keep the prior order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase

from dearlite.errors import UsageError
from dearlite.listwise.prompts import ListForm, PassageLimit, fill
from dearlite.options import Listwise, ListwiseMode
from dearlite.templates.chat import Turn


@dataclass(frozen=True, slots=True)
class GroupForm(ListForm):
    """The prompt of one comparison. `head` is the whole conversation; its text has the slots {query} and {passages}.

    The answer begins with `opener`, and one of the labels follows, then `closer`. Labels are letters with `letters`,
    else numbers from 1. `separator` stands between two passages. With `thinks` the model reasons in <think> tags before
    the answer. `seed` shuffles the documents of a comparison, None for their own order.
    """

    mode: ListwiseMode = "setwise"
    letters: bool = False
    separator: str = "\n"
    opener: str = ""
    closer: str = ""
    thinks: bool = False
    seed: int | None = None

    @property
    def reasoning(self) -> str:
        return "think" if self.thinks else "none"

    def identifiers(self, count: int) -> list[str]:
        """The labels of `count` passages."""
        if not self.letters:
            return [str(number) for number in range(1, count + 1)]
        self.check_size(count)
        return list(ascii_uppercase[:count])

    def check_size(self, count: int) -> None:
        """Raises UsageError if groups of `count` passages need more letters than there are."""
        if self.letters and count > len(ascii_uppercase):
            raise UsageError(
                f"group_size is {count}, and this prompt form labels passages by letters: take at most "
                f"{len(ascii_uppercase)}, or --prompt setwise-sft, which has numbers"
            )

    def turns(self, query: str, passages: Sequence[str], *, reasoned: bool = False) -> list[Turn]:
        """The conversation up to the answer. `passages` are texts from `passage`, perhaps cut further."""
        named = zip(self.identifiers(len(passages)), passages, strict=True)
        lines = self.separator.join(fill(self.passage_line, i=i, passage=text) for i, text in named)
        return [(role, fill(text, query=query, passages=lines)) for role, text in self.head]


def find_group_form(options: Listwise, own: str | None = None) -> tuple[str, GroupForm]:
    """The prompt form of a mode that sorts, by its name, and the name. Raises UsageError for one of another mode.

    `own` is the form that the model file names, which counts where it is one of the mode.
    """
    able = [name for name, form in GROUP_FORMS.items() if form.mode == options.mode]
    stated = own if own in able else None
    name = options.prompt or stated or ("setwise-prior" if options.sort == "insertion" else able[0])
    if name not in able:
        raise UsageError(f"the prompt form {name!r} is not one of mode {options.mode}: take {' or '.join(able)}")
    form = GROUP_FORMS[name]
    return name, form if options.shuffle_seed is None else replace(form, seed=options.shuffle_seed)


_SETWISE = (
    'Given a query "{query}", which of the following passages is the most relevant one to the query?\n\n{passages}\n\n'
    "Output only the passage label of the most relevant passage:"
)
_PRIOR = (
    "The passages are in the order of a first search. If none is clearly more relevant than Passage A, output A.\n\n"
)
_PAIRWISE = (
    'Given a query "{query}", which of the following two passages is more relevant to the query?\n\n{passages}\n\n'
    "Output Passage A or Passage B:"
)
_TALK = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
)
_QUESTION = 'Given the query: "{query}", which of the following documents is most relevant?\n{passages}\n'
_LABEL = (
    "provide only the label of the most relevant document to the query, enclosed in square brackets, within the answer "
    "tags. For example, if the third document is the most relevant, the answer should be: "
)
_RANK_R1_SEED = 929  # of the authors' runs

_LETTERED = GroupForm(
    identifiers_from=1,
    limit=PassageLimit("words", 300),
    head=(("user", _SETWISE),),
    passage_line='Passage {i}: "{passage}"',
    letters=True,
    separator="\n\n",
    opener=" Passage:",
)
_BRACKETED = replace(
    _LETTERED,
    passage_line="[{i}] {passage}",
    titled="{title} {text}",
    letters=False,
    separator="\n",
    opener="<answer>[",
    closer="]</answer>",
    seed=_RANK_R1_SEED,
)
GROUP_FORMS: dict[str, GroupForm] = {
    "setwise": _LETTERED,
    "setwise-prior": replace(_LETTERED, head=(("user", _SETWISE.replace("Output", f"{_PRIOR}Output")),)),
    "setwise-sft": replace(
        _BRACKETED,
        head=(
            (
                "system",
                f"{_TALK}provides the user with the answer enclosed within <answer> </answer> tags, i.e., <answer> "
                "answer here </answer>.",
            ),
            ("user", f"{_QUESTION}Please {_LABEL}<answer>[3]</answer>."),
        ),
    ),
    "rank-r1": replace(
        _BRACKETED,
        head=(
            (
                "system",
                f"{_TALK}first thinks about the reasoning process in the mind and then provides the user with the "
                "answer. The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> "
                "tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>.",
            ),
            (
                "user",
                f"{_QUESTION}After completing the reasoning process, please {_LABEL}<think> reasoning process here "
                "</think> <answer>[3]</answer>.",
            ),
        ),
        thinks=True,
    ),
    "pairwise": replace(_LETTERED, mode="pairwise", head=(("user", _PAIRWISE),)),
}
