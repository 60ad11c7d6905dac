"""A vocabulary without a model, for tests that write prompts and answers of a listwise model."""


class Bytes:
    """A vocabulary whose tokens are bytes."""

    def encode(self, text):
        return list(text.encode("utf-8", "replace"))

    def token_bytes(self, token):
        return bytes([token])

    def encode_prompt(self, parts):
        return self.encode("".join(part.text for part in parts))

    def encode_after(self, anchor, text):
        return tuple(self.encode(text))
