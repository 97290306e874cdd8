"""Pictures with captions: read from the usual files, checked, and divided into splits."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from datamodules.caption_formats import (
    Captions,
    describe,
    load_json,
    read_coco,
    read_flickr,
    read_jsonl,
    read_karpathy,
    read_table,
)
from datamodules.faults import Fault, Faults, some_of
from datamodules.text_files import read_lines
from seq2seq.errors import DataError

CaptionFormat = Literal["auto", "karpathy", "coco", "flickr", "csv", "tsv", "jsonl"]

SPLITS = ("train", "val", "test")

_MISSING = Fault(
    "pictures that do not exist", "Set --data.images to their folder, or get what is missing."
)
_TWO_SPLITS = Fault("pictures with two splits", "Name one split for each picture.")
_NO_SPLIT = Fault("pictures without a split", "Name one for each picture, or for none.")


class CaptionedPicture(NamedTuple):
    """A picture and what people say of it.

    Attributes:
        path: File of the picture.
        captions: One or more.
        split: Name of its split; None where the file names none.
        place: Where it stands first, such as ``captions.csv:12`` or ``dataset.json: images[3]``.
    """

    path: Path
    captions: tuple[str, ...]
    split: str | None
    place: str


def read_captions(
    path: Path,
    images: Path,
    format: CaptionFormat = "auto",  # noqa: A002  # the name of the option
) -> list[CaptionedPicture]:
    """Read a caption file, plain or ``.gz``.

    Args:
        path: The file.
        images: Folder that the names of the pictures are below; an absolute name stays as it is.
        format: ``karpathy`` and ``coco`` are JSON; ``flickr`` has ``name.jpg#0``, a tab and a
            caption on each line; ``csv`` and ``tsv`` have a header with ``image``, ``caption`` and
            perhaps ``split``, with commas, semicolons or tabs between columns; ``jsonl`` has an
            object on each line with ``image``, ``caption`` or a list of ``captions``, and perhaps
            ``split``. ``auto`` goes by the ending of the name and by the content.

    Returns:
        Each picture once, in the order of first appearance.

    Raises:
        DataError: If the file cannot be read or has another schema; or, all together, if pictures
            are missing, anything is there twice, captions are empty, or splits disagree.
    """
    kind = _guess_format(path) if format == "auto" else format
    faults = Faults(path, "the captions cannot be used")
    pictures = _merge(_READERS[kind](path, faults), images, faults)
    if not images.is_dir():
        what = "is not a folder" if images.exists() else "does not exist"
        raise DataError(f"{images}: {what}. Set --data.images to the folder of the pictures.")
    has_splits = any(picture.split is not None for picture in pictures)
    for picture in pictures:
        if not picture.path.is_file():
            faults.add(_MISSING, f"{picture.path} ({picture.place})")
        if has_splits and picture.split is None:
            faults.add(_NO_SPLIT, picture.place)
    faults.raise_all()
    if not pictures:
        raise DataError(f"{path}: names no picture. Give a file with captions.")
    return pictures


def _merge(records: Iterator[Captions], images: Path, faults: Faults) -> list[CaptionedPicture]:
    """Return each picture once, with the captions of all its lines."""
    first: dict[Path, Captions] = {}
    captions: dict[Path, list[str]] = {}
    for record in records:
        path = images / record.name
        known = first.setdefault(path, record)
        captions.setdefault(path, []).extend(record.captions)
        if record.split != known.split:
            faults.add(
                _TWO_SPLITS,
                f"{record.name} ({known.split} at {known.place}, {record.split} at {record.place})",
            )
    return [
        CaptionedPicture(path, tuple(captions[path]), record.split, record.place)
        for path, record in first.items()
    ]


def _guess_format(path: Path) -> CaptionFormat:
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix == ".json":
        return _guess_schema(path)
    if suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    if suffix == ".csv":
        return "csv"
    line = next(read_lines(path))
    if re.match(r".+#\d+\t", line):
        return "flickr"
    if suffix == ".tsv" or re.search(r"\timage\b|\bimage\t", line, re.IGNORECASE):
        return "tsv"
    if re.search(r"[,;]image\b|\bimage[,;]", line, re.IGNORECASE):
        return "csv"
    raise DataError(
        f"{path}: its format cannot be told from its name or its first line ({line[:80]!r}). "
        f"Name it with --data.format: {', '.join(_READERS)}."
    )


def _guess_schema(path: Path) -> CaptionFormat:
    content = load_json(path)
    if isinstance(content, dict) and isinstance(images := content.get("images"), list):
        if isinstance(content.get("annotations"), list):
            return "coco"
        if images and isinstance(images[0], dict) and "sentences" in images[0]:
            return "karpathy"
    raise DataError(
        f"{path}: another schema: found {describe(content)}. Known are karpathy ('images', each "
        "with 'filename', 'split' and 'sentences') and coco ('images' with 'id' and 'file_name', "
        "'annotations' with 'image_id' and 'caption'). Convert the file, for example to csv."
    )


def read_splits(
    files: Mapping[str, tuple[Path, Path]],
    format: CaptionFormat,  # noqa: A002  # the name of the option
    names: Mapping[str, str],
    shares: Mapping[str, float],
    seed: int,
) -> dict[str, list[CaptionedPicture]]:
    """Read the pictures of ``train``, ``val`` and ``test``.

    Args:
        files: Caption file and folder of pictures of each; where the files of some are one, it is
            divided among them.
        format: As for ``read_captions``.
        names: What each is called in a file that names splits.
        shares: Share of ``val`` and of ``test`` in one that does not.
        seed: Of the choice.

    Returns:
        The pictures of each; a file that is for all of them may have none of ``val`` or ``test``.

    Raises:
        DataError: If a file cannot be used, or a picture is in two splits.
    """
    read = {each: read_captions(*each, format) for each in set(files.values())}
    whole = files["train"]
    own = {role: each for role, each in files.items() if each[0] != whole[0]}
    splits = {role: read[each] for role, each in own.items()}
    rest = read[whole]
    shared = [role for role in SPLITS if role not in own]
    if rest[0].split is not None:
        named = {picture.split for picture in rest}
        for role in shared:
            # A file may well have no test: that matters when it is asked for.
            if role == "train" or not named.isdisjoint(names[role].split("+")):
                splits[role] = pictures_of(rest, names[role])
    elif shared == ["train"]:
        splits["train"] = rest
    else:
        wanted = {role: shares[role] for role in shared if role != "train"}
        wanted = {role: share for role, share in wanted.items() if share > 0}
        splits |= split_pictures(rest, {"train": 1 - sum(wanted.values()), **wanted}, seed)
    check_disjoint(splits)
    return {role: splits.get(role, []) for role in SPLITS}


def pictures_of(pictures: Sequence[CaptionedPicture], split: str) -> list[CaptionedPicture]:
    """Return the pictures of a split, or of several: ``train+restval`` joins two.

    Raises:
        DataError: If there is no such split.
    """
    names = split.split("+")
    known = dict.fromkeys(picture.split for picture in pictures if picture.split is not None)
    for name in names:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise DataError(
                f"There is no split {name!r}; the caption file names: {listed}. Several are "
                "joined by a plus sign: train+restval."
            )
    return [picture for picture in pictures if picture.split in names]


def split_pictures(
    pictures: Sequence[CaptionedPicture], fractions: Mapping[str, float], seed: int
) -> dict[str, list[CaptionedPicture]]:
    """Divide pictures at random into splits.

    Which picture goes where depends on the file names and the seed, not on the order of the
    pictures or on the folder that they are in.

    Args:
        pictures: What to divide; those with the same path stay together.
        fractions: Share of each split, more than 0; together 1.
        seed: Of the choice.

    Returns:
        The pictures of each split, shuffled.

    Raises:
        DataError: If there are too few pictures to give each split one.
    """
    shares = list(fractions.values())
    assert min(shares) > 0, shares
    assert abs(sum(shares) - 1) < 1e-6, shares

    def draw(path: Path) -> tuple[bytes, Path]:
        # The path is for files of the same name in several folders.
        return hashlib.blake2b(f"{seed}/{path.name}".encode()).digest(), path

    paths = sorted({picture.path for picture in pictures}, key=draw)
    ends = [round(end * len(paths)) for end in accumulate(shares)]
    starts = [0, *ends[:-1]]
    if any(start == end for start, end in zip(starts, ends, strict=True)):
        raise DataError(
            f"{len(paths)} pictures are too few for the splits {dict(fractions)}: one would be "
            "empty. Raise --data.val_share or --data.test_share, or give more pictures."
        )
    order = {path: index for index, path in enumerate(paths)}
    ordered = sorted(pictures, key=lambda picture: (order[picture.path], picture.captions))
    return {
        name: [picture for picture in ordered if start <= order[picture.path] < end]
        for name, start, end in zip(fractions, starts, ends, strict=True)
    }


def check_disjoint(splits: Mapping[str, Sequence[CaptionedPicture]]) -> None:
    """Check that no picture file is in two splits, whatever it is called there.

    Raises:
        DataError: If one is.
    """
    owners: dict[Path, tuple[str, CaptionedPicture]] = {}
    shared = {}
    for name, pictures in splits.items():
        for picture in pictures:
            file = picture.path.resolve()
            owner, first = owners.setdefault(file, (name, picture))
            if owner != name:
                shared[file] = f"{file} ({owner}: {first.place}; {name}: {picture.place})"
    if shared:
        raise DataError(
            f"Pictures in two splits ({len(shared)}): {some_of(shared.values())}. "
            "Leave each in one: a picture that was trained on is no test."
        )


_READERS: dict[CaptionFormat, Callable[[Path, Faults], Iterator[Captions]]] = {
    "karpathy": read_karpathy,
    "coco": read_coco,
    "flickr": read_flickr,
    "csv": read_table,
    "tsv": read_table,
    "jsonl": read_jsonl,
}
assert {"auto", *_READERS} == set(get_args(CaptionFormat))
