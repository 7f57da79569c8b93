"""NetX HDF5 files: written so that lava-dl's own loader runs exactly the network, and read back.

The format is described field by field in FORMAT.md beside this file. What lava-dl 0.6.0 would drop, clamp, clip
or crash on is refused when writing, with the reason and what to do.
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
from netx_export.hdf5 import Group, HDF5Error, Unreadable, creating, load
from netx_export.network import (
    BIAS_MAX,
    BIAS_MIN,
    DECAY_UNITY,
    DELAY_MAX,
    STATE_BITS,
    STATE_MAX,
    STATE_SHIFT,
    THRESHOLD_MAX,
    WEIGHT_MAX,
    WEIGHT_MIN,
    Average,
    Conv,
    Dense,
    Encoder,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Neuron,
    Pool,
    Shape,
    conv_shape,
)
from netx_export.text import table

if TYPE_CHECKING:
    import h5py

FORMAT = "mtt-lava netx"
FORMAT_VERSION = 2
"""Since 2, files have a digest."""

CONV_NUMBER_MAX = 127
"""Lava's conv process keeps kernel size, stride, padding, dilation and groups in 8 bits with sign."""
THRESHOLD_NEVER = 1 << (STATE_BITS - 1 - STATE_SHIFT)
"""The smallest threshold that a saturated v cannot pass; lava-dl gives it to a dense layer without a neuron."""
READABLE = ("conv", "dense", "dense_rec", "flatten", "pool", "average")
"""Types of layers that can be read; lava-dl's loader refuses pool and average."""
_POOL = (
    "lava-dl's loader runs no pool layer; write the file anew, where it is a convolution "
    "(netx_export.write(netx_export.read(old), new)), or run this file with --backend fast"
)
_SHAPELESS = "the file does not state the shape of its input; give --in-shape C,H,W (in Python in_shape=(C, H, W))"
_KEEPS = (
    "SLAYER keeps the state of recurrent layers from one call to the next, and here, as in Lava with resets, every "
    "sample starts from rest: only the first call of a fresh SLAYER network gives the same spikes"
)
_MEAN = (
    "SLAYER writes a bias for a mean-only norm, which in training mode takes each batch's own mean: only after eval() "
    "does it give the same spikes"
)
_LATE = "lava-dl flattens only where a dense layer comes next; read as it runs this"
_REFUSED = ("convT", "unpool", "concat", "dense_comp")  # by lava-dl's loader too; other types it passes over
NEURONS_MAX = 1 << 24
"""Most outputs that the layers of a file can have together; 16 chips of a million neurons."""
_TOO_MANY = f"more than {NEURONS_MAX:,} outputs of all layers are not read"
_ATTRIBUTE_BYTES = 60_000  # HDF5 keeps an attribute within 64 KiB.


class NetxWarning(UserWarning):
    """What the user of a file should know.

    When reading: lava-dl's loader runs something other than what stands in the file; the network read is what it runs.
    When writing: a state can leave its 24 bits on other data than that of training, or does on that.
    """


# ------------------------------------------------------------------------------------------------ what Lava computes


