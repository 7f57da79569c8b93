"""Networks for Speck as a script that builds them with sinabs, loads a board, or runs without one.

What sinabs or the chip would compute otherwise is refused by the layer's name, before anything is written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np

from hw_profiles.families import place
from hw_profiles.families.speck import core_layers
from hw_profiles.geometry import as_map
from hw_profiles.profile import Profile, ProfileError, load
from hw_profiles.rules import check
from netx_export.connections import connections
from netx_export.files import replacing
from netx_export.network import INPUT, Add, Conv, Dense, Flatten, Layer, Network, NetworkError, Neuron, Pool
from netx_export.netx import write
from netx_export.netx.fields import is_graph

DEVICES = {"speck2e": "speck2edevkit", "speck2f": "speck2fdevkit"}
"""What sinabs 3.1 calls the boards of a profile; it loads no others."""


def write_speck(
    network: Network, path: str | os.PathLike[str], profile: Profile | str | os.PathLike[str] = "speck2e"
) -> None:
    """Write a network as a Python script for sinabs 3.1, and beside it the NetX file whose weights the script reads.

    The script needs sinabs, h5py and what these need, and nothing of this package. It runs recordings without a chip
    (counts and order of output events are those of ``netx_export.event`` with the profile's neurons), and where samna
    is installed it writes the chip's configuration and loads a board, each layer on the core that `place` chose.

    Parameters
    ----------
    network : Network
    path : path-like
        The script, ``.py``; the NetX file has the same name with ``.net``. Each is written whole or not at all.
    profile : Profile, name or path
        ``speck2e`` or ``speck2f``.

    Raises
    ------
    NetworkError
        What does not fit the chip, or what sinabs would compute otherwise: the layer, and what to do.
    ProfileError
        sinabs knows no board of this profile.

    Examples
    --------
    >>> from hw_profiles import write_speck
    >>> from netx_export import read
    >>> write_speck(read("digits.net"), "digits.py")  # doctest: +SKIP
    """
    path, chip = Path(path), load(profile)
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise NetworkError(f"{path.name}: a script's name is a word that Python can import, and .py: digits.py")
    lines = _lines(network, chip)  # refuses before anything is written
    net = path.with_suffix(".net")
    write(network, net)
    text = _SCRIPT.substitute(
        title=network.source.replace("\\", "/").replace('"', "'"),
        chip=chip.name,
        device=DEVICES[chip.name],
        stem=path.stem,
        net=net.name,
        digest=hashlib.sha256(net.read_bytes()).hexdigest(),
        shape=as_map(network.in_shape),
        camera=_pools_input(network),
        layers="\n".join(f"            {line}," for line in lines),
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


# ------------------------------------------------------------------------------------------------ refusals


def _refuse(network: Network, chip: Profile) -> None:
    where = network.source
    if chip.name not in DEVICES:
        raise ProfileError(
            f"profile {chip.name}: sinabs loads boards of {' and '.join(DEVICES)} only: give --profile speck2e"
        )
    if network.reset != "subtract":
        raise NetworkError(
            f"{where}: its neurons reset to {network.reset}, with spikes where v > threshold; sinabs' fire at the "
            f"threshold: train with --profile {chip.name}, whose neurons lose it"
        )
    wrong = check(network, chip).of("violation")
    if wrong:
        more = f" (and {len(wrong) - 1} more: mtt check lists them)" if len(wrong) > 1 else ""
        raise NetworkError(f"{where} does not fit {chip.name}: {wrong[0]}{more}")
    placement = place(network, chip)
    if not placement.complete:
        raise NetworkError(f"{where}: {placement.reason or 'no core for ' + ', '.join(placement.unplaced)}")
    if network.readout != "count":
        raise NetworkError(f"{where}: its answer is a voltage, and the chip sends events: train with readout 'count'")
    for name, why in _inexact(network, chip):
        raise NetworkError(f"{where}: layer {name}: {why}")


def _inexact(network: Network, chip: Profile) -> Iterator[tuple[str, str]]:
    """What rules of the chip let pass and sinabs computes otherwise, or has no word for: layer, and why."""
    most = (1 << ((chip.facts.state_bits.value or 16) - 1)) - 1
    images = _images(network)
    for layer in network:
        if not isinstance(layer, (Conv, Dense, Pool, Flatten, Add)):
            yield layer.name, f"sinabs has no {layer.kind} for the chip: compute it off the chip"
        if isinstance(layer, Add) and INPUT in layer.inputs:
            yield layer.name, "adds up the input itself: in sinabs only cores send to a sum: put a layer between"
        if isinstance(layer, Add) and len({images[name] for name in layer.inputs}) > 1:
            shapes = ", ".join(str(images[name]) for name in layer.inputs)
            yield layer.name, f"adds up maps of the shapes {shapes}: to a core they are not the same: give them one"
        if isinstance(layer.neuron, Neuron) and layer.weight is not None:
            low, high = int(np.min(layer.neuron.threshold)), int(np.max(layer.neuron.threshold))
            if low != high:
                yield layer.name, f"threshold {low}..{high} differs from neuron to neuron, and a core has one"
            if low < 1:
                yield layer.name, f"threshold {low}: a neuron that loses no more than that spikes for ever: use 1"
            if high + int(layer.weight.max()) > most:
                yield (
                    layer.name,
                    f"threshold {high} plus largest weight {layer.weight.max()} > {most}: v saturates on the chip and "
                    f"not in sinabs: lower the layer's weight scale and threshold together",
                )
    last = network.layers[-1]
    if last.neuron is None:
        yield last.name, "nothing on the chip does what stands behind the last neurons: leave it out"
    seen: dict[tuple[str, str], str] = {}
    for way in connections(network):
        ends = way.source, way.target
        if ends in seen and INPUT not in ends:
            yield way.target, f"{way.source} reaches it in two ways, which sinabs takes for one: put a layer on one"
        seen[ends] = way.target
    if _pools_input(network):
        sizes = {_pooled(network, way.path) for way in connections(network) if way.source == INPUT}
        targets = sorted({way.target for way in connections(network) if way.source == INPUT})
        if len(sizes) > 1:
            yield targets[-1], "the camera pools the input alike for all cores, and here it does not"
        if len(targets) > 2:
            yield targets[-1], f"the camera sends to two cores at most, and here to {', '.join(targets)}"


def _pools_input(network: Network) -> bool:
    return any(isinstance(user, Pool) for user in network.users(INPUT))


def _pooled(network: Network, path: tuple[Layer, ...]) -> tuple[int, int]:
    pools = [layer.kernel for layer in path if isinstance(layer, Pool)]
    return int(np.prod([pool[0] for pool in pools])), int(np.prod([pool[1] for pool in pools]))


def _images(network: Network) -> dict[str, tuple[int, int, int]]:
    """What every layer gives, as (C, H, W); what is flattened stays a map, as the chip has it."""
    images = {INPUT: as_map(network.in_shape)}
    for layer in network:
        passes = isinstance(layer, (Flatten, Add)) and layer.inputs
        images[layer.name] = images[layer.inputs[0]] if passes else as_map(layer.shape)
    return images


# ------------------------------------------------------------------------------------------------ lines of the script


@dataclass
class _Rows:
    """Lines of the script's table so far, and by which name it calls what a layer gives."""

    network: Network
    lines: list[str]
    names: dict[str, str]
    images: dict[str, tuple[int, int, int]]

    def put(self, name: str, inputs: list[str], shape: tuple[int, int, int], module: str) -> str:
        self.lines.append(f"({_quoted(name)}, [{', '.join(map(_quoted, inputs))}], {shape}, {module})")
        return name


def _lines(network: Network, chip: Profile) -> list[str]:
    """The rows of the script's table of layers; dense layers are convolutions, flatten layers leave no trace."""
    _refuse(network, chip)
    cores = {part.name: core.number for core in place(network, chip).cores for part in core.parts}
    kernels = {core.layer.name: core.kernel for core in core_layers(network)}
    form = "graph" if is_graph(network) else "layer"
    rows = _Rows(network, [], {INPUT: INPUT}, _images(network))
    for number, layer in enumerate(network, start=1):
        inputs = [rows.names[name] for name in layer.inputs]
        shape = rows.images[layer.inputs[0]]
        if isinstance(layer, Flatten):
            rows.names[layer.name] = inputs[0]
        elif isinstance(layer, Pool):
            rows.names[layer.name] = _pool(rows, layer)
        elif isinstance(layer, Add):
            name = inputs[0]
            for turn, other in enumerate(inputs[1:], start=2):  # sinabs merges two at a time
                both = layer.name if turn == len(inputs) else _free(f"{layer.name} {turn}", network)
                name = rows.put(both, [name, other], shape, "sl.Merge()")
            rows.names[layer.name] = name
        else:
            assert isinstance(layer, (Conv, Dense))
            assert layer.neuron is not None
            out = layer.shape[0]
            geometry = f"{(shape[0], out)}, {kernels[layer.name][0]}, threshold={int(np.max(layer.neuron.threshold))}"
            if isinstance(layer, Conv) and layer.stride != (1, 1):
                geometry += f", stride={layer.stride}"
            if isinstance(layer, Conv) and layer.padding != (0, 0):
                geometry += f", padding={layer.padding}"
            module = f'core({cores[layer.name]}, "{form}/{number}", {geometry})'
            rows.names[layer.name] = rows.put(layer.name, inputs, shape, module)
            pooled = {isinstance(user, Pool) for user in network.users(layer.name)}
            if len(pooled) > 1:
                # sinabs 3.1.3 fails on a core that sends to one core by a pool and to another as it is.
                name, image = _free(f"{layer.name} as it is", network), rows.images[layer.name]
                rows.names[layer.name] = rows.put(name, [layer.name], image, "pool(1, 1)")
    return rows.lines


def _quoted(name: str) -> str:
    """A text as Python writes it, in double quotes."""
    return json.dumps(name, ensure_ascii=False)


def _free(name: str, network: Network) -> str:
    """The name, longer where a layer has it."""
    while any(layer.name == name for layer in network):
        name += "'"
    return name


def _pool(rows: _Rows, layer: Pool) -> str:
    """The row of a pool, unless only pools follow: these are one with it."""
    network = rows.network
    users = network.users(layer.name)
    if users and all(isinstance(user, Pool) for user in users):
        return rows.names[layer.inputs[0]]
    kernel, before = layer.kernel, layer
    while before.inputs[0] != INPUT and isinstance(above := network[before.inputs[0]], Pool):
        kernel, before = (kernel[0] * above.kernel[0], kernel[1] * above.kernel[1]), above
    source = before.inputs[0]  # the input, or a core: these have rows of their own names
    return rows.put(layer.name, [source], rows.images[source], f"pool({kernel[0]}, {kernel[1]})")


_SCRIPT = Template('''\
"""$title for $chip, by sinabs 3.1. Written with $net, whose weights it reads.

    python $stem.py events.npz output.npz        run it in sinabs, without a chip
    python $stem.py --config $stem.json          write the chip's configuration (needs samna)
    python -i $stem.py --board $device:0   load a board (needs samna): `board` is the DynapcnnNetwork on it

events.npz holds integer arrays sample, t (us), c, y, x, sorted by sample, then t; output.npz the same of output events.
With --camera the chip's own camera is the input. samna of PyPI fetches the real one from its maker when imported.

Without a chip there is no clock: what an input event causes runs to its end before the next one, and what it makes a
layer emit leaves in the order (channel, row, column). In which order a chip has them is not known.
"""

import argparse
import sys
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np
import sinabs
import torch
from sinabs import layers as sl
from sinabs.activation import MembraneSubtract, MultiSpike
from torch import nn

NET = Path(__file__).with_name("$net")
DIGEST = "$digest"
INPUT = $shape  # channels, rows, columns
CAMERA = $camera  # whether the input is pooled, which only the chip's camera does
COLUMNS = ("sample", "t", "c", "y", "x")


def layers():
    """All layers from the input to the output: name, what comes in, its shape, module."""
    if sha256(NET.read_bytes()).hexdigest() != DIGEST:
        sys.exit(f"{NET}: is not the file that this script was written with: export both anew")
    with h5py.File(NET) as file:

        def core(number, group, channels, kernel, threshold, stride=1, padding=0):
            """A core: integer weights; neurons spike as often as v holds the threshold, v stays from -threshold on."""
            conv = nn.Conv2d(*channels, kernel, stride, padding, bias=False)
            conv.weight.data = torch.tensor(file[f"{group}/weight"][()].astype(np.float32)).reshape(conv.weight.shape)
            conv.core = number
            neurons = sl.IAFSqueeze(
                batch_size=1,
                spike_threshold=torch.tensor(float(threshold)),
                min_v_mem=torch.tensor(-float(threshold)),
                spike_fn=MultiSpike,
                reset_fn=MembraneSubtract(),
            )
            return nn.Sequential(conv, neurons)

        def pool(rows, columns):
            return nn.Sequential(sl.SumPool2d((rows, columns)))

        return [
$layers
        ]


class Network(nn.Module):
    """The network, as sinabs takes it."""

    def __init__(self):
        super().__init__()
        self.table = layers()
        self.parts = nn.ModuleList(module for *_, module in self.table)

    def forward(self, x):
        """Spike counts of time steps, (T, outputs, 1, 1), for inputs (T, channels, rows, columns)."""
        given = {"input": x}
        for name, inputs, _, module in self.table:
            given[name] = module(*(given[one] for one in inputs))
        return given[self.table[-1][0]]

    @torch.no_grad()
    def run(self, events):
        """Run a recording from rest, event by event.

        Takes input events (n, 3), each channel, row and column; gives output events (m, 3), and of each the number of
        the input event that caused it, (m,).
        """
        self.double()  # sums of integers are then exact, however a convolution is computed
        sinabs.reset_states(self)
        given = {"input": (events, torch.arange(len(events)))}
        for name, inputs, shape, module in self.table:
            where, cause = (torch.cat(both) for both in zip(*(given[one] for one in inputs)))
            order = torch.argsort(cause, stable=True)  # of a merge: by cause, then by input
            given[name] = where[order], cause[order]
            if not isinstance(module, sl.Merge):
                given[name] = one_by_one(module, shape, *given[name])
        return given[self.table[-1][0]]


def one_by_one(module, shape, where, cause, chunk=200):
    """What a layer makes of events that come one by one: each is a time step of its own."""
    found = [(where[:0], cause[:0])]
    for start in range(0, len(where), chunk):
        some, because = where[start : start + chunk], cause[start : start + chunk]
        steps = torch.zeros(len(some), *shape, dtype=torch.double)
        steps[(torch.arange(len(some)), *some.T)] = 1
        counts = module(steps)
        fired = counts.nonzero()  # in the order (step, channel, row, column)
        fired = fired.repeat_interleave(counts[tuple(fired.T)].long(), 0)
        found.append((fired[:, 1:], because[fired[:, 0]]))
    return tuple(torch.cat(both) for both in zip(*found))


def chip(camera=CAMERA):
    """The network for the chip, and the core that each of its layers goes to."""
    try:
        from sinabs.backend.dynapcnn import DynapcnnNetwork
    except Exception as error:  # of whatever fetching samna may end with
        sys.exit(f"this needs samna, of the maker of the chip, and it did not load: {error}")
    network = DynapcnnNetwork(Network(), INPUT, batch_size=1, dvs_input=camera, discretize=False)
    return network, {number: layer.conv.core for number, layer in network.dynapcnn_layers.items()}


def run_file(source, target):
    """Run all recordings of a file."""
    with np.load(source) as content:
        events = {name: torch.as_tensor(content[name].astype(np.int64)) for name in COLUMNS}
    network, found = Network(), [torch.zeros(0, 5, dtype=torch.long)]
    samples = events["sample"].unique().tolist()
    for number, sample in enumerate(samples, start=1):
        print(f"\\r{number} of {len(samples)} recordings", end="", file=sys.stderr)
        own = {name: column[events["sample"] == sample] for name, column in events.items()}
        where, cause = network.run(torch.stack([own[name] for name in "cyx"], 1))
        found.append(torch.stack([own["sample"][cause], own["t"][cause], *where.T], 1))
    print(file=sys.stderr)
    output = torch.cat(found).numpy()
    np.savez_compressed(target, **dict(zip(COLUMNS, output.T)))
    print(f"{target}: {len(output)} output events of {len(samples)} recordings")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="events.npz output.npz")
    parser.add_argument("--config", metavar="FILE", help="write the configuration as JSON")
    parser.add_argument("--board", metavar="DEVICE", help="load a board, as $device:0")
    parser.add_argument("--camera", action="store_true", default=CAMERA, help="the chip's camera is the input")
    args = parser.parse_args()
    if len(args.files) not in (0, 2) or not (args.files or args.config or args.board):
        parser.error("give events.npz and output.npz, --config or --board")
    if args.files:
        run_file(*args.files)
    if args.config:
        network, cores = chip(args.camera)
        Path(args.config).write_text(network.make_config(cores, device="$device:0").to_json())
    if args.board:
        board, cores = chip(args.camera)
        board.to(args.board, layer2core_map=cores)
''')
