"""What the pages say is so: folders, links, commands, code."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

import griffin_lm as griffin

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "src" / "griffin_lm"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *PACKAGE.glob("fledgling/*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    return [code for name, code in BLOCK.findall(page.read_text()) if name == language]


def commands() -> set[str]:
    """The words that may follow `griffin`."""
    from griffin_lm.cli.main import app

    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return set(group.commands)


def generator() -> ModuleType:
    """docs/generate_cli.py as a module."""
    spec = importlib.util.spec_from_file_location("generate_cli", DOCS / "generate_cli.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_architecture_has_a_line_for_every_folder_and_no_other() -> None:
    package_part, around = (DOCS / "architecture.md").read_text().split("Around the package")
    told = set(re.findall(r"^\| `([\w/.]+)` \|", package_part, re.MULTILINE))
    real = {path.name for path in PACKAGE.glob("[!_]*.py")}
    for path in PACKAGE.rglob("*"):
        inside = path.relative_to(PACKAGE)
        hidden = any(part.startswith(("_", ".")) for part in inside.parts)
        if path.is_dir() and not hidden and any(path.glob("*.*")):
            real.add(f"{inside.as_posix()}/")
    assert told == real
    beside = set(re.findall(r"^\| `([\w/]+)` \|", around, re.MULTILINE))
    assert all((ROOT / folder).is_dir() for folder in beside), beside


def test_the_floors_in_the_picture_are_those_that_are_held() -> None:
    from tests.test_architecture import FLOORS

    picture = (DOCS / "architecture.md").read_text().split("```")[1]
    drawn = [re.split(r"\s{4,}", line.strip())[0] for line in picture.strip().splitlines()]
    assert [set(line.split()) for line in reversed(drawn)] == [set(f.split()) for f in FLOORS]


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", t).strip().lower().replace(" ", "-") for t in titles}
            assert heading in anchors, f"{page.name}: {target}"


@each_page
def test_no_page_names_a_place_on_one_machine(page: Path) -> None:
    found = re.findall(r"(?<![\w.])/(?:work|home|root|tmp|Users|opt)/[\w./-]*", page.read_text())
    assert not found


@each_page
def test_commands_in_shell_blocks_exist(page: Path) -> None:
    if page.name == "cli.md":
        return
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for code in blocks(page, "sh"):
        for line in code.splitlines():
            words = line.split("#")[0].split()
            if words[:1] == ["griffin"]:
                assert words[1] in commands(), line
            if words[:1] == ["make"]:
                assert words[1] in targets, line


def test_every_command_has_a_file_of_its_name() -> None:
    files = {path.stem for path in (PACKAGE / "cli").glob("*.py")}
    assert {word.replace("-", "_") for word in commands()} <= files


def test_the_command_page_is_current() -> None:
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert written == generator().page(), "run: python docs/generate_cli.py"


def test_the_generator_sees_a_stale_page(tmp_path: Path, monkeypatch, capsys) -> None:
    module = generator()
    monkeypatch.setattr(module, "PAGE", tmp_path / "cli.md")
    assert module.main(["--check"]) == 1
    assert "run: python docs/generate_cli.py" in capsys.readouterr().err
    assert module.main([]) == 0
    assert module.main(["--check"]) == 0


def test_every_mixer_and_preset_family_stands_in_the_notation() -> None:
    notation = (DOCS / "notation.md").read_text()
    for kind in griffin.MIXERS:
        assert f"mixers/{kind}.py" in notation, kind
    for name in griffin.PRESETS:
        family = name.rsplit("-", 1)[0]
        known = f"`{name}`" in notation or f"`{family}-" in notation
        assert known or name.startswith(("tiny-", "fledgling")), name


def test_every_page_of_the_site_can_be_reached() -> None:
    nav = (ROOT / "mkdocs.yml").read_text()
    table = (DOCS / "results" / "README.md").read_text()
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).as_posix()
        if page.parent.name == "results" and page.name != "README.md":
            assert f"({page.name})" in table, f"docs/results/README.md has no row for {page.name}"
        else:
            assert name in nav, f"mkdocs.yml does not list {name}"


def test_the_first_page_names_every_decision() -> None:
    first = (DOCS / "index.md").read_text()
    for page in (DOCS / "decisions").glob("*.md"):
        assert f"(decisions/{page.name})" in first, f"docs/index.md does not list {page.name}"


@pytest.mark.parametrize("number", range(len(blocks(ROOT / "README.md", "python"))))
def test_the_python_of_the_readme_runs(number: int, tmp_path: Path) -> None:
    code = blocks(ROOT / "README.md", "python")[number]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
