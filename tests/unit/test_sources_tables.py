import csv
import json
from collections import Counter

import pytest

from drllama.errors import DataError, RecipeError
from drllama.protocols import Source
from drllama.recipe import Columns, CsvFiles, JsonlFiles, Limit, Shares, TaskSection
from drllama.sources import TableSource, task_of

YES_NO_MAYBE = task_of(TaskSection(labels=("yes", "no", "maybe")))
TRUE_FALSE = task_of(TaskSection(labels=("true", "false")))
CHOICE = task_of(TaskSection(labels=("A", "B", "C")))


def question(number, **cells):
    return {"question": f"Question {number}?", "context": f"Text {number}.", "label": "yes", **cells}


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def files(folder, kind, train, *, task=YES_NO_MAYBE, dev=None, **settings):
    """The source of a folder with these training rows and sound others."""
    write, section = (write_jsonl, JsonlFiles) if kind == "jsonl" else (write_csv, CsvFiles)
    label = task.labels[0]
    return TableSource(
        section(
            train=train if not isinstance(train, list) else write(folder / f"train.{kind}", train),
            dev=write(folder / f"dev.{kind}", dev or [{"question": "Is it dev?", "label": label}]),
            test=write(folder / f"test.{kind}", [{"question": "Is it test?", "label": label}]),
            **settings,
        ),
        task,
    )


def train_of(folder, kind, rows, **settings):
    return files(folder, kind, rows, **settings).load().train


def refusal(source):
    with pytest.raises(DataError) as caught:
        source.load()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def refused(folder, kind, rows, **settings):
    """What is said of training rows that can't be read, without the folder's name."""
    message = refusal(files(folder, kind, rows, **settings))
    assert message.startswith(f"{folder}/train.{kind}")
    return message.replace(f"{folder}/", "")


def refused_text(folder, kind, content, **settings):
    path = folder / f"train.{kind}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return refused(folder, kind, path, **settings)


def whole(folder, rows, *, task=YES_NO_MAYBE, **settings):
    return TableSource(JsonlFiles(path=write_jsonl(folder / "all.jsonl", rows), **settings), task)


def places(splits):
    return {one.question: one.split for name in ("train", "dev", "test") for one in splits.named(name)}


# What is read


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_row_becomes_an_example(tmp_path, kind):
    row = question(1, label="no", id="q7", group="report 3", long_answer="It did not.")
    (example,) = train_of(tmp_path, kind, [row])
    assert (example.question, example.context, example.label) == ("Question 1?", "Text 1.", "no")
    assert (example.long_answer, example.group, example.split) == ("It did not.", "report 3", "train")
    assert (example.origin.source, example.origin.source_id) == (f"train.{kind}", "q7")


def test_the_same_rows_as_jsonl_and_csv_are_the_same_examples(tmp_path):
    rows = [question(number, label=("yes", "no", "maybe")[number % 3]) for number in range(20)]
    one, other = (train_of(tmp_path, kind, rows) for kind in ("jsonl", "csv"))
    assert [(a.id, a.label, a.group) for a in one] == [(b.id, b.label, b.group) for b in other]


def test_a_row_without_an_id_is_named_by_its_line(tmp_path):
    rows = train_of(tmp_path, "csv", [question(1, context="one\ntwo\nthree"), question(2)])
    assert [one.origin.source_id for one in rows] == ["2", "5"]
    rows = train_of(tmp_path, "jsonl", [question(1), question(2)])
    assert [one.origin.source_id for one in rows] == ["1", "2"]


