import pytest
import torch
from pycocoevalcap.cider.cider import Cider
from toy_captions import captioner, module, write_corpus, write_weights

from seq2seq.errors import ConfigError
from seq2seq.metrics.cider import END_MARK
from seq2seq.tasks.options import Optimization
from seq2seq.tasks.self_critical import CaptionReward, SelfCritical, leave_one_out
from seq2seq.words import caption_words

CORPUS = [
    ("A dog runs on the beach.", "A brown dog at the sea."),
    ("Two children play.", "Children play in the snow.", "Two kids in snow."),
    ("A man rides his bike.",),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(write_weights(tmp_path_factory.mktemp("weights") / "backbone.pt"))


@pytest.fixture
def root(tmp_path):
    return write_corpus(tmp_path)


# The reward.


def test_an_output_is_compared_with_the_others_of_its_input():
    rewards = torch.tensor([[1.0, 4.0, 1.0], [2.0, 2.0, 2.0]])
    expected = torch.tensor([[-1.5, 3.0, -1.5], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(leave_one_out(rewards), expected)
    torch.testing.assert_close(leave_one_out(torch.tensor([[5.0, 3.0]])), torch.tensor([[2.0, -2]]))


def test_the_reward_is_cider_d_with_the_end_as_a_word():
    captions = [(0, "a dog runs", True), (1, "Two children in snow .", True), (1, "a man", False)]
    found = CaptionReward(CORPUS)(
        [picture for picture, *_ in captions], [tuple(rest) for _, *rest in captions]
    )
    right = {
        n: [f"{' '.join(caption_words(t))} {END_MARK}" for t in r] for n, r in enumerate(CORPUS)
    }
    for (picture, text, is_finished), score in zip(captions, found, strict=True):
        words = [*caption_words(text), *[END_MARK] * is_finished]
        given = {number: [" ".join(words) if number == picture else ""] for number in right}
        _, expected = Cider().compute_score(right, given)
        assert score == pytest.approx(expected[picture], abs=1e-9)
    assert found[0] > 0


def test_a_caption_that_breaks_off_earns_less():
    whole, broken = CaptionReward(CORPUS)([2, 2], [("A man rides his bike", end) for end in (1, 0)])
    assert broken < whole == pytest.approx(10)


# The loss.


def test_the_gradient_is_that_of_the_likelihood_weighed_by_the_advantage(root, make_trainer):
    task = captioner(self_critical=SelfCritical(samples=3, temperature=0.8))
    data = module(root, batch_size=6)
    trainer = make_trainer(max_steps=1, limit_val_batches=0)
    found = {}

    def noted(batch):
        found["sampled"], found["advantages"] = sample(batch)
        return found["sampled"], found["advantages"]

    sample, task._sample = task._sample, noted
    step = task.training_step

    def checked(batch, batch_idx):
        loss = step(batch, batch_idx)
        sampled = found["sampled"]
        assert len(sampled.target) == 3 * len(batch.inputs)
        scores = task.decoder.score(task.follow_target(sampled).features) / 0.8
        log_probs = scores.log_softmax(dim=-1).gather(2, sampled.target.unsqueeze(2)).squeeze(2)
        is_real = sampled.target != 0
        likelihood = (log_probs * is_real).sum(dim=1)
        expected = -(found["advantages"] * likelihood).sum() / is_real.sum()
        torch.testing.assert_close(loss, expected)
        return loss

    task.training_step = checked
    trainer.fit(task, data)
    assert found


def test_the_second_stage_starts_from_a_checkpoint_and_raises_the_reward(
    root, weights, make_trainer, tmp_path
):
    first = make_trainer(max_steps=12, limit_val_batches=0)
    first.fit(captioner(backbone_weights=weights), module(root))
    first.save_checkpoint(tmp_path / "first.ckpt")
    start = {name: value.clone() for name, value in first.model.state_dict().items()}
    rewards = []
    for learning_rate in (1e-9, 0.01):
        torch.manual_seed(1)
        task = captioner(
            init_from=str(tmp_path / "first.ckpt"),
            self_critical=SelfCritical(samples=6),
            optimization=Optimization(learning_rate=learning_rate),
        )
        second = make_trainer(max_steps=15, gradient_clip_val=1.0, limit_val_batches=0)
        second.fit(task, module(root, batch_size=6, cache_features=True))
        rewards.append(second.callback_metrics["train/reward"].item())
        if learning_rate < 1e-8:
            for name, value in task.state_dict().items():
                torch.testing.assert_close(value, start[name], msg=name, atol=1e-6, rtol=1e-5)
    before, after = rewards
    assert after > before + 0.5


# Refused.


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"samples": 1}, r"samples=1 must be 0 for none, or at least 2"),
        ({"samples": -2, "temperature": 0, "seed": -1}, r"(?s)samples=-2.*temperature=0.*seed=-1"),
    ],
)
def test_options_that_cannot_work_are_named(options, match):
    with pytest.raises(ConfigError, match=match):
        SelfCritical(**options)
