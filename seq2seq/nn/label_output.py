"""The output layer of a decoder whose tokens are labels."""

from torch import Tensor, nn

# Far below any score, and not infinite: zero times it, in a gradient, is still zero.
_NEVER = -1e4


class LabelOutput(nn.Linear):
    """Scores labels; the special ids before them are as good as impossible.

    Args:
        feature_size: Width of what it reads.
        num_classes: Number of labels.
        first_label: Id of the first one.
    """

    def __init__(self, feature_size: int, num_classes: int, first_label: int) -> None:
        super().__init__(feature_size, num_classes)
        self.first_label = first_label

    def forward(self, features: Tensor) -> Tensor:
        """Return scores ``(..., first_label + num_classes)`` of ``(..., feature_size)``."""
        scores: Tensor = nn.functional.pad(
            self.score_labels(features), (self.first_label, 0), value=_NEVER
        )
        return scores

    def score_labels(self, features: Tensor) -> Tensor:
        """Return the scores of the labels alone, ``(..., num_classes)``."""
        return super().forward(features)
