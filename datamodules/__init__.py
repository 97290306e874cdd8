"""The data of each modality, as Lightning data modules."""

from datamodules.captioning import CaptionDataModule
from datamodules.shapes import ShapesDataModule
from datamodules.synthetic import DatesDataModule
from datamodules.text_files import Pair
from datamodules.translation import TranslationDataModule
from datamodules.translation_dataset import TranslationDataset, TranslationExample

__all__ = [
    "CaptionDataModule",
    "DatesDataModule",
    "Pair",
    "ShapesDataModule",
    "TranslationDataModule",
    "TranslationDataset",
    "TranslationExample",
]
