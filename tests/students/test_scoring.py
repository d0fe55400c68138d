from types import SimpleNamespace

import pytest
import torch
import transformers

from drllama import plugins
from drllama.recipe import PubMedQADemo, Recipe, Student
from drllama.sources.pubmedqa_demo import PubMedQADemoSource
from drllama.students.causal import CausalStudent
from drllama.students.loading import load_tokenizer
from drllama.students.scoring import batches
from drllama.types import Outcome
from tiny_student import (
    YES_NO_MAYBE,
    Told,
    example,
    finetune_of,
    naive_scores,
    needs_gpu,
    plain_model,
    plain_tokens,
    questions,
    rows_of,
    student_of,
    task_of,
)

NATS = 1e-4
TASKS = {
    "one token": YES_NO_MAYBE,
    "letters": task_of("A", "B", "C", "D"),
    "several tokens": task_of("yes", "not sure", "no"),
    "one begins another": task_of("no", "no effect"),
    "Chinese": task_of("是", "否"),
}


@pytest.fixture(params=["llama", "gpt2"])
def folder(request, tiny_llama, tiny_gpt2):
    return {"llama": tiny_llama, "gpt2": tiny_gpt2}[request.param]


def scores_by_id(student, examples):
    return {found.example_id: found.scores_nats for found in student.score(examples)}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_scores_are_the_naive_ones_whatever_the_batch_and_the_order(folder, task, adapter_for):
    asked = questions(task.labels, count=5)
    adapter, tokenizer = adapter_for(folder, task.labels), transformers.AutoTokenizer.from_pretrained(folder)
    told = {one.id: plain_tokens(tokenizer, one, task) for one in asked}
    bare, wearing = (
        {name: naive_scores(model, *tokens) for name, tokens in told.items()}
        for model in (plain_model(folder), plain_model(folder, adapter))
    )
    for batch_size, order in ((3, asked[::-1]), (5, asked[2:] + asked[:2]), (None, asked)):
        student = student_of(folder, task, batch_size=batch_size)
        assert_alike(student, order, bare)
        student.wear(adapter)
        assert_alike(student, order, wearing)
    first = task.labels[0]
    assert len({round(scores[first], 3) for scores in bare.values()}) == 5, "the questions differ"
    assert all(bare[name] != pytest.approx(wearing[name], abs=100 * NATS) for name in bare), "the adapter counts"


def test_the_longest_question_comes_first_and_the_others_in_another_order_each_time(tiny_llama):
    student, asked = student_of(tiny_llama, YES_NO_MAYBE, batch_size=1), questions(YES_NO_MAYBE.labels, count=16)
    once, again = ([(one.example_id, one.num_tokens) for one in student.score(asked)] for _ in range(2))
    assert once[0] == again[0] == max(once, key=lambda one: one[1])
    assert once != again, "one of fifteen factorial times they are"
    assert sorted(once) == sorted(again), "each question is answered"


def test_beside_alora_the_bare_student_recalls_contexts_scores_alike_and_wears_what_others_wear(
    tiny_llama, tmp_path, monkeypatch
):
    monkeypatch.setenv("DRLLAMA_CACHE", str(tmp_path / "cache"))
    asked = questions(count=5)
    settings = {"max_tokens": 256, "device": "cpu", "prompt": "context-first.v1", "frozen_cache": {"dtype": "float32"}}
    whole = student_of(tiny_llama, **settings)
    recipe = {"name": "apart", "data": {"jsonl": {"path": "none.jsonl"}}, "finetune": {"method": "alora"}}
    with_alora = Recipe.model_validate({**recipe, "student": {"model": str(tiny_llama), **settings}})
    apart = plugins.make_student(with_alora, YES_NO_MAYBE)
    bare = scores_by_id(whole, asked)
    assert_alike(apart, asked, bare)
    training = finetune_of(epochs=1, batch_size=2, learning_rate=0.1)
    whole.finetune(rows_of(asked), asked[:1], settings=training, seed=5, workspace=tmp_path, progress=Told())
    for student in (whole, apart):
        student.wear(tmp_path / "adapter")
    assert_alike(apart, asked, scores_by_id(whole, asked))
    apart.undress()
    assert_alike(apart, asked, bare)
    assert any(tmp_path.glob("cache/frozen/*/*")), "contexts are kept"


