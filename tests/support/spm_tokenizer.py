"""A small trained tokenizer of SentencePiece's kind, as Gemma and Llama 3 have it around texts."""

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers


@cache
def spm_json(specials: tuple[str, ...], template: str) -> bytes:
    """A tokenizer of SentencePiece's kind, as Gemma's and Llama's: blanks as U+2581, bytes for the rest, merges."""
    words = "A B Yes No query question passage light bulb invented who the document Given determine " * 3
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[*specials, "<unk>", *(f"<0x{n:02X}>" for n in range(256))],
        show_progress=False,
        initial_alphabet=["\u2581", *map(chr, range(33, 127))],
    )
    tokenizer.train_from_iterator(words.replace(" ", "\u2581").split("\n"), trainer)
    tokenizer.decoder = decoders.ByteFallback()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in specials])
    numbers = [(text, tokenizer.token_to_id(text)) for text in specials]
    tokenizer.post_processor = processors.TemplateProcessing(template, f"{template} $B", numbers)
    return tokenizer.to_str().encode()
