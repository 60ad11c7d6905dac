"""Loads a model and an adapter in llama.cpp, on a GPU if there is one."""

from __future__ import annotations

import os
from typing import Any

from dearlite.errors import DeviceUnavailable, ModelFileError
from dearlite.llama.bindings import captured_log, first_error, gpu_build_command, used_device
from dearlite.models.gguf import GgufFile


def load_model(llama: Any, file: GgufFile, device: str, gpu_layers: int | None) -> tuple[Any, str, str]:
    """A pointer to the loaded model, its device, and a note on the choice of device, "" without one.

    Device "auto" falls back from GPU to CPU, with the note. Raises DeviceUnavailable and ModelFileError.
    """
    note = ""
    offloads = llama.llama_supports_gpu_offload() and device != "cpu" and gpu_layers != 0
    if not offloads and (device not in ("auto", "cpu") or gpu_layers):
        raise DeviceUnavailable(
            f"this llama.cpp was built without a GPU: {gpu_build_command()}"
            if device != "cpu"
            else "device 'cpu' takes no --gpu-layers: leave one of them out"
        )
    attempts = [gpu_layers if gpu_layers is not None else 10_000, 0] if offloads else [0]
    for layers in attempts:
        params = llama.llama_model_default_params()
        params.n_gpu_layers = layers
        with captured_log() as lines:
            model = llama.llama_model_load_from_file(os.fsencode(file.path), params)
        if model:
            return model, used_device(lines) if layers else "cpu", note
        reason = first_error(lines, "no reason given")
        if layers and (device != "auto" or gpu_layers is not None):
            raise DeviceUnavailable(f"{file.path.name} does not load on the GPU ({reason}): fewer --gpu-layers")
        note = f"running on cpu, since {file.path.name} does not load on the GPU ({reason})"
    raise ModelFileError(f"llama.cpp cannot load {file.path} ({reason}): fetch or export it again")


def load_adapter(llama: Any, model: Any, adapter: GgufFile) -> Any:
    """A pointer to the adapter for `model`. Raises ModelFileError."""
    with captured_log() as lines:
        pointer = llama.llama_adapter_lora_init(model, os.fsencode(adapter.path))
    if not pointer:  # the library would continue without the adapter and without an error
        reason = first_error(lines, "no reason given")
        raise ModelFileError(
            f"llama.cpp cannot put the adapter {adapter.path} on this model ({reason}): give the adapter's own base"
        )
    return pointer
