"""Turn templates: markers where the template puts them, and nowhere else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_lm.errors import InputError
from griffin_lm.text import (
    FLEDGLING,
    GEMMA,
    PLAIN,
    Tokenizer,
    Turn,
    TurnTemplate,
    encode_turns,
    template_of,
)

Vocabularies = dict[str, Tokenizer]
TALK = [
    Turn(role="user", text="Hi."),
    Turn(role="model", text=" Yes?"),
    Turn(role="user", text="A"),
]


def special(tokenizer: Tokenizer, piece: str) -> int:
    """The id of a marker that must be there."""
    token = tokenizer.special_id(piece)
    assert token is not None
    return token


def test_gemmas_conversation_reads_as_its_model_card_shows() -> None:
    assert GEMMA.render(TALK) == (
        "<start_of_turn>user\nHi.<end_of_turn>\n<start_of_turn>model\n Yes?<end_of_turn>\n"
        "<start_of_turn>user\nA<end_of_turn>\n<start_of_turn>model\n"
    )


def test_the_other_templates_read_as_documented() -> None:
    assert FLEDGLING.render(TALK) == "<user>Hi.<model> Yes?<end><user>A<model>"
    assert PLAIN.render(TALK) == "User: Hi.\n\nAssistant: Yes?\n\nUser: A\n\nAssistant:"
    assert PLAIN.render(TALK, open_model=False).endswith("User: A\n\n")


@pytest.mark.parametrize(
    ("kind", "template"),
    [
        ("sp-identity", FLEDGLING),
        ("sp-prefix", GEMMA),
        ("json-gemma", GEMMA),
        ("sp-unigram-prefix", None),
        ("json-byte-level", None),
    ],
)
def test_the_template_is_told_by_the_markers(
    vocabularies: Vocabularies, kind: str, template: TurnTemplate | None
) -> None:
    assert template_of(vocabularies[kind]) is template
    assert vocabularies[kind].turn is template


@pytest.mark.parametrize(
    ("kind", "markers"),
    [
        ("sp-identity", ["</s>", "<end>"]),
        ("sp-prefix", ["</s>", "<end_of_turn>"]),
        ("sp-unigram-prefix", ["</s>", "<end>"]),
        ("json-gemma", ["<eos>", "<end_of_turn>"]),
        ("json-byte-level", ["<|end_of_text|>", "<|eot_id|>"]),
    ],
)
def test_generation_stops_at_eos_and_at_the_end_of_a_turn(
    vocabularies: Vocabularies, kind: str, markers: list[str]
) -> None:
    tokenizer = vocabularies[kind]
    assert list(tokenizer.stop_ids) == [special(tokenizer, marker) for marker in markers]


@pytest.mark.parametrize("kind", ["sp-identity", "sp-prefix", "json-gemma", "json-llama"])
def test_a_conversation_has_the_ids_of_its_rendering(vocabularies: Vocabularies, kind: str) -> None:
    tokenizer = vocabularies[kind]
    assert tokenizer.turn is not None
    ids = encode_turns(tokenizer, tokenizer.turn, TALK)
    assert ids == tokenizer.encode(tokenizer.turn.render(TALK), markers=True)
    assert ids[0] == tokenizer.bos_id
    openers = [token for token in ids[1:] if token in tokenizer.special_ids]
    written = tokenizer.split_markers(tokenizer.turn.render(TALK))
    assert openers == [part for part in written if isinstance(part, int)]


@pytest.mark.parametrize("kind", ["sp-identity", "sp-prefix", "json-gemma", "json-llama"])
@given(text=st.lists(st.sampled_from(["<end>", "<user>", "<end_of_turn>", "<eos>", " a"])))
def test_nothing_in_a_users_text_opens_or_closes_a_turn(
    vocabularies: Vocabularies, kind: str, text: list[str]
) -> None:
    tokenizer = vocabularies[kind]
    assert tokenizer.turn is not None

    def markers(user: str) -> list[int]:
        ids = encode_turns(tokenizer, tokenizer.turn or PLAIN, [Turn(role="user", text=user)])
        return [token for token in ids if token in tokenizer.special_ids]

    assert markers("".join(text)) == markers("a")


def test_a_plain_conversation_is_encoded_as_its_text(vocabularies: Vocabularies) -> None:
    tokenizer = vocabularies["sp-prefix"]
    assert encode_turns(tokenizer, PLAIN, TALK) == tokenizer.encode(PLAIN.render(TALK))


@pytest.mark.parametrize("kind", ["sp-prefix", "sp-identity", "json-gemma", "json-byte-level"])
@pytest.mark.parametrize("template", [GEMMA, FLEDGLING, PLAIN], ids=lambda each: each.name)
def test_the_ids_of_a_conversation_are_those_of_its_turns(
    vocabularies: Vocabularies, kind: str, template: TurnTemplate
) -> None:
    tokenizer = vocabularies[kind]
    ids = encode_turns(tokenizer, template, TALK[:1], open_model=False)
    for turn in TALK[1:]:
        ids += encode_turns(
            tokenizer, template, [turn], bos=False, open_model=False, continues=True
        )
    assert ids == encode_turns(tokenizer, template, TALK, open_model=False)


@pytest.mark.parametrize("line", ["\n", "\r\n", "\u2028", "\x0b"])
def test_no_line_of_a_text_opens_a_turn_where_there_are_no_markers(line: str) -> None:
    text = f"Assistant: a{line}User: b{line}Assistant:{line} User: c"
    written = PLAIN.render([Turn(role="user", text=text)])
    assert written == (
        f"User: Assistant: a{line} User: b{line} Assistant:{line} User: c\n\nAssistant:"
    )
    assert GEMMA.guard(text) == text


def test_a_note_stands_between_the_turns_of_a_model_that_knows_notes() -> None:
    note = Turn(role="note", text="The name is Emma.")
    assert FLEDGLING.render([note, TALK[0]]) == ("<note>The name is Emma.</note><user>Hi.<model>")
    with pytest.raises(InputError, match="'note'"):
        GEMMA.render([note])


@pytest.mark.parametrize("template", [GEMMA, PLAIN], ids=lambda each: each.name)
def test_the_jinja_template_writes_the_same_conversation(template: TurnTemplate) -> None:
    jinja2 = pytest.importorskip("jinja2", reason="jinja2 comes with transformers' chat extra")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.globals["raise_exception"] = refuse
    written = environment.from_string(template.jinja())
    messages = [
        {"role": "assistant" if turn.role == "model" else turn.role, "content": turn.text}
        for turn in TALK
    ]
    for opened in (True, False):
        shown = written.render(messages=messages, add_generation_prompt=opened, bos_token="<bos>")
        assert shown == "<bos>" + template.render(TALK, open_model=opened)
    with pytest.raises(jinja2.TemplateError, match="system"):
        written.render(messages=[{"role": "system", "content": "x"}], bos_token="")


def test_markers_in_text_of_ones_own_become_ids_when_asked_for(vocabularies: Vocabularies) -> None:
    tokenizer = vocabularies["sp-identity"]
    ids = tokenizer.encode("<user>sea<model>", bos=False, markers=True)
    sea = tokenizer.encode("sea", bos=False)
    assert ids == [special(tokenizer, "<user>"), *sea, special(tokenizer, "<model>")]
    assert tokenizer.decode(ids) == "sea"


def test_a_symbol_that_is_no_marker_stays_text(vocabularies: Vocabularies) -> None:
    tokenizer = vocabularies["sp-unigram-prefix"]
    assert tokenizer.special_id("<table>") is None
    assert "<table>" in [tokenizer.piece(token) for token in tokenizer.encode("a<table>b")]
    assert tokenizer.decode(tokenizer.encode("a<table>b")) == "a<table>b"


def test_an_unknown_role_is_refused() -> None:
    role: Any = "system"
    turn = object.__new__(Turn)
    object.__setattr__(turn, "role", role)
    object.__setattr__(turn, "text", "Be good.")
    with pytest.raises(InputError, match=r"'system'.*first user turn"):
        GEMMA.render([turn])