def test_blank_lines_are_passed_over_and_counted(tmp_path):
    row = json.dumps(question(1))
    path = tmp_path / "train.jsonl"
    path.write_text(f"\n{row}\r\n\n  \n", encoding="utf-8")
    (example,) = train_of(tmp_path, "jsonl", path)
    assert example.origin.source_id == "2"
    path = tmp_path / "train.csv"
    path.write_text("\nquestion,label\r\n\r\nWhy?,yes\r\n", encoding="utf-8")
    (example,) = train_of(tmp_path, "csv", path)
    assert example.origin.source_id == "4"


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, kind):
    content = '{"question": "Why?", "label": "yes"}\n' if kind == "jsonl" else "question,label\nWhy?,yes\n"
    path = tmp_path / f"train.{kind}"
    path.write_text(content, encoding="utf-8-sig")
    (example,) = train_of(tmp_path, kind, path)
    assert example.question == "Why?"


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_long_and_foreign_contexts_arrive_whole(tmp_path, kind):
    long = '长文本，带逗号, "引号"\u2028和换行\n' * 8000
    limit = csv.field_size_limit()
    (example,) = train_of(tmp_path, kind, [question(1, context=long)])
    assert example.context == long
    assert csv.field_size_limit() == limit, "the limit belongs to the whole process"


def test_paragraphs_are_joined_by_line_breaks(tmp_path):
    rows = [question(1, context=["One.", "Two."]), question(2, context=[]), question(3, context=None), question(4)]
    del rows[3]["context"]
    assert [one.context for one in train_of(tmp_path, "jsonl", rows)] == ["One.\nTwo.", "", "", ""]


def test_questions_on_one_context_are_one_group_whatever_its_white_space(tmp_path):
    rows = [question(1, context="The same."), question(2, context="the  same. "), question(3)]
    first, second, third = train_of(tmp_path, "jsonl", rows)
    assert first.group == second.group != third.group


def test_a_question_that_stands_alone_is_its_own_group(tmp_path):
    rows = [{"question": text, "label": "yes"} for text in ("Why?", "When?", "why? ")]
    first, second, third = train_of(tmp_path, "jsonl", rows)
    assert first.group == third.group != second.group


@pytest.mark.parametrize(("label", "read"), [("yes", "yes"), (" Yes ", "yes"), ("MAYBE", "maybe")])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_labels_are_read_whatever_their_case_and_white_space(tmp_path, kind, label, read):
    assert [one.label for one in train_of(tmp_path, kind, [question(1, label=label)])] == [read]


def test_json_s_own_booleans_and_numbers_are_labels(tmp_path):
    rows = [question(1, label=True), question(2, label=False)]
    assert [one.label for one in train_of(tmp_path, "jsonl", rows, task=TRUE_FALSE)] == ["true", "false"]
    task = task_of(TaskSection(labels=("0", "1")))
    assert [one.label for one in train_of(tmp_path, "jsonl", [question(1, label=1)], task=task)] == ["1"]


def test_a_label_that_differs_from_two_only_in_case_is_refused(tmp_path):
    task = task_of(TaskSection(labels=("ab", "AB")))
    assert train_of(tmp_path, "jsonl", [question(1, label="AB")], task=task)[0].label == "AB"
    assert "label 'Ab' is not one of ab, AB" in refused(tmp_path, "jsonl", [question(1, label="Ab")], task=task)


@pytest.mark.parametrize(
    ("cells", "columns"),
    [
        ({"options": ["one", "two", "3"]}, Columns()),
        ({"options": ["one", "two", 3]}, Columns()),
        ({"options": "one| two |3"}, Columns()),
        ({"choices": "one|two|3"}, Columns(options="choices")),
        ({"a": "one", "b": "two", "c": "3"}, Columns(options=("a", "b", "c"))),
    ],
)
def test_options_come_as_a_list_as_text_or_as_columns(tmp_path, cells, columns):
    rows = [question(number, label="B", split=split, **cells) for number, split in enumerate(("train", "dev", "test"))]
    (example,) = whole(tmp_path, rows, task=CHOICE, columns=columns).load().train
    assert example.options == ("one", "two", "3")


