"""What the options of a video classifier may be."""

from collections.abc import Mapping
from typing import get_args

from seq2seq.encoders.backbones import backbone_names
from seq2seq.encoders.frames import OWN_NETWORKS
from seq2seq.encoders.video import Positions, Recurrence
from seq2seq.nn.conv_recurrent import FrameNorm
from seq2seq.tasks.options import statistics_problems


def recurrence_problems(recurrence: str, norm: str, positions: str, attention: str) -> list[str]:
    """Return what is wrong with the options of the encoder, one sentence each."""
    options = {
        "recurrence": (recurrence, Recurrence),
        "norm": (norm, FrameNorm),
        "memory_positions": (positions, Positions),
    }
    problems = [
        f"--model.{name} is {value!r}; choose one of {', '.join(get_args(kind))}."
        for name, (value, kind) in options.items()
        if value not in get_args(kind)
    ]
    if recurrence == "vector" and norm == "group":
        problems.append("--model.norm group is for recurrence conv. Choose layer or none.")
    if positions == "cells" and (recurrence != "conv" or attention == "none"):
        problems.append(
            "--model.memory_positions cells is for recurrence conv with an attention, which "
            "chooses between cells. Choose frames."
        )
    return problems


def frame_problems(
    network: str,
    channels: int,
    statistics: Mapping[str, list[float] | None],
    *,
    sees_differences: bool,
) -> list[str]:
    """Return what is wrong with the options of the frames, one sentence each.

    Args:
        network: What looks at each frame.
        channels: Channels of the frames.
        statistics: Of options that have a value for each channel, the name and the values.
        sees_differences: Whether the network sees the difference to the frame before, too.
    """
    problems = []
    if channels not in (1, 3):
        problems.append(
            f"--model.image_channels={channels} cannot be: choose 3 for colour, 1 for grey."
        )
    if network not in (*OWN_NETWORKS, *backbone_names()):
        problems.append(
            f"--model.frame_network is {network!r}; choose {', '.join(OWN_NETWORKS)}, or a network "
            f"of torchvision: {', '.join(backbone_names())}."
        )
    elif channels == 1 and network not in OWN_NETWORKS:
        problems.append(f"{network} sees colours: set --model.image_channels to 3.")
    problems += statistics_problems(statistics, channels)
    if sees_differences and network not in OWN_NETWORKS:
        problems.append(
            f"--model.frame_differences is for frame_network none or small: {network} was made for "
            "pictures. Set it to false."
        )
    if statistics["difference_std"] is not None and not sees_differences:
        problems.append(
            "--model.difference_std is for frame_differences true: set that, or leave it null."
        )
    return problems
