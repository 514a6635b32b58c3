"""An OpenAI-compatible server: HTTP requests become decoding requests, their events become responses. One thread
owns the model and decodes all requests side by side (`worker`); an event loop speaks HTTP (`app`)."""
