"""The formats of caption files: each reader yields what a file says, and notes what is wrong."""

import csv
import json
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from datamodules.faults import Fault, Faults, some_of
from datamodules.text_files import find_separator, read_lines
from seq2seq.errors import DataError

# JSON can spell a surrogate alone, which no UTF-8 can hold.
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_TOKEN_LINE = re.compile(r"(?P<name>.+)#(?P<number>\d+)\t(?P<caption>.*)")


class Captions(NamedTuple):
    """What one entry or line says about a picture.

    Attributes:
        name: File name of the picture, as it stands there.
        captions: One or more; without line breaks and without spaces around them.
        split: Name of its split, or None.
        place: Where that stands.
    """

    name: str
    captions: tuple[str, ...]
    split: str | None
    place: str


MALFORMED = Fault("entries that cannot be read", "Mend them.")
EMPTY = Fault("pictures or lines without a caption", "Give them one, or remove them.")
HALF = Fault("captions with half a character (\\ud800 to \\udfff)", "Mend or remove them.")
DUPLICATE = Fault("duplicates", "Keep one of each.")
UNKNOWN_ID = Fault("annotations of pictures that are not under 'images'", "Remove them.")


class _Seen:
    """Notes what occurs a second time."""

    def __init__(self, what: str, faults: Faults) -> None:
        self._what = what
        self._faults = faults
        self._places: dict[Hashable, str] = {}

    def add(self, value: Hashable, place: str) -> None:
        first = self._places.setdefault(value, place)
        if first is not place:
            self._faults.add(DUPLICATE, f"{self._what} {value} ({first} and {place})")