def loaded_dense_weight(
    weight: np.ndarray, recurrent: np.ndarray | None = None, *, delayed: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Weights that a dense layer really has once lava-dl 0.6.0 has loaded them and Lava's fixed-point model runs them.

    NetX (`optimize_weight_bits`) clips weights of mixed sign to -256..254, shifts all weights left by as many bits as
    fit into 8 and derives a number of weight bits. Lava's dense model clips to 8 bits once more, by a sign mode of its
    own, cuts the bits it believes unused and shifts the sum back. The two disagree about layers without a positive
    weight, and shift by negative amounts where weights of one sign need more than 8 bits: weights come out halved,
    smaller by one, or zero. Nothing shifts the sum back in a recurrent layer with delays, whose exponent NetX forgets.

    Parameters
    ----------
    weight : numpy.ndarray
        Integers, (outputs, inputs).
    recurrent : numpy.ndarray, optional
        Integers, (outputs, outputs); NetX scales both together.
    delayed : bool
        Whether the layer has delays.

    Returns
    -------
    weight, recurrent : numpy.ndarray, numpy.ndarray or None
        What they become; equal to what came in where the loader is exact.

    Raises
    ------
    NetworkError
        If the loader crashes (all weights zero) or no integer weights compute the same.
    """
    parts = [part.astype(np.int64) for part in (weight, recurrent) if part is not None]
    high, low = max(int(part.max()) for part in parts), min(int(part.min()) for part in parts)
    if (high > WEIGHT_MAX and low < 0) or (low < WEIGHT_MIN and high > 0):
        parts = [np.clip(part, WEIGHT_MIN, WEIGHT_MAX) for part in parts]
        high, low = min(high, WEIGHT_MAX), max(low, WEIGHT_MIN)
    if high == low == 0:
        raise NetworkError("all weights are 0, or were cut to 0, and lava-dl's loader fails on that (OverflowError)")

    signed = low < 0 <= high
    if signed:
        scale = min(127 / high if high else math.inf, -128 / low)
    elif high < 0:
        scale = -256 / low
    else:
        scale = 255 / high
    shift = math.floor(math.log2(scale)) + signed
    used = int(np.bitwise_or.reduce(np.concatenate([np.abs(part).ravel() for part in parts])))
    unused_bits = min((used & -used).bit_length() - 1, 8)
    weight_bits = 8 - shift - (unused_bits - signed)
    back = 0 if delayed and recurrent is not None else shift

    loaded = []
    for part in parts:
        inhibitory = part.min() < 0 and part.max() <= 0
        mixed = part.min() < 0 < part.max()
        cut = 8 - weight_bits + mixed
        if shift < 0 or cut < 0:  # NumPy shifts everything out where the amount is negative.
            loaded.append(np.zeros_like(part))
            continue
        stored = np.clip((-part if inhibitory else part) << shift, -256 if mixed else 0, 255) >> cut << cut
        if np.any(stored & ((1 << back) - 1)):
            raise NetworkError("Lava clips the weights to fractions that no integer weights stand for")
        loaded.append((-stored if inhibitory else stored) >> back)
    return loaded[0], None if recurrent is None else loaded[1]


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
    for bound in bounds(network, -max_abs_input if signed else 0, max_abs_input, time_steps):
        if bound.layer.neuron is not None and bound.current() > STATE_MAX:
            raise NetworkError(
                f"{network.source}: layer {_label(network, bound.layer)}: inputs up to {bound.payload} can drive the "
                f"current u to {bound.current()}, beyond {STATE_MAX} where its 24 bits wrap; give smaller inputs, or "
                f"train with a smaller weight scale or a larger current decay"
            )


# ------------------------------------------------------------------------------------------------ writing


def write(network: Network, path: str | os.PathLike[str], *, allow_wrap: bool = False) -> None:
    """Write a network as NetX HDF5 that ``lava.lib.dl.netx.hdf5.Network(path)`` loads and runs as it is.

    Parameters
    ----------
    network : Network
        Conv, dense and flatten layers; every conv and dense layer with neurons. A network that resets by subtraction
        is for event-driven chips: Lava cannot run it, its pools are written as they are, and its weights may be odd.
    path : path-like
        Written whole or not at all.
    allow_wrap : bool
        Write layers whose current u can wrap at 24 bits, too. Lava still runs them as the network says, but not as
        they were trained.

    Raises
    ------
    NetworkError
        If lava-dl's loader would not run exactly this network: the layer, the value, what is allowed, what to do.
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
    measured = _check_writable(network, allow_wrap)
    info = _json(network)
    with creating(path) as file:
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["readout"] = network.readout
        if network.reset != "zero":
            file.attrs["reset"] = network.reset
        file.attrs["info"] = info
        entry = file.create_group("layer/0")
        _write_type(entry, "input")
        entry.create_dataset("shape", data=np.array(network.in_shape, dtype=np.int64))
        for number, layer in enumerate(network, start=1):
            entry = file.create_group(f"layer/{number}")
            _write_layer(entry, layer)
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
    if isinstance(layer, Pool):
        entry.create_dataset("shape", data=np.array(layer.shape, dtype=np.int64))
        for field, pair in (("kernelSize", layer.kernel), ("stride", layer.stride), ("padding", layer.padding)):
            entry.create_dataset(field, data=np.array(pair, dtype=np.int64))
        return
    if isinstance(layer, Flatten):
        entry.create_dataset("shape", data=np.array([*layer.shape, 1, 1], dtype=np.int64))
        return
    entry.create_dataset("shape", data=np.array(layer.shape, dtype=np.int64))
    assert layer.weight is not None
    assert layer.neuron is not None
    if isinstance(layer, Conv):
        entry.create_dataset("inChannels", data=layer.in_shape[0])
        entry.create_dataset("outChannels", data=layer.shape[0])
        entry.create_dataset("kernelSize", data=np.array(layer.weight.shape[2:], dtype=np.int64))
        for field in ("stride", "padding", "dilation"):
            entry.create_dataset(field, data=np.array(getattr(layer, field), dtype=np.int64))
        entry.create_dataset("groups", data=layer.groups)
    elif isinstance(layer, Dense):
        entry.create_dataset("inFeatures", data=layer.in_shape[0])
        entry.create_dataset("outFeatures", data=layer.shape[0])
        if recurrent is not None:
            entry.create_dataset("weight_rec", data=recurrent.astype(np.int16))
        if layer.delay is not None:
            entry.create_dataset("delay", data=layer.delay.astype(np.int16))
    entry.create_dataset("weight", data=layer.weight.astype(np.int16))
    neuron = layer.neuron
    if neuron.bias is not None:
        # What there is for each neuron, NetX takes in the order of its processes, (W, H, C).
        entry.create_dataset("bias", data=neuron.bias.astype(np.int16).transpose())
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


def _check_writable(network: Network, allow_wrap: bool) -> dict[int, dict[str, int | float]]:
    """Refuse what lava-dl would run otherwise; the attributes of measurements, by number of the layer's group.

    They are written where the bound of the current says too little, so that all other files stay what they were.
    """
    behind_neurons = False
    measured: dict[int, dict[str, int | float]] = {}
    largest = network.info.get("input_max")
    for number, bound in enumerate(bounds(network, 0, largest if isinstance(largest, int) else 1), start=1):
        layer = bound.layer
        try:
            if network.reset == "subtract":
                _check_event_driven(layer)
                behind_neurons |= layer.neuron is not None
            elif isinstance(layer, Flatten):
                _check_flatten(layer, last=layer is network.layers[-1])
            elif isinstance(layer, (Conv, Dense)):
                _check_synapses(layer)
                _check_neuron(layer)
                if not allow_wrap:
                    _check_wrap(bound, hidden=behind_neurons)
                behind_neurons = True
                measured[number] = _measured(network, bound)
            else:
                raise NetworkError(
                    f"lava-dl's loader runs no {layer.kind} layer; write a sum pool as a conv with groups = channels "
                    f"and neurons of its own (mtt-export does so for clocked chips)"
                )
        except NetworkError as error:
            raise NetworkError(f"{network.source}: layer {_label(network, layer)}: {error}") from None
    if not behind_neurons:
        raise NetworkError(f"{network.source}: no layer has neurons, so nothing would run; add a conv or dense layer")
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
    if isinstance(layer, (Flatten, Pool)):
        return
    if not isinstance(layer, (Conv, Dense)) or (isinstance(layer, Dense) and layer.recurrent is not None):
        raise NetworkError("reset 'subtract' knows conv, dense, pool and flatten layers without recurrence")
    _check_neuron(layer)
    assert layer.weight is not None
    if layer.weight.min() < WEIGHT_MIN or layer.weight.max() > -WEIGHT_MIN - 1:
        raise NetworkError(f"weights {layer.weight.min()}..{layer.weight.max()} are not in {WEIGHT_MIN}..255 (9 bits)")


def _check_flatten(layer: Flatten, last: bool) -> None:
    if last:
        raise NetworkError("a flatten at the end is ignored by lava-dl's loader; leave it out")
    if len(layer.in_shape) == 1:
        raise NetworkError("what it should flatten is flat, and lava-dl's loader fails on that; leave it out")


def _check_synapses(layer: Conv | Dense) -> None:
    assert layer.weight is not None
    _check_weights("weight", layer.weight)
    if isinstance(layer, Conv):
        numbers = {"kernel size": layer.weight.shape[2:], "groups": (layer.groups,)}
        numbers |= {field: getattr(layer, field) for field in ("stride", "padding", "dilation")}
        for field, values in numbers.items():
            if max(values) > CONV_NUMBER_MAX:
                raise NetworkError(
                    f"{field} {max(values)} is more than {CONV_NUMBER_MAX}: Lava keeps it in 8 bits with sign, and the "
                    f"layer would silently give zeros; "
                    + ("merge groups, with zeros between them" if field == "groups" else "split the layer")
                )
        return
    if layer.delay is not None and layer.delay.max() > DELAY_MAX:
        raise NetworkError(f"delay {layer.delay.max()} is more than {DELAY_MAX} steps, and lava-dl would clamp it")
    if layer.recurrent is not None:
        _check_weights("recurrent weight", layer.recurrent)
        if not np.array_equal(layer.delay, layer.recurrent_delay):  # type: ignore[arg-type]
            raise NetworkError("recurrent delays are not the delays, and lava-dl gives both the same; leave them out")
    delayed = layer.delay is not None
    loaded = loaded_dense_weight(layer.weight, layer.recurrent, delayed=delayed)
    for wanted, got in _changed((layer.weight, layer.recurrent), loaded):
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


def _changed(
    wanted: tuple[np.ndarray, np.ndarray | None], got: tuple[np.ndarray, np.ndarray | None]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of weights that loading changes."""
    pairs = zip(wanted, got, strict=True)
    return [(a, b) for a, b in pairs if a is not None and b is not None and not np.array_equal(a, b)]


def _check_weights(what: str, weight: np.ndarray) -> None:
    bad = (weight < WEIGHT_MIN) | (weight > WEIGHT_MAX) | (weight % 2 != 0)
    if np.any(bad):
        raise NetworkError(
            f"{what} {weight[bad][0]} is not an even integer in {WEIGHT_MIN}..{WEIGHT_MAX} (8 bits with sign); "
            f"quantise with a smaller weight scale"
        )


def _check_neuron(layer: Layer) -> None:
    neuron = layer.neuron
    if neuron is None:
        raise NetworkError("has no neurons, and lava-dl would add some of its own; give it a Neuron")
    _check_number("threshold", neuron.threshold, 0, THRESHOLD_MAX, "train with a smaller weight scale")
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
            raise NetworkError(f"{what} {extreme!r} is not an integer in {low}..{high}; {remedy}")


def _check_wrap(bound: Bound, hidden: bool) -> None:
    measured = bound.layer.u_measured
    if measured is not None and measured > STATE_MAX:
        raise NetworkError(
            f"over the training data the current u reached {measured}, beyond {STATE_MAX} where its 24 bits wrap: the "
            f"data itself makes it wrap; train with a smaller weight scale (weight_scale with reach_max), smaller or "
            f"fewer inputs or a larger current decay"
        )
    if hidden and measured is None and bound.current() > STATE_MAX:
        raise NetworkError(
            f"with all inputs spiking the current u can reach {bound.current()}, beyond {STATE_MAX} where its 24 bits "
            f"wrap, which training does not see; say in u_measured how large it gets over the training data (limits of "
            f"a simulation), or use smaller weights (weight_scale with reach_max), fewer inputs or a larger current "
            f"decay"
        )


# ------------------------------------------------------------------------------------------------ reading


def read(
    path: str | os.PathLike[str],
    in_shape: Shape | None = None,
    *,
    for_lava: bool = False,
    default_shape: Shape | None = None,
    encode: bool = False,
) -> Network:
    """Read a NetX HDF5 file, written by this package or by lava-dl.

    The network is what lava-dl's loader runs. Where that is not what stands in the file (clipped weights, clamped
    or dropped delays, graded spikes, ...), a `NetxWarning` says so. Pool and average layers, which it refuses, are what
    SLAYER computes.

    Parameters
    ----------
    path : path-like
        The file.
    in_shape : tuple of int, optional
        Shape of the input, (C, H, W) or (F,), for a file that does not state it and starts with a conv layer.
    for_lava : bool
        Refuse pool layers, too.
    default_shape : tuple of int, optional
        Shape of the input where the file states none: that of what it is to be fed with.
    encode : bool
        The file is to be fed with values for its input neurons: refuse it unless it has some.

    Returns
    -------
    Network
        Weights, biases and delays as int64.

    Raises
    ------
    NetworkError
        If the file is missing, damaged or foreign, or holds what the network description cannot represent
        (other neurons than CUBA / LOIHI, complex weights, decays outside 0..4096, ...).
    """
    source = os.fspath(path)
    try:
        file, has_digest = load(source)
    except HDF5Error as error:
        raise NetworkError(f"{source}: {error}") from None
    changes: list[str] = []
    network = _read(file, has_digest, source, in_shape, default_shape, for_lava, changes)
    if encode:
        check_encoder(network)
    elif network.encoder is not None:
        changes.append(
            f"{source}: layer/{network.encoder.number}/neuron: the input is the spikes that enter the first synapse; "
            f"to run the input neurons on values, which are their biases, give --encode (in Python encode=True)"
        )
    for change in changes:
        warnings.warn(change, NetxWarning, stacklevel=2)
    return network


def check_encoder(network: Network) -> None:
    """Raise unless a network has input neurons that its first layer takes."""
    if network.encoder is None:
        raise NetworkError(f"{network.source}: has no input neurons to run on values; leave --encode out")
    if network.encoder.shape != network.in_shape:
        raise NetworkError(
            f"{network.source}: layer/{network.encoder.number}/shape: input neurons {network.encoder.shape} do not fit "
            f"the first layer's input {network.in_shape}, so nothing can be encoded; leave --encode out"
        )


def _brief(value: Any) -> str:
    """A value from a file, for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _read(
    file: Group,
    has_digest: bool,
    source: str,
    in_shape: Shape | None,
    default_shape: Shape | None,
    for_lava: bool,
    changes: list[str],
) -> Network:
    readout, reset, info = _read_attributes(file, has_digest, source)
    groups = file.get("layer")
    if not isinstance(groups, Group) or not groups.members:
        raise NetworkError(f"{source}: no group 'layer' with the layers in it, so not a NetX file")
    count = len(groups.members)
    missing = [str(i) for i in range(count) if not isinstance(groups.get(str(i)), Group)]
    if missing:
        raise NetworkError(f"{source}: group layer/{missing[0]} is missing; layers are numbered 0..{count - 1}")
    loaded = reset == "zero"  # else no weight passes through lava-dl's loader
    entries = [_Entry(groups.members[str(i)], source, i, changes, foreign=readout is None) for i in range(count)]
    _refuse_sigma_delta(entries)

    shape = asked = None if in_shape is None else tuple(int(n) for n in in_shape)
    layers: list[Layer] = []
    numbers: list[int] = []
    flatten: _Entry | None = None
    encoder: Encoder | None = None
    outputs = 0
    for i, entry in enumerate(entries):
        kind = entry.text("type")
        if kind == "input":  # behind a layer, NetX passes over it
            if "neuron" in entry:
                if layers or encoder is not None:
                    raise entry.error("neuron", "lava-dl connects nothing to an input with neurons but the first one")
                encoder = _read_encoder(entry)
            shape = _read_input(entry, None if layers else asked) or shape
            continue
        if kind not in READABLE:
            if kind in _REFUSED or i == 0 or readout is not None:
                raise entry.error("type", f"layer type {_brief(kind)} cannot be represented; {', '.join(READABLE)} can")
            entry.warn("type", f"lava-dl passes over the unknown layer type {_brief(kind)}; read as it runs this")
            continue
        if for_lava and loaded and kind == "pool":
            raise entry.error("type", _POOL)
        if kind == "flatten" and loaded:  # NetX flattens where the next dense layer comes
            flatten = entry
            continue
        if layers and isinstance(layers[-1], Average):
            raise entry.error("type", "nothing can follow an average layer, whose means are fractions")
        outputs += math.prod(entry.shape()) if "shape" in entry else 0
        if outputs > NEURONS_MAX:
            raise entry.error("shape", f"is {_brief(entry.shape())}: {_TOO_MANY}")
        first, before = not layers, layers[-1].shape if layers else shape
        maps = default_shape is not None and len(default_shape) == 3  # a flat input is no news to a dense layer
        guessed = before is None and (kind in ("conv", "pool", "average") or (flatten is not None and maps))
        if guessed:
            before = default_shape
        try:
            if flatten is not None and kind not in ("conv", "pool"):
                if numbers and numbers[-1] > flatten.number:
                    flatten.warn("type", _LATE)
                if before is not None and len(before) == 3:
                    layers.append(Flatten(in_shape=before, shape=(math.prod(before),), **_common(flatten, "flatten")))
                    numbers.append(flatten.number)
                    before = layers[-1].shape
                elif layers and kind != "average":
                    raise flatten.error("type", "what it should flatten is flat, and lava-dl's loader fails on that")
                flatten = None
            layer = _read_layer(entry, kind, before, first, loaded)
            if first and layers and layers[0].shape != layer.in_shape:  # it takes another input than stated
                del layers[0], numbers[0]
        except NetworkError as error:
            text = str(error)
            if guessed and default_shape is not None:
                text += f" (for an input of shape {default_shape}: the file states none)"
            raise NetworkError(text if text.startswith(source) else f"{source}: layer/{entry.number}: {text}") from None
        layers.append(layer)
        numbers.append(i)
    if flatten is not None:
        flatten.warn("type", _LATE)
    if not layers:
        raise NetworkError(f"{source}: holds no layer but the input")
    if readout is None:
        last = next((layer.neuron for layer in reversed(layers) if layer.neuron is not None), None)
        readout = "voltage" if last is not None and np.min(last.threshold) >= THRESHOLD_NEVER else "count"
    usual = numbers == list(range(1, len(numbers) + 1))
    return Network(tuple(layers), readout, reset, info, source, () if usual else tuple(numbers), encoder)


def _read_attributes(file: Group, has_digest: bool, source: str) -> tuple[str | None, str, dict[str, Any]]:
    stated = _attribute(file, "format")
    if not isinstance(stated, str) or stated != FORMAT:
        return None, "zero", {}
    version = _attribute(file, "format_version")
    if not isinstance(version, np.integer) or version < 1:
        raise NetworkError(f"{source}: attribute format_version is {_brief(version)}, not a positive integer")
    if version > FORMAT_VERSION:
        raise NetworkError(
            f"{source}: format version {version} is newer than {FORMAT_VERSION}, the newest known here; update mtt-lava"
        )
    if version >= 2 and not has_digest:
        raise NetworkError(f"{source}: is damaged: it has no digest, as files of format version 2 have; write it anew")
    readout, text = _attribute(file, "readout"), _attribute(file, "info")
    try:
        info = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict):
        raise NetworkError(f"{source}: attribute info is not a JSON object")
    for field in ("time_steps", "input_max"):
        value = info.get(field)
        if value is not None and (type(value) is not int or value < 1):
            raise NetworkError(f"{source}: attribute info: {field} is {_brief(value)}, not an integer from 1 on")
    if not isinstance(info.get("profile", ""), str):
        raise NetworkError(f"{source}: attribute info: profile is {_brief(info['profile'])}, not a text")
    reset = _attribute(file, "reset")
    return str(readout)[:80], "zero" if reset is None else str(reset)[:80], info


