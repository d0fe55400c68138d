"""What a newcomer meets: what loads, what is documented, what is promised, and what is kept out."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from itertools import product
from pathlib import Path

import pytest
import typer

import drllama
from drllama.cli import compare as _compare  # noqa: F401  their commands join the others
from drllama.cli import filtering as _filtering  # noqa: F401
from drllama.cli import review as _review  # noqa: F401
from drllama.cli import sweep as _sweep  # noqa: F401
from drllama.cli import teacher as _teacher  # noqa: F401
from drllama.cli.app import app

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "drllama").rglob("*.py"))
HEAVY = {"torch", "transformers", "peft", "numpy", "scipy", "sklearn", "safetensors", "gguf", "pyarrow"}
LIGHT_COMMANDS = ["--help", "run --help", "runs", "models", "show none", "explain experiments/demo/recipe.yaml"]


def output_of(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_drllama_loads_nothing_but_the_standard_library():
    listing = "print(*{name.partition('.')[0] for name in sys.modules if not name.startswith('_')})"
    before, after = output_of(f"import sys; {listing}; import drllama; {listing}").splitlines()
    assert set(after.split()) - set(before.split()) - set(sys.stdlib_module_names) == {"drllama"}


def test_commands_that_need_no_numbers_load_no_heavy_library():
    one_after_the_other = f"""
import io, sys
from drllama.cli import main
for command in {LIGHT_COMMANDS}:
    sys.argv, sys.stdout, sys.stderr = ["drllama", *command.split()], io.StringIO(), io.StringIO()
    try:
        main()
    except SystemExit:
        pass
    print(command, {HEAVY} & set(sys.modules) or "is light", sep=": ", file=sys.__stdout__)
"""
    assert output_of(one_after_the_other).splitlines() == [f"{command}: is light" for command in LIGHT_COMMANDS]


def test_imports_point_down_and_siblings_never_import_each_other():
    lint = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "2 kept, 0 broken" in done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_everything_public_has_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    undocumented = [name for name, node in public_parts(tree, path.stem) if not ast.get_docstring(node)]
    assert undocumented == []


def public_parts(node, name):
    yield name, node
    for inner in node.body:
        is_part = isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if is_part and not inner.name.startswith("_"):
            yield f"{name}.{inner.name}", inner
            if isinstance(inner, ast.ClassDef):
                yield from list(public_parts(inner, f"{name}.{inner.name}"))[1:]


def test_names_say_what_is_inside():
    banned = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
    found = []
    for path in SOURCES:
        classes = [
            node.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ClassDef)
        ]
        words = {word.lower() for name in classes for word in re.findall("[A-Z]+[a-z]*", name)}
        found += [str(path) for word in words | {path.stem, path.parent.name} if word in banned]
    assert found == []


def test_modules_and_functions_stay_short():
    long = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        long += [f"{path}: {text.count(chr(10))} lines"] * (text.count("\n") > 400)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                begins_after_docstring = node.body[min(1, len(node.body) - 1)].lineno
                if (length := node.end_lineno - begins_after_docstring + 1) > 40:
                    long.append(f"{path}: {node.name} has {length} lines")
    assert long == []


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("command", sorted(name for name, command in COMMANDS.items() if not command.hidden))
def test_the_readme_shows_every_command(readme, command):
    assert re.search(rf"\bdrllama {command}\b", readme)


@pytest.mark.parametrize(
    ("page", "experiment", "num_arms"),
    [
        *product(["README.md", "README.zh.md"], ["strong", "gemma"], [5]),
        *product(["README.md", "README.zh.md"], ["weak", "pushed"], [3]),
        ("experiments/paper/README.md", "paper", 3),
    ],
)
def test_the_readme_s_results_are_the_committed_ones(page, experiment, num_arms):
    text = (ROOT / page).read_text(encoding="utf-8")
    arms = json.loads((ROOT / f"experiments/{experiment}/result.json").read_text(encoding="utf-8"))["arms"]
    for arm in arms:
        metrics = arm["summary"]["metrics"]
        told = [f"{arm['num_extra']:,}", *(spread(metrics[name], ".1f") for name in ("accuracy", "macro_f1"))]
        told += [spread(effect["differences"]["accuracy"]["estimate"], "+.1f") for effect in arm["effects"]]
        told += ["–"] * (5 - len(told))
        assert f"| {arm['name']} | {' | '.join(told)} |" in text
    assert len(arms) == num_arms


def spread(found, form):
    return "{} [{}, {}]".format(*(format(100 * found[name], form) for name in ("value", "low", "high")))


def commands_in(text):
    return set(re.findall(r"^(?:\$ |    )?(?:\.venv/bin/)?drllama ([a-z]+)", text, re.MULTILINE)) | set(
        re.findall(r"`drllama ([a-z]+)", text)
    )


def test_pages_name_no_command_that_isn_t_there(readme):
    there = set(typer.main.get_command(app).commands)
    pages = [readme, *(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))]
    assert {command for page in pages for command in commands_in(page)} <= there


def test_every_make_target_that_a_page_promises_is_there(readme):
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    pages = [readme, *(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))]
    promised = {name for page in pages for name in re.findall(r"(?:`|^\s*|\$ )make ([a-z][\w-]*)", page, re.MULTILINE)}
    assert promised
    assert promised <= targets


def test_make_help_tells_every_target_that_a_person_needs():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    told = re.findall(r"make ([a-z-]+)", "\n".join(line for line in makefile.splitlines() if line.startswith("# ")))
    assert {"demo", "test", "test-slow", "check"} <= set(told)
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in told)


@pytest.mark.parametrize("page", ["README.md", "docs"])
def test_files_that_a_page_points_at_are_there(page):
    pages = [ROOT / page] if (ROOT / page).is_file() else sorted((ROOT / page).rglob("*.md"))
    for path in pages:
        links = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
        gone = [link for link in links if "://" not in link and not (path.parent / link).exists()]
        assert gone == [], path


def project_files():
    """Every text file of the project: those that git knows or would add, or all where there is no checkout."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        paths = [
            path for name in ("src", "tests", "docs", "examples", "experiments") for path in (ROOT / name).rglob("*")
        ]
    for path in paths:
        if path.is_file():
            content = path.read_bytes()
            if b"\0" not in content:
                yield path, content.decode(errors="replace")


# Written in two parts, so that this file doesn't hold them itself.
FORBIDDEN = ["/wo" + "rk/", "pypi" + ".org", "python" + "hosted.org", "--index" + "-url", "registry.npm" + "js.org"]


def test_the_project_speaks_of_itself_alone():
    found = []
    num_files = 0
    for path, text in project_files():
        num_files += 1
        found += [f"{path.relative_to(ROOT)}: {word}" for word in FORBIDDEN if word in text]
    assert found == []
    assert num_files > 80


def test_the_version_is_the_package_s():
    assert (
        tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        == drllama.__version__
    )
