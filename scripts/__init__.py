"""Programs run by hand from the repository's root: `python -m scripts.train_nano`."""
