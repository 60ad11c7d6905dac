"""ONNX graphs written node by node, so that each runs the kernels that were measured to be right and fast."""
