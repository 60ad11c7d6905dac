"""PyInstaller's hook for llama-cpp-py-sync: its libraries and the description of their functions."""

from PyInstaller.utils.hooks import collect_data_files, collect_dynamic_libs, copy_metadata

binaries = collect_dynamic_libs("llama_cpp_py_sync")
datas = collect_data_files("llama_cpp_py_sync") + copy_metadata("llama-cpp-py-sync")
