"""llama.cpp in this process: a GGUF file runs as it is, quantised and memory-mapped.

`library` is its C API, `model` a loaded file, `tokenizer` the file's own tokenizer and chat template, and
`backend.LlamaCppBackend` computes with it."""
