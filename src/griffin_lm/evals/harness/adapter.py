"""The model that lm-eval asks: `griffin`, with `pretrained=` anything that `griffin.load` takes.

Token ids are made here, by our tokenizer, and begin with BOS exactly once. A context is read once
however many answers there are to choose from; a long text is read whole, with the state carried on,
where other models must cut it at their longest context.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from tqdm import tqdm

from ...inference import LanguageModel, load
from ...text.chat import PLAIN
from ..likelihood import ROWS, Asked, score_after_contexts, score_texts
from .asked_for import options_of, turns_of

NAME = "griffin"
MAX_GEN_TOKS = 256  # where a task does not say, as in lm-eval's other models


class GriffinLM(TemplateLM):
    """See the file's head. Arguments of --model_args:

    pretrained    as `griffin.load`: fledgling, a path, an alias, a hub id; or a LanguageModel
    device, dtype, quantize, kernels, config, tokenizer, offline   as in `griffin.load`
    batch_size    contexts read side by side; "auto" is 32
    max_gen_toks  tokens of an answer where the task does not say
    progress      instead of tqdm's bars, called with (what, done, in all)
    """

    def __init__(
        self,
        pretrained: str | LanguageModel,
        device: str | None = "auto",
        dtype: str = "auto",
        quantize: str | None = None,
        kernels: str = "auto",
        config: Any = None,
        tokenizer: str | None = None,
        offline: bool | None = None,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        max_gen_toks: int = MAX_GEN_TOKS,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(pretrained, LanguageModel):
            self.lm = pretrained
        else:
            self.lm = load(
                pretrained,
                device=_there(device),
                dtype=dtype,
                quantize=quantize,
                kernels=kernels,
                config=config,
                tokenizer=tokenizer,
                offline=offline,
            )
        wanted = str(batch_size).partition(":")[0]
        self.rows = max_batch_size or ROWS if wanted == "auto" else int(wanted)
        self.max_gen_toks = max_gen_toks
        self.markers = False  # whether texts come from a chat template, whose markers are ids
        self._progress = progress

    # ---- what lm-eval asks of a model

    @property
    def eot_token_id(self) -> int:
        """The id that ends a text; for a vocabulary without one, the id that begins it."""
        return self.lm.tokenizer.stop_ids[0] if self.lm.tokenizer.stop_ids else self.prefix_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context: BOS, or EOS where there is none."""
        vocabulary = self.lm.tokenizer
        found = vocabulary.bos_id if vocabulary.bos_id is not None else vocabulary.eos_id
        return 0 if found is None else found

    @property
    def device(self) -> Any:
        """The torch.device on which the model computes."""
        return self.lm.model.embed.weight.device

    @property
    def tokenizer_name(self) -> str:
        """By which lm-eval tells caches of requests apart."""
        return self.lm.tokenizer.fingerprint[:16]

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Ids, with BOS in front, once, unless add_special_tokens is False."""
        vocabulary = self.lm.tokenizer
        if vocabulary.bos_id is not None and add_special_tokens is not False:
            string = string.removeprefix(vocabulary.piece(vocabulary.bos_id))
        return vocabulary.encode(string, bos=add_special_tokens is not False, markers=self.markers)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation in the vocabulary's turns, or the plain ones; ready for the model's turn,
        or, without add_generation_prompt, going on with its last one.
        """
        self.markers = True
        template = self.lm.tokenizer.turn or PLAIN
        text = template.render(turns_of(chat_history), open_model=add_generation_prompt)
        return text if add_generation_prompt else text.removesuffix(template.model_close)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template as transformers writes it, for lm-eval's records."""
        return (self.lm.tokenizer.turn or PLAIN).jinja() if chat_template else None

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """Each continuation's log-likelihood, and whether greedy decoding would give it."""
        asked = [Asked(tuple(context), tuple(end)) for _, context, end in requests]
        with self._bar("loglikelihood", len(asked), disable_tqdm) as bar:
            found = score_after_contexts(self.lm.model, asked, self.rows, bar)
        answers = [(score.logprob, score.greedy) for score in found]
        for (texts, _, _), answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Of whole texts after BOS: one long reading each, of any length, in constant memory."""
        texts = [request.args[0] for request in requests]
        ids = [
            [self.prefix_token_id, *self.tok_encode(text, add_special_tokens=False)]
            for text in texts
        ]
        with self._bar("rolling", sum(map(len, ids)), disable_tqdm) as bar:
            found = score_texts(self.lm.model, ids, self.rows, progress=bar)
        for request, logprob in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, logprob)
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers up to a stop string, EOS, an end of turn, or max_gen_toks tokens."""
        answers = [""] * len(requests)
        with self._bar("generate", len(requests), disable_tqdm) as bar:
            done = 0
            for places, options in self._alike(requests):
                prompts = [self._without_bos(requests[place].args[0]) for place in places]
                outputs = self.lm.generate(prompts, markers=self.markers, **options)
                for place, output in zip(places, outputs, strict=True):
                    answers[place] = output.text
                    self.cache_hook.add_partial(
                        "generate_until", requests[place].args, answers[place]
                    )
                done += len(places)
                bar(done, len(requests))
        return answers

    # ---- inside

    def _alike(self, requests: Sequence[Instance]) -> list[tuple[list[int], dict[str, Any]]]:
        """Batches of requests that ask for the same options: their places, and the options."""
        groups: dict[str, list[int]] = {}
        asked: list[tuple[Any, ...]] = [request.args for request in requests]
        for place, (_, wanted) in enumerate(asked):
            groups.setdefault(repr(wanted), []).append(place)
        batches: list[tuple[list[int], dict[str, Any]]] = []
        for places in groups.values():
            places.sort(key=lambda place: -len(asked[place][0]))
            options = options_of(asked[places[0]][1], self.max_gen_toks)
            for begin in range(0, len(places), self.rows):
                some = places[begin : begin + self.rows]
                # repeats of a request differ, and come out again: the seed is its place
                seeds = {"seed": some} if options["temperature"] else {}
                batches.append((some, seeds | options))
        return batches

    def _without_bos(self, text: str) -> str:
        """A prompt as `generate` takes it, which puts BOS in front itself."""
        bos = self.lm.tokenizer.bos_id
        return text if bos is None else text.removeprefix(self.lm.tokenizer.piece(bos))

    def _bar(self, what: str, total: int, disable: bool) -> "_Bar":
        return _Bar(what, total, self._progress, disable)


def _there(device: str | None) -> str:
    """lm-eval's command line names cuda:0 where nobody named a device."""
    if device is None or (device.startswith("cuda") and not torch.cuda.is_available()):
        return "auto"
    return device


class _Bar:
    """Progress by tqdm, as lm-eval's own, or by a function of the caller."""

    def __init__(
        self,
        what: str,
        total: int,
        told: Callable[[str, int, int], None] | None,
        disable: bool,
    ) -> None:
        self.what, self.told = what, told
        self.bar: Any = tqdm(total=total, desc=what, disable=disable or told is not None)

    def __call__(self, done: int, whole: int) -> None:
        self.bar.update(done - self.bar.n)
        if self.told is not None:
            self.told(self.what, done, whole)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
