"""What the machine can do, as it is told to a person."""

import pytest
import torch

from drllama.students import machine


def test_rates_of_both_number_formats_are_measured_here():
    facts = dict(machine.measure_machine())
    assert facts["threads"] == str(torch.get_num_threads())
    for name in ("fp32 matrix products", "bf16 matrix products"):
        rate, _, unit = facts[name].partition(";")[0].partition(" ")
        assert float(rate) >= 0
        assert unit == "GFLOP/s"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in bf16 without being asked")
@pytest.mark.parametrize(("bf16", "told"), [(200e9, True), (95e9, False), (1e9, False)])
def test_a_processor_that_is_faster_in_bf16_is_told_of_with_the_setting(monkeypatch, bf16, told):
    rates = {torch.float32: 90e9, torch.bfloat16: bf16}
    monkeypatch.setattr(machine, "matrix_product_rate", lambda device, dtype=torch.float32, **_: rates[dtype])
    fact = dict(machine.measure_machine())["bf16 matrix products"]
    assert fact.startswith(f"{bf16 / 1e9:.0f} GFLOP/s")
    assert ("student.dtype=bfloat16" in fact) is told
