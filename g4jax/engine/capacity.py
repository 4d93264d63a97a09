"""How large everything may be: pages, batches, buckets. Decided once, from the memory that is there."""

import dataclasses

from g4jax.cache.pages import page_bytes
from g4jax.config import TextConfig
from g4jax.engine.batch import Early, Shapes
from g4jax.engine.encoder_batch import LONGEST_INPUT
from g4jax.engine.options import EngineOptions, InvalidOption

GIB = 2**30
CPU_CACHE_BYTES = GIB // 4
MIXED_TOKENS = (256, 512, 768, 1024, 1280, 1536)
"""Prompt tokens of a launch in which a decode batch takes part: with a hundred requests under way most prompts go so,
and what a launch has beyond its prompts is time lost to all of them."""
PACKED = 16
"""Tokens of a launch come in multiples of so many: rows that the vendor's products need not pad."""
ROWS = 8
"""Large decode batches are multiples of it: the gated product of many rows by bulk copies takes no others."""
EARLY_LAYERS = 6
"""A fifth of 26B-A4B, whose 610 tokens take 20 ms on an H200; the host launches the other layers in 1.4."""
DEFAULT_CONTEXT = 32768
TYPICAL_LENGTH = 2048
"""Tokens of an ordinary conversation: it sets how the memory is shared between the sliding and the full pool."""


@dataclasses.dataclass(frozen=True)
class Capacity:
    """Page counts include page 0, which is nobody's."""

    shapes: Shapes
    sliding_pages: int
    full_pages: int
    max_batch: int
    max_model_len: int


@dataclasses.dataclass(frozen=True)
class Device:
    """What the sizes are planned for: `memory_bytes` of one device, or None for a CPU."""

    memory_bytes: int | None

    @property
    def is_cpu(self) -> bool:
        return self.memory_bytes is None


def plan_capacity(
    config: TextConfig,
    options: EngineOptions,
    device: Device,
    *,
    weight_bytes: int,
    itemsize: int,
    tp: int,
    with_encoders: bool = False,
) -> Capacity:
    """Sizes for `weight_bytes` of weights and `itemsize`-byte cache entries per device.

    Raises:
        InvalidOption: the weights leave no room for one sequence, or the length asked for is beyond the model.
    """
    max_batch = options.max_batch or (16 if device.is_cpu else 256)
    max_model_len = _context(config, options)
    shapes = _shapes(config, options, device, max_batch, max_model_len)
    if with_encoders:
        shapes = dataclasses.replace(shapes, soft_slots=_soft_slots(shapes), pad_id=config.pad_token_id)
    beside = weight_bytes + shapes.soft_slots * config.hidden_size * itemsize
    budget = _cache_budget(config, options, device, beside, max_batch)
    sliding, full = _pages(config, options, shapes, budget, max_batch, max_model_len, itemsize, tp)
    return Capacity(shapes, sliding + 1, full + 1, max_batch, min(max_model_len, full * options.page_size))


def _context(config: TextConfig, options: EngineOptions) -> int:
    if options.max_model_len is None:
        return min(config.max_position_embeddings, DEFAULT_CONTEXT)
    if options.max_model_len > config.max_position_embeddings:
        raise InvalidOption(
            "max_model_len", f"is {options.max_model_len}, the model was made for {config.max_position_embeddings}"
        )
    return options.max_model_len


