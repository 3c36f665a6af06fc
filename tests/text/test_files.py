"""Opening, saving and fingerprinting vocabularies, and files that are none."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_lm.errors import TokenizerError
from griffin_lm.text import Tokenizer, check_vocabulary, load_tokenizer
from griffin_lm.text.sentencepiece_tokenizer import SentencePieceTokenizer

from .conftest import GEMMA_MARKERS, KINDS, train_sentencepiece

Files = dict[str, Path]
Vocabularies = dict[str, Tokenizer]


@pytest.mark.parametrize("kind", KINDS)
def test_saving_writes_the_same_bytes_under_the_usual_name(
    files: Files, vocabularies: Vocabularies, kind: str, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "folder"
    vocabularies[kind].save(folder)
    assert (folder / files[kind].name).read_bytes() == files[kind].read_bytes()
    assert [path.name for path in folder.iterdir()] == [files[kind].name]
    assert load_tokenizer(folder).fingerprint == vocabularies[kind].fingerprint


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    vocabularies: Vocabularies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TokenizerError, match=r"tokenizer\.model: cannot be written \(No space"):
        vocabularies["sp-identity"].save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.model"]
    assert (tmp_path / "tokenizer.model").read_bytes() == b"old"


def test_a_folder_with_both_files_opens_the_sentencepiece_one(files: Files, tmp_path: Path) -> None:
    shutil.copy(files["json-gemma"], tmp_path)
    assert type(load_tokenizer(tmp_path)).__name__ == "JsonTokenizer"
    shutil.copy(files["sp-prefix"], tmp_path)
    assert type(load_tokenizer(tmp_path)).__name__ == "SentencePieceTokenizer"


def test_the_content_tells_what_a_file_is_and_not_its_name(files: Files, tmp_path: Path) -> None:
    shutil.copy(files["sp-identity"], tmp_path / "vocabulary.json")
    shutil.copy(files["json-gemma"], tmp_path / "tokenizer.model")
    assert load_tokenizer(tmp_path / "vocabulary.json").special_id("<user>") is not None
    assert load_tokenizer(tmp_path).special_id("<start_of_turn>") is not None


def test_bytes_open_as_the_file_does(files: Files, vocabularies: Vocabularies) -> None:
    tokenizer = SentencePieceTokenizer(files["sp-identity"].read_bytes())
    assert tokenizer.fingerprint == vocabularies["sp-identity"].fingerprint


def test_tokenizer_config_names_bos_and_eos_and_travels_along(files: Files, tmp_path: Path) -> None:
    shutil.copy(files["json-gemma"], tmp_path)
    config = {"bos_token": None, "eos_token": {"content": "<pad>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.bos_id is None
    assert tokenizer.eos_id == tokenizer.special_id("<pad>")
    assert tokenizer.encode("a", bos=True) == tokenizer.encode("a", bos=False)
    tokenizer.save(tmp_path / "copy")
    assert load_tokenizer(tmp_path / "copy").fingerprint == tokenizer.fingerprint


def test_a_fingerprint_tells_vocabularies_apart_and_is_the_same_next_time(
    files: Files, vocabularies: Vocabularies
) -> None:
    prints = {kind: vocabularies[kind].fingerprint for kind in KINDS}
    again = {kind: load_tokenizer(files[kind]).fingerprint for kind in KINDS}
    assert again == prints
    # The three of spaces_json hold the same pieces and ids; all the others differ.
    assert prints["json-gemma"] == prints["json-llama"] == prints["json-metaspace"]
    assert len(set(prints.values())) == len(KINDS) - 2


def test_a_fingerprint_feels_each_special_id(files: Files, tmp_path: Path) -> None:
    shutil.copy(files["json-gemma"], tmp_path)
    seen = {load_tokenizer(tmp_path).fingerprint}
    for key in ("bos_token", "eos_token", "pad_token"):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({key: "<start_of_turn>"}))
        seen.add(load_tokenizer(tmp_path).fingerprint)
    assert len(seen) == 4


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(vocabularies: Vocabularies) -> None:
    tokenizer = vocabularies["sp-identity"]
    check_vocabulary(tokenizer, tokenizer.vocab_size, "here")
    check_vocabulary(tokenizer, tokenizer.vocab_size + 64, "here")
    with pytest.raises(TokenizerError, match=r"some/folder: the tokenizer has .*another model"):
        check_vocabulary(tokenizer, tokenizer.vocab_size - 1, "some/folder")


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1, 2]",
        b"null",
        b"{}",
        b'{"model": 3}',
        b'{"model": {}}',
        b'{"model": {"type": "BPE", "vocab": {}, "merges": []}, "decoder": {"type": "ByteLevel"}}',
        b'{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": "x"}]}',
        b"[" * 100_000,
        b"{" * 100_000,
        b"\x00" * 64,
        b"\xff\xfe{}",
        b"\x0a\x03\x0a\x01a",
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=name):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", ["sp-identity", "json-gemma"])
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_wherever_it_ends(files: Files, kind: str, cut: float) -> None:
    data = files[kind].read_bytes()
    short = files[kind].with_name("short")
    short.write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(TokenizerError, match="short"):
        load_tokenizer(short)


@pytest.mark.parametrize("kind", ["sp-prefix", "json-llama"])
@given(data=st.data())
@settings(max_examples=60)
def test_flipped_bits_are_refused_or_give_a_vocabulary_that_works(
    files: Files, kind: str, data: st.DataObject
) -> None:
    raw = bytearray(files[kind].read_bytes())
    for place in data.draw(st.lists(st.integers(0, 8 * len(raw) - 1), min_size=1, max_size=6)):
        raw[place // 8] ^= 1 << place % 8
    flipped = files[kind].with_name("flipped")
    flipped.write_bytes(raw)
    try:
        tokenizer = load_tokenizer(flipped)
    except TokenizerError as error:
        assert "flipped" in str(error)
        return
    decoder = tokenizer.decoder()
    assert isinstance("".join(map(decoder.feed, range(tokenizer.vocab_size))), str)
    assert all(0 <= token < tokenizer.vocab_size for token in tokenizer.encode("the sea <end_o"))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(TokenizerError, match="the bytes given: not a SentencePiece vocabulary"):
        SentencePieceTokenizer(data)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer\.model and no tokenizer\.json"):
        load_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match="nowhere: cannot be read"):
        load_tokenizer(tmp_path / "nowhere")
    (tmp_path / "tokenizer.model").mkdir()
    with pytest.raises(TokenizerError, match="a folder where a tokenizer file should be"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("decoder", [{"type": "WordPiece"}, {"type": "CTC"}, None])
def test_a_json_of_another_scheme_is_refused(
    files: Files, tmp_path: Path, decoder: dict[str, str] | None
) -> None:
    spec = json.loads(files["json-gemma"].read_bytes()) | {"decoder": decoder}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: its decoder is"):
        load_tokenizer(tmp_path)


def test_a_fullwidth_spelling_of_a_marker_is_no_marker_either() -> None:
    # nmt_nfkc turns "＜end_of_turn＞" into ASCII before symbols are looked for.
    tokenizer = SentencePieceTokenizer(
        train_sentencepiece(
            normalization_rule_name="nmt_nfkc",
            remove_extra_whitespaces=True,
            add_dummy_prefix=True,
            user_defined_symbols=GEMMA_MARKERS,
        )
    )
    ids = tokenizer.encode("  a ＜end_of_turn＞  b ", bos=False)
    assert tokenizer.special_ids.isdisjoint(ids)
    assert tokenizer.decode(ids) == "a <end_of_turn> b"
    assert tokenizer.encode("a<end_of_turn>", markers=True)[-1] in tokenizer.stop_ids
