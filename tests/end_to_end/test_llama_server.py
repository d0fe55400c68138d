"""A real server and a real model behind the protocol that most teachers speak."""

import asyncio
import json
import threading
import time
import urllib.request

import pytest
from llama_server import llama_server

from drllama.errors import TeacherFailure
from drllama.recipe import Endpoint
from drllama.students.catalogue import find_model
from drllama.teachers import ChatEndpoint
from drllama.types import FailureKind, Finish, Message, Reply, ReplyForm, Sampling, TeacherRequest

pytestmark = pytest.mark.slow

SCHEMA = {
    "type": "object",
    "properties": {
        "question": {"type": "string", "maxLength": 60},
        "label": {"type": "string", "enum": ["yes", "no", "maybe"]},
    },
    "required": ["question", "label"],
    "additionalProperties": False,
}


@pytest.fixture
def server(tmp_path):
    (gguf,) = find_model("smollm2-135m").files
    with llama_server(gguf, tmp_path / "server.log") as running:
        yield running


def chat(server, text, *, max_tokens=24, form=ReplyForm.PROMPT, **sampling):
    """Return the reply of the server, or why there is none."""
    settings = Endpoint(base_url=server.base_url, model=server.model, dialect="llama.cpp", timeout_seconds=300)

    async def main():
        async with ChatEndpoint(settings) as teacher:
            asked = TeacherRequest(
                endpoint=teacher.endpoint,
                model=server.model,
                prompt="answer.v1",
                prompt_sha256="0" * 64,
                messages=(Message(role="system", content="You are a doctor."), Message(role="user", content=text)),
                sampling=Sampling(**{"temperature": 0, "max_tokens": max_tokens, **sampling}),
                form=form,
                schema=SCHEMA,
                rollout=0,
            )
            try:
                return await teacher.ask(asked)
            except TeacherFailure as failure:
                return failure

    return asyncio.run(main())


def slots(server):
    with urllib.request.urlopen(server.base_url.removesuffix("/v1") + "/slots", timeout=60) as told:
        return json.load(told)


def test_a_real_server_answers_and_its_death_is_a_connection_error(server):
    plain = chat(server, "Does aspirin lower fever?")
    penalised = chat(server, "Does aspirin lower fever?", repetition_penalty=2.0)
    held = chat(server, "Does aspirin lower fever? Answer as JSON.", max_tokens=64, form=ReplyForm.SCHEMA)

    for reply in (plain, penalised, held):
        assert isinstance(reply, Reply), reply
        assert reply.finish in {Finish.STOP, Finish.LENGTH} and reply.text
        assert reply.tokens_in > 0 and 0 < reply.tokens_out <= 64
    assert plain.text != penalised.text
    answer = json.loads(held.text)
    assert set(answer) == {"question", "label"}
    assert answer["label"] in SCHEMA["properties"]["label"]["enum"]

    outcome = []
    asking = threading.Thread(
        target=lambda: outcome.append(chat(server, "Tell a long story about a doctor.", max_tokens=64))
    )
    asking.start()
    while not any(slot["is_processing"] for slot in slots(server)) and asking.is_alive():
        time.sleep(0.01)
    server.die()
    asking.join()
    outcome.append(chat(server, "Is anybody there?"))
    assert [one.kind for one in outcome] == [FailureKind.TRANSIENT] * 2


def test_a_real_server_draws_as_it_is_told_and_not_by_its_own_settings(server):
    assert isinstance(chat(server, "Is it so?", temperature=0.7, top_p=0.9, repetition_penalty=1.5), Reply)
    (used,) = [slot["params"] for slot in slots(server) if "params" in slot]
    assert used["samplers"] == ["penalties", "temperature", "top_p"]
    assert (used["top_k"], used["min_p"], used["mirostat"]) == (0, 0, 0)
    assert used["temperature"] == pytest.approx(0.7) and used["top_p"] == pytest.approx(0.9)
    assert used["repeat_penalty"] == 1.5 and used["repeat_last_n"] >= slots(server)[0]["n_ctx"]
