import csv
import io

import pytest
import torch
from PIL import Image
from toy_captions import (
    ENTRIES,
    VOCAB,
    module,
    of_split,
    prepared,
    write_captions,
    write_corpus,
    write_pictures,
)

from datamodules import CaptionDataModule
from datamodules.caption_dataset import names_a_side
from seq2seq.errors import ConfigError, DataError
from seq2seq.pictures import PictureGeometry, open_picture
from seq2seq.sequences import EOS_ID, PAD_ID
from seq2seq.words import caption_words

GEOMETRY = PictureGeometry(16, "squash")
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("captions"))


def shown(root, **options):
    data = prepared(root, **options)
    data.show_to(GEOMETRY, None)
    return data


def loader(data, role):
    return getattr(data, f"{role}_dataloader")()


def examples(data, role, epoch=0):
    """Return for each picture of a split its pixels, the ids of its targets, its references."""
    batches = loader(data, role)
    batches.set_epoch(epoch)
    found = {}
    for batch in batches:
        assert len(batch.inputs) == len(batch.indices) == len(batch.references)
        for row, index in enumerate(batch.indices.tolist()):
            ids = [target[target != PAD_ID].tolist() for target in batch.target[batch.rows == row]]
            assert index not in found
            found[index] = batch.inputs[row], ids, batch.references[row]
    return [found[index] for index in range(len(found))]


def pixels(root, entry, is_mirrored=False):
    picture = open_picture(root / "images" / entry.name)
    return GEOMETRY(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if is_mirrored else picture)


def spell(data, ids):
    assert ids[-1] == EOS_ID
    return data.tokenizers["target"].decode(ids)


def plain(captions):
    return [" ".join(caption_words(text)) for text in captions]


# What a batch has.


@pytest.mark.parametrize("kind", ["karpathy", "csv", "tsv", "jsonl"])
def test_a_file_with_splits_is_divided_by_them(tmp_path, kind):
    data = shown(write_corpus(tmp_path, kind))
    assert data.tokenizers["target"].vocab_size == VOCAB
    for role in SPLITS:
        entries = of_split(role)
        for entry, (picture, ids, references) in zip(entries, examples(data, role), strict=True):
            assert torch.equal(picture, pixels(tmp_path, entry))
            assert references == entry.captions
            assert len(ids) == len(references)
            if role == "train":
                assert [spell(data, row) for row in ids] == plain(entry.captions)
    assert data.training_references() == [entry.captions for entry in of_split("train")]


@pytest.mark.parametrize("kind", ["coco", "flickr"])
def test_a_file_without_splits_is_divided_at_random(tmp_path, kind):
    options = {"vocab_size": 8, "val_share": 0.25, "test_share": 0.17}
    data = shown(write_corpus(tmp_path, kind), **options)
    entries = {entry.captions: entry for entry in ENTRIES if entry.name != "val/1.png"}
    found = [(role, *example) for role in SPLITS for example in examples(data, role)]
    assert [sum(role == name for role, *_ in found) for name in SPLITS] == [7, 3, 2]
    for _, picture, _, references in found:
        if references in entries:
            assert torch.equal(picture, pixels(tmp_path, entries[references]))
    assert {references for *_, references in found} == {entry.captions for entry in ENTRIES}
    again, other = (shown(tmp_path, **options, seed=seed) for seed in (1, 2))
    assert again.training_references() == data.training_references()
    assert sorted(other.training_references()) != sorted(data.training_references())


def test_batches_mix_lengths_where_their_statistics_matter(root):
    def largest_spread(must_mix):
        """Return by how many words captions of a batch may differ, going by some orders."""
        found = []
        for seed in range(5):
            data = prepared(root, batch_size=2, seed=seed)
            data.show_to(GEOMETRY, None, must_mix=must_mix)
            for batch in data.train_dataloader():
                longest = [max(len(text.split()) for text in each) for each in batch.references]
                found.append(max(longest) - min(longest))
        return max(found)

    assert largest_spread(must_mix=False) < largest_spread(must_mix=True)


def test_splits_can_be_joined(root):
    data = shown(root, train="train+restval")
    assert len(data.training_references()) == 7
    assert data.training_references()[6] == of_split("restval")[0].captions


