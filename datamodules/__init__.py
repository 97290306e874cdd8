"""The data of each modality, as Lightning data modules."""

from datamodules.synthetic import DatesDataModule
from datamodules.translation import TranslationDataModule

__all__ = ["DatesDataModule", "TranslationDataModule"]
