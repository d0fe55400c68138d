"""Every method on every family: trained, saved, loaded by others, and put on and off."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers

from drllama.errors import RecipeError
from drllama.recipe import Alora, Finetune, Lora, Prefix
from drllama.students.methods import refuse_unopened, with_new_adapter
from tiny_student import (
    FAMILIES,
    YES_NO_MAYBE,
    Told,
    example,
    files_of,
    naive_scores,
    plain_model,
    plain_tokens,
    questions,
    rows_of,
    save_tiny,
    student_of,
    task_of,
)

METHODS = {
    "lora": {"lora": {"rank": 2, "alpha": 4, "targets": "all-linear"}},
    "alora": {"alora": {"rank": 2, "alpha": 4}},
    "prefix": {"prefix": {"virtual_tokens": 16}},
    "ia3": {"ia3": {}},
    "full": "full",
    "rslora": {"lora": {"rank": 4, "alpha": 4, "scaling": "rank-stabilized"}},
    "dora": {"lora": {"rank": 2, "alpha": 4, "dora": True}},
}
KINDS = ("lora", "alora", "prefix", "ia3", "full")
CELLS = [
    pytest.param(name, family, marks=[] if quick else pytest.mark.slow)
    for name in METHODS
    for family in FAMILIES
    if (quick := family == "llama" or name == "prefix") or name in KINDS
]
IA3_TARGETS = {
    "gpt2": {"targets": ["c_attn", "mlp.c_proj"], "feedforward": ["mlp.c_proj"]},
    "biogpt": {"targets": ["k_proj", "v_proj", "fc2"], "feedforward": ["fc2"]},
}
GOLDEN = Path(__file__).parent / "golden" / "losses.txt"
EXACT = {"dtype": "float32"}
"""What is recalled of contexts is as it was worked out."""
RATES = {"lora": 0.05, "alora": 0.1, "prefix": 0.1, "ia3": 0.3, "full": 0.003}


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    """Return the student of a family, undressed, that answers so many questions at once, and its folder."""

    @cache
    def folder_of(family):
        return save_tiny(family, tmp_path_factory.mktemp("models") / family)

    made = cache(lambda family, batch_size: student_of(folder_of(family), batch_size=batch_size, frozen_cache=EXACT))

    def found(family="llama", *, batch_size=8):
        made(family, batch_size).undress()
        return made(family, batch_size), folder_of(family)

    return found


def method_of(name, family="llama"):
    if name == "ia3" and family in IA3_TARGETS:
        return {"ia3": IA3_TARGETS[family]}
    return METHODS[name]


def finetune(student, workspace, method, *, stop_after=None, **settings):
    kind = method if isinstance(method, str) else next(iter(method))
    settings = {"epochs": 1, "batch_size": 2, "micro_batch_size": 2, **settings}
    asked = questions(student._task.labels, count=4)
    student.finetune(
        rows_of(asked),
        asked[:2],
        settings=Finetune(method=method, learning_rate=RATES[kind], **settings),
        seed=5,
        stop_after=stop_after,
        workspace=workspace,
        progress=Told(),
    )
    return workspace / "adapter"


def scores_of(student, *, asked=None):
    asked = asked or questions(student._task.labels, count=4)
    return {found.example_id: found.scores_nats for found in student.score(asked)}


def plain(folder, adapter):
    """Return the model that others load: all weights, or the base with PEFT's adapter."""
    return plain_model(adapter) if (adapter / "model.safetensors").exists() else plain_model(folder, adapter)


@pytest.mark.parametrize(("name", "family"), CELLS)
def test_every_method_trains_every_family_and_others_load_what_it_leaves(students, tmp_path, name, family):
    student, folder = students(family)
    bare = scores_of(student)
    adapter = finetune(student, tmp_path, method_of(name, family))
    trained = scores_of(student)
    assert any(trained[one] != pytest.approx(bare[one], abs=1e-2) for one in bare), "it learnt"
    student.undress()
    assert scores_of(student) == bare, "nothing stays behind"
    student.wear(adapter)
    assert_alike(scores_of(student), trained, abs=1e-6)
    alone, _ = students(family, batch_size=1)
    alone.wear(adapter)
    asked = questions(count=4)
    assert_alike(scores_of(alone, asked=asked[::-1]), trained, abs=1e-5)
    model, tokenizer = plain(folder, adapter), transformers.AutoTokenizer.from_pretrained(folder)
    told = {one.id: plain_tokens(tokenizer, one, YES_NO_MAYBE) for one in asked}
    assert_alike({name: naive_scores(model, *tokens) for name, tokens in told.items()}, trained, abs=1e-5)
    if not (name == "prefix" and FAMILIES[family][1].get("sliding_window")):
        # Padding between prefix and question pushes the prefix out of the window; we pad on the right.
        assert_alike(left_padded_scores(model, told), trained, abs=1e-5)


