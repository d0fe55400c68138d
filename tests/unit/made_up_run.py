"""Made-up runs: a small fixed one, one of hostile texts, and an experiment of several arms and seeds."""

import math
from dataclasses import replace

import numpy as np
from made_up import World, answers_of, as_answers

from drllama.recipe import Evaluate, Recipe
from drllama.stages.arms import SYSTEMS
from drllama.stages.weigh import weigh
from drllama.stats import evaluate_predictions, majority_predictions, prior_predictions
from drllama.types import (
    Arm,
    ArmName,
    Audit,
    Cell,
    Choice,
    Diversity,
    DropCount,
    Epoch,
    Equality,
    Example,
    Finetuned,
    FunnelStep,
    LeakAudit,
    Original,
    Outcome,
    Prediction,
    Ran,
    Reading,
    Run,
    Spent,
    StepRecord,
    StudentCard,
    Task,
    Taught,
)

LABELS = ("yes", "no", "maybe")
HOSTILE = (
    '<script>alert("1")</script> {{ 7 * 7 }} {% raw %} | a pipe, a "quote", `code` **bold** ![](https://e.example/x.png)'
    "\n# not a heading\n<img src=x onerror=alert(1)> & 是否有效？ \x1b[31m"
)
ANSWERS = [
    ("yes", (0.80, 0.15, 0.05)),
    ("yes", (0.55, 0.40, 0.05)),
    ("yes", (0.30, 0.60, 0.10)),
    ("no", (0.10, 0.85, 0.05)),
    ("no", (0.72, 0.20, 0.08)),
    ("no", (0.46, 0.44, 0.10)),
    ("maybe", (0.90, 0.05, 0.05)),
    ("yes", None),
]


def make_example(number, gold, split="test", **fields):
    settled = {
        "question": f"Does treatment {number} help?",
        "context": f"Patients got treatment {number}.\nMost of them recovered.",
        "label": gold,
        "split": split,
        "group": f"{split}{number}",
        "origin": Original(source="made-up.jsonl", source_id=str(1000 + number)),
    }
    return Example(**settled | fields)


def make_prediction(example, shares, *, labels=LABELS, truncated_tokens=0):
    if shares is None:
        choice, outcome = None, Outcome.FAILED
    else:
        choice = labels[shares.index(max(shares))]
        outcome = Outcome.CORRECT if choice == example.label else Outcome.WRONG
    return Prediction(
        example_id=example.id,
        source_id=example.origin.source_id,
        gold=example.label,
        choice=choice,
        outcome=outcome,
        scores_nats=None if shares is None else dict(zip(labels, map(math.log, shares), strict=True)),
        num_tokens=0 if shares is None else 200 + 10 * int(example.origin.source_id) % 90,
        truncated_tokens=truncated_tokens,
        note="the question alone has 600 tokens, more than 512" if shares is None else "",
    )


WHEN = "2024-03-01T11:00:00Z"
TRAINING = StepRecord(stage="finetune", key="d" * 64, folder="finetune/dddddddd", seconds=842.0, finished_at=WHEN)


NO_LEAKS = LeakAudit(num_real=8, num_synthetic=0, num_dev=2, num_test=10, counts=(), nearest=(), num_clean=8)


def make_cell(evaluation, *, num_examples):
    return Cell(
        arm="none",
        seed=1,
        fingerprint="f" * 64,
        finetuned=Finetuned(
            epochs=(
                Epoch(number=1, train_loss_nats=0.91, dev_accuracy=0.6, dev_macro_f1=0.5, dev_nll_nats=0.95),
                Epoch(number=2, train_loss_nats=0.62, dev_accuracy=0.5, dev_macro_f1=0.4, dev_nll_nats=1.02),
            ),
            chosen_epoch=1,
            num_steps=2,
            num_examples=num_examples,
            left_out=("1003: 530 tokens without its context, more than 512",),
            truncated_examples=1,
            trainable_parameters=460_800,
        ),
        synthetic_weight=1.0,
        on_dev=-0.95,
        weights_on_dev={},
        evaluation=evaluation,
        adapter=TRAINING,
        scoring=TRAINING,
        ran=Ran(device="cpu", dtype="float32", processor="a processor", torch="2.12", commit="unknown"),
    )


