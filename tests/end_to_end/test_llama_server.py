"""A real server and a real model behind the protocol that most teachers speak."""

import json
import threading
import time
import urllib.request

import openai
import pytest
from llama_server import llama_server

from drllama.students.catalogue import find_model

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
HELD = {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA}}


@pytest.fixture
def server(tmp_path):
    (gguf,) = find_model("smollm2-135m").files
    with llama_server(gguf, tmp_path / "server.log") as running:
        yield running


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=300) as client:
        yield client


def chat(client, server, text, *, max_tokens=24, **settings):
    return client.chat.completions.create(
        model=server.model,
        messages=[{"role": "system", "content": "You are a doctor."}, {"role": "user", "content": text}],
        max_tokens=max_tokens,
        temperature=0,
        **settings,
    )


def busy(server):
    with urllib.request.urlopen(server.base_url.removesuffix("/v1") + "/slots", timeout=60) as slots:
        return any(slot["is_processing"] for slot in json.load(slots))


def test_a_real_server_answers_and_its_death_is_a_connection_error(server, client):
    plain = chat(client, server, "Does aspirin lower fever?")
    penalised = chat(client, server, "Does aspirin lower fever?", extra_body={"repeat_penalty": 2.0})
    held = chat(client, server, "Does aspirin lower fever? Answer as JSON.", max_tokens=64, response_format=HELD)

    for reply in (plain, penalised, held):
        (choice,) = reply.choices
        assert choice.finish_reason in {"stop", "length"}
        assert choice.message.content
        assert reply.model == server.model
        assert reply.usage.prompt_tokens > 0
        assert reply.usage.completion_tokens <= 64
    assert plain.choices[0].message.content != penalised.choices[0].message.content
    assert len({plain.id, penalised.id, held.id}) == 3
    answer = json.loads(held.choices[0].message.content)
    assert set(answer) == {"question", "label"}
    assert answer["label"] in SCHEMA["properties"]["label"]["enum"]

    outcome = []

    def ask_long():
        try:
            outcome.append(chat(client, server, "Tell a long story about a doctor.", max_tokens=64))
        except openai.OpenAIError as error:
            outcome.append(error)

    asking = threading.Thread(target=ask_long)
    asking.start()
    while not busy(server) and asking.is_alive():
        time.sleep(0.01)
    server.die()
    asking.join()
    assert [type(one) for one in outcome] == [openai.APIConnectionError]
    with pytest.raises(openai.APIConnectionError):
        chat(client, server, "Is anybody there?")
