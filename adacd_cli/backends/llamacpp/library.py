"""llama.cpp's C API (llama.h) through ctypes, over the shared library that an installed package brings.

On Linux and macOS that is the library of `xllamacpp`, on Windows that of `llama-cpp-py-sync`; the environment
variable LLAMA_CPP_LIB names another build. The API passes structs by value, so what the library gives as its
defaults is compared with what llama.h says before any of it is used."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_bool, c_char_p, c_float, c_int8, c_int32, c_size_t, c_uint32, c_void_p
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


def _fields(*same: tuple[Any, str]) -> list[tuple[str, Any]]:
    return [(name, kind) for kind, names in same for name in names.split()]


class ModelParams(ctypes.Structure):
    """`llama_model_params`, with room for fields that a later version appends."""

    _fields_ = _fields(
        (c_void_p, "devices tensor_buft_overrides"),
        (c_int32, "n_gpu_layers split_mode load_mode lazy_mode main_gpu"),
        (c_void_p, "tensor_split progress_callback progress_callback_user_data kv_overrides"),
        (c_bool, "vocab_only check_tensors use_extra_bufts no_host no_alloc load_mtp"),
        (c_int8 * 250, "later"),
    )


class ContextParams(ctypes.Structure):
    """`llama_context_params`, with room for fields that a later version appends."""

    _fields_ = _fields(
        (c_uint32, "n_ctx n_batch n_ubatch n_seq_max n_rs_seq n_outputs_max n_outputs_max_per_seq"),
        (c_int32, "n_threads n_threads_batch ctx_type"),
        (c_int32, "rope_scaling_type pooling_type attention_type flash_attn_type"),
        (c_float, "rope_freq_base rope_freq_scale"),
        (c_float, "yarn_ext_factor yarn_attn_factor yarn_beta_fast yarn_beta_slow"),
        (c_uint32, "yarn_orig_ctx"),
        (c_float, "defrag_thold"),
        (c_void_p, "cb_eval cb_eval_user_data"),
        (c_int32, "type_k type_v"),
        (c_size_t, "moe_cache_size"),
        (c_void_p, "abort_callback abort_callback_data"),
        (c_bool, "embeddings offload_kqv no_perf op_offload swa_full kv_unified"),
        (c_void_p, "samplers"),
        (c_size_t, "n_samplers"),
        (c_void_p, "ctx_other"),
        (c_int8 * 256, "later"),
    )


class Batch(ctypes.Structure):
    """`llama_batch`."""

    _fields_ = _fields((c_int32, "n_tokens"), (c_void_p, "token embd pos n_seq_id seq_id logits"))


# what llama.h says of the defaults: were a field added in between, some of them would not be found
_DEFAULTS: dict[type[ctypes.Structure], dict[str, Any]] = {
    ModelParams: {"split_mode": 1, "main_gpu": 0, "vocab_only": False, "use_extra_bufts": True},
    ContextParams: {
        **dict(n_ctx=512, n_batch=2048, n_ubatch=512, n_seq_max=1, yarn_orig_ctx=0, n_samplers=0),
        **dict(rope_scaling_type=-1, pooling_type=-1, attention_type=-1, flash_attn_type=-1),
        **dict(type_k=1, type_v=1, offload_kqv=True, no_perf=True, op_offload=True, swa_full=True),
        **dict(kv_unified=False),
    },
}
_TYPES: dict[str, Any] = {
    **dict(p=c_void_p, s=c_char_p, i=c_int32, z=c_size_t, u=c_uint32, b=c_bool),
    **{"M": ModelParams, "C": ContextParams, "B": Batch, "-": None},
}
_FUNCTIONS = {  # by their result and arguments, without the llama_ that their names begin with
    "s": "version",
    "-": "backend_init",
    "-pp": "log_set",
    "M": "model_default_params",
    "C": "context_default_params",
    "psM": "model_load_from_file",
    "-p": "model_free free sampler_free",
    "pp": "model_get_vocab get_memory get_logits",
    "ip": "model_n_ctx_train model_ftype vocab_n_tokens vocab_bos vocab_eos vocab_pad",
    "ipspz": "model_meta_val_str",
    "si": "ftype_name",
    "zp": "model_size state_get_size",
    "sps": "model_chat_template",
    "bp": "model_has_encoder model_has_decoder model_is_recurrent model_is_hybrid model_is_diffusion",
    "spi": "vocab_get_text",
    "ipi": "vocab_get_attr",
    "bpi": "vocab_is_eog",
    "ipipiib": "token_to_piece",
    "ipsipibb": "tokenize",
    "ippipibb": "detokenize",
    "ppC": "init_from_model",
    "bpiii": "memory_seq_rm",
    "-piiii": "memory_seq_cp",
    "zppz": "state_get_data state_set_data",
    "zpi": "state_seq_get_size",
    "ipB": "decode",
    "Bpi": "batch_get_one",
    "p": "sampler_init_greedy",
    "ippi": "sampler_sample",
}


class Library:
    """The loaded library; its functions are attributes under their own names. OSError where it cannot be loaded on
    this system; AttributeError where it lacks a function, or its structs are not those of llama.h."""

    def __init__(self, path: Path) -> None:
        if sys.platform == "win32":
            os.add_dll_directory(str(path.parent))
        own = ctypes.CDLL(str(path))
        for types, names in _FUNCTIONS.items():
            for name in names.split():
                function = getattr(own, f"llama_{name}")
                function.restype, *function.argtypes = (_TYPES[each] for each in types)
                setattr(self, f"llama_{name}", function)
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
        what = f"The llama.cpp library {path.name} cannot be used: {str(error).rstrip('.')}."
        raise MissingExtraError(what, INSTALL) from error


def available() -> bool:
    """Whether a GGUF file can run on llama.cpp here."""
    try:
        library()
    except MissingExtraError:
        return False
    return True
