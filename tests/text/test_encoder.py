"""Text in pieces: whatever the cuts, the ids are those of the whole text encoded at once."""

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from griffin_lm.errors import InputError
from griffin_lm.text import StreamEncoder, Tokenizer, encoder, load_tokenizer
from griffin_lm.text.encoder import Where
from griffin_lm.text.json_cuts import PATTERNS
from griffin_lm.text.sentencepiece_cuts import map_keys

from .conftest import (
    KINDS,
    SENTENCES,
    byte_level_json,
    spaces_json,
    train_sentencepiece,
)

PATTERN = {who: pattern for pattern, who in PATTERNS.items()}
SPACE_RUNS = [" " * 2, " " * 4, "\t\t"]


def split_by(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "type": "Sequence",
        "pretokenizers": [split | {"invert": False}, level | {"use_regex": False}],
    }


def with_added(spec: dict[str, Any], contents: list[str], normalized: bool) -> dict[str, Any]:
    """The file with tokens that the library matches in plain text."""
    first = 1 + max(spec["model"]["vocab"].values(), default=0)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "special": False}
    for number, content in enumerate(contents, first):
        row = {"id": number, "content": content, "normalized": normalized, **flags}
        spec["added_tokens"].append(row)
    return spec


def json_files() -> dict[str, dict[str, Any]]:
    """Files as published models have them, beyond those of conftest."""
    llama, qwen, neox = (byte_level_json(add_prefix_space=False) for _ in range(3))
    llama["pre_tokenizer"] = split_by(PATTERN["Llama 3"])
    llama["model"]["ignore_merges"] = True
    qwen["pre_tokenizer"] = split_by(PATTERN["Qwen 2"])
    qwen["normalizer"] = neox["normalizer"] = {"type": "NFC"}
    no_words = byte_level_json(add_prefix_space=False)
    no_words["pre_tokenizer"]["use_regex"] = False
    gemma = spaces_json("json-gemma")
    behavior = {"behavior": "MergedWithPrevious", "invert": False}
    gemma["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, **behavior}
    unknown = spaces_json("json-gemma")
    del unknown["model"]["vocab"]["<0x41>"]  # not all bytes: unknown characters become <unk>
    return {
        "json-llama-3": llama,
        "json-qwen-2": qwen,
        "json-neox": with_added(neox, SPACE_RUNS, normalized=True),
        "json-bytes-without-words": no_words,
        "json-gemma-added": with_added(gemma, ["\n\n", "\n\n\n", "<table>"], normalized=False),
        "json-unknown": unknown,
    }


def sentencepiece_files() -> dict[str, bytes]:
    """Every way of treating spaces, with and without normalisation and bytes."""
    small = {"vocab_size": 150, "byte_fallback": False, "user_defined_symbols": ["<b>", "e!"]}
    nfkc = {"normalization_rule_name": "nmt_nfkc"}
    both = {"add_dummy_prefix": True, "remove_extra_whitespaces": True}
    return {
        "sp-default": train_sentencepiece(**small, **nfkc, **both),
        "sp-default-unigram": train_sentencepiece(**small, **nfkc, **both, model_type="unigram"),
        "sp-nfkc": train_sentencepiece(normalization_rule_name="nfkc_cf"),
        "sp-removing": train_sentencepiece(**small, remove_extra_whitespaces=True),
        "sp-unknown": train_sentencepiece(**small),
        "sp-characters": train_sentencepiece(model_type="char"),
        "sp-unigram": train_sentencepiece(model_type="unigram", user_defined_symbols=["  "]),
    }


PUBLISHED = ["mistral_v1.model", "sentencepiece_test_model.model", "gemma_cropped_torchtune.json"]
MORE = [
    *("json-llama-3", "json-qwen-2", "json-neox", "json-bytes-without-words", "json-gemma-added"),
    *("json-unknown", "sp-default", "sp-default-unigram", "sp-nfkc", "sp-removing", "sp-unknown"),
    *("sp-characters", "sp-unigram"),
]
each_kind = pytest.mark.parametrize("kind", [*KINDS, *MORE, *PUBLISHED])


@pytest.fixture(scope="session")
def more(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """The vocabularies of MORE, opened."""
    found: dict[str, Tokenizer] = {}
    for kind, content in (json_files() | sentencepiece_files()).items():
        name = "tokenizer.model" if isinstance(content, bytes) else "tokenizer.json"
        path = tmp_path_factory.mktemp(kind) / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        found[kind] = load_tokenizer(path)
    assert sorted(found) == sorted(MORE)
    return found


@pytest.fixture
def tokenizer(
    kind: str,
    vocabularies: dict[str, Tokenizer],
    more: dict[str, Tokenizer],
    request: pytest.FixtureRequest,
) -> Tokenizer:
    if kind in PUBLISHED:
        return load_tokenizer(request.getfixturevalue("shared_tokenizers") / kind)
    return (vocabularies | more)[kind]


ODD = [
    *("<s>", "</s>", "<eos>", "<end>", "<user>", "<0x41>", "<unk>", "<table>", "<b>", "e!"),
    *("<start_of_turn>", "<end_of_turn>", "<|eot_id|>", "<|begin_of_text|>", "<|end_of_text|>"),
    *(" ", "  ", "   ", "    ", "\t", "\n", "\n\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u2581"),
    *(
        "a\u0301",
        "e",
        "\u0301",
        "\u0958",
        "\u212b",
        "\u1100\u1161\u11a8",
        "\u304b\u3099",
        "\ufb01",
        "\u00bd",
    ),
    *(
        "日本語",
        "。",
        "привет",
        "सात",
        "\U0001f600",
        "\U0001f468\u200d\U0001f469",
        "\u200b",
        "\x00",
        "\x1c",
    ),
    *(
        "\u00a8",
        "=\u0338",
        "'s",
        "'LL",
        "1234",
        "12.5",
        "the",
        "sea",
        ".",
        ", ",
        "!",
        "''",
        "::",
        "\ufeff",
    ),
]
WORDS = [word + after for word in " ".join(SENTENCES[:5]).split() for after in (" ", "")]
TEXTS: SearchStrategy[str] = st.one_of(
    st.lists(st.sampled_from([*ODD, *WORDS]), max_size=25).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)


def in_pieces(stream: StreamEncoder, text: str, cuts: list[int]) -> list[int]:
    """All ids of a text that comes cut at these characters, with everything asked for each time."""
    ids: list[int] = []
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for begin, end in pairwise(edges):
        ids += stream.feed(text[begin:end]) + stream.flush()
    return ids + stream.finish()


@each_kind
@given(text=TEXTS, cuts=st.lists(st.integers(0, 200), max_size=12), continues=st.booleans())
@example(text="", cuts=[], continues=False)
@example(text="  The  sea \n was  calm.  ", cuts=[1, 3, 7, 9, 12, 20], continues=False)
def test_the_ids_of_the_pieces_are_those_of_the_whole(
    tokenizer: Tokenizer, text: str, cuts: list[int], continues: bool
) -> None:
    for bos in (True, False):
        stream = tokenizer.encoder(bos, continues=continues)
        whole = tokenizer.encode(text, bos, continues=continues)
        assert in_pieces(stream, text, cuts) == whole
        assert stream.characters == len(text) and stream.forced == 0


@each_kind
@given(text=TEXTS, continues=st.booleans())
def test_every_safe_place_is_one(tokenizer: Tokenizer, text: str, continues: bool) -> None:
    ids: list[int] = []
    where = Where.FIRST
    for part in tokenizer.cuts.atoms(text):
        stream = tokenizer.encoder(continues=continues, where=where)
        ids += stream.feed(part) + stream.finish()
        where = Where.NEXT
    assert ids == tokenizer.encode(text, continues=continues)


@each_kind
@given(text=TEXTS, cuts=st.lists(st.integers(0, 200), max_size=12))
def test_turn_markers_may_be_taken_for_such(
    tokenizer: Tokenizer, text: str, cuts: list[int]
) -> None:
    ids = in_pieces(tokenizer.encoder(markers=True), text, cuts)
    assert ids == tokenizer.encode(text, markers=True)


@each_kind
def test_prose_has_a_safe_place_every_few_words(tokenizer: Tokenizer) -> None:
    atoms = list(tokenizer.cuts.atoms(" ".join(SENTENCES[:5])))
    assert tokenizer.cuts.why_not == ""
    assert max(map(len, atoms)) <= 60, atoms


@pytest.mark.parametrize("kind", ["sp-identity", "json-llama-3", "sp-default-unigram"])
def test_a_text_without_a_safe_place_is_cut_in_the_end_and_that_is_said(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "LIMIT", 50)
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [a + b for a in letters for b in letters]
    pair = next(p for p in pairs if not tokenizer.cuts.safe(p) and not tokenizer.cuts.safe(p[::-1]))
    unbroken = pair * 24 + ". " + pair * 60 + ", the sea"
    found: set[tuple[int, ...]] = set()
    for step in (1, 7, 49, 50, 51, 100, 500):
        stream = tokenizer.encoder()
        ids = in_pieces(stream, unbroken, list(range(0, 180, step)))
        found.add(tuple(ids))
        assert stream.forced == 2
        assert tokenizer.decode(ids) == unbroken
    assert len(found) == 1, "the pieces decided where it was cut"
    short = tokenizer.encoder()
    in_pieces(short, pair * 24 + ", sea", [])
    assert short.forced == 0


@pytest.mark.parametrize("kind", ["sp-identity", "json-byte-level"])
def test_ids_come_while_the_text_does(tokenizer: Tokenizer) -> None:
    stream = tokenizer.encoder()
    text = "The sea was calm. " * 5000
    assert stream.feed("The sea was") == []  # gathered: a block is encoded at once
    assert stream.flush() == tokenizer.encode("The sea")
    assert len(stream.feed(text)) > 0
    assert stream.characters > 0.9 * len(text)
    stream.finish()
    with pytest.raises(InputError, match="finished"):
        stream.feed("more")


@pytest.mark.parametrize("kind", ["sp-identity"])
def test_half_a_character_is_refused_and_its_place_named(tokenizer: Tokenizer) -> None:
    stream = tokenizer.encoder()
    stream.feed("the sea ")
    with pytest.raises(InputError, match="character 9"):
        stream.feed("x\ud83d")


def lowercase(spec: dict[str, Any]) -> None:
    spec["normalizer"] = {"type": "Lowercase"}


def other_pattern(spec: dict[str, Any]) -> None:
    spec["pre_tokenizer"] = split_by(r"\w+|\W+")


def greedy_token(spec: dict[str, Any]) -> None:
    with_added(spec, ["<x>"], False)["added_tokens"][-1]["rstrip"] = True


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lowercase, "normaliser Lowercase"),
        (other_pattern, "cutting words, Split"),
        (greedy_token, "look at what stands beside"),
    ],
)
def test_a_scheme_that_is_not_known_is_held_until_the_end_and_why_is_said(
    tmp_path: Path, change: Any, reason: str
) -> None:
    spec = byte_level_json(add_prefix_space=False)
    change(spec)
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    stream = load_tokenizer(tmp_path).encoder()
    assert reason in stream.holds_back
    assert stream.feed("The sea was calm. " * 6000) + stream.flush() == []
    assert len(stream.finish()) > 6000


