"""Where labelled questions come from; each source satisfies ``protocols.Source``."""

from drllama.sources.pubmedqa import PubMedQASource
from drllama.sources.pubmedqa_demo import PubMedQADemoSource
from drllama.sources.tables import TableSource
from drllama.sources.tasks import PUBMEDQA_TASK, task_of

__all__ = ["PUBMEDQA_TASK", "PubMedQADemoSource", "PubMedQASource", "TableSource", "task_of"]
