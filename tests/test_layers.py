"""A module imports only from floors below its own."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# The longest entry that covers a module counts; an entry covers the modules below it. A new module
# belongs here, on the lowest floor that has all it needs below it.
FLOORS = {
    "seq2seq.errors": 0,
    "seq2seq.sequences": 0,
    "seq2seq.batches": 0,
    "seq2seq.words": 0,
    "seq2seq.truncation": 0,
    "seq2seq.first_process": 0,
    "seq2seq.appearing": 1,
    "seq2seq.pictures": 1,
    "seq2seq.saved_arrays": 1,
    "seq2seq.series": 1,
    "seq2seq.videos": 2,
    "seq2seq.tokenizers": 2,
    "seq2seq.nn": 2,
    "seq2seq.feature_cache": 2,
    "seq2seq.figures": 2,
    "seq2seq.series_figures": 2,
    "seq2seq.class_figures": 2,
    "seq2seq.explanation_page": 2,
    "seq2seq.gradient_figures": 2,
    "seq2seq.encoders": 3,
    "seq2seq.decoders": 3,
    "seq2seq.search": 4,
    "seq2seq.checkpoints": 4,
    "seq2seq.losses": 4,
    "seq2seq.metrics": 4,
    "seq2seq.optim": 4,
    "seq2seq.schedules": 4,
    "seq2seq.tasks.options": 5,
    "seq2seq.tasks.portable": 5,
    "seq2seq.tasks.learning": 5,
    "seq2seq.tasks.base": 5,
    "seq2seq.tasks.grid_network": 5,
    "seq2seq.tasks": 6,
    "seq2seq.callbacks": 6,
    "seq2seq.averaging": 6,
    "seq2seq.checkpoint_files": 6,
    "seq2seq.interruption": 6,
    "seq2seq.confusion": 7,
    "seq2seq.forecast_plots": 7,
    "seq2seq.forecast": 7,
    "seq2seq": 7,  # __init__: what the package offers
    "seq2seq.__main__": 7,
    "seq2seq.cli": 7,
    "seq2seq.check_data": 7,
    "seq2seq.prepare": 7,
    "seq2seq.recipe_command": 7,
    "seq2seq.explanation": 7,
    "seq2seq.gradient_norms": 7,
    "seq2seq.parallel_prediction": 7,
    "seq2seq.predict": 7,
    "seq2seq.prediction_folder": 7,
    "seq2seq.prediction_input": 7,
    "seq2seq.prediction_output": 7,
    "seq2seq.prediction_parts": 7,
    "seq2seq.prediction_run": 7,
    "seq2seq.prediction_writer": 7,
    "seq2seq.predictor": 7,
}
# Entries that cover only themselves: a module below them has to be named.
EXACT = {"seq2seq"}
DATA_FLOOR = 2  # the highest floor that datamodules may use
MEETING_FLOOR = 7  # the only floor that may use datamodules


class Import(NamedTuple):
    path: Path
    line: int
    importer: str
    target: str


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> int | None:
    """Return the floor of a module of seq2seq; None when the table has no place for it."""
    if module in FLOORS:
        return FLOORS[module]
    parents = module.split(".")[:-1]
    while parents:
        name = ".".join(parents)
        if name in FLOORS and name not in EXACT:
            return FLOORS[name]
        parents.pop()
    return None


def imports(path: Path, root: Path) -> Iterator[Import]:
    """Yield every import of a file, also those inside functions, by absolute name.

    ``from package import name`` counts as ``package.name`` where that is a module.
    """
    importer = module_name(path, root)
    package = importer if path.stem == "__init__" else importer.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            names = (f"{base}.{alias.name}" for alias in node.names)
            targets = [name if is_module(name, root) else base for name in names]
        else:
            continue
        for target in dict.fromkeys(targets):
            yield Import(path.relative_to(root), node.lineno, importer, target)


def is_module(name: str, root: Path) -> bool:
    path = root.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def package_of(module: str) -> str:
    """Return the package folder of a module, such as ``seq2seq.nn``."""
    return ".".join(module.split(".")[:2])


def fault(found: Import) -> str | None:
    """Return what is wrong with an import, or None."""
    importer, target = found.importer, found.target
    if is_within(target, "pytorch_lightning"):
        return "pytorch_lightning is another package than lightning.pytorch: use the latter"
    from_data, to_data = is_within(importer, "datamodules"), is_within(target, "datamodules")
    if not from_data and to_data and floor_of(importer) != MEETING_FLOOR:
        return f"only floor {MEETING_FLOOR} may use datamodules"
    if not is_within(target, "seq2seq"):
        return None
    lower = floor_of(target)
    if lower is None:
        return f"{target} has no floor"
    if from_data:
        return f"datamodules may use floors 0 to {DATA_FLOOR} only" if lower > DATA_FLOOR else None
    upper = floor_of(importer)
    if upper is None or lower < upper:
        return None  # a module without a floor is a fault of its own
    is_neighbour = lower == upper and package_of(importer) == package_of(target)
    if is_neighbour or upper == lower == MEETING_FLOOR:
        return None
    return f"{importer} is on floor {upper}, {target} on floor {lower}"


def faults(root: Path) -> list[str]:
    """Return every fault of a source tree, as ``path:line: reason``."""
    found = []
    for path in sorted([*root.glob("seq2seq/**/*.py"), *root.glob("datamodules/**/*.py")]):
        module = module_name(path, root)
        if is_within(module, "seq2seq") and floor_of(module) is None:
            found.append(f"{path.relative_to(root)}: no floor: add it to FLOORS in {__file__}")
        for item in imports(path, root):
            reason = fault(item)
            if reason:
                found.append(f"{item.path}:{item.line}: imports {item.target}: {reason}")
    return found


def test_every_module_imports_from_lower_floors_only() -> None:
    assert not faults(ROOT), "\n".join(["", *faults(ROOT)])


def test_the_tree_is_really_read() -> None:
    read = {found.target for found in imports(ROOT / "seq2seq/decoders/base.py", ROOT)}
    assert "seq2seq.batches" in read


def plant(root: Path, name: str, text: str) -> None:
    """Write a small legal tree and one more file."""
    legal = {
        "seq2seq/__init__.py": "from seq2seq.predictor import load",
        "seq2seq/errors.py": "",
        "seq2seq/tokenizers/word.py": "from seq2seq.errors import DataError",
        "seq2seq/nn/__init__.py": "",
        "seq2seq/nn/attention.py": "import torch\nimport lightning.pytorch",
        "seq2seq/search/options.py": "",
        "seq2seq/search/beam.py": "from seq2seq.search.options import Options",
        "seq2seq/losses.py": "",
        "seq2seq/tasks/base.py": "from seq2seq.search import beam",
        "seq2seq/tasks/translation.py": "from seq2seq.tasks.base import Task",
        "seq2seq/predict.py": "from datamodules.base import DataModule",
        "seq2seq/cli.py": "from seq2seq import predict",
        "datamodules/__init__.py": "",
        "datamodules/base.py": "from seq2seq.tokenizers.word import Tokenizer",
    }
    for path, content in {**legal, name: text}.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")


def test_a_legal_tree_has_no_fault(tmp_path: Path) -> None:
    plant(tmp_path, "seq2seq/decoders/recurrent.py", "from seq2seq.nn.attention import Dot")
    assert faults(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("seq2seq/errors.py", "import seq2seq.losses", "is on floor 0, seq2seq.losses on floor 4"),
        ("seq2seq/nn/attention.py", "from seq2seq import losses", "seq2seq.losses on floor 4"),
        ("seq2seq/nn/attention.py", "from .. import losses", "seq2seq.losses on floor 4"),
        ("seq2seq/nn/attention.py", "from ..search.beam import x", "seq2seq.search.beam on floor"),
        ("seq2seq/nn/attention.py", "import seq2seq", "seq2seq on floor 7"),
        ("seq2seq/errors.py", "def f():\n    from seq2seq import cli", ":2: imports seq2seq.cli"),
        (
            "seq2seq/nn/attention.py",
            "import seq2seq.tokenizers.word",
            "seq2seq.tokenizers.word on floor 2",
        ),
        ("seq2seq/losses.py", "import seq2seq.search.beam", "seq2seq.search.beam on floor 4"),
        ("seq2seq/tasks/base.py", "import seq2seq.tasks.translation", "translation on floor 6"),
        ("seq2seq/tasks/translation.py", "import datamodules.base", "only floor 7 may use"),
        ("datamodules/base.py", "from seq2seq import losses", "floors 0 to 2 only"),
        ("datamodules/base.py", "import seq2seq", "floors 0 to 2 only"),
        ("datamodules/base.py", "import pytorch_lightning as pl", "use the latter"),
        ("seq2seq/cli.py", "from pytorch_lightning.cli import x", "use the latter"),
        ("seq2seq/helpers.py", "", "seq2seq/helpers.py: no floor: add it to FLOORS in"),
        ("seq2seq/extras/text.py", "", "seq2seq/extras/text.py: no floor"),
        ("seq2seq/tasks/base.py", "import seq2seq.missing", "seq2seq.missing has no floor"),
    ],
)
def test_a_bad_tree_is_caught(tmp_path: Path, name: str, text: str, expected: str) -> None:
    plant(tmp_path, name, text)
    (found,) = faults(tmp_path)
    assert name in found
    assert expected in found