def test_every_column_can_have_another_name(tmp_path):
    names = {"question": "q", "context": "c", "label": "l", "long_answer": "w", "id": "i", "group": "g", "split": "s"}
    rows = [
        {"q": f"Why {split}?", "c": split, "l": "no", "w": "So.", "i": number, "g": 0.5 + number, "s": split}
        for number, split in enumerate(("train", "dev", "test"))
    ]
    (example,) = whole(tmp_path, rows, columns=Columns(**names)).load().test
    assert (example.question, example.context, example.label, example.long_answer) == ("Why test?", "test", "no", "So.")
    assert (example.origin.source_id, example.group) == ("2", "2.5")


# How it is split


def test_a_split_column_is_obeyed(tmp_path):
    marks = ["test", "train", "dev", "train", "test"]
    splits = whole(tmp_path, [question(number, split=mark) for number, mark in enumerate(marks)]).load()
    assert places(splits) == {f"Question {number}?": mark for number, mark in enumerate(marks)}


def test_a_split_column_that_is_empty_everywhere_is_none(tmp_path):
    rows = [question(number) for number in range(100)]
    unmarked = [{**row, "split": None} for row in rows]
    assert places(whole(tmp_path, rows).load()) == places(whole(tmp_path, unmarked).load())


def test_a_file_without_marks_is_cut_by_shares(tmp_path):
    splits = whole(tmp_path, [question(number) for number in range(1000)], shares=Shares(dev=0.2, test=0.5)).load()
    counts = Counter(places(splits).values())
    assert 160 <= counts["dev"] <= 240
    assert 450 <= counts["test"] <= 550
    assert sum(counts.values()) == 1000


def test_adding_rows_moves_no_other(tmp_path):
    rows = [question(number) for number in range(200)]
    before = places(whole(tmp_path, rows[:100]).load())
    after = places(whole(tmp_path, rows[::-1]).load())
    assert before == {name: after[name] for name in before}


def test_a_document_never_spans_two_splits(tmp_path):
    rows = [question(number, context=f"Report {number % 40}.") for number in range(400)]
    splits = whole(tmp_path, rows).load()
    groups = [{one.group for one in splits.named(name)} for name in ("train", "dev", "test")]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 40


def test_dev_comes_out_of_train_when_it_has_no_file(tmp_path):
    train = write_jsonl(tmp_path / "train.jsonl", [question(number) for number in range(200)])
    test = write_jsonl(tmp_path / "test.jsonl", [question(number) for number in range(200, 210)])
    settings = JsonlFiles(train=train, test=test, shares=Shares(dev=0.25))
    splits = TableSource(settings, YES_NO_MAYBE).load()
    assert 30 <= len(splits.dev) <= 70
    assert (len(splits.train) + len(splits.dev), len(splits.test)) == (200, 10)
    assert {one.origin.source for one in splits.dev} == {"train.jsonl"}


def test_a_limit_keeps_the_first_by_hash_in_file_order(tmp_path):
    rows = [question(number) for number in range(200)]
    all_of, part = whole(tmp_path, rows).load(), whole(tmp_path, rows, limit=Limit(train=10, dev=2, test=10**6)).load()
    assert {one.id for one in part.train} == set(sorted(one.id for one in all_of.train)[:10])
    assert [one for one in all_of.train if one in part.train] == list(part.train)
    assert len(part.dev) == 2
    assert part.test == all_of.test


def test_the_same_question_twice_in_one_split_is_allowed(tmp_path):
    assert len(train_of(tmp_path, "jsonl", [question(1), question(1), question(1, label="no")])) == 3


# What is refused, each with file, line, value and way out


def test_an_unknown_label_is_refused_with_its_line(tmp_path):
    rows = [question(number) for number in range(1, 212)]
    assert refused(tmp_path, "jsonl", [*rows, question(212, label="unsure")]) == (
        "train.jsonl line 212: label 'unsure' is not one of yes, no, maybe; correct the label or add it to task.labels"
    )


def test_csv_lines_are_counted_through_cells_with_line_breaks(tmp_path):
    rows = [question(1, context="a\nb\r\nc"), question(2, context="d\ne"), question(3, label="unsure")]
    assert refused(tmp_path, "csv", rows).startswith("train.csv line 7: label 'unsure'")


