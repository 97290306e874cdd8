"""Classification: the shared decoder over a vocabulary of labels."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from seq2seq.batches import Batch, Memory, Prediction
from seq2seq.decoders.base import DecoderOutput
from seq2seq.decoders.recurrent import Feed, RecurrentDecoder
from seq2seq.errors import ConfigError
from seq2seq.losses import SequenceLoss
from seq2seq.metrics import ClassificationMetric
from seq2seq.nn.attention import AttentionKind
from seq2seq.nn.embedding import TokenEmbedding
from seq2seq.nn.label_output import LabelOutput
from seq2seq.nn.recurrent import Cell
from seq2seq.search import Hypothesis, SearchOptions
from seq2seq.sequences import shift_right
from seq2seq.tasks.base import SequenceTask
from seq2seq.tokenizers import FIRST_LABEL_ID, LabelVocabulary

ClassWeights = Literal["none", "balanced"]


class LabelTask(SequenceTask):
    """A task whose outputs are labels, one or a fixed number of them for each input.

    The label of a step is decoded with the labels of the steps before; with one step this is
    classification as usual.

    Args:
        num_classes: Number of labels.
        label_steps: Labels of each input.
        class_weights: Whether the classes weigh alike in the loss (``balanced``), or their examples
            (``none``).
        **options: Of ``SequenceTask``.
    """

    monitor: ClassVar[str] = "val/accuracy"

    _weights: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        label_steps: int,
        class_weights: ClassWeights,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.num_classes = num_classes
        self.label_steps = label_steps
        self.class_weights = class_weights
        self.metric = ClassificationMetric(num_classes)
        self.confusion: Tensor | None = None
        self.register_buffer("_weights", torch.ones(num_classes), persistent=False)

    def expected_vocab_sizes(self) -> dict[str, int]:
        """Return the size of the label vocabulary."""
        return {"target": FIRST_LABEL_ID + self.num_classes}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels, in the order of the classes."""
        vocabulary = self.tokenizers["target"]
        assert isinstance(vocabulary, LabelVocabulary)
        return vocabulary.names

    # Training.

    def on_fit_start(self) -> None:
        """Weigh the classes by how often they occur in training, where that is asked for."""
        if self.class_weights == "balanced":
            counts = self.trainer.datamodule.label_counts().to(self._weights)  # type: ignore[attr-defined]
            self._weights = counts.sum() / (len(counts) * counts.clamp(min=1))

    def score_target(self, target: Tensor, output: DecoderOutput) -> SequenceLoss:
        """Return the cross-entropy of labels, int64 ``(batch, label_steps)``."""
        layer = self.decoder.output_layer
        assert isinstance(layer, LabelOutput)
        scores = layer.score_labels(output.features).float().flatten(0, 1)
        classes = target.flatten() - FIRST_LABEL_ID
        weights = self._weights.to(scores)
        total = nn.functional.cross_entropy(
            scores, classes, weights, reduction="sum", label_smoothing=self.label_smoothing
        )
        with torch.no_grad():
            plain = nn.functional.cross_entropy(scores, classes, reduction="sum")
        return SequenceLoss(total, plain, torch.tensor(len(classes), device=scores.device))

    # Evaluation and prediction.

    def views(self, batch: Batch) -> list[Memory]:
        """Encode the inputs of a batch, once for each way in which they are seen."""
        return [self.encoder(batch.inputs)]

    def posterior(self, views: Sequence[Memory], labels: Tensor) -> Tensor:
        """Return the probabilities of the classes at each step, given the labels before it.

        Args:
            views: Memories of the same inputs; their probabilities are averaged.
            labels: Ids, int64 ``(batch, label_steps)``; the last step's do not matter.

        Returns:
            float ``(batch, label_steps, classes)``.
        """
        inputs = shift_right(labels)
        scores = (self.decoder.score(self.decoder(inputs, view).features) for view in views)
        probabilities = [each.float().softmax(dim=-1)[..., FIRST_LABEL_ID:] for each in scores]
        return torch.stack(probabilities).mean(dim=0)

    def _evaluate(self, batch: Batch, options: SearchOptions) -> list[Prediction]:
        assert batch.target is not None
        with torch.inference_mode():
            views = self.views(batch)
            classes = (batch.target - FIRST_LABEL_ID).unsqueeze(2)
            right = self.posterior(views, batch.target).gather(2, classes)
            # A probability of zero would make the whole mean infinite.
            loss = -right.clamp(min=1e-12).log().mean()
            self._evaluation_loss.update(loss, classes.numel(), batch.indices)
            predictions = [best for best, *_ in self._predict(views, batch, options)]
        self.update_metrics(batch, predictions)
        return predictions

    @torch.inference_mode()
    def predict_batch(self, batch: Batch, options: SearchOptions) -> list[list[Prediction]]:
        """Decode a batch into what the user reads; per row the best first.

        Raises:
            ConfigError: If the options leave a row no label.
        """
        return self._predict(self.views(batch), batch, options)

    def _predict(
        self, views: Sequence[Memory], batch: Batch, options: SearchOptions
    ) -> list[list[Prediction]]:
        options = replace(options, max_length=self.label_steps, min_length=self.label_steps)
        # A beam that is wider than there are outputs is filled up with impossible ones.
        found = [
            [each for each in hypotheses if self._is_possible(each)]
            for hypotheses in self.search_views(views, batch, options)
        ]
        if not all(found):
            raise ConfigError(
                f"The search may take no label at some of the {self.label_steps} steps. Let "
                "banned_tokens and no_repeat_ngram leave some."
            )
        labels = torch.tensor([best.tokens for best, *_ in found], device=self.device)
        posteriors = self.posterior(views, labels).cpu()
        return [
            [
                self.present(batch, row, hypothesis)._replace(
                    probabilities=posteriors[row], classes=self.class_names
                )
                for hypothesis in hypotheses
            ]
            for row, hypotheses in enumerate(found)
        ]

    def _is_possible(self, hypothesis: Hypothesis) -> bool:
        tokens = hypothesis.tokens
        return len(tokens) == self.label_steps and min(tokens) >= FIRST_LABEL_ID

    def present(self, batch: Batch, row: int, hypothesis: Hypothesis) -> Prediction:  # noqa: ARG002
        """Turn ids into labels."""
        return self.label(hypothesis)

    def label(self, hypothesis: Hypothesis) -> Prediction:
        """Turn ids into labels."""
        vocabulary = self.tokenizers["target"]
        return Prediction(
            vocabulary.decode(hypothesis.tokens),
            hypothesis.score,
            vocabulary.pieces(hypothesis.tokens),
            hypothesis.token_log_probs,
            hypothesis.attention,
        )

    def update_metrics(self, batch: Batch, predictions: list[Prediction]) -> None:
        """Add the labels that were decoded for a batch, and their probabilities, to the corpus."""
        assert batch.target is not None
        decoded = self.tokenizers["target"].encode_batch([each.text for each in predictions])
        classes = torch.tensor(decoded, device=self.device) - FIRST_LABEL_ID
        found = [each.probabilities for each in predictions if each.probabilities is not None]
        probabilities = torch.stack(found).to(self.device)
        self.metric.update(batch.indices, classes, probabilities, batch.target - FIRST_LABEL_ID)

    def compute_metrics(self) -> dict[str, float]:
        """Return accuracy, top-5, F1, AUROC, calibration error, and keep the confusion matrix."""
        scores = self.metric.compute()
        self.metric.reset()
        self.signatures = {"classes": scores.signature}
        self.confusion = scores.confusion
        kept = scores._asdict()
        for name in ("signature", "examples", "per_class", "confusion"):
            del kept[name]
        return kept


