"""The integer network description, and the reference simulator that other simulators are compared with."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import networks, spike_inputs

import netx_export
from netx_export.network import Average, Conv, Dense, Flatten, Network, NetworkError, Neuron, Pool, conv_shape


def dense(weight: object, **fields: object) -> Dense:
    """A dense layer from its weights."""
    array = np.array(weight)
    neuron = fields.pop("neuron", Neuron(10))
    return Dense(in_shape=(array.shape[1],), shape=(array.shape[0],), weight=array, neuron=neuron, **fields)


def conv(weight: np.ndarray, in_shape: tuple[int, ...], **fields: object) -> Conv:
    """A conv layer from its weights, with stride 1 and no padding."""
    shape = conv_shape(in_shape, len(weight), weight.shape[2:])
    return Conv(in_shape=in_shape, shape=shape, weight=weight, neuron=Neuron(10), **fields)


def one_neuron(neuron: Neuron, current: list[int], weight: int = 1) -> dict[str, np.ndarray]:
    """What the reference records of one neuron with one input."""
    network = Network((dense([[weight]], neuron=neuron),))
    record = reference.simulate(network, np.array(current).reshape(1, 1, -1))[0]
    return {name: values[0, 0] for name, values in record.items()}


# ---------------------------------------------------------------------------------------------- description


def test_public_names_are_sorted_and_there() -> None:
    """`netx_export.__all__` lists names that exist, in order."""
    assert sorted(netx_export.__all__) == netx_export.__all__
    assert all(hasattr(netx_export, name) for name in netx_export.__all__)


def test_import_is_light() -> None:
    """Importing the package brings in neither torch, Lava, SciPy nor h5py."""
    code = "import sys, netx_export; print([m for m in ('torch', 'lava', 'scipy', 'h5py') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_network_knows_its_ends() -> None:
    """Input and output shape and the layers with neurons are those of the chain."""
    pool = Pool(in_shape=(2, 4, 6), shape=(2, 2, 3))
    first = conv(np.ones((3, 2, 1, 1), int), (2, 2, 3))
    flatten = Flatten(in_shape=(3, 2, 3), shape=(18,))
    last = dense(np.ones((4, 18), int))
    network = Network((pool, first, flatten, last))
    assert (network.in_shape, network.shape) == ((2, 4, 6), (4,))
    assert [layer.name for layer in network.spiking] == ["conv1", "dense1"]
    assert [layer.weights for layer in network] == [0, 6, 0, 72]


def test_numbers_are_those_of_the_file() -> None:
    """Layers are numbered 1, 2, ... unless said otherwise."""
    layers = (dense([[2]]), dense([[2]]))
    assert Network(layers).numbers == (1, 2)
    assert Network(layers, groups=(0, 3)).numbers == (0, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network(()), "network: has no layers"),
        (lambda: Network((dense([[2]]),), readout="sum"), "readout 'sum' is neither 'count' nor 'voltage'"),
        (lambda: Network((dense([[2]], name="a"), dense([[2, 2]], name="b"))), r"b takes \(2,\), but layer a .*\(1,\)"),
        (lambda: Network((dense([[2]]),), groups=(1, 2)), "2 numbers of groups for 1 layers"),
        (lambda: dense([[0.5]], name="out"), "layer out: weight is float64, not an integer array"),
        (lambda: Dense(in_shape=(2,), shape=(1,), weight=np.ones(2, int)), r"weight of shape \(2,\) .* rank 2"),
        (lambda: Dense(in_shape=(3,), shape=(1,)), "layer dense: has no weight"),
        (lambda: Dense(in_shape=(3,), shape=(1,), weight=np.ones((1, 2), int)), "2 inputs do not fit an input of 3"),
        (lambda: Dense(in_shape=(2,), shape=(2,), weight=np.ones((1, 2), int)), r"gives \(1,\), not the shape \(2,\)"),
        (lambda: Dense(in_shape=(1, 1, 2), shape=(1,), weight=np.ones((1, 2), int)), "put a flatten layer before"),
        (lambda: dense([[2, 2]], recurrent=np.ones((2, 2), int)), r"recurrent weights of shape \(2, 2\)"),
        (lambda: dense([[2, 2]], delay=np.ones((2, 1), int)), r"delays of shape \(2, 1\)"),
        (lambda: dense([[2, 2]], delay=np.array([[0, -1]])), "delay -1 is negative"),
        (lambda: dense([[2, 2]], recurrent_delay=np.array([[1]])), "recurrent delays, but no recurrent weights"),
        (
            lambda: dense([[2, 2]], recurrent=np.array([[2]]), recurrent_delay=np.ones((1, 2), int)),
            r"recurrent delays of shape \(1, 2\) are not \(1, 1\)",
        ),
        (lambda: dense([[2]], recurrent=np.array([[2]]), recurrent_delay=np.array([[-1]])), "recurrent delay -1 is"),
        (lambda: dense([[2, 2]], neuron=Neuron(1, bias=np.ones(2, int))), r"bias of shape \(2,\)"),
        (lambda: dense([[2, 2]], neuron=Neuron(1, bias=np.ones(1))), "bias is float64"),
        (lambda: conv(np.ones((1, 2, 1, 1), int), (3, 2, 2)), "do not fit 3 input channels"),
        (lambda: conv(np.ones((3, 1, 1, 1), int), (2, 2, 2), groups=2), "weights for 3 output and 1 x 2 groups"),
        (lambda: conv(np.ones((1, 1, 1, 1), int), (1, 2, 2), stride=(0, 1)), "stride, dilation and groups"),
        (lambda: conv(np.ones((1, 1, 3, 3), int), (1, 2, 2)), r"output shape \(1, 0, 0\)"),
        (lambda: conv(np.ones((1, 1, 1, 1), int), (1, 2, 2), stride=(2, 2)), r"gives \(1, 1, 1\), not the shape"),
        (lambda: Flatten(in_shape=(2, 2, 2), shape=(4,)), r"gives \(8,\), not the shape \(4,\)"),
        (lambda: Pool(in_shape=(4,), shape=(2,)), r"takes \(C, H, W\), not \(4,\)"),
        (lambda: Pool(in_shape=(1, 4, 4), shape=(1, 2, 2), kernel=(0, 2)), "kernel and stride must be at least 1"),
        (lambda: Average(in_shape=(2, 2, 2), shape=(3,)), r"cannot average 8 inputs into \(3,\)"),
        (lambda: Average(in_shape=(4,), shape=(1, 2, 1)), r"cannot average 4 inputs into \(1, 2, 1\)"),
        (lambda: dense([[2, 2]], neuron=Neuron(np.ones(2, int))), r"threshold of shape \(2,\)"),
        (lambda: dense([[2, 2]], neuron=Neuron(1, np.ones(1))), "current_decay is float64"),
        (lambda: Flatten(in_shape=(2, 2), shape=(4,)), r"input shape \(2, 2\) is neither"),
    ],
)
def test_what_does_not_fit_is_refused(make: object, message: str) -> None:
    """A layer or network that contradicts itself names the layer and what is wrong with it."""
    with pytest.raises(NetworkError, match=message):
        make()  # type: ignore[operator]


# ---------------------------------------------------------------------------------------------- reference


def test_decays_truncate_toward_zero() -> None:
    """u and v lose their fraction toward zero, whatever their sign."""
    for sign in (1, -1):
        record = one_neuron(Neuron(1000, current_decay=1365, voltage_decay=2048), [1, 0, 0], weight=sign)
        assert record["u"].tolist() == [sign * 64, sign * 42, sign * 28]
        assert record["v"].tolist() == [sign * 64, sign * 74, sign * 65]


def test_threshold_is_strict_and_reset_is_to_zero() -> None:
    """A v equal to the threshold does not spike; one above it does and starts again from 0."""
    record = one_neuron(Neuron(2), [1, 1, 1, 1])
    assert record["spikes"].tolist() == [0, 0, 1, 0]
    assert record["v"].tolist() == [64, 128, 0, 64]


def test_current_wraps_at_24_bits() -> None:
    """u keeps 2**23 itself, as lava-nc does, and wraps above it and from -2**23 down."""
    above = 1 << 17  # 2**23 in units of u
    assert one_neuron(Neuron(0), [above, above + 1])["u"].tolist() == [1 << 23, -(1 << 23) + 64]
    assert one_neuron(Neuron(0), [-above, -above + 1])["u"].tolist() == [1 << 23, -(1 << 23) + 64]


def test_voltage_saturates_on_both_sides() -> None:
    """v stops at +-(2**23 - 1); only the largest threshold mantissa is still below that."""
    for sign in (1, -1):
        record = one_neuron(Neuron(1 << 17), [sign * 100_000] * 3)
        assert record["v"].tolist() == [sign * 6_400_000, sign * (2**23 - 1), sign * (2**23 - 1)]
    assert one_neuron(Neuron((1 << 17) - 1), [100_000] * 3)["spikes"].tolist() == [0, 1, 0]


def test_bias_and_its_exponent() -> None:
    """A bias of b with exponent e adds b * 2**e in every step, one a channel or one a neuron."""
    record = one_neuron(Neuron(1000, bias=np.array([-3]), bias_exponent=4), [0, 0])
    assert record["v"].tolist() == [-48, -96]
    per_neuron = np.arange(4).reshape(1, 2, 2)
    for bias, expected in ((np.array([5]), np.full((2, 2), 320)), (per_neuron, 64 * per_neuron[0])):
        shape = (1, 2, 2)
        layer = Conv(in_shape=shape, shape=shape, weight=np.ones((1, 1, 1, 1), int), neuron=Neuron(1000, bias=bias))
        record = reference.simulate(Network((layer,)), np.zeros((1, 1, 2, 2, 1), int))[0]
        np.testing.assert_array_equal(record["v"][0, 0, :, :, 0], expected)


def test_neurons_can_differ() -> None:
    """Thresholds and decays of each neuron, or of each channel, are those of a layer that has only these."""
    weight = np.full((2, 1), 30)
    pulse = np.array([[[3, 0, 1, 2, 0]]])
    both = Neuron(np.array([50, 80]), np.array([1000, 4096]), np.array([0, 300]))
    record = reference.simulate(Network((dense(weight.tolist(), neuron=both),)), pulse)[0]
    maps = Conv(in_shape=(1, 1, 1), shape=(2, 1, 1), weight=weight[:, :, None, None], neuron=both)
    of_maps = reference.simulate(Network((maps,)), pulse[:, :, None, None])[0]
    for n, neuron in enumerate((Neuron(50, 1000, 0), Neuron(80, 4096, 300))):
        alone = one_neuron(neuron, pulse[0, 0].tolist(), weight=30)
        for what in ("u", "v", "spikes"):
            assert record[what][0, n].tolist() == of_maps[what][0, n, 0, 0].tolist() == alone[what].tolist()


def test_average_sums_groups() -> None:
    """Neighbouring inputs are added up, channels slowest."""
    average = Network((Average(in_shape=(2, 1, 2), shape=(2,)),))
    assert reference.simulate(average, np.arange(4).reshape(1, 2, 1, 2, 1))[0]["spikes"].ravel().tolist() == [1, 5]


def test_delays_and_recurrence() -> None:
    """A delay of d arrives d steps later; a neuron's own spike arrives one step later, or d + 1."""
    delayed = Network((dense([[2, 4]], delay=np.array([[0, 2]]), neuron=Neuron(1000)),))
    pulse = np.zeros((1, 2, 4), int)
    pulse[:, :, 0] = 1
    assert reference.simulate(delayed, pulse)[0]["u"][0, 0].tolist() == [128, 0, 256, 0]
    recurrent = Network((dense([[20]], recurrent=np.array([[-8]])),))
    assert reference.simulate(recurrent, pulse[:, :1])[0]["u"][0, 0].tolist() == [1280, -512, 0, 0]
    late = Network((dense([[20]], recurrent=np.array([[-8]]), recurrent_delay=np.array([[2]])),))
    assert reference.simulate(late, pulse[:, :1])[0]["u"][0, 0].tolist() == [1280, 0, 0, -512]


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_convolution_agrees_with_torch(data: st.DataObject) -> None:
    """The reference's convolution is PyTorch's: cross-correlation, pairs as (height, width)."""
    torch = pytest.importorskip("torch")
    network = data.draw(networks().filter(lambda n: isinstance(n.layers[0], Conv)))
    inputs = data.draw(spike_inputs(network, largest=9))
    layer = network.layers[0]
    assert isinstance(layer, Conv)
    got = reference.synapses(layer, inputs, 3)
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(inputs[..., 3]).double(),
        torch.from_numpy(layer.weight).double(),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )
    np.testing.assert_array_equal(got, expected.numpy())


def test_sum_pool_and_flatten_keep_the_order() -> None:
    """A pool adds up its window; flatten puts channels slowest."""
    image = np.arange(16).reshape(1, 1, 4, 4, 1)
    pool = Network((Pool(in_shape=(1, 4, 4), shape=(1, 2, 2)), Flatten(in_shape=(1, 2, 2), shape=(4,))))
    assert reference.simulate(pool, image)[1]["spikes"][0, :, 0].tolist() == [10, 18, 42, 50]
    flatten = Network((Flatten(in_shape=(2, 1, 2), shape=(4,)),))
    flat = reference.simulate(flatten, np.arange(4).reshape(1, 2, 1, 2, 1))[0]["spikes"]
    assert flat.ravel().tolist() == [0, 1, 2, 3]
