"""Writes ONNX graphs node by node, with the operators whose kernels were measured to be exact and fast."""
