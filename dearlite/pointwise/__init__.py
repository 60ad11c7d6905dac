"""Models that score one document at a time: text, token ids, ONNX Runtime, logits."""
