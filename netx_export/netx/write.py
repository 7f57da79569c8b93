"""NetX HDF5 files: chains, written so that lava-dl's own loader runs exactly the network, and graphs.

What lava-dl 0.6.0 would drop, clamp, clip or crash on is refused, with the reason and what to do; so is what a graph
cannot hold. A graph stands in a group of another name, so that lava-dl's loader fails at once.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from netx_export.bounds import Bound, bounds, share
from netx_export.network import (
    BIAS_MAX,
    BIAS_MIN,
    DECAY_UNITY,
    DELAY_MAX,
    INPUT,
    STATE_MAX,
    STATE_SHIFT,
    THRESHOLD_MAX,
    WEIGHT_MAX,
    WEIGHT_MIN,
    AnyNeuron,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Neuron,
    Sigma,
    SigmaDelta,
    Windowed,
)
from netx_export.netx.fields import (
    CONV_NUMBER_MAX,
    FORMAT,
    FORMAT_VERSION,
    GRAPH_READABLE,
    GRAPH_VERSION,
    NAME_MAX,
    NetxWarning,
    changed,
    is_graph,
    loaded_dense_weight,
)
from netx_export.netx.hdf5 import creating

if TYPE_CHECKING:
    import h5py

_ATTRIBUTE_BYTES = 60_000  # HDF5 keeps an attribute within 64 KiB.


def check_input_range(
    network: Network, max_abs_input: int, *, signed: bool = True, time_steps: int | None = None
) -> None:
    """Raise unless u stays within its 24 bits in every layer, whatever the input.

    Training knows no such limit, so spikes differ from it once u wraps.

    Parameters
    ----------
    network : Network
        The network to run.
    max_abs_input : int
        Largest absolute value of one input in one time step.
    signed : bool
        Whether inputs can be negative too; False allows about twice the range.
    time_steps : int, optional
        Length of a run; any by default.

    Raises
    ------
    NetworkError
        For the first layer that can wrap, with the bound, the limit and the largest input allowed.
    """
    if network.graded:
        raise NetworkError(
            f"{network.source}: layer {network.spiking[0].name}: sigma-delta neurons add up what comes without a bound "
            f"known beforehand; run it, and see the limits that the simulation gives"
        )
    for bound in bounds(network, -max_abs_input if signed else 0, max_abs_input, time_steps):
        if bound.layer.neuron is not None and bound.current() > STATE_MAX:
            raise NetworkError(
                f"{network.source}: layer {_label(network, bound.layer)}: inputs up to {bound.payload} can drive the "
                f"current u to {bound.current()}, beyond {STATE_MAX} where its 24 bits wrap; give smaller inputs, or "
                f"train with a smaller weight scale or a larger current decay"
            )


def write(network: Network, path: str | os.PathLike[str], *, allow_wrap: bool = False) -> None:
    """Write a network as NetX HDF5.

    A chain of conv, dense and flatten layers, where every conv and dense layer has neurons, is what
    ``lava.lib.dl.netx.hdf5.Network(path)`` loads and runs as it is. All other networks are written as graphs, which
    only this package reads: ``netx_export.simulate(path, inputs, backend="lava")`` runs them in Lava.

    Parameters
    ----------
    network : Network
        One that resets by subtraction is for event-driven chips: Lava cannot run it, its pools are written as they are,
        and its weights may be odd.
    path : path-like
        Written whole or not at all.
    allow_wrap : bool
        Write layers whose current u can wrap at 24 bits, too. Lava still runs them as the network says, but not as
        they were trained.

    Raises
    ------
    NetworkError
        If lava-dl's loader would not run exactly this chain, or a graph has what no file holds: the layer, the value,
        what is allowed, what to do.
        If the current of a hidden layer could wrap on some input, and nobody has measured that it does not on that of
        training (`Layer.u_measured`), or has measured that it does.

    Warns
    -----
    NetxWarning
        The current of a layer could wrap, but stayed within its 24 bits over the training data; or the voltage of a
        voltage readout saturated there.
    """
    if network.encoder is not None:
        raise NetworkError(
            f"{network.source}: input neurons are not written: spikes enter the first layer; leave them out "
            f"(dataclasses.replace(network, encoder=None))"
        )
    graph = is_graph(network)
    measured = _check_writable(network, allow_wrap, graph)
    form = "graph" if graph else "layer"
    numbers = {INPUT: 0} | {layer.name: number for number, layer in enumerate(network, start=1)}
    info = _json(network)
    with creating(path) as file:
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = GRAPH_VERSION if graph else FORMAT_VERSION
        file.attrs["readout"] = network.readout
        if network.reset != "zero":
            file.attrs["reset"] = network.reset
        file.attrs["info"] = info
        entry = file.create_group(f"{form}/0")
        _write_type(entry, "input")
        entry.create_dataset("shape", data=np.array(network.in_shape, dtype=np.int64))
        for number, layer in enumerate(network, start=1):
            entry = file.create_group(f"{form}/{number}")
            _write_layer(entry, layer)
            if graph:
                entry.create_dataset("inputs", data=np.array([numbers[name] for name in layer.inputs], dtype=np.int64))
                if isinstance(layer, Dense) and layer.recurrent_delay is not None:
                    entry.create_dataset("delay_rec", data=layer.recurrent_delay.astype(np.int16))
            for name, value in measured.get(number, {}).items():
                entry.attrs[name] = value
    for text in _margins(network, measured):
        warnings.warn(text, NetxWarning, stacklevel=2)


def _write_type(entry: h5py.Group, kind: str) -> None:
    entry.create_dataset("type", (1,), "S10", [kind.encode("ascii")])


def _write_layer(entry: h5py.Group, layer: Layer) -> None:
    entry.attrs["name"] = layer.name
    if layer.weight_scale is not None:
        entry.attrs["weight_scale"] = float(layer.weight_scale)
    recurrent = layer.recurrent if isinstance(layer, Dense) else None
    _write_type(entry, layer.kind if recurrent is None else "dense_rec")
    shape = (*layer.shape, 1, 1) if isinstance(layer, Flatten) else layer.shape
    entry.create_dataset("shape", data=np.array(shape, dtype=np.int64))
    if isinstance(layer, Windowed):
        weight, dilation, groups = layer.window
        pairs = {"kernelSize": weight.shape[2:], "stride": layer.stride, "padding": layer.padding}
        if layer.weight is not None:
            pairs["dilation"] = dilation
            entry.create_dataset("inChannels", data=layer.in_shape[0])
            entry.create_dataset("outChannels", data=layer.shape[0])
        for field, pair in pairs.items():
            entry.create_dataset(field, data=np.array(pair, dtype=np.int64))
        if layer.weight is not None:
            entry.create_dataset("groups", data=groups)
    elif isinstance(layer, Dense):
        entry.create_dataset("inFeatures", data=layer.in_shape[0])
        entry.create_dataset("outFeatures", data=layer.shape[0])
        if recurrent is not None:
            entry.create_dataset("weight_rec", data=recurrent.astype(np.int16))
        if layer.delay is not None:
            entry.create_dataset("delay", data=layer.delay.astype(np.int16))
    if layer.weight is not None:
        entry.create_dataset("weight", data=layer.weight.astype(np.int16))
    if layer.neuron is not None:
        _write_neuron(entry, layer.neuron)


def _write_neuron(entry: h5py.Group, neuron: AnyNeuron) -> None:
    if neuron.bias is not None:
        # What there is for each neuron, NetX takes in the order of its processes, (W, H, C).
        entry.create_dataset("bias", data=neuron.bias.astype(np.int16).transpose())
    if not isinstance(neuron, Neuron):
        entry.create_dataset("neuron/type", data="SDNN")
        if isinstance(neuron, Sigma):
            entry.create_dataset("neuron/sigma_output", data=True)
        else:
            entry.create_dataset("neuron/activation", data="relu")
            entry.create_dataset("neuron/vThMant", data=np.int64(neuron.threshold))
        return
    entry.create_dataset("neuron/type", data="CUBA")
    for field, value in (
        ("iDecay", neuron.current_decay),
        ("vDecay", neuron.voltage_decay),
        ("vThMant", neuron.threshold),
    ):
        entry.create_dataset(f"neuron/{field}", data=np.asarray(value, dtype=np.int64).transpose())
    entry.create_dataset("neuron/refDelay", data=1)
    entry.create_dataset("neuron/gradedSpike", data=False)


def _json(network: Network) -> str:
    try:
        text = json.dumps(network.info, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise NetworkError(f"{network.source}: info holds what JSON cannot: {error}") from None
    if len(text) > _ATTRIBUTE_BYTES:
        raise NetworkError(f"{network.source}: info is {len(text)} characters of JSON, at most {_ATTRIBUTE_BYTES} fit")
    return text


def _label(network: Network, layer: Layer) -> str:
    number = next(i for i, other in enumerate(network, 1) if other is layer)
    return f"{number} ({layer.name or layer.kind})"


def _check_writable(network: Network, allow_wrap: bool, graph: bool) -> dict[int, dict[str, int | float]]:
    """Refuse what lava-dl would run otherwise, or no graph holds; the attributes of measurements, by number of group.

    They are written where the bound of the current says too little, so that all other files stay what they were.
    """
    measured: dict[int, dict[str, int | float]] = {}
    largest = network.info.get("input_max")
    for number, bound in enumerate(bounds(network, 0, largest if isinstance(largest, int) else 1), start=1):
        layer = bound.layer
        try:
            if graph:
                _check_in_graph(layer)
            if network.reset == "subtract":
                _check_event_driven(layer)
                continue
            if isinstance(layer, Windowed | Dense) and layer.weight is not None:
                check_synapses(layer)
            if not graph:
                _check_loading(layer, last=layer is network.layers[-1])
            if layer.neuron is not None:
                _check_neuron(layer.neuron)
                if not allow_wrap and not layer.neuron.graded:
                    _check_wrap(bound)
                measured[number] = _measured(network, bound)
        except NetworkError as error:
            raise NetworkError(f"{network.source}: layer {_label(network, layer)}: {error}") from None
    if not network.spiking:
        raise NetworkError(f"{network.source}: no layer has neurons, so nothing would run; add some (Layer.neuron)")
    return measured


def _measured(network: Network, bound: Bound) -> dict[str, int | float]:
    layer = bound.layer
    found: dict[str, int | float] = {}
    if bound.current() > STATE_MAX and layer.u_measured is not None:
        found = {"u_bound": bound.current(), "u_measured": layer.u_measured}
    answers = network.readout == "voltage" and layer is network.spiking[-1]
    if layer.v_measured is not None and (found or (answers and layer.v_measured > STATE_MAX)):
        found["v_measured"] = layer.v_measured
    return found


def _margins(network: Network, measured: dict[int, dict[str, int | float]]) -> Iterator[str]:
    """What to say of layers that only the data keeps within 24 bits."""
    for number, found in measured.items():
        layer = network.layers[number - 1]
        where = f"{network.source}: layer {_label(network, layer)}"
        if "u_measured" in found:
            yield (
                f"{where}: with all inputs active the current u can reach {found['u_bound']}, beyond {STATE_MAX} where "
                f"its 24 bits wrap; over the training data it reached {share(int(found['u_measured']))}"
            )
        if network.readout == "voltage" and layer is network.spiking[-1] and found.get("v_measured", 0) > STATE_MAX:
            yield (
                f"{where}: over the training data the voltage read out reached {found['v_measured']}, and saturates at "
                f"{STATE_MAX}: larger answers look alike; train with a smaller weight scale or fewer time steps"
            )


def _check_event_driven(layer: Layer) -> None:
    """What the format can hold of a network for chips without a clock; what a chip can, its profile says."""
    if isinstance(layer, Dense) and layer.recurrent is not None:
        raise NetworkError("reset 'subtract' knows no recurrence")
    if layer.neuron is not None:
        _check_neuron(layer.neuron)
    if isinstance(layer, Dense) and layer.delay is not None:
        _check_delays("delay", layer.delay)
    if layer.weight is not None and (layer.weight.min() < WEIGHT_MIN or layer.weight.max() > -WEIGHT_MIN - 1):
        raise NetworkError(f"weights {layer.weight.min()}..{layer.weight.max()} are not in {WEIGHT_MIN}..255 (9 bits)")


def _check_in_graph(layer: Layer) -> None:
    """What is not read again: long names, other kinds, and numbers of maps beyond 8 bits."""
    if not layer.name.isprintable() or len(layer.name) > NAME_MAX:
        raise NetworkError(f"its name is not a printable text of at most {NAME_MAX} characters")
    if layer.kind not in GRAPH_READABLE:
        raise NetworkError(f"no file holds a layer of kind {layer.kind!r}; {', '.join(GRAPH_READABLE)} can be written")
    if isinstance(layer, Windowed):
        check_numbers(layer)


def check_synapses(layer: Windowed | Dense) -> None:
    """Raise unless weights and delays fit the bits of Loihi's synapses, and a convolution's numbers Lava's process."""
    assert layer.weight is not None
    _check_weights("weight", layer.weight)
    if isinstance(layer, Windowed):
        check_numbers(layer)
        return
    if layer.delay is not None:
        _check_delays("delay", layer.delay)
    if layer.recurrent is not None:
        _check_weights("recurrent weight", layer.recurrent)
    if layer.recurrent_delay is not None:
        _check_delays("recurrent delay", layer.recurrent_delay)


