"""States: rows picked, joined and written; files that are whole, and refused where they are not."""

import json
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

import griffin_lm as griffin
from griffin_lm.errors import GriffinError, InputError, StateError
from tests.parity import record_parity


@pytest.fixture(scope="module")
def model():
    return griffin.build("tiny-griffin", seed=3).requires_grad_(False)


def text(length, rows=1, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 96, (rows, length), generator=random)


def after(model, length, rows=1, seed=0):
    return model(text(length, rows, seed))[1]


def tensors(state):
    rows = [state.read, state.position, state.due]
    return [t for layer in state.layers for t in layer] + rows


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def test_rows_can_be_picked_by_index_slice_list_and_mask(model):
    state = after(model, 12, rows=4)
    assert state[2].batch_size == 1 and state[-1].batch_size == 1
    assert equal(state[1:3], state[[1, 2]])
    assert equal(state[torch.tensor([False, True, True, False])], state[1:3])
    assert equal(state[[3, 3]][0], state[3])
    for rows in (4, [0, 9], torch.tensor([True])):
        with pytest.raises(InputError, match="no such rows"):
            state[rows]


def test_a_picked_row_is_a_copy(model):
    state = after(model, 12, rows=2)
    copy = state.clone()
    state[0].layers[0].h.zero_()
    assert equal(state, copy)


