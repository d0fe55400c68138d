"""data-designer: one column that a model writes, from a seed of prompts."""

import os

os.environ["NEMO_TELEMETRY_ENABLED"] = "false"

from pathlib import Path

import data_designer.config as dd
import pandas
from data_designer.interface import DataDesigner
from measured import main


def run(url: str, prompts: list[dict[str, str]], in_flight: int, folder: Path) -> int:
    os.environ.setdefault("PEER_KEY", "none")
    provider = dd.ModelProvider(name="server", endpoint=url, provider_type="openai", api_key="PEER_KEY")
    model = dd.ModelConfig(
        alias="m",
        model="m",
        provider="server",
        skip_health_check=True,
        inference_parameters=dd.ChatCompletionInferenceParams(
            temperature=0.8, max_tokens=256, max_parallel_requests=in_flight
        ),
    )
    config = dd.DataDesignerConfigBuilder(model_configs=[model])
    config.with_seed_dataset(dd.DataFrameSeedSource(df=pandas.DataFrame(prompts)))
    config.add_column(
        dd.LLMTextColumnConfig(name="reply", model_alias="m", system_prompt="{{ system }}", prompt="{{ user }}")
    )
    designer = DataDesigner(artifact_path=folder, model_providers=[provider])
    designer.set_run_config(dd.RunConfig(buffer_size=len(prompts), max_in_flight_tasks=max(1024, in_flight)))
    made = designer.create(config, num_records=len(prompts)).load_dataset()
    return int((made["reply"].str.len() > 0).sum())


if __name__ == "__main__":
    main(run)
