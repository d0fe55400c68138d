import os

import pytest
import torch

from drllama.recipe import FrozenCache
from drllama.students import frozen
from drllama.students.frozen import FrozenWork
from forked import Forked

BASE = {"weights": "abc", "dtype": "float32"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of the entries, empty."""
    monkeypatch.setenv("DRLLAMA_CACHE", str(tmp_path))
    return tmp_path / "frozen"


def work_of(base=BASE, **settings):
    return FrozenWork(base, FrozenCache(**settings))


class Worked:
    """Work that counts how often it was done."""

    def __init__(self, *tensors):
        self.tensors, self.times = tensors or (torch.rand(5, 7), torch.rand(2, 3, 4)), 0

    def __call__(self):
        self.times += 1
        return self.tensors


def entries(cache):
    return sorted(cache.glob("*/*.safetensors"))


def alike(found, wanted):
    return len(found) == len(wanted) and all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_work_is_done_once_for_all_who_ask_and_comes_out_the_same(dtype):
    work = Worked()
    wanted = [tensor.to(getattr(torch, dtype)) for tensor in work.tensors]
    student, another = work_of(dtype=dtype), work_of(dtype=dtype)
    for asking in (student, student, another, work_of(dtype=dtype)):
        assert alike(asking.recall("keys", (1, 2, 3), work), wanted)
    assert work.times == 1


def test_nothing_is_shared_by_what_differs_in_anything():
    worked = [Worked() for _ in range(6)]
    work_of().recall("keys", (1, 23), worked[0])
    work_of().recall("keys", (12, 3), worked[1])
    work_of().recall("keys", (1, 23, 4), worked[2])
    work_of().recall("states", (1, 23), worked[3])
    work_of(dtype="float32").recall("keys", (1, 23), worked[4])
    work_of({**BASE, "weights": "abd"}).recall("keys", (1, 23), worked[5])
    assert [work.times for work in worked] == [1] * 6


def test_without_a_cache_nothing_is_kept_or_rounded(cache):
    work, off = Worked(), work_of(dtype=None)
    assert alike(off.recall("keys", (1,), work), work.tensors)
    assert alike(off.recall("keys", (1,), work), work.tensors)
    assert work.times == 2
    assert not off.remembers
    assert not cache.exists()


def test_numbers_that_16_bits_cannot_hold_are_kept_in_32():
    work = Worked(torch.tensor([1.0, 70_000.0]), torch.tensor([2.0]))
    for _ in range(2):
        large, small = work_of().recall("states", (1,), work)
        assert (large.dtype, small.dtype) == (torch.float32, torch.float16)
        assert large.tolist() == [1.0, 70_000.0]


@pytest.mark.parametrize(
    "spoil",
    [lambda content: content[:-3], lambda _: b"", lambda content: content[:-1] + bytes([content[-1] ^ 1]), None],
    ids=["cut", "empty", "one bit", "gone"],
)
def test_a_damaged_entry_is_worked_out_again(cache, spoil):
    work = Worked()
    wanted = work_of().recall("keys", (1,), work)
    (path,) = entries(cache)
    path.unlink() if spoil is None else path.write_bytes(spoil(path.read_bytes()))
    assert alike(work_of().recall("keys", (1,), work), wanted)
    assert alike(work_of().recall("keys", (1,), work), wanted)
    assert work.times == 2


def test_a_place_that_cannot_be_written_is_a_cache_that_is_not_used(cache):
    cache.write_text("a file stands in the way")
    work = Worked()
    asking = work_of()
    for _ in range(2):
        assert asking.recall("keys", (1,), work)[0].dtype == torch.float16
    assert work.times == 2


def test_a_disk_that_is_nearly_full_is_left_alone(cache, monkeypatch):
    monkeypatch.setattr(frozen, "_SPARE_BYTES", 1 << 60)
    work_of().recall("keys", (1,), Worked())
    assert entries(cache) == []


def aged(path, seconds):
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_what_was_unused_for_longest_makes_room(cache):
    # Each entry has 1 MB, the folder takes 10.
    bound = {"max_gib": 10e6 / 2**30, "dtype": "float32"}
    megabyte = Worked(torch.rand(250_000))
    for number in range(9):
        work_of(**bound).recall("keys", (number,), megabyte)
    oldest = {}
    for number, path in enumerate(sorted(entries(cache), key=lambda path: path.stat().st_mtime_ns)):
        oldest[number] = path
        aged(path, 1000 - number)
    work_of(**bound).recall("keys", (0,), megabyte)
    assert megabyte.times == 9, "it was found, and is the newest now"
    later = work_of(**bound)
    for number in range(9, 30):
        later.recall("keys", (number,), megabyte)
    assert sum(path.stat().st_size for path in entries(cache)) <= 10e6
    assert not any(oldest[number].exists() for number in range(1, 9))


def test_rows_of_a_training_larger_than_the_cache_do_not_drive_one_another_out(cache):
    asking = work_of(max_gib=10e6 / 2**30, dtype="float32")
    megabyte = Worked(torch.rand(250_000))
    for _ in range(3):
        for number in range(20):
            asking.recall("keys", (number,), megabyte)
    kept = len(entries(cache))
    assert 5 <= kept <= 10
    assert megabyte.times == 3 * 20 - 2 * kept


def test_what_a_killed_writer_left_is_removed(cache):
    work_of().recall("keys", (1,), Worked())
    left = entries(cache)[0].with_name("x.safetensors.1.partial")
    left.write_bytes(b"half")
    work_of().recall("keys", (2,), Worked())
    assert left.exists(), "somebody may still be writing it"
    aged(left, 2 * frozen._ABANDONED_SECONDS)
    work_of().recall("keys", (3,), Worked())
    assert not left.exists()
    assert len(entries(cache)) == 3


_ASKING = """
import torch
from drllama.recipe import FrozenCache
from drllama.students.frozen import FrozenWork
asking = FrozenWork({"weights": "abc"}, FrozenCache(dtype="float32", max_gib=3e6 / 2**30))
for _ in range(9):
    for number in range(20):
        wanted = torch.full((50_000,), float(number))
        (found,) = asking.recall("keys", (number,), lambda: [wanted])
        assert torch.equal(found, wanted), number
"""


@pytest.mark.slow
def test_processes_at_once_never_read_half_an_entry(cache):
    asking = [Forked(script=_ASKING) for _ in range(3)]
    for one in asking:
        assert one.end() == 0, one.err
    assert not list(cache.glob("*/*.partial"))
    assert sum(path.stat().st_size for path in entries(cache)) <= 3e6 * 1.15
