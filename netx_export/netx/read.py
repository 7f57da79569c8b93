"""NetX HDF5 files: chains, read as lava-dl's own loader runs them, and graphs, as they stand there."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from netx_export.network import (
    DECAY_UNITY,
    DELAY_MAX,
    INPUT,
    KINDS,
    STATE_SHIFT,
    Add,
    AnyNeuron,
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
    Sigma,
    SigmaDelta,
    Weighted,
    conv_shape,
)
from netx_export.netx.entry import TOO_MANY, Entry, attribute, brief
from netx_export.netx.fields import (
    CONV_NUMBER_MAX,
    FORMAT,
    GRAPH_READABLE,
    GRAPH_VERSION,
    LAYERS_MAX,
    NAME_MAX,
    NEURONS_MAX,
    READABLE,
    THRESHOLD_NEVER,
    NetxWarning,
    changed,
    loaded_dense_weight,
)
from netx_export.netx.hdf5 import Group, HDF5Error, load

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
_NO_BITS = "message bits do not run in lava-dl; leave them out"
_REFUSED = ("convT", "unpool", "concat", "dense_comp")  # by lava-dl's loader too; other types it passes over


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
        (other neurons than CUBA / LOIHI and SDNN, complex weights, decays outside 0..4096, ...).
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
        graded = network.encoder.neuron.graded
        sent, values = ("messages", "values") if graded else ("spikes", "values, which are their biases,")
        changes.append(
            f"{source}: layer/{network.encoder.number}/neuron: the input is the {sent} that enter the first synapse; "
            f"to run the input neurons on {values} give --encode (in Python encode=True)"
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
    form = "graph" if "graph" in file.members else "layer"
    if form == "graph" and (readout is None or "layer" in file.members):
        what = "in a file without the attribute format of this package" if readout is None else "beside a group 'layer'"
        raise NetworkError(f"{source}: group 'graph' {what}, so which network is meant is unknown; write the file anew")
    groups = file.get(form)
    if not isinstance(groups, Group) or not groups.members:
        raise NetworkError(f"{source}: no group {form!r} with the layers in it, so not a NetX file")
    count = len(groups.members)
    if form == "graph" and count > LAYERS_MAX:
        raise NetworkError(f"{source}: group graph: holds {count:,} layers; more than {LAYERS_MAX:,} are not read")
    missing = [str(i) for i in range(count) if not isinstance(groups.get(str(i)), Group)]
    if missing:
        raise NetworkError(f"{source}: group {form}/{missing[0]} is missing; layers are numbered 0..{count - 1}")
    loaded = reset == "zero"  # else no weight passes through lava-dl's loader
    entries = [
        Entry(groups.members[str(i)], source, i, changes, form=form, foreign=readout is None) for i in range(count)
    ]
    if form == "graph":
        assert readout is not None
        asked = None if in_shape is None else tuple(int(n) for n in in_shape)
        return Network(tuple(_read_graph(entries, asked)), readout, reset, info, source)

    shape = asked = None if in_shape is None else tuple(int(n) for n in in_shape)
    layers: list[Layer] = []
    numbers: list[int] = []
    flatten: Entry | None = None
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
                raise entry.error("type", f"layer type {brief(kind)} cannot be represented; {', '.join(READABLE)} can")
            entry.warn("type", f"lava-dl passes over the unknown layer type {brief(kind)}; read as it runs this")
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
            raise entry.error("shape", f"is {brief(entry.shape())}: {TOO_MANY}")
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
        silent = isinstance(last, Neuron) and np.min(last.threshold) >= THRESHOLD_NEVER
        readout = "voltage" if silent or isinstance(last, Sigma) else "count"
    usual = numbers == list(range(1, len(numbers) + 1))
    return Network(tuple(layers), readout, reset, info, source, () if usual else tuple(numbers), encoder)


def holds_graph(path: str | os.PathLike[str]) -> bool:
    """Whether a file that can be read holds a graph."""
    return "graph" in load(path)[0].members


def _read_graph(entries: list[Entry], asked: Shape | None) -> Iterator[Layer]:
    """The layers of a graph, which stand there as the network description has them."""
    first, *rest = entries
    if first.text("type") != "input" or "neuron" in first:
        raise first.error("type", "the first entry of a graph is its input, without neurons")
    names, shapes = [INPUT], [_read_input(first, asked) if "shape" in first else first.shape()]
    if not rest:
        raise NetworkError(f"{first.source}: holds no layer but the input")
    outputs = 0
    for entry in rest:
        kind = entry.text("type")
        if kind not in GRAPH_READABLE:
            raise entry.error("type", f"{brief(kind)} is no layer of a graph; {', '.join(GRAPH_READABLE)} are")
        outputs += math.prod(entry.shape())
        if outputs > NEURONS_MAX:
            raise entry.error("shape", f"is {brief(entry.shape())}: {TOO_MANY}")
        inputs = _read_inputs(entry, kind)
        try:
            layer = _read_layer(entry, kind, shapes[inputs[0]], first=False, loaded=False)
        except NetworkError as error:
            text = str(error)
            raise NetworkError(
                text if text.startswith(entry.source) else f"{entry.source}: graph/{entry.number}: {text}"
            ) from None
        yield replace(layer, inputs=tuple(names[n] for n in inputs))
        names.append(layer.name)
        shapes.append(layer.shape)


def _read_inputs(entry: Entry, kind: str) -> list[int]:
    """Numbers of the groups whose output comes in, all before this one: so there is no circle."""
    inputs = entry.array("inputs").ravel().tolist()
    for n in inputs:
        if not 0 <= n < entry.number:
            raise entry.error("inputs", f"holds {n}; inputs are groups before this one, 0..{entry.number - 1}")
    if len(set(inputs)) != len(inputs) or (len(inputs) > 1) != (kind == "add"):
        raise entry.error(
            "inputs", f"is {brief(inputs)}; an add takes two or more different ones, a layer of another kind one"
        )
    return inputs


def _read_attributes(file: Group, has_digest: bool, source: str) -> tuple[str | None, str, dict[str, Any]]:
    stated = attribute(file, "format")
    if not isinstance(stated, str) or stated != FORMAT:
        return None, "zero", {}
    version = attribute(file, "format_version")
    if not isinstance(version, np.integer) or version < 1:
        raise NetworkError(f"{source}: attribute format_version is {brief(version)}, not a positive integer")
    if version > GRAPH_VERSION:
        raise NetworkError(
            f"{source}: format version {version} is newer than {GRAPH_VERSION}, the newest known here; update mtt-lava"
        )
    if version < GRAPH_VERSION and "graph" in file.members:
        raise NetworkError(
            f"{source}: group 'graph' in a file of format version {version}; graphs have {GRAPH_VERSION}"
        )
    if version >= 2 and not has_digest:
        raise NetworkError(
            f"{source}: is damaged: it has no digest, as files of format version {version} have; write it anew"
        )
    readout, text = attribute(file, "readout"), attribute(file, "info")
    try:
        info = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict):
        raise NetworkError(f"{source}: attribute info is not a JSON object")
    for field in ("time_steps", "input_max"):
        value = info.get(field)
        if value is not None and (type(value) is not int or value < 1):
            raise NetworkError(f"{source}: attribute info: {field} is {brief(value)}, not an integer from 1 on")
    if not isinstance(info.get("profile", ""), str):
        raise NetworkError(f"{source}: attribute info: profile is {brief(info['profile'])}, not a text")
    reset = attribute(file, "reset")
    return str(readout)[:80], "zero" if reset is None else str(reset)[:80], info


def _read_input(entry: Entry, asked: Shape | None) -> Shape | None:
    if "shape" not in entry:
        return asked
    shape = entry.shape()
    if asked is not None and asked != shape:
        raise entry.error("shape", f"is {shape}, but the input shape asked for is {asked}")
    return shape


def _read_encoder(entry: Entry) -> Encoder:
    for field in ("weight", "bias"):  # a transform that lava-dl offers, and leaves to the user
        if field in entry and entry.array(field, cut=True).size != 1:
            raise entry.error(field, "is more than one number, and lava-dl's loader fails on that")
    shape = entry.shape()
    neuron = _read_sigma_delta(entry) if _is_sigma_delta(entry) else _read_neuron(entry, shape, None)
    assert isinstance(neuron, Neuron | SigmaDelta)
    return Encoder(neuron, shape, entry.number)


def _common(entry: Entry, kind: str) -> dict[str, Any]:
    name = attribute(entry.group, "name")
    if name is not None and not (isinstance(name, str) and name.isprintable() and len(name) <= NAME_MAX):
        raise NetworkError(f"attribute name is {brief(name)}, not a printable text of at most {NAME_MAX} characters")
    scale = attribute(entry.group, "weight_scale")
    if scale is not None and not isinstance(scale, (int, float, np.integer, np.floating)):
        raise NetworkError(f"attribute weight_scale is {brief(scale)}, not a number")
    measured = {}
    for what in ("u_measured", "v_measured"):
        most = attribute(entry.group, what)
        if most is not None and (not isinstance(most, np.integer) or most < 0):
            raise NetworkError(f"attribute {what} is {brief(most)}, not an integer from 0 on")
        measured[what] = None if most is None else int(most)
    return {
        "name": f"{kind}{entry.number}" if name is None or (entry.in_graph and not name) else name,
        "weight_scale": None if scale is None else float(scale),
        **measured,
    }


def _read_layer(entry: Entry, kind: str, before: Shape | None, first: bool, loaded: bool) -> Layer:
    common = _common(entry, kind)
    if kind in ("dense", "dense_rec"):
        return _read_dense(entry, kind, before, first, loaded, common)
    cls = KINDS[kind]
    if issubclass(cls, Weighted):
        return _read_weighted(entry, cls, before, common)
    if entry.in_graph:
        assert before is not None
        shape = (math.prod(before),) if kind == "flatten" else entry.shape()
        common["neuron"] = _read_neurons(entry, shape)
        if kind == "add":
            return Add(in_shape=before, shape=shape, **common)
    if kind == "pool":
        return _read_pool(entry, before, common) if loaded else _read_bare_pool(entry, before, common)
    if kind == "average":
        return _read_average(entry, before, common)
    if before is None:
        before = (math.prod(entry.shape()),)
    return Flatten(in_shape=before, shape=(math.prod(before),), **common)


def _read_weighted(entry: Entry, cls: type[Weighted], before: Shape | None, common: dict[str, Any]) -> Layer:
    if before is None:
        raise entry.error("type", _SHAPELESS)
    shape = entry.shape()
    weight = entry.array(_weight_field(entry), cut=True)
    if weight.ndim < 4 or math.prod(weight.shape[4:]) != 1:
        raise entry.error("weight", f"has shape {weight.shape}, not (out, in / groups, height, width)")
    if "delay" in entry and np.any(entry.numbers("delay")):
        entry.warn("delay", "lava-dl drops the delays of a conv layer; read as it runs them")
    return cls(
        in_shape=before,
        shape=shape,
        weight=weight.reshape(weight.shape[:4]),
        stride=entry.pair("stride", 1),
        padding=entry.pair("padding", 0),
        dilation=entry.pair("dilation", 1),
        groups=entry.number_in("groups", 1, CONV_NUMBER_MAX),
        neuron=_read_neurons(entry, shape),
        **common,
    )


def _read_pool(entry: Entry, before: Shape | None, common: dict[str, Any]) -> Conv:
    """A pool of SLAYER's, which sums, scales and has neurons: a conv layer with groups = channels."""
    if before is None or len(before) != 3:
        raise entry.error("type", _SHAPELESS if before is None else f"a pool takes (C, H, W), not {before}")
    if "delay" in entry and np.any(entry.numbers("delay")):
        raise entry.error("delay", "delays of a pool layer cannot be represented")
    if _is_sigma_delta(entry):
        raise entry.error("neuron/type", "a pool with sigma-delta neurons cannot be represented")
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