def check_numbers(layer: Windowed) -> None:
    """Raise unless Lava's conv process can keep kernel size, stride, padding, dilation and groups."""
    weight, dilation, groups = layer.window
    numbers: dict[str, tuple[int, ...]] = {"kernel size": weight.shape[2:]}
    if layer.weight is not None:
        numbers["groups"] = (groups,)
    numbers |= {"stride": layer.stride, "padding": layer.padding, "dilation": dilation}
    for field, values in numbers.items():
        if max(values) > CONV_NUMBER_MAX:
            raise NetworkError(
                f"{field} {max(values)} is more than {CONV_NUMBER_MAX}: Lava keeps it in 8 bits with sign, and the "
                f"layer would silently give zeros; "
                + ("merge groups, with zeros between them" if field == "groups" else "split the layer")
            )


def _check_delays(what: str, delay: np.ndarray) -> None:
    if delay.max() > DELAY_MAX:
        raise NetworkError(f"{what} {delay.max()} is more than {DELAY_MAX} steps, and lava-dl would clamp it")


def _check_loading(layer: Layer, last: bool) -> None:
    """What lava-dl's loader would change, or fail on, in a layer of a chain."""
    if isinstance(layer, Flatten) and last:
        raise NetworkError("a flatten at the end is ignored by lava-dl's loader; leave it out")
    if isinstance(layer, Flatten) and len(layer.in_shape) == 1:
        raise NetworkError("what it should flatten is flat, and lava-dl's loader fails on that; leave it out")
    if not isinstance(layer, Dense):
        return
    assert layer.weight is not None
    if layer.recurrent is not None and not np.array_equal(layer.delay, layer.recurrent_delay):  # type: ignore[arg-type]
        raise NetworkError("recurrent delays are not the delays, and lava-dl gives both the same; leave them out")
    delayed = layer.delay is not None
    loaded = loaded_dense_weight(layer.weight, layer.recurrent, delayed=delayed)
    for wanted, got in changed((layer.weight, layer.recurrent), loaded):
        at = tuple(int(i) for i in np.argwhere(wanted != got)[0])
        change = f"lava-dl's loader would turn weight {wanted[at]} at {at} into {got[at]}, because "
        if delayed and layer.recurrent is not None and wanted.max() > 0:
            raise NetworkError(
                change + "it forgets the weight exponent of a recurrent layer with delays; leave the delays out, or "
                "scale the layer up to a largest weight of 128 or more"
            )
        raise NetworkError(
            f"{change}none of the weights {wanted.min()}..{wanted.max()} is positive; give the layer a positive "
            f"weight, or a smallest weight that is no power of two"
        )


