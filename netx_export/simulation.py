"""What all simulators of NetX files have in common: input, result, and the choice among them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from netx_export import limits
from netx_export.backends import find
from netx_export.bounds import bounds
from netx_export.files import save_arrays
from netx_export.limits import Limits
from netx_export.network import (
    BIAS_MAX,
    BIAS_MIN,
    DECAY_UNITY,
    STATE_MAX,
    STATE_SHIFT,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Pool,
    Shape,
    SigmaDelta,
)
from netx_export.netx import check_encoder, read
from netx_export.netx.fields import largest_sum_in_lava
from netx_export.reading import read_npy
from netx_export.text import short, unknown

PAYLOAD_MIN, PAYLOAD_MAX = -(1 << 31), (1 << 31) - 1
"""Range of a graded spike: 32 bits with sign (Loihi 2)."""
VALUE_MIN, VALUE_MAX = -(1 << 17), (1 << 17) - 1
"""Values that sigma-delta input neurons can tell apart in states of 32 bits."""


class SimulationError(RuntimeError):
    """The simulation did not come to its end: one clear line, then Lava's traceback if there is one."""


@dataclass(frozen=True, eq=False)
class Simulation:
    """What a network answered to N samples of T time steps.

    Parameters
    ----------
    spikes : numpy.ndarray
        Spikes of the last layer, integer, (N, C, H, W, T) or (N, F, T); time step t answers input time step t. Of
        sigma-delta neurons their messages, int32, 0 where there is none.
    readout : numpy.ndarray
        (N, outputs), int64: spike counts (sums of messages) over the T time steps, or, for the readout ``"voltage"``,
        the membrane voltage (of other neurons the state they answer with) after the last one.
    record : dict of str to numpy.ndarray
        What else was asked for, by name: ``spikes.<layer>``, ``u.<layer>``, ``v.<layer>``, shaped like `spikes`, where
        <layer> is the layer's name; of sigma-delta neurons ``sigma``, ``act`` and ``residue``. State is that at the
        end of the time step.
    limits : dict of str to Limits, or None
        How far u and v of every layer with neurons went, by the layer's name. None: not counted (backend ``"lava"``
        with ``stock``).
    """

    spikes: np.ndarray
    readout: np.ndarray
    record: dict[str, np.ndarray] = field(default_factory=dict)
    limits: dict[str, Limits] | None = None
    graded: bool = False
    """Whether `spikes` are messages, of any value."""

    def __repr__(self) -> str:
        n, steps, fired = len(self.spikes), self.spikes.shape[-1], self.fired
        what = "messages" if self.graded else "spikes"
        return f"<Simulation: {n} samples, T = {steps}, {fired:,} output {what}, {len(self.record)} records>"

    @property
    def fired(self) -> int:
        """How many output spikes, or messages, there are."""
        return int(np.count_nonzero(self.spikes) if self.graded else self.spikes.sum())

    def limits_text(self) -> str:
        """One line that says which layers wrapped or saturated, or that nobody counted; else nothing."""
        return limits.text(self.limits)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a NumPy .npz file, whole or not at all; ``limits`` as a text, a JSON object."""
        text = np.array(limits.to_json(self.limits))
        save_arrays(path, {"spikes": self.spikes, "readout": self.readout, **self.record, "limits": text})


def load_inputs(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an input array from a NumPy .npy file.

    Raises
    ------
    NetworkError
        There is no such file, or it is not one array of plain numbers.
    """
    return read_npy(path, NetworkError)


def read_for(
    path: str | os.PathLike[str],
    inputs: np.ndarray,
    in_shape: Shape | None = None,
    *,
    for_lava: bool = False,
    encode: bool = False,
) -> Network:
    """Read a NetX file to be fed with `inputs`, of which it takes the shape where it states none."""
    fitting = isinstance(inputs, np.ndarray) and inputs.ndim in (3, 5) and 0 not in inputs.shape
    default = tuple(inputs.shape[1:-1]) if fitting else None
    return read(path, in_shape, for_lava=for_lava, default_shape=default, encode=encode)


