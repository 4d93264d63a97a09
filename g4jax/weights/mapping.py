"""Which tensors of a checkpoint make which parameter, as a table.

Inside a layer the checkpoint has q_proj, k_proj and v_proj, gate_proj and up_proj; here each group is one matrix whose
rows lie device by device: [q_0 k_0 v_0 q_1 k_1 v_1 ...].
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterator

from g4jax.config import LayerSpec, TextConfig
from g4jax.weights.abstract import ParamSpec

Units = tuple[tuple[int, int], ...]
"""Per source, how many units (heads, say) its rows consist of and how many rows each has. 0 units: no such tensor."""


def _heads(config: TextConfig, spec: LayerSpec) -> Units:
    own = spec.num_kv_heads if spec.owns_kv else 0
    heads = (config.num_attention_heads, own, 0 if spec.k_eq_v else own)
    return tuple((count, spec.head_dim) for count in heads)


def _ffn(config: TextConfig, spec: LayerSpec) -> Units:
    return ((spec.intermediate_size, 1),) * 2


Row = tuple[str, tuple[str, ...], Callable[[TextConfig, LayerSpec], Units] | None]

TABLE: tuple[Row, ...] = (
    # parameter, tensors of the checkpoint, and, where these are fused, what their rows consist of; first match counts
    (
        r"(layers\.\d+\.self_attn\.)qkv_proj\.weight",
        (r"\1q_proj.weight", r"\1k_proj.weight", r"\1v_proj.weight"),
        _heads,
    ),
    (r"(layers\.\d+\.mlp\.)gate_up_proj\.weight", (r"\1gate_proj.weight", r"\1up_proj.weight"), _ffn),
    (r"(layers\.\d+\.)(?:per_layer|sparse)\.(.*)", (r"\1\2",), None),
    (r"per_layer_inputs\.embed_tokens_per_layer", (r"embed_tokens_per_layer.weight",), None),
    (r"per_layer_inputs\.(.*)", (r"\1",), None),
    (r"(.*)", (r"\1",), None),
)

PREFIXES = ("model.language_model.", "language_model.model.", "model.", "")
"""What stands before the names of the text decoder: the releases (the unified 12B too), exports of the text alone."""

ENCODER_PREFIXES = ("model.", "")
"""What stands before the names of the encoders."""

UNUSED = r"self_attn\.(k_proj|v_proj|k_norm)\.weight"
"""Some releases keep these in KV-shared layers too, where nothing reads them."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """Rows `start`..`stop` of a tensor of the checkpoint."""

    name: str
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A parameter as segments, one below the other. `shapes` are those of the tensors that they are cut from.

    `units` are the units of each tensor where several are fused, and empty where there is but one.
    """

    segments: tuple[Segment, ...]
    shapes: dict[str, tuple[int, ...]]
    units: Units = ()

    def pieces(self, rows: slice) -> Iterator[Segment]:
        """What makes these rows of the parameter."""
        first = 0
        begin, end, _ = rows.indices(sum(segment.stop - segment.start for segment in self.segments))
        for segment in self.segments:
            start, stop = (min(max(row - first + segment.start, segment.start), segment.stop) for row in (begin, end))
            if start < stop:
                yield Segment(segment.name, start, stop)
            first += segment.stop - segment.start


def recipe(param: ParamSpec, config: TextConfig, tp: int) -> Recipe:
    """How `param` of the model on `tp` devices is made. Names are without the prefix."""
    pattern, sources, units_of = next(row for row in TABLE if re.fullmatch(row[0], param.path))
    names = [re.sub(pattern, source, param.path, count=1) for source in sources]
    if units_of is None:
        return Recipe((Segment(names[0], 0, param.shape[0]),), {names[0]: param.shape})
    units = units_of(config, config.layers[int(param.path.split(".")[1])])
    present = [(name, count, size) for name, (count, size) in zip(names, units, strict=True) if count]
    return Recipe(
        segments=tuple(_segment(*source, device, tp) for device in range(tp) for source in present),
        shapes={name: (count * size, *param.shape[1:]) for name, count, size in present},
        units=tuple((count, size) for _, count, size in present),
    )


def encoder_recipe(param: ParamSpec) -> Recipe:
    """Encoders have the checkpoint's names and shapes."""
    rows = param.shape[0] if param.shape else 1
    return Recipe((Segment(param.path, 0, rows),), {param.path: param.shape})


def _segment(name: str, count: int, size: int, device: int, tp: int) -> Segment:
    """A device's share; with fewer units than devices, neighbours hold the same one."""
    first = device * count // tp
    return Segment(name, first * size, (first + max(count // tp, 1)) * size)


def find_prefix(names: Collection[str]) -> str | None:
    """The prefix of the text decoder in a checkpoint with these tensors; None: there is no text decoder in it."""
    return next((prefix for prefix in PREFIXES if f"{prefix}embed_tokens.weight" in names), None)


def find_encoder_prefix(names: Collection[str]) -> str:
    """The prefix of the encoders in a checkpoint with these tensors."""
    first = re.compile(r"(vision_tower|vision_embedder|embed_vision|audio_tower|embed_audio)\.")
    return next(
        (p for p in ENCODER_PREFIXES if any(first.match(name[len(p) :]) and name.startswith(p) for name in names)), ""
    )


def unknown_names(names: Collection[str], config: TextConfig) -> list[str]:
    """Those of the tensors below the prefix, `names`, that belong to the layers of some other model."""
    layers = re.compile(r"layers\.(\d+)\.(.*)")
    return [name for name in names if (match := layers.fullmatch(name)) and not _is_unused(config, *match.groups())]


def _is_unused(config: TextConfig, layer: str, rest: str) -> bool:
    shared = int(layer) < config.num_layers and not config.layers[int(layer)].owns_kv
    return shared and re.fullmatch(UNUSED, rest) is not None
