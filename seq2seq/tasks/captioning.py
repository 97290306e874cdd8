"""Captioning: an image encoder in front of the shared decoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from seq2seq.batches import Batch, Prediction
from seq2seq.decoders.base import DecoderOutput
from seq2seq.decoders.recurrent import Feed, RecurrentDecoder, option_problems
from seq2seq.encoders.backbones import normalisation
from seq2seq.encoders.image import ImageEncoder
from seq2seq.errors import ConfigError, raise_together
from seq2seq.figures import overlay_figure
from seq2seq.losses import SequenceLoss, attention_penalty
from seq2seq.metrics import CaptionMetric
from seq2seq.nn.attention import AttentionKind
from seq2seq.nn.embedding import TokenEmbedding
from seq2seq.nn.recurrent import Cell
from seq2seq.pictures import PictureGeometry, Resize, open_picture
from seq2seq.search import Hypothesis, SearchOptions
from seq2seq.sequences import EOS_ID
from seq2seq.tasks.base import NOT_SAVED, ItemKind
from seq2seq.tasks.grid_network import (
    NETWORK_NOT_SAVED,
    GridNetworkTask,
    fine_tuning_problems,
)
from seq2seq.tasks.options import (
    Optimization,
    TeacherForcing,
    range_problems,
    statistics_problems,
)
from seq2seq.tasks.self_critical import CaptionReward, SelfCritical, SelfCriticalTask


class Captioner(GridNetworkTask, SelfCriticalTask):
    """Convolutional encoder and recurrent decoder, from a picture to a caption.

    Args:
        vocab_size: Size of the vocabulary; taken from the data module.
        backbone: torchvision's name of a classification network, such as ``resnet50``.
        backbone_layer: Layer of it that gives the grid of features; null for its last grid. An
            earlier one has a finer grid.
        backbone_weights: torchvision's name of weights (``DEFAULT``), or the path of a file with a
            state dictionary of the whole network; null for none, where ``init_from`` brings them
            or, with ``fine_tune_from: all``, it is trained from scratch. Needed for training only:
            a checkpoint has its own.
        image_size: Side of the pictures that the network sees, in pixels.
        image_resize: ``crop`` the middle of a picture, ``squash`` it to a square, ``pad`` it, or
            cut out the ``foreground``, where all else is black.
        image_crop_share: Share of a picture's shorter side that ``crop`` keeps; of the square's
            height that ``foreground`` fills.
        image_mean: Mean of the pictures that the weights were trained on, for each of the three
            channels, from 0 to 1; null for what torchvision says of the weights.
        image_std: Their standard deviation; null likewise.
        memory_size: Width that the features are projected to.
        learned_positions: Add a learned vector to each cell of the grid, by which the decoder can
            tell left from right.
        embedding_size: Width of token embeddings.
        hidden_size: Width of the recurrent state.
        decoder_layers: Recurrent layers of the decoder.
        cell: ``rnn`` (tanh), ``gru`` or ``lstm``.
        attention: ``none`` (the mean of the grid is all the decoder gets), ``dot``, ``bilinear`` or
            ``additive``.
        feed: How the context enters the decoder: ``output``, ``layer`` or ``input``.
        tied_weights: Let the output layer be the embedding.
        dropout: Dropout on the memory, on embeddings, between layers and before the output layer.
        variational_dropout: Use the same dropout mask at every time step and in every cell.
        word_dropout: Probability of reading a token as unknown, in training.
        layer_norm: Normalise the output of every recurrent layer.
        max_caption_length: Longest output in tokens.
        fine_tune_from: First layer of the backbone that learns, such as ``layer4``; ``all`` for all
            of it, null for none.
        fine_tune_start: Optimiser steps before it begins to.
        fine_tune_learning_rate: Its learning rate after the warm-up; null for the decoder's.
        fine_tune_statistics: Let the statistics of its batch norms follow the batches. Needed where
            it is trained from scratch; for trained weights, only with large batches. Of several
            processes each has its own, and the first one's are kept; on GPUs,
            ``--trainer.sync_batchnorm true`` takes those of all together.
        label_smoothing: Share of the target probability spread over the whole vocabulary.
        attention_penalty: Weight of the term that lets all cells get a like share of attention
            (arXiv:1502.03044, section 4.2.1); 0 for none.
        optimization: Optimiser, learning rate and its schedule.
        teacher_forcing: How often the decoder reads the target while it learns.
        self_critical: Training on the CIDEr-D of sampled captions, as a second stage; without
            ``label_smoothing`` and ``attention_penalty``.
        decoding: Search in testing and prediction.
        validation_beam_size: Beam size in validation; 1 is greedy search.
        init_from: Checkpoint whose weights a new training starts from.

    Raises:
        ConfigError: If options do not fit together; all problems at once.
    """

    monitor: ClassVar[str] = "val/cider_d"
    item_kind: ClassVar[ItemKind] = "picture"

    encoder: ImageEncoder

    def __init__(
        self,
        vocab_size: int,
        backbone: str = "resnet50",
        backbone_layer: str | None = None,
        backbone_weights: str | None = "DEFAULT",
        image_size: int = 224,
        image_resize: str = "crop",
        image_crop_share: float = 0.875,
        image_mean: list[float] | None = None,
        image_std: list[float] | None = None,
        memory_size: int = 512,
        learned_positions: bool = False,
        embedding_size: int = 256,
        hidden_size: int = 512,
        decoder_layers: int = 2,
        cell: str = "lstm",
        attention: str = "bilinear",
        feed: str = "layer",
        tied_weights: bool = True,
        dropout: float = 0.4,
        variational_dropout: bool = False,
        word_dropout: float = 0.0,
        layer_norm: bool = False,
        max_caption_length: int = 40,
        fine_tune_from: str | None = None,
        fine_tune_start: int = 0,
        fine_tune_learning_rate: float | None = None,
        fine_tune_statistics: bool = False,
        label_smoothing: float = 0.1,
        attention_penalty: float = 0.0,
        optimization: Optimization = Optimization(),  # noqa: B008  # frozen
        teacher_forcing: TeacherForcing = TeacherForcing(),  # noqa: B008
        self_critical: SelfCritical = SelfCritical(),  # noqa: B008
        decoding: SearchOptions = SearchOptions(),  # noqa: B008
        validation_beam_size: int = 1,
        init_from: str | None = None,
    ) -> None:
        problems = option_problems(
            cell,
            attention,
            feed,
            decoder_layers,
            hidden_size=hidden_size,
            memory_size=memory_size,
            variational_dropout=variational_dropout,
        )
        problems += range_problems(
            {
                "memory_size": memory_size,
                "embedding_size": embedding_size,
                "hidden_size": hidden_size,
                "max_caption_length": max_caption_length,
                "validation_beam_size": validation_beam_size,
            },
            {"dropout": dropout, "word_dropout": word_dropout, "label_smoothing": label_smoothing},
        )
        if attention_penalty < 0:
            problems.append(f"attention_penalty={attention_penalty} must not be negative.")
        if attention_penalty and attention == "none":
            problems.append("attention_penalty needs an attention. Set it to 0.")
        problems += fine_tuning_problems(fine_tune_start, fine_tune_learning_rate)
        problems += statistics_problems({"image_mean": image_mean, "image_std": image_std}, 3)
        try:
            geometry = PictureGeometry(image_size, cast(Resize, image_resize), image_crop_share)
        except ConfigError as error:
            problems.append(str(error))
        raise_together(problems, ConfigError, "The captioner cannot be built:")
        super().__init__(
            label_smoothing=label_smoothing,
            optimization=optimization,
            teacher_forcing=teacher_forcing,
            decoding=decoding,
            validation_beam_size=validation_beam_size,
            init_from=init_from,
            self_critical=self_critical,
            backbone_weights=backbone_weights,
            fine_tune_start=fine_tune_start,
            fine_tune_learning_rate=fine_tune_learning_rate,
        )
        mean, std = normalisation(backbone, backbone_weights)
        image_mean, image_std = image_mean or mean, image_std or std
        self.save_hyperparameters(
            ignore=[*NOT_SAVED, *NETWORK_NOT_SAVED, "attention_penalty", "self_critical"]
        )
        # What torchvision says of the weights is settled here: the checkpoint needs no weights.
        self.hparams.update(image_mean=image_mean, image_std=image_std)
        self.geometry = geometry
        self.vocab_size = vocab_size
        self.max_caption_length = max_caption_length
        self.attention_penalty = attention_penalty
        self.encoder = ImageEncoder(
            backbone,
            backbone_layer,
            image_size=image_size,
            mean=image_mean,
            std=image_std,
            memory_size=memory_size,
            dropout=dropout,
            variational_dropout=variational_dropout,
            learned_positions=learned_positions,
            fine_tune_from=fine_tune_from,
            fine_tune_statistics=fine_tune_statistics,
        )
        embedding = TokenEmbedding(vocab_size, embedding_size, word_dropout)
        output_layer = nn.Linear(embedding_size, vocab_size)
        nn.init.zeros_(output_layer.bias)
        if tied_weights:
            output_layer.weight = embedding.weight
        self.decoder = RecurrentDecoder(
            embedding,
            output_layer,
            input_size=embedding_size,
            feature_size=embedding_size,
            memory_size=memory_size,
            hidden_size=hidden_size,
            num_layers=decoder_layers,
            cell=cast(Cell, cell),
            attention=cast(AttentionKind, attention),
            feed=cast(Feed, feed),
            dropout=dropout,
            variational_dropout=variational_dropout,
            layer_norm=layer_norm,
        )
        self.metric = CaptionMetric()

    @property
    def grid_network(self) -> ImageEncoder:
        """The encoder, which begins with a network."""
        return self.encoder

    # Data.

    def expected_vocab_sizes(self) -> dict[str, int]:
        """Return the size of the caption vocabulary."""
        return {"target": self.vocab_size}

    def input_settings(self) -> dict[str, Any]:
        """Return how pictures are prepared."""
        return {
            **{f"image_{name}": value for name, value in self.geometry.settings().items()},
            "image_mean": list(self.hparams["image_mean"]),
            "image_std": list(self.hparams["image_std"]),
        }

    def setup(self, stage: str) -> None:
        """Take over the tokenizer, and give the data module the eyes.

        Raises:
            ConfigError: If features are to be cached of a network that learns.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:
            self.show(data)

    def show(self, data: Any) -> None:
        """Let a ``CaptionDataModule`` prepare pictures for this network, or keep its features.

        Raises:
            ConfigError: If features are to be cached of a network that learns.
        """
        if data.cache_features and self.encoder.can_fine_tune:
            raise ConfigError(
                "--data.cache_features keeps features that --model.fine_tune_from would change. "
                "Set one of them to false or null."
            )
        data.show_to(
            self.geometry,
            self if data.cache_features else None,
            must_mix=self.encoder.follows_statistics,
        )

    def load_item(self, item: str) -> Tensor:
        """Return the picture as the network sees it, uint8 ``(3, size, size)``.

        Raises:
            DataError: If it cannot be read.
        """
        return self.geometry(open_picture(Path(item)))

    def item_length(self, item: str) -> int:  # noqa: ARG002
        """Return the same for all: pictures need no sorting."""
        return 0

    def collate(self, items: Sequence[Tensor]) -> Batch:
        """Stack pictures."""
        return Batch(torch.stack(list(items)), None, torch.arange(len(items)))

    # Training.

    def build_reward(self) -> CaptionReward:
        """Return CIDEr-D, with the frequencies of words in all training captions."""
        return CaptionReward(self.trainer.datamodule.training_references())  # type: ignore[attr-defined]

    def score_target(self, target: Tensor, output: DecoderOutput) -> SequenceLoss:
        """Return the cross-entropy of a target, with the term that spreads attention."""
        loss = super().score_target(target, output)
        if not self.attention_penalty:
            return loss
        assert output.attention is not None
        penalty = self.attention_penalty * attention_penalty(output.attention, target)
        return loss._replace(total=loss.total + penalty)

    # Decoding.

    def max_lengths(self, batch: Batch) -> Tensor:
        """Return the same limit for all pictures."""
        return torch.full((len(batch.inputs),), self.max_caption_length, device=self.device)

    def present(self, batch: Batch, row: int, hypothesis: Hypothesis) -> Prediction:  # noqa: ARG002
        """Turn ids into a caption."""
        tokenizer = self.tokenizers["target"]
        ids = hypothesis.tokens + [EOS_ID] * hypothesis.is_finished
        return Prediction(
            tokenizer.decode(hypothesis.tokens),
            hypothesis.score,
            tokenizer.pieces(ids),
            hypothesis.token_log_probs,
            hypothesis.attention,
            grid=self.encoder.grid,
        )

    def figure(self, batch: Batch, prediction: Prediction) -> Figure | None:
        """Draw the picture with the attention of each word laid over it; None without a picture."""
        if prediction.attention is None:
            return None
        pictures: Tensor | None = batch.inputs
        if batch.inputs.ndim == 3:  # features, which nobody can look at
            pictures = self.trainer.datamodule.look_up("val", int(batch.indices))  # type: ignore[attr-defined]
        return None if pictures is None else overlay_figure(pictures.squeeze(0).cpu(), prediction)

    def update_metrics(self, batch: Batch, predictions: list[Prediction]) -> None:
        """Add decoded captions to the corpus."""
        texts = [prediction.text for prediction in predictions]
        self.metric.update(batch.indices, texts, batch.references)

    def compute_metrics(self) -> dict[str, float]:
        """Return CIDEr-D, BLEU-1 to 4, ROUGE-L and how varied the captions are."""
        scores = self.metric.compute()
        self.metric.reset()
        self.signatures = {"captions": scores.signature}
        kept = scores._asdict()
        del kept["signature"], kept["examples"]
        return kept
