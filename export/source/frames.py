"""The words of an attention reranker's prompt: the turn of a chat around them, as the model's tokenizer tells it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from dearlite.export.source.prompts import own_specials
from dearlite.export.source.tokenizer import read_settings
from dearlite.models.attention import AttentionReading


@dataclass(frozen=True, slots=True)
class Frame:
    """The words before and after the user's turn, and the separator of its parts; `mark` is a token of the chat."""

    name: str
    mark: str
    before: str
    after: str
    separator: str = " \n\n"


# Sources: OSU-NLP-Group/In-Context-Reranking (Llama 3, Mistral), princeton-pli/QRHead (Qwen). The first whose mark the
# tokenizer has is taken. They leave out line ends of the chat templates: QRHead's heads were found with these words.
FRAMES = (
    Frame(
        "llama-3",
        "<|start_header_id|>",
        "<|start_header_id|>user<|end_header_id|>",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>",
    ),
    Frame("chatml", "<|im_start|>", "<|im_start|>user", "<|im_end|>\n<|im_start|>assistant", "\n\n"),
    Frame("mistral", "[INST]", "[INST]", "[/INST]", "\n\n"),
)
PLAIN = Frame("plain", "", "", "")


def reading_of(folder: Path, tokenizer: bytes, heads: str) -> tuple[AttentionReading, Frame]:
    """The prompt of the model in `folder`, and the frame that its tokenizer or its chat template has the mark of.

    A special token that the tokenizer puts before every text stands first.
    """
    library = Tokenizer.from_str(tokenizer.decode())
    added = {token.content for token in library.get_added_tokens_decoder().values()}
    template = read_settings(folder / "tokenizer_config.json").get("chat_template")
    words = template if isinstance(template, str) else ""
    frame = next((frame for frame in FRAMES if frame.mark in added or frame.mark in words), PLAIN)
    first = own_specials(tokenizer)[0]
    before = frame.before if first and frame.before.startswith(first) else first + frame.before
    return AttentionReading(heads=heads, before=before, after=frame.after, separator=frame.separator), frame
