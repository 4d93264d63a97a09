"""What the engine is told before it starts."""

import re
from dataclasses import dataclass, fields
from typing import Literal, get_args

Dtype = Literal["auto", "bfloat16", "float32"]
LoadFormat = Literal["auto", "dummy"]

_MESH = re.compile(r"tp=[1-9][0-9]*")
_AT_LEAST = {"max_batch": 1, "max_model_len": 2, "max_prefill_tokens": 1, "decode_steps": 1, "page_size": 1}


class InvalidOption(ValueError):
    """An option that cannot be. `field` names it in EngineOptions, the text says what would be right."""

    def __init__(self, field: str, message: str):
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True)
class EngineOptions:
    """The settings of one engine.

    Attributes:
      model: a local folder in Hugging Face form.
      mesh: the devices, such as "tp=2" for two that share each layer.
      dtype: of weights and activations; "auto" is the checkpoint's own on an accelerator.
      load_format: "dummy" fills the weights at random, for speed measurements without a download.
      max_batch: sequences that decode together; None: 256 on an accelerator, 16 on a CPU.
      max_model_len: tokens of a sequence, prompt and answer; None is what the checkpoint and the memory allow.
      mem_fraction: share of the device memory that weights and cache may fill.
      max_prefill_tokens: prompt tokens of one prefill call, longer prompts are cut; None: 2048, on a CPU 512.
      decode_steps: tokens that a decode call makes for each sequence when nothing waits.
      page_size: tokens of a cache page.

    Raises:
      InvalidOption: names the field and the remedy.
    """

    model: str
    mesh: str = "tp=1"
    dtype: Dtype = "auto"
    load_format: LoadFormat = "auto"
    max_batch: int | None = None
    max_model_len: int | None = None
    mem_fraction: float = 0.85
    max_prefill_tokens: int | None = None
    decode_steps: int = 8
    page_size: int = 32

    def __post_init__(self):
        if not _MESH.fullmatch(self.mesh):
            raise InvalidOption("mesh", f"must be tp=N with N devices, for example tp=2, got {self.mesh!r}")
        _check_choice("dtype", self.dtype, get_args(Dtype))
        _check_choice("load_format", self.load_format, get_args(LoadFormat))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _AT_LEAST and value is not None and value < _AT_LEAST[field.name]:
                raise InvalidOption(field.name, f"must be at least {_AT_LEAST[field.name]}, got {value}")
        if not 0.0 < self.mem_fraction <= 1.0:
            raise InvalidOption("mem_fraction", f"must be above 0 and at most 1, got {self.mem_fraction}")


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidOption(field, f"must be one of {', '.join(choices)}, got {value!r}")
