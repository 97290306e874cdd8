"""Caption scores: whatever the order, the repetitions and the processes."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from torch.multiprocessing.spawn import spawn

from seq2seq.errors import DataError
from seq2seq.metrics import CaptionMetric, CaptionScores
from seq2seq.words import CAPTION_TOKENIZER, caption_words

HYPOTHESES = [
    "A dog runs over the green meadow .",
    "two men play chess in a park in a park",
    "a child's T-shirt isn't blue",
    "A dog runs over the green meadow",
    "",
    "caf\u00e9 caf\u00e9",
]
REFERENCES = [
    ["A dog runs across the green meadow .", "The dog is running over a meadow ."],
    ["Two men play chess, quietly, in a park."],
    ["A child\u2019s t-shirt isn\u2019t blue!", "a blue T-shirt", "the shirt of a child"],
    ["the train departs from the station at noon", "a train leaves"],
    ["nobody is there"],
    ["a street caf\u00e9", "people in front of a caf\u00e9"],
]
WHOLE = [0, 1, 2, 3, 4, 5]
UNUSED = "ignore:The ``compute`` method of metric CaptionMetric was called before"


def score(order: list[int], batch_size: int = 2) -> CaptionScores:
    metric = CaptionMetric()
    add(metric, order, batch_size)
    scores: CaptionScores = metric.compute()
    return scores


def add(metric: CaptionMetric, order: list[int], batch_size: int = 2) -> None:
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        metric.update(
            torch.tensor(batch), [HYPOTHESES[i] for i in batch], [REFERENCES[i] for i in batch]
        )


def test_scores_are_those_of_pycocoevalcap() -> None:
    right = {i: [" ".join(caption_words(r)) for r in REFERENCES[i]] for i in WHOLE}
    given = {i: [" ".join(caption_words(HYPOTHESES[i]))] for i in WHOLE}
    scores = score(WHOLE)
    bleu, _ = Bleu(4).compute_score(right, given, verbose=0)
    assert scores[:4] == pytest.approx(bleu, abs=1e-9)
    assert scores.rouge_l == pytest.approx(Rouge().compute_score(right, given)[0], abs=1e-9)
    assert scores.cider_d == pytest.approx(Cider().compute_score(right, given)[0], abs=1e-9)
    assert 0 < scores.bleu_4 < scores.bleu_3 < scores.bleu_2 < scores.bleu_1 < 1


def test_shares_are_counted_by_words() -> None:
    scores = score(WHOLE)
    assert scores.exact_match == 1 / 6  # the child's shirt: case and apostrophes do not matter
    assert scores.distinct_captions == 5 / 6  # the dog runs twice, once with a full stop
    assert scores.repetition == 2 / 6  # "in a park in a park", "caf\u00e9 caf\u00e9"
    assert scores.examples == 6


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a man in a hat and a man in a cap", 0),
        ("a man in a a", 1),
        ("a man on the street on the street", 1),
        ("one two three four one two three four", 1),
        ("one two three four five one two three four five", 0),
    ],
)
def test_only_what_is_said_twice_in_a_row_is_a_repetition(caption: str, expected: int) -> None:
    metric = CaptionMetric()
    metric.update(torch.tensor([0]), [caption], [["a man"]])
    assert metric.compute().repetition == expected


def test_the_signature_tells_what_was_scored() -> None:
    signature = score(WHOLE).signature
    assert signature.startswith(f"nrefs:1-3|tok:{CAPTION_TOKENIZER}|bleu:closest,smooth=none|")
    assert "|cider_d:n=4,sigma=6,df=corpus|version:" in signature
    assert score([0, 3]).signature.startswith("nrefs:2|")
    metric = CaptionMetric()
    add(metric, WHOLE)
    assert metric.signature == signature


def test_order_and_batches_change_nothing() -> None:
    assert score([3, 0, 5, 4, 2, 1], batch_size=4) == score(WHOLE, batch_size=6)


def test_a_repeated_example_counts_once() -> None:
    assert score([2, 0, 1, 2, 3, 4, 5, 2, 0]) == score(WHOLE)


def test_of_a_repeated_example_the_first_hypothesis_counts() -> None:
    metric = CaptionMetric()
    add(metric, WHOLE)
    metric.update(torch.tensor([1, 0]), ["a", "b"], [["a"], ["b"]])
    assert metric.compute() == score(WHOLE)


def test_reset_forgets_the_captions() -> None:
    metric = CaptionMetric()
    add(metric, [2, 4])
    metric.compute()
    metric.reset()
    add(metric, [0, 1, 3])
    assert metric.compute() == score([0, 1, 3])


def test_captions_are_no_part_of_a_checkpoint_but_of_a_copy() -> None:
    metric = CaptionMetric()
    add(metric, WHOLE)
    assert metric.state_dict() == {}
    assert copy.deepcopy(metric).compute() == score(WHOLE)


def test_any_text_is_kept_apart_from_the_next() -> None:
    texts = ['a\n"b"', "\u2028 \x85 \\n", "\ud800 broken", "[0, 1]"]
    metric = CaptionMetric()
    metric.update(torch.arange(4), texts, [[text] for text in texts])
    assert metric.compute()[-5:-1] == (1, 1, 0, 4)


def test_an_empty_batch_adds_nothing() -> None:
    metric = CaptionMetric()
    metric.update(torch.tensor([], dtype=torch.int64), [], [])
    add(metric, WHOLE)
    assert metric.compute() == score(WHOLE)


@pytest.mark.filterwarnings(UNUSED)
def test_an_empty_corpus_is_an_error_that_names_the_limits() -> None:
    with pytest.raises(DataError, match=r"no caption to score.*--trainer\.limit_val_batches"):
        CaptionMetric().compute()


def test_an_example_without_reference_is_named() -> None:
    with pytest.raises(DataError, match="Example 12 has no reference"):
        CaptionMetric().update(torch.tensor([4, 12]), ["a", "b"], [["a"], []])


@pytest.mark.gpu
def test_a_gpu_scores_what_the_processor_does() -> None:
    metric = CaptionMetric().cuda()
    add(metric, WHOLE)
    assert {line.device.type for line in metric.lines} == {"cuda"}
    assert metric.compute() == score(WHOLE)


# What each of two ranks has: repetitions of one another, then nothing on one or the other.
SHARES = [([0, 3, 2, 5, 0], [4, 1, 0, 3]), ([], WHOLE), ([5, 3, 4, 1, 0, 2], [])]


def score_shares(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    metric = CaptionMetric()
    results = []
    for shares in SHARES:
        add(metric, shares[rank])
        if rank == 1 and shares[0]:  # what a higher rank says of an example that a lower one has
            metric.update(torch.tensor([5]), ["something else"], [["something right"]])
        results.append(tuple(metric.compute()))
        metric.reset()
    torch.save(results, folder / f"scores_{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_score_what_one_does(tmp_path: Path) -> None:
    spawn(score_shares, args=(tmp_path,), nprocs=2)  # type: ignore[no-untyped-call]
    expected = [tuple(score(WHOLE))] * len(SHARES)
    for rank in range(2):
        assert torch.load(tmp_path / f"scores_{rank}.pt") == expected
