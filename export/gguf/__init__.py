"""Language models as GGUF files for llama.cpp: the files that `dearlite export` writes for listwise models.

architectures.py   the families, a table                                    quants.py         the types, a table
networks.py        config.json -> the numbers of the network                weights.py        its tensors
rotary.py          rotary positions                                         hyperparameters.py  keys of numbers
vocabulary.py      tokenizer.json or tokenizer.model -> GGUF token lists    sentencepiece.py  reader of the latter
metadata.py        keys and values of the file's head                       writer.py         the f16 file
reference.py       fp32 logits of chosen positions, from streamed weights   card.py           comparison with fp32
worker.py          llama.cpp in a process of its own                        pipeline.py       the whole export
"""
