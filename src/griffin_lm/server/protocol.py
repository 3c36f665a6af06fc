"""The bodies of requests, with OpenAI's names; a field that would be ignored is refused instead."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MOST_CHOICES = 16
Text = Annotated[str, StringConstraints(max_length=64_000_000)]
Stop = str | Annotated[list[str], Field(max_length=16)] | None
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Bias = Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=4096)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class Body(BaseModel):
    """Any body: unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid", strict=False)


class StreamOptions(Body):
    """include_usage: a last chunk says how many tokens it was."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Sampling(Body):
    """What every request for text may say. OpenAI's fields, then those of `lm.generate`."""

    temperature: float = Field(1.0, ge=0, le=100, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int | None = Field(None, ge=1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=1e6)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    seed: Seed | None = None
    stop: Stop = None
    logit_bias: Bias | None = None
    user: str | None = None


class CompletionRequest(Sampling):
    """POST /v1/completions."""

    model: str | None = None
    prompt: (
        Text
        | Annotated[list[Text], Field(max_length=256)]
        | list[TokenId]
        | Annotated[list[list[TokenId]], Field(max_length=256)]
    ) = ""
    max_tokens: int | None = Field(16, ge=0)
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    best_of: int | None = None
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=20)
    stream: bool = False
    stream_options: StreamOptions | None = None
    suffix: None = None


class Breakpoint(Body):
    """The end of a beginning that prompts share: the cache keeps the state there."""

    mode: Literal["explicit"]


class Part(BaseModel):
    """A part of a message; only text can be read."""

    type: Literal["text", "input_text", "output_text"]
    text: Text
    prompt_cache_breakpoint: Breakpoint | None = None
    annotations: Any = None
    logprobs: Any = None


Content = Text | list[Part]


class Message(BaseModel):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: str | None = None


class ResponseFormat(Body):
    """Only text."""

    type: Literal["text"]


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    model: str | None = None
    messages: list[Message] = Field(min_length=1, max_length=10_000)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None


class InputItem(BaseModel):
    """A message in the input of a response; what an earlier response put out may stand here too."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    id: str | None = None
    status: str | None = None


class ResponsesRequest(Body):
    """POST /v1/responses."""

    model: str | None = None
    input: Text | Annotated[list[InputItem], Field(min_length=1, max_length=10_000)]
    instructions: Text | None = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=100, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: Seed | None = None
    stream: bool = False
    store: bool = True
    metadata: dict[str, str] | None = None
    user: str | None = None


class CreateSession(Body):
    """POST /v1/sessions."""

    id: str | None = None


class Append(Body):
    """POST /v1/sessions/{id}/append with a JSON body."""

    text: Text
    raw: bool = False
    note: bool = False


class Ask(Sampling):
    """POST /v1/sessions/{id}/ask."""

    input: Text
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stream: bool = False
    stream_options: StreamOptions | None = None


class Fork(Body):
    """POST /v1/sessions/{id}/fork."""

    id: str | None = None


class Rewind(Body):
    """POST /v1/sessions/{id}/rewind."""

    tokens: int = Field(ge=0, lt=2**62)
