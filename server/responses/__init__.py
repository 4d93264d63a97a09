"""OpenAI's Responses API as a chat: its requests, its answers, and the conversations it remembers."""
