from itertools import product
from typing import get_args

import pytest
import torch
from torch import nn

from seq2seq.batches import Memory
from seq2seq.decoders.recurrent import RecurrentDecoder
from seq2seq.decoders.series import Head, SeriesDecoder
from seq2seq.errors import ConfigError
from seq2seq.nn.recurrent import Cell

BATCH, TIME, CHANNELS, HIDDEN = 3, 11, 2, 5
CELLS, HEADS, LAGS = get_args(Cell), get_args(Head), (0, 1, 3)
ALL = list(product(CELLS, HEADS, LAGS, (False, True)))
EVERY = pytest.mark.parametrize(("cell", "head", "difference", "residual"), ALL)


def decoder(cell="lstm", head="value", difference=0, residual=False, **options):
    torch.manual_seed(1)
    return SeriesDecoder(
        CHANNELS,
        hidden_size=HIDDEN,
        cell=cell,
        head=head,
        difference=difference,
        residual=residual,
        **options,
    ).double()


def series(batch=BATCH, time=TIME):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, time, CHANNELS, generator=generator).double().cumsum(dim=1) / 3


def known(values, share=0.7):
    return torch.rand(values.shape, generator=torch.Generator().manual_seed(3)) < share


def begin(model, values, is_known):
    lead = model.lead
    state = model.begin(values[:, :lead], is_known[:, :lead])
    return values[:, lead:], is_known[:, lead:], state


def step_through(model, values, is_read, state):
    """Predict step by step, and write down what was read."""
    means, read = [], []
    for step in range(values.shape[1]):
        here = slice(step, step + 1)
        output = model(values[:, here], is_read[:, here], state)
        means.append(output.values)
        read.append(torch.where(is_read[:, here], values[:, here], output.values))
        state = output.state
    return torch.cat(means, dim=1), torch.cat(read, dim=1), state


def test_two_layers_of_51_and_a_linear_head_are_the_classic_network():
    torch.manual_seed(1)
    model = SeriesDecoder(1, hidden_size=51, num_layers=2, cell="lstm")
    classic, head = nn.LSTM(1, 51, num_layers=2, batch_first=True), nn.Linear(51, 1)
    layers = model.decoder.lower.layers
    for number, layer in enumerate(layers):
        for name, parameter in layer.named_parameters():
            getattr(classic, name.replace("l0", f"l{number}")).data.copy_(parameter)
    head.load_state_dict(model.decoder.output_layer.state_dict())
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for part in (classic, head) for p in part.parameters()
    )
    values = series(time=30)[:, :, :1].float()
    output = model(values[:, 1:], torch.ones_like(values[:, 1:]).bool(), begin_all(model, values))
    expected = head(classic(values[:, :-1])[0])
    torch.testing.assert_close(output.values, expected)


def begin_all(model, values):
    return model.begin(values[:, : model.lead], torch.ones_like(values[:, : model.lead]).bool())


@EVERY
def test_a_whole_stretch_equals_the_step_loop(cell, head, difference, residual):
    model = decoder(cell, head, difference, residual, layer_norm=True)
    values = series()
    for is_known in (torch.ones_like(values).bool(), known(values)):
        steps, is_read, state = begin(model, values, is_known)
        output = model(steps, is_read, state)
        means, _, last = step_through(model, steps, is_read, state)
        torch.testing.assert_close(output.values, means)
        torch.testing.assert_close(output.state, last)


@EVERY
def test_a_series_in_two_parts_equals_the_whole(cell, head, difference, residual):
    model, values = decoder(cell, head, difference, residual), series()
    steps, is_read, state = begin(model, values, known(values))
    whole = model(steps, is_read, state)
    first = model(steps[:, :4], is_read[:, :4], state)
    second = model(steps[:, 4:], is_read[:, 4:], first.state)
    torch.testing.assert_close(torch.cat([first.values, second.values], dim=1), whole.values)


@EVERY
def test_what_is_missing_is_read_as_it_was_predicted(cell, head, difference, residual):
    model, values = decoder(cell, head, difference, residual), series()
    steps, is_read, state = begin(model, values, torch.ones_like(values).bool())
    is_read = known(steps)
    output = model(steps, is_read, state)
    _, read, _ = step_through(model, steps, is_read, state)
    filled = model(read, torch.ones_like(is_read), state)
    torch.testing.assert_close(output.values, filled.values)
    other = torch.where(is_read, steps, 99.0)
    torch.testing.assert_close(model(other, is_read, state).values, output.values)


@EVERY
def test_running_free_reads_nothing_but_what_was_predicted(cell, head, difference, residual):
    model, values = decoder(cell, head, difference, residual), series()
    state = begin_all(model, values)
    free = model.run_free(state, 6)
    expected = []
    for _ in range(6):
        output = model.run_free(state, 1)
        state = output.state
        expected.append(output.values)
        torch.testing.assert_close(state.recent[:, -1], output.values[:, 0])
    torch.testing.assert_close(free.values, torch.cat(expected, dim=1))


@pytest.mark.parametrize("difference", LAGS[1:])
def test_a_difference_is_that_of_the_differenced_series(difference):
    model, plain = decoder(difference=difference), decoder()
    values = series()
    steps, is_read, state = begin(model, values, torch.ones_like(values).bool())
    changes = values[:, difference:] - values[:, :-difference]
    inner = begin(plain, changes, torch.ones_like(changes).bool())
    expected = values[:, 1:-difference] + plain(*inner).values
    torch.testing.assert_close(model(steps, is_read, state).values, expected)


