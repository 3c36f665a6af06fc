"""Models whose state grows: capacity, rows of unequal capacity, files, forks, generation."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import griffin_lm as griffin
from griffin_lm.errors import StateError
from griffin_lm.mixers.global_attention import GlobalAttentionMixer
from tests.models.test_model_call import flags, same, same_state, slow_and_plain, text

PER_TOKEN = 3 * 2 * 2 * 8 * 4  # tiny-llama: layers, key and value, key heads, head width, fp32


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """Steps of 4 slots, so that short texts cross many of them."""
    monkeypatch.setattr(GlobalAttentionMixer, "cache_step", 4)


@pytest.fixture(scope="module")
def model():
    return griffin.build("tiny-llama", seed=3).requires_grad_(False)


@pytest.fixture(scope="module")
def exact_model():
    return griffin.build("tiny-llama", seed=3, dtype=torch.float64).requires_grad_(False)


def after(model, length, rows=1, seed=0):
    return model(text(length, rows, seed))[1]


def slots(state):
    (capacity,) = {tensor.shape[1] for layer in state.layers for tensor in layer}
    return capacity


def rows_bytes(rows):
    return rows * (8 + 8 + 1)  # read, position, due


@given(
    sizes=st.lists(st.integers(0, 11), min_size=1, max_size=8),
    seed=st.integers(0, 99),
    donate=st.booleans(),
)
def test_any_chunking_with_gaps_and_starts_equals_documents_read_alone(
    exact_model, sizes, seed, donate
):
    length = sum(sizes)
    if not length:
        return
    tokens = text(length, 2, seed)
    starts, valid = flags(2, length, 0.12, seed), flags(2, length, 0.7, seed + 1)
    exact = slow_and_plain(exact_model, tokens, starts, valid)
    state, begin, outs = None, 0, []
    for size in sizes:
        part = slice(begin, begin + size)
        out, state = exact_model(
            tokens[:, part], starts[:, part], valid[:, part], state, donate=donate
        )
        outs.append(out)
        begin += size
    logits = torch.cat(outs, 1)
    assert logits.isfinite().all()
    check = "any chunks, gaps and starts = each document alone, token by token (float64)"
    same(check, exact_model, logits[valid], exact[valid], tolerance=1e-12)
    _, once = exact_model(tokens, starts, valid)
    same_state(state, once, rtol=0, atol=1e-12)


def test_nothing_read_takes_nothing_and_every_step_its_bytes(model):
    assert model.empty_state(2).nbytes == rows_bytes(2)
    assert model.empty_state(2).bytes_per_token == PER_TOKEN
    for read, expected in ((1, 4), (4, 4), (5, 8), (13, 16)):
        state = after(model, read, rows=2)
        assert slots(state) == expected
        assert state.nbytes == rows_bytes(2) + 2 * expected * PER_TOKEN


def test_models_of_fixed_size_say_so():
    for name in ("tiny-griffin", "tiny-hawk"):
        model = griffin.build(name)
        assert model.empty_state(1).bytes_per_token == 0
        assert sum(m.bytes_per_token(torch.float32) for m in model.config.pattern) == 0


def test_settings_and_state_agree_about_the_bytes_of_a_token():
    for name in ("tiny-llama", "tiny-gemma", "tiny-mqa"):
        config = griffin.PRESETS[name]
        said = sum(config.mixer(i).bytes_per_token(torch.float32) for i in range(config.layers))
        assert griffin.build(name).empty_state(1).bytes_per_token == said


def test_a_published_model_takes_its_published_bytes_a_token():
    for name, expected in (("gemma-2b", 18_432), ("llama-3-8b", 131_072)):
        model = griffin.build(name, device="meta", dtype=torch.bfloat16)
        assert model.empty_state(1).bytes_per_token == expected


def test_rows_of_a_new_document_begin_again_in_the_same_slots(model):
    state = None
    for seed in range(6):
        starts = torch.zeros(1, 9, dtype=torch.bool)
        starts[0, 0] = True
        _, state = model(text(9, seed=seed), starts, state=state)
    assert state.tokens.tolist() == [54] and slots(state) == 12
    same_state(state[0].compact(), after_document(model, seed=5, read=54))


def after_document(model, seed, read):
    state = after(model, 9, seed=seed)
    state.read.fill_(read)
    return state


def test_states_of_unequal_capacity_are_joined_and_go_on_as_they_were(model):
    parts = [after(model, 3), model.empty_state(2), after(model, 21, seed=1)]
    both = griffin.State.concat(parts)
    assert slots(both) == 24 and both.tokens.tolist() == [3, 0, 0, 21]
    assert [slots(part) for part in parts] == [4, 0, 24]
    tokens = text(7, 4, seed=2)
    joint, _ = model(tokens, state=both)
    begin = 0
    for part in parts:
        rows = slice(begin, begin + part.batch_size)
        alone, _ = model(tokens[rows], state=part)
        same("states of unequal capacity, joined = alone", model, joint[rows], alone)
        same_state(both[rows], part, rtol=0, atol=0)
        begin += part.batch_size


@pytest.mark.parametrize("mine, theirs", ((5, 30), (30, 5), (9, 0), (0, 9)))
def test_put_takes_rows_of_more_and_of_less_capacity(model, mine, theirs):
    target = after(model, mine, rows=3) if mine else model.empty_state(3)
    other = after(model, theirs, seed=4) if theirs else model.empty_state(1)
    kept = target.clone()
    assert target.put([1], other) is target
    same_state(target[1], other, rtol=0, atol=0)
    same_state(target[[0, 2]], kept[[0, 2]], rtol=0, atol=0)
    tokens = text(6, 3, seed=8)
    joint, _ = model(tokens, state=target)
    same("put of another capacity = alone", model, joint[1:2], model(tokens[1:2], state=other)[0])
    same("put beside it = alone", model, joint[:1], model(tokens[:1], state=kept[0])[0])


def test_a_short_row_picked_from_a_long_batch_is_cut_by_compact(model):
    state = griffin.State.concat([after(model, 3), after(model, 40, seed=1)])
    short = state[0]
    assert slots(short) == 40 and slots(short.compact()) == 3
    tokens = text(5, seed=6)
    exact, _ = model(tokens, state=after(model, 3))
    for picked in (short, short.compact()):
        same("a picked row = alone", model, model(tokens, state=picked)[0], exact)


def test_compact_is_a_copy_without_leftovers(model):
    state = after(model, 10)
    starts = torch.zeros(1, 2, dtype=torch.bool)
    starts[0, 0] = True
    _, state = model(text(2, seed=1), starts, state=state, donate=True)
    assert state.layers[0].k[:, 2:].any()  # donated: what was forgotten may still lie there
    compact = state.compact()
    assert slots(compact) == 2
    compact.layers[0].k.zero_()
    assert state.layers[0].k[:, :2].any()
    fixed = griffin.build("tiny-griffin", seed=3)
    one = fixed(text(9))[1]
    same_state(one.compact(), one, rtol=0, atol=0)


def test_clone_detach_and_to_keep_what_was_read(model):
    state = after(model, 10, rows=2)
    tokens = text(3, 2, seed=9)
    exact, _ = model(tokens, state=state)
    for copy in (state.clone(), state.detach(), state.to("cpu"), state[:]):
        assert torch.equal(model(tokens, state=copy)[0], exact)


def test_a_donated_step_with_room_reuses_the_memory(model):
    state = after(model, 5)
    place = state.layers[0].k.data_ptr()
    for t in range(6, 9):
        _, state = model(text(1, seed=t), state=state, donate=True)
        assert (state.layers[0].k.data_ptr() == place) and slots(state) == 8
    _, grown = model(text(1), state=state, donate=True)
    assert slots(grown) == 12


def test_the_device_is_asked_for_lengths_only_when_a_bound_passes_the_room(model, monkeypatch):
    asked = []

    def ask(ends):
        asked.append(ends)
        return int(ends.max())

    monkeypatch.setattr("griffin_lm.models.growth.longest", ask)
    state = after(model, 5)
    for _ in range(40):
        _, state = model(text(1), state=state, donate=True)
    assert 10 <= len(asked) <= 12


def test_padding_does_not_make_a_cache_grow(model):
    state = after(model, 5, rows=2)
    valid = torch.zeros(2, 3, dtype=torch.bool)
    valid[0, 1] = True
    for _ in range(3):
        _, state = model(text(3, 2), valid=valid, state=state)
    assert state.tokens.tolist() == [8, 5] and slots(state) == 8


# ---- files


@pytest.fixture
def path(tmp_path):
    return tmp_path / "talk.state"


def test_a_saved_state_holds_what_was_read_and_loads_to_the_bit(model, path):
    rows = griffin.State.concat([after(model, 30), after(model, 2, seed=1), model.empty_state(1)])
    for state in (rows, rows.with_pending([7, -1, 3]), model.empty_state(2), after(model, 4)):
        state.save(path)
        loaded = griffin.State.load(path, model)
        same_state(loaded, state, rtol=0, atol=0)
        assert slots(loaded) == int(state.position.max())
        tokens = text(5, state.batch_size, seed=3)
        mine, exact = (model(tokens, state=one)[0] for one in (loaded, state))
        same("saved and loaded = on and on", model, mine, exact)
    after(model, 30).save(path)
    assert path.stat().st_size < 30 * PER_TOKEN + 4000


def rewritten(path, change):
    """The file with its tensors changed and its checksums made to fit."""
    from griffin_lm.models.state_file import _crc32

    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["griffin"])
    tensors = load_file(path)
    change(tensors)
    header["crc32"] = {name: _crc32(tensor) for name, tensor in tensors.items()}
    save_file(tensors, path, metadata={"griffin": json.dumps(header)})


@pytest.mark.parametrize(
    "change, message",
    (
        (lambda t: t["position"].fill_(31), "stands at position 31, its layers hold 30"),
        (
            lambda t: t.update({"layers.1.k": t["layers.1.k"][:, :29].contiguous()}),
            "different numbers of tokens",
        ),
        (
            lambda t: t.update({"layers.1.k": t["layers.1.k"][..., :4].contiguous()}),
            "as loaded wants",
        ),
        (lambda t: t.update({"layers.1.k": t["layers.1.k"][:, 0].contiguous()}), "wants"),
        (
            lambda t: t.update(
                {
                    "layers.1.k": t["layers.1.k"][:, 0, 0, 0].clone(
                        memory_format=torch.contiguous_format
                    )
                }
            ),
            "wants",
        ),
    ),
)
def test_a_file_whose_cache_does_not_fit_its_counts_is_refused(model, path, change, message):
    after(model, 30).save(path)
    rewritten(path, change)
    with pytest.raises(StateError, match=message):
        griffin.State.load(path, model)
