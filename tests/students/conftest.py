from functools import cache

import pytest
import torch

import tiny_student
from tiny_student import Told, finetune_of, questions, rows_of, student_of, task_of


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # The tiny models are fastest so, and results are the same bytes only at one number of threads.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_our_own(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRLLAMA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    return tiny_student.save_tiny("llama", tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory):
    return tiny_student.save_tiny("gpt2", tmp_path_factory.mktemp("models") / "gpt2")


@pytest.fixture(scope="session")
def adapter_for(tiny_gpt2, tmp_path_factory):
    """Return an adapter for a tiny student and a task, trained enough to change the scores."""

    @cache
    def trained(folder, labels):
        workspace = tmp_path_factory.mktemp("adapter")
        asked, targets = questions(labels, count=4), ("c_attn",) if folder == tiny_gpt2 else ("q_proj", "v_proj")
        settings = finetune_of({"targets": targets}, epochs=1, batch_size=2, learning_rate=0.1)
        student_of(folder, task_of(*labels)).finetune(
            rows_of(asked), asked[:1], settings=settings, seed=5, workspace=workspace, progress=Told()
        )
        return workspace / "adapter"

    return trained
