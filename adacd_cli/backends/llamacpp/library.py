"""llama.cpp's C API (llama.h) through ctypes, over the shared library that an installed package brings.

On Linux and macOS that is the library of `xllamacpp`, on Windows that of `llama-cpp-py-sync`; the environment
variable LLAMA_CPP_LIB names another build. The API passes structs by value, so what the library gives as its
defaults is compared with what llama.h says before any of it is used.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_bool, c_char_p, c_float, c_int8, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from adacd_cli.errors import MissingExtraError

INSTALL = "pip install 'adacd[gguf]'"

_VARIABLE = "LLAMA_CPP_LIB"
_FILES = {
    "xllamacpp": ("xllamacpp*.so",),
    "llama_cpp_py_sync": ("libllama.so", "libllama.dylib", "llama.dll"),
}
_ERROR, _CONTINUED = 4, 5


class ModelParams(ctypes.Structure):
    """`llama_model_params`, with room for fields that a later version appends."""

    _fields_ = [
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
        ("later", c_int8 * 250),
    ]


class ContextParams(ctypes.Structure):
    """`llama_context_params`, with room for fields that a later version appends."""

    _fields_ = [
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("moe_cache_size", c_size_t),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
        ("later", c_int8 * 256),
    ]


class Batch(ctypes.Structure):
    """`llama_batch`."""

    _fields_ = [
        ("n_tokens", c_int32),
        ("token", c_void_p),
        ("embd", c_void_p),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", c_void_p),
    ]


_DEFAULTS: dict[type[ctypes.Structure], dict[str, Any]] = {
    ModelParams: {"split_mode": 1, "main_gpu": 0, "vocab_only": False, "use_extra_bufts": True},
    ContextParams: {
        "n_ctx": 512,
        "n_batch": 2048,
        "n_ubatch": 512,
        "n_seq_max": 1,
        "rope_scaling_type": -1,
        "pooling_type": -1,
        "attention_type": -1,
        "flash_attn_type": -1,
        "yarn_orig_ctx": 0,
        "type_k": 1,
        "type_v": 1,
        "offload_kqv": True,
        "no_perf": True,
        "op_offload": True,
        "swa_full": True,
        "kv_unified": False,
        "n_samplers": 0,
    },
}
"""What llama.h says of the defaults: were a field added in between, some of them would not be found."""

_TYPES: dict[str, Any] = {
    "p": c_void_p,
    "s": c_char_p,
    "i": c_int32,
    "l": c_int64,
    "z": c_size_t,
    "u": c_uint32,
    "b": c_bool,
    "M": ModelParams,
    "C": ContextParams,
    "B": Batch,
    "-": None,
}
_FUNCTIONS = {  # result and arguments
    "llama_version": "s",
    "llama_backend_init": "-",
    "llama_log_set": "-pp",
    "llama_supports_gpu_offload": "b",
    "llama_model_default_params": "M",
    "llama_context_default_params": "C",
    "llama_model_load_from_file": "psM",
    "llama_model_free": "-p",
    "llama_model_get_vocab": "pp",
    "llama_model_n_ctx_train": "ip",
    "llama_model_meta_val_str": "ipspz",
    "llama_model_meta_count": "ip",
    "llama_model_meta_key_by_index": "ipipz",
    "llama_model_ftype": "ip",
    "llama_ftype_name": "si",
    "llama_model_size": "zp",
    "llama_model_chat_template": "sps",
    "llama_model_has_encoder": "bp",
    "llama_model_has_decoder": "bp",
    "llama_model_is_recurrent": "bp",
    "llama_model_is_hybrid": "bp",
    "llama_model_is_diffusion": "bp",
    "llama_vocab_n_tokens": "ip",
    "llama_vocab_get_text": "spi",
    "llama_vocab_get_attr": "ipi",
    "llama_vocab_is_eog": "bpi",
    "llama_vocab_bos": "ip",
    "llama_vocab_eos": "ip",
    "llama_vocab_pad": "ip",
    "llama_token_to_piece": "ipipiib",
    "llama_tokenize": "ipsipibb",
    "llama_detokenize": "ippipibb",
    "llama_init_from_model": "ppC",
    "llama_free": "-p",
    "llama_get_memory": "pp",
    "llama_memory_seq_rm": "bpiii",
    "llama_memory_seq_cp": "-piiii",
    "llama_state_get_size": "zp",
    "llama_state_get_data": "zppz",
    "llama_state_set_data": "zppz",
    "llama_state_seq_get_size": "zpi",
    "llama_decode": "ipB",
    "llama_get_logits": "pp",
    "llama_batch_get_one": "Bpi",
    "llama_sampler_init_greedy": "p",
    "llama_sampler_sample": "ippi",
    "llama_sampler_free": "-p",
}


class Library:
    """The loaded library; its functions are attributes under their own names. OSError where it cannot be loaded on
    this system; AttributeError where it lacks a function, or its structs are not those of llama.h."""

    def __init__(self, path: Path) -> None:
        if sys.platform == "win32":
            os.add_dll_directory(str(path.parent))
        own = ctypes.CDLL(str(path))
        for name, types in _FUNCTIONS.items():
            function = getattr(own, name)
            function.restype, *function.argtypes = (_TYPES[each] for each in types)
            setattr(self, name, function)
        self._errors: list[str] = []
        self._log = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)(self._note)
        self.llama_log_set(self._log, None)
        for struct, function in (
            (ModelParams, self.llama_model_default_params),
            (ContextParams, self.llama_context_default_params),
        ):
            found = function()
            different = [name for name, value in _DEFAULTS[struct].items() if getattr(found, name) != value]
            if different:
                raise AttributeError(f"its {struct.__name__}.{different[0]} is not where llama.h has it")
        self.llama_backend_init()
        self.version = str(self.llama_version().decode())

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"it has no {name}")

    def _note(self, level: int, text: bytes, _: object) -> None:
        if level == _ERROR:
            self._errors.append(text.decode("utf-8", "replace"))
        elif level == _CONTINUED and self._errors:
            self._errors[-1] += text.decode("utf-8", "replace")

    @contextmanager
    def errors(self) -> Iterator[list[str]]:
        """What it reports as errors meanwhile, a line each."""
        found: list[str] = []
        self._errors = found
        try:
            yield found
        finally:
            self._errors = []


def find() -> Path | None:
    """Where the shared library is; None where none is installed."""
    own = os.environ.get(_VARIABLE)
    if own:
        return Path(own)
    for package, patterns in _FILES.items():
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for pattern in patterns:
                if found := sorted(Path(folder).glob(pattern)):
                    return found[0]
    return None


@cache
def library() -> Library:
    """The library, loaded once. MissingExtraError where none is installed, or not one that fits."""
    path = find()
    if path is None:
        raise MissingExtraError("The llama.cpp engine is not installed.", INSTALL)
    try:
        return Library(path)
    except (OSError, AttributeError) as error:
        raise MissingExtraError(
            f"The llama.cpp library {path.name} cannot be used: {str(error).rstrip('.')}.", INSTALL
        ) from error


def available() -> bool:
    """Whether a GGUF file can run on llama.cpp here."""
    if find() is None:
        return False
    try:
        library()
    except MissingExtraError:
        return False
    return True
