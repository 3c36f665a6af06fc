"""params.json: what it says, and by how much `use_scaled_rope` scales, which it does not say."""

from ...errors import CheckpointMismatch, ConfigError
from ...mixers import GlobalAttention
from ...models import PRESETS, ModelConfig, resolve_config
from ...shapes import JSON
from ..format import Settings as Given
from ..huggingface.settings import building
from ..settings import overrule
from ..source import Source
from .shards import EMBEDDING, PARAMS, MetaWeights

_FIRST = "layers.0.feed_forward.w1.weight"
_HARMLESS = frozenset({"max_seq_len", "max_batch_size"})
_FACTORS = "config={'rope_factor': 8.0} (Llama 3.1) or {'rope_factor': 32.0} (Llama 3.2)"


def infer(source: Source, given: Given | None) -> ModelConfig:
    """The configuration of a folder of Meta's.

    given: a preset's name or a ModelConfig, which must agree with params.json; or a dict of
    settings to overrule, such as {"rope_factor": 8.0}. Raises CheckpointError subclasses naming
    file and field, ConfigError where it is open by how much frequencies are scaled.
    """
    assert isinstance(source, MetaWeights)
    plain, scaled, said = _read(source, given if isinstance(given, dict) else {})
    if given is not None and not isinstance(given, dict):
        config = resolve_config(given)
        _refuse_another(config, plain, scaled, source)
        return config
    wishes: JSON = dict(given or {})
    if not scaled:
        return overrule(plain, wishes)
    factor = wishes.pop("rope_factor", None) or said or _of_preset(plain)
    if factor is None:
        raise ConfigError(
            f"{source.params.path} has use_scaled_rope, and neither it nor a preset with these "
            f"shapes tells the factor: give {_FACTORS}, or the name of the preset that it is"
        )
    return overrule(overrule(plain, {"rope_factor": factor}), wishes)


def _read(source: MetaWeights, wishes: JSON) -> tuple[ModelConfig, bool, float | None]:
    """The config without scaling, whether frequencies are scaled, and by how much if it says so."""
    get = source.params
    layers, kv_heads = get.whole("n_layers", None), get.whole("n_kv_heads", source.heads)
    eps, scaled = get.real("norm_eps", None), get.flag("use_scaled_rope", False)
    base = get.real("rope_theta", 0.0) or wishes.get("rope_base")
    if base is None:
        raise ConfigError(
            f"{get.path} has no rope_theta: give config={{'rope_base': 500000.0}} (Llama 3) or "
            "10000.0 (Llama 2)"
        )
    factor = (
        None if get.get("rope_scaling_factor") is None else get.real("rope_scaling_factor", 0.0)
    )
    high = get.real("high_freq_factor", 4.0)
    rows, mlp_width = _shapes(source)
    get.refuse_unread(_HARMLESS)
    with building(get.path):
        attention = GlobalAttention(
            heads=source.heads,
            head_dim=source.width // source.heads,
            kv_heads=kv_heads,
            rope_base=float(base),
            rope_high=high if scaled else 4.0,
        )
        config = ModelConfig(
            vocab=rows,
            width=source.width,
            mlp_width=mlp_width,
            layers=layers,
            pattern=(attention,),
            norm_eps=eps,
            norm_weight="plain",
            mlp="swiglu",
            mlp_bias=False,
            tied=source.tied,
        )
    return config, scaled, factor


def _shapes(source: MetaWeights) -> tuple[int, int]:
    """Rows of the embedding and of an MLP's branch, once params.json agrees with them."""
    get = source.params
    for name in (EMBEDDING, _FIRST):
        if len(source.shapes.get(name, ())) != 2:
            raise CheckpointMismatch(
                f"{source.where}: {name} is missing or no matrix; these are no weights of Llama"
            )
    rows, mlp_width = source.shapes[EMBEDDING][0], source.shapes[_FIRST][0]
    if get.get("vocab_size") not in (None, -1, rows):
        raise get.refuse("vocab_size", f"{rows}, the rows of {EMBEDDING}")
    # of two thirds of 4 widths, and then a little more (llama3, llama/model.py, FeedForward)
    wanted = int(get.real("ffn_dim_multiplier", 1.0) * int(2 * (4 * source.width) / 3))
    multiple = get.whole("multiple_of", 256)
    wanted = multiple * (-(-wanted // multiple))
    if wanted != mlp_width:
        raise CheckpointMismatch(
            f"{get.path}: multiple_of and ffn_dim_multiplier make an MLP of {wanted}, and "
            f"{_FIRST} has {mlp_width} rows; they are not of one checkpoint: fetch it again"
        )
    return rows, mlp_width


def _unscaled(config: ModelConfig) -> ModelConfig:
    if not all(isinstance(mixer, GlobalAttention) for mixer in config.pattern):
        return config
    off = {"rope_factor": 1.0, "rope_low": 1.0, "rope_high": 4.0, "rope_context": 8192}
    return overrule(config, off)


def _of_preset(plain: ModelConfig) -> float | None:
    """The factor of the presets with these shapes, where they agree on one."""
    found = {
        overruled.rope_factor
        for config in PRESETS.values()
        for overruled in config.pattern[:1]
        if isinstance(overruled, GlobalAttention)
        and overruled.rope_factor != 1
        and _unscaled(config) == _unscaled(plain)
    }
    return found.pop() if len(found) == 1 else None


def _refuse_another(
    config: ModelConfig, plain: ModelConfig, scaled: bool, source: MetaWeights
) -> None:
    """Raises ConfigError where a config is not that of these weights."""
    mine, theirs = _unscaled(config).to_dict(), _unscaled(plain).to_dict()
    wrong = [f"{name} is {mine.get(name)!r:.200}, by {PARAMS} and the shapes {theirs.get(name)!r}"
             for name in sorted(mine.keys() | theirs.keys())
             if mine.get(name) != theirs.get(name)]  # fmt: skip
    scales = any(getattr(mixer, "rope_factor", 1.0) != 1 for mixer in config.pattern)
    if not wrong and scales != scaled:
        wrong = [
            f"use_scaled_rope is {scaled} in {PARAMS}, and it {'scales' if scales else 'does not'}"
        ]
    if wrong:
        raise ConfigError(f"config= is not that of {source.where}: {'; '.join(wrong)}")
