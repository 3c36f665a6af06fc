"""`griffin data`: text to token files, and files checked by their hashes."""

from pathlib import Path
from typing import Annotated

import typer

from . import common

app = typer.Typer(
    name="data",
    help="Prepare text for training, and verify files by hash.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["--help"]},
)


@app.command()
def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC", help=".txt or .jsonl, also .gz or .bz2, or a folder of such files"
        ),
    ],
    tokenizer: Annotated[
        Path,
        typer.Option(metavar="MODEL", help='a tokenizer\'s file or folder, or "fledgling"'),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="a new folder for the token files")],
    max_bad: Annotated[
        int, typer.Option(min=0, help="malformed lines to leave out before it stops")
    ] = 10,
    shard_tokens: Annotated[int, typer.Option(min=1, help="tokens of a file, about")] = 1 << 28,
    json: common.JsonOut = None,
) -> None:
    """Tokenise text into memory-mapped token files, every document beginning with BOS.

    A document is a whole .txt file, or a row of a .jsonl file: an object with "text", with
    "messages" or "turns", or with "prompt" and "completion".
    """
    import sys

    from ..inference.loading import BUNDLED
    from ..text import load_tokenizer
    from ..training.data.prepare import prepare as make

    vocabulary = load_tokenizer(BUNDLED.get(str(tokenizer), tokenizer))
    with common.Meter("reading", "MB", 1e6) as meter:
        index = make(
            source, vocabulary, out, max_bad=max_bad, shard_tokens=shard_tokens, progress=meter
        )
    for message in index["malformed"]:
        print(f"left out: {message}", file=sys.stderr)
    if index["malformed_lines"]:
        print(f"{index['malformed_lines']} malformed lines left out", file=sys.stderr)
    print(
        f"{index['documents']:,} documents, {index['tokens']:,} tokens "
        f"in {len(index['files'])} files: {out}"
    )
    common.write_json(json, index)


@app.command()
def verify(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="a prepared folder, a token file, or a file known by its hash"
        ),
    ],
    json: common.JsonOut = None,
) -> None:
    """Read every byte and compare with the hashes: of token files, or of files known here.

    Known are enwik8, WikiText-2 (valid, test), other public texts, and vocabularies.
    """
    from ..training.data.check import check

    with common.Meter("reading", "MB", 1e6) as meter:
        figures = check(path, meter)
    print(figures["line"])
    common.write_json(json, figures)
