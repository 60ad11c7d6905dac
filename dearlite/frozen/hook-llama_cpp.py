"""PyInstaller's hook for llama-cpp-python: its libraries, which it loads from its own folder by name."""

from PyInstaller.utils.hooks import collect_dynamic_libs, copy_metadata

binaries = collect_dynamic_libs("llama_cpp")
datas = copy_metadata("llama-cpp-python")