def _check_weights(what: str, weight: np.ndarray) -> None:
    bad = (weight < WEIGHT_MIN) | (weight > WEIGHT_MAX) | (weight % 2 != 0)
    if np.any(bad):
        raise NetworkError(
            f"{what} {weight[bad][0]} is not an even integer in {WEIGHT_MIN}..{WEIGHT_MAX} (8 bits with sign); "
            f"quantise with a smaller weight scale"
        )


def _check_neuron(neuron: AnyNeuron) -> None:
    remedy = "train with a smaller weight scale"
    _check_number("threshold", neuron.threshold, 0, THRESHOLD_MAX, remedy)
    if isinstance(neuron, SigmaDelta):
        for what in ("spike_exponent", "state_exponent"):
            name = what.replace("_", " ")
            _check_number(name, getattr(neuron, what), STATE_SHIFT, STATE_SHIFT, "lava-dl's loader gives no other")
        if neuron.bias is not None:
            _check_number("bias", neuron.bias, -(1 << 15), (1 << 15) - 1, remedy)
    if not isinstance(neuron, Neuron):
        return
    _check_number("current decay", neuron.current_decay, 0, DECAY_UNITY, "4096 forgets everything in one step")
    _check_number("voltage decay", neuron.voltage_decay, 0, DECAY_UNITY, "4096 forgets everything in one step")
    if neuron.bias is not None:
        _check_number("bias", neuron.bias, BIAS_MIN, BIAS_MAX, "train with a smaller weight scale")
        _check_number(
            "bias exponent", neuron.bias_exponent, STATE_SHIFT, STATE_SHIFT, "lava-dl knows no other; rescale the bias"
        )


