"""PubMedQA's expert-labelled set, PQA-L (Jin et al. 2019), with its authors' split and the Dr. LLaMA paper's."""

import importlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drllama.errors import DataError, MissingExtra
from drllama.ids import fingerprint
from drllama.recipe import PubMedQA
from drllama.sources.rows import kind_of, read_json, read_text
from drllama.sources.splitting import by_split, limited
from drllama.sources.tasks import PUBMEDQA_TASK, gold_label
from drllama.types import Example, Original, SplitName, Splits, Task

_HUB_NAME = "qiaojin/PubMedQA"
_HUB_FILE = "pqa_labeled/train-00000-of-00001.parquet"
_NUM_ITEMS = 1000
# Both splits follow from the order of the items and their answers: of (PMID, answer) pairs in the authors' order.
_ORDER_FINGERPRINT = "a5f86765085598cca50c288838c154edd1a253929a945f643d88b1a0449ee89e"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """One item as the authors' file holds it."""

    pmid: str
    question: str
    paragraphs: tuple[str, ...]
    long_answer: str | None
    decision: str


@dataclass(frozen=True, slots=True, init=False)
class PubMedQASource:
    """The 1,000 labelled items from a local file or the Hugging Face Hub."""

    settings: PubMedQA
    task: Task

    def __init__(self, settings: PubMedQA, task: Task | None = None) -> None:
        """Take the settings, and the recipe's task if it has one."""
        object.__setattr__(self, "settings", settings)
        object.__setattr__(self, "task", task or PUBMEDQA_TASK)

    def load(self) -> Splits:
        """Return the items in the split that the settings name; a group is a PubMed abstract.

        Raises:
            DataError: the file can't be had or read, or isn't PQA-L in its authors' order.
            MissingExtra: a package that reads the Hub's format isn't installed.
        """
        path = self.settings.path or _from_hub()
        items = _parquet_items(path) if path.suffix == ".parquet" else _json_items(path)
        _refuse_another_set(items, path)
        decisions = {item.pmid: item.decision for item in items}
        if self.settings.split == "paper":
            pmids = list(decisions)
            parts: dict[SplitName, Sequence[str]] = {"train": pmids[:450], "dev": pmids[450:500], "test": pmids[500:]}
        else:
            parts = official_split(decisions, fold=self.settings.fold)
        by_pmid = {item.pmid: item for item in items}
        examples = [self._example(by_pmid[pmid], name, path) for name, pmids in parts.items() for pmid in pmids]
        return limited(by_split(examples), self.settings.limit)

    def _example(self, item: _Item, split: SplitName, path: Path) -> Example:
        return Example(
            question=item.question,
            context="\n".join(item.paragraphs),
            long_answer=item.long_answer,
            label=gold_label(item.decision, self.task, f"{path} item {item.pmid}"),
            split=split,
            group=item.pmid,
            origin=Original(source="pubmedqa", source_id=item.pmid),
        )


def official_split(decisions: Mapping[str, str], *, fold: int) -> dict[SplitName, Sequence[str]]:
    """Return the PMIDs of train, dev and test by the dataset authors' own procedure.

    ``decisions`` maps each PMID to its answer, in the order of the authors' file. One half is the test set; the other
    is cut into ten folds, of which ``fold`` is dev. One generator, seeded with 0, serves both cuts.
    """
    generator = random.Random(0)
    validation_half, test = _stratified_parts(decisions, 2, generator)
    folds = _stratified_parts({pmid: decisions[pmid] for pmid in validation_half}, 10, generator)
    train = [pmid for number, part in enumerate(folds) if number != fold for pmid in part]
    return {"train": train, "dev": folds[fold], "test": test}