@pytest.mark.parametrize("label", [None, "", "  "])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_missing_label_is_never_guessed(tmp_path, kind, label):
    line = 2 if kind == "jsonl" else 3
    message = refused(tmp_path, kind, [question(1), question(2, label=label)])
    assert message == f"train.{kind} line {line}: no label; write one of yes, no, maybe"


@pytest.mark.parametrize("label", [1.0, ["yes"], {"is": "yes"}])
def test_a_label_that_is_no_text_is_refused(tmp_path, label):
    assert f"train.jsonl line 1: label {label!r} is not a text" in refused(
        tmp_path, "jsonl", [question(1, label=label)]
    )


def test_a_very_long_label_doesn_t_flood_the_message(tmp_path):
    assert "(10002 characters)" in refused(tmp_path, "jsonl", [question(1, label="x" * 10000)])


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_missing_question_column_names_those_there_and_the_nearest(tmp_path, kind):
    line = 1 if kind == "jsonl" else 2
    assert refused(tmp_path, kind, [{"Questions": "Why?", "text": "T", "label": "yes"}]) == (
        f"train.{kind} line {line}: no column 'question'; there are Questions, text, label; "
        f"did you mean 'Questions'? name yours in data.{kind}.columns.question"
    )


def test_a_missing_label_column_is_refused_like_a_missing_question_column(tmp_path):
    message = refused(tmp_path, "jsonl", [question(1), {"question": "Why?", "final_decision": "yes"}])
    assert message == (
        "train.jsonl line 2: no column 'label'; there are question, final_decision; "
        "name yours in data.jsonl.columns.label"
    )


@pytest.mark.parametrize("field", ["context", "long_answer", "id", "group", "options", "split"])
def test_an_optional_column_that_the_recipe_renames_must_be_there(tmp_path, field):
    message = refused(tmp_path, "csv", [question(1, abstract="T")], columns=Columns(**{field: "abstrct"}))
    assert "no column 'abstrct'" in message
    assert f"did you mean 'abstract'? name yours in data.csv.columns.{field}" in message


def test_options_in_columns_must_all_be_there(tmp_path):
    rows = [question(1, label="A", opa="x", opb="y")]
    message = refused(tmp_path, "csv", rows, task=CHOICE, columns=Columns(options=("opa", "opb", "opc")))
    assert "no column 'opc'" in message


@pytest.mark.parametrize("text", ["", " \t", None])
def test_an_empty_question_is_refused(tmp_path, text):
    rows = [question(1), question(2, question=text)]
    assert refused(tmp_path, "jsonl", rows).startswith("train.jsonl line 2: the question is empty")


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"question": 5}, "question is a number, not a text"),
        ({"question": ["Why?"]}, "question is a list, not a text"),
        ({"context": 5}, "context is a number, not a text"),
        ({"context": ["One.", 2]}, "context holds a number among its paragraphs"),
        ({"context": ["One.", "", 0]}, "context holds a number among its paragraphs"),
        ({"context": ["One.", None]}, "context holds null among its paragraphs"),
        ({"context": {"text": "One."}}, "context is an object, not a text"),
        ({"long_answer": True}, "long_answer is true or false, not a text"),
        ({"id": ["a"]}, "id is a list, not a name"),
        ({"group": True}, "group is true or false, not a name"),
        ({"options": {"A": "x"}}, "options is an object; write a list"),
        ({"options": ["x", None, "z"]}, "an option is null; write a text"),
        ({"options": ["x", "", "z"]}, "an option is empty"),
        ({"options": "x||z"}, "an option is empty"),
        ({"question": "half \ud800 a pair"}, "half a surrogate pair"),
    ],
)
def test_a_cell_of_the_wrong_kind_is_refused(tmp_path, cells, said):
    text = "".join(json.dumps(row) + "\n" for row in (question(1), question(2, **cells)))
    message = refused_text(tmp_path, "jsonl", text)
    assert message.startswith("train.jsonl line 2: ")
    assert said in message


