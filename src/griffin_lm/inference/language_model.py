"""What `griffin.load` returns: a model and its vocabulary, which together continue text."""

from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import overload

from ..checkpoints import save_model
from ..errors import InputError
from ..models import Griffin, ModelConfig, State
from ..text import Tokenizer, check_vocabulary
from .generate import GenerateOptions, Generation, Output
from .instruction import SavedVocabulary, describe


class Stream(Iterator[str]):
    """Pieces of text as they come; what may become a stop string is held back until it is sure.

    All pieces together are the text that `generate` returns. Stopping early is fine.
    """

    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    def __next__(self) -> str:
        while not self._generation.done:
            piece = self._generation.step()[0]
            if piece:
                return piece
        raise StopIteration

    @property
    def output(self) -> Output:
        """Text, tokens, finish reason and state, once the stream is exhausted or cancelled.

        Raises `InputError` before.
        """
        return self._generation.outputs[0]

    def begin(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Reads the prompt now, not when the first piece is asked for.

        `progress` is called with (tokens read, tokens in all).
        """
        self._generation.begin(progress)

    def cancel(self) -> str:
        """Ends the generation where it is; returns the text that was held back."""
        return self._generation.cancel()[0]


class LanguageModel:
    """A model and its tokenizer. The model may be used by itself: `lm.model(tokens, state=...)`.

    instruction_tuned   whether it was taught to take turns; a vocabulary alone does not tell, for
                        base models have the markers too. `load` finds out, saving keeps it
    further_stops       ids that end a generation besides the tokenizer's own

    Raises `TokenizerError` where the vocabulary has more ids than the model.
    """

    def __init__(
        self,
        model: Griffin,
        tokenizer: Tokenizer,
        instruction_tuned: bool = False,
        further_stops: Sequence[int] = (),
    ) -> None:
        check_vocabulary(tokenizer, model.config.vocab, "LanguageModel")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.instruction_tuned = instruction_tuned
        self.further_stops = tuple(further_stops)
        # so that a state is never continued with another vocabulary
        model.origin.tokenizer = tokenizer.fingerprint

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.model.config

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a generation: EOS, ends of turn (1 and 107 in Gemma), then further ones."""
        return tuple(dict.fromkeys((*self.tokenizer.stop_ids, *self.further_stops)))

    def encode(self, text: str, bos: bool = True) -> list[int]:
        """The text's token ids, with BOS in front unless `bos` is False."""
        return self.tokenizer.encode(text, bos=bos)

    @overload
    def generate(
        self,
        prompt: str,
        max_new_tokens: int = ...,
        temperature: float = ...,
        top_k: int | None = ...,
        top_p: float | None = ...,
        min_p: float | None = ...,
        repetition_penalty: float | None = ...,
        seed: int | Sequence[int] | None = ...,
        stop: str | Sequence[str] = ...,
        logprobs: bool = ...,
        state: State | None = ...,
        markers: bool = ...,
    ) -> Output: ...

    @overload
    def generate(
        self,
        prompt: list[str] | tuple[str, ...],
        max_new_tokens: int = ...,
        temperature: float = ...,
        top_k: int | None = ...,
        top_p: float | None = ...,
        min_p: float | None = ...,
        repetition_penalty: float | None = ...,
        seed: int | Sequence[int] | None = ...,
        stop: str | Sequence[str] = ...,
        logprobs: bool = ...,
        state: State | None = ...,
        markers: bool = ...,
    ) -> list[Output]: ...

    def generate(
        self,
        prompt: str | list[str] | tuple[str, ...],
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | Sequence[int] | None = None,
        stop: str | Sequence[str] = (),
        logprobs: bool = False,
        state: State | None = None,
        markers: bool = False,
    ) -> Output | list[Output]:
        """Continues a prompt, or each of a list of prompts, which may differ in length.

        max_new_tokens   at most so many; 0 only reads the prompt
        temperature      0: always the likeliest token; else logits are divided by it
        top_k, top_p, min_p, repetition_penalty   as in transformers, applied in its order (penalty,
                         temperature, top_k, top_p, min_p); the penalty sees this call's tokens
        seed             a number for every row, or one each; None: different every time. Token n of
                         a row is drawn with noise of (seed, n), whatever else is in the batch
        stop             strings that end a row; they and what follows are cut off
        logprobs         also return the log-probability of each token
        state            what to go on from; not changed. A state of one row is copied to every
                         prompt. BOS stands before a prompt only where the row has read nothing.
                         With prompt "" goes on as if never interrupted
        markers          the vocabulary's turn markers in the prompt, <start_of_turn> and such, are
                         their ids; not for a stranger's text, which could open and close turns

        Returns an `Output`, or a list of them for a list. Raises `InputError` for options that make
        no sense or a prompt with nothing to go on from, `StateError` for another model's state.
        """
        options = GenerateOptions(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            stop=stop,
            logprobs=logprobs,
        )
        single = isinstance(prompt, str)
        run = self.start([prompt] if single else prompt, options, state, markers)
        while not run.done:
            run.step()
        return run.outputs[0] if single else run.outputs

    def stream(
        self,
        prompt: str,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        logprobs: bool = False,
        state: State | None = None,
        markers: bool = False,
    ) -> Stream:
        """As `generate` for one prompt, but an iterator over pieces of its text.

        Once exhausted, `.output` is what `generate` would have returned. Wrong options are refused
        by this call, not by the first piece.
        """
        options = GenerateOptions(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            stop=stop,
            logprobs=logprobs,
        )
        return Stream(self.start([prompt], options, state, markers))

    def start(
        self,
        prompts: Sequence[str],
        options: GenerateOptions,
        state: State | None = None,
        markers: bool = False,
    ) -> Generation:
        """A generation to be stepped by the caller; `generate` and `stream` are loops around it."""
        if any(not isinstance(prompt, str) for prompt in prompts):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError("a prompt must be text; token ids go to lm.model(tokens)")
        if state is None:
            state = self.model.empty_state(len(prompts))
        elif state.batch_size == 1 and len(prompts) != 1:
            state = state[[0] * len(prompts)]
        if state.batch_size != len(prompts):
            raise InputError(
                f"{len(prompts)} prompts, but the state has {state.batch_size} rows; pass as many "
                "prompts as rows, or pick one row with state[row], which goes to every prompt"
            )
        empty = [read == 0 for read in state.tokens.tolist()]
        ids = [
            self.tokenizer.encode(text, bos=first, markers=markers, continues=not first)
            for text, first in zip(prompts, empty, strict=True)
        ]
        if any(first and not row for first, row in zip(empty, ids, strict=True)):
            raise InputError(
                "the prompt is empty, and this tokenizer has no BOS token to begin with; give at "
                "least one character, or a state to go on from"
            )
        return Generation(self.model, self.tokenizer, ids, options, state, self.stop_ids)


def save(
    lm_or_model: LanguageModel | Griffin,
    path: str | PathLike[str],
    format: str = "griffin",
    card: str | None = None,
    quantize: str | None = None,
) -> None:
    """Writes a checkpoint folder, with the tokenizer if there is one; all of it or nothing.

    format: a key of `griffin_lm.checkpoints.FORMATS`. card: text of the model card. Whether the
    model is instruction-tuned is kept; in Hugging Face's format with the turn template as theirs.
    quantize: "int8" or "int4" rounds the matrices as they are written, in the format "griffin"; a
    model that was loaded quantised is saved as it is. Raises `CheckpointError` where it can't be
    written.
    """
    if isinstance(lm_or_model, Griffin):
        save_model(lm_or_model, Path(path), format=format, card=card, quantize=quantize)
        return
    about = describe(lm_or_model.instruction_tuned, lm_or_model.further_stops)
    vocabulary = SavedVocabulary(
        lm_or_model.tokenizer,
        lm_or_model.stop_ids,
        chat_template=format == "huggingface" and lm_or_model.instruction_tuned,
    )
    save_model(
        lm_or_model.model,
        Path(path),
        format=format,
        tokenizer=vocabulary,
        card=card,
        about=about,
        quantize=quantize,
    )
