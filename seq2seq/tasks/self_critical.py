"""Self-critical sequence training: outputs are sampled, and the better ones made likelier."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seq2seq.batches import Batch
from seq2seq.errors import ConfigError, raise_together
from seq2seq.losses import sequence_log_likelihood
from seq2seq.metrics import CiderD
from seq2seq.metrics.cider import END_MARK
from seq2seq.search import SearchOptions
from seq2seq.sequences import EOS_ID, PAD_ID, pad_sequences
from seq2seq.tasks.base import SequenceTask
from seq2seq.words import caption_words

Reward = Callable[[Sequence[int], Sequence[tuple[str, bool]]], list[float]]
"""Gives the reward of outputs: of each the index of its input, its text, and whether it ended."""


@dataclass(frozen=True)
class SelfCritical:
    """Training on the reward of sampled outputs, as a second stage after cross-entropy.

    Only what is sampled counts: label smoothing and scheduled sampling have no part in it.

    Args:
        samples: Outputs to sample per input; 0 trains on cross-entropy.
        temperature: Divides the scores that are sampled from. After training with label smoothing
            choose less than 1: else there is an unlikely word in almost every sample, and what is
            learned first is to avoid those.
        seed: Seed of the samples, which also depend on the step and the input.

    Raises:
        ConfigError: If a number is out of range; all problems together.
    """

    samples: int = 0
    temperature: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        problems = []
        if self.samples < 0 or self.samples == 1:
            problems.append(
                f"self_critical.samples={self.samples} must be 0 for none, or at least 2: each "
                "output is compared with the others of its input."
            )
        if not self.temperature > 0:
            problems.append(f"self_critical.temperature={self.temperature} must be positive.")
        if self.seed < 0:
            problems.append(f"self_critical.seed={self.seed} must not be negative.")
        raise_together(problems, ConfigError, "Self-critical training cannot be set up:")


class SelfCriticalTask(SequenceTask):
    """A task that can also learn from the reward of what it samples.

    A subclass says what the reward is, and passes the other arguments on.

    Args:
        self_critical: How to sample.
        **options: Of ``SequenceTask``.

    Source: Rennie et al. 2017, arXiv:1612.00563, section 3; the baseline is that of Luo 2020,
    arXiv:2003.09971.
    """

    def __init__(self, *, self_critical: SelfCritical, **options: Any) -> None:
        super().__init__(**options)
        self.self_critical = self_critical
        self._reward: Reward | None = None

    @abstractmethod
    def build_reward(self) -> Reward:
        """Return the reward of training; the data module is there by now."""

    def on_fit_start(self) -> None:
        """Build the reward, where it is what is trained on."""
        if self.self_critical.samples:
            self._reward = self.build_reward()

    def training_step(self, batch: Batch, batch_number: int) -> Tensor:
        """Return the mean loss per token: cross-entropy, or that of self-critical training."""
        if not self.self_critical.samples:
            return super().training_step(batch, batch_number)
        sampled, advantages = self._sample(batch)
        assert sampled.target is not None
        layer = self.decoder.output_layer
        assert isinstance(layer, nn.Linear)
        features = self.follow_target(sampled).features
        # Of what was sampled from, so that the gradient is that of its expected reward.
        temperature = self.self_critical.temperature
        likelihood = sequence_log_likelihood(layer, features, sampled.target, temperature)
        tokens = (sampled.target != PAD_ID).sum().to(likelihood.dtype)
        (count,) = self.mean_over_ranks(tokens)
        return -(advantages * likelihood).sum() / count

    def _sample(self, batch: Batch) -> tuple[Batch, Tensor]:
        """Sample outputs of each input.

        Returns:
            The batch with the samples as targets, and how much better each is than the others of
            its input, ``(targets,)``.
        """
        assert self._reward is not None
        samples = self.self_critical.samples
        decoding = SearchOptions(
            method="sample",
            n_best=samples,
            temperature=self.self_critical.temperature,
            seed=self.self_critical.seed * 1_000_003 + self.global_step,
        )
        self.eval()  # what is sampled must not depend on dropout
        found = [best for sampled in self.decode(batch, decoding) for best in sampled]
        self.train()
        tokenizer = self.tokenizers["target"]
        rewards = self._reward(
            batch.indices.repeat_interleave(samples).tolist(),
            [(tokenizer.decode(best.tokens), best.is_finished) for best in found],
        )
        by_input = torch.tensor(rewards, device=self.device).view(-1, samples)
        summed, count = self.mean_over_ranks(by_input.sum(), by_input.new_tensor(by_input.numel()))
        self.log("train/reward", summed / count, prog_bar=True)
        target = pad_sequences([best.tokens + [EOS_ID] * best.is_finished for best in found])
        rows = torch.arange(len(by_input), device=self.device).repeat_interleave(samples)
        sampled = batch._replace(target=target.to(self.device), rows=rows)
        return sampled, leave_one_out(by_input).flatten()


class CaptionReward:
    """CIDEr-D of captions, with the end of a caption counted as a word.

    Without the end, a caption that breaks off after "with a" scores as well as a whole one.

    Args:
        corpus: Reference captions of each training picture.
    """

    def __init__(self, corpus: Sequence[Sequence[str]]) -> None:
        self._scorer = CiderD(
            [[[*caption_words(text), END_MARK] for text in references] for references in corpus]
        )

    def __call__(
        self, pictures: Sequence[int], captions: Sequence[tuple[str, bool]]
    ) -> list[float]:
        """Return the score of each caption; see ``Reward``."""
        return self._scorer.score(
            pictures,
            [[*caption_words(text), *[END_MARK] * is_finished] for text, is_finished in captions],
        )


def leave_one_out(rewards: Tensor) -> Tensor:
    """Return by how much each reward exceeds the mean of the others, ``(inputs, samples)``.

    Args:
        rewards: Rewards of the samples of each input, at least two, ``(inputs, samples)``.
    """
    samples = rewards.shape[1]
    others = (rewards.sum(dim=1, keepdim=True) - rewards) / (samples - 1)
    return rewards - others
