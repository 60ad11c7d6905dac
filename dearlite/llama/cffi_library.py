"""The C API of llama.cpp through ctypes, with the declarations that llama-cpp-py-sync has for cffi.

llama-cpp-py-sync has prebuilt libraries, llama-cpp-python is compiled on the user's machine. The engine is written for
the ctypes bindings of llama-cpp-python; `CffiLibrary` has the same names: functions, structs, callback types, enum
constants. Struct layouts come from the package, which makes its declarations from the llama.h of its library.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from dearlite.errors import LibraryNotLoaded, first_line, load_failure, need

_PRIMITIVES: dict[str, Any] = {
    "_Bool": ctypes.c_bool,
    "char": ctypes.c_char,
    "int": ctypes.c_int,
    "unsigned int": ctypes.c_uint,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
    "size_t": ctypes.c_size_t,
    "ssize_t": ctypes.c_ssize_t,
    **{f"{sign}int{bits}_t": getattr(ctypes, f"c_{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
# llama-cpp-python's name -> the C name, of types whose names differ
_RENAMED = {"llama_log_callback": "ggml_log_callback", "llama_adapter_lora_p_ctypes": "struct llama_adapter_lora *"}


def prebuilt_library(again: str) -> CffiLibrary:
    """The library of llama-cpp-py-sync. Raises MissingExtra if it is not installed, LibraryNotLoaded if it cannot load.

    `again` is the command that compiles the other engine for this machine, the remedy where this one is too new for it.
    """
    bindings: Any = need("llama_cpp_py_sync._cffi_bindings", extra="listwise-prebuilt", again=again)
    try:
        libraries = (bindings.get_lib(), bindings.get_backend_lib(), bindings.get_backend_base_lib())
        return CffiLibrary(bindings.get_ffi(), *libraries)
    except (OSError, RuntimeError) as err:  # for example a Linux whose glibc is older than that of the wheel
        reason = f"llama_cpp_py_sync does not load on this system ({first_line(err)}): {again}"
        raise load_failure(err, "llama_cpp_py_sync", again) or LibraryNotLoaded(reason) from err


class CffiLibrary:
    """The functions, types and constants of llama.h as attributes, made when they are first used."""

    def __init__(self, ffi: Any, *libraries: Any) -> None:
        """`ffi` has the declarations, `libraries` are the cffi libraries that hold the functions."""
        self._ffi = ffi
        self._libraries = libraries  # keeps the shared libraries loaded
        self._structs: dict[str, Any] = {}
        self._conversions: dict[str, Callable[[Any], Any]] = {  # cffi's kind of type -> ctypes type
            "void": lambda kind: None,
            "primitive": lambda kind: _PRIMITIVES[kind.cname],
            "enum": lambda kind: ctypes.c_int if min(kind.elements, default=0) < 0 else ctypes.c_uint,
            "array": lambda kind: self._ctypes(kind.item) * kind.length,
            "function": lambda kind: ctypes.CFUNCTYPE(self._ctypes(kind.result), *map(self._ctypes, kind.args)),
            "struct": self._struct,
            "pointer": lambda kind: self._pointer(kind.item),
        }

    def __getattr__(self, name: str) -> Any:
        """The function, type or constant called `name`. Raises AttributeError if llama.h has none."""
        values = (getattr(library, name, None) for library in self._libraries)
        value = next((value for value in values if value is not None), None)  # an enum constant is an int
        if value is None:
            value = self._type(name)
        elif not isinstance(value, int):
            address = int(self._ffi.cast("uintptr_t", value))
            value = self._ctypes(self._ffi.typeof(value))(address)
        setattr(self, name, value)
        return value

    def llama_supports_gpu_offload(self) -> bool:
        """True if a GPU is present. The function of llama.h also counts the RPC backend, which needs none."""
        gpus = (self.GGML_BACKEND_DEVICE_TYPE_GPU, self.GGML_BACKEND_DEVICE_TYPE_IGPU)
        devices = map(self.ggml_backend_dev_get, range(self.ggml_backend_dev_count()))
        return any(self.ggml_backend_dev_type(device) in gpus for device in devices)

    def _type(self, name: str) -> Any:
        """The ctypes type of the typedef or struct `name`. Raises AttributeError if llama.h has none."""
        cffi = need("cffi", extra="listwise-prebuilt")
        for declaration in (_RENAMED.get(name, name), f"struct {name}"):
            try:
                return self._ctypes(self._ffi.typeof(declaration))
            except (cffi.CDefError, cffi.FFIError):
                continue
        raise AttributeError(f"llama.h of llama-cpp-py-sync has no {name}: install another version of the package")

    def _ctypes(self, kind: Any) -> Any:
        """The ctypes type of the cffi type `kind`; None for void."""
        if kind.kind not in self._conversions:
            raise TypeError(f"llama.h has a {kind.kind} ({kind.cname}), which this dearlite cannot call")
        return self._conversions[kind.kind](kind)

    def _pointer(self, item: Any) -> Any:
        if item.kind in ("void", "struct", "union"):  # also accepts ctypes.byref of a struct
            return ctypes.c_void_p
        return ctypes.c_char_p if item.cname == "char" else ctypes.POINTER(self._ctypes(item))

    def _struct(self, kind: Any) -> Any:
        """The ctypes Structure of `kind`. Raises TypeError if ctypes lays it out in another size."""
        struct: Any = self._structs.get(kind.cname)
        if struct is None:
            struct = self._structs[kind.cname] = type(kind.cname.removeprefix("struct "), (ctypes.Structure,), {})
            struct._fields_ = [(name, self._ctypes(field.type)) for name, field in kind.fields]
            if ctypes.sizeof(struct) != self._ffi.sizeof(kind):
                raise TypeError(
                    f"{kind.cname} has {ctypes.sizeof(struct)} bytes here instead of {self._ffi.sizeof(kind)}"
                )
        return struct
