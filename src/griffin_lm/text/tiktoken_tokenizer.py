"""Llama 3's `tokenizer.model`, encoded by the tokenizers library: see `tiktoken_file`."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from griffin_lm.text.files import read_vocabulary, write_aside
from griffin_lm.text.json_tokenizer import JsonTokenizer
from griffin_lm.text.tiktoken_file import BOS, EOS, as_tokenizer_json, read_ranks


class TiktokenTokenizer(JsonTokenizer):
    """A file of base64 pieces and ranks, with Llama 3's split of words and special pieces.

    Raises:
        TokenizerError: the file cannot be read or is damaged; the line is named.

    """

    def _read(self, path: Path) -> tuple[dict[str, Any], Mapping[str, Any], dict[str, bytes]]:
        data = read_vocabulary(path)
        spec = as_tokenizer_json(read_ranks(data, str(path)))
        return spec, {}, {"tokenizer.model": data}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the file as it was, and beside it what transformers reads instead.

        Raises:
            TokenizerError: the folder cannot be written.

        """
        super().save(folder)
        named = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "clean_up_tokenization_spaces": False,
        }
        for name, value in (("tokenizer.json", self._spec), ("tokenizer_config.json", named)):
            write_aside(Path(folder) / name, json.dumps(value, ensure_ascii=False).encode())