def _attribute(item: Group, name: str) -> Any:
    value = item.attributes.get(name)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class _Entry:
    """One layer's group in a file; what it raises, and notes of changes, names file, layer and field."""

    def __init__(self, group: Group, source: str, number: int, changes: list[str], foreign: bool = True) -> None:
        self.group, self.source, self.number, self.changes = group, source, number, changes
        self.foreign = foreign

    def error(self, field: str, text: str) -> NetworkError:
        return NetworkError(f"{self.source}: layer/{self.number}/{field}: {text}")

    def warn(self, field: str, text: str) -> None:
        self.changes.append(f"{self.source}: layer/{self.number}/{field}: {text}")

    def __contains__(self, field: str) -> bool:
        return self.group.get(field) is not None

    def value(self, field: str) -> Any:
        """Content of a data set: a NumPy array or scalar, or a text."""
        value = self.group.get(field)
        if value is None:
            raise self.error(field, "is missing")
        if isinstance(value, Group):
            raise self.error(field, "is a group, not a data set")
        if isinstance(value, Unreadable):
            raise self.error(field, value.reason)
        return value

    def text(self, field: str) -> str:
        value = self.value(field)
        value = value.ravel()[0] if isinstance(value, np.ndarray) else value
        if isinstance(value, str):
            value = value.encode("utf-8", "surrogateescape")
        if not isinstance(value, bytes) or not value.isascii():
            raise self.error(field, f"holds {_brief(value)}, not a text in ASCII")
        return value.decode("ascii")

    def numbers(self, field: str, kinds: str = "biuf") -> Any:
        """Numbers as they stand in the file."""
        value = self.value(field)
        if isinstance(value, str) or value.dtype.kind not in kinds:
            held = "a text" if isinstance(value, str) else value.dtype
            raise self.error(field, f"holds {held}, not {'numbers' if 'f' in kinds else 'integers'}")
        return value

    def array(self, field: str, cut: bool = False) -> np.ndarray:
        """Integers as int64; with `cut`, from floating point too, of which NetX cuts off the fractions."""
        value = np.asarray(self.numbers(field, "biuf" if cut else "biu"))
        if value.dtype.kind == "f":
            if not np.all(np.isfinite(value)):
                raise self.error(field, f"holds {value[~np.isfinite(value)].flat[0]!s}, not a number")
            fractions = value[value != np.trunc(value)]
            if fractions.size:
                self.warn(field, f"lava-dl cuts {fractions[0]!s} to {int(fractions[0])}; quantise before export")
            value = np.trunc(value)
        if value.min() < -(2**31) or value.max() >= 2**31:
            raise self.error(field, "holds a number beyond 32 bits")
        return value.astype(np.int64)

    def number_in(self, field: str, low: int, high: int) -> int:
        array = self.array(field)
        if array.shape:
            raise self.error(field, f"has shape {array.shape}; lava-dl takes one number for the whole layer")
        value = int(array)
        if not low <= value <= high:
            raise self.error(field, f"is {value}, not in {low}..{high}")
        return value

    def per_neuron(self, field: str, array: np.ndarray, shape: Shape) -> np.ndarray:
        """One number for all, one a channel, (C,), or one a neuron, from what NumPy spreads to NetX's (W, H, C)."""
        try:
            each = np.broadcast_to(array, shape[::-1])
        except ValueError:
            raise self.error(
                field, f"has shape {array.shape}, not one value or what spreads to {shape[::-1]}"
            ) from None
        if array.shape == shape[:1]:
            return array
        return array.reshape(()) if array.size == 1 and array.shape != each.shape else each.transpose().copy()

    def pair(self, field: str, low: int) -> tuple[int, int]:
        """(height, width), from a pair or one number for both."""
        array = self.array(field)
        values = array.ravel().tolist()
        if array.shape not in ((), (2,)) or min(values) < low or max(values) > CONV_NUMBER_MAX:
            raise self.error(field, f"is {_brief(array.tolist())}, not one or two integers in {low}..{CONV_NUMBER_MAX}")
        return values[0], values[-1]

    def shape(self) -> Shape:
        shape = tuple(self.array("shape").ravel().tolist())
        if min(shape) < 1:
            raise self.error("shape", f"is {_brief(shape)}, with a size below 1")
        if math.prod(shape) > NEURONS_MAX:
            raise self.error("shape", f"is {_brief(shape)}: {_TOO_MANY}")
        return shape