def encoded(network: Network, values: np.ndarray) -> np.ndarray:
    """Spikes, or messages, that a network's input neurons make of values.

    Parameters
    ----------
    network : Network
        With an `Encoder`.
    values : numpy.ndarray
        Integers, (N, C, H, W, T) or (N, F, T): the biases (mantissas) of CUBA neurons in every time step, or what
        sigma-delta neurons are to send (see `netx_export.network.Encoder`).

    Returns
    -------
    numpy.ndarray
        int8, or int32 of messages, shaped like `values`. Every sample starts from rest.
    """
    check_encoder(network)
    check_inputs(network, values, encode=True)
    assert network.encoder is not None
    neuron, shape = network.encoder.neuron, network.in_shape
    if isinstance(neuron, SigmaDelta):
        return _differences(neuron, values)

    def each(value: int | np.ndarray) -> np.ndarray:
        array = np.asarray(value, np.int64)
        return array.reshape(array.shape + (1,) * (len(shape) - array.ndim if array.ndim else 0))

    keep, threshold = DECAY_UNITY - each(neuron.voltage_decay), each(neuron.threshold) << STATE_SHIFT
    spikes = np.zeros(values.shape, np.int8)
    v = np.zeros(values.shape[:-1], np.int64)
    for step in range(values.shape[-1]):
        kept = np.sign(v) * (np.abs(v) * keep >> DECAY_UNITY.bit_length() - 1)
        v = np.clip(kept + (values[..., step].astype(np.int64) << STATE_SHIFT), -STATE_MAX, STATE_MAX)
        fired = v > threshold
        spikes[..., step] = fired
        v[fired] = 0
    return spikes


def _differences(neuron: SigmaDelta, values: np.ndarray) -> np.ndarray:
    """What Lava's Delta process sends of values (..., T): 32-bit integers, which wrap."""
    wanted = values.astype(np.int32) << np.int32(neuron.shift)
    messages = np.zeros(values.shape, np.int32)
    threshold = np.array(neuron.threshold << neuron.shift).astype(np.int32)
    act, residue = np.zeros((2, *values.shape[:-1]), np.int32)
    for step in range(values.shape[-1]):
        delta = wanted[..., step] - act + residue
        sent = np.where(np.abs(delta) >= threshold, delta, np.int32(0))
        residue, act = delta - sent, wanted[..., step]
        messages[..., step] = sent >> np.int32(neuron.state_exponent)
    return messages


def check_inputs(network: Network, inputs: np.ndarray, where: str = "input", *, encode: bool = False) -> None:
    """Refuse what `network` cannot be fed.

    Parameters
    ----------
    network : Network
    inputs : numpy.ndarray
        To be N samples of T time steps: integers, (N, C, H, W, T) or (N, F, T), N and T at least 1.
    where : str
        What to call it in messages.
    encode : bool
        These are values for the input neurons.

    Raises
    ------
    NetworkError
    """
    if network.reset != "zero":
        raise NetworkError(
            f"{network.source}: its neurons reset by subtraction, for chips without a clock, and Lava's reset to zero: "
            f"give events to --backend event"
        )
    axes = (*"CHW",) if len(network.in_shape) == 3 else (*"F",)
    wanted = ", ".join(["N", *(f"{axis}={size}" for axis, size in zip(axes, network.in_shape, strict=True)), "T"])
    plain = isinstance(inputs, np.ndarray) and not isinstance(inputs, np.ma.MaskedArray)
    if not plain or inputs.dtype.kind not in "iub":
        got = short(str(inputs.dtype)) if plain else type(inputs).__name__
        raise NetworkError(f"{where}: holds {got}; give a NumPy array of integers ({wanted})")
    if inputs.shape[1:-1] != network.in_shape:
        raise NetworkError(f"{where}: has shape {inputs.shape}; {network.source} takes ({wanted})")
    if 0 in inputs.shape:
        raise NetworkError(f"{where}: has shape {inputs.shape}; give at least one sample and one time step")
    spikes_enter = network.encoder is not None and not network.encoder.neuron.graded
    if encode or (spikes_enter and inputs.dtype != bool):
        low, high = int(inputs.min()), int(inputs.max())
        least, most = (BIAS_MIN, BIAS_MAX) if spikes_enter else (VALUE_MIN, VALUE_MAX)
        if encode and (low < least or high > most):
            what = "biases" if spikes_enter else "values"
            raise NetworkError(
                f"{where}: holds values {low}..{high}; the {what} of input neurons are {least}..{most}: scale them down"
            )
        if not encode and (low < 0 or high > 1):
            raise NetworkError(
                f"{where}: holds values {low}..{high}; {network.source} takes spikes, 0 and 1, behind its input "
                f"neurons; to run these on values give --encode (in Python encode=True)"
            )
        return
    low, high = (0, 1) if inputs.dtype == bool else (np.iinfo(inputs.dtype).min, np.iinfo(inputs.dtype).max)
    if max(_changes(network, low, high))[0] <= PAYLOAD_MAX and low >= PAYLOAD_MIN and high <= PAYLOAD_MAX:
        return  # no value of this type is too large
    low, high = int(inputs.min()), int(inputs.max())
    if low < PAYLOAD_MIN or high > PAYLOAD_MAX:
        raise NetworkError(
            f"{where}: holds values {low}..{high}; a graded spike has 32 bits with sign, {PAYLOAD_MIN}..{PAYLOAD_MAX}"
        )
    low = min(low, 0)
    change, name = max(_changes(network, low, high))
    if change > PAYLOAD_MAX:
        raise NetworkError(
            f"{where}: values {low}..{high} can change the current u in layer {name} of "
            f"{network.source} by {change} in a time step; Lava computes with 32 bits, up to {PAYLOAD_MAX}, and would "
            f"go on with wrong ones; scale them down"
        )


