"""A causal language model in this process as a teacher: many requests in one batch, each with a draw of its own.

Letters: B rows of a batch, T tokens of a row, V vocabulary. Rows are padded on the left, so that all of them speak
next at the same place; the mask hides the padding and position ids count from each row's own first token.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from drllama.errors import ModelError, TeacherFailure
from drllama.ids import derive_seed
from drllama.teachers.json_end import object_end
from drllama.types import FailureKind, Finish, Message, Reply, ReplyForm, Sampling, TeacherRequest

# Requests that are sent together arrive within a few turns of the event loop; a batch waits this long for them.
_GATHERING_SECONDS = 0.01


@dataclass(slots=True, kw_only=True, eq=False)
class _Row:
    """A request on its way to its reply."""

    request: TeacherRequest
    prompt: list[int] = field(default_factory=list)
    said: list[int] = field(default_factory=list)
    outcome: Reply | TeacherFailure | None = None
    abandoned: bool = False
    """Whoever asked no longer waits."""


def endpoint_of(weights_sha256: str) -> str:
    """Return what a model in this process is called in requests."""
    return f"local:{weights_sha256[:16]}"


class LocalTeacher:
    """Answers with a loaded causal language model of transformers; it satisfies ``protocols.Teacher``.

    A reply ends with its first JSON object, with the model's own end token, or at ``max_tokens``. It is drawn with a
    seed derived from ``request.key``: the same request gets the same reply whatever it is batched with and whenever
    it comes, up to the rounding of the device (seen to hold in float32; bfloat16 rounds coarsely enough that a near
    tie between two words may fall differently in another batch). A repetition penalty counts the prompt's words too,
    as transformers does.

    ``cost_usd`` is 0: nobody is paid. ``seconds`` run from the start of the batch. ``tokens_out`` counts every token
    drawn, the end token too.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401  any causal language model of transformers, in evaluation mode
        tokenizer: Any,  # noqa: ANN401
        *,
        weights_sha256: str,
        batch_size: int,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._endpoint = endpoint_of(weights_sha256)
        self._batch_size = batch_size
        self._end_tokens = _end_tokens(model, tokenizer)
        self._waiting: list[_Row] = []
        self._turn: asyncio.Task[None] | None = None

    @property
    def endpoint(self) -> str:
        """Return ``local:`` and the start of the hash of the weights."""
        return self._endpoint

    async def ask(self, request: TeacherRequest) -> Reply:
        """Return the reply, up to and including the end of its JSON object.

        Requests that wait at the same time are answered together, ``batch_size`` at most; the event loop stays free.
        Whoever stops waiting takes only their own request out of the batch.

        Raises:
            TeacherFailure: the prompt doesn't fit the model, the form isn't ``prompt``, or its scores aren't numbers.
            ModelError: the batch doesn't fit the device's memory.
        """
        assert request.endpoint == self.endpoint, f"request for {request.endpoint}, teacher is {self.endpoint}"
        row = _Row(request=request)
        self._waiting.append(row)
        try:
            while row.outcome is None:
                if self._turn is None or self._turn.done():
                    self._turn = asyncio.create_task(self._answer_waiting())
                # Shielded: the turn also speaks for others.
                await asyncio.shield(self._turn)
        finally:
            row.abandoned = True
        if isinstance(row.outcome, TeacherFailure):
            raise row.outcome
        return row.outcome

    async def _answer_waiting(self) -> None:
        if len(self._waiting) < self._batch_size:
            await asyncio.sleep(_GATHERING_SECONDS)
        ready = [row for row in self._waiting if not row.abandoned]
        batch, self._waiting = ready[: self._batch_size], ready[self._batch_size :]
        if batch:
            # The tokenizer too is used in the thread only: it can't be shared between two.
            await asyncio.to_thread(self._answer, batch)

    def _answer(self, batch: Sequence[_Row]) -> None:
        started = time.monotonic()
        for row in batch:
            row.prompt = self._prompt(row.request.messages)
            row.outcome = self._refusal(row)
        rows = [row for row in batch if row.outcome is None]
        try:
            self._speak(rows, started)
        except torch.OutOfMemoryError as error:
            longest = max(len(row.prompt) + len(row.said) for row in rows)
            raise ModelError(
                f"local teacher: {len(rows)} requests of up to {longest} tokens don't fit the memory of "
                f"{self._model.device}; lower the teacher's batch_size"
            ) from error

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        joined = "\n\n".join(message.content for message in messages)
        if not self._tokenizer.chat_template:
            return list(self._tokenizer(joined + "\n\n")["input_ids"])
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except TemplateError:
            # Some models know no system turn, and their templates say so by an error.
            turns = [{"role": "user", "content": joined}]
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        # The template has written the special tokens already.
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _refusal(self, row: _Row) -> TeacherFailure | None:
        if row.request.form is not ReplyForm.PROMPT:
            return TeacherFailure(
                f"local teacher: replies can't be held to form '{row.request.form}'; ask with form 'prompt'",
                kind=FailureKind.BAD_REQUEST,
            )
        window = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if window is not None and len(row.prompt) + row.request.sampling.max_tokens > window:
            return TeacherFailure(
                f"local teacher: a prompt of {len(row.prompt)} tokens and a reply of up to "
                f"{row.request.sampling.max_tokens} don't fit the model's {window}; shorten one of them",
                kind=FailureKind.BAD_REQUEST,
            )
        return None

    @torch.inference_mode()
    def _speak(self, rows: list[_Row], started: float) -> None:
        """Give every row an outcome, but those that are abandoned; a row that has one leaves the batch."""
        draws = {id(row): _Draw(row.request, self._model.device) for row in rows}
        tokens_BT, mask_BT, positions_BT = _left_padded([row.prompt for row in rows], self._model.device)
        cache = None
        while rows:
            read = self._model(
                input_ids=tokens_BT,
                attention_mask=mask_BT,
                position_ids=positions_BT,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = read.past_key_values
            self._say(rows, read.logits[:, -1].float(), draws)
            for row in rows:
                row.outcome = row.outcome or self._reply(row, started)
            going = [at for at, row in enumerate(rows) if row.outcome is None and not row.abandoned]
            if len(going) < len(rows):
                rows = [rows[at] for at in going]
                going_B = torch.tensor(going, dtype=torch.long, device=mask_BT.device)
                cache.batch_select_indices(going_B)
                mask_BT, positions_BT = mask_BT[going_B], positions_BT[going_B]
            tokens_BT = torch.tensor([[row.said[-1]] for row in rows], device=mask_BT.device)
            mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(rows), 1)], dim=1)
            positions_BT = positions_BT[:, -1:] + 1

    def _say(self, rows: Sequence[_Row], logits_BV: torch.Tensor, draws: dict[int, "_Draw"]) -> None:
        assert logits_BV.shape[0] == len(rows), f"logits {tuple(logits_BV.shape)} for {len(rows)} rows"
        # Asked before drawing: on a GPU, a draw from scores that aren't numbers ends the process.
        sound_B = logits_BV.amax(dim=-1).isfinite()
        logits_BV = logits_BV.masked_fill(~sound_B[:, None], 0)
        drawn_B = torch.cat(
            [draws[id(row)](row.prompt + row.said, logits_BV[at : at + 1]) for at, row in enumerate(rows)]
        )
        for row, sound, token in zip(rows, sound_B.tolist(), drawn_B.tolist(), strict=True):
            row.said.append(token)
            if not sound:
                row.outcome = TeacherFailure(
                    f"local teacher: after {len(row.said) - 1} tokens of reply the scores aren't numbers; "
                    "use other weights, or float32",
                    kind=FailureKind.UNREADABLE,
                )

    def _reply(self, row: _Row, started: float) -> Reply | None:
        token, full = row.said[-1], len(row.said) >= row.request.sampling.max_tokens
        ended = token in self._end_tokens
        if not (ended or full or "}" in self._text([token])):
            return None
        text = self._text(row.said)
        end = object_end(text)
        if end is None and not (ended or full):
            return None
        return Reply(
            text=text[:end],
            finish=Finish.STOP if ended or end is not None else Finish.LENGTH,
            tokens_in=len(row.prompt),
            tokens_out=len(row.said),
            seconds=time.monotonic() - started,
            cost_usd=0.0,
        )

    def _text(self, tokens: Sequence[int]) -> str:
        # The clean-up of old tokenizers would take away spaces before punctuation.
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class _Draw:
    """Draws one row's next token; rows are drawn one by one, so that padding is never penalised as a repeated word."""

    def __init__(self, request: TeacherRequest, device: torch.device) -> None:
        self._greedy = request.sampling.temperature == 0
        self._warpers = _warpers(request.sampling)
        seed = derive_seed(0, "local teacher", request.key)
        self._generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, tokens: Sequence[int], logits_1V: torch.Tensor) -> torch.Tensor:
        tokens_1T = torch.tensor([tokens], device=logits_1V.device)
        for warper in self._warpers:
            logits_1V = warper(tokens_1T, logits_1V)
        if self._greedy:
            return logits_1V.argmax(dim=-1)
        return torch.multinomial(logits_1V.softmax(dim=-1), 1, generator=self._generator)[:, 0]


def _warpers(sampling: Sampling) -> list[Any]:
    """Return what changes the scores before a draw, in the order of transformers' own ``generate``."""
    warpers: list[Any] = []
    if sampling.repetition_penalty is not None:
        warpers.append(RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty)))
    if sampling.temperature != 0:
        warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_p is not None:
        warpers.append(TopPLogitsWarper(float(sampling.top_p)))
    return warpers


def _left_padded(
    rows: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return tokens_BT, mask_BT (1: a token, 0: padding) and position ids, which count from each row's first token."""
    longest = max(map(len, rows), default=0)
    tokens_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    mask_BT = torch.zeros_like(tokens_BT)
    for row, tokens in enumerate(rows):
        tokens_BT[row, longest - len(tokens) :] = torch.tensor(tokens)
        mask_BT[row, longest - len(tokens) :] = 1
    positions_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)
    return tokens_BT.to(device), mask_BT.to(device), positions_BT.to(device)


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:  # noqa: ANN401
    # Chat models often name several in the generation settings and only one of them in the tokenizer.
    named = model.generation_config.eos_token_id
    listed = named if isinstance(named, list) else [named]
    return frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)
