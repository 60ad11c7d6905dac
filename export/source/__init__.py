"""A model as published: files, tensors, LoRA adapters, network shapes. Needs neither onnx nor torch."""
