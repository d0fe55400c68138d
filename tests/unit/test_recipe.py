import re

import pydantic
import pytest
import yaml

from drllama.errors import RecipeError
from drllama.recipe import Recipe, as_yaml, read_recipe, resolve
from drllama.recipe.reading import known_settings

BARE = "name: a\ndata: pubmedqa-demo\n"
OWN = "name: a\ndata: {jsonl: {path: mine.jsonl}}\n"


@pytest.fixture
def read(tmp_path):
    def read(text, *assignments):
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_recipe(path, assignments)

    return read


@pytest.fixture
def refusal(read, tmp_path):
    """The one line that a recipe is refused with, its path shortened to the file's name."""

    def refusal(text, *assignments):
        with pytest.raises(RecipeError) as told:
            read(text, *assignments)
        line = str(told.value).replace(f"{tmp_path}/", "")
        assert "\n" not in line
        return line

    return refusal


def origins(resolved):
    return {setting.path: setting.came_from.rpartition("/")[2] for setting in resolved.settings}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("finetune: {lr: 1}", "unknown setting 'finetune.lr' (line 3); did you mean 'finetune.learning_rate'?"),
        ("finetune: {epoch: 1}", "unknown setting 'finetune.epoch' (line 3); did you mean 'finetune.epochs'?"),
        ("rank: 4", "unknown setting 'rank' (line 3); did you mean 'finetune.method.lora.rank'?"),
        ("finetune: {lora: {}}", "unknown setting 'finetune.lora' (line 3); did you mean 'finetune.method.lora'?"),
        (
            "finetune:\n  method:\n    lora:\n      rnk: 4",
            "unknown setting 'finetune.method.lora.rnk' (line 6); did you mean 'finetune.method.lora.rank'?",
        ),
        ("max_tokens: 9", "unknown setting 'max_tokens' (line 3); did you mean 'student.max_tokens'?"),
        (
            "zzz: 9",
            "unknown setting 'zzz' (line 3); a recipe has name, seed, seeds, cells, task, data, student, teacher, "
            "allow_hosts, audit, augment, filters, finetune, evaluate, report",
        ),
        (
            "report: {zzz: 9}",
            "unknown setting 'report.zzz' (line 3); report has worst_mistakes, flipped_questions, reference, "
            "reference_student",
        ),
    ],
)
def test_an_unknown_setting_is_refused_with_its_line_and_the_nearest_name(refusal, text, line):
    assert refusal(f"{BARE}{text}\n") == f"recipe.yaml: {line}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: a\ndata: pubmedqa-dem\n", "data: unknown kind 'pubmedqa-dem' (line 2); did you mean 'pubmedqa-demo'?"),
        ("name: a\ndata: {jsonlines: {path: x}}\n", "data: unknown kind 'jsonlines' (line 2); did you mean 'jsonl'?"),
        (
            "name: a\ndata: hub\n",
            "data: unknown kind 'hub' (line 2); choose one of pubmedqa, pubmedqa-demo, jsonl, csv",
        ),
        (f"{BARE}finetune: {{method: lra}}\n", "finetune.method: unknown kind 'lra' (line 3); did you mean 'lora'?"),
        (
            f"{BARE}finetune: {{method: {{lra: {{rank: 2}}}}}}\n",
            "finetune.method: unknown kind 'lra' (line 3); did you mean 'lora'?",
        ),
        ("name: a\ndata: {jsonl: {path: x}, csv: {path: x}}\n", "data (line 2): name exactly one kind, not jsonl, csv"),
        ("name: a\ndata: {jsonl: 3}\n", "data (line 2): name one kind and its settings"),
    ],
)
def test_a_wrong_kind_is_refused_with_the_nearest_one(refusal, text, line):
    assert refusal(text).startswith(f"recipe.yaml: {line}")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("finetune: {epochs: 0}", "finetune.epochs is 0 (line 3): should be greater than or equal to 1"),
        ("finetune: {learning_rate: fast}", "finetune.learning_rate is 'fast' (line 3): should be a valid number"),
        ("finetune: {learning_rate: .inf}", "finetune.learning_rate is inf (line 3): should be a finite number"),
        ("finetune: {weight_decay: .nan}", "finetune.weight_decay is nan (line 3): should be"),
        ("finetune: {method: {lora: {rank: 1.5}}}", "finetune.method.lora.rank is 1.5 (line 3): should be a valid"),
        ("finetune: {method: {lora: {targets: q_proj}}}", "finetune.method.lora.targets is 'q_proj' (line 3): should"),
        ("seed: true", "seed is True (line 3): should be a valid integer"),
        ("seed: '7'", "seed is '7' (line 3): should be a valid integer"),
        ("finetune:", "finetune (line 3): empty, not settings; write them below it, or leave the name out"),
        ("student: {model: 7}", "student.model is 7 (line 3): not a text; put it in quotes"),
        ("student: {dtype: float8}", "student.dtype is 'float8' (line 3): should be 'auto', 'float32' or 'bfloat16'"),
        ("task: {labels: [yes, 1.5]}", "task.labels.1 is 1.5 (line 3): not a text; put it in quotes"),
        ("task: {labels: [yes]}", "task.labels (line 3): needs at least 2, has 1"),
        ("task: {labels: [yes, yes]}", "task (line 3): labels must differ from each other"),
        (
            "task: {labels: [yes, no], verbalizers: {ye: x}}",
            "task (line 3): verbalizers name ye, not among labels yes, no",
        ),
        ("task: {labels: [a, b], verbalizers: {a: b}}", "task (line 3): verbalizers must differ from each other"),
    ],
)
def test_a_value_that_can_t_be_is_refused_with_itself_and_its_line(refusal, text, line):
    assert refusal(f"{BARE}{text}\n").startswith(f"recipe.yaml: {line}")


