"""Labelled texts on disk: which files a source has, and how they are read."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from datamodules.cache import content_key
from datamodules.faults import Fault, Faults, some_of
from datamodules.review_formats import (
    TEXT_SUFFIXES,
    Layout,
    Reader,
    Review,
    ReviewFile,
    read_jsonl,
    read_lines_alone,
    read_npz,
    read_single,
    read_table,
)
from seq2seq.errors import DataError

ReviewFormat = Literal["auto", "folders", "table", "jsonl", "npz"]

SPLITS = ("train", "val", "test")

_SUFFIXES: dict[str, tuple[str, ...]] = {
    "table": (".csv", ".tsv"),
    "jsonl": (".jsonl", ".ndjson"),
    "npz": (".npz",),
}
_TABLES = ("table", "jsonl")
# What Stanford's IMDB has beside its two classes: reviews that nobody labelled.
_UNLABELLED = "unsup"
_NO_REVIEWS = Fault(
    "class folders without reviews",
    f"Add some as {' or '.join(TEXT_SUFFIXES)}, remove the folder, or name the others in "
    "--data.labels.",
)


@dataclass(frozen=True)
class ReviewSource:
    """Labelled texts on disk; iterating reads them from the start.

    Attributes:
        path: The file or folder.
        files: Its files, in order.
        layout: How reviews stand in them.
    """

    path: Path
    files: tuple[ReviewFile, ...]
    layout: Layout

    def __iter__(self) -> Iterator[Review]:
        """Yield the reviews of all files.

        Raises:
            DataError: If a file cannot be read; or in the end, all together, for reviews that
                cannot be used.
        """
        return self.read(self.files)

    def read(self, files: Sequence[ReviewFile]) -> Iterator[Review]:
        """Yield the reviews of some of the files; errors are as when iterating."""
        faults = Faults(self.path, "the reviews cannot be used")
        for file in files:
            yield from _READERS[file.kind](file, self.layout, faults)
        faults.raise_all()

    def key(self) -> str:
        """Return a hash of the files and of all that decides what is read in them, hexadecimal.

        Raises:
            DataError: If a file cannot be read.
        """
        names = [(file.kind, file.split, file.label) for file in self.files]
        return content_key((file.path for file in self.files), names, asdict(self.layout))


def find_reviews(
    path: Path,
    layout: Layout,
    format: ReviewFormat = "auto",  # noqa: A002  # the name of the option
) -> ReviewSource:
    """Return the labelled texts of a file or folder.

    Args:
        path: The file or folder.
        layout: How reviews stand in the files, and what the splits are called.
        format: ``folders`` has a folder per class with a text file for each review,
            ``pos/1.txt``, or such folders in folders of splits, as Stanford has IMDB,
            ``train/pos/1.txt``. ``table`` (``.csv``, ``.tsv``) and ``jsonl`` are one file, or a
            folder with a file for each split, ``train.csv``. ``npz`` is what ``read_arrays`` takes.
            All but the last may end in ``.gz``. ``auto`` goes by the names.

    Raises:
        DataError: If nothing there has that format, or several files are the same split; or if
            class folders are missing or empty.
    """
    if path.is_dir() and format != "npz":
        return ReviewSource(path, tuple(_files_of(path, layout, format)), layout)
    kind = _kind_of(path) if format == "auto" else format
    if not path.is_file() or kind is None or kind == "folders":
        what = "its format cannot be told from its name"
        if not path.exists():
            what = "does not exist"
        elif kind in ("folders", "npz"):
            what = "is not a folder" if kind == "folders" else "is not a file"
        raise DataError(
            f"{path}: {what}. Set --data.source to a folder of class folders or with a file for "
            "each split, or to a file named .csv, .tsv, .jsonl (each perhaps .gz) or .npz; or name "
            f"the format with --data.format: {', '.join(get_args(ReviewFormat))}."
        )
    return ReviewSource(path, (ReviewFile(path, kind, None, None, path.name),), layout)


def _files_of(path: Path, layout: Layout, format: str) -> list[ReviewFile]:  # noqa: A002
    """Return the files of a folder."""
    kinds = {"auto": _TABLES, "folders": ()}.get(format, (format,))
    files = _split_files(path, layout, kinds)
    if not files and format in ("auto", "folders"):
        return _class_files(path, layout)
    if not files:
        raise DataError(
            f"{path}: has no {' or '.join(_file_names('train', layout, kinds))}. Set --data.source "
            "to a file, or to a folder with a file for each split; --data.train, --data.val and "
            "--data.test say what those are called."
        )
    return files


def find_texts(path: Path, layout: Layout) -> ReviewSource:
    """Return the texts of a file without labels: a table, JSONL, or else a text on each line.

    Raises:
        DataError: If there is no such file.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise DataError(
            f"{path}: {what}. Set --data.predict to a .csv, .tsv or .jsonl, or to a file with a "
            "text on each line."
        )
    kind = _kind_of(path)
    file = ReviewFile(path, kind if kind in _TABLES else "lines", None, None, path.name)
    return ReviewSource(path, (file,), layout)