def make_run(asked=None, answers=ANSWERS, *, labels=LABELS, recipe=None):
    """A small fixed run, and its questions by id."""
    asked = asked or [make_example(number, gold) for number, (gold, _) in enumerate(answers)]
    train = [make_example(number, label, "train") for number, label in enumerate([labels[0]] * 5 + [labels[1]] * 3)]
    finetuned = [
        make_prediction(example, shares, labels=labels, truncated_tokens=12 * (number % 3))
        for number, (example, (_, shares)) in enumerate(zip(asked, answers, strict=True))
    ]
    untrained = [make_prediction(example, (0.3, 0.5, 0.2)[: len(labels)], labels=labels) for example in asked]
    systems = {
        "majority": majority_predictions(train, asked, labels),
        "prior": prior_predictions(train, asked, labels),
        "untrained": untrained,
        "fine-tuned": finetuned,
    }
    evaluations = tuple(
        evaluate_predictions(
            predictions,
            system=system,
            split="test",
            labels=labels,
            settings=Evaluate(bootstrap_samples=200, reliability_bins=5),
            seed=1,
        )
        for system, predictions in systems.items()
    )
    run = Run(
        id="0123456789abcdef",
        finished_at="2024-03-01T12:00:00Z",
        command="drllama run recipe.yaml --set finetune.epochs=2",
        recipe=recipe
        or {
            "name": "small-run",
            "seed": 42,
            "task": None,
            "data": {"jsonl": {"path": "made-up.jsonl", "shares": {"dev": 0.1, "test": 0.3}}},
            "finetune": {"method": {"lora": {"rank": 4, "targets": ["q_proj", "v_proj"]}}, "epochs": 2},
        },
        task=Task(
            name="made-up questions",
            instruction="Answer yes, no or maybe.",
            labels=labels,
            verbalizers={label: label for label in labels},
        ),
        environment={"python": "3.11.0", "platform": "Linux x86_64"},
        student=StudentCard(
            model="smollm2-135m",
            weights_sha256="a" * 64,
            tokenizer_sha256="b" * 64,
            num_parameters=134_515_008,
            device="cpu",
            dtype="float32",
        ),
        split_sizes={"train": len(train), "dev": 2, "test": len(asked)},
        steps=(
            StepRecord(stage="prepare", key="c" * 64, folder="prepare/cccccccc", seconds=1.25, finished_at=WHEN),
            TRAINING,
            StepRecord(stage="evaluate", key="e" * 64, folder="evaluate/eeeeeeee", seconds=7384.0, finished_at=WHEN),
        ),
        taught=None,
        leaks=NO_LEAKS,
        baselines=evaluations[:-1],
        arms=(
            Arm(
                id="none",
                name=ArmName.NONE,
                dose=1.0,
                equality=Equality.UPDATES,
                system="fine-tuned",
                num_real=len(train),
                num_extra=0,
            ),
        ),
        cells=(make_cell(evaluations[-1], num_examples=len(train)),),
        num_unfinished=0,
        chosen_arm="none",
        choices=(),
        readings=(),
    )
    return run, {example.id: example for example in asked}


def make_hostile_run():
    """Every text that a user could have written is hostile."""
    labels = ("yes|<b>", "不能确定", "*maybe*")
    asked = [
        make_example(
            number,
            labels[number % 2],
            question=f"{number} {HOSTILE}",
            context=HOSTILE,
            options=(HOSTILE, "b", "c"),
            origin=Original(source=HOSTILE, source_id=f"{1000 + number}"),
        )
        for number in range(3)
    ]
    answers = [(example.label, shares) for example, shares in zip(asked, [(0.2, 0.7, 0.1)] * 2 + [None], strict=True)]
    run, questions = make_run(asked, answers, labels=labels, recipe={"name": "x", "data": {"jsonl": {"path": HOSTILE}}})
    cell = replace(run.cells[0], finetuned=replace(run.cells[0].finetuned, left_out=(HOSTILE,)))
    student = replace(run.student, model=HOSTILE)
    # A lone surrogate is what Python makes of a file name's byte that isn't UTF-8.
    command, environment = f"{HOSTILE} \udcff", {HOSTILE: f"{HOSTILE} \udcff"}
    return replace(run, cells=(cell,), student=student, command=command, environment=environment), questions


