"""Layers on the cores of Speck: one layer a core, cores of different sizes, a matching of the two."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hw_profiles.geometry import as_map
from hw_profiles.placement import RESOURCES, Core, Demand, Part, Placement
from hw_profiles.profile import Profile
from netx_export.network import INPUT, Add, Conv, Dense, Flatten, Layer, Network, NetworkError, Shape


@dataclass(frozen=True)
class CoreLayer:
    """What one Speck core does: a convolution with neurons, before the sum pool that may follow.

    A dense layer is a convolution whose kernel covers its input.
    """

    index: int
    layer: Layer
    in_shape: tuple[int, int, int]
    shape: tuple[int, int, int]
    """Shape of the neurons."""
    kernel: tuple[int, int]

    @property
    def kernel_words(self) -> int:
        """Kernel memory, c * 2^(ceil(log2(kx * ky)) + ceil(log2 f))."""
        return self.in_shape[0] << (_log2(math.prod(self.kernel)) + _log2(self.shape[0]))

    @property
    def neuron_words(self) -> int:
        """Neuron memory, f * 2^(ceil(log2 fy) + ceil(log2 fx))."""
        return self.shape[0] << (_log2(self.shape[1]) + _log2(self.shape[2]))

    @property
    def bias_words(self) -> int:
        """Bias memory: one a channel, or none."""
        bias = None if self.layer.neuron is None else self.layer.neuron.bias
        return self.shape[0] if bias is not None and np.any(bias) else 0

    @property
    def used(self) -> dict[str, int]:
        """All three, by resource."""
        words = (self.kernel_words, self.neuron_words, self.bias_words)
        return dict(zip(RESOURCES["speck"], words, strict=True))


def _log2(n: int) -> int:
    """ceil(log2 n), exactly."""
    return (n - 1).bit_length()


def core_layers(network: Network) -> list[CoreLayer]:
    """What each core does; a pool takes no core, it belongs to the core or input before it; nor does a sum of spikes,
    to which several cores send."""
    cores: list[CoreLayer] = []
    for index, layer in enumerate(network):
        if isinstance(layer, Conv) and layer.neuron is not None and layer.weight is not None:
            kernel = (layer.weight.shape[2], layer.weight.shape[3])
            cores.append(CoreLayer(index, layer, as_map(layer.in_shape), as_map(layer.shape), kernel))
        elif isinstance(layer, Dense) and layer.neuron is not None:
            shape = as_map(_image(network, layer))
            cores.append(CoreLayer(index, layer, shape, as_map(layer.shape), shape[1:]))
    return cores


def _image(network: Network, layer: Layer) -> Shape:
    """What comes into a dense layer, as it was before it was flattened."""
    before = layer.inputs[0]
    while before != INPUT and isinstance(network[before], (Add, Flatten)):
        if isinstance(network[before], Flatten):
            return network[before].in_shape
        before = network[before].inputs[0]
    return layer.in_shape


def place_on_speck(network: Network, profile: Profile) -> Placement:
    """Match layers and cores, or say who competes for too few; see `hw_profiles.place`."""
    for layer in network:
        if isinstance(layer, Add) and layer.neuron is not None:
            raise NetworkError(f"{layer.name} adds up currents, and the chip only events")
        if layer.weight is not None and layer.neuron is None:
            raise NetworkError(f"{layer.name} has no neurons")
        if layer.weight is not None and not isinstance(layer, (Conv, Dense)):
            raise NetworkError(f"{layer.name} is a {layer.kind} layer, and a core only convolves")
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    number = profile.facts.cores_per_chip.value
    if number is None:
        return Placement(profile, reason="the profile does not know cores_per_chip")
    sizes = {name: getattr(profile.facts, fact).value for name, fact in RESOURCES["speck"].items()}
    wanted = core_layers(network)
    fits = np.ones((len(wanted), number), bool)
    for row, core in zip(fits, wanted, strict=True):
        for name, used in core.used.items():
            if sizes[name] is not None:
                row &= used <= np.array(sizes[name])
    # The matching takes the first core that does: the smallest first leaves the large ones to those who need them.
    # Stable, or which of several equal cores it is would depend on the machine.
    room = [sum(size[i] for size in sizes.values() if size is not None) for i in range(number)]
    order = np.argsort(room, kind="stable")
    chosen = maximum_bipartite_matching(csr_matrix(fits[:, order]), perm_type="column")
    demands = tuple(
        Demand(c.index, c.layer.name, c.used, c.used, int(row.any())) for c, row in zip(wanted, fits, strict=True)
    )
    cores = []
    for core, column in zip(wanted, chosen, strict=True):
        if column < 0:
            continue
        at = int(order[column])
        part = Part(core.index, core.layer.name, tuple((0, size) for size in core.shape), core.used)
        limits = {name: None if size is None else size[at] for name, size in sizes.items()}
        cores.append(Core(at, (part,), limits))
    left = [i for i, column in enumerate(chosen) if column < 0 and fits[i].any()]
    rivals = tuple(
        (tuple(wanted[i].layer.name for i in sorted(some)), tuple(sorted(few)))
        for some, few in _competing(fits, {i: int(order[c]) for i, c in enumerate(chosen) if c >= 0}, left)
    )
    return Placement(profile, tuple(sorted(cores, key=lambda core: core.number)), demands, rivals)


def _competing(fits: np.ndarray, placed: dict[int, int], left: list[int]) -> Iterator[tuple[set[int], set[int]]]:
    """For layers left over: the set of layers that all want the same, fewer cores (Hall's condition)."""
    holder = {core: layer for layer, core in placed.items()}
    done: set[int] = set()
    for start in left:
        if start in done:
            continue
        some, few, open_ = {start}, set[int](), [start]
        while open_:
            for core in np.flatnonzero(fits[open_.pop()]).tolist():
                if core not in few:
                    # The matching is largest, so this core is taken, by a layer that then competes too.
                    few.add(core)
                    some.add(holder[core])
                    open_.append(holder[core])
        done |= some
        yield some, few
