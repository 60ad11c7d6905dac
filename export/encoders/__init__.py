"""Exports encoder cross-encoders to `.dear` files, by way of optimum and ONNX."""
