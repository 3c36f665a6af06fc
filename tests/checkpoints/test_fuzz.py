"""Random damage, seeded: a GriffinError that names the folder, or the very same model.

The wide net is `griffin bench reliability` (tests/bench); these are quick and know the format.
"""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_lm.checkpoints import load_model, read_config
from griffin_lm.checkpoints.tensors import TensorFile
from griffin_lm.errors import GriffinError
from griffin_lm.models import ModelConfig
from tests.checkpoints.helpers import WEIGHTS, Good, assert_same_tensors, random_model, tensors


def damage(data: bytes, rng: random.Random) -> bytes:
    """One to three changed, added, lost or swapped stretches of bytes."""
    raw = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(max(len(raw), 1))
        kind = rng.randrange(5)
        if kind == 0 and raw:
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and raw:
            raw[at] = rng.randrange(256)
        elif kind == 2:
            raw[at:at] = rng.randbytes(rng.randint(1, 9))
        elif kind == 3:
            del raw[at : at + rng.randint(1, 50)]
        else:
            del raw[at:]
    return bytes(raw)


@pytest.mark.parametrize("kind", ["griffin", "griffin in shards"])
@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_to_our_files_it_is_found(
    kind: str, seed: int, good: Good, saved: dict[str, dict[str, bytes]]
) -> None:
    """50 damaged checkpoints each: a GriffinError, or the very same model."""
    rng = random.Random(seed)
    reference = tensors(random_model())
    names = [name for name in sorted(saved[kind]) if name != "README.md"]
    refusals = 0
    for _ in range(50):
        folder = good(kind)
        name = rng.choice(names)
        data = saved[kind][name]
        # half of the damage at the front, where headers are
        front = rng.choice([len(data), min(len(data), 600)])
        (folder / name).write_bytes(damage(data[:front], rng) + data[front:])
        try:
            loaded = load_model(folder)
        except GriffinError as error:
            refusals += 1
            assert str(folder) in str(error)
        else:
            assert_same_tensors(tensors(loaded), reference)
            assert loaded.config == random_model().config
    assert refusals > 35


@pytest.mark.parametrize("kind", ["huggingface", "huggingface in shards"])
def test_damage_to_other_files_never_ends_in_another_error(
    kind: str, good: Good, saved: dict[str, dict[str, bytes]]
) -> None:
    """Their tensors have no checksums: what loads has the right names and shapes, at least."""
    rng = random.Random(11)
    names = [name for name in sorted(saved[kind]) if name != "README.md"]
    for _ in range(60):
        folder = good(kind)
        name = rng.choice(names)
        data = saved[kind][name]
        front = rng.choice([len(data), min(len(data), 600)])
        (folder / name).write_bytes(damage(data[:front], rng) + data[front:])
        try:
            loaded = load_model(folder)
        except GriffinError as error:
            assert str(folder) in str(error)
        else:
            assert not any(p.is_meta for p in loaded.parameters())


def test_every_bit_of_our_header_counts(good: Good, saved: dict[str, dict[str, bytes]]) -> None:
    """Each byte of the header flipped in turn (one bit): refused, or the same model."""
    folder = good("griffin")
    data = bytearray(saved["griffin"][WEIGHTS])
    end = 8 + int.from_bytes(data[:8], "little")
    reference = tensors(random_model())
    rng = random.Random(3)
    for at in rng.sample(range(end), 150):
        bit = 1 << rng.randrange(8)
        data[at] ^= bit
        (folder / WEIGHTS).write_bytes(data)
        data[at] ^= bit
        try:
            assert_same_tensors(tensors(load_model(folder)), reference)
        except GriffinError as error:
            assert WEIGHTS in str(error)


# ---- whatever hypothesis thinks of

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["griffin-lm", "recurrent_gemma", "rg_lru", "local_attention", "recurrent"]),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", ["griffin", "huggingface"])
@given(data=st.data())
@settings(max_examples=80)
def test_any_value_in_any_setting_is_refused_or_makes_a_config(
    kind: str, data: st.DataObject, saved: dict[str, dict[str, bytes]], tmp_path_factory: Any
) -> None:
    config = json.loads(saved[kind]["config.json"])
    settings_ = config["model"] if kind == "griffin" else config
    for name in data.draw(st.lists(st.sampled_from(sorted(settings_)), min_size=1, max_size=3)):
        settings_[name] = data.draw(_VALUES)
    folder = tmp_path_factory.mktemp("config")
    (folder / "config.json").write_text(json.dumps(config))
    try:
        read = read_config(folder)
    except GriffinError as error:
        assert str(folder) in str(error)
    else:
        assert ModelConfig.from_dict(read.to_dict()) == read


@given(data=st.data())
@settings(max_examples=80)
def test_any_header_is_refused_or_describes_what_lies_in_the_file(
    data: st.DataObject, saved: dict[str, dict[str, bytes]], tmp_path_factory: Any
) -> None:
    raw = saved["huggingface"][WEIGHTS]
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    for name in data.draw(st.lists(st.sampled_from(sorted(header)), min_size=1, max_size=3)):
        row = header[name]
        keys = st.sampled_from(sorted(row)) if isinstance(row, dict) and row else st.nothing()
        if data.draw(st.booleans()) or keys.is_empty:
            header[name] = data.draw(_VALUES)
        else:
            row[data.draw(keys)] = data.draw(_VALUES)
    text = json.dumps(header).encode()
    file = tmp_path_factory.mktemp("header") / WEIGHTS
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    try:
        opened = TensorFile(file)
    except GriffinError as error:
        assert str(file) in str(error)
    else:
        for name in opened.entries:
            assert tuple(opened.get(name).shape) == opened.entries[name].shape


@pytest.mark.parametrize(
    "name",
    ["config.json", WEIGHTS, "model.safetensors.index.json", "2b.pt", "checkpoint/manifest.ocdbt"],
)
@given(content=st.binary(max_size=300))
@settings(max_examples=40)
def test_any_bytes_are_refused_whatever_they_are_called(
    name: str, content: bytes, saved: dict[str, dict[str, bytes]], tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    if name.startswith("model"):
        (folder / "config.json").write_bytes(saved["huggingface"]["config.json"])
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    with pytest.raises(GriffinError) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
