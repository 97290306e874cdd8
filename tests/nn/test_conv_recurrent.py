import math
import weakref
from typing import get_args

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seq2seq.errors import ConfigError
from seq2seq.nn.conv_recurrent import GROUP_CHANNELS, ConvRecurrentStack
from seq2seq.nn.recurrent import Cell

CELLS = get_args(Cell)
REFERENCES = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
BATCH, TIME, CHANNELS, HIDDEN, HEIGHT, WIDTH = 3, 5, 2, 4, 6, 7


def stack(cell, hidden_size=HIDDEN, num_layers=1, **options):
    torch.manual_seed(1)
    built = ConvRecurrentStack(cell, CHANNELS, hidden_size, num_layers, **options).double()
    # Off their first values, many of which are zero.
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.3)
    return built


def clips(height=HEIGHT, width=WIDTH, time=TIME):
    return torch.randn(BATCH, time, CHANNELS, height, width, dtype=torch.double)


def assert_same_state(actual, expected):
    for parts, expected_parts in zip(actual.layers, expected.layers, strict=True):
        for part, expected_part in zip(parts, expected_parts, strict=True):
            torch.testing.assert_close(part, expected_part)


def gradients(recurrent, frames, **options):
    recurrent.zero_grad()
    outputs, state = recurrent(frames, **options)
    (outputs.square().sum() + state.layers[0][-1].sum()).backward()
    return {name: parameter.grad.clone() for name, parameter in recurrent.named_parameters()}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, torch.tensor([2, 5, 3])])
def test_on_frames_of_one_pixel_equals_torch_nn(cell, bidirectional, lengths):
    ours = stack(cell, num_layers=2, kernel_size=1, bidirectional=bidirectional)
    theirs = REFERENCES[cell](
        CHANNELS, HIDDEN, 2, batch_first=True, bidirectional=bidirectional
    ).double()
    pairs = []
    for layer, directions in enumerate(ours.layers):
        for direction, module in enumerate(directions):
            place = f"l{layer}" + ("_reverse" if direction else "")
            for ending, convolution in [
                ("ih", module.input_convolution),
                ("hh", module.state_convolution),
            ]:
                for kind in ("weight", "bias"):
                    parameter = getattr(theirs, f"{kind}_{ending}_{place}")
                    original = getattr(convolution, kind)
                    parameter.data = original.data.view(parameter.shape)
                    pairs.append((original, parameter))
    frames = clips(1, 1)
    inputs = frames[..., 0, 0]
    outputs, state = ours(frames, lengths=lengths)
    if lengths is not None:
        inputs = nn.utils.rnn.pack_padded_sequence(
            inputs, lengths, batch_first=True, enforce_sorted=False
        )
    expected, expected_state = theirs(inputs)
    if lengths is not None:
        expected, _ = nn.utils.rnn.pad_packed_sequence(expected, batch_first=True)
    torch.testing.assert_close(outputs[..., 0, 0], expected)
    parts = expected_state if cell == "lstm" else (expected_state,)
    for part, expected_part in zip(zip(*state.layers, strict=True), parts, strict=True):
        torch.testing.assert_close(torch.cat(part)[..., 0, 0], expected_part)

    outputs.square().sum().backward()
    expected.square().sum().backward()
    for original, parameter in pairs:
        torch.testing.assert_close(original.grad.view(parameter.shape), parameter.grad)


@pytest.mark.parametrize("cell", CELLS)
def test_a_kernel_sees_its_neighbourhood_and_no_more(cell):
    recurrent = stack(cell)
    frames = clips().requires_grad_()
    outputs, _ = recurrent(frames)
    outputs[0, 1, :, 2, 3].sum().backward()
    reached = frames.grad[0].abs().sum(dim=1) > 0  # (time, height, width)
    assert reached[1].nonzero().amin(dim=0).tolist() == [1, 2]
    assert reached[1].nonzero().amax(dim=0).tolist() == [3, 4]
    # One frame earlier the state's kernel has widened it by one.
    assert reached[0].nonzero().amin(dim=0).tolist() == [0, 1]
    assert reached[0].nonzero().amax(dim=0).tolist() == [4, 5]
    assert not reached[2:].any()
    assert not frames.grad[1:].any()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("norm", ["none", "layer", "group"])
