"""distilabel: a pipeline of one task, TextGeneration, over rows of prompts; its cache is off."""

from pathlib import Path

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from measured import main


def run(url: str, prompts: list[dict[str, str]], in_flight: int, folder: Path) -> int:
    llm = OpenAILLM(
        base_url=url,
        api_key="none",
        model="m",
        max_retries=0,
        generation_kwargs={"temperature": 0.8, "max_new_tokens": 256},
    )
    with Pipeline(name="peer", cache_dir=folder) as pipeline:
        rows = LoadDataFromDicts(
            data=[{"system_prompt": one["system"], "instruction": one["user"]} for one in prompts],
            batch_size=in_flight,
        )
        rows >> TextGeneration(llm=llm, input_batch_size=in_flight)
    made = pipeline.run(use_cache=False)["default"]["train"]
    return sum(1 for reply in made["generation"] if reply)


if __name__ == "__main__":
    main(run)
