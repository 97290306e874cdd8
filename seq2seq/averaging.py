"""Weights averaged over the last steps of training."""

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class WarmWeightAveraging(WeightAveraging):
    """Validates, and keeps as the model, an exponential moving average of the weights.

    As Lightning's ``EMAWeightAveraging``, but for two things. The average begins short, so that it
    does not lag far behind in the first steps; and a weight that never moves, such as those of a
    frozen network, stays what it is to the last bit, so that cached features are still its own.

    Args:
        decay: Share of the average that a step leaves, once it is warm: that of step ``n`` is
            ``(1 + n) / (10 + n)`` where this is less.

    Source: the warm-up is that of TensorFlow's ``ExponentialMovingAverage``.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = decay
        super().__init__(avg_fn=self._average)

    def _average(self, average: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
        if not average.is_floating_point():  # a counter
            return current
        count = int(steps)
        decay = min(self.decay, (1 + count) / (10 + count))
        # Of two equal numbers this is that number; of `decay * a + (1 - decay) * b` it is not.
        return average + (1 - decay) * (current - average)