def _refuse_sigma_delta(entries: list[_Entry]) -> None:
    """Before anything else that keeps such a file from running."""
    for entry in entries:
        try:
            kind = entry.text("neuron/type") if "neuron/type" in entry else ""
        except NetworkError:  # reported where it is read
            continue
        if kind == "SDNN":
            raise entry.error(
                "neuron/type",
                "'SDNN' are sigma-delta neurons, which send differences of values; only networks of spiking ones, "
                "'CUBA' and 'LOIHI', run here: use lava-dl itself",
            )


def _read_input(entry: _Entry, asked: Shape | None) -> Shape | None:
    if "shape" not in entry:
        return asked
    shape = entry.shape()
    if asked is not None and asked != shape:
        raise entry.error("shape", f"is {shape}, but the input shape asked for is {asked}")
    return shape


def _read_encoder(entry: _Entry) -> Encoder:
    for field in ("weight", "bias"):  # a transform that lava-dl offers, and leaves to the user
        if field in entry and entry.array(field, cut=True).size != 1:
            raise entry.error(field, "is more than one number, and lava-dl's loader fails on that")
    shape = entry.shape()
    return Encoder(_read_neuron(entry, shape, None), shape, entry.number)


def _common(entry: _Entry, kind: str) -> dict[str, Any]:
    name = _attribute(entry.group, "name")
    if name is not None and not (isinstance(name, str) and name.isprintable() and len(name) <= 100):
        raise NetworkError(f"attribute name is {_brief(name)}, not a printable text of at most 100 characters")
    scale = _attribute(entry.group, "weight_scale")
    if scale is not None and not isinstance(scale, (int, float, np.integer, np.floating)):
        raise NetworkError(f"attribute weight_scale is {_brief(scale)}, not a number")
    measured = {}
    for what in ("u_measured", "v_measured"):
        most = _attribute(entry.group, what)
        if most is not None and (not isinstance(most, np.integer) or most < 0):
            raise NetworkError(f"attribute {what} is {_brief(most)}, not an integer from 0 on")
        measured[what] = None if most is None else int(most)
    return {
        "name": f"{kind}{entry.number}" if name is None else name,
        "weight_scale": None if scale is None else float(scale),
        **measured,
    }


