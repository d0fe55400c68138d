import errno
import os

import pytest

from drllama.errors import StoreError
from drllama.files import disk_errors_told, folder_whole, write_whole


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", ["text\nis → UTF-8\n", b"bytes\r\n\x00\xff", "", b""])
def test_what_is_written_is_what_is_read(tmp_path, content):
    write_whole(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == (content.encode() if isinstance(content, str) else content)


def test_folders_on_the_way_are_made(tmp_path):
    write_whole(tmp_path / "a" / "b" / "file", "text")
    assert (tmp_path / "a" / "b" / "file").read_text() == "text"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, step):
    write_whole(tmp_path / "file", "old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", "new and longer")
    assert (tmp_path / "file").read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    order = []
    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (order.append("bytes"), real_fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("name"), real_replace(*paths)))
    write_whole(tmp_path / "file", "text")
    assert order == ["bytes", "name"]


def test_a_folder_takes_its_name_only_when_it_is_full(tmp_path):
    with folder_whole(tmp_path / "adapter") as partial:
        (partial / "weights").write_text("1")
        assert not (tmp_path / "adapter").exists()
        (partial / "note").write_text("2")
    assert names_in(tmp_path) == ["adapter"]
    assert names_in(tmp_path / "adapter") == ["note", "weights"]


def test_a_folder_replaces_the_one_that_had_its_name(tmp_path):
    for content in ("first", "second"):
        with folder_whole(tmp_path / "adapter") as partial:
            (partial / content).write_text(content)
    assert names_in(tmp_path / "adapter") == ["second"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_a_folder_whose_filling_failed_leaves_the_old_one_and_nothing_else(tmp_path, failure):
    with folder_whole(tmp_path / "adapter") as partial:
        (partial / "old").write_text("old")
    with pytest.raises(failure), folder_whole(tmp_path / "adapter") as partial:
        (partial / "new").write_text("half")
        raise failure
    assert names_in(tmp_path) == ["adapter"]
    assert names_in(tmp_path / "adapter") == ["old"]


def test_what_a_killed_process_left_of_a_folder_is_not_taken_over(tmp_path):
    left_over = tmp_path / f"adapter.{os.getpid()}.partial"
    left_over.mkdir()
    (left_over / "stale").write_text("from before")
    with folder_whole(tmp_path / "adapter") as partial:
        (partial / "fresh").write_text("now")
    assert names_in(tmp_path / "adapter") == ["fresh"]


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.ENOSPC, "free some space and run the same command again: finished steps are kept"),
        (errno.EDQUOT, "free some space"),
        (errno.EACCES, "choose a folder that you may write to"),
        (errno.EROFS, "choose a folder that you may write to"),
        (errno.ENOTDIR, "choose another place"),
    ],
)
def test_what_the_disk_refuses_is_one_line_with_path_and_way_out(tmp_path, number, way_out):
    with pytest.raises(StoreError) as told, disk_errors_told(tmp_path / "runs"):
        raise OSError(number, "made up")
    assert str(told.value).startswith(f"{tmp_path / 'runs'}: {os.strerror(number)}; ")
    assert way_out in str(told.value)
    assert "\n" not in str(told.value)


def test_an_error_that_is_no_person_s_to_mend_stays_what_it_is(tmp_path):
    with pytest.raises(OSError, match="made up") as told, disk_errors_told(tmp_path):
        raise OSError(errno.EBADF, "made up")
    assert told.value.errno == errno.EBADF


def test_a_file_where_a_folder_belongs_is_told(tmp_path):
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(StoreError, match="a file stands where a folder belongs"):
        write_whole(tmp_path / "runs" / "file", "text")