def _changes(network: Network, low: int, high: int) -> Iterator[tuple[int, str]]:
    """Bound of what inputs add to u in one time step, and the name, of each layer with neurons that they reach.

    Layers of sigma-delta networks, where what the input itself reaches is no special case, watch their sums themselves.
    """
    yield 0, ""
    if network.graded:
        return
    for bound in bounds(network, low, high):
        layer = bound.layer
        if layer.neuron is not None and bound.raw:
            # Lava adds up dense weights that fill 8 bits, and scales the sum down: there a weight of 1 is 128, not 64.
            lone_bits = isinstance(layer, Dense) and layer.weight is not None and bool(layer.weight.max() == 1)
            yield bound.change << (STATE_SHIFT + lone_bits), layer.name


def is_graded(inputs: np.ndarray) -> bool:
    """Whether inputs hold other values than 0 and 1."""
    return bool(((inputs != 0) & (inputs != 1)).any())


def check_record(record: Sequence[str], network: Network) -> None:
    """Refuse names of what cannot be recorded of any layer."""
    known = ("spikes", *network.states)
    for what in record:
        if what not in known:
            raise NetworkError(unknown("record", what, known))


def recorded(layer: Layer, record: Sequence[str]) -> list[str]:
    """What of `record` there is in a layer, in the order in which results have it."""
    return [] if layer.neuron is None else [what for what in ("spikes", *layer.neuron.states) if what in record]


def spike_type(network: Network) -> type[np.signedinteger[Any]]:
    """Of what neurons send."""
    return np.int32 if network.graded else np.int8


def answer_type(network: Network) -> type[np.signedinteger[Any]]:
    """Of what the last layer gives: spikes, or sums of them."""
    return spike_type(network) if all(isinstance(layer, Flatten) for layer in network.tail) else np.int32


def check_sums(network: Network, layer: Layer, largest: int) -> None:
    """Refuse sums into a layer of a sigma-delta network beyond what Lava's processes hold."""
    most = largest_sum_in_lava(layer)
    if largest > most:
        raise NetworkError(
            f"{network.source}: layer {layer.name}: messages came to a sum of {largest}; Lava's process of it holds at "
            f"most {most}, and would go on with wrong ones; give smaller inputs"
        )


def linear(layers: Sequence[Layer], signal: np.ndarray) -> np.ndarray:
    """What layers without neurons and weights make of (N, *in_shape); integers become int64."""
    signal = signal.astype(np.int64) if signal.dtype.kind != "f" else signal
    for layer in layers:
        if isinstance(layer, Pool):
            (height, width), (down, right) = layer.padding, layer.stride
            if height or width:
                signal = np.pad(signal, ((0, 0), (0, 0), (height, height), (width, width)))
            rows, columns = down * (layer.shape[1] - 1) + 1, right * (layer.shape[2] - 1) + 1
            windows = product(range(layer.kernel[0]), range(layer.kernel[1]))
            shifted = [signal[:, :, y : y + rows : down, x : x + columns : right] for y, x in windows]
            signal = shifted[0].copy(order="K")
            for each in shifted[1:]:
                signal += each
        else:
            signal = signal.reshape(len(signal), *layer.shape, -1).sum(axis=-1)
    return signal


def simulate(
    path: str | os.PathLike[str],
    inputs: np.ndarray,
    backend: str = "lava",
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    **options: Any,
) -> Simulation:
    """Run the network of a NetX file.

    Parameters
    ----------
    path : path
        NetX HDF5 file.
    inputs : numpy.ndarray
        Integers, (N, C, H, W, T) or (N, F, T); every sample starts from rest.
    backend : str
        ``"fast"``: compiled integer code, bit for bit what Lava computes (`netx_export.fast.backend`).
        ``"lava"``: Lava's fixed-point simulation of Loihi (`netx_export.lava.backend`).
    workers, scheduler : int or str, optional
        Spread the samples over so many processes, or over the Dask cluster at this address: see
        `netx_export.spread`. The result is the same, bit for bit.
    **options
        Go to the backend's own ``simulate``.

    Raises
    ------
    NetworkError
        File, input, backend or an option is not what it must be.
    """
    simulator = find(backend, "frames")
    simulator.check_options(options)
    if workers is None and scheduler is None:
        result: Simulation = simulator.simulate(path, inputs, **options)
        return result
    from netx_export.spread import spread

    return spread(path, inputs, backend, workers=workers, scheduler=scheduler, **options)
