"""What a person can get wrong. Each message is one line: what, the value, where, and the way out.

DrLlamaError
├── RecipeError    a setting is unknown, missing or out of range
├── DataError      a file of questions can't be read as what the recipe says it is
├── ModelError     a student's weights are missing, changed or of the wrong kind
├── MissingExtra   a package that this command needs isn't installed
├── OverlapError   a student would be scored on questions that it was trained on
├── StoreError     a result can't be written or read
├── BatchPending   requests are out in a batch; the same command comes back for them
├── BudgetSpent    the next request would pass a limit of money, calls or time
├── TimeUp         the time that a command was given is over
└── TeacherFailure a request to a large model got no reply; its kind says what may help
    └── NotSent    an earlier failure stopped this request before it was sent
"""

from functools import partial


class DrLlamaError(Exception):
    """The root of all errors that a person can cause and mend; the command line prints it as one line."""


class RecipeError(DrLlamaError):
    """A setting of the recipe is unknown, missing or out of range."""


class DataError(DrLlamaError):
    """A file of questions can't be read as what the recipe says it is."""


class ModelError(DrLlamaError):
    """A student's weights are missing, changed or of the wrong kind."""


class MissingExtra(DrLlamaError):
    """A package that this command needs isn't installed."""


class OverlapError(DrLlamaError):
    """A student would be scored on questions that it was trained on."""


class StoreError(DrLlamaError):
    """A result can't be written or read."""


class TeacherFailure(DrLlamaError):
    """A request to a large model got no reply.

    ``kind`` is a value of ``types.FailureKind``; ``retry_after_seconds`` is what the server asked for, if it did.
    """

    def __init__(self, message: str, *, kind: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_seconds = retry_after_seconds

    def __reduce__(self) -> tuple[object, ...]:
        # An exception is copied by calling its class with its args alone, which would forget the kind.
        remade = partial(type(self), kind=self.kind, retry_after_seconds=self.retry_after_seconds)
        return remade, self.args


class BatchPending(DrLlamaError):
    """Requests are out at a server as a batch; the same command, later, comes back for the replies."""


class NotSent(TeacherFailure):
    """An earlier failure, whose kind and words these are, stopped this request too: it wasn't sent."""


class TimeUp(DrLlamaError):
    """The time that a command was given is over; what was finished is kept, and the same command goes on."""


class BudgetSpent(DrLlamaError):
    """A limit of money, calls or time would be passed by the next request; nothing was sent."""
