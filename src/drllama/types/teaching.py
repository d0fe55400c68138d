"""What a teacher is asked, what it answers, and the candidates that come of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from drllama.ids import fingerprint
from drllama.types.answers import Evaluation
from drllama.types.questions import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of what a teacher is told."""

    role: Literal["system", "user"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a teacher draws its words; a setting that an endpoint doesn't know is refused, never dropped."""

    temperature: float
    max_tokens: int
    """Longest reply."""
    top_p: float | None = None
    repetition_penalty: float | None = None
    """Divides the odds of words already said; 1 is none. Not in OpenAI's dialect, but in vLLM's and llama.cpp's."""

    def __post_init__(self) -> None:
        # 1 and 1.0, 0.0 and -0.0 ask for the same, but would be written, and so hashed, differently.
        for name in ("temperature", "top_p", "repetition_penalty"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(value) + 0.0)


class ReplyForm(StrEnum):
    """How a structured reply is asked for; which of them an endpoint knows is found out once."""

    SCHEMA = "schema"
    """The server holds the reply to a JSON schema."""
    JSON = "json"
    """The server holds the reply to JSON; the prompt tells the fields."""
    PROMPT = "prompt"
    """The prompt alone asks for JSON."""


class _KeyOnce:
    """Room for a request's key: it is asked for several times, and a hash of all that is sent takes its time."""

    __slots__ = ("_key",)
    _key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherRequest(_KeyOnce):
    """Everything that one question to a teacher consists of."""

    endpoint: str
    """The base URL, or ``local:`` and the hash of the weights."""
    model: str
    prompt: str
    """The template's version, such as ``rewrite.v1``."""
    prompt_sha256: str
    messages: tuple[Message, ...]
    sampling: Sampling
    form: ReplyForm
    schema: Mapping[str, object]
    """The JSON schema of the reply."""
    rollout: int
    """Which of several draws for the same messages, from 0; never sent, but part of the key."""
    dialect: str = "openai"
    """In which words the sampling settings are sent; another kind of server is told more than OpenAI's."""

    @property
    def key(self) -> str:
        """Return the fingerprint of all that is sent, where it is sent, and the rollout."""
        try:
            key: str = self._key
        except AttributeError:
            key = self._fingerprint()
            object.__setattr__(self, "_key", key)
        return key

    def _fingerprint(self) -> str:
        return fingerprint(
            {
                "endpoint": self.endpoint,
                "model": self.model,
                "messages": [[one.role, one.content] for one in self.messages],
                "sampling": {name: getattr(self.sampling, name) for name in Sampling.__slots__},
                "form": self.form,
                "schema": self.schema,
                "rollout": self.rollout,
                # OpenAI's words are what is sent already; another dialect's follow from its name.
                **({} if self.dialect == "openai" else {"dialect": self.dialect}),
            }
        )


class Finish(StrEnum):
    """Why a reply ended."""

    STOP = "stop"
    LENGTH = "length"
    """It reached ``max_tokens``: a JSON object is likely cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a teacher answered."""

    text: str
    finish: Finish
    tokens_in: int | None
    """None where the server doesn't tell."""
    tokens_out: int | None
    seconds: float
    cost_usd: float | None
    """None: unknown, never 0 for a call that may have cost something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the replies to one prompt took, kept ones included; failed attempts aren't in it."""

    prompt: str
    """The template's version."""
    num_replies: int = 0
    tokens_in: int = 0
    """Sum over the replies whose server told."""
    tokens_out: int = 0
    num_untold: int = 0
    """Replies whose server told no tokens, or only one of the two numbers."""
    usd: float = 0.0
    """Sum over the replies whose cost is known."""
    num_unpriced: int = 0
    """Replies whose cost is unknown; they aren't in the sum."""
    seconds: float = 0.0
    """Sum of what each reply took; several are under way at once."""


class FailureKind(StrEnum):
    """Why a request got no reply; each kind has its own policy."""

    RATE = "rate"
    """Too many requests: wait as told, then again."""
    TRANSIENT = "transient"
    """The server or the connection broke: again, a bounded number of times."""
    TIMEOUT = "timeout"
    AUTH = "auth"
    """The key is missing or refused: stop the stage."""
    QUOTA = "quota"
    """The account is empty: stop the stage."""
    BAD_REQUEST = "bad request"
    """This request will never be answered; the others may."""
    CONTENT_FILTER = "content filter"
    UNREADABLE = "unreadable"
    """The server's answer isn't what its protocol says, no choices in it for instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherCall:
    """A request and its reply."""

    request: TeacherRequest
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Unparsed:
    """A reply, or a part of one, that can't be read as what was asked for; never a default label."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An example out of a teacher's reply, not yet filtered."""

    example: Example
    prompt: str
    """The template's version."""
    rollout: int

    @property
    def id(self) -> str:
        """Return the candidate's name: its call and its place in the reply."""
        return self.example.origin.source_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """A teacher's blind answers to the dev questions, beside the majority baseline and the student."""

    teacher: Evaluation
    majority: Evaluation
    student: Evaluation | None
    """The untrained student on the same questions; None: it wasn't asked."""
    failures: Mapping[str, int]
    """Why questions got no reply, and how many each."""
    may_write_new: bool
    """Its accuracy is clearly above the majority's: the interval's low end lies over it."""
    verdict: str
    """What follows, in one sentence."""
