"""llama.cpp: the library, a loaded GGUF, its vocabulary and its chat template, for listwise and pointwise engines."""
