"""Driving a decoding by a function in place of a model."""


def drive(decoding, logits_of, room=10**6):
    """The sequence after `decoding`, and its result. The model is `logits_of(sequence, prompt)`."""
    sequence, prompt, logits = [], None, None
    while True:
        try:
            step = decoding.send(logits)
        except StopIteration as end:
            return sequence, end.value
        assert 0 <= step.drop <= len(sequence)
        assert step.tokens
        sequence[len(sequence) - step.drop :] = step.tokens
        assert len(sequence) <= room
        prompt = list(sequence) if prompt is None else prompt
        logits = logits_of(sequence, prompt)