def test_all_weights_of_a_bfloat16_student_score_the_same_when_they_are_loaded(students, tmp_path):
    _, folder = students("gemma3")  # whose scale of embeddings is worked out when the model is made
    student = student_of(folder, dtype="bfloat16")
    adapter = finetune(student, tmp_path, "full")
    trained = scores_of(student)
    student.wear(adapter)
    assert_alike(scores_of(student), trained, abs=1e-6)


def left_padded_scores(model, told):
    """Return what the model says of one-token labels where all questions stand in one batch, padded on the left."""
    longest = max(len(before) for before, _ in told.values())
    tokens_BT = torch.tensor([[7] * (longest - len(before)) + before for before, _ in told.values()])
    mask_BT = torch.tensor([[0] * (longest - len(before)) + [1] * len(before) for before, _ in told.values()])
    positions_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)
    with torch.inference_mode():
        logits_BTV = model(input_ids=tokens_BT, attention_mask=mask_BT, position_ids=positions_BT).logits
    nats_BV = torch.log_softmax(logits_BTV[:, -1], dim=-1)
    return {
        name: {label: nats_BV[row, tokens[0]].item() for label, tokens in words.items()}
        for row, (name, (_, words)) in enumerate(told.items())
    }


def assert_alike(found, wanted, **tolerance):
    assert found.keys() == wanted.keys()
    for name, scores in found.items():
        assert scores == pytest.approx(wanted[name], **tolerance)


# Several tokens a label, and rounds


@pytest.mark.parametrize(
    ("name", "family"), [*((name, "llama") for name in KINDS), ("prefix", "gemma3"), ("prefix", "biogpt")]
)
def test_labels_of_several_tokens_are_scored_as_others_score_them(students, tmp_path, name, family):
    task = task_of("yes", "not sure", "no")
    _, folder = students(family)
    student = student_of(folder, task, frozen_cache=EXACT)
    adapter = finetune(student, tmp_path, method_of(name, family))
    asked = questions(task.labels, count=3)
    model, tokenizer = plain(folder, adapter), transformers.AutoTokenizer.from_pretrained(folder)
    wanted = {one.id: naive_scores(model, *plain_tokens(tokenizer, one, task)) for one in asked}
    assert_alike(scores_of(student, asked=asked), wanted, abs=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_the_same_training_leaves_the_same_bytes_whatever_was_worn_before(students, tmp_path, name):
    student, _ = students()
    first = files_of(finetune(student, tmp_path / "1", method_of(name)))
    finetune(student, tmp_path / "between", method_of("lora"))
    assert files_of(finetune(student, tmp_path / "2", method_of(name))) == first
    assert str(tmp_path).encode() not in b"".join(first.values())


@pytest.mark.parametrize("name", ["alora", "prefix", "ia3", "full"])
def test_a_resumed_training_ends_with_the_same_bytes(students, tmp_path, name):
    student, _ = students()
    whole = files_of(finetune(student, tmp_path / "whole", method_of(name), epochs=2))
    finetune(student, tmp_path / "cut", method_of(name), epochs=2, stop_after=1)
    finetune(student, tmp_path / "between", method_of("lora"))
    assert files_of(finetune(student, tmp_path / "cut", method_of(name), epochs=2)) == whole


# How they start


def test_what_is_fresh_changes_nothing_yet_but_a_prefix(students):
    student, _ = students()
    bare = scores_of(student)
    for name in METHODS:
        student._model = with_new_adapter(
            student._bare, Finetune(method=method_of(name)).method, student._encoder, seed=1
        )
        assert_alike(scores_of(student), bare, abs=10 if name == "prefix" else 1e-6)
        student.undress()


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "biogpt", "qwen3"])
def test_a_prefix_that_starts_from_a_text_is_as_if_the_text_stood_before_the_question(students, family):
    student, folder = students(family)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    method = Prefix(virtual_tokens=16, text="It rose. It fell. Nobody knows why.")
    student._model = with_new_adapter(student._bare, method, student._encoder, seed=1)
    begun = (tokenizer(method.text)["input_ids"] * 16)[:16]
    asked = questions(count=4)
    told = {one.id: plain_tokens(tokenizer, one, YES_NO_MAYBE) for one in asked}
    model = plain_model(folder)
    wanted = {name: naive_scores(model, [*begun, *before], words) for name, (before, words) in told.items()}
    assert_alike(scores_of(student, asked=asked), wanted, abs=1e-5)