def _read_layer(entry: _Entry, kind: str, before: Shape | None, first: bool, loaded: bool) -> Layer:
    common = _common(entry, kind)
    if kind in ("dense", "dense_rec"):
        return _read_dense(entry, kind, before, first, loaded, common)
    if kind == "conv":
        return _read_conv(entry, before, common)
    if kind == "pool":
        return _read_pool(entry, before, common) if loaded else _read_bare_pool(entry, before, common)
    if kind == "average":
        return _read_average(entry, before, common)
    if before is None:
        before = (math.prod(entry.shape()),)
    return Flatten(in_shape=before, shape=(math.prod(before),), **common)


def _read_conv(entry: _Entry, before: Shape | None, common: dict[str, Any]) -> Conv:
    if before is None:
        raise entry.error("type", _SHAPELESS)
    shape = entry.shape()
    weight = entry.array(_weight_field(entry), cut=True)
    if weight.ndim < 4 or math.prod(weight.shape[4:]) != 1:
        raise entry.error("weight", f"has shape {weight.shape}, not (out, in / groups, height, width)")
    if "delay" in entry and np.any(entry.numbers("delay")):
        entry.warn("delay", "lava-dl drops the delays of a conv layer; read as it runs them")
    return Conv(
        in_shape=before,
        shape=shape,
        weight=weight.reshape(weight.shape[:4]),
        stride=entry.pair("stride", 1),
        padding=entry.pair("padding", 0),
        dilation=entry.pair("dilation", 1),
        groups=entry.number_in("groups", 1, CONV_NUMBER_MAX),
        neuron=_read_neuron(entry, shape, _read_bias(entry, shape)),
        **common,
    )