@pytest.mark.parametrize("options", [["x", "y"], "x|y|z|w", "x"])
def test_as_many_options_as_labels_are_needed(tmp_path, options):
    message = refused(tmp_path, "jsonl", [question(1, label="A", options=options)], task=CHOICE)
    assert message.startswith("train.jsonl line 1: options: ")
    assert "labels: 3 (A, B, C)" in message


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_an_id_that_stands_twice_names_both_lines(tmp_path, kind):
    first, second = (1, 3) if kind == "jsonl" else (2, 4)
    rows = [question(1, id="a"), question(2, id="b"), question(3, id="a")]
    message = refused(tmp_path, kind, rows)
    assert message == f"train.{kind} line {second}: id 'a' stands on line {first} too; make the ids differ"


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_an_empty_file_is_refused(tmp_path, kind, content):
    assert refused_text(tmp_path, kind, content) == f"train.{kind}: empty; give a file with questions"


def test_a_header_alone_is_refused(tmp_path):
    assert refused_text(tmp_path, "csv", "question,label\n") == (
        "train.csv: a header and no rows; give a file with questions"
    )


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_missing_file_or_a_folder_is_refused(tmp_path, kind):
    message = refusal(files(tmp_path, kind, tmp_path / "nowhere"))
    assert message == f"{tmp_path}/nowhere: No such file or directory; give the path of a file of questions"
    assert f"{tmp_path}: Is a directory" in refusal(files(tmp_path, kind, tmp_path))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_bytes_that_aren_t_utf_8_are_refused_with_their_place(tmp_path, mark):
    content = mark + b"question,label\nWhy?,yes\nCaf\xe9?,no\n"
    assert refused_text(tmp_path, "csv", content) == (
        f"train.csv line 3: not UTF-8 at byte {content.index(0xE9)}; save the file as UTF-8"
    )


def test_a_spreadsheet_s_utf_16_is_refused(tmp_path):
    assert "not UTF-8 at byte 0" in refused_text(tmp_path, "csv", "question,label\nWhy?,yes\n".encode("utf-16"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "Why?" "label": "yes"}', "not JSON at column 21"),
        ('{"question": "Why?", "label": "yes"', "not JSON at column"),
        ("question,label", "not JSON at column 1"),
        ('{"label": "yes", "label": "no"}', "the name 'label' stands twice in one object"),
        ("[" * 100000, "nested too deeply"),
        ('{"question": ' + "9" * 5000 + "}", "mend it"),
        ('["Why?", "yes"]', "a list, not a JSON object"),
        ('"Why?"', "a text, not a JSON object"),
        ("null", "null, not a JSON object"),
        ("{}", "no column 'question'; there are none"),
    ],
)
def test_a_line_that_is_no_json_object_is_refused(tmp_path, line, said):
    message = refused_text(tmp_path, "jsonl", f"{json.dumps(question(1))}\n{line}\n")
    assert message.startswith("train.jsonl line 2: ")
    assert said in message


def test_one_json_list_is_no_json_lines(tmp_path):
    content = json.dumps([question(1), question(2)], indent=1)
    assert refused_text(tmp_path, "jsonl", content) == (
        "train.jsonl line 1: a JSON list, not an object; write one JSON object a line"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("question,label\nWhy?,yes\nWhy, then?,yes\n", "line 3: cells: 3, columns in the header: 2"),
        ('question,context,label\n"a\nb",T,yes\nWhy?,yes\n', "line 4: cells: 2, columns in the header: 3"),
        ('question,label\nWhy?,yes\n"When?,yes\n', "line 3: unexpected end of data"),
        ('question,label\n"Why?"x,yes\n', "line 2: "),
        ("question,label,label\nWhy?,yes,no\n", "line 1: the column 'label' stands twice in the header"),
        ("question;label\nWhy?;yes\n", "line 2: no column 'question'; there are question;label"),
    ],
)
def test_a_broken_csv_row_is_refused(tmp_path, text, said):
    assert refused_text(tmp_path, "csv", text).startswith(f"train.csv {said}")


