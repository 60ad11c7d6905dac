"""Long documents in listwise prompts: as much is tokenised as fits in a prompt, which is that of the whole text."""

import pytest
from tiny_gguf import write_tiny

from dearlite import InvalidInput, Listwise, Reranker
from dearlite.documents import Document
from dearlite.listwise import tokens
from dearlite.listwise.prompts import LIST_FORMS
from dearlite.listwise.tokens import PromptEncoder

WORDS = "Rain falls on the hills [3], and the river floods. "
# Words, and texts whose 300 words are longer than any prompt.
TEXTS = {
    "words": WORDS,
    "ideographs": "雨が降る。川が溢れる",
    "base64": "iVBORw0KGgoAAAANSUhEUgAA+/Zm9v",
    "spaces": " " * 40 + "rain",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Reranker.load(write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf"), threads=1)


class Counted:
    """A vocabulary that counts the characters that it is given."""

    def __init__(self, vocabulary):
        self._vocabulary, self.characters = vocabulary, 0

    def __getattr__(self, name):
        return getattr(self._vocabulary, name)

    def encode(self, text):
        self.characters += len(text)
        return self._vocabulary.encode(text)


@pytest.mark.parametrize("form", LIST_FORMS)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_prompt_is_that_of_the_whole_text(model, monkeypatch, form, text):
    template = model._encoders.template
    encoder = PromptEncoder(model._backend.vocabulary, LIST_FORMS[form], template)
    document = Document(text * (60_000 // len(text)), title="Weather")

    def prompt(room=1_500):
        passages = [encoder.passage(each, room=room) for each in (document, Document("Tea"), Document(document.text))]
        return passages, encoder.encode("rain?", passages, room=room, reasoned=False, opened=True)

    whole, expected = prompt()
    assert not whole[0].total_is_bound
    monkeypatch.setattr(tokens, "WHOLE_CHARACTERS", 4_000)
    cut, ids = prompt()
    assert ids == expected
    assert cut[0].total_is_bound
    assert ids.used[0] < cut[0].total <= whole[0].total
    assert not cut[1].total_is_bound


def test_a_vocabulary_gets_what_a_prompt_can_hold(model, monkeypatch):
    text = WORDS * 100_000
    counted = Counted(model._backend.vocabulary)
    encoder = PromptEncoder(counted, LIST_FORMS["chat"], model._encoders.template)
    passage = encoder.passage(Document(text), room=4_000)
    assert counted.characters < 120_000
    assert passage.total_is_bound
    monkeypatch.setattr(model._encoders, "_made", {})
    for options in (Listwise(), Listwise(passage_tokens=20)):
        hit = next(hit for hit in model.rerank("rain", [text, "Tea"], listwise=options) if hit.index == 0)
        assert (hit.truncated, hit.tokens_total_is_bound, hit.text) == (True, True, text)


def test_a_query_that_fits_no_prompt_is_refused_by_its_beginning(model):
    counted = Counted(model._backend.vocabulary)
    encoder = PromptEncoder(counted, LIST_FORMS["plain"], None)
    with pytest.raises(InvalidInput, match="does not fit in 2000 tokens: the query and the prompt alone leave no room"):
        encoder.encode(WORDS * 100_000, [encoder.passage(Document("Tea"))], room=2_000, reasoned=False, opened=True)
    with pytest.raises(
        InvalidInput, match=r"1 passage does not fit in 0 tokens.*; take fewer --reasoning-tokens or a sh"
    ):
        encoder.encode("rain", [encoder.passage(Document("Tea"))], room=-9, reasoned=True, opened=True)
    assert counted.characters < 2_000_000