def test_a_vocabulary_of_whole_words_is_held_until_the_end(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(
        train_sentencepiece(model_type="word", byte_fallback=False)
    )
    tokenizer = load_tokenizer(tmp_path)
    assert "whole words" in tokenizer.encoder().holds_back
    assert in_pieces(tokenizer.encoder(), "The sea was", [2, 5]) == tokenizer.encode("The sea was")


def test_the_keys_of_a_character_map_are_read(more: dict[str, Tokenizer]) -> None:
    keys = map_keys(more["sp-nfkc"]._file.charsmap)
    assert keys is not None and {"a\u0301", "\u304b\u3099", "\u1100\u1161"} <= set(keys)
    assert map_keys(b"") == []
    assert map_keys(b"\x03\x00\x00\x00abc") is None
    assert map_keys((8).to_bytes(4, "little") + b"\xff" * 40) in (None, [])


def test_text_that_never_pauses_takes_linear_time(vocabularies: dict[str, Tokenizer]) -> None:
    def seconds(count: int) -> float:
        stream = vocabularies["sp-identity"].encoder()
        begun = time.process_time()
        for _ in range(count // 1000):
            stream.feed("e" * 1000)
        stream.finish()
        return time.process_time() - begun

    # four times the text: four times the time, with room for noise; quadratic would be sixteen
    assert seconds(2_000_000) < 10 * seconds(500_000)
