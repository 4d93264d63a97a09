"""OpenAI's audio API: speech to text, one answer of the model for each piece of at most half a minute."""
