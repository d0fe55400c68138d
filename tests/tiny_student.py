"""Real students so small that a test can train them: random weights of a fixed seed, a tokenizer trained here."""

import warnings
from collections import Counter
from pathlib import Path

import peft
import pytest
import tokenizers
import torch
import transformers

from drllama.prompts import student_prompt
from drllama.recipe import Finetune, Student
from drllama.students.causal import CausalStudent
from drllama.types import Example, Original, Task, TrainingRow

# Enough repetition that " yes", " no", " maybe" and " A" to " D" are one token each, and " not sure" is not.
_TEXTS = (
    "Context: Question: Answer: yes no maybe\nAnswer: yes\nAnswer: no\nAnswer: maybe\n",
    "Answer: A\nAnswer: B\nAnswer: C\nAnswer: D\nA. B. C. D. question: context: Answer: A, Answer: A or A.",
    "It is not sure, not there, not",
    "the answer to the question given the context is yes, is no, is maybe.",
    "Did the pain in the patients of this group rise or fall after the treatment? It rose. It fell. Nobody knows.",
    "Does aspirin help against the headache of the nurses? The trial found a small effect of it. It was not sure.",
    "阿司匹林对头痛有效吗？试验发现了很小的效果。没有人知道。是的。否。",
)
END = "<|endoftext|>"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


_LLAMA_LIKE = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
_LAYERS = ["sliding_attention", "full_attention"]
FAMILIES = {
    "llama": (transformers.LlamaForCausalLM, {**_LLAMA_LIKE, "tie_word_embeddings": True}),
    "mistral": (transformers.MistralForCausalLM, {**_LLAMA_LIKE, "sliding_window": 24}),
    "qwen2": (transformers.Qwen2ForCausalLM, {**_LLAMA_LIKE, "tie_word_embeddings": True}),
    "qwen3": (transformers.Qwen3ForCausalLM, {**_LLAMA_LIKE, "head_dim": 8}),
    "gemma2": (transformers.Gemma2ForCausalLM, {**_LLAMA_LIKE, "head_dim": 8, "sliding_window": 24}),
    "gemma3": (
        transformers.Gemma3ForCausalLM,
        {**_LLAMA_LIKE, "head_dim": 8, "sliding_window": 24, "layer_types": _LAYERS, "num_key_value_heads": 1},
    ),
    "gpt2": (transformers.GPT2LMHeadModel, {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 512}),
    "biogpt": (
        transformers.BioGptForCausalLM,
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 512,
        },
    ),
}
"""Two layers of each: grouped queries, tied embeddings, learned positions and sliding windows are among them."""


def save_tiny(family: str, folder: Path, *, seed: int = 1) -> Path:
    """Save a 2-layer model of a family with random weights, and return its folder."""
    kind, settings = FAMILIES[family]
    tokenizer = _tokenizer()
    end = tokenizer.eos_token_id
    # With the usual 0.02 all labels would be equally likely.
    config = kind.config_class(
        vocab_size=len(tokenizer), initializer_range=0.2, bos_token_id=end, eos_token_id=end, **settings
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer():
    bare = tokenizers.Tokenizer(tokenizers.models.BPE())
    bare.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=360,
        show_progress=False,
        special_tokens=[END],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    bare.train_from_iterator([text for text in _TEXTS for _ in range(3)], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bare, eos_token=END, pad_token=END)


def task_of(*labels):
    return Task(name="tiny", instruction="Answer.", labels=labels, verbalizers={label: label for label in labels})


YES_NO_MAYBE = task_of("yes", "no", "maybe")


def example(question, context="", *, label="yes", options=(), long_answer=None):
    return Example(
        question=question,
        context=context,
        options=options,
        long_answer=long_answer,
        label=label,
        split="train",
        group=question,
        origin=Original(source="tiny", source_id=question),
    )


def questions(labels=("yes", "no", "maybe"), *, count=11):
    """Return questions of very different lengths in two languages; the last is the longest."""
    found = []
    for number in range(count):
        context = f"Patient {number} had pain. " * (number * 2 % 7) + "阿司匹林对头痛有效吗？" * (number % 3)
        found.append(
            example(f"Did the pain of patient {number} fall?", context.strip(), label=labels[number % len(labels)])
        )
    return found


def rows_of(examples):
    """Return the examples as rows to train on, each of weight 1."""
    return [TrainingRow(example=one) for one in examples]


def student_of(folder, task=YES_NO_MAYBE, *, batch_size=8, **settings):
    settings = {"max_tokens": 256, "device": "cpu", **settings}
    return CausalStudent(Student(model=str(folder), batch_size=batch_size, **settings), task)


def finetune_of(lora=None, **settings):
    """Return the settings of a short training of the tiny Llama."""
    settings = {"epochs": 3, "batch_size": 4, "micro_batch_size": 4, "learning_rate": 1e-2, **settings}
    return Finetune(method={"lora": {"rank": 2, "alpha": 4, **(lora or {})}}, **settings)


class Told:
    """A progress that remembers what it was told, and can do something at a moment of the work."""

    def __init__(self, *, at=None, of="training", then=None):
        self.units, self.calls = Counter(), Counter()
        self._at, self._of, self._then = at, of, then

    def expect(self, units):
        raise AssertionError("a student doesn't know the work of the whole run")

    def work(self, activity, units=0):
        kind = activity.partition(",")[0].partition(" ")[0]
        self.units[kind] += units
        self.calls[kind] += 1
        if kind == self._of and self.calls[kind] == self._at:
            self._then()

    def tell(self, line):
        """Hear nothing."""


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def plain_model(folder, adapter=None):
    """Return the model as transformers and peft load it, without a line of ours."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            model = peft.PeftModel.from_pretrained(model, adapter)
    return model.eval()


def plain_tokens(tokenizer, one, task):
    """Return the question's tokens and each label's, from the texts alone."""
    text = student_prompt("context-first.v1").render(question=one.question, context=one.context)
    before = tokenizer(text)["input_ids"]
    words = {label: tokenizer(f"{text} {label}")["input_ids"][len(before) :] for label in task.labels}
    if {"no", "no effect"} <= set(task.labels):
        words = {label: [*tokens, tokenizer.eos_token_id] for label, tokens in words.items()}
    return before, words


def naive_scores(model, before, words):
    """Return each label's score from the full logits of an unpadded row for each label."""
    scores = {}
    for label, tokens in words.items():
        with torch.inference_mode():
            logits_TV = model(torch.tensor([[*before, *tokens]])).logits[0]
        nats_TV = torch.log_softmax(logits_TV, dim=-1)
        scores[label] = sum(nats_TV[len(before) - 1 + at, token].item() for at, token in enumerate(tokens))
    return scores