@pytest.mark.parametrize(
    ("filters", "augment", "taught"),
    [
        ("{}", "null", False),
        ("{label: {votes: 1}}", "null", False),
        ("{label: {votes: 3, sampling: {temperature: 0.8}}}", "null", False),
        ("{label: {votes: 3, agreement: 0.7, sampling: {temperature: 0.8}}}", "null", False),
        ("{label: {votes: 3, agreement: 0.6, sampling: {temperature: 0.8}}}", "null", True),
        ("{label: {votes: 1}}", "{without_filter: [label]}", True),
    ],
)
def test_shares_of_answers_that_all_say_the_label_are_nothing_to_teach(refusal, read, filters, augment, taught):
    text = f"{BARE}filters: {filters}\naugment: {augment}\nfinetune: {{soft_labels: votes}}\n"
    if taught:
        assert read(text).recipe.finetune.soft_labels == "votes"
    else:
        assert refusal(text).startswith("recipe.yaml: finetune.soft_labels=votes would change nothing: a kept row has")


def test_a_list_isn_t_called_short_of_items_that_are_themselves_wrong(refusal):
    line = refusal(f"{BARE}augment: {{rewrite: {{per_item: 1}}, arms: [nonee]}}\n")
    assert line.startswith("recipe.yaml: augment.arms.0 is 'nonee' (line 3): should be 'none', ")
    assert "needs at least" not in line
    assert "augment.arms (line 3): needs at least 1" in refusal(f"{BARE}augment: {{rewrite: {{}}, arms: []}}\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "recipe.yaml: empty, not settings; a recipe begins like 'name: my-run'"),
        ("# nothing\n", "recipe.yaml: empty, not settings"),
        ("- a\n", "recipe.yaml: a list, not settings"),
        ("hello", "recipe.yaml: a text, not settings"),
        ("name: a\n", "recipe.yaml: 'data' is missing; add it"),
        ("name: a b\ndata: pubmedqa\n", "recipe.yaml: name is 'a b' (line 1): write letters, digits"),
        ("name: ../up\ndata: pubmedqa\n", "recipe.yaml: name is '../up' (line 1): write letters, digits"),
        ("name: a\nname: b\ndata: pubmedqa\n", "recipe.yaml line 2: 'name' stands twice; keep one of them"),
        (
            f"{BARE}finetune:\n  epochs: 1\n  batch_size: 2\n  epochs: 3\n",
            "recipe.yaml line 6: 'finetune.epochs' stands twice; keep one of them",
        ),
        ("name: a\ndata: [\n", "recipe.yaml line 3: "),
        ("name: a\n\tdata: b\n", "recipe.yaml line 2: "),
        ("name: a\x01\n", "recipe.yaml: not YAML"),
        (b"name: caf\xe9\n", "recipe.yaml: not UTF-8 at byte 9; save the recipe as UTF-8"),
        ("name: !!python/object:os.system x\n", "recipe.yaml line 1: could not determine a constructor"),
        ("a: &again {b: *again}\n", "recipe.yaml: nested too deeply, or an alias inside itself"),
        (f"base: &x {{epochs: 2}}\n{BARE}finetune: {{<<: *x}}\n", "recipe.yaml line 4: a recipe can't merge settings"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(refusal, text, line):
    assert refusal(text).startswith(line)


def test_all_mistakes_are_told_at_once(refusal):
    line = refusal(f"{BARE}finetune: {{lr: 1, epochs: 0}}\nstudnt: x\n")
    assert "'finetune.lr'" in line
    assert "finetune.epochs is 0" in line
    assert "'studnt' (line 4); did you mean 'student'?" in line


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(RecipeError, match=re.escape(f"{path}: ")):
            read_recipe(path)


def test_yes_and_no_are_labels_and_so_are_true_false_and_whole_numbers(read):
    recipe = read(f"{OWN}task: {{labels: [yes, no, true, false, 1, on, Off]}}\n").recipe
    assert recipe.task.labels == ("yes", "no", "true", "false", "1", "on", "Off")


def test_verbalizers_may_be_such_words_too(read):
    recipe = read(f"{OWN}task: {{labels: [true, false], verbalizers: {{true: yes, false: 0}}}}\n").recipe
    assert recipe.task.verbalizers == {"true": "yes", "false": "0"}


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("1.0e-3", 1e-3), ("2E-4", 2e-4), ("1", 1.0), ("1e+0", 1.0)]
)
def test_numbers_may_be_written_as_everybody_writes_them(read, text, value):
    assert read(f"{BARE}finetune: {{learning_rate: {text}}}\n").recipe.finetune.learning_rate == value
    assert read(BARE, f"finetune.learning_rate={text}").recipe.finetune.learning_rate == value


