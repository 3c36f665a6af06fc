"""Random damage, seeded: a GriffinError that names the folder, or the very same model."""

import random

import pytest

from griffin_lm.checkpoints import load_model
from griffin_lm.errors import GriffinError
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
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_to_our_files_it_is_found(
    kind: str, seed: int, good: Good, saved: dict[str, dict[str, bytes]]
) -> None:
    """100 damaged checkpoints each: a GriffinError, or the very same model."""
    rng = random.Random(seed)
    reference = tensors(random_model())
    names = [name for name in sorted(saved[kind]) if name != "README.md"]
    refusals = 0
    for _ in range(100):
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
    assert refusals > 80


@pytest.mark.parametrize("kind", ["huggingface", "huggingface in shards"])
def test_damage_to_other_files_never_ends_in_another_error(
    kind: str, good: Good, saved: dict[str, dict[str, bytes]]
) -> None:
    """Their tensors have no checksums: what loads has the right names and shapes, at least."""
    rng = random.Random(11)
    names = [name for name in sorted(saved[kind]) if name != "README.md"]
    for _ in range(200):
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
    for at in rng.sample(range(end), 400):
        bit = 1 << rng.randrange(8)
        data[at] ^= bit
        (folder / WEIGHTS).write_bytes(data)
        data[at] ^= bit
        try:
            assert_same_tensors(tensors(load_model(folder)), reference)
        except GriffinError as error:
            assert WEIGHTS in str(error)
