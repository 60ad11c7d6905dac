"""Decoders as GGUF files for llama.cpp: what `dearlite export` writes of a listwise model.

architectures.py   what config.json must say, the tensors and their names        quants.py      the types, a table
vocabulary.py      tokenizer.json or tokenizer.model -> GGUF's token lists       sentencepiece.py its small reader
metadata.py        keys and values of the file's head                            writer.py      the f16 file
reference.py       fp32 logits of chosen positions, while the weights stream     card.py        file against fp32
worker.py          what llama.cpp does, in a process of its own                  listwise.py    from end to end
"""
