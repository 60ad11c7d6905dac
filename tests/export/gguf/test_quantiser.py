"""The names that llama.cpp's quantiser gets: on Windows it opens its output by a name in the code page."""

import ctypes
import os
from types import SimpleNamespace

from dearlite.export.gguf import worker


class Params(ctypes.Structure):
    _fields_ = [("ftype", ctypes.c_int), ("nthread", ctypes.c_int)]


def test_the_quantiser_gets_ascii_names_in_a_folder_of_any_name(tmp_path, monkeypatch):
    folder = tmp_path / "modèle ☕"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)  # left again after the test
    calls = []

    def quantize(source, target, params):
        calls.append((source, target, os.getcwd()))
        return 0

    llama = SimpleNamespace(llama_model_quantize_default_params=Params, llama_model_quantize=quantize)
    monkeypatch.setattr(worker, "library", lambda: llama)
    monkeypatch.setattr(worker, "_drop_pages", lambda path: None)
    job = {"path": str(folder / "f16.gguf"), "output": str(folder / "model.gguf"), "quant": "q8_0"}
    assert worker.quantise(job).keys() == {"peak_rss_mb"}
    assert calls == [(b"f16.gguf", b"model.gguf", str(folder))]
