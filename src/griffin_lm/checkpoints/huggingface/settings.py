"""What every dialect of config.json shares: reading settings by type, refusing what is unsaid."""

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from ...errors import CheckpointCorrupt, CheckpointError, CheckpointMismatch, ConfigError
from ...models import ModelConfig
from ...shapes import JSON
from ..format import Vocabulary

LARGEST = 1e30  # a number beyond it is no setting


# Fields that say nothing about what is computed: what the weights are called and stored in, how
# random ones are drawn, dropout in training, labels, ids and defaults of generation, and settings
# that choose between equal computations. Every other field is read, or refused by name.
_WORDS = """
model_type architectures _name_or_path name_or_path _commit_hash transformers_version
dtype torch_dtype use_bfloat16 tokenizer_class torchscript tf_legacy_loss unsloth_version
unsloth_fixed attn_implementation _attn_implementation _attn_implementation_autoset
initializer_range attention_dropout is_decoder tie_encoder_decoder use_cache
return_dict return_dict_in_generate output_attentions output_hidden_states output_scores
chunk_size_feed_forward max_position_embeddings
id2label label2id num_labels problem_type finetuning_task task_specific_params prefix
bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id decoder_start_token_id
forced_bos_token_id forced_eos_token_id suppress_tokens begin_suppress_tokens bad_words_ids
max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty
temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
encoder_no_repeat_ngram_size num_return_sequences remove_invalid_values
exponential_decay_length_penalty
instruction_tuned stop_ids
"""
HARMLESS = frozenset(_WORDS.split())
# Fields that change what is computed when they are set.
_OFF = frozenset({"is_encoder_decoder", "add_cross_attention", "use_bidirectional_attention"})


class Settings:
    """config.json, or an object inside it, read by name and type; null counts as left out.

    inside: the name of the object, for messages.
    """

    def __init__(self, config: JSON, path: Path, inside: str = "") -> None:
        self.config, self.path = config, path
        self._inside = f"{inside}." if inside else ""
        self._read: set[str] = set()

    def get(self, name: str) -> Any:
        """The value as it is; None where it is left out."""
        self._read.add(name)
        return self.config.get(name)

    def refuse(self, name: str, want: str) -> CheckpointCorrupt:
        """The error for a setting that is not what it must be."""
        value = self.config.get(name)
        return CheckpointCorrupt(
            f"{self.path}: {self._inside}{name} must be {want}, not {value!r:.60}; correct it"
        )

    def whole(self, name: str, default: int | None) -> int:
        """A positive integer; without a default it must be there."""
        value = self.get(name)
        value = default if value is None else value
        if type(value) is not int or not 0 < value < 2**31:
            raise self.refuse(name, "a positive integer")
        return value

    def real(self, name: str, default: float | None) -> float:
        """A number of 0 or more; without a default it must be there."""
        value: Any = self.get(name)
        value = default if value is None else value
        if type(value) not in (int, float) or not 0 <= value <= LARGEST:
            raise self.refuse(name, "a number of 0 or more")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or False."""
        value = self.get(name)
        value = default if value is None else value
        if type(value) is not bool:
            raise self.refuse(name, "true or false")
        return value

    def word(self, name: str, default: str, words: Mapping[str, str]) -> str:
        """Our word for theirs."""
        value = self.get(name)
        value = default if value is None else value
        if not isinstance(value, str) or value not in words:
            raise self._unsupported(name, " or ".join(map(repr, words)))
        return words[value]

    def only(self, name: str, wanted: Any) -> None:
        """Refuses any value but the one that we compute with."""
        if self.get(name) not in (None, wanted):
            raise self._unsupported(name, repr(wanted))

    def refuse_unread(self, harmless: Collection[str] = ()) -> None:
        """Refuses by name every field that was not read, unless it says nothing about the model.

        harmless: such fields of this dialect, besides HARMLESS.
        """
        for name, value in self.config.items():
            known = name in self._read or name in HARMLESS or name in harmless
            if known or value in (None, {}, []) or (name in _OFF and value is False):
                continue
            raise CheckpointError(
                f"{self.path}: {self._inside}{name[:80]} is {value!r:.60}, and nothing here "
                "computes by this field; remove it if it does not matter to the model, or ask for "
                "it to be supported"
            )

    def _unsupported(self, name: str, wanted: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: {self._inside}{name} is {self.config[name]!r:.60}; only {wanted} is "
            "supported"
        )


@contextmanager
def building(path: Path) -> Generator[None]:
    """Settings that contradict each other are the file's fault, and the message names the file."""
    try:
        yield
    except ConfigError as error:
        raise CheckpointCorrupt(
            f"{path} describes no model that can be built: {str(error)[:600]}; "
            "correct it or fetch it again"
        ) from error


def the_only(kind: Any, config: ModelConfig) -> Any:
    """The settings of all mixers of a kind, which the format keeps once; None without any."""
    found = [mixer for mixer in config.pattern if type(mixer) is kind]
    for setting in (field.name for field in fields(kind)):
        values = {getattr(mixer, setting) for mixer in found}
        if len(values) > 1 and setting not in kind.only_initial:
            raise cannot(f"has one {setting} for all {kind.kind} layers, and this model {values}")
    return found[0] if found else None


def refuse_unsaid(config: ModelConfig, said: Collection[str] = ()) -> None:
    """Refuses settings that the dialect has no word for, unless they have their default.

    Of the model and of its mixers, those that came after the first release (`later`); said: those
    that the dialect does have words for. Raises CheckpointMismatch.
    """
    for owner in (config, *config.pattern):
        for field in fields(owner):
            unsaid = field.name in owner.later and field.name not in said
            if unsaid and getattr(owner, field.name) != field.default:
                raise cannot(f"has no word for {field.name}={getattr(owner, field.name)!r}")


def the_one(kind: Any, config: ModelConfig) -> Any:
    """The settings of the one mixer that is in every layer. Raises CheckpointMismatch."""
    if len(config.pattern) > 1:
        raise cannot(
            f"has one mixer for all layers, and this model a pattern of {len(config.pattern)}"
        )
    return the_only(kind, config)


def demand(owner: Any, wanted: JSON) -> None:
    """Refuses a model, or a mixer, that differs from what the dialect always means."""
    for name, value in wanted.items():
        if (found := getattr(owner, name)) != value:
            raise cannot(f"means {name}={value!r}, and this model has {name}={found!r}")


def cannot(why: str) -> CheckpointMismatch:
    """The error for a model that the format has no settings for."""
    return CheckpointMismatch(f'the format "huggingface" {why}; save it with format="griffin"')


def special_ids(vocabulary: Vocabulary | None) -> JSON:
    """Special ids as transformers names them; null for what is not known."""
    if vocabulary is None:
        return {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    stops = list(vocabulary.stop_ids)
    end = vocabulary.eos_id if len(stops) < 2 else stops
    return {
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": end,
        "pad_token_id": vocabulary.pad_id,
    }