@pytest.mark.parametrize(
    ("method", "rate"), [("lora", 1e-3), ("alora", 5e-4), ("prefix", 5e-3), ("ia3", 5e-3), ("full", 1e-4)]
)
def test_a_method_brings_the_learning_rate_that_suits_it(read, method, rate):
    resolved = read(BARE, f"finetune.method={method}")
    assert resolved.recipe.finetune.learning_rate == rate
    assert origins(resolved)["finetune.learning_rate"] == "default"
    assert read(BARE, f"finetune.method={method}", "finetune.learning_rate=0.5").recipe.finetune.learning_rate == 0.5


@pytest.mark.parametrize(
    ("setting", "whole", "decimal"),
    [
        ("augment.sampling.temperature", "1", "1.0"),
        ("augment.sampling.top_p", "1", "1.0"),
        ("augment.sampling.repetition_penalty", "2", "2.0"),
        ("teacher", "{openai-compatible: {model: m, usd_per_million_tokens: [1, 2]}}",
         "{openai-compatible: {model: m, usd_per_million_tokens: [1.0, 2.0]}}"),
    ],
)  # fmt: skip
def test_a_whole_number_and_its_decimal_twin_are_the_same_setting(read, setting, whole, decimal):
    one, other = (read(BARE, f"{setting}={value}").recipe.model_dump_json() for value in (whole, decimal))
    assert one == other


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("augment: {sampling: {temperature: true}}", "augment.sampling.temperature is True (line 3): "),
        ("augment: {sampling: {max_tokens: 64.5}}", "augment.sampling.max_tokens is 64.5 (line 3): "),
        ("augment: {new: {balance: {yes: 0.5, no: 0.4}}}", "(line 3): the shares add up to 0.9, not 1; mend them"),
        ("augment: {new: {balance: {yes: 1.5, no: -0.5}}}", "augment.new.balance.no is -0.5 (line 3): "),
        ("augment: {new: {balance: {}}}", "(line 3): the shares add up to 0, not 1"),
    ],
)
def test_a_setting_of_what_a_teacher_is_asked_is_refused_like_any_other(refusal, text, told):
    assert told in refusal(f"{BARE}{text}\n")