def load_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        DataError: If it cannot be read, or is not JSON.
    """
    try:
        return json.loads("\n".join(read_lines(path)))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: not JSON ({error}). Mend it, or name its format with --data.format; "
            "a file with one object on each line is jsonl."
        ) from error


def read_karpathy(path: Path, faults: Faults) -> Iterator[Captions]:
    """Yield the entries of a file as A. Karpathy published them for Flickr8k, Flickr30k and COCO.

    Raises:
        DataError: If the file cannot be read, or has another schema.
    """
    content = require_keys(path, load_json(path), {"images": list})
    names, ids = _Seen("filename", faults), _Seen("imgid", faults)
    for index, image in enumerate(content["images"]):
        place = f"{path.name}: images[{index}]"
        fields = image if isinstance(image, dict) else {}
        filename, folder = fields.get("filename"), fields.get("filepath", "")
        split, sentences = fields.get("split"), fields.get("sentences")
        if (
            not _is_name(filename)
            or not isinstance(folder, str)
            or not isinstance(split, str | None)
            or not isinstance(sentences, list)
        ):
            faults.add(MALFORMED, f"{place} (no 'filename', 'split' and list of 'sentences')")
            continue
        name = f"{folder}/{filename}" if folder else filename
        names.add(name, place)
        if isinstance(fields.get("imgid"), int | str):
            ids.add(fields["imgid"], place)
        texts = [_sentence(sentence) for sentence in sentences]
        yield from _captions(name, texts, split, place, faults)


def read_coco(path: Path, faults: Faults) -> Iterator[Captions]:
    """Yield the entries of a captions file of COCO, which has no splits: it is one.

    Raises:
        DataError: If the file cannot be read, or has another schema.
    """
    content = require_keys(path, load_json(path), {"images": list, "annotations": list})
    images: dict[int | str, tuple[str, str, list[object]]] = {}
    ids, names = _Seen("image id", faults), _Seen("file_name", faults)
    for index, image in enumerate(content["images"]):
        place = f"{path.name}: images[{index}]"
        fields = image if isinstance(image, dict) else {}
        number, name = fields.get("id"), fields.get("file_name")
        if not isinstance(number, int | str) or not _is_name(name):
            faults.add(MALFORMED, f"{place} (no 'id' and 'file_name')")
            continue
        ids.add(number, place)
        names.add(name, place)
        images[number] = (name, place, [])
    annotation_ids = _Seen("annotation id", faults)
    for index, annotation in enumerate(content["annotations"]):
        place = f"{path.name}: annotations[{index}]"
        fields = annotation if isinstance(annotation, dict) else {}
        number, text = fields.get("image_id"), fields.get("caption")
        if not isinstance(number, int | str) or not isinstance(text, str):
            faults.add(MALFORMED, f"{place} (no 'image_id' and 'caption')")
        elif number not in images:
            faults.add(UNKNOWN_ID, f"{place} (image_id {number})")
        elif not text.strip():
            faults.add(EMPTY, place)
        else:
            images[number][2].append(text)
        if isinstance(fields.get("id"), int | str):
            annotation_ids.add(fields["id"], place)
    for name, place, texts in images.values():
        yield from _captions(name, texts, None, place, faults)


def read_flickr(path: Path, faults: Faults) -> Iterator[Captions]:
    """Yield the lines of a token file of Flickr8k or Flickr30k: ``name.jpg#0``, tab, caption.

    Raises:
        DataError: If the file cannot be read.
    """
    seen = _Seen("line", faults)
    for place, line in _filled_lines(path):
        found = _TOKEN_LINE.fullmatch(line)
        if found is None:
            faults.add(MALFORMED, f"{place} (not a name, #, a number, a tab and a caption)")
            continue
        seen.add(f"{found['name']}#{found['number']}", place)
        yield from _captions(found["name"], [found["caption"]], None, place, faults)


def read_table(path: Path, faults: Faults) -> Iterator[Captions]:
    """Yield the rows of a table whose header names ``image``, ``caption`` and perhaps ``split``.

    Commas, semicolons or tabs are between columns.

    Raises:
        DataError: If the file cannot be read, its header names other columns, or its quotes do
            not match.
    """
    lines = (f"{line}\n" for line in read_lines(path))  # a quoted caption may have line breaks
    place = f"{path.name}:1"
    try:
        separator = find_separator(path, ("image", "caption", "split"))
        rows = csv.reader(lines, delimiter=separator, strict=True)
        header = [name.strip().lower() for name in next(rows)]
        if not {"image", "caption"} <= set(header):
            raise DataError(
                f"{path}: the first line names the columns {', '.join(header)}, where 'image' and "
                "'caption' are needed, and 'split' may be. Add or rename them."
            )
        while True:
            place = f"{path.name}:{rows.line_num + 1}"
            row = next(rows, None)
            if row is None:
                return
            if row and len(row) != len(header):
                faults.add(
                    MALFORMED,
                    f"{place} ({len(row)} columns, not {len(header)}: quote a caption that has "
                    f"{separator!r} in it)",
                )
            elif row:
                fields = dict(zip(header, row, strict=True))
                if not _is_name(fields["image"]):
                    faults.add(MALFORMED, f"{place} (no image)")
                    continue
                split = fields.get("split", "").strip() or None
                yield from _captions(fields["image"], [fields["caption"]], split, place, faults)
    except csv.Error as error:
        raise DataError(
            f"{path}: the row from {place} cannot be read ({error}). Put a caption that has "
            'quotes in it between quotes, and write its own twice: "a ""stop"" sign".'
        ) from error


def read_jsonl(path: Path, faults: Faults) -> Iterator[Captions]:
    """Yield the objects of a file that has one on each line.

    Each has ``image``, and ``caption`` (a text) or ``captions`` (a list), and perhaps ``split``.

    Raises:
        DataError: If the file cannot be read.
    """
    for place, line in _filled_lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.add(MALFORMED, f"{place} (not JSON: {error})")
            continue
        fields = record if isinstance(record, dict) else {}
        texts = fields.get("captions", [fields.get("caption")])
        name, split = fields.get("image"), fields.get("split")
        is_text = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        if not _is_name(name) or not is_text or not isinstance(split, str | None):
            faults.add(MALFORMED, f"{place} (no 'image' with a 'caption' or a list of 'captions')")
            continue
        yield from _captions(name, texts, split, place, faults)


def require_keys(path: Path, content: Any, wanted: dict[str, type]) -> dict[str, Any]:
    """Return the content of a JSON file if it has these keys.

    Raises:
        DataError: If it has not, naming the keys it has.
    """
    if isinstance(content, dict) and all(
        isinstance(content.get(key), kind) for key, kind in wanted.items()
    ):
        return content
    found = describe(content)
    raise DataError(
        f"{path}: another schema: found {found}, looked for lists under "
        f"{' and '.join(map(repr, wanted))}. Name its format with --data.format, or convert it."
    )


def describe(content: Any) -> str:
    """Return what a JSON file holds at its top, for a message."""
    if isinstance(content, dict):
        return f"the keys {some_of(map(repr, content))}" if content else "no keys"
    return "a list" if isinstance(content, list) else f"a {type(content).__name__}"


def _filled_lines(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            yield f"{path.name}:{number}", line


def _is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip())


def _sentence(sentence: Any) -> object:
    fields = sentence if isinstance(sentence, dict) else {}
    if isinstance(tokens := fields.get("tokens"), list) and "raw" not in fields:
        return " ".join(map(str, tokens))
    return fields.get("raw")


def _captions(
    name: str, texts: list[object], split: str | None, place: str, faults: Faults
) -> Iterator[Captions]:
    """Yield the captions of a picture, or note what is wrong with them."""
    captions = tuple(" ".join(text.split()) if isinstance(text, str) else "" for text in texts)
    if not captions or not all(captions):
        faults.add(EMPTY, place)
    elif any(map(_HALF_CHARACTER.search, (name, *captions))):
        faults.add(HALF, place)
    else:
        yield Captions(name.strip(), captions, split, place)
