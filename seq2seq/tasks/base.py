"""What every task over tokens shares: learning along a target, decoding and its metrics."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Protocol, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from seq2seq.batches import NOTHING, Batch, Memory, Prediction
from seq2seq.decoders.base import DecoderOutput, DecodingState, ViewStates, average_scores
from seq2seq.decoders.forcing import decode_target
from seq2seq.decoders.recurrent import RecurrentDecoder
from seq2seq.figures import attention_figure
from seq2seq.losses import SequenceLoss, sequence_cross_entropy
from seq2seq.metrics import CorpusLoss
from seq2seq.search import Hypothesis, SearchOptions, StepResult, search
from seq2seq.tasks.learning import LearningTask
from seq2seq.tasks.options import Optimization, TeacherForcing

ItemKind = Literal["line", "picture", "video"]
"""What a raw input is: a line of text, or the path of a picture or a video."""

NOT_SAVED = (
    "label_smoothing",
    "optimization",
    "teacher_forcing",
    "decoding",
    "validation_beam_size",
    "init_from",
)
"""Arguments kept out of a checkpoint: Lightning lets a checkpoint's hyperparameters override the
command line, and these are the user's to choose anew in every run."""


class CorpusMetric(Protocol):
    """Collects what is decoded of a corpus, in any way."""

    def reset(self) -> None:
        """Forget all of it."""


