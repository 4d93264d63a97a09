"""What is wrong with a grammar, told to the client."""


class GrammarError(ValueError):
    """A grammar or schema that cannot be followed. The message is short, and says what to change."""
