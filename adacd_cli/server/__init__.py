"""An OpenAI-compatible server: HTTP requests become decoding requests, their events become responses.

One thread owns the model and decodes all requests side by side (`worker`); the event loop speaks HTTP
(`app`). Nothing here reads the command line.
"""