def test_states_of_different_lengths_are_joined_and_go_on_as_they_were(model):
    one, other = after(model, 5), after(model, 20, seed=1)
    both = griffin.State.concat([one, other])
    assert both.tokens.tolist() == [5, 20]
    tokens = text(7, 2, seed=2)
    joint, _ = model(tokens, state=both)
    torch.testing.assert_close(joint[:1], model(tokens[:1], state=one)[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(joint[1:], model(tokens[1:], state=other)[0], rtol=0, atol=1e-5)


def test_put_writes_rows_in_place(model):
    slots, one = after(model, 9, rows=3), after(model, 21, seed=4)
    kept = slots.clone()
    slots.put([1], one)
    assert equal(slots[1], one) and equal(slots[[0, 2]], kept[[0, 2]])
    with pytest.raises(StateError, match="2 rows named, 1 given"):
        slots.put([0, 1], one)


def test_pending_tokens_survive_join_and_put(model):
    plain, waiting = after(model, 9), after(model, 9, seed=1).with_pending([5])
    both = griffin.State.concat([plain, waiting])
    assert both.pending.tolist() == [-1, 5] and both.tokens.tolist() == [9, 10]
    assert plain.pending is None
    assert plain.clone().put(0, waiting).pending.tolist() == [5]
    assert both.put(1, plain).pending.tolist() == [-1, -1]
    with pytest.raises(StateError, match="pending already"):
        waiting.with_pending([6])


def test_the_state_of_2b_has_its_published_size_from_the_first_token_on():
    model = griffin.build("recurrentgemma-2b", device="meta", dtype=torch.bfloat16)
    size = model.empty_state(1).nbytes
    rings, h, conv = 8 * 2 * 2048 * 256 * 2, 18 * 2560 * 4, 18 * 3 * 2560 * 2
    assert rings + h + conv <= size <= rings + h + conv + 64
    assert size < 17.3e6


def test_nbytes_does_not_grow_with_what_was_read(model):
    assert model.empty_state(1).nbytes == after(model, 100).nbytes


def test_states_of_different_models_do_not_mix(model):
    other = griffin.build("tiny-griffin", seed=4)
    with pytest.raises(StateError, match="another model"):
        model(text(3), state=other.empty_state(1))
    with pytest.raises(StateError, match="different models"):
        griffin.State.concat([model.empty_state(1), other.empty_state(1)])


def test_a_state_of_the_same_weights_is_accepted_by_a_second_copy_of_the_model(model):
    twin = griffin.build("tiny-griffin", seed=3).requires_grad_(False)
    state = after(model, 9)
    assert torch.equal(twin(text(4), state=state)[0], model(text(4), state=state)[0])


def test_a_changed_weight_changes_the_fingerprint():
    model = griffin.build("tiny-griffin", seed=3)
    before = model.origin.model()
    with torch.no_grad():
        model.final_norm.scale.add_(1)
    assert model.origin.model() != before


def test_gradients_flow_through_a_state_and_stop_at_detach(model):
    grown = griffin.build("tiny-griffin", seed=3)
    _, state = grown(text(5))
    assert all(t.requires_grad for t in state.layers[0])
    assert not any(t.requires_grad for t in state.detach().layers[0])


# ---- files


@pytest.fixture
def path(tmp_path):
    return tmp_path / "talk.state"


def test_a_saved_state_is_loaded_to_the_bit(model, path):
    for state in (
        after(model, 30, rows=3),
        after(model, 4).with_pending([7]),
        model.empty_state(2),
    ):
        state.save(path)
        loaded = griffin.State.load(path, model)
        assert equal(loaded, state)
        assert loaded.tokens.tolist() == state.tokens.tolist()


def test_saved_then_loaded_in_a_new_process_it_continues_as_if_uninterrupted(model, path):
    whole, _ = model(text(40))
    after_first = model(text(40)[:, :25])[1]
    after_first.save(path)
    code = (
        "import sys, torch, griffin_lm as g\n"
        "m = g.build('tiny-griffin', seed=3)\n"
        "s = g.State.load(sys.argv[1], m)\n"
        "t = torch.tensor([[int(x) for x in sys.argv[2].split()]])\n"
        "torch.save(m(t, state=s)[0].detach(), sys.argv[3])\n"
    )
    rest = " ".join(str(int(token)) for token in text(40)[0, 25:])
    out = path.with_suffix(".pt")
    subprocess.run([sys.executable, "-c", code, str(path), rest, str(out)], check=True)
    continued = torch.load(out, weights_only=True)
    error = float((continued - whole[:, 25:]).abs().max())
    record_parity("itself | tiny-griffin | saved, loaded in a new process = on and on", error, 1e-5)


def test_its_header_names_version_model_and_tokens(model, path):
    after(model, 30).save(path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["griffin"])
    assert header["version"] == 1 and header["tokens"] == [30]
    assert header["model"] == model.origin.model()


def test_another_models_state_is_refused(model, path):
    other = griffin.build("tiny-griffin", seed=5)
    other.empty_state(1).save(path)
    with pytest.raises(StateError, match="another model"):
        griffin.State.load(path, model)


def test_another_tokenizers_state_is_refused(path):
    one, two = (griffin.build("tiny-griffin", seed=3) for _ in range(2))
    one.origin.tokenizer, two.origin.tokenizer = "a", "b"
    one.empty_state(1).save(path)
    with pytest.raises(StateError, match="another tokenizer"):
        griffin.State.load(path, two)


def test_another_dtype_is_refused_with_what_to_do(path):
    wide = griffin.build("tiny-griffin", seed=3)
    wide.empty_state(1).save(path)
    narrow = griffin.build("tiny-griffin", seed=3)
    fingerprint = narrow.origin.model()
    narrow.to(torch.bfloat16).origin.set_model(fingerprint)
    with pytest.raises(StateError, match="dtype that it had"):
        griffin.State.load(path, narrow)


@pytest.mark.parametrize("kept", (0, 3, 8, 100, 0.5, 0.999))
def test_a_truncated_file_is_refused(model, path, kept):
    after(model, 9).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.raises(StateError, match=path.name):
        griffin.State.load(path, model)


def test_missing_files_folders_and_other_safetensors_are_refused(model, path, tmp_path):
    for place in (path, tmp_path):
        with pytest.raises(StateError):
            griffin.State.load(place, model)
    save_file({"x": torch.zeros(3)}, path)
    with pytest.raises(StateError, match="no state file"):
        griffin.State.load(path, model)


@pytest.fixture(scope="module")
def good(model, tmp_path_factory):
    place = tmp_path_factory.mktemp("states") / "good.state"
    after(model, 9, rows=2).save(place)
    return place


@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_any_flipped_byte_is_noticed_or_harmless(model, good, tmp_path_factory, at, flip):
    data = bytearray(good.read_bytes())
    data[int(at * len(data))] ^= flip
    broken = good.with_name("broken.state")
    broken.write_bytes(data)
    try:
        loaded = griffin.State.load(broken, model)
    except GriffinError:
        return
    assert equal(loaded, griffin.State.load(good, model))


def test_a_disk_that_fills_leaves_the_old_state_in_place(model, path, monkeypatch):
    state = after(model, 9)
    state.save(path)
    old = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match="No space left"):
        after(model, 30).save(path)
    assert path.read_bytes() == old
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_model_made_under_inference_mode_makes_and_continues_states(path):
    with torch.inference_mode():
        model = griffin.build("tiny-griffin", seed=3)
        _, state = model(text(5))
        state.save(path)
        assert equal(griffin.State.load(path, model), state)


def test_a_view_of_neighbouring_rows_moves_on_in_place(model) -> None:
    pool, whole = model.empty_state(4), after(model, 11, rows=2)
    _, on = model(text(11, 2), state=pool.narrow(1, 3), donate=True)
    pool.put(slice(1, 3), on)
    assert equal(pool[[1, 2]], whole)
    assert pool.tokens.tolist() == [0, 11, 11, 0]
    _, on = model(text(1, 2), state=pool.narrow(1, 3), donate=True)
    ring = next(i for i, layer in enumerate(pool.layers) if hasattr(layer, "k"))
    assert on.layers[ring].k.data_ptr() == pool.layers[ring].k[1].data_ptr()
    pool.put(slice(1, 3), on)
    assert equal(pool[[1, 2]], model(text(1, 2), state=whole)[1])
    pool.put(slice(0, 1), pool.narrow(2, 3))
    assert equal(pool[0], pool[2])
    with pytest.raises(InputError):
        pool.narrow(2, 5)
