"""Labelled videos: read from the usual sources, checked, and divided into splits."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from datamodules.faults import Fault, Faults, some_of
from datamodules.video_formats import (
    SPLITS,
    VideoEntry,
    is_ucf_list,
    read_folders,
    read_table,
    read_ucf,
)
from seq2seq.errors import ConfigError, DataError, raise_together

VideoFormat = Literal["auto", "folders", "csv", "tsv", "ucf101"]

_MISSING = Fault(
    "videos that do not exist", "Set --data.root to their folder, or get what is missing."
)
_DUPLICATE = Fault("duplicates", "Keep one of each.")
_TWO_GROUPS = Fault("videos with two groups", "Name one for each video.")
_NO_SPLIT = Fault("entries without a split", "Name one for each, or for none.")


def read_videos(
    source: Path,
    root: Path | None = None,
    format: VideoFormat = "auto",  # noqa: A002  # the name of the option
    label_separator: str = " ",
) -> list[VideoEntry]:
    """Read which videos there are and what they show.

    Args:
        source: A folder or a file.
        root: Folder that the names in a file are below; an absolute name stays as it is. None for
            the folder of the file.
        format: ``folders`` has a folder per class, ``class/video``, or such folders in ``train``,
            ``val`` and ``test``. ``csv`` and ``tsv``, plain or ``.gz``, have a header with ``path``
            and ``label``, and perhaps ``start`` and ``end`` (seconds), ``group`` and ``split``;
            commas, semicolons or tabs are between columns.
            ``ucf101`` is a ``trainlist01.txt``; ``testlist01.txt`` and perhaps ``classInd.txt`` lie
            beside it. ``auto`` goes by the name.
        label_separator: What is between the labels of several steps in a table; empty where a
            label is all that stands there. The name of a class folder is one label as it stands.

    Returns:
        The entries in the order of the source; a video may have several, with other times.

    Raises:
        DataError: If the source cannot be read or has another schema; or, all together, if videos
            are missing, entries are there twice or cannot be used, or only some have a split.
    """
    kind = _guess_format(source) if format == "auto" else format
    if kind == "folders" and not source.is_dir():
        what = "is not a folder" if source.exists() else "does not exist"
        raise DataError(f"{source}: {what}. Set --data.source to the folder of the class folders.")
    folder = source.parent if root is None else root
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder}: {what}. Set --data.root to the folder of the videos.")
    faults = Faults(source, "the videos cannot be used")
    if kind == "folders":
        found = read_folders(source, faults)
    elif kind == "ucf101":
        found = read_ucf(source, folder, faults)
    else:
        found = read_table(source, folder, label_separator, faults)
    entries = list(found)
    _check_entries(entries, faults)
    faults.raise_all()
    if not entries:
        raise DataError(f"{source}: names no video. Give a source with videos.")
    return entries


def _guess_format(source: Path) -> VideoFormat:
    if source.is_dir():
        return "folders"
    if is_ucf_list(source):
        return "ucf101"
    kinds: dict[str, VideoFormat] = {".csv": "csv", ".tsv": "tsv"}
    suffix = Path(source.name.removesuffix(".gz")).suffix.lower()
    if suffix in kinds:
        return kinds[suffix]
    what = "its format cannot be told from its name" if source.exists() else "does not exist"
    raise DataError(
        f"{source}: {what}. Set --data.source to a folder of class folders, a table named .csv or "
        ".tsv, or a trainlist01.txt of UCF101; or name the format with --data.format: folders, "
        "csv, tsv, ucf101."
    )


def _check_entries(entries: Sequence[VideoEntry], faults: Faults) -> None:
    has_splits = any(entry.split is not None for entry in entries)
    first: dict[tuple[Path, float, float | None], VideoEntry] = {}
    owners: dict[Path, VideoEntry] = {}
    for entry in entries:
        part = entry.path, entry.start_seconds, entry.end_seconds
        known = first.setdefault(part, entry)
        owner = owners.setdefault(entry.path, entry)
        if known is not entry:
            faults.add(_DUPLICATE, f"{entry.path} ({known.place} and {entry.place})")
        elif owner.group != entry.group:
            faults.add(
                _TWO_GROUPS,
                f"{entry.path} ({owner.group} at {owner.place}, {entry.group} at {entry.place})",
            )
        if owner is entry and not entry.path.exists():
            faults.add(_MISSING, f"{entry.path} ({entry.place})")
        if has_splits and entry.split is None:
            faults.add(_NO_SPLIT, entry.place)


def labels_of(entries: Iterable[VideoEntry]) -> list[str]:
    """Return the names of all labels, sorted; those of the training entries are the classes."""
    return sorted({label for entry in entries for label in entry.labels})


def split_videos(
    entries: Sequence[VideoEntry],
    *,
    val_share: float = 0.0,
    test_share: float = 0.0,
    val_groups: Sequence[str] = (),
    seed: int = 1,
) -> dict[str, list[VideoEntry]]:
    """Divide entries into splits, of which no two have a group in common.

    What the source says of splits stays. The rest comes out of what would be training: whole
    groups, in an order that depends on their names and the seed, until the share is reached.

    Args:
        entries: What ``read_videos`` returned.
        val_share: Share of what would be training that becomes validation.
        test_share: Share of it that becomes the test.
        val_groups: Groups of it that become validation, in place of a share.
        seed: Of the choice.

    Returns:
        The entries of ``train``, ``val`` and ``test``, in their order; the last two may be empty.

    Raises:
        ConfigError: If an option is out of range, contradicts another one or the source, or names
            a group that training has not; all together.
        DataError: If splits have a group or a file in common, nothing is left for training, or it
            lacks a class of the others.
    """
    splits: dict[str, list[VideoEntry]] = {name: [] for name in SPLITS}
    for entry in entries:
        splits[entry.split or "train"].append(entry)
    _check_disjoint(splits)
    raise_together(
        list(_problems(splits, val_share, test_share, val_groups)),
        ConfigError,
        "The options of the splits cannot work:",
    )
    count = len(splits["train"])
    _move(splits, "val", set(val_groups))
    for name, share in (("test", test_share), ("val", val_share)):
        if share:
            _move(splits, name, _draw_groups(splits["train"], max(1, round(share * count)), seed))
    _check_classes(splits)
    return splits


def _problems(
    splits: Mapping[str, Sequence[VideoEntry]],
    val_share: float,
    test_share: float,
    val_groups: Sequence[str],
) -> Iterator[str]:
    for name, share in (("val", val_share), ("test", test_share)):
        if not 0 <= share < 1:
            yield f"--data.{name}_share={share} is not a share: choose 0 to less than 1."
        elif share and splits[name]:
            yield f"--data.{name}_share={share}: the source names a {name} split. Set it to 0."
    if val_groups and splits["val"]:
        yield f"--data.val_groups={list(val_groups)}: the source names a val split. Give none."
    if val_groups and val_share:
        yield (
            f"--data.val_groups={list(val_groups)} and --data.val_share={val_share} cannot both "
            "be: set the share to 0, or give no groups."
        )
    groups = sorted({entry.group for entry in splits["train"]})
    if unknown := [group for group in val_groups if group not in groups]:
        yield (
            f"--data.val_groups: training has no group {', '.join(map(repr, unknown))}; it has "
            f"{some_of(groups)}. Choose from those."
        )


def _draw_groups(entries: Sequence[VideoEntry], count: int, seed: int) -> set[str]:
    """Return groups that have so many entries together, or a few more: whole groups go."""

    def draw(group: str) -> tuple[bytes, str]:
        return hashlib.blake2b(f"{seed}/{group}".encode()).digest(), group

    sizes = Counter(entry.group for entry in entries)
    drawn: set[str] = set()
    for group in sorted(sizes, key=draw):
        if count <= 0:
            break
        drawn.add(group)
        count -= sizes[group]
    return drawn


def _move(splits: dict[str, list[VideoEntry]], name: str, groups: set[str]) -> None:
    """Move the entries of groups from training to another split."""
    train = splits["train"]
    splits[name] += [entry for entry in train if entry.group in groups]
    splits["train"] = [entry for entry in train if entry.group not in groups]


def _check_disjoint(splits: Mapping[str, Sequence[VideoEntry]]) -> None:
    """Check that no group, and no file whatever it is called, is in two splits."""
    for what, key in (("Groups", _group_of), ("Videos", _file_of)):
        owners: dict[str, tuple[str, VideoEntry]] = {}
        shared = {}
        for name, entries in splits.items():
            for entry in entries:
                owner, first = owners.setdefault(key(entry), (name, entry))
                if owner != name:
                    shared[key(entry)] = (
                        f"{key(entry)} ({owner}: {first.place}; {name}: {entry.place})"
                    )
        if shared:
            raise DataError(
                f"{what} in two splits ({len(shared)}): {some_of(shared.values())}. Leave each in "
                "one: what was trained on is no test."
            )


def _group_of(entry: VideoEntry) -> str:
    return entry.group


def _file_of(entry: VideoEntry) -> str:
    return str(entry.path.resolve())


def _check_classes(splits: Mapping[str, Sequence[VideoEntry]]) -> None:
    if not splits["train"]:
        raise DataError(
            "No video is left for training. Lower --data.val_share and --data.test_share, take "
            "fewer --data.val_groups, or give more videos or groups."
        )
    trained = set(labels_of(splits["train"]))
    lacking: dict[str, str] = {}
    for name in SPLITS[1:]:
        for entry in splits[name]:
            for label in entry.labels:
                if label not in trained:
                    lacking.setdefault(label, f"{label!r} ({name}: {entry.place})")
    if lacking:
        raise DataError(
            f"Classes that training lacks ({len(lacking)}): {some_of(lacking.values())}. Give "
            "training videos of them, take them out of the other splits, or divide otherwise: "
            "--data.val_groups, --data.seed."
        )
