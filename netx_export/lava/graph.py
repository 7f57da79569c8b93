"""A graph as Lava's own processes, planned before Lava is started.

lava-dl's loader runs chains. Of a graph every layer with neurons becomes a process of neurons (`LIFReset`), and what
weights its input one of synapses (`Conv`, `Dense`, `DelayDense`); what several of them send to one port adds up.
Synapses answer one time step later, so ways of different length have to be made equal: a shortcut from the input starts
later, one from spikes is held by relays, neurons that pass on every spike. Sums are not held: what makes them does it
when they are needed.

- `Add` with neurons: currents of layers without neurons reach its neurons as they are, spikes through a weight of 1.
- `Add` and `Flatten` without neurons are connections, and no process.
- Sum pools are convolutions, averages dense layers with weights of 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netx_export.bounds import bounds
from netx_export.network import (
    INPUT,
    STATE_MAX,
    STATE_SHIFT,
    Add,
    Average,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Neuron,
    Pool,
    Shape,
)
from netx_export.netx.fields import each_channel
from netx_export.netx.write import check_numbers, check_synapses
from netx_export.simulation import is_graded

PROCESSES_MAX = 250
"""Most processes, and layers, of a graph; each is a process of the operating system, with some 40 MB of memory."""
SUM_MAX = (1 << 31) - 1
"""Largest sum in units of u; Lava computes with 32 bits."""


@dataclass(frozen=True, eq=False)
class Process:
    """One of Lava's processes.

    Attributes
    ----------
    kind : str
        ``"source"``, ``"conv"``, ``"dense"``, ``"neurons"`` or ``"relay"``.
    time : int
        How many time steps after the first one it sends what it makes of the first row of the input.
    numbers : dict
        Its parameters: integers, texts and lists of them.
    arrays : dict of str to numpy.ndarray
        Its parameters with axes, in Lava's order, (W, H, C).
    """

    kind: str
    time: int
    numbers: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


Port = tuple[int, bool]
"""The number of a process, and whether what it sends is flattened, channels slowest."""


Made = tuple[str, dict[str, Any], dict[str, np.ndarray]]
"""Kind, numbers and arrays of a process."""


class Plan:
    """The processes of a graph and their connections.

    Parameters
    ----------
    network : Network
    inputs : numpy.ndarray
        What it is to be fed with, (N, C, H, W, T) or (N, F, T).

    Raises
    ------
    NetworkError
        Lava's processes cannot run a layer: its name, its kind and the reason.
    """

    def __init__(self, network: Network, inputs: np.ndarray) -> None:
        self.network = network
        self.low, self.high = min(int(inputs.min()), 0), max(int(inputs.max()), 1)
        self.processes: list[Process] = []
        self.connections: list[tuple[int, int, bool]] = []
        """Numbers of two processes, and whether what goes from one to the other is flattened."""
        self.neurons: list[int] = []
        """The process of each layer with neurons, in order."""
        self._check()
        self._graded = is_graded(inputs)
        self._times = {INPUT: 0}
        self._earliest = {(INPUT, False): 0, (INPUT, True): 1}
        """First time at which what a layer gives can be sent, and at which synapses can send it."""
        self._number_of: dict[str, int] = {}
        self._sent: dict[tuple[str, int, bool], tuple[Port, ...]] = {}
        for layer in network:
            if layer.neuron is not None:
                self._put_neurons(layer)
            for weighted in (False, True):
                self._earliest[layer.name, weighted] = self._first(layer, weighted)

    @property
    def late(self) -> int:
        """How many time steps the last neurons answer late."""
        return self.processes[self.neurons[-1]].time

    def _error(self, layer: Layer, text: str) -> NetworkError:
        return NetworkError(f"{self.network.source}: layer {layer.name} ({layer.kind}): {text}")

    def _check(self) -> None:
        """Refuse what Lava's processes do not compute as the network description says."""
        network = self.network
        if len(network.layers) > PROCESSES_MAX:
            raise self._error(network.layers[-1], self._too_many())
        before = network.spiking[-1].name
        for layer in network.tail:
            if not isinstance(layer, (Pool, Average, Flatten)) or layer.inputs != (before,):
                raise self._error(
                    layer,
                    "without neurons, behind the last ones, Lava has nothing that could give its sums; give it "
                    "neurons, or run the file with --backend fast",
                )
            before = layer.name
        for layer in network.spiking:
            if not isinstance(layer.neuron, Neuron):
                raise self._error(
                    layer, "Lava runs sigma-delta neurons only in files that lava-dl loads; use --backend fast"
                )
        for bound in bounds(network, self.low, self.high):
            layer = bound.layer
            if not isinstance(layer, (Conv, Dense, Pool, Average, Flatten, Add)):
                raise self._error(layer, "Lava has no process that computes it; run the file with --backend fast")
            try:
                if isinstance(layer, (Conv, Dense)):
                    check_synapses(layer)
                elif isinstance(layer, Pool):
                    check_numbers(layer)
            except NetworkError as error:
                raise self._error(layer, f"Lava does not run it: {error}") from None
            if isinstance(layer, Pool) and bound.change > STATE_MAX:
                raise self._error(
                    layer, f"its sums can reach {bound.change}, beyond the 24 bits of Lava's conv process"
                )
            if bound.change << STATE_SHIFT > SUM_MAX:
                raise self._error(layer, f"its sums can reach {bound.change}, and Lava computes with 32 bits")

    def _too_many(self) -> str:
        return f"the graph needs more than {PROCESSES_MAX} processes of Lava; run the file with --backend fast"

    def _put(self, process: Process, ports: tuple[Port, ...] = (), layer: Layer | None = None) -> int:
        number = len(self.processes)
        if number >= PROCESSES_MAX:
            raise self._error(layer or self.network.layers[-1], self._too_many())
        self.processes.append(process)
        self._connect(ports, number)
        return number

    def _connect(self, ports: tuple[Port, ...], target: int) -> None:
        self.connections += [(source, target, flat) for source, flat in ports]

    def _first(self, layer: Layer, weighted: bool) -> int:
        if layer.name in self._times:
            return self._times[layer.name] + weighted
        passes = isinstance(layer, (Add, Flatten))
        return max(self._earliest[name, weighted and passes] for name in layer.inputs) + (not passes)

    def _ports(self, name: str, time: int, weighted: bool) -> tuple[Port, ...]:
        """The processes that together send, at a time, what a layer gives; `weighted`: all of them synapses."""
        key = name, time, weighted
        if key not in self._sent:
            self._sent[key] = self._find(name, time, weighted)
        return self._sent[key]

    def _find(self, name: str, time: int, weighted: bool) -> tuple[Port, ...]:
        if name in self._times:
            number = self._put_identity(name, time, 1) if weighted else self._put_spikes(name, time)
            return ((number, False),)
        layer = self.network[name]
        if not isinstance(layer, (Add, Flatten)):
            return ((self._put_synapses(layer, time), False),)
        if isinstance(layer, Flatten):
            return _flat(layer, self._ports(layer.inputs[0], time, weighted))
        return self._summed(layer, time, weighted)

    def _summed(self, layer: Add, time: int, weighted: bool) -> tuple[Port, ...]:
        ports = tuple(port for name in layer.inputs for port in self._ports(name, time, weighted))
        if len(set(ports)) < len(ports):
            raise self._error(layer, "takes the same by two ways without neurons, and Lava connects two processes once")
        return ports

    def _shape(self, name: str) -> Shape:
        return self.network.in_shape if name == INPUT else self.network[name].shape

    def _put_spikes(self, name: str, time: int) -> int:
        """A process that sends the spikes of a layer with neurons, or the input, at a time."""
        if name == INPUT:
            return self._put(Process("source", time, {}))
        number = self._number_of[name]
        for held in range(self._times[name] + 1, time + 1):
            key = name, held, False
            if key not in self._sent:
                synapses = self._put_identity(name, held, 2)
                self._sent[key] = ((self._put(Process("relay", held, _lava_shape(self._shape(name)))), False),)
                self._connect(((synapses, False),), self._sent[key][0][0])
            number = self._sent[key][0][0]
        return number

    def _put_identity(self, name: str, time: int, weight: int) -> int:
        """Synapses that weigh every spike of a layer, or the input, alike."""
        if name == INPUT and max(-self.low, self.high) > STATE_MAX:
            user = self.network.users(INPUT)[0]
            raise self._error(user, f"takes inputs beyond {STATE_MAX}, the 24 bits of Lava's conv process")
        shape = self._shape(name)
        if len(shape) == 1:
            made = _dense(weight * np.eye(shape[0], dtype=np.int64), positive=True)
        else:
            made = _each_channel(np.full((1, 1), weight), shape)
        return self._put_weights(made, self._ports(name, time - 1, False), time)

    def _put_synapses(self, layer: Layer, time: int) -> int:
        """The synapses of a layer, which send its sums at a time."""
        ports = self._ports(layer.inputs[0], time - 1, False)
        if isinstance(layer, Conv):
            assert layer.weight is not None
            made = _conv(layer.weight, layer.in_shape, layer.stride, layer.padding, layer.dilation, layer.groups)
        elif isinstance(layer, Pool):
            made = _each_channel(np.ones(layer.kernel, np.int64), layer.in_shape, layer.stride, layer.padding)
        elif isinstance(layer, Dense):
            assert layer.weight is not None
            made = _dense(layer.weight, layer.delay)
            # They have read the last input of a sample when they send what it makes.
            made[1]["forget"] = None if layer.delay is None else [1, time - 1]
        else:
            assert isinstance(layer, Average)
            outputs, ports = layer.shape[0], _flat(layer, ports)
            groups = np.repeat(np.eye(outputs, dtype=np.int64), int(np.prod(layer.in_shape)) // outputs, axis=1)
            made = _dense(groups, positive=True)
        return self._put_weights(made, ports, time, layer)

    def _put_weights(self, made: Made, ports: tuple[Port, ...], time: int, layer: Layer | None = None) -> int:
        kind, numbers, arrays = made
        senders = [self.processes[number].kind for number, _ in ports]
        binary = len(ports) == 1 and senders[0] in ("neurons", "relay", *(() if self._graded else ("source",)))
        return self._put(Process(kind, time, numbers | {"message_bits": 0 if binary else 32}, arrays), ports, layer)

    def _put_neurons(self, layer: Layer) -> None:
        """The neurons of a layer, and what feeds them."""
        assert isinstance(layer.neuron, Neuron)
        if isinstance(layer, Add):
            time = max(self._earliest[name, True] for name in layer.inputs)
            ports = self._summed(layer, time, True)
        else:
            time = self._earliest[layer.inputs[0], False] + 1
            ports = ((self._put_synapses(layer, time), False),)
        # Convolutions of this layer alone leave it to the neurons to cut their sums to 24 bits, and to count that.
        numbers = {**_lava_shape(layer.shape), "layer": len(self.neurons), "cut": isinstance(layer, Conv)}
        number = self._put(Process("neurons", time, numbers, _neurons(layer.neuron, layer.shape)), ports, layer)
        if isinstance(layer, (Conv, Pool)):
            self.processes[ports[0][0]].numbers["uncut"] = True
        self.neurons.append(number)
        self._times[layer.name], self._number_of[layer.name] = time, number
        if isinstance(layer, Dense) and layer.recurrent is not None:
            kind, numbers, arrays = _dense(layer.recurrent, layer.recurrent_delay)
            back = Process(kind, time, numbers | {"message_bits": 0, "forget": [0, time]}, arrays)
            self._connect(((self._put(back, ((number, False),), layer), False),), number)


def _flat(layer: Layer, ports: tuple[Port, ...]) -> tuple[Port, ...]:
    """What a layer takes of what is sent to it, flattened."""
    return tuple((number, True) for number, _ in ports) if len(layer.in_shape) == 3 else ports


def _lava_shape(shape: Shape) -> dict[str, Any]:
    return {"shape": list(shape[::-1])}


def _conv(
    weight: np.ndarray,
    in_shape: Shape,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Made:
    """A process of kind ``"conv"``; Lava convolves, and has width before height."""
    numbers: dict[str, Any] = {"input_shape": list(in_shape[::-1]), "groups": groups, "uncut": False}
    numbers |= {"stride": stride[::-1], "padding": padding[::-1], "dilation": dilation[::-1]}
    return "conv", numbers, {"weight": weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1).astype(np.int32)}


def _each_channel(
    kernel: np.ndarray, in_shape: Shape, stride: tuple[int, int] = (1, 1), padding: tuple[int, int] = (0, 0)
) -> Made:
    """A convolution of every channel with the same kernel."""
    weight, groups = each_channel(in_shape[0], kernel)
    return _conv(weight, in_shape, stride, padding, groups=groups)


def _dense(weight: np.ndarray, delay: np.ndarray | None = None, positive: bool = False) -> Made:
    """A process of kind ``"dense"``; only `positive` weights may be odd."""
    arrays = {"weight": weight.astype(np.int32)} | ({} if delay is None else {"delay": delay.astype(np.int64)})
    return "dense", {"sign_mode": "EXCITATORY" if positive else "MIXED"}, arrays


def _neurons(neuron: Neuron, shape: Shape) -> dict[str, np.ndarray]:
    """Parameters of `LIFReset`, one for all, one a channel (C,), or one a neuron (W, H, C)."""
    bias = np.zeros(shape[:1]) if neuron.bias is None else neuron.bias
    return {
        "vth": np.asarray(neuron.threshold).transpose(),
        "du": np.asarray(neuron.current_decay).transpose() - 1,  # Lava adds 1
        "dv": np.asarray(neuron.voltage_decay).transpose(),
        "bias_mant": np.broadcast_to(bias.transpose(), shape[::-1]).astype(np.int32),
    }