def _kind_of(path: Path) -> str | None:
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    return next((kind for kind, suffixes in _SUFFIXES.items() if suffix in suffixes), None)


def _file_names(split: str, layout: Layout, kinds: Sequence[str]) -> dict[str, str]:
    """Return what a file of a split can be called, and the format of each."""
    stem = layout.split_names[split]
    return {
        f"{stem}{suffix}{packed}": kind
        for kind in kinds
        for suffix in _SUFFIXES[kind]
        for packed in ("", ".gz")
    }


def _split_files(path: Path, layout: Layout, kinds: Sequence[str]) -> list[ReviewFile]:
    """Return the files of the splits in a folder; none where there is none of training."""
    files = []
    for split in SPLITS:
        names = _file_names(split, layout, kinds)
        there = [name for name in names if (path / name).is_file()]
        if len(there) > 1:
            raise DataError(
                f"{path}: several files of one split: {', '.join(there)}. Leave one, or set "
                "--data.format to the one you mean."
            )
        files += [ReviewFile(path / name, names[name], split, None, name) for name in there]
    return files if any(file.split == "train" for file in files) else []


def _class_files(path: Path, layout: Layout) -> list[ReviewFile]:
    """Return the text files in class folders, sorted by their names."""
    folders: dict[str | None, Path] = {
        split: path / layout.split_names[split]
        for split in SPLITS
        if (path / layout.split_names[split]).is_dir()
    }
    if "train" not in folders:
        folders = {None: path}
    faults = Faults(path, "the reviews cannot be used")
    files = []
    for split, root in folders.items():
        classes = [folder for folder in _folders(root) if _is_class(folder.name, layout)]
        if not classes:
            listed = some_of(folder.name for folder in _folders(root)) or "none"
            tables = some_of(file.name for file in sorted(root.iterdir()) if _kind_of(file))
            raise DataError(
                f"{root}: has no class folders (its folders: {listed}). Put the reviews of each "
                "class in a folder that has its name, or set --data.labels to what the classes are "
                "called; or set --data.source to where they are"
                + (f", such as one of its files: {tables}." if tables else ".")
            )
        for folder in classes:
            texts = sorted(file for file in folder.iterdir() if file.name.endswith(TEXT_SUFFIXES))
            if not texts:
                faults.add(_NO_REVIEWS, str(folder))
            files += [
                ReviewFile(file, "folders", split, folder.name, file.relative_to(path).as_posix())
                for file in texts
            ]
    faults.raise_all()
    return files


def _folders(root: Path) -> list[Path]:
    return sorted(
        entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _is_class(name: str, layout: Layout) -> bool:
    return name in layout.label_names if layout.label_names else name != _UNLABELLED


_READERS: dict[str, Reader] = {
    "folders": read_single,
    "table": read_table,
    "jsonl": read_jsonl,
    "npz": read_npz,
    "lines": read_lines_alone,
}
assert {"auto", "lines", *get_args(ReviewFormat)} == {"auto", *_READERS}