def test_a_split_name_that_isn_t_ours_is_refused(tmp_path):
    rows = [question(1, split="train"), question(2, split="validation")]
    assert "line 2: split 'validation' is not one of train, dev, test" in refusal(whole(tmp_path, rows))


def test_a_row_without_a_split_among_rows_with_one_is_refused(tmp_path):
    rows = [question(1, split="train"), question(2), question(3, split="test")]
    assert "line 2: no split, though other rows have one" in refusal(whole(tmp_path, rows))


def test_a_split_cell_that_contradicts_its_file_is_refused(tmp_path):
    message = refused(tmp_path, "jsonl", [question(1, split="train"), question(2, split="test")])
    assert message.startswith("train.jsonl line 2: split 'test' in the file that data.jsonl.train names")


@pytest.mark.parametrize("left_out", ["train", "dev", "test"])
def test_a_split_without_questions_is_refused(tmp_path, left_out):
    marks = [mark for mark in ("train", "dev", "test") if mark != left_out]
    message = refusal(whole(tmp_path, [question(number, split=mark) for number, mark in enumerate(marks)]))
    assert f"all.jsonl: no question is in {left_out} (" in message
    assert "add questions, or change data.jsonl.shares" in message


def test_a_file_too_small_to_cut_is_refused(tmp_path):
    assert "no question is in" in refusal(whole(tmp_path, [question(1)]))


def test_a_question_in_two_splits_names_both_lines(tmp_path):
    rows = [question(1, split="train"), question(2, split="dev"), question(1, split="test", label="no")]
    assert refusal(whole(tmp_path, rows)) == (
        f"{tmp_path}/all.jsonl line 1 and {tmp_path}/all.jsonl line 3: "
        "the same question stands in train and test; delete one of them"
    )


def test_a_question_in_two_files_names_both(tmp_path):
    copy = {"question": "is it  DEV?", "label": "no"}
    assert refusal(files(tmp_path, "jsonl", [question(1), copy])).startswith(
        f"{tmp_path}/train.jsonl line 2 and {tmp_path}/dev.jsonl line 1: the same question stands in train and dev"
    )


def test_a_question_that_two_groups_carry_into_two_splits_is_refused(tmp_path):
    rows = [question(number) for number in range(100)] + [question(0, group=str(number)) for number in range(20)]
    assert "the same question stands in" in refusal(whole(tmp_path, rows))


def test_a_document_in_two_splits_is_refused(tmp_path):
    rows = [
        question(number, split=split, context="One report.") for number, split in enumerate(("train", "dev", "test"))
    ]
    message = refusal(whole(tmp_path, rows))
    assert "line 1 and" in message
    assert "the same document stands in train and dev" in message
    assert "name in data.jsonl.columns.group a column" in message


def test_a_group_column_that_tells_documents_apart_lets_the_context_repeat(tmp_path):
    rows = [
        question(number, split=split, context="One report.", group=number)
        for number, split in enumerate(("train", "dev", "test"))
    ]
    assert len(places(whole(tmp_path, rows).load())) == 3


@pytest.mark.parametrize(("section", "kind"), [(JsonlFiles, "jsonl"), (CsvFiles, "csv")])
def test_a_table_needs_labels(tmp_path, section, kind):
    with pytest.raises(RecipeError) as caught:
        TableSource(section(path=tmp_path / "all"), None)
    assert str(caught.value) == f"data.{kind} needs task.labels; add e.g. task: {{labels: [yes, no, maybe]}}"


def test_a_table_fits_the_protocol(tmp_path):
    source: Source = TableSource(JsonlFiles(path=tmp_path / "all"), YES_NO_MAYBE)
    assert source.task == YES_NO_MAYBE
