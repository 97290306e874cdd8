"""Metrics of a classifier over a whole corpus, as one torchmetrics metric."""

from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_confusion_matrix,
    multiclass_f1_score,
)
from torchmetrics.utilities import dim_zero_cat

from seq2seq.errors import DataError

CALIBRATION_BINS = 15
"""As many as Guo et al. have."""

_TOP = 5


class ClassScores(NamedTuple):
    """Scores of a classifier on a corpus. An example has one step or several, each with a class.

    The predicted class is the one that was decoded. The search may choose another than the most
    probable one of a step: a beam, for the steps after it; constraints, where they forbid that one.
    What is ranked or calibrated is probabilities; of equally probable classes, the first comes
    first.

    Attributes:
        accuracy: Share of examples with all steps right; with one step, the usual top-1.
        step_accuracy: Share of steps that are right.
        top_5: Share of steps whose class is among the five most probable.
        macro_f1: Mean F1 of the classes that occur in truth or prediction.
        mean_class_accuracy: Mean of ``per_class`` over the classes that occur, also known as
            balanced accuracy.
        auroc: Area under the ROC curve over steps. With two classes that of the second; with more,
            the mean over the classes that occur, each against the rest. Chance, 0.5, where all
            steps have the same class.
        calibration_error: Expected calibration error of the probability of the most probable
            class, 0 to 1, over steps.
        examples: Number of examples scored.
        per_class: Share of the steps of each class that are right, float64 ``(classes,)``; NaN for
            a class that does not occur.
        confusion: Number of steps by true (row) and predicted class, int64 ``(classes, classes)``.
        signature: How the scores were computed; belongs beside every figure.
    """

    accuracy: float
    step_accuracy: float
    top_5: float
    macro_f1: float
    mean_class_accuracy: float
    auroc: float
    calibration_error: float
    examples: int
    per_class: Tensor
    confusion: Tensor
    signature: str