def _read_pool(entry: _Entry, before: Shape | None, common: dict[str, Any]) -> Conv:
    """A pool of SLAYER's, which sums, scales and has neurons: a conv layer with groups = channels."""
    if before is None or len(before) != 3:
        raise entry.error("type", _SHAPELESS if before is None else f"a pool takes (C, H, W), not {before}")
    if "delay" in entry and np.any(entry.numbers("delay")):
        raise entry.error("delay", "delays of a pool layer cannot be represented")
    shape = entry.shape()
    kernel = entry.pair("kernelSize", 1)
    stride, padding = entry.pair("stride", 1), entry.pair("padding", 0)
    dilation = entry.pair("dilation", 1) if "dilation" in entry else (1, 1)
    weight = entry.array(_weight_field(entry), cut=True)
    if weight.size == 1:
        weight = np.broadcast_to(weight.ravel(), kernel)
    if weight.size != math.prod(kernel):
        raise entry.error("weight", f"has shape {weight.shape}, not the kernel's, {kernel}")
    weight = weight.reshape(kernel)
    if before[0] * weight.size > NEURONS_MAX:
        raise entry.error("weight", f"kernels {kernel} for {before[0]:,} channels: more than {NEURONS_MAX:,} numbers")
    if shape != conv_shape(before, before[0], kernel, stride, padding, dilation):
        # SLAYER appends rows and columns of zeros to maps that the kernel does not divide: before them and in the
        # kernel as many more change nothing.
        more = tuple(n % k for n, k in zip(before[1:], kernel, strict=True))
        if padding == (0, 0) and dilation == (1, 1):
            weight, padding = np.pad(weight, ((more[0], 0), (more[1], 0))), (more[0], more[1])
    return Conv(
        in_shape=before,
        shape=shape,
        weight=np.broadcast_to(weight, (before[0], 1, *weight.shape)).copy(),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=before[0],
        neuron=_read_neuron(entry, shape, _read_bias(entry, shape)),
        **common,
    )


