"""Which settings matter, asked cheaply on the non-test half of PubMedQA: train on folds 5-7, score folds 0-2.

A stand-in for the full training: LoRA on the top third of the layers only, inputs of at most 256 tokens. The layers
below are frozen, so their outputs are computed once for each prompt and reused by all settings (exact for this
method). One seed, one epoch, 150 scored questions: a difference in accuracy under 8 points, or one in
NLL within its interval, says nothing. No test question is touched.

    python experiments/official/screening.py path/to/ori_pqal.json > screening.jsonl
"""

import json
import math
import random
import sys
import time
from pathlib import Path

import torch

from drllama.ids import derive_seed
from drllama.prompts import student_prompt
from drllama.recipe import Evaluate, Lora, PubMedQA, Student
from drllama.sources.pubmedqa import PubMedQASource
from drllama.stats import evaluate_predictions
from drllama.students.chat import Phrasing
from drllama.students.encoding import Encoded, make_encoder
from drllama.students.head import head_only_at
from drllama.students.loading import load_model
from drllama.students.methods import with_new_adapter
from drllama.types import Example, Outcome, Prediction

TOP_LAYERS, MAX_TOKENS, BATCH, EPOCHS, SEED = 10, 256, 8, 1, 1
BASE = {"learning_rate": 1e-3, "targets": ("q_proj", "v_proj"), "prompt": "context-first.v1", "weights": "none"}
CHANGES = [
    {},
    {"learning_rate": 3e-4},
    {"targets": "all-linear"},
    {"weights": "balanced"},
    {"prompt": "paper.v1"},
]


def halves(path: Path) -> tuple[list[Example], list[Example]]:
    """Return the examples of folds 5 to 7 and of folds 0 to 2."""
    folds = [PubMedQASource(PubMedQA(path=path, fold=fold)).load().dev for fold in range(10)]
    return [one for fold in folds[5:8] for one in fold], [one for fold in folds[:3] for one in fold]


class TopLayers:
    """The student's top layers over the cached outputs of those below."""

    def __init__(self, prompt: str, examples: list[Example], task) -> None:  # noqa: ANN001
        settings = Student(prompt=prompt, max_tokens=MAX_TOKENS)
        loaded = load_model(settings)
        self.model = loaded.model
        self.encoder = encoder = make_encoder(loaded.tokenizer, Phrasing(prompt=student_prompt(prompt)), task, settings)
        self.columns = torch.tensor([encoder.label_tokens[label][0] for label in task.labels])
        body, layers = self.model.model, self.model.model.layers
        self.hidden = {}
        body.layers, body.norm, norm = layers[:-TOP_LAYERS], torch.nn.Identity(), body.norm
        self.model.config.num_hidden_layers = len(layers) - TOP_LAYERS
        with torch.inference_mode():
            for example in examples:
                encoded = encoder.encode(example)
                assert isinstance(encoded, Encoded)
                tokens = torch.tensor([encoded.tokens])
                lower = body(input_ids=tokens, position_ids=torch.arange(tokens.shape[1])[None], use_cache=False)
                self.hidden[example.id] = lower.last_hidden_state.clone()
        body.layers, body.norm = layers[-TOP_LAYERS:], norm
        self.model.config.num_hidden_layers = TOP_LAYERS

    def nats(self, model, example: Example) -> torch.Tensor:  # noqa: ANN001
        """Return the log-probability of every token at the answer position, [V]."""
        hidden = self.hidden[example.id].clone()
        last = hidden.shape[1] - 1
        with head_only_at(model, torch.tensor([[last]])):
            positions = torch.arange(last + 1)[None]
            logits = model(inputs_embeds=hidden, position_ids=positions, use_cache=False).logits
        return torch.log_softmax(logits[0, 0], dim=-1)


def trained(top: TopLayers, train: list[Example], setting: dict, task):  # noqa: ANN001, ANN201
    """Return the model with an adapter trained under a setting."""
    method = Lora(rank=4, alpha=64, targets=setting["targets"])
    model = with_new_adapter(top.model, method, top.encoder, seed=derive_seed(SEED, "a"))
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], weight_decay=0.0)
    counts = {label: sum(one.label == label for one in train) for label in task.labels}
    weigh = setting["weights"] == "balanced"
    total, step = EPOCHS * math.ceil(len(train) / BATCH), 0
    model.train()
    for epoch in range(EPOCHS):
        order = list(train)
        random.Random(derive_seed(SEED, "order", epoch)).shuffle(order)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            warmup = math.ceil(0.06 * total)
            share = (step + 1) / warmup if step < warmup else (total - step) / (total - warmup)
            optimizer.param_groups[0]["lr"] = setting["learning_rate"] * share
            weights = [len(train) / (len(counts) * counts[one.label]) if weigh else 1.0 for one in batch]
            for example, weight in zip(batch, weights, strict=True):
                gold = top.columns[task.labels.index(example.label)]
                (-top.nats(model, example)[gold] * weight / sum(weights)).backward()
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    return model.eval()


@torch.inference_mode()
def scored(top: TopLayers, model, asked: list[Example], task) -> dict:  # noqa: ANN001
    """Return metrics and the NLL of each question."""
    predictions, nll = [], []
    for example in asked:
        scores = top.nats(model, example)[top.columns].double()
        choice = task.labels[int(scores.argmax())]
        nll.append(-float(torch.log_softmax(scores, dim=0)[task.labels.index(example.label)]))
        predictions.append(
            Prediction(
                example_id=example.id,
                source_id=example.origin.source_id,
                gold=example.label,
                choice=choice,
                outcome=Outcome.CORRECT if choice == example.label else Outcome.WRONG,
                scores_nats=dict(zip(task.labels, scores.tolist(), strict=True)),
                num_tokens=0,
                truncated_tokens=0,
            )
        )
    found = evaluate_predictions(
        predictions, system="screening", split="dev", labels=task.labels, settings=Evaluate(), seed=SEED
    ).metrics
    shown = {name: [round(one.value, 4), round(one.low, 4), round(one.high, 4)] for name, one in found.items()}
    return {**shown, "nll_each": [round(one, 4) for one in nll]}


def main() -> None:
    """Print one JSON line for each setting."""
    path = Path(sys.argv[1])
    task = PubMedQASource(PubMedQA(path=path)).task
    train, asked = halves(path)
    top = None
    for change in CHANGES:
        setting, began = {**BASE, **change}, time.monotonic()
        if top is None or change.get("prompt"):
            top = TopLayers(setting["prompt"], [*train, *asked], task)
        cached = time.monotonic()
        model = trained(top, train, setting, task)
        result = scored(top, model, asked, task)
        top.model = model.unload()
        seconds = {"cache": round(cached - began), "train_and_score": round(time.monotonic() - cached)}
        print(json.dumps({"change": change, "seconds": seconds, **result}), flush=True)


if __name__ == "__main__":
    main()
