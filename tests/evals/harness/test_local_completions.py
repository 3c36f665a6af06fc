"""lm-eval's `local-completions` asks a live server: the scores are those of our own adapter."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="needs the extra `eval`")
pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("tenacity", reason="lm-eval asks servers with it: needs `lm-eval[api]`")

import tokenizers
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, normalizers

import griffin_lm as griffin
from griffin_lm.evals.harness.adapter import GriffinLM
from griffin_lm.inference import LanguageModel
from tests.server.conftest import KEY, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of transformers and of the clients
]
SPIECE = Path(griffin.__file__).parent / "fledgling" / "tokenizer.model"
PROSE = [
    "The wind rose over the old house, and nobody was there to hear it.",
    "“I do not know,” said Emma, “whether he will come.”\n\nShe waited at the window — né Smith.",
    "Where is the key? It was on the table yesterday, in the blue box. " * 12,
]
ENDS = [" house", " and nobody was there.", "x", " 漢字", "\n\nHe said"]


def as_transformers_has_it(folder: Path) -> str:
    """Fledgling's vocabulary as a folder that transformers reads; SentencePiece's rules of BPE."""
    from transformers import PreTrainedTokenizerFast

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(SPIECE.read_bytes())
    vocab = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in (each.piece for each in proto.pieces if each.type == each.NORMAL)
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]  # learned pieces stand in the order of their scores
    made: Any = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    made.normalizer = normalizers.Replace(" ", "▁")
    made.add_tokens([AddedToken(each, normalized=False) for each in ("\n\n", "\n")])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocab["<s>"])]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return griffin.load("fledgling", device="cpu", dtype="float32")


@pytest.fixture(params=[(1, 1), (4, 1), (1, 3)], ids=["one by one", "batched", "concurrently"])
def theirs(
    request: pytest.FixtureRequest,
    lm: LanguageModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """lm-eval's model for a server, which is ours."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    batch, together = request.param
    with running(lm, api_keys=(KEY,), state_dir=tmp_path / "states") as live:
        yield get_model("local-completions")(
            model="fledgling",
            base_url=f"{live.url}/v1/completions",
            tokenizer_backend="huggingface",
            tokenizer=as_transformers_has_it(tmp_path / "vocabulary"),
            add_bos_token=True,
            batch_size=batch,
            num_concurrent=together,
            max_retries=1,
        )


def test_it_gives_the_log_likelihoods_that_the_model_gives_in_process(
    theirs: Any, lm: LanguageModel
) -> None:
    ours = GriffinLM(lm, batch_size=4)
    contexts = [*PROSE, "She "]
    assert all(theirs.tok_encode(text) == lm.encode(text) for text in (*contexts, *ENDS))
    asked = [
        Instance(request_type="loglikelihood", doc={}, arguments=(context, end), idx=0)
        for context in contexts
        for end in ENDS
    ]
    # each document by itself, as both say it
    for one, other in zip(theirs.loglikelihood(asked), ours.loglikelihood(asked), strict=True):
        assert one[0] == pytest.approx(other[0], abs=1e-4) and one[1] == other[1]
    theirs.add_bos_token = False  # a rolled text gets its BOS otherwise, and would have two
    whole = [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0)
        for text in PROSE
    ]
    rolled = theirs.loglikelihood_rolling(whole), ours.loglikelihood_rolling(whole)
    assert rolled[0] == pytest.approx(rolled[1], abs=1e-4)
