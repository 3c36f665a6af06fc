"""What the transformers installed here computes wrongly for RecurrentGemma, and by how much.

python examples/transformers_bugs.py

Tiny random weights in float32, nothing is downloaded. The truth is transformers' own forward pass
of a single row, on a fresh model and without a cache: that is right (docs/results/parity.md has it
beside DeepMind's). Its window counts one key fewer than DeepMind's, so the first case asks it with
one more; the others stay within the window. Each case prints the largest error of a logit (beam
search: of a sequence's log-probability) of transformers and of griffin-lm on the same weights.
"""

import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor

import griffin_lm as griffin
from griffin_lm.checkpoints import load_model

WINDOW, VOCAB, RIGHT = 32, 128, 1e-4
PLAIN: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
LOGITS: dict[str, Any] = {**PLAIN, "return_dict_in_generate": True, "output_logits": True}
Answers = tuple[Tensor, Tensor, Tensor]  # theirs, ours, the right one


def theirs(window: int = WINDOW) -> Any:
    """A fresh transformers model; the same weights every time."""
    config = transformers.RecurrentGemmaConfig(
        vocab_size=VOCAB, hidden_size=64, num_hidden_layers=6, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=384, lru_width=64, attention_window_size=window,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.RecurrentGemmaForCausalLM(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if "recurrent_param" not in name:
            weight.normal_(0, 0.1)
    return model


@cache
def ours() -> griffin.Griffin:
    """The same weights, read from what transformers saves."""
    with tempfile.TemporaryDirectory() as folder:
        theirs().save_pretrained(folder)
        return load_model(folder).requires_grad_(False)


def truth(tokens: Tensor, window: int = WINDOW) -> Tensor:
    """Logits (T, V) of one row by itself."""
    return theirs(window)(tokens[None], use_cache=False).logits[0]


def row(length: int, seed: int = 1) -> Tensor:
    """Random tokens (T,)."""
    return torch.randint(3, VOCAB, (length,), generator=torch.Generator().manual_seed(seed))


def window() -> Answers:
    x = row(WINDOW + 8)
    right = truth(x, WINDOW + 1)
    return truth(x), ours()(x[None])[0][0], right


def left_padding() -> Answers:
    short, long = row(5), row(12, seed=2)
    tokens = torch.stack([torch.cat([torch.zeros(7, dtype=torch.int64), short]), long])
    mask = torch.ones(2, 12, dtype=torch.int64)
    mask[0, :7] = 0
    out = theirs().generate(tokens, attention_mask=mask, max_new_tokens=1, **LOGITS)
    logits, _ = ours()(tokens, valid=mask.bool(), logits="last")
    return out.logits[0][0], logits[0], truth(short)[-1]


def packed_documents() -> Answers:
    first, second = row(6), row(8, seed=2)
    tokens = torch.cat([first, second])[None]
    positions = torch.cat([torch.arange(6), torch.arange(8)])[None]
    found = theirs()(tokens, position_ids=positions, use_cache=False).logits[0, 6:]
    logits, _ = ours()(tokens, starts=positions == 0)
    return found, logits[0, 6:], truth(second)


def chunked_prefill() -> Answers:
    x, model = row(14), theirs()
    kept = transformers.DynamicCache(config=model.config)
    model(x[None, :8], use_cache=True, past_key_values=kept)
    found = model(x[None, 8:], use_cache=True, past_key_values=kept).logits[0]
    _, state = ours()(x[None, :8], logits=None)
    return found, ours()(x[None, 8:], state=state)[0][0], truth(x)[8:]


def second_turn() -> Answers:
    model, more = theirs(), row(4, seed=3)
    one = model.generate(row(6)[None], max_new_tokens=5, **LOGITS)
    x = torch.cat([one.sequences[0], more])
    two = model.generate(x[None], past_key_values=one.past_key_values, max_new_tokens=1, **LOGITS)
    # what was read and what was generated, but for its last token, as their cache has it
    _, state = ours()(x[None, :10], logits=None)
    logits, _ = ours()(x[None, 10:], state=state, logits="last")
    return two.logits[0][0], logits[0], truth(x)[-1]


def two_conversations() -> Answers:
    a, b, model = row(9), row(9, seed=2), theirs()
    kept_a, kept_b = (transformers.DynamicCache(config=model.config) for _ in range(2))
    for x, kept in ((a, kept_a), (b, kept_b)):
        model(x[None, :8], use_cache=True, past_key_values=kept)
    found = model(a[None, 8:], use_cache=True, past_key_values=kept_a).logits[0, -1]
    states = [ours()(x[None, :8], logits=None)[1] for x in (a, b)]
    logits, _ = ours()(a[None, 8:], state=states[0], logits="last")
    return found, logits[0], truth(a)[-1]


def one_token_prompt() -> Answers:
    model, begin = theirs(), torch.tensor([2])
    model.generate(row(10)[None], max_new_tokens=4, **PLAIN)
    out = model.generate(begin[None], max_new_tokens=1, **LOGITS)
    ours()(row(10)[None])
    return out.logits[0][0], ours()(begin[None])[0][0, -1], truth(begin)[-1]


def beam_search(beams: int = 4, steps: int = 12) -> Answers:
    x = row(6)
    out = theirs().generate(
        x[None], num_beams=beams, max_new_tokens=steps, length_penalty=0.0, output_scores=True,
        return_dict_in_generate=True, **PLAIN,
    )  # fmt: skip
    logits, state = ours()(x[None], logits="last")
    scores, tokens = logits[0].log_softmax(-1).topk(beams)
    state, found = state[[0] * beams], torch.cat([x.expand(beams, -1), tokens[:, None]], dim=1)
    for _ in range(steps - 1):
        logits, state = ours()(tokens[:, None], state=state, logits="last")
        scores, best = (scores[:, None] + logits.log_softmax(-1)).flatten().topk(beams)
        rows, tokens = best // VOCAB, best % VOCAB
        state, found = state[rows], torch.cat([found[rows], tokens[:, None]], dim=1)

    def too_high(score: Tensor, whole: Tensor) -> Tensor:
        logprobs = truth(whole[:-1])[len(x) - 1 :].log_softmax(-1)
        return score - logprobs.gather(1, whole[len(x) :, None]).sum()

    theirs_off = too_high(out.sequences_scores[0], out.sequences[0])
    return theirs_off, too_high(scores[0], found[0]), torch.tensor(0.0)


CASES: dict[str, Callable[[], Answers]] = {
    "window: keys that a token sees": window,
    "left padding, in generate": left_padding,
    "packed documents, by position_ids": packed_documents,
    "a prompt in two chunks": chunked_prefill,
    "second turn, by past_key_values": second_turn,
    "two conversations, taking turns": two_conversations,
    "one-token prompt after another call": one_token_prompt,
    "beam search, its own score": beam_search,
}


def main() -> None:
    """The table."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    print(f"transformers {transformers.__version__}, griffin-lm {griffin.__version__}")
    print(f"{'case':<36} {'transformers':>12} {'griffin-lm':>12}  transformers is")
    wrong = 0
    for name, case in CASES.items():
        try:
            *found, right = case()
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            print(f"{name:<36} cannot be asked of this version: {str(error).splitlines()[0][:60]}")
            continue
        their_error, our_error = ((answer - right).abs().max().item() for answer in found)
        wrong += their_error > RIGHT
        verdict = "WRONG" if their_error > RIGHT else "right: this bug is absent here"
        verdict += "; griffin-lm is off too, please report this" * (our_error > RIGHT)
        print(f"{name:<36} {their_error:12.1e} {our_error:12.1e}  {verdict}")
    print(f"{wrong} of {len(CASES)} wrong in this transformers (off by more than {RIGHT:.0e})")


if __name__ == "__main__":
    main()
