import itertools
from typing import get_args

import pytest
import torch
from torch import nn

from seq2seq.batches import Memory
from seq2seq.decoders.base import DecodingState
from seq2seq.decoders.recurrent import Feed, RecurrentDecoder
from seq2seq.errors import ConfigError
from seq2seq.nn.attention import AttentionKind
from seq2seq.nn.embedding import TokenEmbedding
from seq2seq.nn.recurrent import Cell
from seq2seq.sequences import lengths_to_mask

BATCH, TIME, SOURCE, HIDDEN, INPUT, FEATURES, VOCAB = 3, 5, 4, 7, 6, 8, 11
CELLS, ATTENTIONS, FEEDS = map(get_args, (Cell, AttentionKind, Feed))
ALL = list(itertools.product(CELLS, ATTENTIONS, FEEDS))


def decoder(cell="gru", attention="bilinear", feed="layer", num_layers=2, **options):
    torch.manual_seed(1)
    return RecurrentDecoder(
        TokenEmbedding(VOCAB, INPUT),
        nn.Linear(FEATURES, VOCAB),
        input_size=INPUT,
        feature_size=FEATURES,
        memory_size=HIDDEN,
        hidden_size=HIDDEN,
        num_layers=num_layers,
        cell=cell,
        attention=attention,
        feed=feed,
        **options,
    ).double()


def memory(batch=BATCH):
    torch.manual_seed(2)
    lengths = torch.tensor([4, 2, 3])[:batch]
    return Memory(
        torch.randn(batch, SOURCE, HIDDEN).double(),
        lengths_to_mask(lengths, SOURCE),
        torch.randn(batch, HIDDEN).double(),
    )


def tokens():
    return torch.randint(1, VOCAB, (BATCH, TIME), generator=torch.Generator().manual_seed(3))


def step_through(model, inputs, source, state):
    scores, weights = [], []
    for position in range(inputs.shape[1]):
        output = model.step(inputs[:, position], state, source)
        state = output.state
        scores.append(output.scores)
        weights.append(output.attention)
    return torch.stack(scores, dim=1), weights, state


@pytest.mark.parametrize(("cell", "attention", "feed"), ALL)
def test_parallel_pass_equals_the_step_loop(cell, attention, feed):
    model, source, inputs = decoder(cell, attention, feed, layer_norm=True), memory(), tokens()
    output = model(inputs, source)
    prepared = model.prepare(source)
    scores, weights, state = step_through(model, inputs, prepared, model.init_state(prepared))
    torch.testing.assert_close(model.score(output.features), scores)
    torch.testing.assert_close(output.state, state)
    if attention == "none":
        assert output.attention is None
    else:
        torch.testing.assert_close(output.attention, torch.stack(weights, dim=1))


@pytest.mark.parametrize(("cell", "attention", "feed"), ALL)
def test_a_sequence_in_two_parts_equals_the_whole(cell, attention, feed):
    model, source, inputs = decoder(cell, attention, feed), memory(), tokens()
    whole = model(inputs, source)
    head = model(inputs[:, :2], source)
    tail = model(inputs[:, 2:], source, head.state)
    torch.testing.assert_close(torch.cat([head.features, tail.features], dim=1), whole.features)


@pytest.mark.parametrize(("cell", "attention", "feed"), ALL)
def test_every_parameter_gets_a_gradient(cell, attention, feed):
    model = decoder(cell, attention, feed)
    model.score(model(tokens(), memory()).features).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("cell", "attention", "feed"), ALL)
def test_beams_share_the_memory_of_their_sentence(cell, attention, feed):
    model, source = decoder(cell, attention, feed), memory()
    spread = torch.arange(BATCH).repeat_interleave(2)
    token = torch.randint(1, VOCAB, (2 * BATCH,))
    state = model.init_state(source).select(spread)
    state = model.step(token, state, source).state
    shared = model.step(token, state, source)
    copied = model.step(token, state, source.select(spread))
    torch.testing.assert_close(shared, copied)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_any_depth_works(attention, num_layers):
    model = decoder(attention=attention, feed="output", num_layers=num_layers)
    output = model(tokens(), memory())
    assert output.features.shape == (BATCH, TIME, FEATURES)
    assert output.state.recurrent[0].shape == (num_layers, BATCH, HIDDEN)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("feed", FEEDS)
def test_rows_do_not_see_each_other(attention, feed):
    model, source, inputs = decoder(attention=attention, feed=feed), memory(), tokens()
    row = torch.tensor([1])
    alone = model(inputs[row], source.select(row)).features
    torch.testing.assert_close(model(inputs, source).features[row], alone)


def test_later_inputs_do_not_reach_earlier_outputs():
    model, source, inputs = decoder(), memory(), tokens()
    changed = inputs.clone()
    changed[:, 3:] = 1
    torch.testing.assert_close(
        model(changed, source).features[:, :3], model(inputs, source).features[:, :3]
    )


def test_select_reorders_and_detach_cuts_the_graph():
    model, source = decoder("lstm", feed="input"), memory()
    state = model(tokens(), source).state
    index = torch.tensor([2, 0, 0, 1])
    selected = state.select(index)
    for part, chosen in zip(state.recurrent, selected.recurrent, strict=True):
        torch.testing.assert_close(chosen, part[:, index])
    torch.testing.assert_close(selected.fed, state.fed[index])
    assert state.recurrent[1].requires_grad
    assert not any(part.requires_grad for part in state.detach().recurrent)
    assert not state.detach().fed.requires_grad


def test_selecting_sentences_drops_their_memory():
    model, source = decoder(), memory()
    state = DecodingState(model.init_state(source), model.prepare(source))
    kept = state.select(torch.tensor([2]), torch.tensor([2]))
    torch.testing.assert_close(kept.memory.values, source.values[2:])
    torch.testing.assert_close(kept.decoder.recurrent[0], state.decoder.recurrent[0][:, 2:])


def test_the_initial_state_is_made_from_the_summary():
    model, source = decoder(num_layers=2), memory()
    state = model.init_state(source).recurrent[0]
    expected = torch.tanh(source.summary @ model.init_layer.weight.T + model.init_layer.bias)
    torch.testing.assert_close(torch.cat([state[0], state[1]], dim=-1), expected)


def test_all_problems_of_the_options_come_together():
    with pytest.raises(ConfigError) as error:
        decoder(cell="sru", attention="cosine", feed="front", num_layers=0)
    for problem in (
        "cell is 'sru'",
        "attention is 'cosine'",
        "feed is 'front'",
        "at least one layer",
    ):
        assert problem in str(error.value)


def test_feeding_a_layer_needs_two_layers():
    with pytest.raises(ConfigError, match=r"two decoder layers.*--model\.feed output"):
        decoder(feed="layer", num_layers=1)


def test_input_feeding_refuses_variational_dropout():
    with pytest.raises(ConfigError, match=r"feed 'input'.*--model\.variational_dropout false"):
        decoder(feed="input", dropout=0.1, variational_dropout=True)