def test_each_split_can_have_a_file_and_a_folder_of_its_own(tmp_path):
    files = {}
    for role in SPLITS:
        write_pictures(tmp_path / role, of_split(role))
        files[role] = str(write_captions(tmp_path / f"{role}.txt", "flickr", of_split(role)))
    captions = {f"{role}_captions": files[role] for role in ("val", "test")}
    images = {f"{role}_images": str(tmp_path / role) for role in ("val", "test")}
    data = CaptionDataModule(
        files["train"],
        str(tmp_path / "train"),
        vocabulary="word",
        vocab_size=VOCAB,
        **captions,
        **images,
    )
    data.prepare_data()
    data.setup("fit")
    data.show_to(GEOMETRY, None)
    for role in SPLITS:
        found = [references for *_, references in examples(data, role)]
        assert found == [entry.captions for entry in of_split(role)]


def test_a_picture_in_the_files_of_two_splits_is_refused(root, tmp_path):
    other = write_captions(tmp_path / "val.csv", "csv", of_split("train")[4:])
    with pytest.raises(DataError, match=r"two splits \(2\): .*train/4\.png \(.*captions\.csv:11"):
        module(root, val_captions=str(other)).prepare_data()


def test_batches_hold_so_many_pictures(root):
    data = shown(root, batch_size=4, eval_batch_size=2)
    assert sorted(len(batch.inputs) for batch in loader(data, "train")) == [2, 4]
    assert sorted(len(batch.inputs) for batch in loader(data, "val")) == [1, 2]


def test_long_captions_are_cut_and_still_end(root):
    data = shown(root, max_caption_length=4)
    _, ids, _ = examples(data, "train")[2]
    assert [spell(data, row) for row in ids] == ["a square on", "a blue square"]


def test_a_picture_can_be_looked_at_again(root):
    data = shown(root, flip=True)
    for role in SPLITS:
        for place, entry in enumerate(of_split(role)):
            assert torch.equal(data.look_up(role, place), pixels(root, entry))


# Random choices of training.


@pytest.mark.parametrize(
    ("caption", "names"),
    [
        ("A dog on the left.", True),
        ("Turning RIGHT", True),
        ("a right-handed batter", True),
        ("leftmost of three", True),
        ("a bright light", False),
        ("a copyright sign, upright", False),
    ],
)
def test_sides_are_found_in_captions(caption, names):
    assert names_a_side(["a dog", caption]) is names


def test_pictures_are_mirrored_unless_a_caption_names_a_side(root):
    data = shown(root, flip=True)
    entries = of_split("train")
    is_mirrored = [[] for _ in entries]
    for epoch in range(8):
        for place, (picture, ids, references) in enumerate(examples(data, "train", epoch)):
            plain_one, mirrored = (pixels(root, entries[place], side) for side in (False, True))
            assert torch.equal(picture, plain_one) or torch.equal(picture, mirrored)
            is_mirrored[place].append(torch.equal(picture, mirrored))
            assert (len(ids), references) == (len(references), entries[place].captions)
    for entry, choices in zip(entries, is_mirrored, strict=True):
        names = any("left" in text for text in entry.captions)
        assert set(choices) == ({False} if names else {False, True})
    assert len({tuple(choices) for choices in is_mirrored}) == len(entries)


def test_no_picture_is_mirrored_elsewhere(root):
    for data, role in ((shown(root), "train"), (shown(root, flip=True), "val")):
        for epoch in range(4):
            found = examples(data, role, epoch)
            for entry, (picture, *_) in zip(of_split(role), found, strict=True):
                assert torch.equal(picture, pixels(root, entry))


def test_some_captions_of_each_picture_are_chosen(root):
    data = shown(root, captions_per_picture=2)
    chosen = []
    for epoch in range(6):
        found = examples(data, "train", epoch)
        texts = [sorted(spell(data, row) for row in ids) for _, ids, _ in found]
        for entry, own in zip(of_split("train"), texts, strict=True):
            assert len(own) == len(set(own)) == min(2, len(entry.captions))
            assert set(own) <= set(plain(entry.captions))
        chosen.append(tuple(texts[3]))
        assert [references for *_, references in found] == data.training_references()
    assert len(set(chosen)) == 3
    assert [len(ids) for _, ids, _ in examples(data, "val")] == [2, 1, 2]


def test_random_choices_depend_on_seed_and_epoch_alone(root):
    def choices(seed, epoch, batch_size=4):
        options = {"flip": True, "captions_per_picture": 1, "batch_size": batch_size}
        data = shown(root, seed=seed, **options)
        return [(ids, picture.tolist()) for picture, ids, _ in examples(data, "train", epoch)]

    assert choices(1, 2) == choices(1, 2, batch_size=3)
    assert choices(1, 2) != choices(2, 2)
    assert choices(1, 2) != choices(1, 3)