@pytest.mark.parametrize("checkpoint_steps", [None, 2])
def test_padding_and_batch_mates_change_nothing(cell, bidirectional, norm, checkpoint_steps):
    options = {"norm": norm, "checkpoint_steps": checkpoint_steps}
    recurrent = stack(cell, GROUP_CHANNELS, 2, bidirectional=bidirectional, **options)
    frames, lengths = clips(), torch.tensor([2, 5, 3])
    outputs, state = recurrent(frames, lengths=lengths)
    for row, length in enumerate(lengths):
        alone, alone_state = recurrent(frames[row : row + 1, :length])
        torch.testing.assert_close(outputs[row, :length], alone[0])
        assert not outputs[row, length:].any()
        assert_same_state(state.select(torch.tensor([row])), alone_state)


def test_gradients_do_not_see_padding():
    recurrent, lengths = stack("gru", num_layers=2, bidirectional=True), torch.tensor([2, 4, 3])
    frames = clips()
    expected = gradients(recurrent, frames[:, :4], lengths=lengths)
    padded = frames.clone()
    for row, length in enumerate(lengths):
        padded[row, length:] = 100
    torch.testing.assert_close(gradients(recurrent, padded, lengths=lengths), expected)


@pytest.mark.parametrize("cell", CELLS)
def test_steps_equal_the_whole_clip(cell):
    recurrent = stack(cell, num_layers=2, strides=[2, 1], norm="layer")
    frames = clips()
    whole, last = recurrent(frames)
    state = None
    for position in range(TIME):
        output, state = recurrent.step(frames[:, position], state)
        torch.testing.assert_close(output, whole[:, position])
    assert_same_state(state, last)


@pytest.mark.parametrize("cell", CELLS)
def test_windows_that_carry_the_state_equal_the_whole_clip(cell):
    recurrent = stack(cell, num_layers=2, strides=[1, 2])
    frames, lengths = clips(), torch.tensor([2, 5, 4])
    whole, last = recurrent(frames, lengths=lengths)
    state, windows = None, []
    for start, stop in [(0, 3), (3, 5)]:
        window = (lengths - start).clamp(0, stop - start)
        outputs, state = recurrent(frames[:, start:stop], state, lengths=window)
        windows.append(outputs)
    torch.testing.assert_close(torch.cat(windows, dim=1), whole)
    assert_same_state(state, last)


@pytest.mark.parametrize("cell", CELLS)
def test_a_detached_state_carries_the_past_and_cuts_the_gradient(cell):
    recurrent, frames = stack(cell, num_layers=2), clips().requires_grad_()
    _, state = recurrent(frames[:, :3])
    outputs, _ = recurrent(frames[:, 3:], state.detach())
    torch.testing.assert_close(outputs, recurrent(frames)[0][:, 3:])
    outputs.sum().backward()
    assert not frames.grad[:, :3].any()
    assert frames.grad[:, 3:].any()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("checkpoint_steps", [None, 2])