def _read_bare_pool(entry: _Entry, before: Shape | None, common: dict[str, Any]) -> Pool:
    """A sum pool that passes on what comes in, as chips without a clock have it."""
    if before is None or len(before) != 3:
        raise entry.error("type", _SHAPELESS if before is None else f"a pool takes (C, H, W), not {before}")
    kernel, stride, padding = entry.pair("kernelSize", 1), entry.pair("stride", 1), entry.pair("padding", 0)
    return Pool(in_shape=before, shape=entry.shape(), kernel=kernel, stride=stride, padding=padding, **common)


def _read_average(entry: _Entry, before: Shape | None, common: dict[str, Any]) -> Average:
    if before is None:
        raise entry.error("type", _SHAPELESS)
    return Average(in_shape=before, shape=(math.prod(entry.shape()),), **common)


def _read_dense(
    entry: _Entry, kind: str, before: Shape | None, first: bool, loaded: bool, common: dict[str, Any]
) -> Dense:
    outputs = math.prod(entry.shape())
    weight = _matrix(entry, _weight_field(entry), outputs)
    inputs = weight.shape[1]
    flat = np.ndim(entry.value("weight")) == 1  # NetX reshapes both or neither
    recurrent = _matrix(entry, "weight_rec", outputs, flat) if kind == "dense_rec" else None
    if first and before is not None and math.prod(before) != inputs:
        entry.warn("weight", f"is for {inputs} inputs: lava-dl ignores the input shape {before}; read as it runs this")
    if before is None or first:
        before = (inputs,)  # NetX looks at no input shape where a dense layer comes first.
    delay = _read_delay(entry, weight) if "delay" in entry else None
    if recurrent is not None and entry.foreign:
        entry.warn("weight_rec", _KEEPS)
    recurrent_delay = None if recurrent is None else delay
    if recurrent_delay is not None and inputs != outputs:
        raise entry.error("delay", f"lava-dl gives them to {outputs} x {outputs} recurrent synapses too, and fails")
    bias = _read_bias(entry, (outputs,))
    if loaded:
        wanted = weight, recurrent
        try:
            weight, recurrent = loaded_dense_weight(weight, recurrent, delayed=delay is not None)
        except NetworkError as error:
            raise entry.error("weight", str(error)) from None
        if _changed(wanted, (weight, recurrent)):
            entry.warn("weight", "lava-dl's loader changes these weights; read as it runs them")
    if "neuron" in entry:
        neuron = _read_neuron(entry, (outputs,), bias)
    else:  # what NetX puts there: u integrates without a leak, v follows u, and nothing ever spikes
        neuron = Neuron(THRESHOLD_NEVER, current_decay=0, voltage_decay=DECAY_UNITY, bias=bias, added=True)
    return Dense(
        in_shape=before,
        shape=(outputs,),
        weight=weight,
        recurrent=recurrent,
        delay=delay,
        recurrent_delay=recurrent_delay,
        neuron=neuron,
        **common,
    )


def _weight_field(entry: _Entry) -> str:
    if "weight/imag" in entry:
        raise entry.error("weight/imag", "complex weights cannot be represented")
    return "weight"


def _matrix(entry: _Entry, field: str, rows: int, flat: bool = True) -> np.ndarray:
    weight = entry.array(field, cut=True)
    if flat and weight.ndim == 1 and weight.size % rows == 0:
        weight = weight.reshape(rows, -1)
    if weight.ndim != 2 or len(weight) != rows:
        raise entry.error(field, f"has shape {weight.shape}, not ({rows}, inputs) or flat")
    return weight


def _read_delay(entry: _Entry, weight: np.ndarray) -> np.ndarray:
    """Delays, one for all, one an output, one an input, or one a synapse; as one a synapse."""
    delay = entry.array("delay", cut=True)
    outputs, inputs = weight.shape
    if delay.max() > DELAY_MAX:
        entry.warn("delay", f"lava-dl clamps delays to 0..{DELAY_MAX} steps; read as it runs them")
        delay = np.clip(delay, 0, DELAY_MAX)
    if delay.min() < 0:
        raise entry.error("delay", f"holds {delay.min()}, a negative delay")
    if delay.shape == (outputs,):
        delay = delay[:, None]
    elif delay.shape not in ((), (inputs,), (outputs, inputs)):
        raise entry.error("delay", f"has shape {delay.shape}, which does not fit weights of shape {weight.shape}")
    return np.broadcast_to(delay, weight.shape).copy()


def _read_bias(entry: _Entry, shape: Shape) -> np.ndarray | None:
    if "bias" not in entry:
        return None
    stored = entry.array("bias", cut=True)
    if len(shape) == 3 and stored.shape != shape[::-1] and stored.shape[:1] != shape[:1]:
        raise entry.error("bias", f"has shape {stored.shape}, and lava-dl takes {shape[:1]} or {shape[::-1]}")
    bias = entry.per_neuron("bias", _kept(entry, "bias", stored, stored.astype(np.int16)), shape)
    return np.broadcast_to(bias, shape[:1]).copy() if bias.ndim == 0 else bias


