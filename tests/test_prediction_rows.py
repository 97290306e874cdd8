"""The rows that ``seq2seq-predict`` writes for labels, computed by hand."""

import json
import math

import torch

from seq2seq.batches import NOTHING, Prediction
from seq2seq.prediction_output import Columns, row_format

# Two labels each; the second step's probabilities are those after the best first label.
BEST = Prediction(
    "lift;cup", math.log(3 / 8) / 2, ["lift", "cup"], [math.log(1 / 2), math.log(3 / 4)]
)._replace(
    probabilities=torch.tensor([[1 / 4, 1 / 2, 1 / 4], [3 / 4, 1 / 16, 3 / 16]]),
    classes=("cup", "lift", "put"),
)
SECOND = BEST._replace(
    text="lift;put",
    score=math.log(1 / 16) / 2,
    tokens=["lift", "put"],
    token_log_probs=[math.log(1 / 2), math.log(1 / 8)],
)
NONE = NOTHING._replace(error="x.mp4: is\tbroken.")
RANKED = Columns(is_file=True, is_ranked=True, has_labels=True)
TIMED = Columns(is_file=True, has_labels=True, has_seconds=True)


def test_rows_of_labels_as_text():
    write = row_format("text", RANKED).write
    assert write("x.mp4", [BEST, SECOND]) == "x.mp4\tlift;cup\t0.3750\tlift;put\t0.0625"
    assert write("x.mp4", [NONE]) == "x.mp4\t[error: is broken.]"
    write = row_format("text", TIMED).write
    assert write("x.mp4", [BEST._replace(seconds=1.25)]) == "x.mp4\t1.250\tlift;cup\t0.3750"
    assert write("x.mp4", [NONE]) == "x.mp4\t[error: is broken.]"


def test_rows_of_labels_as_csv():
    rows = row_format("csv", RANKED)
    assert rows.header == "source,rank,text,probability,score,error"
    assert rows.write("x.mp4", [BEST, SECOND]).splitlines() == [
        "x.mp4,1,lift;cup,0.375,-0.49041,",
        "x.mp4,2,lift;put,0.0625,-1.38629,",
    ]
    assert rows.write("x.mp4", [NONE]) == "x.mp4,1,,,,is\tbroken."
    rows = row_format("csv", TIMED)
    assert rows.header == "source,seconds,text,probability,score,error"
    assert rows.write("x.mp4", [BEST._replace(seconds=0.1)]) == (
        "x.mp4,0.100,lift;cup,0.375,-0.49041,"
    )
    assert rows.write("x.mp4", [NONE]) == "x.mp4,,,,,is\tbroken."


def test_rows_of_labels_as_json():
    write = row_format("jsonl", RANKED).write
    record = json.loads(write("x.mp4", [BEST, SECOND]))
    second = record["n_best"][1]
    assert record["n_best"][0] == {k: v for k, v in record.items() if k not in ("source", "n_best")}
    assert list(record["classes"][0].items()) == [("lift", 0.5), ("cup", 0.25), ("put", 0.25)]
    assert list(record["classes"][1].items()) == [("cup", 0.75), ("put", 0.1875), ("lift", 0.0625)]
    assert (record["probability"], second["probability"]) == (0.375, 0.0625)
    assert (record["text"], second["text"]) == ("lift;cup", "lift;put")
    assert record["token_scores"] == [-0.69315, -0.28768]
    timed = json.loads(write("x.mp4", [BEST._replace(seconds=1 / 3)]))
    assert timed["seconds"] == 0.333
    broken = json.loads(write("x.mp4", [NONE]))
    assert broken["error"] == "is\tbroken."
    assert {"classes", "probability", "seconds"}.isdisjoint(broken)
