"""The picture of a confusion matrix, from two classes to hundreds."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from seq2seq.class_figures import confusion_figure

COUNTS = torch.tensor([[6, 2, 0], [0, 0, 0], [1, 0, 9]])
NAMES = ["sit to stand", "$a$", "wave"]


def matrix_of(figure):
    return figure.axes[0]


def texts(axes):
    return [(text.get_position(), text.get_text()) for text in axes.texts]


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer)


def test_a_cell_shows_its_share_of_the_true_class():
    shown = matrix_of(confusion_figure(COUNTS, NAMES)).images[0].get_array()
    np.testing.assert_allclose(shown, [[0.75, 0.25, 0], [0, 0, 0], [0.1, 0, 0.9]])


def test_truth_goes_down_and_predictions_across():
    axes = matrix_of(confusion_figure(COUNTS, NAMES))
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("truth", "predicted")
    assert labels(axes.yaxis) == labels(axes.xaxis) == NAMES
    assert texts(axes) == [((0, 0), "6"), ((1, 0), "2"), ((0, 2), "1"), ((2, 2), "9")]
    assert axes.get_ylim() == (2.5, -0.5)  # the first class above


def test_bars_show_the_accuracy_on_each_class():
    bars = confusion_figure(COUNTS, NAMES).axes[1]
    assert [bar.get_width() for bar in bars.patches] == pytest.approx([0.75, 0, 0.9])
    assert [text for _, text in texts(bars)] == ["0.75 of 8", "no example", "0.90 of 10"]
    assert bars.get_ylim() == (2.5, -0.5)


@pytest.mark.parametrize("size", [2, 30])
def test_counts_are_written_while_they_have_room(size):
    counts = torch.eye(size, dtype=torch.int64) * 12345
    assert len(matrix_of(confusion_figure(counts, ["a"] * size)).texts) == size


@pytest.mark.parametrize("size", [31, 100, 230])
def test_many_classes_have_no_counts(size):
    figure = confusion_figure(torch.eye(size, dtype=torch.int64), [f"c{i}" for i in range(size)])
    assert not [text for axes in figure.axes for text in axes.texts]


def test_of_too_many_classes_every_few_are_named():
    def named(size):
        names = [f"c{i}" for i in range(size)]
        return labels(matrix_of(confusion_figure(torch.eye(size), names)).yaxis)

    assert named(100) == [f"c{i}" for i in range(100)]
    assert named(230) == [f"c{i}" for i in range(0, 230, 3)]


def test_names_that_are_too_wide_are_turned_and_cut():
    def shown(name):
        axes = matrix_of(confusion_figure(COUNTS[1:, 1:], ["a", name]))
        return axes.xaxis.get_ticklabels()[1]

    assert shown("wave").get_rotation() == 0
    assert shown("a name that is wide").get_text() == "a name that is wide"
    assert shown("a name that is" + " very" * 9).get_text() == "a name that is very very very\u2026"
    assert shown("a name that is" + " very" * 9).get_rotation() == 90


def test_a_figure_grows_with_its_classes_up_to_a_limit():
    sizes = [png(confusion_figure(torch.eye(size), ["c"] * size, "val")).size for size in (2, 9)]
    assert sizes[0] < sizes[1]
    assert min(sizes[0]) > 300
    limits = [
        confusion_figure(torch.eye(size), ["c"] * size).get_size_inches() for size in (99, 999)
    ]
    np.testing.assert_allclose(*limits)


def test_a_title_stands_above_as_it_is_written():
    figure = confusion_figure(COUNTS, NAMES, "test: $5 of $9")
    assert figure.get_suptitle() == "test: $5 of $9"
    inks = np.asarray(png(figure))
    assert (inks[0, :, :3] == 255).all()  # nothing is cut off above