def make_experiment(*, gains=None, num_seeds=3, num_items=120, doses=(1.0,), equal=(Equality.UPDATES,), usd=0.0004):
    """A run of several arms, and its questions by id; ``gains`` are what arms do to a student's skill, by name."""
    gains = gains or {ArmName.NONE: 0, ArmName.REWRITE: 0.1, ArmName.NEW: 0.5, ArmName.DUPLICATE_REAL: 0}
    recipe = Recipe.model_validate(
        {
            "name": "experiment",
            "seeds": num_seeds,
            "task": {"labels": LABELS},
            "data": {"jsonl": {"path": "made-up.jsonl"}},
            "augment": {"arms": tuple(gains), "doses": doses, "equal": equal},
            "teacher": {"replay": {"endpoint": "http://localhost", "model": "large"}},
            "evaluate": {"bootstrap_samples": 200, "reliability_bins": 5},
        }
    )
    arms = [
        _arm(name, dose, equality)
        for equality in equal
        for name in gains
        for dose in (doses if name in (ArmName.REWRITE, ArmName.NEW, ArmName.COMBINED) else (1.0,))
    ]
    world = World(
        arms=tuple(arm.system for arm in arms),
        num_seeds=num_seeds,
        num_items=num_items,
        gains=tuple(gains[arm.name] * arm.dose for arm in arms),
    )
    answers = as_answers(answers_of(world, np.random.default_rng(7)))
    asked = {one.example_id: make_example(number, one.gold) for number, one in enumerate(answers[0].answers[0])}
    small, _ = make_run()
    cells = [
        _cell(arm, seed, given.answers[seed - 1], recipe)
        for seed in range(1, num_seeds + 1)
        for arm, given in zip(arms, answers, strict=True)
    ]
    task = small.task
    train = [make_example(number, label, "train") for number, label in enumerate(["yes"] * 5 + ["no"] * 3)]
    baselines = [
        _evaluated(name, predict(train, list(asked.values()), LABELS), recipe)
        for name, predict in (("majority", majority_predictions), ("prior", prior_predictions))
    ]
    bill = (
        Spent(prompt="answer.v1", num_replies=50, tokens_in=20_000, tokens_out=400, usd=50 * usd, seconds=60.0),
        Spent(prompt="new.v1", num_replies=450, tokens_in=270_000, tokens_out=90_000, usd=450 * usd, seconds=900.0),
        Spent(prompt="rewrite.v1", num_replies=450, tokens_in=270_000, tokens_out=60_000, usd=450 * usd, seconds=800.0),
    )
    found = weigh(arms, cells, task, recipe, bill=bill)
    return replace(
        small,
        id="experiment-12345678",
        recipe=recipe.model_dump(mode="json"),
        taught=_taught(bill, baselines),
        baselines=tuple(baselines),
        arms=tuple(arms),
        cells=tuple(cells),
        chosen_arm=arms[2].id if len(arms) > 2 else arms[-1].id,
        choices=(Choice(what="arm", split="dev", by="nll", among={arm.id: -0.9 for arm in arms}, chosen=arms[-1].id),),
        readings=tuple(
            Reading(system=cell.evaluation.system, step=cell.scoring.key, at=WHEN, num_questions=num_items)
            for cell in cells
        ),
        summaries=found.summaries,
        effects=found.effects,
        conclusion=found.conclusion,
        worth=found.worth,
    ), asked


def _arm(name, dose, equality):
    marks = [f"{dose:g}"] * (dose != 1) + ["epochs"] * (equality is Equality.EPOCHS)
    told = [f"{dose:.0%} of them"] * (dose != 1) + ["equal epochs"] * (equality is Equality.EPOCHS)
    return Arm(
        id="-".join([name.value, *marks]),
        name=name,
        dose=dose,
        equality=equality,
        system=", ".join([SYSTEMS[name], *told]),
        num_real=450,
        num_extra=0 if name is ArmName.NONE else round(400 * dose),
    )


def _cell(arm, seed, predictions, recipe):
    cell = make_cell(_evaluated(f"{arm.system}, seed {seed}", predictions, recipe), num_examples=450 + arm.num_extra)
    ran = cell.ran if seed < 3 else replace(cell.ran, device="cuda, a large one", dtype="bfloat16")
    return replace(cell, arm=arm.id, seed=seed, ran=ran, brought=seed == 3, on_dev=-0.95 - 0.01 * seed)


def _evaluated(system, predictions, recipe):
    return evaluate_predictions(
        predictions, system=system, split="test", labels=LABELS, settings=recipe.evaluate, seed=1
    )


def _taught(bill, baselines):
    return Taught(
        model="large",
        endpoint="http://localhost",
        audit=Audit(
            teacher=replace(baselines[0], split="dev", system="teacher"),
            majority=replace(baselines[0], split="dev"),
            student=None,
            failures={},
            may_write_new=True,
            verdict="The teacher is clearly better than the majority answer.",
        ),
        num_requests=900,
        bill=bill,
        candidates={"rewrite": 440, "new": 445},
        num_spare=3,
        num_unparsed=12,
        num_failed=0,
        num_short=4,
        funnel=(
            FunnelStep(name="asked", counts={"rewrite": 450, "new": 450}),
            FunnelStep(name="parsed", counts={"rewrite": 440, "new": 445}),
            FunnelStep(name="leak-free", counts={"rewrite": 431, "new": 444}),
            FunnelStep(name="kept", counts={"rewrite": 400, "new": 400}),
        ),
        drops=(
            DropCount(by="label", reason="blind answers give another label", counts={"rewrite": 31, "new": 44}),
            DropCount(by="unparsed", reason="no JSON object", counts={"rewrite": 10, "new": 5}),
        ),
        diversity=(
            Diversity(
                rows="real",
                num_rows=450,
                num_compared=400,
                distinct_1=0.31,
                distinct_2=0.74,
                self_similarity=0.18,
                label_shares={"yes": 0.55, "no": 0.34, "maybe": 0.11},
                question_columns=(68.0, 88.0, 110.0),
            ),
        ),
    )
