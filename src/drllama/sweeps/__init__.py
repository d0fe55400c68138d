"""Sweeps: one recipe with many settings, tried by a grid or by a search; the test split has no part in it."""

from drllama.sweeps.request import SweepRequest, checked
from drllama.sweeps.story import sweep, work_on

__all__ = ["SweepRequest", "checked", "sweep", "work_on"]
