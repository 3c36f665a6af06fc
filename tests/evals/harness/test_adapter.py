"""lm-eval's questions to our models: ids, BOS, scores, answers, turns."""

from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval", reason="needs the extra `eval`")

from lm_eval.api.instance import Instance

from griffin_lm.errors import InputError
from griffin_lm.evals.harness.adapter import GriffinLM
from griffin_lm.evals.harness.asked_for import options_of, turns_of
from griffin_lm.inference import LanguageModel
from griffin_lm.models import PRESETS, build
from griffin_lm.text.chat import FLEDGLING
from tests.inference.vocabulary import SENTENCES, vocabulary


@pytest.fixture(params=[False, True], ids=["plain", "dummy prefix"])
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    """Random weights in float64; the vocabulary puts a space before a text, or does not."""
    tokenizer = vocabulary(request.param)
    config = replace(PRESETS["tiny-griffin"], vocab=tokenizer.vocab_size)
    return LanguageModel(build(config, seed=2, dtype=torch.float64), tokenizer)


def asked(kind: Any, *arguments: Any) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


@pytest.fixture
def fed(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What every row was fed, in the order of the calls: valid ids only."""
    rows: list[list[int]] = []
    plain = lm.model.forward

    def noted(tokens: torch.Tensor, *rest: Any, valid: Any = None, **options: Any) -> Any:
        kept = torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid
        rows.extend(row[mask].tolist() for row, mask in zip(tokens, kept, strict=True))
        return plain(tokens, *rest, valid=valid, **options)

    monkeypatch.setattr(lm.model, "forward", noted)
    return rows


@torch.no_grad()
def logprob_of(lm: LanguageModel, ids: list[int], begin: int) -> float:
    """The definition: of ids from `begin` on, in one call."""
    logits, _ = lm.model(torch.tensor([ids[:-1]]))
    assert logits is not None
    each = logits[0].log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    return float(each[begin - 1 :].sum())


def test_bos_stands_in_front_exactly_once(lm: LanguageModel, fed: list[list[int]]):
    bos, model = lm.tokenizer.bos_id, GriffinLM(lm)
    assert bos is not None
    piece = lm.tokenizer.piece(bos)
    assert (
        model.tok_encode("the wind")
        == model.tok_encode(f"{piece}the wind")
        == lm.encode("the wind")
    )
    assert bos not in model.tok_encode("the wind", add_special_tokens=False)
    for text in ("The wind", f"{piece}The wind"):
        for request, run in (
            (asked("loglikelihood", text, " rose"), model.loglikelihood),
            (asked("loglikelihood", "", "The wind rose"), model.loglikelihood),
            (asked("loglikelihood_rolling", "The wind rose"), model.loglikelihood_rolling),
            (asked("generate_until", text, {"max_gen_toks": 2}), model.generate_until),
        ):
            fed.clear()
            run([request], disable_tqdm=True)
            every = [token for row in fed for token in row]
            assert every[0] == bos and every.count(bos) == 1, request


def test_a_continuation_s_likelihood_is_that_of_the_whole_text_s_ids(lm: LanguageModel):
    requests = [
        asked("loglikelihood", context, " " + end)
        for context in (SENTENCES[0][:20], SENTENCES[1][:31], "She")
        for end in ("house", "house and night", "x")
    ]
    requests.append(asked("loglikelihood", "", SENTENCES[2]))
    found = GriffinLM(lm, batch_size=2).loglikelihood(requests, disable_tqdm=True)
    for request, (logprob, greedy) in zip(requests, found, strict=True):
        context, end = request.args
        ids = lm.encode(context + end)
        begin = len(lm.encode(context))
        assert logprob == pytest.approx(logprob_of(lm, ids, begin), rel=1e-5)
        assert greedy is False


def test_a_rolling_likelihood_is_one_long_reading(lm: LanguageModel):
    texts = [SENTENCES[0], " ".join(SENTENCES), "She"]
    requests = [asked("loglikelihood_rolling", text) for text in texts]
    found = GriffinLM(lm).loglikelihood_rolling(requests, disable_tqdm=True)
    wanted = [logprob_of(lm, lm.encode(text), 1) for text in texts]
    assert found == pytest.approx(wanted, rel=1e-5)


def test_answers_are_those_of_generate_up_to_the_stop(lm: LanguageModel):
    prompts = [SENTENCES[0], "She said", SENTENCES[1][:9]]
    plain = [lm.generate(prompt, max_new_tokens=10).text for prompt in prompts]
    stop = plain[1][4:6]
    requests = [asked("generate_until", p, {"until": [stop], "max_gen_toks": 10}) for p in prompts]
    requests.append(asked("generate_until", prompts[0], {"max_gen_toks": 3}))
    requests.append(asked("generate_until", prompts[2], {"until": []}))
    told: list[tuple[str, int, int]] = []
    model = GriffinLM(lm, max_gen_toks=5, progress=lambda *at: told.append(at))
    found = model.generate_until(requests, disable_tqdm=True)
    assert found[:3] == [text.partition(stop)[0] for text in plain]
    assert found[3] == lm.generate(prompts[0], max_new_tokens=3).text
    assert found[4] == lm.generate(prompts[2], max_new_tokens=5).text
    assert told[-1] == ("generate", 5, 5)


def test_sampled_repeats_differ_and_come_out_again(lm: LanguageModel):
    sampled = {"do_sample": True, "temperature": 1.0, "max_gen_toks": 12}
    requests = [asked("generate_until", "She", sampled) for _ in range(3)]
    one, two = (GriffinLM(lm).generate_until(requests, disable_tqdm=True) for _ in range(2))
    assert one == two and len(set(one)) == 3


def test_a_chat_template_s_markers_are_ids_and_stand_once(lm: LanguageModel):
    model = GriffinLM(lm)
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "Here."},
        {"role": "user", "content": "When?"},
    ]
    text = model.apply_chat_template(history)
    assert text == "<user>Be brief.\n\nWhere?<model>Here.<end><user>When?<model>"
    ids = model.tok_encode(text)
    assert ids.count(lm.tokenizer.special_id("<user>")) == 2
    assert ids[-1] == lm.tokenizer.special_id("<model>")
    ended = model.apply_chat_template(history[:3], add_generation_prompt=False)
    assert ended.endswith("<model>Here.")
    assert model.chat_template(True) == FLEDGLING.jinja() and model.tokenizer_name
    plain = GriffinLM(lm)  # no template was asked for: a stranger's text makes no markers
    assert lm.tokenizer.special_id("<user>") not in plain.tok_encode("<user>Where?")
    with pytest.raises(InputError, match="role 'tool'"):
        turns_of([{"role": "tool", "content": ""}])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {"max_new_tokens": 7, "temperature": 0.0, "stop": []}),
        (
            {"until": "\n", "max_new_tokens": 3, "do_sample": False, "temperature": 0.7},
            {"max_new_tokens": 3, "temperature": 0.0, "stop": ["\n"]},
        ),
        (
            {"until": ["", "a"], "temperature": 0.5, "top_p": 0.9, "num_beams": 1},
            {"max_new_tokens": 7, "temperature": 0.5, "top_p": 0.9, "stop": ["a"]},
        ),
        ({"do_sample": True}, {"max_new_tokens": 7, "temperature": 1.0, "stop": []}),
    ],
)
def test_a_task_s_options_in_our_words(given: dict[str, Any], wanted: dict[str, Any]):
    assert options_of(given, 7) == wanted


def test_an_option_that_would_be_ignored_is_refused():
    with pytest.raises(InputError, match=r"num_beams=4, which there is not; known: until"):
        options_of({"num_beams": 4}, 7)
