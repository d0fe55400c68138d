"""Times a peer's updates on rows that are given; run by ``finetune.py`` in the peer's own environment.

    PEER/bin/python benchmarks/peers/tuners.py WAY FOLDER

FOLDER holds rows.jsonl (text and tokens of each row, in the order of the batches) and settings.json. The last line
printed is JSON: the seconds of each update, the highest resident memory, and the loss that the peer reported.
Every peer gets fp32, no checkpointing of activations, no packing, no worker processes, and the batches in their order.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace as Settings

from clock import now, rss_mib
from transformers import TrainerCallback, TrainingArguments

LONGEST = 512
"""To which the paper's scheme pads every row."""


class Clock(TrainerCallback):
    """Notes when each update ended."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, *_: object, **__: object) -> None:
        self.ended.append(now())

    def on_train_begin(self, *_: object, **__: object) -> None:
        self.ended = [now()]

    def on_log(self, *_: object, logs: dict[str, float], **__: object) -> None:
        self.losses += [logs["loss"]] if "loss" in logs else []


def arguments(settings: Settings, kind: type = TrainingArguments, *, at_once: int, **more: object) -> TrainingArguments:
    return kind(
        output_dir=settings.folder,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=settings.batch // at_once,
        max_steps=settings.updates,
        learning_rate=settings.learning_rate,
        train_sampling_strategy="sequential",
        use_cpu=True,
        bf16=settings.dtype == "bfloat16",
        gradient_checkpointing=False,
        save_strategy="no",
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        **more,
    )


def lora(settings: Settings) -> object:
    import peft

    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules=settings.targets,
    )


def model_and_tokenizer(settings: Settings) -> tuple[object, object]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(settings.model, dtype=getattr(torch, settings.dtype))
    return model, AutoTokenizer.from_pretrained(settings.model)


def trl(settings: Settings, rows: list[dict], clock: Clock, *, at_once: int) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    told = [
        {
            "input_ids": row["prompt_tokens"] + row["answer_tokens"],
            "completion_mask": [0] * len(row["prompt_tokens"]) + [1] * len(row["answer_tokens"]),
        }
        for row in rows
    ]
    model, tokenizer = model_and_tokenizer(settings)
    SFTTrainer(
        model=model,
        args=arguments(
            settings, SFTConfig, at_once=at_once, max_length=None, completion_only_loss=True, loss_type="chunked_nll"
        ),
        train_dataset=Dataset.from_list(told),
        processing_class=tokenizer,
        peft_config=lora(settings),
        callbacks=[clock],
    ).train()


def transformers(settings: Settings, rows: list[dict], clock: Clock, *, as_in_the_paper: bool = False) -> None:
    import peft
    import torch
    from transformers import DataCollatorForSeq2Seq, Trainer

    told = []
    for row in rows:
        tokens = row["prompt_tokens"] + row["answer_tokens"]
        labels = [-100] * len(row["prompt_tokens"]) + row["answer_tokens"]
        told.append({"input_ids": tokens, "labels": tokens if as_in_the_paper else labels})
    model, tokenizer = model_and_tokenizer(settings)

    def padded(batch: Sequence[dict]) -> dict[str, torch.Tensor]:
        tokens = torch.tensor(
            [[tokenizer.eos_token_id] * (LONGEST - len(one["input_ids"])) + one["input_ids"] for one in batch]
        )
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens}

    Trainer(
        model=peft.get_peft_model(model, lora(settings)),
        args=arguments(settings, at_once=settings.batch),
        train_dataset=told,
        data_collator=padded if as_in_the_paper else DataCollatorForSeq2Seq(tokenizer),
        callbacks=[clock],
    ).train()


def llamafactory(settings: Settings, rows: list[dict], clock: Clock) -> None:
    from llamafactory.train.tuner import run_exp

    folder = Path(settings.folder)
    told = [{"instruction": row["prompt"], "input": "", "output": row["answer"]} for row in rows]
    (folder / "told.json").write_text(json.dumps(told))
    (folder / "dataset_info.json").write_text(json.dumps({"told": {"file_name": "told.json"}}))
    run_exp(
        {
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": settings.model,
            "finetuning_type": "lora",
            "lora_rank": settings.rank,
            "lora_alpha": int(settings.alpha),
            "lora_dropout": 0.0,
            "lora_target": ",".join(settings.targets),
            "dataset": "told",
            "dataset_dir": str(folder),
            "template": "empty",
            "cutoff_len": 2048,
            "disable_shuffling": True,
            "disable_gradient_checkpointing": True,
            "output_dir": str(folder / "out"),
            "per_device_train_batch_size": settings.batch,
            "gradient_accumulation_steps": 1,
            "max_steps": settings.updates,
            "learning_rate": settings.learning_rate,
            "use_cpu": True,
            "bf16": settings.dtype == "bfloat16",
            "pure_bf16": settings.dtype == "bfloat16",
            "fp16": False,
            "save_strategy": "no",
            "logging_steps": 1,
            "report_to": "none",
            "disable_tqdm": True,
            "preprocessing_num_workers": None,
        },
        callbacks=[clock],
    )


WAYS: dict[str, Callable[[Settings, list[dict], Clock], None]] = {
    "trl": lambda *told: trl(*told, at_once=told[0].batch),
    "trl-one-by-one": lambda *told: trl(*told, at_once=1),
    "transformers": transformers,
    "paper": lambda *told: transformers(*told, as_in_the_paper=True),
    "llamafactory": llamafactory,
}


def main() -> None:
    way, folder = sys.argv[1:]
    settings = Settings(**json.loads((Path(folder) / "settings.json").read_text()), folder=folder)
    rows = [json.loads(line) for line in (Path(folder) / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    clock = Clock()
    WAYS[way](settings, rows, clock)
    seconds = [after - before for before, after in zip(clock.ended, clock.ended[1:], strict=False)]
    print()
    print(json.dumps({"seconds": seconds, "rss_mib": rss_mib(), "losses": clock.losses}))


if __name__ == "__main__":
    main()
