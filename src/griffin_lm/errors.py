"""Every error that griffin-lm raises on purpose.

GriffinError
├── ConfigError              a setting that does not exist, or that contradicts another
├── InputError               tokens, shapes or options that a call cannot take
├── StateError               a state that is used up, of another model, or of another shape
├── CheckpointError          weights on disk
│   ├── CheckpointNotFound   nothing there, or nothing that is a checkpoint
│   ├── CheckpointCorrupt    truncated, not what its header says, not readable
│   ├── CheckpointMismatch   readable, but its tensors are not those of the model
│   └── HubError             a download that cannot go on: login, licence, network, room
├── TokenizerError           a vocabulary that cannot be read or is another model's
├── DataError                training or evaluation text that cannot be used
├── TrainingError            a run that must not go on
├── SessionError             a session of that name that is there already, or in use
│   └── SessionMissing       no session, or no response, of that name
├── Overloaded               a queue that is full, or a server that is closing: try again later
├── BackendUnavailable       a kernel asked for by name that cannot serve here
└── MissingExtra             an optional package that is not installed

The message says what was wrong, where, and what to do next.
"""


class GriffinError(Exception):
    """The root: `except griffin.GriffinError` catches whatever this package refuses."""


class ConfigError(GriffinError):
    """A setting that does not exist, or that contradicts another."""


class InputError(GriffinError, ValueError):
    """Tokens, shapes or options that a call cannot take."""


class StateError(GriffinError):
    """A state that is used up, belongs to another model, or has another shape."""


class CheckpointError(GriffinError):
    """Something about weights on disk."""


class CheckpointNotFound(CheckpointError):
    """Nothing at that path, or nothing that is a checkpoint."""


class CheckpointCorrupt(CheckpointError):
    """A file that is truncated or is not what its header says."""


class CheckpointMismatch(CheckpointError):
    """A readable file whose tensors are not those of the model."""


class HubError(CheckpointError):
    """A download that cannot go on: login, licence, network, or room for it."""


class TokenizerError(GriffinError):
    """A vocabulary that cannot be read, or that belongs to another model."""


class DataError(GriffinError):
    """Text for training or evaluation that cannot be used."""


class TrainingError(GriffinError):
    """A training run that must not go on."""


class SessionError(GriffinError):
    """A session of that name that is there already, or is in use."""


class SessionMissing(SessionError):
    """No session, or no response, of that name."""


class Overloaded(GriffinError):
    """A queue that is full, or a server that is closing: try again later."""


class BackendUnavailable(GriffinError):
    """A kernel asked for by name that cannot serve here."""


class MissingExtra(GriffinError):
    """An optional package that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed; "
            f"run: pip install 'griffin-lm[{extra}]'"
        )
