"""bespokelabs-curator: one LLM over a list of prompts; telemetry, viewer and cache are off.

Its tokenizer comes from the network; a guess by length stands in for it, which costs less.
"""

import os

os.environ.update(TELEMETRY_ENABLED="false", CURATOR_DISABLE_CACHE="1", CURATOR_VIEWER="0", OPENAI_API_KEY="none")

from pathlib import Path

from bespokelabs import curator
from bespokelabs.curator.request_processor.online.openai_online_request_processor import OpenAIOnlineRequestProcessor
from measured import main


class Guess:
    """Counts four characters as a token."""

    def encode(self, text: str, **_: object) -> range:
        return range(len(text) // 4)


OpenAIOnlineRequestProcessor.get_token_encoding = lambda _: Guess()


class Teacher(curator.LLM):
    """Sends both messages and keeps the text."""

    def prompt(self, row: dict[str, str]) -> list[dict[str, str]]:
        return [{"role": "system", "content": row["system"]}, {"role": "user", "content": row["user"]}]

    def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
        return {"reply": response}


def run(url: str, prompts: list[dict[str, str]], in_flight: int, folder: Path) -> int:
    teacher = Teacher(
        model_name="m",
        backend="openai",
        generation_params={"temperature": 0.8, "max_tokens": 256},
        backend_params={
            "base_url": url,
            "max_concurrent_requests": in_flight,
            "max_requests_per_minute": 10_000_000,
            "max_tokens_per_minute": 10_000_000_000,
            "max_retries": 1,
        },
    )
    made = teacher(prompts, working_dir=str(folder)).dataset
    return sum(1 for row in made if row["reply"])


if __name__ == "__main__":
    main(run)