def _kept(entry: _Entry, field: str, stored: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """What Lava's integers keep of those stored, int64."""
    kept = kept.astype(np.int64)
    if np.any(kept != stored):
        one, other = (array[kept != stored].flat[0] for array in (stored, kept))
        entry.warn(field, f"lava-dl makes {one} {other}, in too few bits; read as it runs this")
    return kept


def _read_neuron(entry: _Entry, shape: Shape, bias: np.ndarray | None) -> Neuron:
    kind = entry.text("neuron/type")
    if kind not in ("CUBA", "LOIHI"):
        raise entry.error("neuron/type", f"{_brief(kind)} cannot be represented; only 'CUBA' and 'LOIHI' can")
    if "neuron/messageBits" in entry:
        raise entry.error("neuron/messageBits", "message bits do not run in lava-dl; leave them out")
    for field, usual, what in (
        ("neuron/gradedSpike", 0, "makes graded spikes binary"),
        ("neuron/refDelay", 1, "knows no refractory delay but 1"),
        ("neuron/weight_exp", 0, "does not read the weight exponent of a norm (fold it before export)"),
        ("neuron/wgtExp", 0, "does not read the weight exponent (multiply the weights by 2**wgtExp before export)"),
    ):
        if field in entry and np.any(entry.numbers(field) != usual):
            entry.warn(field, f"lava-dl {what}; read as it runs this")

    if entry.foreign and kind == "CUBA" and bias is not None and "neuron/weight_exp" not in entry:
        entry.warn("bias", _MEAN)

    def alike(field: str, array: np.ndarray) -> int | np.ndarray:
        array = entry.per_neuron(field, array, shape)
        return int(array.flat[0]) if array.min() == array.max() else array

    def decay(field: str) -> int | np.ndarray:
        array = entry.array(field)
        for extreme in (int(array.min()), int(array.max())):
            if not 0 <= extreme <= DECAY_UNITY:
                raise entry.error(field, f"is {extreme}, not in 0..{DECAY_UNITY}")
        return alike(field, array)

    threshold = entry.array("neuron/vThMant")
    shifted = np.left_shift(entry.numbers("neuron/vThMant"), STATE_SHIFT)  # in the integers of the file, as Lava does
    return Neuron(
        threshold=alike(
            "neuron/vThMant", _kept(entry, "neuron/vThMant", threshold, shifted.astype(np.int64) >> STATE_SHIFT)
        ),
        current_decay=decay("neuron/iDecay"),
        voltage_decay=decay("neuron/vDecay"),
        bias=bias,
    )


# ------------------------------------------------------------------------------------------------ for people


def layer_table(network: Network) -> str:
    """A plain text table: layer, kind, output shape, weights, bits used (with sign), threshold, range of weights.

    Where it was measured over the training data, also the largest current and its share of the range.
    """
    rows = [["layer", "kind", "shape", "weights", "bits", "threshold", "range of weights"]]
    measured = any(layer.u_measured is not None for layer in network)
    for i, layer in enumerate(network, 1):
        row = [layer.name or f"{layer.kind}{i}", layer.kind, "x".join(str(n) for n in layer.shape)]
        if layer.weight is None:
            row += ["0", "", "" if layer.neuron is None else _range(layer.neuron.threshold), ""]
        else:
            count, weight = layer.weights, layer.weight.ravel()
            if isinstance(layer, Dense) and layer.recurrent is not None:
                count, weight = count + layer.recurrent.size, np.concatenate([weight, layer.recurrent.ravel()])
            row += [
                f"{count:,}",
                str(_bits_used(weight)),
                "" if layer.neuron is None else _range(layer.neuron.threshold),
            ]
            row += [f"{weight.min()} .. {weight.max()}"]
        rows.append(row)
        if measured:
            row.append("" if layer.u_measured is None else share(layer.u_measured))
    total = sum(int(row[3].replace(",", "")) for row in rows[1:])
    rows.append(["total", "", "", f"{total:,}", "", "", ""])
    if measured:
        rows[0].append("largest u measured")
        rows[-1].append("")
    return "\n".join(table(rows, left=3))


def in_lava(network: Network, path: str | os.PathLike[str]) -> str:
    """How to run a written file in Lava without this package, in a line; nothing for what Lava cannot run.

    The script that does so stands in FORMAT.md.
    """
    if network.reset != "zero":
        return ""
    steps, late = network.info.get("time_steps", "T"), len(network.spiking)
    shape = (math.prod(network.in_shape),) if isinstance(network.layers[0], Flatten) else network.in_shape[::-1]
    return (
        f"in Lava by hand: netx.hdf5.Network({os.fspath(path)!r}, input_message_bits=32, reset_interval={steps}, "
        f"reset_offset=1); N samples of {steps} steps back to back, {(*shape, 'N*T')!r}; run N*T + {late} steps; "
        f"sample n answers in rows n*T + {late} .. (n+1)*T + {late - 1} (a script: netx_export/FORMAT.md)"
    ).replace("'N*T'", "N*T")


def _range(values: int | np.ndarray) -> str:
    low, high = np.min(values), np.max(values)
    return str(low) if low == high else f"{low} .. {high}"


def _bits_used(weight: np.ndarray) -> int:
    """Bits with sign; even weights are stored without their lowest bit."""
    mantissa = weight // 2 if not np.any(weight % 2) else weight
    return 1 + max(max(int(mantissa.max()), 0).bit_length(), max(-1 - int(mantissa.min()), 0).bit_length())
