"""What fuzzing found in the readers of vocabularies, each with the smallest input for it."""

import json
import tracemalloc
from pathlib import Path

import pytest

from griffin_lm.errors import TokenizerError
from griffin_lm.text import load_tokenizer, sentencepiece_file
from griffin_lm.text.sentencepiece_cuts import map_keys

from .conftest import train_sentencepiece


def test_an_endless_type_of_a_decoder_is_cut_in_the_message(
    files: dict[str, Path], tmp_path: Path
) -> None:
    spec = json.loads(files["json-gemma"].read_bytes())
    spec["decoder"] = {"type": "x" * 10_000}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(TokenizerError, match="its decoder is xxx") as caught:
        load_tokenizer(tmp_path)
    assert len(str(caught.value)) < 1000


def test_an_endless_piece_is_cut_in_the_message(files: dict[str, Path], tmp_path: Path) -> None:
    data = files["sp-identity"].read_bytes()
    piece = b"\x0a" + b"\x90\x4e" + b"x" * 10_000 + b"\x18\x06"  # 10,000 letters of the kind BYTE
    head = b"\x0a" + (len(piece) & 0x7F | 0x80).to_bytes(1, "little") + bytes([len(piece) >> 7])
    (tmp_path / "tokenizer.model").write_bytes(head + piece + data)
    with pytest.raises(TokenizerError, match=r"piece 0, 'xxx.*is no byte") as caught:
        load_tokenizer(tmp_path)
    assert len(str(caught.value)) < 1000


def test_an_endless_added_token_is_cut_in_the_message(
    files: dict[str, Path], tmp_path: Path
) -> None:
    spec = json.loads(files["json-gemma"].read_bytes())
    row = spec["added_tokens"][0]
    spec["added_tokens"].append({**row, "id": 7, "content": "x" * 10_000})
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(TokenizerError, match="the added token 'xxx") as caught:
        load_tokenizer(tmp_path)
    assert len(str(caught.value)) < 1000


def test_a_flag_of_2_to_the_64_is_false_as_it_is_for_the_library(
    files: dict[str, Path], tmp_path: Path
) -> None:
    """The dummy prefix: ten bytes of a number whose lowest 64 bits are zero."""
    flag = b"\x18" + b"\x80" * 9 + b"\x02"
    data = files["sp-prefix"].read_bytes() + b"\x1a" + bytes([len(flag)]) + flag
    (tmp_path / "tokenizer.model").write_bytes(data)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.piece(tokenizer.encode("the", bos=False)[0]) == "t"
    assert not sentencepiece_file.read(data).dummy_prefix


def test_a_flag_of_another_type_is_unknown_as_it_is_to_the_library(
    files: dict[str, Path], tmp_path: Path
) -> None:
    """The dummy prefix as an empty text: what stood before, a true flag, still holds."""
    data = files["sp-prefix"].read_bytes() + b"\x1a\x02\x1a\x00"
    (tmp_path / "tokenizer.model").write_bytes(data)
    assert sentencepiece_file.read(data).dummy_prefix
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode("the", bos=False)) == "the"


def test_a_model_without_a_type_is_what_the_library_takes_it_for(
    files: dict[str, Path], tmp_path: Path
) -> None:
    """With a merge that is none it is no BPE for the library, which reads it as WordPiece."""
    spec = json.loads(files["json-gemma"].read_bytes())
    del spec["model"]["type"]
    spec["model"]["merges"][0] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    tokenizer = load_tokenizer(tmp_path)
    assert not tokenizer.cuts.safe("ab"), "where WordPiece may be cut is not known"
    encoder = tokenizer.encoder()
    text = "the griffin sat"
    ids = [token for letter in text for token in encoder.feed(letter)] + encoder.finish()
    assert ids == tokenizer.encode(text)


@pytest.mark.parametrize("as_text", [False, True])
def test_merges_that_would_end_the_process_in_native_code_are_refused(
    as_text: bool, files: dict[str, Path], tmp_path: Path
) -> None:
    """tokenizers 0.23 aborts: "panic in a destructor during cleanup"."""
    spec = json.loads(files["json-gemma"].read_bytes())
    spec["model"]["continuing_subword_prefix"] = "0"
    if as_text:
        spec["model"]["merges"] = [" ".join(merge) for merge in spec["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(TokenizerError, match="does not go with its prefix of pieces"):
        load_tokenizer(tmp_path)


def test_dropout_of_merges_is_for_training_and_stays_out(
    files: dict[str, Path], tmp_path: Path
) -> None:
    spec = json.loads(files["json-gemma"].read_bytes())
    spec["model"]["dropout"] = 0.5
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    tokenizer, text = load_tokenizer(tmp_path), "The griffin sat on the wall and looked. " * 5
    wanted = load_tokenizer(files["json-gemma"]).encode(text)
    assert all(tokenizer.encode(text) == wanted for _ in range(5))


def test_unigrams_without_an_unknown_piece_refuse_a_text_that_they_cannot_write(
    files: dict[str, Path], tmp_path: Path
) -> None:
    spec = json.loads(files["json-metaspace"].read_bytes())
    spec["model"] = {"type": "Unigram", "vocab": [["a", -1.0], ["b", -1.0]]}
    spec["added_tokens"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    tokenizer = load_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match="cannot write this text"):
        tokenizer.encode("x")


def test_the_keys_of_a_character_map_take_memory_in_proportion() -> None:
    """They took 690 MB for the 247 kB of NFKC with case folding, all nodes of a level at once."""
    data = train_sentencepiece(normalization_rule_name="nmt_nfkc_cf")
    charsmap = sentencepiece_file.read(data).charsmap
    tracemalloc.start()
    keys = map_keys(charsmap)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert keys is not None and len(keys) > 200_000
    assert peak < 400 * len(charsmap)


def test_a_character_map_that_turns_back_on_itself_ends() -> None:
    """Each of its units is a child of each of them."""
    units = b"".join((byte | 1 << 8 | 256 << 10).to_bytes(4, "little") for byte in range(256))
    charsmap = (2 * len(units)).to_bytes(4, "little") + units + units
    tracemalloc.start()
    assert map_keys(charsmap) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20
