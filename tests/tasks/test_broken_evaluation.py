"""An evaluation that an error or an interruption ends is no part of the next one."""

import pytest
import toy_captions
import toy_classifier
import toy_clips
import toy_sentiment
import toy_series
import toy_translation
from lightning.pytorch.callbacks import Callback

from seq2seq.tasks.translation import Translator


class OutOfMemory(Callback):
    """Ends an evaluation after its first batch."""

    def on_validation_batch_end(self, *_):
        raise RuntimeError("out of memory")

    on_test_batch_end = on_validation_batch_end


def translation(folder):
    data = toy_translation.module(toy_translation.write_splits(folder / "corpus"))
    return Translator(40, embedding_size=8, hidden_size=8), data


def captioning(folder):
    weights = toy_captions.write_weights(folder / "backbone.pt")
    data = toy_captions.module(toy_captions.write_corpus(folder))
    return toy_captions.captioner(backbone_weights=str(weights)), data


def video(folder):
    return toy_classifier.classifier(), toy_clips.module(toy_clips.write_corpus(folder / "clips"))


def reviews(_folder):
    return toy_sentiment.classifier(), toy_sentiment.ToyTexts()


def forecasting(_folder):
    return toy_series.forecaster(1), toy_series.waves()


@pytest.mark.parametrize("make", [translation, captioning, video, reviews, forecasting])
def test_its_metrics_are_those_of_the_next_alone(make, make_trainer, tmp_path):
    task, data = make(tmp_path)
    for broken, after in (("validate", "test"), ("test", "validate")):
        [expected] = getattr(make_trainer(), after)(task, data, verbose=False)
        with pytest.raises(RuntimeError, match="out of memory"):
            getattr(make_trainer(callbacks=[OutOfMemory()]), broken)(task, data, verbose=False)
        assert getattr(make_trainer(), after)(task, data, verbose=False) == [expected]
