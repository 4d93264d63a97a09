"""Hidden sizes of the released models."""

HIDDEN_SIZES = {"E2B": 1536, "E4B": 2560, "26B-A4B": 2816, "31B": 5376}