def _shapes(config: TextConfig, options: EngineOptions, device: Device, max_batch: int, max_model_len: int) -> Shapes:
    prefill = (32, 128) if device.is_cpu else (64, 256, 512, 640, 768, 1280)
    decode = (1, 4) if device.is_cpu else (1, 8, 16, 32, 64, 104, 128)  # 104: a hundred are often served at once
    rich = (1,) if device.is_cpu else (1, 8, 64, 104)
    most_rows = max_batch if device.is_cpu or max_batch < ROWS else -(-max_batch // ROWS) * ROWS
    longest = -(-max_model_len // PACKED) * PACKED
    most = min(options.max_prefill_tokens or (512 if device.is_cpu else 2048), longest)
    prefill_tokens = _ladder(prefill, most)
    return Shapes(
        prefill_tokens=prefill_tokens,
        score_tokens=max((size for size in prefill_tokens if size <= 512), default=most),
        prefill_rows=min(max_batch, 8 if device.is_cpu else 32),
        decode_rows=_ladder(decode, most_rows),
        rich_rows=_ladder(rich, most_rows),
        table_width=-(-max_model_len // options.page_size),
        page_size=options.page_size,
        decode_steps=options.decode_steps,
        early=early_layers(config),
        # To read the weights once for two launches gains nothing where arithmetic takes the time.
        mixed_tokens=() if device.is_cpu else _ladder(MIXED_TOKENS, most),
    )


def early_layers(config: TextConfig) -> Early:
    """As many layers as EARLY_LAYERS of whose keys no later layer reads, and which compute all tokens of a prompt."""
    read = [spec.kv_source for spec in config.layers if not spec.owns_kv]
    layers = min(EARLY_LAYERS, config.first_shared - 1, *read)
    return Early(layers, config.hidden_size, config.num_layers * config.hidden_size_per_layer_input)


def _soft_slots(shapes: Shapes) -> int:
    """Enough for any one prefill step, each row of which may begin inside an input; more is kept for later ones."""
    return shapes.prefill_tokens[-1] + (shapes.prefill_rows + 1) * LONGEST_INPUT


def _ladder(sizes: tuple[int, ...], most: int) -> tuple[int, ...]:
    return (*(size for size in sizes if size < most), most)


def _cache_budget(config: TextConfig, options: EngineOptions, device: Device, weight_bytes: int, max_batch: int) -> int:
    if device.memory_bytes is None:
        return CPU_CACHE_BYTES
    # Logits, what drawing makes of them, and what was said: [B, V] of four bytes, some seven at a time.
    temporaries = GIB + 7 * 4 * max_batch * config.vocab_size
    budget = int(device.memory_bytes * options.mem_fraction) - weight_bytes
    if device.memory_bytes - weight_bytes - budget < temporaries:
        budget = device.memory_bytes - weight_bytes - temporaries
    if budget <= 0:
        raise InvalidOption(
            "mem_fraction",
            f"{options.mem_fraction} of {device.memory_bytes / GIB:.1f} GiB leaves nothing for the cache beside "
            f"{weight_bytes / GIB:.1f} GiB of weights; use more devices (--mesh tp=2) or a smaller --max-batch",
        )
    return budget


def _pages(
    config: TextConfig,
    options: EngineOptions,
    shapes: Shapes,
    budget: int,
    max_batch: int,
    max_model_len: int,
    itemsize: int,
    tp: int,
) -> tuple[int, int]:
    """Pages of the sliding and the full pool: as many typical sequences as fit, at least one of the longest."""
    size = options.page_size
    sliding_bytes, full_bytes = (
        page_bytes(config, sliding=sliding, page_size=size, itemsize=itemsize, tp=tp) for sliding in (True, False)
    )
    # One launch is under way while the next is planned.
    ahead = 2 * max(shapes.prefill_tokens[-1], shapes.decode_steps)
    window_pages = -(-(config.sliding_window + 2 * shapes.decode_steps) // size) + 1
    piece_pages = -(-ahead // size) + 1
    typical_pages = -(-min(TYPICAL_LENGTH, max_model_len) // size)
    budget -= piece_pages * sliding_bytes
    sequences = budget // (window_pages * sliding_bytes + typical_pages * full_bytes)
    if sequences < 1:
        raise InvalidOption("mem_fraction", "not one sequence fits into the memory that the weights leave")
    # More than a few full batches serve no prefix, and a small model should not fill a machine.
    most = 4 * max_batch * -(-max_model_len // size)
    return (
        min(int(sequences) * window_pages + piece_pages, most + piece_pages),
        min(int(sequences) * typical_pages, most),
    )
