"""Scores of a classifier: whatever the order, the repetitions and the processes."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.distributed
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_calibration_error,
    multiclass_f1_score,
)

from seq2seq.errors import DataError
from seq2seq.metrics import ClassificationMetric, ClassScores

CLASSES = 7
WHOLE = list(range(12))
UNUSED = "ignore:The ``compute`` method of metric ClassificationMetric was called before"

# Twelve examples of one to three steps; the last class never occurs.
_generator = torch.Generator().manual_seed(3)
PROBABILITIES = torch.randn(12, 3, CLASSES, generator=_generator).mul(2).softmax(dim=-1)
TARGETS = torch.randint(0, CLASSES - 1, (12, 3), generator=_generator)
_is_easy = torch.rand(12, 3, 1, generator=_generator) < 0.6
PROBABILITIES = PROBABILITIES.lerp(torch.eye(CLASSES)[TARGETS], 0.5 * _is_easy)
# What a search decoded: now and then another class than the most probable one.
DECODED = PROBABILITIES.argmax(dim=-1)
_is_other = torch.rand(12, 3, generator=_generator) < 0.3
DECODED = torch.where(_is_other, PROBABILITIES.topk(2).indices[..., 1], DECODED)
TARGETS[[1, 5, 6], 2] = -1
TARGETS[5, 1] = -1


def add(metric: ClassificationMetric, order: list[int], batch_size: int = 5) -> None:
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        metric.update(torch.tensor(batch), DECODED[batch], PROBABILITIES[batch], TARGETS[batch])


def score(order: list[int], batch_size: int = 5) -> ClassScores:
    metric = ClassificationMetric(CLASSES)
    add(metric, order, batch_size)
    scores: ClassScores = metric.compute()
    return scores


def score_rows(
    rows: list[list[float]], targets: list[int], decoded: list[int] | None = None
) -> ClassScores:
    """Score examples of one step; unless it is said, the most probable class was decoded."""
    probabilities = torch.tensor(rows).unsqueeze(1)
    classes = probabilities.argmax(dim=2) if decoded is None else torch.tensor(decoded)[:, None]
    metric = ClassificationMetric(probabilities.shape[-1])
    metric.update(
        torch.arange(len(rows)), classes, probabilities, torch.tensor(targets).unsqueeze(1)
    )
    scores: ClassScores = metric.compute()
    return scores


def certain(rows: list[int], classes: int) -> list[list[float]]:
    return torch.eye(classes)[rows].tolist()


def are_equal(left: ClassScores, right: ClassScores) -> bool:
    return all(
        torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) if isinstance(a, Tensor) else a == b
        for a, b in zip(left, right, strict=True)
    )


def test_two_classes_by_hand() -> None:
    scores = score_rows([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]], [0, 0, 1, 1])
    assert scores.accuracy == scores.step_accuracy == 0.5
    assert scores.confusion.tolist() == [[1, 1], [1, 1]]
    assert scores.per_class.tolist() == [0.5, 0.5]
    assert scores.mean_class_accuracy == scores.macro_f1 == 0.5
    assert scores.auroc == 0.75  # of four pairs, 0.3 and 0.6 are the wrong way round
    # 0.9 right, 0.6 wrong, 0.8 right, 0.7 wrong, each in a bin of its own
    assert scores.calibration_error == pytest.approx((0.1 + 0.6 + 0.2 + 0.7) / 4)
    assert scores.top_5 == 1
    assert scores.examples == 4


def test_the_rows_of_the_confusion_are_the_truth() -> None:
    scores = score_rows(certain([0, 0, 1, 2], 4), [0, 0, 0, 1])
    assert scores.confusion.dtype == torch.int64
    assert scores.confusion.tolist() == [[2, 1, 0, 0], [0, 0, 1, 0], [0] * 4, [0] * 4]
    assert scores.per_class[:2].tolist() == [2 / 3, 0]
    assert scores.per_class.isnan().tolist() == [False, False, True, True]
    assert scores.mean_class_accuracy == pytest.approx(1 / 3)
    # 0.8 for the first class, 0 for the second and the third; the fourth occurs nowhere.
    assert scores.macro_f1 == pytest.approx(0.8 / 3)


def test_all_steps_of_an_example_have_to_be_right() -> None:
    metric = ClassificationMetric(3)
    decoded = torch.tensor([[0, 1], [2, 2], [1, 0]])
    targets = torch.tensor([[0, 1], [2, 1], [1, -1]])
    metric.update(torch.tensor([4, 9, 6]), decoded, torch.eye(3)[decoded], targets)
    scores = metric.compute()
    assert scores.accuracy == pytest.approx(2 / 3)
    assert scores.step_accuracy == pytest.approx(4 / 5)
    assert scores.examples == 3
    assert int(scores.confusion.sum()) == 5


def test_what_was_decoded_is_right_or_wrong_and_not_what_is_most_probable() -> None:
    rows, targets = [[0.5, 0.4, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]], [1, 1, 2]
    scores, plain = score_rows(rows, targets, [1, 2, 2]), score_rows(rows, targets)
    assert scores.accuracy == scores.step_accuracy == pytest.approx(2 / 3)
    assert scores.confusion.tolist() == [[0] * 3, [0, 1, 1], [0, 0, 1]]
    assert scores.per_class[1:].tolist() == [0.5, 1]
    assert scores.mean_class_accuracy == 0.75
    assert scores.macro_f1 == pytest.approx(2 / 3)
    assert plain.confusion.tolist() == [[0] * 3, [1, 1, 0], [0, 0, 1]]
    of_probabilities = ("top_5", "auroc", "calibration_error")
    assert all(getattr(scores, name) == getattr(plain, name) for name in of_probabilities)


@pytest.mark.parametrize(("target", "first", "top"), [(0, 1, 1), (1, 0, 1), (4, 0, 1), (5, 0, 0)])
def test_of_equally_probable_classes_the_first_count(target: int, first: int, top: int) -> None:
    scores = score_rows([[1 / 8] * 8], [target])
    assert (scores.accuracy, scores.top_5) == (first, top)


def test_the_five_most_probable_classes_count() -> None:
    row = [0.02, 0.3, 0.04, 0.2, 0.1, 0.06, 0.28]
    assert [score_rows([row], [c]).top_5 for c in range(7)] == [0, 1, 0, 1, 1, 1, 1]
    assert score_rows([row[:4]], [0]).top_5 == 1


def test_shares_and_areas_are_those_of_torchmetrics() -> None:
    scores, real = score(WHOLE), TARGETS >= 0
    given, targets = PROBABILITIES[real], TARGETS[real]
    assert scores.step_accuracy == pytest.approx(
        float(multiclass_accuracy(DECODED[real], targets, CLASSES, average="micro"))
    )
    assert scores.macro_f1 == pytest.approx(
        float(multiclass_f1_score(DECODED[real], targets, CLASSES, average="macro"))
    )
    assert scores.top_5 == pytest.approx(
        float(multiclass_accuracy(given, targets, CLASSES, average="micro", top_k=5))
    )
    assert 0 < scores.accuracy < scores.step_accuracy < scores.top_5 < 1
    assert scores.calibration_error == pytest.approx(
        float(multiclass_calibration_error(given, targets, CLASSES, n_bins=15)), abs=1e-6
    )


@pytest.mark.filterwarnings("ignore:No positive samples in targets")
def test_classes_that_do_not_occur_are_left_out_of_the_area() -> None:
    real = TARGETS >= 0
    areas = multiclass_auroc(PROBABILITIES[real], TARGETS[real], CLASSES, average=None)
    assert score(WHOLE).auroc == pytest.approx(float(areas[:-1].mean()))


def test_the_area_is_chance_where_there_is_nothing_to_tell_apart() -> None:
    assert score_rows([[0.9, 0.1], [0.3, 0.7]], [1, 1]).auroc == 0.5


def test_full_confidence_belongs_to_the_last_bin() -> None:
    # Two of three right at a mean confidence of 2.95 / 3: one bin, errors of both signs cancel.
    scores = score_rows([[1, 0], [1, 0], [0.95, 0.05]], [0, 1, 0])
    assert scores.calibration_error == pytest.approx(2.95 / 3 - 2 / 3)


def test_a_probability_that_rounding_lifted_above_one_is_one() -> None:
    rows = [[1 + 1e-6, 1e-9], [1 - 1e-6, 1e-8]]
    scores = score_rows(rows, [0, 1])
    assert scores.auroc == 1
    assert scores.calibration_error == pytest.approx(0.5, abs=1e-5)


def test_half_precision_is_scored() -> None:
    metric = ClassificationMetric(CLASSES)
    metric.update(torch.tensor(WHOLE), DECODED, PROBABILITIES.bfloat16(), TARGETS)
    half, whole = metric.compute(), score(WHOLE)
    assert half.step_accuracy == whole.step_accuracy
    assert half.auroc == pytest.approx(whole.auroc, abs=0.05)


def test_the_signature_tells_what_was_scored() -> None:
    expected = "classes:7|steps:1-3|predicted:decoded|top:ties=first|f1:macro|auroc:macro,one-vs-"
    assert score(WHOLE).signature.startswith(f"{expected}rest|ece:bins=15,")
    one = score_rows(certain([0, 1], 2), [0, 1]).signature
    assert one.startswith(
        "classes:2|steps:1|predicted:decoded|top:ties=first|f1:macro|auroc:second|"
    )
    assert "|version:" in one


@pytest.mark.parametrize("batch_size", [1, 4, 12])
def test_order_and_batches_change_nothing(batch_size: int) -> None:
    assert are_equal(score([3, 0, 11, 5, 4, 2, 1, 9, 10, 6, 8, 7], batch_size), score(WHOLE))


def test_padded_steps_change_nothing() -> None:
    metric = ClassificationMetric(CLASSES)
    add(metric, WHOLE[:4])
    for index in WHOLE[4:]:
        steps = int((TARGETS[index] >= 0).sum())
        row = slice(index, index + 1)
        given = (part[row, :steps] for part in (DECODED, PROBABILITIES, TARGETS))
        metric.update(torch.tensor([index]), *given)
    assert are_equal(metric.compute(), score(WHOLE))


def test_of_a_repeated_example_the_first_counts() -> None:
    metric = ClassificationMetric(CLASSES)
    add(metric, [*WHOLE, 2, 0, 7])
    metric.update(torch.tensor([5, 0]), DECODED[[2, 3]], PROBABILITIES[:2], TARGETS[[5, 0]])
    assert are_equal(metric.compute(), score(WHOLE))


def test_within_a_batch_too_the_first_counts() -> None:
    metric = ClassificationMetric(2)
    rows = torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]], [[0.3, 0.7]]])
    indices, targets = torch.tensor([5, 5, 3]), torch.tensor([[0], [0], [1]])
    metric.update(indices, rows.argmax(dim=2), rows, targets)
    scores = metric.compute()
    assert (scores.examples, scores.accuracy) == (2, 1)


def test_reset_forgets_the_examples() -> None:
    metric = ClassificationMetric(CLASSES)
    add(metric, [2, 4])
    metric.compute()
    metric.reset()
    add(metric, [0, 1, 3])
    assert are_equal(metric.compute(), score([0, 1, 3]))


def test_probabilities_are_no_part_of_a_checkpoint_but_of_a_copy() -> None:
    metric = ClassificationMetric(CLASSES)
    add(metric, WHOLE)
    assert metric.state_dict() == {}
    assert are_equal(copy.deepcopy(metric).compute(), score(WHOLE))


@pytest.mark.filterwarnings(UNUSED)
def test_an_empty_corpus_is_an_error_that_names_the_limits() -> None:
    metric = ClassificationMetric(CLASSES)
    with pytest.raises(DataError, match=r"no label to score.*--trainer\.limit_val_batches"):
        metric.compute()
    metric.update(torch.arange(0), DECODED[:0], PROBABILITIES[:0], TARGETS[:0])
    with pytest.raises(DataError, match=r"no label to score"):
        metric.compute()


def test_an_example_without_label_is_named() -> None:
    metric = ClassificationMetric(CLASSES)
    targets = torch.tensor([[1] * 3, [-1] * 3])
    with pytest.raises(DataError, match="Example 12 has no label"):
        metric.update(torch.tensor([4, 12]), DECODED[:2], PROBABILITIES[:2], targets)


def test_probabilities_of_a_diverged_model_are_an_error() -> None:
    with pytest.raises(DataError, match=r"of 1 of 2 labels are NaN.*diverged"):
        score_rows([[math.nan, 0.5], [0.5, 0.5]], [0, 1])


@pytest.mark.gpu
def test_a_gpu_scores_what_the_processor_does() -> None:
    metric = ClassificationMetric(CLASSES).cuda()
    parts = (torch.tensor(WHOLE), DECODED, PROBABILITIES, TARGETS)
    metric.update(*(part.cuda() for part in parts))
    assert metric.keys[0].is_cuda
    assert are_equal(metric.compute(), score(WHOLE))


# What each of two ranks has: repetitions of one another, then nothing on one or the other.
SHARES = [([0, 3, 2, 5, 11, 7, 9, 0], [4, 1, 0, 3, 6, 8, 10, 9]), ([], WHOLE), (WHOLE[::-1], [])]


def add_share(metric: ClassificationMetric, shares: tuple[list[int], list[int]], rank: int) -> None:
    add(metric, shares[rank])
    if rank == 1 and shares[0]:  # what a higher rank says of an example that a lower one has
        metric.update(torch.tensor([5]), DECODED[2:3], PROBABILITIES[:1], TARGETS[5:6])


@pytest.mark.filterwarnings(UNUSED)
@pytest.mark.parametrize("shares", SHARES)
def test_what_two_ranks_gather_is_scored_as_one(shares: tuple[list[int], list[int]]) -> None:
    sent: list[Tensor] = []

    def send(part: Tensor, group: object) -> list[Tensor]:
        del group
        sent.append(part)
        return [part]

    def gather(part: Tensor, group: object) -> list[Tensor]:
        del group
        other = sent.pop(0)
        assert (part.dtype, part.shape[1:]) == (other.dtype, other.shape[1:])
        return [part, other]

    higher = ClassificationMetric(CLASSES)
    add_share(higher, shares, 1)
    higher.sync(dist_sync_fn=send, distributed_available=lambda: True)
    lower = ClassificationMetric(
        CLASSES, dist_sync_fn=gather, distributed_available_fn=lambda: True
    )
    add_share(lower, shares, 0)
    assert are_equal(lower.compute(), score(WHOLE))


def score_shares(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    metric = ClassificationMetric(CLASSES)
    results = []
    for shares in SHARES:
        add_share(metric, shares, rank)
        results.append(tuple(metric.compute()))
        metric.reset()
    torch.save(results, folder / f"scores_{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_score_what_one_does(tmp_path: Path) -> None:
    spawn(score_shares, args=(tmp_path,), nprocs=2)  # type: ignore[no-untyped-call]
    expected = score(WHOLE)
    for rank in range(2):
        results = torch.load(tmp_path / f"scores_{rank}.pt")
        assert len(results) == len(SHARES)
        assert all(are_equal(ClassScores(*result), expected) for result in results)