def test_a_residual_is_added_to_the_last_value():
    model, plain, values = decoder(residual=True), decoder(), series()
    steps, is_read, state = begin(model, values, torch.ones_like(values).bool())
    change = model(steps, is_read, state).values - values[:, :-1]
    torch.testing.assert_close(change, plain(steps, is_read, state).values)


def test_a_series_begins_with_the_mean_or_with_what_was_known_before():
    model = decoder(difference=2)
    values = torch.tensor([[[5.0, 6.0], [7.0, 8.0], [9.0, 1.0]]])
    is_known = torch.tensor([[[False, True], [True, False], [False, False]]])
    recent = model.begin(values, is_known).recent
    assert recent.tolist() == [[[0.0, 6.0], [7.0, 6.0], [7.0, 6.0]]]


@EVERY
def test_every_parameter_gets_a_gradient_also_through_what_is_read_of_its_own(
    cell, head, difference, residual
):
    model, values = decoder(cell, head, difference, residual), series()
    output = model.run_free(begin_all(model, values), 4)
    loss = output.values[:, -1].square().sum()
    if output.deviation is not None:
        loss = loss + output.deviation[:, -1].sum()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_gradient_is_that_of_finite_differences():
    model, values = decoder("gru", residual=True), series(batch=1, time=5)
    steps, is_read, state = begin(model, values, known(values, 0.5))
    weight = model.decoder.output_layer.weight
    [gradient] = torch.autograd.grad(model(steps, is_read, state).values.square().sum(), weight)

    def loss(step):
        weight.data[1, 2] += step
        total = model(steps, is_read, state).values.square().sum().detach()
        weight.data[1, 2] -= step
        return total

    torch.testing.assert_close((loss(1e-6) - loss(-1e-6)) / 2e-6, gradient[1, 2])


@EVERY
def test_rows_do_not_see_each_other(cell, head, difference, residual):
    model, values = decoder(cell, head, difference, residual), series()
    steps, is_read, state = begin(model, values, known(values))
    together = model(steps, is_read, state)
    row = torch.tensor([1])
    alone = model(steps[row], is_read[row], state.select(row))
    torch.testing.assert_close(alone.values, together.values[row])


def test_the_spread_of_a_random_walk_grows_with_the_root_of_time():
    model = decoder(head="gaussian", residual=True)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)  # no change, and a deviation of softplus(0)
    state = begin_all(model, series())
    spread = model.spread(state, model.run_free(state, 16).values, paths=1500, seed=1)
    expected = torch.tensor(range(1, 17)).double().sqrt() * torch.tensor(2.0).double().log()
    torch.testing.assert_close(
        spread, expected[None, :, None].expand_as(spread), rtol=0.1, atol=0.0
    )


def test_the_spread_is_the_same_for_any_batch_and_another_for_another_seed():
    model, values = decoder(head="gaussian"), series()
    state = begin_all(model, values)
    center = model.run_free(state, 5).values
    spread = model.spread(state, center, paths=7, seed=4)
    row = torch.tensor([2])
    torch.testing.assert_close(model.spread(state.select(row), center[row], 7, 4), spread[row])
    assert not torch.allclose(model.spread(state, center, 7, 5), spread)


def test_a_state_that_is_packed_and_unpacked_is_the_same():
    model = decoder("lstm", difference=1)
    state = model.run_free(begin_all(model, series()), 2).state
    torch.testing.assert_close(type(state).unpack(state.pack()), state)
    assert not any(part.requires_grad for part in state.detach().pack())


# The decoder without a memory.


def bare(**options):
    sizes = {"input_size": 4, "feature_size": HIDDEN, "memory_size": 0, "hidden_size": HIDDEN}
    defaults = {"attention": "none", "feed": "output", "readout": "none"}
    return RecurrentDecoder(nn.Identity(), nn.Identity(), **{**sizes, **defaults, **options})


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("readout", ["none", "tanh"])
def test_without_a_memory_the_first_state_is_zero_and_a_step_is_a_step_of_the_whole(cell, readout):
    model = bare(cell=cell, readout=readout)
    values = torch.randn(BATCH, TIME, 4)
    memory = Memory.nothing(BATCH, values)
    state = model.init_state(memory)
    assert not any(part.any() for part in state.recurrent)
    whole = model(values, memory)
    for step in range(TIME):
        output = model.step(values[:, step], state, memory)
        torch.testing.assert_close(output.scores, whole.features[:, step])
        state = output.state
    torch.testing.assert_close(state, whole.state)


def test_attention_needs_a_memory():
    with pytest.raises(ConfigError, match=r"attention 'dot' has no memory"):
        bare(attention="dot")


def test_inputs_that_are_values_are_not_dropped():
    model = bare(dropout=0.9, drops_inputs=False, num_layers=1)
    values = torch.randn(BATCH, TIME, 4)
    model.train()
    first, second = (model(values, Memory.nothing(BATCH, values)) for _ in range(2))
    torch.testing.assert_close(first.state, second.state)
    assert not torch.equal(first.features, second.features)