# Bad pictures, missing splits, bad options.


@pytest.fixture
def damaged(tmp_path):
    """Return a corpus with a JPEG that is cut off, among the training pictures."""
    root = write_corpus(tmp_path)
    buffer = io.BytesIO()
    Image.effect_noise((64, 48), 90).save(buffer, "JPEG")
    (root / "images/train/3.png").write_bytes(buffer.getvalue()[:1000])
    return root


def test_a_bad_picture_is_an_error_before_training(damaged):
    with pytest.raises(DataError, match=r"(?s)1 of 11 .*train/3\.png: .*_picture quarantine"):
        module(damaged).prepare_data()


def test_bad_pictures_are_left_out_and_listed(damaged):
    data = shown(damaged, on_bad_picture="quarantine", max_bad_share=0.1)
    entries = [entry for entry in of_split("train") if entry.name != "train/3.png"]
    for entry, (picture, _, references) in zip(entries, examples(data, "train"), strict=True):
        assert torch.equal(picture, pixels(damaged, entry))
        assert references == entry.captions
    assert data.training_references() == [entry.captions for entry in entries]
    assert len(examples(data, "val")) == 3
    with (damaged / ".seq2seq_cache/pictures_quarantine.csv").open(newline="") as file:
        [header, [path, reason]] = csv.reader(file)
    assert header == ["path", "reason"]
    assert path.endswith("train/3.png")
    assert "cannot be decoded" in reason


def test_too_many_bad_pictures_stop_the_run(damaged):
    with pytest.raises(DataError, match=r"1 of 11 .* share of 0\.05; .*--data\.max_bad_share"):
        module(damaged, on_bad_picture="quarantine", max_bad_share=0.05).prepare_data()


def test_a_missing_split_matters_when_it_is_asked_for(tmp_path):
    write_pictures(tmp_path / "images")
    entries = [*of_split("train"), *of_split("val")]
    write_captions(tmp_path / "captions.csv", "csv", entries)
    data = shown(tmp_path)
    assert len(examples(data, "val")) == 3
    with pytest.raises(
        DataError, match=r"captions\.csv: the test split has no pictures\. .*_share"
    ):
        data.test_dataloader()
    with pytest.raises(DataError, match=r"no split 'training'; the caption file names: train, val"):
        module(tmp_path, train="training").prepare_data()


def test_data_that_was_not_prepared_is_refused(tmp_path):
    data = module(write_corpus(tmp_path))
    with pytest.raises(DataError, match="prepare_data has not run"):
        data.setup("fit")


def test_all_bad_options_are_named_together(root):
    expected = (
        r"(?s)vocab_size is 4.*captions_per_picture is -1.*batch_size is 0.*vocabulary is 'words'"
        r".*on_bad_picture is 'skip'.*test_images is for --data\.test_captions.*leave nothing"
    )
    with pytest.raises(ConfigError, match=expected):
        module(
            root,
            vocab_size=4,
            captions_per_picture=-1,
            batch_size=0,
            val_share=0.9,
            vocabulary="words",
            on_bad_picture="skip",
            test_images="elsewhere",
        )
    with pytest.raises(ConfigError, match=r"minimum_count is for --data\.vocabulary word"):
        module(root, vocabulary="bpe", minimum_count=2)


def test_an_epoch_has_a_caption_of_each_picture(root):
    with pytest.raises(ConfigError, match="captions_per_picture is 0: set it to 1 or more"):
        module(root, captions_per_picture=0)


# Prediction.


def test_a_folder_of_pictures_is_there_to_predict(root):
    data = shown(root, predict=str(root / "images/val"))
    batches = [*data.predict_dataloader()]
    assert [batch.indices.tolist() for batch in batches] == [[0, 1], [2]]
    expected = [pixels(root, entry) for entry in of_split("val")]
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), torch.stack(expected))
    assert all(batch.target is None and batch.rows is None for batch in batches)
    with pytest.raises(DataError, match=r"absent: does not exist"):
        shown(root, predict=str(root / "absent")).predict_dataloader()
    with pytest.raises(ConfigError, match=r"set --data\.predict to a folder"):
        shown(root).predict_dataloader()