def build_label_decoder(
    num_classes: int,
    size: int,
    *,
    memory_size: int,
    num_layers: int,
    cell: Cell,
    attention: AttentionKind,
    feed: Feed,
    dropout: float,
) -> RecurrentDecoder:
    """Return a decoder over labels.

    Args:
        num_classes: Number of labels.
        size: Width of its state, of embedded labels and of what the output layer reads.
        memory_size: As the others, of ``RecurrentDecoder``.
        num_layers: Number of recurrent layers.
        cell: Kind of recurrent cell.
        attention: Kind of attention.
        feed: How the context enters.
        dropout: Dropout on inputs, between layers and on features.
    """
    return RecurrentDecoder(
        TokenEmbedding(FIRST_LABEL_ID + num_classes, size),
        LabelOutput(size, num_classes, FIRST_LABEL_ID),
        input_size=size,
        feature_size=size,
        memory_size=memory_size,
        hidden_size=size,
        num_layers=num_layers,
        cell=cell,
        attention=attention,
        feed=feed,
        dropout=dropout,
    )


def label_problems(num_classes: int, label_steps: int, class_weights: str) -> list[str]:
    """Return what is wrong with the options of a ``LabelTask``, one sentence each."""
    problems = []
    if num_classes < 2:
        problems.append(f"--data.num_classes={num_classes} must be at least 2.")
    if label_steps < 1:
        problems.append(f"--data.label_steps={label_steps} must be at least 1.")
    if class_weights not in get_args(ClassWeights):
        choices = ", ".join(get_args(ClassWeights))
        problems.append(f"--model.class_weights is {class_weights!r}; choose one of {choices}.")
    return problems
