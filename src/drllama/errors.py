"""What a person can get wrong. Each message is one line: what, the value, where, and the way out.

DrLlamaError
├── RecipeError    a setting is unknown, missing or out of range
├── DataError      a file of questions can't be read as what the recipe says it is
├── ModelError     a student's weights are missing, changed or of the wrong kind
├── MissingExtra   a package that this command needs isn't installed
├── OverlapError   a student would be scored on questions that it was trained on
└── StoreError     a result can't be written or read
"""


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
