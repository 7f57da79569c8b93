"""Hypothesis strategies: random networks that NetX can hold, and inputs for them."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from hypothesis import strategies as st

from netx_export.bounds import bounds
from netx_export.network import (
    BIAS_MAX,
    BIAS_MIN,
    STATE_MAX,
    Average,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    Neuron,
    Pool,
    Shape,
    conv_shape,
)

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
decays = st.sampled_from((0, 1, 123, 1024, 2048, 4000, 4095, 4096)) | st.integers(0, 4096)


@st.composite
def even_weights(draw: st.DrawFn, shape: Shape) -> np.ndarray:
    """Even weights of a drawn range, at least one of them positive."""
    largest = draw(st.sampled_from((2, 8, 30, 126, 254)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = 2 * generator.integers(-largest // 2, largest // 2, size=shape, endpoint=True)
    weight.flat[draw(st.integers(0, weight.size - 1))] = largest
    return weight


@st.composite
def neuron_values(draw: st.DrawFn, shape: Shape, common: st.SearchStrategy[int], most: int) -> int | np.ndarray:
    """One value for all neurons, or, less often, different ones a channel or a neuron."""
    kind = draw(st.sampled_from((None, None, None, shape[:1], shape)))
    if kind is None:
        return draw(common)
    values = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(0, most, size=kind, endpoint=True)
    return values if values.min() < values.max() else int(values.flat[0])


@st.composite
def neurons(draw: st.DrawFn, shape: Shape) -> Neuron:
    """CUBA neurons with thresholds that small networks pass, and sometimes a bias."""
    bias = None
    if draw(st.booleans()):
        kind = draw(st.sampled_from((shape[:1], shape)))
        low, high = draw(st.sampled_from(((-20, 40), (-20, 40), (BIAS_MIN, BIAS_MAX))))
        bias = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(low, high, size=kind, endpoint=True)
    return Neuron(
        threshold=draw(neuron_values(shape, st.integers(0, 400) | st.just(131071), 400)),
        current_decay=draw(neuron_values(shape, decays, 4096)),
        voltage_decay=draw(neuron_values(shape, decays, 4096)),
        bias=bias,
    )


@st.composite
def convs(draw: st.DrawFn, in_shape: Shape, name: str = "") -> Conv:
    """A conv layer for this input, with any stride, padding, dilation, groups and rectangular kernel that fit."""
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if in_shape[0] % g == 0]))
    channels = groups * draw(st.integers(1, 2))
    kernel, stride, dilation = draw(pairs), draw(pairs), draw(pairs)
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    # A kernel that does not fit shrinks to one pixel.
    fits = [d * (k - 1) < n + 2 * p for n, k, d, p in zip(in_shape[1:], kernel, dilation, padding, strict=True)]
    kernel = (kernel[0] if fits[0] else 1, kernel[1] if fits[1] else 1)
    shape = conv_shape(in_shape, channels, kernel, stride, padding, dilation)
    return Conv(
        in_shape=in_shape,
        shape=shape,
        name=name,
        weight=draw(even_weights((channels, in_shape[0] // groups, *kernel))),
        neuron=draw(neurons(shape)),
        weight_scale=draw(st.none() | st.floats(0.1, 1000)),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


@st.composite
def denses(draw: st.DrawFn, inputs: int, name: str = "", synapses: str = "any") -> Dense:
    """A dense layer for this many inputs: plain, with delays, recurrent, or (``"both"``) recurrent with delays."""
    kinds = ("plain", "delay", "recurrent", "both") if inputs <= 12 else ("plain", "delay", "recurrent")
    kind = draw(st.sampled_from(kinds)) if synapses == "any" else synapses
    outputs = inputs if kind == "both" else draw(st.integers(1, 5))
    weight = draw(even_weights((outputs, inputs)))
    delay = recurrent = None
    if kind in ("delay", "both"):
        seed = draw(st.integers(0, 2**32 - 1))
        longest = draw(st.sampled_from((0, 3, 62)))
        delay = np.random.default_rng(seed).integers(0, longest, size=weight.shape, endpoint=True)
    if kind in ("recurrent", "both"):
        recurrent = draw(even_weights((outputs, outputs)))
    if kind == "both":
        weight.flat[0] = 254  # NetX leaves weights as they are that fill their bits
    return Dense(
        in_shape=(inputs,),
        shape=(outputs,),
        name=name,
        weight=weight,
        neuron=draw(neurons((outputs,))),
        recurrent=recurrent,
        delay=delay,
        recurrent_delay=delay if kind == "both" else None,
    )


@st.composite
def networks(draw: st.DrawFn, synapses: str = "any", wraps: bool = False) -> Network:
    """A network of up to four layers with neurons that `netx_export.write` accepts.

    Parameters
    ----------
    synapses : str
        Dense layers are ``"plain"``, ``"delay"``, ``"recurrent"``, ``"both"`` or ``"any"`` of these.
    wraps : bool
        Whether the current of hidden layers may wrap (those need ``allow_wrap=True`` to be written).
    """
    layers: list[Layer] = []
    flat = draw(st.booleans())
    shape: Shape
    if flat:
        shape = (draw(st.integers(1, 6)),)
    else:
        shape = (draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 6)))
        for number in range(draw(st.integers(1, 2))):
            layers.append(draw(convs(shape, name=f"conv{number}")))
            shape = layers[-1].shape
    dense_layers = draw(st.integers(1 if flat else 0, 2))
    if not flat and dense_layers:
        layers.append(Flatten(in_shape=shape, shape=(int(np.prod(shape)),), name="flatten"))
        shape = layers[-1].shape
    for number in range(dense_layers):
        layers.append(draw(denses(shape[0], name=f"dense{number}", synapses=synapses)))
        shape = layers[-1].shape
    if not wraps:
        layers = [_calmed(layer) for layer in layers]
    readout = draw(st.sampled_from(("count", "voltage")))
    return Network(tuple(layers), readout=readout, info=draw(infos))


@st.composite
def chains(draw: st.DrawFn) -> Network:
    """A network of any layers of the network description, at least one of them with neurons; no file holds them all."""
    shape: Shape = (draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    layers: list[Layer] = []
    kinds = draw(st.lists(st.sampled_from(("conv", "pool", "sums")), max_size=3))
    for number, kind in enumerate([*kinds, *draw(st.lists(st.just("dense"), min_size=0 if "conv" in kinds else 1))]):
        name = f"{kind}{number}"
        if kind == "pool":
            kernel = (draw(st.integers(1, shape[1])), draw(st.integers(1, shape[2])))
            out = conv_shape(shape, shape[0], kernel, kernel)
            layers.append(Pool(in_shape=shape, shape=out, kernel=kernel, stride=kernel, name=name))
        elif kind == "dense":
            if len(shape) == 3:
                layers.append(Flatten(in_shape=shape, shape=(int(np.prod(shape)),), name=f"flatten{number}"))
            layers.append(draw(denses(int(np.prod(shape)), name=name)))
        else:
            layer = draw(convs(shape, name=name))
            layers.append(layer if kind == "conv" else replace(layer, neuron=None))
        shape = layers[-1].shape
    if draw(st.booleans()):
        size = int(np.prod(shape))
        groups = draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        layers.append(Average(in_shape=shape, shape=(groups,), name="average"))
        if draw(st.booleans()):
            layers.append(draw(denses(groups, name="last")))
    return Network(tuple(layers))


def _calmed(layer: Layer) -> Layer:
    """The layer, its current forgotten at once where it could wrap."""
    if layer.neuron is None or next(bounds([layer])).current() <= STATE_MAX:
        return layer
    return replace(layer, neuron=replace(layer.neuron, current_decay=4096))


infos = st.dictionaries(
    keys=st.text(max_size=8),
    values=st.none() | st.booleans() | st.integers() | st.lists(st.text(max_size=8), max_size=2),
    max_size=3,
)


@st.composite
def spike_inputs(draw: st.DrawFn, network: Network, samples: int = 2, steps: int = 8, largest: int = 1) -> np.ndarray:
    """Random inputs 0..largest for a network, (samples, *in_shape, steps)."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    active = generator.random((samples, *network.in_shape, steps)) < draw(st.sampled_from((0.1, 0.5, 1.0)))
    return active * generator.integers(1, largest, size=active.shape, endpoint=True)


def assert_same(a: Network, b: Network) -> None:
    """Fail unless two networks agree in everything but `source`."""
    assert (a.readout, a.info, a.numbers) == (b.readout, b.info, b.numbers)
    for one, other in zip(a, b, strict=True):
        assert type(one) is type(other)
        _assert_fields(one, other)


def _assert_fields(one: Layer | Neuron, other: Layer | Neuron) -> None:
    for name in (field.name for field in fields(one)):
        x, y = getattr(one, name), getattr(other, name)
        if isinstance(x, Neuron) and isinstance(y, Neuron):
            _assert_fields(x, y)
        else:
            np.testing.assert_array_equal(x, y, err_msg=name, strict=isinstance(x, np.ndarray))
