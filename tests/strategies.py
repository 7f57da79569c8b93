"""Hypothesis strategies: random networks that NetX can hold, and inputs for them."""

from __future__ import annotations

import dataclasses
from dataclasses import fields, replace

import numpy as np
from hypothesis import strategies as st

from netx_export.bounds import bounds
from netx_export.network import (
    BIAS_MAX,
    BIAS_MIN,
    STATE_MAX,
    Add,
    AnyNeuron,
    Average,
    Conv,
    ConvT,
    Dense,
    Flatten,
    Layer,
    Network,
    Neuron,
    Pool,
    Shape,
    Sigma,
    SigmaDelta,
    conv_shape,
    transposed_shape,
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
def transposed(draw: st.DrawFn, layer: Conv) -> ConvT:
    """The layer, but that it is a transposed convolution; its padding leaves something."""
    assert layer.weight is not None
    kernel, stride, dilation = layer.weight.shape[2:], layer.stride, layer.dilation
    whole = transposed_shape(layer.in_shape, 1, kernel, stride, (0, 0), dilation)
    padding = tuple(min(p, (n - 1) // 2) for p, n in zip(layer.padding, whole[1:], strict=True))
    shape = transposed_shape(layer.in_shape, layer.shape[0], kernel, stride, padding, dilation)
    fields = {"padding": padding, "shape": shape, "neuron": draw(neurons(shape))}
    return ConvT(**{field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)} | fields)


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


@st.composite
def graphs(draw: st.DrawFn, form: str = "any") -> Network:
    """A random graph: branches with strides, pools, shortcuts over several layers, merges of two or three.

    Parameters
    ----------
    form : str
        ``"currents"``: what merges are convolutions without neurons, and spikes through a weight of their own, in an
        `Add` with neurons; no other layer is without neurons (Lava's own processes can run it). ``"spikes"``: what
        merges is spikes, in an `Add` without neurons before a layer with weights, and pools have none (chips without
        a clock can run it, with integrate-and-fire neurons). ``"any"``: all that the description allows.
    """
    shape = (draw(st.integers(1, 2)), draw(st.integers(2, 5)), draw(st.integers(2, 5)))
    layers: list[Layer] = []
    open_: dict[str, Shape] = {}
    """Outputs that can be taken, by name."""

    def put(layer: Layer) -> str:
        name = f"{layer.kind}{len(layers) + 1}"
        neuron = layer.neuron
        if form == "spikes" and neuron is not None:
            most = int(layer.weight.max())  # type: ignore[union-attr]
            # Higher, and deep layers would hardly ever spike; lower, and an event would become millions.
            neuron = Neuron(draw(st.integers(-(-most // 16), most)))
        layers.append(replace(layer, name=name, neuron=neuron))
        open_[name] = layer.shape
        return name

    def conv(source: str, neuron: bool = True, like: Shape | None = None) -> str:
        """A convolution; or one that gives what another gives."""
        before = open_[source]
        layer: Layer
        if like is None:
            layer = draw(convs(before))
            if form != "currents" and max(before[1:]) <= 4 and draw(st.integers(0, 5)) == 5:
                layer = draw(transposed(layer))
        else:
            stride = tuple(-(-n // m) for n, m in zip(before[1:], like[1:], strict=True))
            kernel = tuple(n - (m - 1) * s for n, m, s in zip(before[1:], like[1:], stride, strict=True))
            padding = (0, 0)
            if min(kernel) < 1:
                # As many more rows and columns, of zeros, as a kernel of one pixel needs.
                padding = tuple(max(0, -(-(1 - k) // 2)) for k in kernel)
                kernel = tuple(k + 2 * p for k, p in zip(kernel, padding, strict=True))
            weight = draw(even_weights((like[0], before[0], *kernel)))
            layer = Conv(
                in_shape=before, shape=like, weight=weight, neuron=draw(neurons(like)), stride=stride, padding=padding
            )
        return put(replace(layer, inputs=(source,), neuron=layer.neuron if neuron else None))

    def add(sources: list[str], neuron: bool) -> str:
        like = open_[sources[0]]
        return put(
            Add(in_shape=like, shape=like, inputs=tuple(sources), neuron=draw(neurons(like)) if neuron else None)
        )

    open_["input"] = shape
    conv("input")
    del open_["input"]
    for _ in range(draw(st.integers(1, 3))):
        source = draw(st.sampled_from(sorted(open_)))
        ways = draw(st.integers(1, 3))
        if form == "any" and draw(st.booleans()) and len(open_[source]) == 3:
            before = open_[source]
            kernel = (draw(st.integers(1, before[1])), draw(st.integers(1, before[2])))
            out = conv_shape(before, before[0], kernel, kernel)
            source = put(Pool(in_shape=before, shape=out, kernel=kernel, stride=kernel, inputs=(source,)))
        if form == "spikes" and draw(st.booleans()) and min(open_[source][1:]) > 1:
            before = open_[source]
            out = conv_shape(before, before[0], (2, 2), (2, 2))
            source = put(Pool(in_shape=before, shape=out, inputs=(source,)))
        if ways == 1:
            conv(source, neuron=form != "any" or draw(st.booleans()))
            continue
        # The first way goes over up to two layers; shortcuts start there, or earlier.
        deep = source
        for _ in range(draw(st.integers(0, 2))):
            deep = conv(deep)
        merged = form == "spikes" or (form == "any" and draw(st.booleans()))
        starts = [draw(st.sampled_from(sorted(open_))) for _ in range(ways - 1)]
        sources = [conv(deep, neuron=merged)]
        like = open_[sources[0]]
        for start in starts:
            plain = open_[start] == like and start not in sources and (form != "currents" or draw(st.booleans()))
            sources.append(start if plain and draw(st.booleans()) else conv(start, merged, like))
        merge = add(sources, neuron=not merged or (form == "any" and draw(st.booleans())))
        if merged and form == "spikes":
            conv(merge)
    leaves = [name for name in open_ if not any(name in layer.inputs for layer in layers)]
    size = draw(st.integers(1, 4))
    ends = []
    for name in leaves:
        last = len(leaves) == 1 or form == "spikes"
        flat = (int(np.prod(open_[name])),)
        source = put(Flatten(in_shape=open_[name], shape=flat, inputs=(name,)))
        layer = Dense(
            in_shape=flat, shape=(size,), weight=draw(even_weights((size, *flat))), neuron=draw(neurons((size,)))
        )
        ends.append(put(replace(layer, inputs=(source,), neuron=layer.neuron if last else None)))
    if len(ends) > 1:
        end = add(ends, neuron=form != "spikes")
        if form == "spikes":
            put(replace(draw(denses(size, synapses="plain")), inputs=(end,)))
    return Network(tuple(layers), readout="count", reset="subtract" if form == "spikes" else "zero")


@st.composite
def sigma_deltas(draw: st.DrawFn, network: Network) -> Network:
    """The network, with sigma-delta neurons instead of all others, and sometimes a last layer that sends sums."""
    layers: list[Layer] = []
    for layer in network:
        changes: dict[str, object] = {}
        if isinstance(layer, Dense):
            changes = {"recurrent": None, "delay": None, "recurrent_delay": None}
        if layer.neuron is not None:
            bias = None
            if draw(st.booleans()):
                kind = draw(st.sampled_from((layer.shape[:1], layer.shape)))
                size = draw(st.sampled_from((20, 20, 1000, 1 << 15)))
                bias = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(-size, size, size=kind)
            changes["neuron"] = SigmaDelta(draw(st.sampled_from((0, 0, 1, 13, 400)) | st.integers(0, 131071)), bias)
            if layer is network.layers[-1] and draw(st.booleans()):
                changes["neuron"] = Sigma()
        layers.append(replace(layer, **changes))  # type: ignore[arg-type]
    return replace(network, layers=tuple(layers))


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
    assert (a.readout, a.reset, a.info, a.numbers) == (b.readout, b.reset, b.info, b.numbers)
    for one, other in zip(a, b, strict=True):
        assert type(one) is type(other)
        _assert_fields(one, other)


def _assert_fields(one: Layer | AnyNeuron, other: Layer | AnyNeuron) -> None:
    assert type(one) is type(other)
    for name in (field.name for field in fields(one)):
        x, y = getattr(one, name), getattr(other, name)
        if isinstance(x, AnyNeuron) and isinstance(y, AnyNeuron):
            _assert_fields(x, y)
        else:
            np.testing.assert_array_equal(x, y, err_msg=name, strict=isinstance(x, np.ndarray))
