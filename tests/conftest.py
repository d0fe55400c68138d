import os
import signal
from pathlib import Path

import pytest

# Tests that run side by side have a core each; torch asks once, when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background lets them ignore Ctrl-C, and what they start inherits that; the
# tests that interrupt a command need it to hear.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_pubmedqa() -> Path:
    """The folder with PubMedQA's own files, which are not part of the project."""
    beside = Path(__file__).parents[1].parent / "shared"
    folder = Path(os.environ.get("DRLLAMA_SHARED", beside)) / "data" / "pubmedqa"
    if not folder.is_dir():
        pytest.skip("PubMedQA's files aren't beside the checkout; DRLLAMA_SHARED names their folder")
    return folder
