"""What is wrong with a checkpoint."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded; the message names the file or the tensor, and the remedy."""
