"""The data of each modality, as Lightning data modules."""

from datamodules.captioning import CaptionDataModule
from datamodules.motion import MotionDataModule
from datamodules.reviews import ReviewDataModule
from datamodules.series import SeriesDataModule
from datamodules.shapes import ShapesDataModule
from datamodules.synthetic import DatesDataModule
from datamodules.text_files import Pair
from datamodules.translation import TranslationDataModule
from datamodules.translation_dataset import TranslationDataset, TranslationExample
from datamodules.video import VideoDataModule
from datamodules.waves import SineDataModule

__all__ = [
    "CaptionDataModule",
    "DatesDataModule",
    "MotionDataModule",
    "Pair",
    "ReviewDataModule",
    "SeriesDataModule",
    "ShapesDataModule",
    "SineDataModule",
    "TranslationDataModule",
    "TranslationDataset",
    "TranslationExample",
    "VideoDataModule",
]
