"""Classification of videos: a recurrence over frames in front of the shared decoder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from seq2seq.batches import Batch, Memory, Prediction, VideoInput
from seq2seq.decoders.recurrent import Feed, option_problems
from seq2seq.encoders.backbones import normalisation
from seq2seq.encoders.frames import OWN_NETWORKS, build_frame_network
from seq2seq.encoders.grid import GridNetwork
from seq2seq.encoders.video import Positions, Recurrence, VideoEncoder, build_recurrence
from seq2seq.errors import ConfigError, raise_together
from seq2seq.figures import attention_figure
from seq2seq.losses import SequenceLoss
from seq2seq.nn.attention import AttentionKind
from seq2seq.nn.conv_recurrent import FrameNorm
from seq2seq.nn.recurrent import Cell
from seq2seq.pictures import PictureGeometry, Resize
from seq2seq.search import SearchOptions
from seq2seq.tasks.base import NOT_SAVED, ItemKind
from seq2seq.tasks.grid_network import (
    NETWORK_NOT_SAVED,
    GridNetworkTask,
    fine_tuning_problems,
)
from seq2seq.tasks.labelling import (
    ClassWeights,
    LabelTask,
    build_label_decoder,
    label_problems,
)
from seq2seq.tasks.options import Optimization, TeacherForcing, range_problems
from seq2seq.tasks.streaming import LabelStream
from seq2seq.tasks.video_options import frame_problems, recurrence_problems
from seq2seq.videos import ClipSampling
from seq2seq.videos.clips import Sampling
from seq2seq.videos.frames import CutWarnings, FramePreparation, FrameReader, VideoPart

_VIDEO_NOT_SAVED = ("class_weights", "mixup", "checkpoint_steps", "tbptt_steps", "clips")


class VideoClassifier(GridNetworkTask, LabelTask):
    """Convolutional and recurrent encoder and recurrent decoder, from a video to its labels.

    Args:
        num_classes: Number of labels; taken from the data module.
        label_steps: Labels of each video, decoded one after the other; taken from the data module.
        frame_network: What looks at each frame: ``none`` leaves the pixels to the recurrence,
            ``small`` is a few convolutions, anything else torchvision's name of a network.
        frame_widths: Channels of the convolutions of ``small``; each halves width and height.
        backbone_layer: Of a network of torchvision, the layer that gives the grid; null for its
            last grid.
        backbone_weights: torchvision's name of its weights (``DEFAULT``), or the path of a file;
            null for none. Needed for training only: a checkpoint has its own.
        image_size: Side of the frames that the network sees, in pixels.
        image_resize: ``crop`` the middle of a frame, ``squash`` it to a square, ``pad`` it, or cut
            out the ``foreground``, of depth and silhouettes, where all else is black. It is cut out
            where the first frame of the file has it, also for a part that begins later; where that
            frame is black, the middle is.
        image_crop_share: Share of a frame's shorter side that ``crop`` keeps; of the square's
            height that ``foreground`` fills.
        image_channels: 3 for colour, 1 for grey.
        image_mean: Mean of the frames, from 0 to 1, for each channel; null for what torchvision
            says of the weights, or for 0.5.
        image_std: Their standard deviation; null likewise, or for 0.25.
        frame_differences: Let ``none`` and ``small`` see the difference to the frame before, too:
            what moves, whoever does.
        difference_std: Standard deviation of these differences, for each channel, which they are
            divided by; null for ``image_std``.
        sampling: Which frames make a clip: ``uniform`` over the video, a random one of each
            ``segment``, or ``dense``, at a steady rate.
        clip_frames: Frames per clip.
        frame_rate_hz: Of ``dense``, frames per second.
        clips: Clips per video in evaluation and prediction, whose probabilities are averaged.
            A checkpoint does not keep it.
        span_share: Of ``segment``, the smallest share of the video that a training clip is spread
            over, a random part of a random length; 1 for the whole.
        recurrence: ``conv`` over the grids of the frames; ``vector`` over one vector per frame;
            ``none`` averages the frames, whatever their order.
        cell: ``rnn`` (tanh), ``gru`` or ``lstm``, of encoder and decoder.
        hidden_size: Width of the recurrent state, in the encoder channels per direction.
        encoder_layers: Recurrent layers of the encoder.
        kernel_size: Width and height of the kernels of ``conv``, odd.
        strides: Spatial stride of each layer of ``conv``; null for 1.
        bidirectional: Read clips in both directions, too; such a classifier cannot stream.
        peepholes: Let the gates of a convolutional LSTM look at the cell.
        norm: Normalise the output of every layer of the encoder: ``none``, ``layer``, or
            ``group`` (of ``conv``).
        checkpoint_steps: Of ``conv``, frames whose activations are computed again in the backward
            pass, which saves memory in long clips; null keeps all.
        tbptt_steps: Of ``conv``, frames after which truncated back-propagation through time cuts
            the gradient of the state, for steadier training on long clips; null for nowhere. With
            ``attention: none`` only what follows the last cut is learned from.
        grid_parts: A frame's grid is described by means and maxima in this many parts along each
            side: the more, the better it is known where something is.
        memory_positions: What attention chooses between: ``frames``, or ``cells`` of frames, which
            need recurrence ``conv``.
        memory_size: Width of the memory.
        decoder_layers: Recurrent layers of the decoder.
        decoder_size: Width of the decoder's state.
        attention: ``none`` (the decoder gets what the last frame left, as a stream has it),
            ``dot``, ``bilinear`` or ``additive``.
        feed: How the context enters the decoder: ``output``, ``layer`` or ``input``.
        dropout: Dropout between layers, on the memory and before the output layer.
        fine_tune_from: First layer of a network of torchvision that learns; ``all`` for all of it,
            null for none.
        fine_tune_start: Optimiser steps before it begins to.
        fine_tune_learning_rate: Its learning rate after the warm-up; null for that of all else.
        fine_tune_statistics: Let the statistics of its batch norms follow the batches; of several
            processes those of the first; on GPUs, ``--trainer.sync_batchnorm true`` takes all.
        class_weights: ``balanced`` lets rare classes weigh as much as frequent ones.
        label_smoothing: Share of the target probability spread over all classes.
        mixup: Alpha of the Beta distribution by which pairs of clips are mixed in training
            (arXiv:1710.09412); 0 for none.
        optimization: Optimiser, learning rate and its schedule.
        teacher_forcing: How often the decoder reads the right label while it learns.
        decoding: Search in testing and prediction.
        validation_beam_size: Beam size in validation; 1 is greedy search.
        init_from: Checkpoint whose weights a new training starts from.
        stills_rate_hz: In prediction, the frame rate of folders of frames and of arrays; training
            takes it from the data module.

    Raises:
        ConfigError: If options do not fit together; all problems at once.
    """

    item_kind: ClassVar[ItemKind] = "video"

    encoder: VideoEncoder

    def __init__(
        self,
        num_classes: int,
        label_steps: int = 1,
        frame_network: str = "small",
        frame_widths: list[int] | None = None,
        backbone_layer: str | None = None,
        backbone_weights: str | None = "DEFAULT",
        image_size: int = 64,
        image_resize: str = "squash",
        image_crop_share: float = 0.875,
        image_channels: int = 3,
        image_mean: list[float] | None = None,
        image_std: list[float] | None = None,
        frame_differences: bool = False,
        difference_std: list[float] | None = None,
        sampling: str = "segment",
        clip_frames: int = 16,
        frame_rate_hz: float = 15.0,
        clips: int = 1,
        span_share: float = 1.0,
        recurrence: str = "conv",
        cell: str = "gru",
        hidden_size: int = 64,
        encoder_layers: int = 1,
        kernel_size: int = 3,
        strides: list[int] | None = None,
        bidirectional: bool = False,
        peepholes: bool = False,
        norm: str = "none",
        checkpoint_steps: int | None = None,
        tbptt_steps: int | None = None,
        grid_parts: int = 1,
        memory_positions: str = "frames",
        memory_size: int = 128,
        decoder_layers: int = 1,
        decoder_size: int = 128,
        attention: str = "none",
        feed: str = "output",
        dropout: float = 0.2,
        fine_tune_from: str | None = None,
        fine_tune_start: int = 0,
        fine_tune_learning_rate: float | None = None,
        fine_tune_statistics: bool = False,
        class_weights: str = "none",
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        optimization: Optimization = Optimization(),  # noqa: B008  # frozen
        teacher_forcing: TeacherForcing = TeacherForcing(),  # noqa: B008
        decoding: SearchOptions = SearchOptions(),  # noqa: B008
        validation_beam_size: int = 1,
        init_from: str | None = None,
        stills_rate_hz: float = 25.0,
    ) -> None:
        frame_widths = [16, 32, 64] if frame_widths is None else frame_widths
        problems = option_problems(
            cell,
            attention,
            feed,
            decoder_layers,
            hidden_size=decoder_size,
            memory_size=memory_size,
            variational_dropout=False,
        )
        problems += range_problems(
            {
                "encoder_layers": encoder_layers,
                "grid_parts": grid_parts,
                "hidden_size": hidden_size,
                "memory_size": memory_size,
                "validation_beam_size": validation_beam_size,
            },
            {"dropout": dropout, "label_smoothing": label_smoothing},
        )
        problems += label_problems(num_classes, label_steps, class_weights)
        problems += fine_tuning_problems(fine_tune_start, fine_tune_learning_rate)
        problems += recurrence_problems(recurrence, norm, memory_positions, attention)
        problems += frame_problems(
            frame_network,
            image_channels,
            {
                "image_mean": image_mean,
                "image_std": image_std,
                "difference_std": difference_std,
            },
            sees_differences=frame_differences,
        )
        if mixup < 0:
            problems.append(f"--model.mixup={mixup} must not be negative.")
        try:
            geometry = PictureGeometry(image_size, cast(Resize, image_resize), image_crop_share)
        except ConfigError as error:
            problems.append(str(error))
        try:
            clip_sampling = ClipSampling(
                cast(Sampling, sampling), clip_frames, frame_rate_hz, clips, span_share
            )
        except ConfigError as error:
            problems.append(str(error))
        raise_together(problems, ConfigError, "The video classifier cannot be built:")
        super().__init__(
            num_classes=num_classes,
            label_steps=label_steps,
            class_weights=cast(ClassWeights, class_weights),
            label_smoothing=label_smoothing,
            optimization=optimization,
            teacher_forcing=teacher_forcing,
            decoding=decoding,
            validation_beam_size=validation_beam_size,
            init_from=init_from,
            backbone_weights=backbone_weights,
            fine_tune_start=fine_tune_start,
            fine_tune_learning_rate=fine_tune_learning_rate,
        )
        mean, std = [0.5] * image_channels, [0.25] * image_channels
        if frame_network not in OWN_NETWORKS:
            mean, std = normalisation(frame_network, backbone_weights)
        image_mean, image_std = image_mean or mean, image_std or std
        self.save_hyperparameters(ignore=[*NOT_SAVED, *NETWORK_NOT_SAVED, *_VIDEO_NOT_SAVED])
        # What torchvision says of the weights is settled here: the checkpoint needs no weights.
        self.hparams.update(image_mean=image_mean, image_std=image_std)
        self.preparation = FramePreparation(geometry, image_channels)
        self.sampling = clip_sampling
        self.mixup = mixup
        self.stills_rate_hz = stills_rate_hz
        self._warn_of_cut = CutWarnings()  # a figure of the attention reads a video once more
        network = build_frame_network(
            frame_network,
            widths=frame_widths,
            layer=backbone_layer,
            image_size=image_size,
            mean=image_mean,
            std=image_std,
            difference_std=(difference_std or image_std) if frame_differences else None,
            fine_tune_from=fine_tune_from,
            fine_tune_statistics=fine_tune_statistics,
        )
        layers = build_recurrence(
            cast(Recurrence, recurrence),
            cast(Cell, cell),
            network.channels,
            hidden_size,
            encoder_layers,
            parts=grid_parts,
            kernel_size=kernel_size,
            strides=strides,
            bidirectional=bidirectional,
            norm=cast(FrameNorm, norm),
            dropout=dropout,
            peepholes=peepholes,
            checkpoint_steps=checkpoint_steps,
            tbptt_steps=tbptt_steps,
        )
        self.encoder = VideoEncoder(
            network,
            layers,
            memory_size=memory_size,
            parts=grid_parts,
            differences=frame_differences,
            positions=cast(Positions, memory_positions),
            dropout=dropout,
        )
        self.decoder = build_label_decoder(
            num_classes,
            decoder_size,
            memory_size=memory_size,
            num_layers=decoder_layers,
            cell=cast(Cell, cell),
            attention=cast(AttentionKind, attention),
            feed=cast(Feed, feed),
            dropout=dropout,
        )

    @property
    def grid_network(self) -> GridNetwork | None:
        """The network of torchvision that looks at frames, if it is one."""
        network = self.encoder.network
        return network if isinstance(network, GridNetwork) else None

    # Data.

    def input_settings(self) -> dict[str, Any]:
        """Return how frames are prepared."""
        settings = self.preparation.settings().items()
        return {
            **{f"image_{name}": value for name, value in settings},
            "image_mean": list(self.hparams["image_mean"]),
            "image_std": list(self.hparams["image_std"]),
        }

    def setup(self, stage: str) -> None:
        """Take over the labels, and give the data module the eyes.

        Raises:
            ConfigError: If features are to be cached of a network that learns, or of none.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            return
        if stage == "fit":
            self.stills_rate_hz = self.hparams["stills_rate_hz"] = data.stills_rate_hz
        self.show(data)

    def show(self, data: Any) -> None:
        """Let a ``VideoDataModule`` prepare clips for this network, or keep its features.

        Raises:
            ConfigError: If features are to be cached of a network that learns, or of none.
        """
        network = self.grid_network
        if data.cache_features and (network is None or network.can_fine_tune):
            raise ConfigError(
                "--data.cache_features keeps what a frozen network of torchvision makes of the "
                "frames. Name one as --model.frame_network, without --model.fine_tune_from, or set "
                "it to false."
            )
        data.show_to(self.preparation, self.sampling, self if data.cache_features else None)

    def take_clips(self, clips: int) -> None:
        """Look at so many clips of each video from now on, and average their probabilities.

        Raises:
            ConfigError: If there are none.
        """
        self.sampling = replace(self.sampling, clips=clips)

    def load_item(self, item: str) -> Tensor:
        """Return the clips of a video, uint8 ``(clips, time, channels, size, size)``.

        A broken tail is cut off, with a warning.

        Raises:
            DataError: If it cannot be read.
        """
        return self._reader().read_clips(VideoPart(Path(item)), self.sampling.evaluation_times)

    def item_length(self, item: str) -> int:  # noqa: ARG002
        """Return the same for all: their clips are alike."""
        return 0

    def collate(self, items: Sequence[Tensor]) -> Batch:
        """Stack clips."""
        frames = torch.stack(list(items))
        lengths = torch.full(frames.shape[:2], frames.shape[2])
        return Batch(VideoInput(frames, lengths), None, torch.arange(len(items)))

    # Training.

    def compute_loss(
        self, batch: Batch, forcing_ratio: float = 1.0, batch_number: int = 0
    ) -> SequenceLoss:
        """Run the decoder along the labels of a batch and score them, with mixup in training."""
        if not (self.mixup and self.training and len(batch.indices) > 1):
            return super().compute_loss(batch, forcing_ratio, batch_number)
        assert batch.target is not None
        generator = np.random.default_rng(self.choice_seed(batch_number))
        share = generator.beta(self.mixup, self.mixup)
        order = torch.from_numpy(generator.permutation(len(batch.indices))).to(self.device)
        frames, lengths = batch.inputs.frames.to(self.dtype), batch.inputs.lengths
        mixed = VideoInput(
            torch.lerp(frames[order], frames, share), torch.maximum(lengths, lengths[order])
        )
        memory = self.encoder(mixed)
        first, second = (
            self.score_target(
                target, self.follow_memory(target, memory, forcing_ratio, batch_number)
            )
            for target in (batch.target, batch.target[order])
        )
        return SequenceLoss(
            share * first.total + (1 - share) * second.total,
            share * first.negative_log_likelihood + (1 - share) * second.negative_log_likelihood,
            first.tokens,
        )

    # Evaluation.

    def views(self, batch: Batch) -> list[Memory]:
        """Encode the clips of each video; each is a view of it."""
        memory: Memory = self.encoder(batch.inputs)
        videos, clips = batch.inputs.lengths.shape
        rows = torch.arange(videos, device=self.device) * clips
        return [memory.select(rows + clip) for clip in range(clips)]

    def stream(self) -> LabelStream:
        """Return what takes the frames of one video as they come.

        Raises:
            ConfigError: If the classifier needs the whole video: with attention, or reading in two
                directions.
        """
        return LabelStream(self, self.encoder, self._reader(), self.sampling)

    def figure(self, batch: Batch, prediction: Prediction) -> Figure | None:
        """Draw which frames each label attended to; None where a prediction kept no attention.

        Args:
            batch: The video alone.
            prediction: What was decoded from it; its attention is that of the first clip.
        """
        if prediction.attention is None:
            return None
        time = batch.inputs.frames.shape[2]
        labels = len(prediction.attention)
        weights = prediction.attention.view(labels, time, -1).sum(dim=2)  # over a frame's cells
        frames = [str(number) for number in range(1, time + 1)]
        return attention_figure(prediction._replace(attention=weights, source_tokens=frames))

    def _reader(self) -> FrameReader:
        return FrameReader(
            self.preparation, self.stills_rate_hz, broken_tail="cut", on_cut=self._warn_of_cut
        )
