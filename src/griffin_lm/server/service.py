"""What the routes share: the model, the engine and its thread, sessions, responses, figures."""

import tempfile
import time
from pathlib import Path

from ..errors import InputError
from ..inference import LanguageModel
from ..inference.engine import Engine, EngineThread, Request, RowOptions
from ..inference.sampling import SEED_LIMIT
from ..inference.sessions import Sessions, Store
from ..models import State
from ..text import PLAIN, TurnTemplate
from .metrics import Metrics
from .protocol import Sampling
from .settings import Settings


class Service:
    """A served model. `start` and `stop` once each."""

    def __init__(self, lm: LanguageModel, name: str, settings: Settings) -> None:
        self.lm, self.name, self.settings = lm, name, settings
        self.created = int(time.time())
        self.engine = Engine(
            lm,
            slots=settings.max_sessions,
            queue=settings.max_queue,
            chunk=settings.chunk,
            cache_bytes=settings.cache_bytes,
        )
        self.thread = EngineThread(self.engine)
        self._own_folder = None if settings.state_dir else tempfile.TemporaryDirectory("griffin")
        folder = settings.state_dir or Path(self._own_folder.name if self._own_folder else "")
        self.sessions = Sessions(lm, Store(folder), self.read)
        self.responses = Store(folder, "responses")
        self.metrics = Metrics(self.engine)

    @property
    def template(self) -> TurnTemplate:
        """How chats are written: the model's own turns, or plain words for a base model."""
        own = self.lm.tokenizer.turn if self.lm.instruction_tuned else None
        return own or PLAIN

    @property
    def ready(self) -> bool:
        """Whether requests will be served."""
        return self.thread.alive and not self.engine.closing

    def start(self) -> None:
        """Starts the engine's thread."""
        self.thread.__enter__()

    def stop(self) -> None:
        """Ends the engine's thread and what is still under way."""
        self.thread.stop()
        if self._own_folder is not None:
            self._own_folder.cleanup()

    def read(self, ids: list[int], state: State | None, owner: str = "") -> State:
        """Reads ids after a state, among all other requests; called from a thread that may wait."""
        request = Request(
            ids=ids,
            state=state,
            owner=owner,
            options=RowOptions(max_new_tokens=0),
            keep_state=True,
        )
        end = self.thread.serve(request)
        if end.state is None:
            raise InputError("the reading was cancelled")
        return end.state

    def row_options(
        self,
        body: Sampling,
        max_tokens: int | None,
        *,
        logprobs: bool = False,
        top_logprobs: int = 0,
        further_stops: tuple[str, ...] = (),
    ) -> RowOptions:
        """A request's options. Raises `InputError` where they are beyond what is allowed."""
        most = self.settings.max_tokens
        if max_tokens is not None and max_tokens > most:
            raise InputError(f"max_tokens is {max_tokens}; this server allows {most}")
        stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
        try:
            bias = {int(token): value for token, value in (body.logit_bias or {}).items()}
        except ValueError:
            raise InputError("logit_bias must have token ids as keys") from None
        return RowOptions(
            max_new_tokens=most if max_tokens is None else max_tokens,
            temperature=body.temperature,
            top_k=body.top_k,
            top_p=body.top_p,
            min_p=body.min_p,
            repetition_penalty=body.repetition_penalty,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
            seed=None if body.seed is None else body.seed % SEED_LIMIT,
            stop=(*stop, *further_stops),
            logit_bias=bias,
            logprobs=logprobs,
            top_logprobs=top_logprobs,
        )

    def check_model(self, name: str | None) -> None:
        """Raises `InputError` for another model than the one that is served."""
        if name is not None and name != self.name:
            raise InputError(f"the model {name!r:.80} is not served here; there is {self.name!r}")

    def check_prompt(self, ids: list[int]) -> list[int]:
        """The prompt. Raises `InputError` where it is longer than allowed."""
        if len(ids) > self.settings.max_prompt:
            raise InputError(
                f"the prompt has {len(ids)} tokens; this server reads {self.settings.max_prompt} "
                "at once: append longer texts to a session"
            )
        return ids