class ClassificationMetric(Metric):
    """Collects decoded classes and probabilities, and scores the corpus as one.

    Neither an area under a curve nor a calibration error is a mean over batches, and a distributed
    sampler repeats examples to even out its ranks. So every rank keeps what it has of each step
    with the position of its example in the corpus; ``compute`` gathers it, drops repetitions and
    scores what a single process would have scored.

    Args:
        classes: Number of classes, two or more.
        **options: What torchmetrics offers every metric.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    # Of each step: the position of its example, its number, its class and the decoded one, int64
    # (steps, 4).
    keys: list[Tensor]
    # Of the same steps, (steps, classes).
    probabilities: list[Tensor]

    def __init__(self, classes: int, **options: Any) -> None:  # Any: torchmetrics' own options
        super().__init__(**options)
        assert classes >= 2, classes
        self.classes = classes
        self.add_state("keys", default=[], dist_reduce_fx="cat", persistent=False)
        self.add_state("probabilities", default=[], dist_reduce_fx="cat", persistent=False)

    def update(
        self, indices: Tensor, decoded: Tensor, probabilities: Tensor, targets: Tensor
    ) -> None:
        """Add a batch; of an example that comes again, what came first counts.

        Args:
            indices: Position of each example in its corpus, int64 ``(batch,)``.
            decoded: Class that was decoded at each step, from 0, int64 ``(batch, steps)``.
            probabilities: Of every class at each step, given the classes decoded before,
                ``(batch, steps, classes)``.
            targets: Class of each step, from 0, int64 ``(batch, steps)``; negative where an example
                has fewer steps.

        Raises:
            DataError: If an example has no step.
        """
        assert decoded.shape == targets.shape, decoded.shape
        assert probabilities.shape == (*targets.shape, self.classes), probabilities.shape
        is_real = targets >= 0
        if not is_real.any(dim=1).all():
            bare = indices[~is_real.any(dim=1)].tolist()
            raise DataError(
                f"Example {bare[0]} has no label to score its probabilities against. "
                "Give every example of the split a label, or use predict."
            )
        rows, steps = is_real.nonzero(as_tuple=True)
        parts = [indices[rows], steps, targets[is_real], decoded[is_real]]
        self.keys.append(torch.stack(parts, dim=1))
        # Rounding can lift a mean of clips above 1, and what torchmetrics finds above 1 it takes
        # for logits.
        self.probabilities.append(probabilities[is_real].float().clamp(0, 1))

    def sync(self, *arguments: Any, **options: Any) -> None:
        """Gather the steps of all ranks, as torchmetrics does."""
        if len(self.keys) == 0:
            # torchmetrics would send a flat float tensor in place of no steps, which the other
            # ranks would wait for in vain.
            self.keys.append(torch.empty(0, 4, dtype=torch.int64, device=self.device))
            self.probabilities.append(torch.empty(0, self.classes, device=self.device))
        super().sync(*arguments, **options)

    def compute(self) -> ClassScores:
        """Score the steps of all ranks; every rank gets the same result.

        With several processes this is a collective call: each rank has to make it, also one that
        had no example.

        Raises:
            DataError: If no rank has an example, or a probability is NaN.
        """
        steps = self._steps()
        is_right = steps.decoded == steps.targets
        confusion = multiclass_confusion_matrix(steps.decoded, steps.targets, self.classes)
        per_class = confusion.diag().double() / confusion.sum(dim=1)
        macro_f1 = multiclass_f1_score(steps.decoded, steps.targets, self.classes, average="macro")
        ranks = _ranks(steps)
        step_counts = steps.examples.bincount()
        wrong_counts = steps.examples.bincount(weights=(~is_right).double())
        return ClassScores(
            accuracy=_mean(wrong_counts == 0),
            step_accuracy=_mean(is_right),
            top_5=_mean(ranks < _TOP),
            macro_f1=float(macro_f1),
            mean_class_accuracy=float(per_class.nanmean()),
            auroc=_auroc(steps),
            calibration_error=_calibration_error(steps.probabilities.amax(dim=1), ranks == 0),
            examples=len(step_counts),
            per_class=per_class,
            confusion=confusion,
            signature=_signature(self.classes, step_counts),
        )

    def _steps(self) -> "_Steps":
        """Return every step once, by example and number."""
        if len(self.keys) == 0 or len(keys := dim_zero_cat(self.keys)) == 0:
            raise DataError(
                "There is no label to score: the split is empty, or its limit "
                "(--trainer.limit_val_batches, --trainer.limit_test_batches) left nothing of it."
            )
        indices, numbers, targets, decoded = keys.cpu().unbind(dim=1)
        probabilities = dim_zero_cat(self.probabilities).cpu()
        place = indices * (numbers.max() + 1) + numbers
        # Ranks are gathered in their order and the sort is stable: so the lowest one wins, on
        # every rank alike.
        place, order = place.sort(stable=True)
        chosen = order[place.diff(prepend=place[:1] - 1) > 0]
        chosen_indices = indices[chosen]
        examples = chosen_indices.diff(prepend=chosen_indices[:1]).sign().cumsum(dim=0)
        steps = _Steps(examples, targets[chosen], decoded[chosen], probabilities[chosen])
        is_bad = steps.probabilities.isnan().any(dim=1)
        if is_bad.any():
            raise DataError(
                f"The probabilities of {int(is_bad.sum())} of {len(is_bad)} labels are NaN. The "
                "model has most likely diverged in training: use an earlier checkpoint."
            )
        return steps


class _Steps(NamedTuple):
    """All steps of a corpus.

    Attributes:
        examples: Which example each belongs to, from 0 without gaps, int64 ``(steps,)``.
        targets: Class of each, int64 ``(steps,)``.
        decoded: Class that was decoded at each, int64 ``(steps,)``.
        probabilities: Of every class at each, ``(steps, classes)``.
    """

    examples: Tensor
    targets: Tensor
    decoded: Tensor
    probabilities: Tensor


def _mean(claims: Tensor) -> float:
    return int(claims.sum()) / len(claims)


def _ranks(steps: _Steps) -> Tensor:
    """Return how many classes come before the true one, of equally probable ones the first."""
    truth = steps.targets.unsqueeze(1)
    own = steps.probabilities.gather(1, truth)
    is_earlier = torch.arange(steps.probabilities.shape[1]) < truth
    is_before = (steps.probabilities > own) | ((steps.probabilities == own) & is_earlier)
    return is_before.sum(dim=1)


def _auroc(steps: _Steps) -> float:
    present = sorted(set(steps.targets.tolist()))
    if len(present) < 2:
        return 0.5
    judged = [1] if steps.probabilities.shape[1] == 2 else present
    areas = [binary_auroc(steps.probabilities[:, c], (steps.targets == c).int()) for c in judged]
    return float(torch.stack(areas).mean())


def _calibration_error(confidences: Tensor, is_right: Tensor) -> float:
    """Return the mean distance of accuracy and confidence, over bins of confidence.

    Unlike in torchmetrics, a confidence of 1 belongs to the last bin and has none of its own.

    Source: Guo et al. 2017, arXiv:1706.04599, equation 3.
    """
    confidences = confidences.double()
    bins = (confidences * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    surplus = bins.bincount(weights=confidences - is_right.double())
    return float(surplus.abs().sum()) / len(bins)


def _signature(classes: int, step_counts: Tensor) -> str:
    fewest, most = int(step_counts.min()), int(step_counts.max())
    return "|".join(
        [
            f"classes:{classes}",
            f"steps:{fewest}" if fewest == most else f"steps:{fewest}-{most}",
            "predicted:decoded",
            "top:ties=first",
            "f1:macro",
            "auroc:second" if classes == 2 else "auroc:macro,one-vs-rest",
            f"ece:bins={CALIBRATION_BINS},equal-width,top-label",
            f"version:{version('seq2seq-lightning')}",
        ]
    )