def test_shares_that_were_rounded_add_up(read):
    read(BARE, "augment.new.balance={yes: 0.33, no: 0.33, maybe: 0.33}")
    read(BARE, "augment.new.balance={yes: 1}")


def test_a_byte_order_mark_is_no_part_of_the_first_name(read):
    assert read(b"\xef\xbb\xbf" + BARE.encode()).recipe.name == "a"


def test_each_value_remembers_where_it_came_from(read):
    resolved = read(
        "name: a\n"
        "data:\n"
        "  pubmedqa-demo:\n"
        "    limit: {train: 9}\n"
        "student: tiny\n"
        "finetune:\n"
        "  method: lora\n"
        "  epochs: 5\n",
        "finetune.epochs=2",
        "finetune.method.lora.rank=8",
        "student.max_tokens=64",
    )
    found = origins(resolved)
    assert found.pop("name") == "recipe.yaml line 1"
    assert found.pop("data.pubmedqa-demo.limit.train") == "recipe.yaml line 4"
    assert found.pop("student.model") == "recipe.yaml line 5"
    assert {found.pop(f"finetune.{name}") for name in ("epochs", "method.lora.rank")} == {"--set"}
    assert found.pop("student.max_tokens") == "--set"
    assert set(found.values()) == {"default"}
    assert resolved.recipe.finetune.method.rank == 8


def test_a_bare_name_doesn_t_make_the_defaults_inside_it_the_file_s(read):
    found = origins(read(BARE))
    assert found["data.pubmedqa-demo.shares.dev"] == "default"
    assert found.pop("name") == "recipe.yaml line 1"
    assert set(found.values()) == {"default"}


def test_a_section_set_as_a_whole_forgets_the_file_s_lines_inside_it(read):
    found = origins(read("name: a\ndata: {pubmedqa: {fold: 1, split: official}}\n", "data={pubmedqa: {fold: 3}}"))
    assert found["data.pubmedqa.fold"] == "--set"
    assert found["data.pubmedqa.split"] == "default"


@pytest.mark.parametrize(
    ("file", "assignment", "path", "value"),
    [
        (BARE, "finetune.method.lora.rank=8", "finetune.method.lora.rank", 8),
        (BARE, "student=other", "student.model", "other"),
        (f"{BARE}student: tiny\n", "student=other", "student.model", "other"),
        (f"{BARE}student: tiny\n", "student.device=cpu", "student.model", "tiny"),
        (f"{BARE}student: {{model: tiny, device: cpu}}\n", "student=other", "student.device", "cpu"),
        (BARE, "data=pubmedqa", "data.pubmedqa.fold", 0),
        (BARE, "data.pubmedqa-demo.limit.train=7", "data.pubmedqa-demo.limit.train", 7),
        (BARE, "data.pubmedqa-demo.limit={train: 7}", "data.pubmedqa-demo.limit.train", 7),
        (BARE, "finetune.method.lora.targets=[k_proj]", "finetune.method.lora.targets", ["k_proj"]),
        (
            f"{BARE}finetune: {{micro_batch_size: 4}}\n",
            "finetune.micro_batch_size=null",
            "finetune.micro_batch_size",
            None,
        ),
        (OWN, "task.labels=[yes, no]", "task.labels", ["yes", "no"]),
        (f"{OWN}task: {{labels: [yes, no]}}\n", "task.verbalizers.yes=sure", "task.verbalizers.yes", "sure"),
        (BARE, " seed =7", "seed", 7),
        (BARE, "name=a=b".replace("a=b", "'x.y'"), "name", "x.y"),
    ],
)
def test_set_reaches_every_setting(read, file, assignment, path, value):
    settings = {setting.path: setting.value for setting in read(file, assignment).settings}
    assert settings[path] == value


