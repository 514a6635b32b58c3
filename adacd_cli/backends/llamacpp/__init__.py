"""llama.cpp in this process: a GGUF file runs as it is, quantised and memory-mapped."""