def test_on_a_cpu_rows_that_are_run_whole_are_scored_one_by_one_but_for_those_about_one_context(tiny_llama):
    student = student_of(tiny_llama, batch_size=None)
    apart = [one for one in questions(count=9) if one.context]
    fitting, _ = student._longest_first([*apart, *(example(f"Is it so, {n}?", "It rose. " * 4) for n in range(10))])
    plain, other = SimpleNamespace(one_by_one=True, model=student._model), SimpleNamespace(one_by_one=False)
    sizes = sorted(map(len, batches(plain, fitting, None)))
    assert sizes == [*[1] * len({one.context for one in apart}), 2, 8]
    assert list(map(len, batches(other, fitting, None)))[:2] == [8, 8]
    assert max(map(len, batches(plain, fitting, 5))) == 5
    assert [one for batch in batches(plain, fitting, None) for one in batch] == fitting


def assert_alike(student, asked, wanted):
    found = scores_by_id(student, asked)
    assert list(map(list, found.values())) == [list(student._task.labels)] * len(asked)
    for name, scores in found.items():
        assert scores == pytest.approx(wanted[name], abs=NATS)


@pytest.mark.parametrize("task", [TASKS["one token"], TASKS["several tokens"]], ids=["one token", "several tokens"])
def test_padding_on_the_left_gives_the_same_scores(folder, task, adapter_for):
    asked, adapter = questions(task.labels, count=7), adapter_for(folder, task.labels)
    model, tokenizer = plain_model(folder, adapter), transformers.AutoTokenizer.from_pretrained(folder)
    told = [plain_tokens(tokenizer, one, task) for one in asked]
    student = student_of(folder, task)
    student.wear(adapter)
    found = scores_by_id(student, asked)
    for label in task.labels:
        rows = [[*before, *words[label]] for before, words in told]
        longest = max(map(len, rows))
        tokens_BT = torch.tensor([[7] * (longest - len(row)) + row for row in rows])
        mask_BT = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        with torch.inference_mode():
            positions_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)
            logits_BTV = model(input_ids=tokens_BT, attention_mask=mask_BT, position_ids=positions_BT).logits
        nats_BTV = torch.log_softmax(logits_BTV, dim=-1)
        for row, (one, (_, words)) in enumerate(zip(asked, told, strict=True)):
            start = longest - len(words[label]) - 1
            wanted = sum(nats_BTV[row, start + at, token].item() for at, token in enumerate(words[label]))
            assert found[one.id][label] == pytest.approx(wanted, abs=NATS)


def test_the_output_head_sees_the_answer_positions_only(tiny_llama):
    seen = []

    def note(_, inputs, logits):
        seen.append((inputs[0].shape[:2], logits.shape))

    for task, wanted in (
        (YES_NO_MAYBE, [((7, 1), (7, 1, 360))]),
        # The question's last position and the longer label's own words but the last.
        (task_of("yes", "A B C D"), [((1, 4), (1, 4, 360))]),
    ):
        student = student_of(tiny_llama, task)
        hook = student._model.get_output_embeddings().register_forward_hook(note)
        list(student.score(questions(task.labels, count=7 if task is YES_NO_MAYBE else 1)))
        hook.remove()
        assert seen == wanted
        seen.clear()


def test_a_label_that_begins_another_is_not_favoured_for_being_shorter(tiny_llama, tmp_path):
    asked = questions(("no effect",), count=8)
    open_ended, closed = (student_of(tiny_llama, task_of(*labels)) for labels in (("no", "yes"), ("no", "no effect")))
    before, after = scores_by_id(open_ended, asked), scores_by_id(closed, asked)
    assert all(after[one.id]["no"] < before[one.id]["no"] for one in asked), "closed by the end of text"
    # Unclosed, "no" could never lose: whatever the student learns, it holds all the probability of "no effect" too.
    settings = finetune_of({"targets": "all-linear", "rank": 8}, epochs=4, learning_rate=0.05)
    closed.finetune(rows_of(asked), asked[:1], settings=settings, seed=1, workspace=tmp_path, progress=Told())
    assert {found.choice for found in closed.score(asked)} == {"no effect"}