def test_the_last_of_two_assignments_holds(read):
    assert read(BARE, "seed=1", "seed=2").recipe.seed == 2


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("seed", "--set seed: write it as SETTING=VALUE, such as --set finetune.epochs=2"),
        ("=3", "--set =3: write it as SETTING=VALUE"),
        ("seed=[", "--set seed=[: the value isn't YAML"),
        ("sed=3", "recipe.yaml: unknown setting 'sed' (--set); did you mean 'seed'?"),
        ("finetune.lr=3", "recipe.yaml: unknown setting 'finetune.lr' (--set); did you mean 'finetune.learning_rate'?"),
        ("name.first=3", "--set name.first=3: 'name' is 'a', it has no settings inside"),
        ("seed=", "recipe.yaml: seed is None (--set): should be a valid integer"),
        ("data.pubmedqa.fold=3", "recipe.yaml: data (line 2): name exactly one kind, not pubmedqa-demo, pubmedqa"),
    ],
)
def test_a_wrong_assignment_is_refused_in_one_line(refusal, assignment, line):
    assert refusal(BARE, assignment).startswith(line)


RECIPES = [
    BARE,
    "name: 2024\ndata: {pubmedqa: {path: 'a file.json', split: paper}}\nstudent: ORG/MODEL\nseed: 0\n",
    f"{OWN}task: {{labels: [yes, no, true, false, 1, '007', '1e-3', 'null', '~', ''' '], instruction: 'a: b # c'}}\n",
    f"{OWN}task:\n  labels: [是, 否]\n  verbalizers: {{是: true, 否: '1.5'}}\n",
    "name: a\ndata: {csv: {train: a.csv, test: b.csv, columns: {options: [A, B], label: y}}}\ntask: {labels: [a, b]}\n",
    f"{BARE}finetune: {{learning_rate: 1e-5, method: {{lora: {{targets: all-linear, top_layers: 3}}}}}}\n",
]


@pytest.mark.parametrize("text", RECIPES)
def test_a_recipe_written_out_in_full_reads_as_the_same_recipe(read, text):
    recipe = read(text).recipe
    again = read(as_yaml(recipe))
    assert again.recipe == recipe
    assert as_yaml(again.recipe) == as_yaml(recipe)
    assert "default" not in origins(again).values()


@pytest.mark.parametrize("text", RECIPES)
def test_a_recipe_stored_as_json_resolves_to_the_same_recipe(read, text):
    recipe = read(text).recipe
    assert resolve(recipe.model_dump(mode="json")).recipe == recipe


def test_a_recipe_is_frozen(read):
    recipe = read(BARE).recipe
    for section in (recipe, recipe.student, recipe.finetune.method, recipe.data.limit):
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            setattr(section, next(iter(type(section).model_fields)), "other")


def test_every_setting_is_documented():
    undocumented = []
    sections = [Recipe]
    for section in sections:
        assert section.__doc__
        for name, one in section.model_fields.items():
            sections += [inner for inner in _sections_of(one.annotation) if inner not in sections]
            if name != "kind" and not one.description:
                undocumented.append(f"{section.__name__}.{name}")
    assert undocumented == []
    assert len(sections) > 12


def _sections_of(annotation):
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [section for inner in getattr(annotation, "__args__", ()) for section in _sections_of(inner)]


def test_the_known_settings_are_those_that_resolved_recipes_show(read):
    known = set(known_settings())
    assert len(known) == len(list(known_settings()))
    for text in RECIPES:
        shown = {re.sub(r"^task\.verbalizers\..*", "task.verbalizers", path) for path in origins(read(text))}
        assert shown <= known


def test_the_recipes_of_the_project_are_recipes(pytestconfig):
    recipes = sorted((pytestconfig.rootpath / "experiments").glob("*/recipe.yaml"))
    assert len(recipes) >= 2
    for path in recipes:
        assert read_recipe(path).recipe.name == path.parent.name


@pytest.mark.parametrize("text", RECIPES)
def test_other_yaml_readers_see_the_same_settings_in_a_recipe_written_out(read, text):
    recipe = read(text).recipe
    assert yaml.safe_load(as_yaml(recipe)) == recipe.model_dump(mode="json")
