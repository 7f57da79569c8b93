"""A network in somebody's own Lava script, between their own processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from netx_export.lava.graph import Plan
from netx_export.network import Average, Flatten, Network, NetworkError
from netx_export.netx import read
from netx_export.netx.fields import is_graph
from netx_export.netx.read import holds_graph
from netx_export.simulation import check_inputs

ENDLESS = 1 << 30
"""Time steps of a sample without an end. It starts from rest too: what has a bias would be charged when input comes."""
LARGEST = 255
"""Largest input value assumed where neither the file nor the caller says one."""


@dataclass(frozen=True, eq=False)
class LavaNetwork:
    """A network as Lava's processes.

    Attributes
    ----------
    inp, out : lava InPort, lava OutPort
        What comes in, integers in Lava's order of axes, (W, H, C) or (F,), of ``inp.shape`` (flat, channels slowest,
        where the file's first layer is `Flatten`); and the spikes of the last layer with neurons. Averages and pools
        behind that are sums, for the reader to take.
    v : lava Var
        Membrane voltages of the last layer with neurons: ``v.get()`` is the answer of a voltage readout.
    late : int
        Time steps from what comes in to what it makes go out: the answer to time step t comes in t + late.
    process : lava AbstractProcess
        To run by: ``process.run(...)``, as any other that is connected.
    """

    inp: Any
    out: Any
    v: Any
    late: int
    process: Any

    def __repr__(self) -> str:
        return f"<LavaNetwork: {self.inp.shape} to {self.out.shape}, {self.late} time steps late>"


def to_lava(
    path: str | os.PathLike[str], time_steps: int | None = None, *, begins: int = 0, largest: int | None = None
) -> LavaNetwork:
    """The network of a NetX file, to be connected with other processes in a script of one's own.

    Runs in Lava's own Python, in the process that asks for it: unlike `netx_export.simulate`, nothing ends what hangs.
    Spikes equal those of `fast` under ``Loihi2SimCfg(select_tag="fixed_pt")``.

    Parameters
    ----------
    path : path
        NetX HDF5 file, a chain or a graph.
    time_steps : int, optional
        Time steps of a sample, at least 1: samples come back to back, and each starts from rest. Default: the input is
        one sample without an end. A file with rescaled biases wants those of its export.
    begins : int
        Time steps before the first one of the first sample comes in: the sum of ``late`` of the networks before it.
    largest : int, optional
        Largest input value, refused where sums could leave Lava's 32 bits. Default: ``input_max`` of the file, or 255.

    Returns
    -------
    LavaNetwork

    Raises
    ------
    NetworkError
        The file is not what it must be, Lava cannot run it, or there is no Lava in this Python.
    """
    if (time_steps is not None and time_steps < 1) or begins < 0:
        raise NetworkError(f"time_steps {time_steps} must be at least 1, and begins {begins} at least 0")
    network = read(path, for_lava=True)
    if not network.spiking:
        raise NetworkError(f"{network.source}: no layer has neurons, so there is nothing to run")
    if network.graded:
        raise NetworkError(f"{network.source}: to_lava gives networks that spike; this one sends values: simulate it")
    most = largest or network.info.get("input_max") or LARGEST
    probe = np.full((1, *network.in_shape, 1), most if network.encoder is None else 1, np.int64)
    check_inputs(network, probe)
    try:
        import lava.magma.core.process.process  # noqa: F401
    except ImportError:
        raise NetworkError(
            "to_lava: this Python has no Lava; run the script with one that has lava-nc and lava-dl (mtt lava setup)"
        ) from None
    steps = ENDLESS if time_steps is None else time_steps
    if is_graph(network) and (not network.is_chain or holds_graph(network.source)):
        return _graph(network, probe, steps, begins)
    return _chain(network, steps, begins)


def _chain(network: Network, time_steps: int, begins: int) -> LavaNetwork:
    """What lava-dl's own loader makes of the file, and what forgets spikes under way where a sample ends."""
    from lava.lib.dl import netx
    from lava.proc.dense.process import DelayDense

    from netx_export.lava.processes.arrays import BufferReset

    flat = isinstance(network.layers[0], Flatten)
    made = netx.hdf5.Network(
        os.path.abspath(network.source),
        num_layers=network.numbers[-1] if isinstance(network.layers[-1], Average) else None,
        skip_layers=0 if network.encoder is None else network.encoder.number + 1,
        input_shape=(int(np.prod(network.in_shape)),) if flat else network.in_shape[::-1],
        input_message_bits=32,
        reset_interval=time_steps,
        reset_offset=1 + begins,
    )
    made.net_config.f.close()
    for index, layer in enumerate(made.layers):
        # As in `netx_export.lava.child`: the synapse has read the last input one step before the neurons get it.
        first = index + 2 + begins
        if isinstance(layer.synapse, DelayDense):
            BufferReset(var=layer.synapse.a_buff, keep=1, first=first - 2, interval=time_steps)
        if hasattr(layer, "synapse_rec"):
            BufferReset(var=layer.synapse_rec.a_buff, keep=0, first=first - 1, interval=time_steps)
    return LavaNetwork(made.inp, made.out, made.layers[-1].neuron.v, len(made.layers), made)


def _graph(network: Network, probe: np.ndarray, time_steps: int, begins: int) -> LavaNetwork:
    """A graph of Lava's own processes; what takes the input later gets it through one that holds it."""
    from netx_export.lava.making import make_process
    from netx_export.lava.processes.hold import Hold

    # Graded, whatever comes: messages of 32 bits carry 0 and 1 too.
    plan = Plan(network, np.maximum(probe, 2))
    shape = network.in_shape[::-1]
    head = Hold(shape=shape, wait=0)
    ports: list[tuple[Any, Any]] = []
    made: list[Any] = []
    for each in plan.processes:
        if each.kind == "source":
            process = Hold(shape=shape, wait=each.time) if each.time else head
            if process is not head:
                head.s_out.connect(process.a_in)
            ports.append((None, process.s_out))
        else:
            numbers = each.numbers
            if numbers.get("forget"):
                keep, first = numbers["forget"]
                numbers = numbers | {"forget": [keep, first + begins]}
            process, *both = make_process(each.kind, each.time + begins, numbers, each.arrays, time_steps)
            ports.append((both[0], both[1]))
        made.append(process)
    for source, target, flat in plan.connections:
        out = ports[source][1]
        (out.transpose([2, 1, 0]).flatten() if flat else out).connect(ports[target][0])
    last = made[plan.neurons[-1]]
    return LavaNetwork(head.a_in, last.s_out, last.v, plan.late, head)
