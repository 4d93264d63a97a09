"""How the bundled checkpoint `nano` is made: synthetic tasks, tokenizer, shape, training, export, score."""
