"""Anthropic's Messages API as a chat: its requests, answers and errors."""