def _stratified_parts(decisions: Mapping[str, str], num_parts: int, generator: random.Random) -> list[list[str]]:
    """Return parts with the same balance of labels, evened out in size at the cost of the earlier ones."""
    parts: list[list[str]] = [[] for _ in range(num_parts)]
    for label in PUBMEDQA_TASK.labels:
        pmids = [pmid for pmid, decision in decisions.items() if decision == label]
        generator.shuffle(pmids)
        size = math.ceil(len(pmids) / num_parts)
        for number, part in enumerate(parts):
            part.extend(pmids[number * size : (number + 1) * size])
    *earlier, last = parts
    # Asked once, before any is moved: the sizes may differ by more than this evens out.
    if len(last) != len(parts[0]):
        for part in earlier:
            moved = generator.choice(part)
            part.remove(moved)
            last.append(moved)
    return parts


def _refuse_another_set(items: Sequence[_Item], path: Path) -> None:
    way_out = "take ori_pqal.json from github.com/pubmedqa/pubmedqa, or read other questions with data.jsonl"
    if len(items) != _NUM_ITEMS:
        raise DataError(f"{path}: {len(items)} items, but both splits need PQA-L's {_NUM_ITEMS:,}; {way_out}")
    if fingerprint([[item.pmid, item.decision] for item in items]) != _ORDER_FINGERPRINT:
        raise DataError(f"{path}: not PQA-L's items, answers and order, which both splits follow from; {way_out}")


def _json_items(path: Path) -> list[_Item]:
    content = read_json(read_text(path), str(path))
    if not isinstance(content, dict):
        raise DataError(f"{path}: {kind_of(content)}, not an object of PubMed ids; give ori_pqal.json")
    return [_item_of(pmid, fields, f"{path} item {pmid}") for pmid, fields in content.items()]


def _item_of(pmid: str, fields: object, where: str) -> _Item:
    if not isinstance(fields, dict):
        raise DataError(f"{where}: {kind_of(fields)}, not an object with QUESTION and CONTEXTS; give ori_pqal.json")
    long_answer = fields.get("LONG_ANSWER")
    if long_answer is not None and not isinstance(long_answer, str):
        raise DataError(f"{where}: LONG_ANSWER is {kind_of(long_answer)}, not a text; correct it")
    return _Item(
        pmid=pmid,
        question=_text_field(fields, "QUESTION", where),
        paragraphs=_paragraphs(fields.get("CONTEXTS"), where),
        long_answer=long_answer,
        decision=_text_field(fields, "final_decision", where),
    )


def _text_field(fields: Mapping[str, object], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        found = (
            "missing" if name not in fields else "empty" if isinstance(value, str) else f"{kind_of(value)}, not a text"
        )
        raise DataError(f"{where}: {name} is {found}; give ori_pqal.json as its authors made it")
    return value


def _paragraphs(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise DataError(f"{where}: CONTEXTS is not a list of texts; give ori_pqal.json as its authors made it")
    return tuple(value)


def _from_hub() -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise _missing("huggingface_hub") from error
    try:
        return Path(hf_hub_download(_HUB_NAME, _HUB_FILE, repo_type="dataset"))
    # Every failure of the Hub's client is an OSError: no network, no such file, refused.
    except OSError as error:
        raise DataError(
            f"pubmedqa: can't download {_HUB_FILE} of {_HUB_NAME} ({type(error).__name__}); "
            "give data.pubmedqa.path=... to a local ori_pqal.json"
        ) from error


def _missing(package: str) -> MissingExtra:
    return MissingExtra(f"reading PubMedQA from the Hub needs {package}; install it with: pip install 'drllama[hub]'")


def _parquet_items(path: Path) -> list[_Item]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
        arrow_errors = importlib.import_module("pyarrow").ArrowException
    except ImportError as error:
        raise _missing("pyarrow") from error
    try:
        rows: list[dict[str, object]] = parquet.read_table(path).to_pylist()
    except (OSError, arrow_errors) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: can't be read as parquet ({reason}); give the Hub's file or ori_pqal.json") from error
    items = []
    for number, row in enumerate(rows, start=1):
        context = row.get("context")
        fields = {
            "QUESTION": row.get("question"),
            "CONTEXTS": context.get("contexts") if isinstance(context, dict) else None,
            "LONG_ANSWER": row.get("long_answer"),
            "final_decision": row.get("final_decision"),
        }
        items.append(_item_of(str(row.get("pubid")), fields, f"{path} row {number}"))
    return items
