"""The options that limit what a command may spend, the same for every command that asks a teacher."""

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

MaxUsd = Annotated[float | None, typer.Option("--max-usd", help="Spend at most so much; an unknown price is refused.")]
MaxCalls = Annotated[int | None, typer.Option("--max-calls", help="Send at most so many requests, repeats included.")]
MaxMinutes = Annotated[
    float | None, typer.Option("--max-minutes", help="End after so many minutes; what is finished is kept.")
]


def limited(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with three options in the place of its last parameter, ``limits``."""

    def with_options(
        *, max_usd: MaxUsd = None, max_calls: MaxCalls = None, max_minutes: MaxMinutes = None, **others: object
    ) -> None:
        from drllama.teaching import Limits

        command(**others, limits=Limits(max_usd=max_usd, max_calls=max_calls, max_minutes=max_minutes))

    *own, last = inspect.signature(command).parameters.values()
    *options, _ = inspect.signature(with_options).parameters.values()
    assert last.name == "limits"
    shown = [*(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own), *options]
    # Typer reads the signature for the defaults, and the annotations for the rest.
    with_options.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    with_options.__annotations__ = {one.name: one.annotation for one in shown}
    with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
    return with_options