def test_a_question_whose_scores_are_no_numbers_has_failed(tiny_llama):
    student = student_of(tiny_llama)
    student._model.get_input_embeddings().weight.data[290] = float("nan")
    found = list(student.score(questions(count=3)))
    assert {(one.outcome, one.choice, one.scores_nats) for one in found} == {(Outcome.FAILED, None, None)}
    assert {one.note for one in found} == {"scores that aren't numbers"}


def test_equal_scores_choose_the_first_label_of_the_task(tiny_llama):
    for labels in (("yes", "no"), ("no", "yes")):
        student = student_of(tiny_llama, task_of(*labels))
        # The head is tied to the embeddings: with all of them 0, every token is equally likely.
        student._model.get_input_embeddings().weight.data.zero_()
        (found,) = student.score(questions(count=1))
        assert len(set(found.scores_nats.values())) == 1
        assert found.choice == labels[0]


def test_in_bfloat16_only_what_is_below_the_head_is_rounded(folder):
    asked, tokenizer = questions(count=12), transformers.AutoTokenizer.from_pretrained(folder)
    found = scores_by_id(student_of(folder, dtype="bfloat16", batch_size=1), asked)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    for one in asked:
        before, words = plain_tokens(tokenizer, one, YES_NO_MAYBE)
        with torch.inference_mode():
            read = model(torch.tensor([before]), output_hidden_states=True)
        logits_V = read.hidden_states[-1][0, -1].float() @ model.lm_head.weight.float().T
        nats_V = torch.log_softmax(logits_V, dim=-1)
        assert found[one.id] == pytest.approx(
            {label: nats_V[word].item() for label, (word,) in words.items()}, abs=NATS
        )
    assert len({score for scores in found.values() for score in scores.values()}) == 36


@needs_gpu
def test_a_gpu_scores_as_the_cpu_does(folder):
    for task in (YES_NO_MAYBE, TASKS["several tokens"]):
        asked = questions(task.labels)
        wanted = scores_by_id(student_of(folder, task), asked)
        found = scores_by_id(student_of(folder, task, device="cuda", dtype="float32"), asked)
        for name, scores in found.items():
            assert scores == pytest.approx(wanted[name], abs=1e-3)


@needs_gpu
def test_bfloat16_on_a_gpu_gives_the_answers_of_float32_where_they_are_clear(folder):
    asked = questions(count=30)
    exact = scores_by_id(student_of(folder, device="cuda", dtype="float32"), asked)
    found = scores_by_id(student_of(folder, device="cuda", dtype="bfloat16"), asked)
    clear = 0
    for name, scores in exact.items():
        first, second = sorted(scores.values(), reverse=True)[:2]
        if first - second > 0.3:
            clear += 1
            assert max(found[name], key=found[name].get) == max(scores, key=scores.get)
    assert clear >= 10


@pytest.mark.slow
def test_scores_of_the_packaged_student_depend_on_neither_batch_nor_order():
    source = PubMedQADemoSource(settings=PubMedQADemo(limit={"test": 3}))
    settings = Student(model="smollm2-135m", chat="no", max_tokens=128, device="cpu")
    short = example("Does aspirin help against headache?", "Aspirin helped 90 of 100 patients.")
    asked = [*source.load().test, short]
    one_by_one, together = (
        CausalStudent(settings.model_copy(update={"batch_size": batch_size}), source.task) for batch_size in (1, 4)
    )
    wanted = scores_by_id(one_by_one, asked)
    assert len(wanted) == 4
    for order in (asked, asked[::-1]):
        for name, scores in scores_by_id(together, order).items():
            assert scores == pytest.approx(wanted[name], abs=NATS)
    naive = naive_scores(one_by_one._model, *plain_tokens(load_tokenizer(settings), short, source.task))
    assert wanted[short.id] == pytest.approx(naive, abs=NATS)