def test_prefixes_start_from_the_task_from_zeros_or_from_chance(students):
    student, _ = students()

    def start(seed=1, **settings):
        method = Prefix(virtual_tokens=16, **settings)
        adapted = with_new_adapter(student._bare, method, student._encoder, seed=seed)
        return adapted.prompt_encoder["default"].embedding.weight.detach()

    assert not start(start="zeros").any()
    assert torch.equal(start(start="random"), start(start="random"))
    assert not torch.equal(start(start="random"), start(seed=2, start="random"))
    assert torch.equal(start(), start(seed=2, text="Answer. yes, no, maybe")), "the task's instruction and labels"


def test_alora_leaves_the_context_as_the_base_reads_it(students):
    student, _ = students()
    student._model = with_new_adapter(student._bare, Alora(rank=2), student._encoder, seed=1)
    for name, weight in student._model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(generator=torch.Generator().manual_seed(1))
    one = student._encoder.encode(questions(count=4)[3])
    tokens_1T = torch.tensor([one.tokens])
    with torch.inference_mode():
        adapted = student._model(tokens_1T, use_cache=True).past_key_values
        with student._model.disable_adapter():
            base = student._model(tokens_1T, use_cache=True).past_key_values
    for mine, theirs in zip(adapted.layers, base.layers, strict=True):
        same_T = torch.isclose(mine.keys, theirs.keys, atol=1e-6).all(dim=-1).all(dim=1)[0]
        assert same_T[: one.split].all()
        assert not same_T[one.split :].any()


# What can't be done


@pytest.mark.parametrize(
    ("method", "settings", "line"),
    [
        (
            "alora",
            {"prompt": "paper.v1"},
            "finetune.method.alora: paper.v1 doesn't put the context before the question; "
            "choose student.prompt context-first.v1",
        ),
        (
            {"prefix": {"virtual_tokens": 300}},
            {"max_tokens": 256},
            "finetune.method.prefix.virtual_tokens is 300, with student.max_tokens 256 that is more than the 512 "
            "tokens that the student reads; lower one of them",
        ),
        (
            "ia3",
            {},
            "finetune.method.ia3.targets: the student has no module 'k_proj'; choose of c_attn, c_fc, c_proj",
        ),
        (
            {"alora": {"targets": ["c_attn", "q"]}},
            {},
            "finetune.method.alora.targets: the student has no module 'q'; choose of c_attn, c_fc, c_proj",
        ),
    ],
    ids=["question first", "too long a prefix", "other names", "an unknown name"],
)
def test_what_a_method_cannot_do_is_refused_in_one_line(students, tmp_path, method, settings, line):
    _, folder = students("gpt2")
    with pytest.raises(RecipeError) as error:
        finetune(student_of(folder, **settings), tmp_path, method)
    assert str(error.value) == line


def test_alora_refuses_questions_that_plain_peft_would_not_adapt(students):
    student, _ = students()
    opened = student._encoder.encode(example("Did it fall?", "It rose."))
    # As Llama 2's tokenizer does: the first word of a text is another token than the same word behind a line break.
    unopened = replace(opened, tokens=(7, *opened.tokens[opened.split + 1 :]), split=0)
    for method, encoded in ((Alora(), [opened]), (Lora(), [opened, unopened])):
        refuse_unopened(method, student._encoder, encoded)
    with pytest.raises(RecipeError) as error:
        refuse_unopened(Alora(), student._encoder, [opened, unopened])
    assert str(error.value) == (
        "finetune.method.alora: question Did it fall? has no context, and the student's tokenizer reads its beginning "
        "otherwise than behind one; choose lora, or leave such questions out"
    )


@pytest.mark.parametrize("name", METHODS)
def test_the_first_losses_of_every_method_are_the_golden_ones(students, tmp_path, name):
    student, _ = students()
    asked = questions(count=8)
    kind = next(iter(METHODS[name])) if isinstance(METHODS[name], dict) else METHODS[name]
    told = student.finetune(
        rows_of(asked),
        asked[:1],
        settings=Finetune(method=METHODS[name], learning_rate=RATES[kind] / 5, epochs=4, warmup_share=0.0),
        seed=1,
        workspace=tmp_path,
        progress=Told(),
    )
    # Whoever changes these lines: a plain loop of transformers, PEFT and AdamW, one by one, gave them to 1e-6.
    golden = dict(line.split(" ", 1) for line in GOLDEN.read_text().splitlines())
    found = [epoch.train_loss_nats for epoch in told.epochs]
    assert found == pytest.approx([float(loss) for loss in golden[name].split()], abs=1e-4)
