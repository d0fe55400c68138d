"""The bare openai client, no retries: what a teacher written on it could reach at most."""

import asyncio
from pathlib import Path

import openai
from measured import main


async def ask_all(url: str, prompts: list[dict[str, str]], in_flight: int) -> int:
    waiting, replies = iter(prompts), 0
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def work() -> None:
            nonlocal replies
            for one in waiting:
                answer = await client.chat.completions.create(
                    model="m",
                    messages=[{"role": "system", "content": one["system"]}, {"role": "user", "content": one["user"]}],
                    temperature=0.8,
                    max_tokens=256,
                )
                replies += bool(answer.choices[0].message.content)

        await asyncio.gather(*(work() for _ in range(in_flight)))
    return replies


def run(url: str, prompts: list[dict[str, str]], in_flight: int, folder: Path) -> int:
    return asyncio.run(ask_all(url, prompts, in_flight))


if __name__ == "__main__":
    main(run)
