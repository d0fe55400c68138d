"""What several of these tests begin with."""

import json

import pytest

import tiny_student

RECIPE = """
name: killed
data: {{jsonl: {{path: {questions}}}}}
task: {{labels: ["yes", "no"]}}
student: {{model: {model}, device: cpu, max_tokens: 128}}
finetune: {{method: {{lora: {{rank: 2, alpha: 4, dropout: 0.2}}}}, epochs: 3, batch_size: 2, learning_rate: 0.01}}
evaluate: {{bootstrap_samples: 100}}
"""


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    """A recipe that fine-tunes a tiny student on eight questions in seconds."""
    folder = tmp_path_factory.mktemp("recipe")
    model = tiny_student.save_tiny("llama", folder / "tiny")
    rows = []
    for number in range(16):
        word, label = (("rose", "yes"), ("fell", "no"))[number % 2]
        split = "train" if number < 8 else "dev" if number < 12 else "test"
        question = f"Did the pain of patient {number} rise?"
        rows.append({"question": question, "context": f"Patient {number}: it {word}.", "label": label, "split": split})
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(RECIPE.format(questions=folder / "questions.jsonl", model=model))
    return folder / "recipe.yaml"
