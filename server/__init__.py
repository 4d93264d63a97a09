"""g4jax's HTTP side: an OpenAI-compatible server in front of the engine process."""
