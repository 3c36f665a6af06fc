"""Text to ids and back, for every kind of vocabulary."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from griffin_lm.errors import InputError
from griffin_lm.text import Tokenizer

from .conftest import KINDS, PREFIXED

Vocabularies = dict[str, Tokenizer]

# U+2581 is how these files write a space, so it comes back as one: no tokenizer of theirs differs.
TEXTS: SearchStrategy[str] = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=40
)
SPECIAL_NAMES = ["<s>", "</s>", "<eos>", "<bos>", "<pad>", "<unk>", "<end>", "<user>", "<0x41>"]
SPECIAL_NAMES += ["<start_of_turn>", "<end_of_turn>", "<|eot_id|>", "<|begin_of_text|>"]
TRICKY: SearchStrategy[str] = st.lists(
    st.sampled_from([*SPECIAL_NAMES, " ", "\n", "e", "<", "日本", "\U0001f600", "é", "\x00"])
).map("".join)


def comes_back(kind: str, text: str) -> str:
    """What decode(encode(text)) has to be: the libraries add no prefix to text that has one."""
    swallowed = kind in ("json-byte-level-prefix", "json-metaspace") and text.startswith(" ")
    return text[1:] if swallowed else text


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.one_of(TEXTS, TRICKY))
@example(text="")
@example(text=" ")
@example(text="   a  b \n\n c ")
@example(text="<start_of_turn><eos> <end_of_turn></s> <user>")
def test_any_text_comes_back_as_it_was(vocabularies: Vocabularies, kind: str, text: str) -> None:
    tokenizer = vocabularies[kind]
    assert tokenizer.decode(tokenizer.encode(text)) == comes_back(kind, text)


@pytest.mark.parametrize("kind", KINDS)
@given(first=TRICKY, second=TRICKY)
def test_a_continued_text_comes_back_without_a_space_of_its_own(
    vocabularies: Vocabularies, kind: str, first: str, second: str
) -> None:
    tokenizer = vocabularies[kind]
    ids = tokenizer.encode(second, bos=False, continues=True)
    assert tokenizer.decode(ids, continues=True) == second
    whole = tokenizer.decode(tokenizer.encode(first) + ids)
    # Where the first is empty the ids begin the text, and their own first space is the prefix.
    if first:
        assert whole == comes_back(kind, first) + second


@pytest.mark.parametrize("kind", KINDS)
@given(text=TRICKY)
def test_plain_text_never_becomes_a_special_id(
    vocabularies: Vocabularies, kind: str, text: str
) -> None:
    tokenizer = vocabularies[kind]
    assert tokenizer.special_ids.isdisjoint(tokenizer.encode(text, bos=False))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_streaming_gives_what_decoding_at_once_gives(
    vocabularies: Vocabularies, kind: str, data: st.DataObject
) -> None:
    tokenizer = vocabularies[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    continues = data.draw(st.booleans())
    decoder = tokenizer.decoder(continues=continues)
    pieces = [decoder.feed(token) for token in ids]
    assert "".join(pieces) + decoder.finish() == tokenizer.decode(ids, continues=continues)


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
def test_streaming_a_text_gives_only_whole_characters(
    vocabularies: Vocabularies, kind: str, text: str
) -> None:
    decoder = vocabularies[kind].decoder(continues=True)
    so_far = ""
    for token in vocabularies[kind].encode(text, continues=True):
        so_far += decoder.feed(token)
        assert text.startswith(so_far)
    assert so_far == text
    assert decoder.finish() == ""


@pytest.mark.parametrize("kind", KINDS)
def test_bos_stands_first_only_when_asked_for(vocabularies: Vocabularies, kind: str) -> None:
    tokenizer = vocabularies[kind]
    plain = tokenizer.encode("the sea", bos=False)
    assert tokenizer.bos_id is not None
    assert tokenizer.bos_id not in plain
    assert tokenizer.encode("the sea") == [tokenizer.bos_id, *plain]
    assert tokenizer.encode("") == [tokenizer.bos_id]
    assert tokenizer.encode("", bos=False) == []


@pytest.mark.parametrize("kind", KINDS)
def test_special_ids_give_no_text_wherever_they_stand(
    vocabularies: Vocabularies, kind: str
) -> None:
    tokenizer = vocabularies[kind]
    ids = tokenizer.encode("naïve 日 sea", bos=False)
    for special in tokenizer.special_ids:
        between = [token for pair in ids for token in (special, pair)]
        assert tokenizer.decode([*between, special]) == "naïve 日 sea"


@pytest.mark.parametrize("kind", PREFIXED)
def test_the_added_space_is_stripped_once_and_only_at_the_start(
    vocabularies: Vocabularies, kind: str
) -> None:
    tokenizer = vocabularies[kind]
    ids = tokenizer.encode("sea", bos=False)
    assert ids == tokenizer.encode(" sea", bos=False, continues=True)
    assert tokenizer.decode(ids) == "sea"
    assert tokenizer.decode(ids + ids) == "sea sea"
    assert tokenizer.decode(ids, continues=True) == " sea"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [-1, 10**9])
def test_an_id_out_of_range_is_named(vocabularies: Vocabularies, kind: str, wrong: int) -> None:
    tokenizer = vocabularies[kind]
    with pytest.raises(InputError, match=f"token id {wrong} is outside the vocabulary"):
        tokenizer.decode([5, wrong])
    with pytest.raises(InputError, match=f"{tokenizer.vocab_size} ids"):
        tokenizer.decoder().feed(tokenizer.vocab_size)
    with pytest.raises(InputError, match="outside"):
        tokenizer.piece(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_character_in_the_text_is_refused(vocabularies: Vocabularies, kind: str) -> None:
    with pytest.raises(InputError, match=r"lone surrogate \(U\+D83D\) at character 2"):
        vocabularies[kind].encode("ab\ud83d")