def _read_bare_pool(entry: Entry, before: Shape | None, common: dict[str, Any]) -> Pool:
    """A sum pool that passes on what comes in, as chips without a clock have it."""
    if before is None or len(before) != 3:
        raise entry.error("type", _SHAPELESS if before is None else f"a pool takes (C, H, W), not {before}")
    kernel, stride, padding = entry.pair("kernelSize", 1), entry.pair("stride", 1), entry.pair("padding", 0)
    return Pool(in_shape=before, shape=entry.shape(), kernel=kernel, stride=stride, padding=padding, **common)


def _read_average(entry: Entry, before: Shape | None, common: dict[str, Any]) -> Average:
    if before is None:
        raise entry.error("type", _SHAPELESS)
    return Average(in_shape=before, shape=(math.prod(entry.shape()),), **common)


def _read_dense(
    entry: Entry, kind: str, before: Shape | None, first: bool, loaded: bool, common: dict[str, Any]
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
    if entry.in_graph:
        has = recurrent is not None and "delay_rec" in entry
        recurrent_delay = _read_delay(entry, recurrent, "delay_rec") if has and recurrent is not None else None
    elif recurrent_delay is not None and inputs != outputs:
        raise entry.error("delay", f"lava-dl gives them to {outputs} x {outputs} recurrent synapses too, and fails")
    bias = None if entry.in_graph else _read_bias(entry, (outputs,))
    if loaded:
        wanted = weight, recurrent
        try:
            weight, recurrent = loaded_dense_weight(weight, recurrent, delayed=delay is not None)
        except NetworkError as error:
            raise entry.error("weight", str(error)) from None
        if changed(wanted, (weight, recurrent)):
            entry.warn("weight", "lava-dl's loader changes these weights; read as it runs them")
    if entry.in_graph:
        neuron = _read_neurons(entry, (outputs,))
    elif "neuron" in entry:
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


def _weight_field(entry: Entry) -> str:
    if "weight/imag" in entry:
        raise entry.error(
            "weight/imag",
            "complex weights, as resonate-and-fire neurons have, cannot be represented; run the file in lava-dl itself",
        )
    return "weight"


def _matrix(entry: Entry, field: str, rows: int, flat: bool = True) -> np.ndarray:
    weight = entry.array(field, cut=True)
    if flat and weight.ndim == 1 and weight.size % rows == 0:
        weight = weight.reshape(rows, -1)
    if weight.ndim != 2 or len(weight) != rows:
        raise entry.error(field, f"has shape {weight.shape}, not ({rows}, inputs) or flat")
    return weight


def _read_delay(entry: Entry, weight: np.ndarray, field: str = "delay") -> np.ndarray:
    """Delays, one for all, one an output, one an input, or one a synapse; as one a synapse."""
    delay = entry.array(field, cut=True)
    outputs, inputs = weight.shape
    if delay.max() > DELAY_MAX:
        entry.warn(field, f"lava-dl clamps delays to 0..{DELAY_MAX} steps; read as it runs them")
        delay = np.clip(delay, 0, DELAY_MAX)
    if delay.min() < 0:
        raise entry.error(field, f"holds {delay.min()}, a negative delay")
    if delay.shape == (outputs,):
        delay = delay[:, None]
    elif delay.shape not in ((), (inputs,), (outputs, inputs)):
        raise entry.error(field, f"has shape {delay.shape}, which does not fit weights of shape {weight.shape}")
    return np.broadcast_to(delay, weight.shape).copy()


def _read_bias(entry: Entry, shape: Shape) -> np.ndarray | None:
    if "bias" not in entry:
        return None
    stored = entry.array("bias", cut=True)
    if len(shape) == 3 and stored.shape != shape[::-1] and stored.shape[:1] != shape[:1]:
        raise entry.error("bias", f"has shape {stored.shape}, and lava-dl takes {shape[:1]} or {shape[::-1]}")
    kept = stored.astype(np.int16)
    if _is_sigma_delta(entry):
        kept = stored.astype(np.int32) << SigmaDelta().shift >> SigmaDelta().shift
    bias = entry.per_neuron("bias", _kept(entry, "bias", stored, kept), shape)
    return np.broadcast_to(bias, shape[:1]).copy() if bias.ndim == 0 else bias


def _kept(entry: Entry, field: str, stored: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """What Lava's integers keep of those stored, int64."""
    kept = kept.astype(np.int64)
    if np.any(kept != stored):
        one, other = (array[kept != stored].flat[0] for array in (stored, kept))
        entry.warn(field, f"lava-dl makes {one} {other}, in too few bits; read as it runs this")
    return kept


def _read_neurons(entry: Entry, shape: Shape) -> AnyNeuron | None:
    """The neurons of a layer, which only in a graph may have none."""
    if not entry.in_graph or "neuron" in entry:
        return _read_neuron(entry, shape, _read_bias(entry, shape))
    if "bias" in entry:
        raise entry.error("bias", "there are no neurons that could have one")
    return None


def _is_sigma_delta(entry: Entry) -> bool:
    return "neuron/type" in entry and entry.text("neuron/type") == "SDNN"


def _read_neuron(entry: Entry, shape: Shape, bias: np.ndarray | None) -> AnyNeuron:
    kind = entry.text("neuron/type")
    if kind not in ("CUBA", "LOIHI", "SDNN"):
        text = f"{brief(kind)} cannot be represented; only 'CUBA', 'LOIHI' and 'SDNN' can"
        if kind == "ALIF" or "RF" in kind:
            text += ", and lava-dl's loader fails on it too" + ("" if kind == "ALIF" else " without complex weights")
        raise entry.error("neuron/type", text)
    if "neuron/messageBits" in entry:
        raise entry.error("neuron/messageBits", _NO_BITS)
    for field, usual, what in (
        ("neuron/gradedSpike", 0, "makes graded spikes binary"),
        ("neuron/refDelay", 1, "knows no refractory delay but 1"),
        ("neuron/weight_exp", 0, "does not read the weight exponent of a norm (fold it before export)"),
        ("neuron/wgtExp", 0, "does not read the weight exponent (multiply the weights by 2**wgtExp before export)"),
    ):
        if field in entry and np.any(entry.numbers(field) != usual):
            entry.warn(field, f"lava-dl {what}; read as it runs this")

    if kind == "SDNN" and "neuron/sigma_output" in entry:  # whatever its value
        if bias is not None:
            raise entry.error("bias", "a layer with sigma output has none, and lava-dl's loader fails on one")
        return Sigma()
    if kind == "SDNN":
        if "neuron/activation" in entry and entry.text("neuron/activation") != "relu":
            entry.warn("neuron/activation", "lava-dl always computes relu; read as it runs this")
        return _read_sigma_delta(entry, bias)

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


def _read_sigma_delta(entry: Entry, bias: np.ndarray | None = None) -> SigmaDelta:
    """Those of a layer, or of the input, which sends differences of what it gets."""
    if "neuron/messageBits" in entry:
        raise entry.error("neuron/messageBits", _NO_BITS)
    field, shift = "neuron/vThMant", SigmaDelta().shift
    stored = entry.array(field)
    if stored.size != 1:
        raise entry.error(field, f"has shape {stored.shape}; sigma-delta neurons have one number for the whole layer")
    with np.errstate(over="ignore"):
        scaled = entry.numbers(field) * (1 << shift)  # in the integers of the file, as Lava does
    return SigmaDelta(int(_kept(entry, field, stored, scaled.astype(np.int32) >> shift).flat[0]), bias)
