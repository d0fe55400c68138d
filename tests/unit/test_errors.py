import copy
import pickle

import pytest

from drllama.errors import BudgetSpent, TeacherFailure


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_failure_that_is_copied_or_sent_to_another_process_keeps_its_kind(copied):
    failure = TeacherFailure("too many requests", kind="rate", retry_after_seconds=2.5)
    again = copied(failure)
    assert type(again) is TeacherFailure
    assert (str(again), again.kind, again.retry_after_seconds) == ("too many requests", "rate", 2.5)
    assert str(copied(BudgetSpent("max_calls 5"))) == "max_calls 5"
