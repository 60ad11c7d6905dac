"""Pointwise models, which score one document at a time: prompts, token ids, ONNX Runtime, logits."""
