"""What the documents name exists: paths, links, commands and their options."""

import inspect
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", ".github/CONTRIBUTING.md", "CHANGELOG.md"]
TOP_LEVEL = ("seq2seq/", "datamodules/", "configs/", "tests/", ".github/", ".ci/")


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def readme_commands() -> list[str]:
    """Return the commands that .ci/run takes out of the README."""
    listing = subprocess.run(
        ["bash", ROOT / ".ci/run", "--list"], capture_output=True, text=True, check=True
    )
    return listing.stdout.splitlines()


def named_paths(text: str) -> set[str]:
    """Return the words that begin with one of the project's folders and are no pattern."""
    words = re.findall(r"[\w./*<>-]+", text)
    return {
        word.rstrip(".")
        for word in words
        if word.startswith(TOP_LEVEL) and not set("<>*") & set(word)
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file(document: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", read(document))
    local = [target for target in targets if not target.startswith("https://")]
    missing = [target for target in local if not (ROOT / document).parent.joinpath(target).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_exists(document: str) -> None:
    assert not [path for path in named_paths(read(document)) if not (ROOT / path).exists()]


def test_ci_finds_the_commands_of_the_readme() -> None:
    commands = readme_commands()
    assert commands == [
        "pip install -e . && seq2seq fit --config configs/quickstart.yaml",
        'echo "the 3rd of May, 2021" | seq2seq-predict --ckpt_path runs/quickstart/best.ckpt',
        'pip install -e ".[test]" && pytest',
    ]


def test_ci_fails_when_the_readme_lost_a_command(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/run").write_bytes((ROOT / ".ci/run").read_bytes())
    (tmp_path / "README.md").write_text(read("README.md").replace("<!-- ci: translate -->", ""))
    listing = subprocess.run(
        ["bash", tmp_path / ".ci/run", "--list"], capture_output=True, text=True, check=False
    )
    assert listing.returncode == 1
    assert "no fenced block after '<!-- ci: translate -->'" in listing.stderr


def test_every_command_and_extra_is_declared() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    commands = set(re.findall(r"^(?:.*[|&] )?(seq2seq[\w-]*) ", "\n".join(shell_lines()), re.M))
    assert commands == set(project["scripts"])
    extras = set(re.findall(r'"\.\[(\w+)\]"', read("README.md") + read(DOCUMENTS[1])))
    assert extras <= set(project["optional-dependencies"])


def shell_lines() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", read("README.md"), re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", "").splitlines()]


def options_used_with(command: str) -> set[str]:
    lines = [line for line in shell_lines() if f"{command} " in line]
    inline = re.findall(rf"`{command} ([^`]*)`", read("README.md"))
    return set(re.findall(r"(?<=--)[\w.]+", "\n".join(lines + inline)))


def test_every_option_of_the_predict_script_exists() -> None:
    known = set(
        re.findall(r"(?<=--)[\w.]+", import_module("seq2seq.predict").build_parser().format_help())
    )
    table = set(re.findall(r"^\| `--([\w.]+)", read("README.md"), re.MULTILINE))
    used = options_used_with("seq2seq-predict")
    assert {"ckpt_path", "input", "output"} <= used
    assert {"beam_size", "format"} <= table
    assert used | table <= known


def test_every_option_of_the_main_command_exists() -> None:
    used = options_used_with("seq2seq fit") | options_used_with("seq2seq test")
    assert {"config", "data.root", "ckpt_path", "print_config"} <= used
    package = import_module("datamodules")
    modules = (
        *("TranslationDataModule", "CaptionDataModule", "VideoDataModule"),
        *("ReviewDataModule", "SeriesDataModule"),
    )
    known = {
        f"data.{name}"
        for module in modules
        for name in inspect.signature(getattr(package, module)).parameters
    }
    tasks = (
        import_module("seq2seq.tasks.video").VideoClassifier,
        import_module("seq2seq.tasks.forecasting").Forecaster,
    )
    known |= {f"model.{name}" for task in tasks for name in inspect.signature(task).parameters}
    for command in ("fit", "test"):
        arguments = [sys.executable, "-m", "seq2seq", command, "--help"]
        shown = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
        known |= set(re.findall(r"(?<=--)[\w.]+", shown.stdout))
    assert used - {"help"} <= known


def test_the_python_example_is_offered() -> None:
    assert callable(import_module("seq2seq").load)
