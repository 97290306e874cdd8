"""The index of shards: what they are, and what else lies beside them."""

import hashlib
import json
from typing import Any, Literal, NamedTuple

from datamodules.shard_files import StoredFile
from datamodules.shard_store import ShardStore
from seq2seq.errors import DataError

ShardKind = Literal["pictures", "videos", "features", "video features"]

FEATURES: dict[str, Literal["pictures", "videos"]] = {
    "features": "pictures",
    "video features": "videos",
}
"""Of the kinds of samples that a network has made, what it has made them of."""

INDEX = "index.json"
LAYOUT = 1
"""Version of the index and of the tables; raised when they change."""


class ShardIndex(NamedTuple):
    """What ``index.json`` says.

    Attributes:
        kind: What the samples are.
        shards: The shards of all splits, by their numbers.
        tables: Of each split, the file of its table, and its number of lines.
        features: Of features, what they were made with and which there are, in plain values; None
            for anything else.
        fingerprint: Hash of all this.
    """

    kind: str
    shards: list[StoredFile]
    tables: dict[str, tuple[StoredFile, int]]
    features: dict[str, Any] | None
    fingerprint: str


def format_index(
    kind: ShardKind,
    shards: list[StoredFile],
    tables: dict[str, tuple[StoredFile, int]],
    features: dict[str, Any] | None,
) -> bytes:
    """Return the content of the index."""
    index = {"layout": LAYOUT, "kind": kind, "shards": shards, "tables": tables}
    if features is not None:
        index["features"] = features
    return json.dumps(index, indent=1).encode()


def read_index(source: str, store: ShardStore) -> ShardIndex:
    """Return the index of some shards.

    Args:
        source: What to call their place in messages.
        store: Their place.

    Raises:
        DataError: If there is none, it is damaged, or of another version.
    """
    content = store.read(INDEX)
    if content is None:
        raise DataError(
            f"{source}: has no {INDEX}, which seq2seq-prepare writes last. Let it finish, or give "
            "the folder or URL that it wrote to."
        )
    try:
        index = json.loads(content)
        layout = index["layout"]
        if layout == LAYOUT:
            return ShardIndex(
                index["kind"],
                [StoredFile(*file) for file in index["shards"]],
                {
                    name: (StoredFile(*file), count)
                    for name, (file, count) in index["tables"].items()
                },
                dict(index["features"]) if index["kind"] in FEATURES else None,
                hashlib.blake2b(content, digest_size=16).hexdigest(),
            )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{source}/{INDEX} is damaged ({error}). Run seq2seq-prepare again."
        ) from error
    raise DataError(
        f"{source}: has layout {layout}, and this version reads {LAYOUT}. Run seq2seq-prepare of "
        "this version."
    )