def _check_number(what: str, value: Any, low: int, high: int, remedy: str) -> None:
    for extreme in (value.min(), value.max()) if isinstance(value, np.ndarray) else (value,):
        if not isinstance(extreme, (int, np.integer)) or not low <= extreme <= high:
            raise NetworkError(f"{what} {extreme} is not an integer in {low}..{high}; {remedy}")


def _check_wrap(bound: Bound) -> None:
    measured = bound.layer.u_measured
    if measured is not None and measured > STATE_MAX:
        raise NetworkError(
            f"over the training data the current u reached {measured}, beyond {STATE_MAX} where its 24 bits wrap: the "
            f"data itself makes it wrap; train with a smaller weight scale (weight_scale with reach_max), smaller or "
            f"fewer inputs or a larger current decay"
        )
    if not bound.raw and measured is None and bound.current() > STATE_MAX:
        raise NetworkError(
            f"with all inputs spiking the current u can reach {bound.current()}, beyond {STATE_MAX} where its 24 bits "
            f"wrap, which training does not see; say in u_measured how large it gets over the training data (limits of "
            f"a simulation), or use smaller weights (weight_scale with reach_max), fewer inputs or a larger current "
            f"decay"
        )


def in_lava(network: Network, path: str | os.PathLike[str]) -> str:
    """How to run a written file in Lava without this package, in a line; nothing for what Lava cannot run.

    The script that does so stands in FORMAT.md.
    """
    if network.reset != "zero":
        return ""
    if is_graph(network) or network.graded:
        why = "Lava resets no sigma-delta neurons" if network.graded else "lava-dl's loader runs no graphs"
        return f"in Lava: mtt simulate {os.fspath(path)} INPUT --backend lava ({why})"
    steps, late = network.info.get("time_steps", "T"), len(network.spiking)
    shape = (math.prod(network.in_shape),) if isinstance(network.layers[0], Flatten) else network.in_shape[::-1]
    return (
        f"in Lava by hand: netx.hdf5.Network({os.fspath(path)!r}, input_message_bits=32, reset_interval={steps}, "
        f"reset_offset=1); N samples of {steps} steps back to back, {(*shape, 'N*T')!r}; run N*T + {late} steps; "
        f"sample n answers in rows n*T + {late} .. (n+1)*T + {late - 1} (a script: netx_export/FORMAT.md)"
    ).replace("'N*T'", "N*T")