class SequenceTask(LearningTask):
    """An encoder, a decoder, and how they learn and are used.

    A subclass builds ``encoder`` and ``decoder`` from flat hyperparameters, so that a checkpoint
    rebuilds it without the YAML file, and says how raw inputs become a batch and hypotheses a
    prediction. What it evaluates it collects in ``metric``, a ``CorpusMetric``.

    Args:
        label_smoothing: Share of the target probability spread over the whole vocabulary.
        optimization: Optimiser, learning rate and its schedule.
        teacher_forcing: How often the decoder reads the target while it learns.
        decoding: Search in testing and prediction.
        validation_beam_size: Beam size in validation; 1 is greedy search.
        init_from: Checkpoint whose weights a new training starts from; None to start from scratch.
    """

    item_kind: ClassVar[ItemKind] = "line"
    """What the raw inputs of prediction are."""

    encoder: nn.Module
    decoder: RecurrentDecoder

    def __init__(
        self,
        *,
        label_smoothing: float,
        optimization: Optimization,
        teacher_forcing: TeacherForcing,
        decoding: SearchOptions,
        validation_beam_size: int,
        init_from: str | None = None,
    ) -> None:
        super().__init__(
            optimization=optimization, teacher_forcing=teacher_forcing, init_from=init_from
        )
        self.label_smoothing = label_smoothing
        self.decoding = decoding
        self.validation_decoding = replace(
            decoding, method="beam", beam_size=validation_beam_size, n_best=1
        )
        # Not Lightning's own mean: that counts twice what two ranks have seen.
        self._evaluation_loss = CorpusLoss()

    # What a subclass says.

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> Batch:
        """Turn what ``load_item`` gave into a batch without targets."""

    @abstractmethod
    def present(self, batch: Batch, row: int, hypothesis: Hypothesis) -> Prediction:
        """Turn a hypothesis for one row of a batch into what the user reads."""

    @abstractmethod
    def update_metrics(self, batch: Batch, predictions: list[Prediction]) -> None:
        """Add the decoded batch to the metrics of the running validation or test."""

    @abstractmethod
    def compute_metrics(self) -> dict[str, float]:
        """Return the metrics of all that was added, forget it, and set ``signatures``."""

    def reset_metrics(self) -> None:
        """Forget all that was added to the metrics, and the loss."""
        self._evaluation_loss.reset()
        # Declared here, `metric` would have this type in subclasses, too, which need their own.
        cast(CorpusMetric, self.metric).reset()

    def max_lengths(self, batch: Batch) -> Tensor | None:  # noqa: ARG002  # for subclasses
        """Return how long each output may get, int64 ``(batch,)``; None without a limit."""
        return None

    def load_item(self, item: str) -> Any:
        """Return what ``collate`` takes for a raw input: here the text itself.

        Raises:
            DataError: If the input cannot be used, such as a picture that is damaged.
        """
        return item

    def item_length(self, item: str) -> int:
        """Return by what to sort raw inputs, so that those of like length share a batch."""
        return len(item)

    def figure(self, batch: Batch, prediction: Prediction) -> Figure | None:  # noqa: ARG002
        """Draw where a prediction attended to; None where it kept no attention.

        Args:
            batch: The input alone.
            prediction: What was decoded from it.
        """
        return None if prediction.attention is None else attention_figure(prediction)

    # Training.

    def compute_loss(
        self, batch: Batch, forcing_ratio: float = 1.0, batch_number: int = 0
    ) -> SequenceLoss:
        """Run the decoder along the targets of a batch and score them.

        Args:
            batch: Inputs and targets.
            forcing_ratio: Share of decoder inputs that come from the target.
            batch_number: What tells the random choices of batches of one optimiser step apart.
        """
        assert batch.target is not None
        output = self.follow_target(batch, forcing_ratio, batch_number)
        return self.score_target(batch.target, output)

    def follow_target(
        self, batch: Batch, forcing_ratio: float = 1.0, batch_number: int = 0
    ) -> DecoderOutput:
        """Run the decoder along the targets of a batch; the arguments are ``compute_loss``'s."""
        assert batch.target is not None
        memory: Memory = self.encoder(batch.inputs)
        if batch.rows is not None:
            memory = memory.select(batch.rows)
        return self.follow_memory(batch.target, memory, forcing_ratio, batch_number)

    def follow_memory(
        self, target: Tensor, memory: Memory, forcing_ratio: float, batch_number: int
    ) -> DecoderOutput:
        """Run the decoder along targets, each with a row of the memory of its own."""
        generator = None
        if forcing_ratio < 1:
            generator = torch.Generator(self.device).manual_seed(self.choice_seed(batch_number))
        return decode_target(
            self.decoder,
            target,
            memory,
            ratio=forcing_ratio,
            method=self.teacher_forcing.method,
            generator=generator,
        )

    def score_target(self, target: Tensor, output: DecoderOutput) -> SequenceLoss:
        """Return the loss of what ``follow_target`` gave along a target."""
        layer = self.decoder.output_layer
        assert isinstance(layer, nn.Linear)
        return sequence_cross_entropy(layer, output.features, target, self.label_smoothing)

    def training_step(self, batch: Batch, batch_number: int) -> Tensor:
        """Return the batch's mean loss per real target token, over all ranks.

        With ``accumulate_grad_batches`` Lightning averages these means: a token then weighs less
        in a batch that has more of them.
        """
        loss = self.compute_loss(batch, self.forcing_ratio(), batch_number)
        tokens = loss.tokens.to(loss.total.dtype)
        summed, count = self.mean_over_ranks(loss.negative_log_likelihood, tokens)
        self.log("train/loss", summed / count, prog_bar=True)
        return loss.total / count

    # Evaluation: always by decoding.

    # Lightning hands on to callbacks whatever these return; its types know tensors only.

    def validation_step(self, batch: Batch, *_: int) -> list[Prediction]:  # type: ignore[override]
        """Decode a batch, add it to the metrics and return it for whoever shows samples."""
        return self._evaluate(batch, self.validation_decoding)

    def test_step(self, batch: Batch, *_: int) -> list[Prediction]:  # type: ignore[override]
        """Decode a batch with the options of testing and add it to the metrics."""
        return self._evaluate(batch, self.decoding)

    def predict_step(self, batch: Batch, _batch_number: int) -> list[list[Prediction]]:
        """Decode a batch; the best ``n_best`` predictions per row.

        An input that could not be used has one prediction, which says why as its ``error``.
        """
        predictions = self.predict_batch(batch, self.decoding)
        for row, problem in enumerate(batch.problems):
            if problem is not None:
                predictions[row] = [NOTHING._replace(error=problem)]
        return predictions

    def _evaluate(self, batch: Batch, options: SearchOptions) -> list[Prediction]:
        loss = self.compute_loss(batch)
        mean = loss.negative_log_likelihood / loss.tokens
        self._evaluation_loss.update(mean, loss.tokens, batch.indices)
        predictions = [best for best, *_ in self.predict_batch(batch, options)]
        self.update_metrics(batch, predictions)
        return predictions

    def _log_metrics(self, stage: str) -> None:
        self.log(f"{stage}/loss", self._evaluation_loss.compute())
        self._evaluation_loss.reset()
        super()._log_metrics(stage)

    # Decoding.

    @torch.inference_mode()
    def decode(self, batch: Batch, options: SearchOptions) -> list[list[Hypothesis]]:
        """Search for the outputs of a batch.

        Returns:
            For each row its hypotheses, best first, at least one and at most ``n_best``.
        """
        return self.search_views([self.encoder(batch.inputs)], batch, options)

    @torch.inference_mode()
    def search_views(
        self, views: Sequence[Memory], batch: Batch, options: SearchOptions
    ) -> list[list[Hypothesis]]:
        """Search for the outputs of inputs that were encoded.

        Args:
            views: One memory, or several of the same inputs, such as those of the clips of a video:
                their probabilities are averaged at every step. Attention is that of the first.
            batch: What they were made of.
            options: How to search.

        Returns:
            As ``decode``.
        """
        prepared = [self.decoder.prepare(memory) for memory in views]
        target = self.tokenizers.get("target")
        if target is not None and target.unused_ids:
            banned = [*options.banned_tokens, *target.unused_ids]
            options = replace(options, banned_tokens=banned)

        def step(tokens: Tensor, state: ViewStates) -> StepResult[ViewStates]:
            outputs = [self.decoder.step(tokens, view.decoder, view.memory) for view in state.views]
            scores = outputs[0].scores
            if len(outputs) > 1:
                scores = average_scores([output.scores for output in outputs])
            following = ViewStates(
                tuple(
                    view._replace(decoder=output.state)
                    for view, output in zip(state.views, outputs, strict=True)
                )
            )
            return StepResult(scores, outputs[0].attention, following)

        initial = (DecodingState(self.decoder.init_state(memory), memory) for memory in prepared)
        return search(
            step,
            ViewStates(tuple(initial)),
            len(prepared[0].mask),
            options,
            max_lengths=self.max_lengths(batch),
            indices=batch.indices,
            device=self.device,
        )

    def predict_batch(self, batch: Batch, options: SearchOptions) -> list[list[Prediction]]:
        """Decode a batch into what the user reads; per row the best first."""
        return [
            [self.present(batch, row, hypothesis) for hypothesis in hypotheses]
            for row, hypotheses in enumerate(self.decode(batch, options))
        ]
