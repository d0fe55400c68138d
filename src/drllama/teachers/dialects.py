"""Sampling settings in the words of each kind of server, so that the same settings draw from the same distribution."""

from typing import assert_never

from drllama.errors import RecipeError
from drllama.recipe import Dialect
from drllama.types import Sampling

# Longer than what a teacher is asked and answers. The server knew -1 for "all of it" once, and refuses it now.
_WHOLE_CONTEXT = 131_072


def sampling_fields(sampling: Sampling, dialect: Dialect) -> dict[str, object]:
    """Return temperature, top_p and repetition penalty as a dialect says them.

    A server of one's own has defaults that change what is drawn, or takes them from the model's files: where the
    dialect has a word for such a setting, it is sent, switched off.

    Raises:
        RecipeError: the dialect has no word for a setting that was asked for.
    """
    fields: dict[str, object] = {"temperature": sampling.temperature}
    if sampling.top_p is not None:
        fields["top_p"] = sampling.top_p
    penalty = sampling.repetition_penalty
    match dialect:
        case "vllm":
            # What isn't sent comes from the model's generation_config.json.
            said = {"repetition_penalty": 1.0 if penalty is None else penalty}
            return {"top_p": 1.0, "top_k": -1, "min_p": 0.0} | fields | said
        case "llama.cpp":
            # Its own defaults: top_k 40, top_p 0.95, min_p 0.05, and a penalty that forgets all but 64 tokens. A GGUF
            # file may bring others. The order is that of other servers, which cut after the temperature.
            said = {"repeat_penalty": 1.0 if penalty is None else penalty}
            if penalty is not None:
                said["repeat_last_n"] = _WHOLE_CONTEXT
            plain = {"samplers": ["penalties", "temperature", "top_p"], "top_p": 1.0, "top_k": 0, "min_p": 0.0}
            return plain | {"mirostat": 0} | fields | said
        case "openai" | "ollama":
            if penalty is not None:
                raise RecipeError(_no_penalty(dialect, penalty))
            # Ollama puts top_p 1 itself; top_k, min_p and the penalty come from the model's file and can't be sent.
            return fields
        case _ as other:
            assert_never(other)


def _no_penalty(dialect: Dialect, penalty: float) -> str:
    if dialect == "ollama":
        return (
            "endpoint dialect ollama doesn't take repetition_penalty over chat completions; remove it and write "
            f"PARAMETER repeat_penalty {penalty:g} into the model's Modelfile"
        )
    return (
        f"endpoint dialect {dialect} doesn't know repetition_penalty; remove it or set teacher.dialect to "
        "vllm or llama.cpp, if the server is one"
    )
