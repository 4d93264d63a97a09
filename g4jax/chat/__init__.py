"""The conversation: messages to token ids, token ids to messages. Nothing here imports jax."""