def test_windows_of_truncated_back_propagation_are_those_of_a_detached_state(
    cell, checkpoint_steps
):
    options = {"num_layers": 2, "norm": "layer", "checkpoint_steps": checkpoint_steps}
    truncated, plain = stack(cell, **options, tbptt_steps=3), stack(cell, **options)
    frames, lengths = clips(), torch.tensor([2, 5, 4])
    outputs, last = truncated(frames, lengths=lengths)
    expected, expected_last = plain(frames, lengths=lengths)
    torch.testing.assert_close(outputs, expected)
    assert_same_state(last, expected_last)

    first, state = plain(frames[:, :3], lengths=lengths.clamp(max=3))
    second, _ = plain(frames[:, 3:], state.detach(), lengths=(lengths - 3).clamp(min=0))
    torch.cat([first, second], dim=1).square().sum().backward()
    outputs.square().sum().backward()
    for ours, theirs in zip(truncated.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("cell", CELLS)
def test_truncation_cuts_both_directions_at_the_same_frames(cell):
    recurrent = stack(cell, bidirectional=True, tbptt_steps=3)
    frames = clips().requires_grad_()
    for position, reached in [(1, [0, 1, 2]), (4, [3, 4])]:
        frames.grad = None
        recurrent(frames)[0][:, position].sum().backward()
        assert frames.grad.abs().sum(dim=(0, 2, 3, 4)).nonzero().flatten().tolist() == reached


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_checkpointing_changes_neither_outputs_nor_gradients(cell, bidirectional, dropout):
    options = {"num_layers": 2, "bidirectional": bidirectional, "dropout": dropout}
    plain, recomputed = stack(cell, **options), stack(cell, **options, checkpoint_steps=2)
    frames, lengths = clips(), torch.tensor([2, 5, 4])

    def run(recurrent):
        torch.manual_seed(7)
        outputs, _ = recurrent(frames, lengths=lengths)
        torch.manual_seed(7)
        return outputs, gradients(recurrent, frames, lengths=lengths)

    torch.testing.assert_close(run(recomputed), run(plain))
    with torch.no_grad():
        torch.testing.assert_close(recomputed.eval()(frames)[0], plain.eval()(frames)[0])


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operators return, while they live."""

    def __init__(self):
        super().__init__()
        self.live, self.peak = {}, 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in self.live:
                    weakref.finalize(storage, self.live.pop, id(storage))
                self.live[id(storage)] = storage.nbytes()
        self.peak = max(self.peak, sum(self.live.values()))
        return result


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_checkpointing_64_frames_takes_at_most_half_of_the_memory(cell):
    frames = clips(3, 3, time=64)

    def peak(checkpoint_steps):
        recurrent = stack(cell, num_layers=2, checkpoint_steps=checkpoint_steps)
        with PeakMemory() as memory:
            recurrent(frames)[0].square().mean().backward()
        return memory.peak

    assert peak(8) <= peak(None) / 2


@pytest.mark.parametrize("cell", CELLS)
def test_strides_make_a_layer_smaller_rounded_up(cell):
    recurrent = stack(cell, num_layers=3, strides=[2, 1, 3], bidirectional=True)
    outputs, state = recurrent(clips())
    assert outputs.shape == (BATCH, TIME, 2 * HIDDEN, 1, 2)
    for parts, size in zip(state.layers, [(3, 4), (3, 4), (1, 2)], strict=True):
        assert {part.shape for part in parts} == {(2, BATCH, HIDDEN, *size)}


def test_a_stride_takes_every_other_place_of_a_single_step():
    whole, strided = stack("gru"), stack("gru", strides=[2])
    frame = clips(time=1)
    torch.testing.assert_close(strided(frame)[0], whole(frame)[0][..., ::2, ::2])


def test_peepholes_look_at_the_old_cell_and_the_output_gate_at_the_new_one():
    recurrent = ConvRecurrentStack("lstm", 1, 1, kernel_size=1, peepholes=True).double()
    for parameter in recurrent.parameters():
        nn.init.zeros_(parameter)
    cell = recurrent.layers[0][0]
    cell.input_convolution.bias.data[:] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    cell.peepholes.data[:, 0, 0, 0] = torch.tensor([2.0, -3.0, 5.0])
    _, state = recurrent(torch.zeros(1, 2, 1, 1, 1, dtype=torch.double))
    first = math.tanh(0.3) * sigmoid(0.1)
    second = sigmoid(0.2 - 3 * first) * first + sigmoid(0.1 + 2 * first) * math.tanh(0.3)
    hidden = sigmoid(0.4 + 5 * second) * math.tanh(second)
    assert [part.item() for part in state.layers[0]] == pytest.approx([hidden, second])


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize(("norm", "groups"), [("layer", 1), ("group", 2)])
def test_a_norm_takes_each_frame_by_itself(norm, groups):
    normalised = stack("gru", 2 * GROUP_CHANNELS, norm=norm)
    nn.init.ones_(normalised.norms[0].weight)
    nn.init.zeros_(normalised.norms[0].bias)
    frames = clips()
    plain, _ = stack("gru", 2 * GROUP_CHANNELS)(frames)
    plain = plain.unflatten(2, (groups, -1))
    expected = nn.functional.layer_norm(plain, plain.shape[3:]).flatten(2, 3)
    torch.testing.assert_close(normalised(frames)[0], expected)


def test_dropout_acts_between_layers_and_only_in_training():
    frames = clips()
    for num_layers in (1, 2):
        recurrent = stack("gru", num_layers=num_layers, dropout=0.5)
        trained, (evaluated, _) = recurrent(frames)[0], recurrent.eval()(frames)
        assert torch.equal(trained, evaluated) == (num_layers == 1)


@pytest.mark.parametrize(
    ("cell", "options"),
    [("rnn", {}), ("gru", {"checkpoint_steps": 2}), ("lstm", {"peepholes": True})],
)
def test_every_parameter_gets_a_gradient(cell, options):
    recurrent = stack(cell, num_layers=2, bidirectional=True, norm="layer", **options)
    for name, gradient in gradients(recurrent, clips()).items():
        assert gradient.any(), name


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_equal_finite_differences(cell):
    recurrent = stack(cell, 2, bidirectional=True, peepholes=cell == "lstm")
    frames = torch.randn(2, 3, CHANNELS, 2, 3, dtype=torch.double, requires_grad=True)
    lengths = torch.tensor([2, 3])
    assert torch.autograd.gradcheck(
        lambda values: recurrent(values, lengths=lengths)[0], frames, fast_mode=True
    )


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("checkpoint_steps", [None, 2])
def test_trains_in_bf16(cell, checkpoint_steps):
    options = {"num_layers": 2, "norm": "layer", "peepholes": cell == "lstm"}
    recurrent = stack(cell, GROUP_CHANNELS, checkpoint_steps=checkpoint_steps, **options).float()
    frames = clips().float()
    expected, state = recurrent(frames)
    with torch.autocast("cpu", torch.bfloat16):
        # From a state of float32, as after a window without autocast.
        outputs, _ = recurrent(frames, state.detach())
        outputs.square().mean().backward()
        outputs, _ = recurrent(frames)
    torch.testing.assert_close(outputs.float(), expected, rtol=0, atol=0.1)
    assert all(parameter.grad.isfinite().all() for parameter in recurrent.parameters())


def test_forget_gates_of_an_lstm_begin_open():
    bias = ConvRecurrentStack("lstm", CHANNELS, HIDDEN).layers[0][0].input_convolution.bias
    torch.testing.assert_close(bias.chunk(4)[1], torch.ones(HIDDEN))
    assert not bias.chunk(4)[0].any()


@pytest.mark.parametrize("cell", CELLS)
def test_state_kernels_begin_by_keeping_the_length_of_a_state(cell):
    convolution = ConvRecurrentStack(cell, CHANNELS, HIDDEN).layers[0][0].state_convolution
    state = torch.randn(BATCH, HIDDEN, HEIGHT, WIDTH)
    for gate in convolution(state).split(HIDDEN, dim=1):
        torch.testing.assert_close(gate.norm(dim=1), state.norm(dim=1))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"cell": "sru"}, "cell is 'sru'; choose one of rnn, gru, lstm"),
        ({"peepholes": True}, "cell 'gru' has no peepholes; set --model.peepholes false"),
        ({"kernel_size": 4}, "kernel_size is 4; it must be odd"),
        ({"strides": [1, 2, 2]}, "--model.strides are 3 for 2 layers"),
        ({"strides": [1, 0]}, r"strides are \[1, 0\]; each must be 1 or more"),
        ({"checkpoint_steps": 0}, "checkpoint_steps is 0; it must be 1 or more"),
        ({"tbptt_steps": 0}, "tbptt_steps is 0; it must be 1 or more, or null to cut nowhere"),
        ({"norm": "batch"}, "norm is 'batch'; choose one of none, layer, group"),
        (
            {"norm": "group", "hidden_size": 12},
            "the output has 12. Make --model.hidden_size a multiple",
        ),
    ],
)
def test_options_that_do_not_fit_are_named(options, problem):
    with pytest.raises(ConfigError, match=problem):
        stack(**{"cell": "gru", "num_layers": 2} | options)


def test_all_problems_are_told_together():
    with pytest.raises(ConfigError, match=r"(?s)cannot be built.*kernel_size is 2.*norm is 'x'"):
        stack("gru", kernel_size=2, norm="x")


def test_a_bidirectional_stack_does_not_stream():
    with pytest.raises(ConfigError, match="Train with bidirectional=false to stream"):
        stack("gru", bidirectional=True).step(clips()[:, 0])
