"""Random networks that fit Speck, and events for them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from netx_export.event.backend import Events
from netx_export.network import Add, Conv, Dense, Flatten, Layer, Network, Neuron, Pool, Shape, conv_shape


class _Builder:
    """Puts layers one after the other; sizes and weights are random."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.layers: list[Layer] = []
        self.shapes: dict[str, Shape] = {
            "input": (self.below(1, 2), int(self.below(4, 9)), int(self.below(4, 9))),
        }

    def below(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high, endpoint=True))

    def put(self, layer: Layer) -> str:
        self.layers.append(layer)
        self.shapes[layer.name] = layer.shape
        return layer.name

    def weighted(self, *shape: int) -> tuple[np.ndarray, Neuron]:
        """Weights that fill 8 bits or few of them, and a threshold that events pass once, or several times at once."""
        most = int(self.random.choice((3, 20, 127)))
        weight = self.random.integers(-most - 1, most, size=shape, endpoint=True)
        weight.flat[0] = most
        return weight, Neuron(self.below(max(1, most // 6), 2 * most))

    def conv(self, source: str, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> str:
        shape = self.shapes[source]
        out = conv_shape(shape, channels, (kernel,) * 2, (stride,) * 2, (padding,) * 2)
        weight, neuron = self.weighted(channels, shape[0], kernel, kernel)
        geometry = {"stride": (stride,) * 2, "padding": (padding,) * 2}
        name = f"conv{len(self.layers)}"
        return self.put(
            Conv(in_shape=shape, shape=out, weight=weight, neuron=neuron, inputs=(source,), name=name, **geometry)
        )

    def any_conv(self, source: str) -> str:
        kernel = self.below(1, min(3, *self.shapes[source][1:]))
        return self.conv(source, self.below(1, 4), kernel, int(self.random.choice((1, 1, 2))), self.below(0, 2))

    def same(self, source: str) -> str:
        """A convolution that keeps the shape."""
        kernel = int(self.random.choice((1, 3)))
        return self.conv(source, self.shapes[source][0], kernel, 1, kernel // 2)

    def pool(self, source: str, size: int) -> str:
        shape = self.shapes[source]
        out = conv_shape(shape, shape[0], (size,) * 2, (size,) * 2)
        geometry = {"kernel": (size,) * 2, "stride": (size,) * 2}
        return self.put(Pool(in_shape=shape, shape=out, inputs=(source,), name=f"pool{len(self.layers)}", **geometry))

    def add(self, *sources: str) -> str:
        shape = self.shapes[sources[0]]
        order = tuple(self.random.permutation(sources).tolist())
        return self.put(Add(in_shape=shape, shape=shape, inputs=order, name=f"sum {len(self.layers)}"))

    def dense(self, source: str, outputs: int) -> str:
        shape = self.shapes[source]
        flat = (int(np.prod(shape)),)
        self.put(Flatten(in_shape=shape, shape=flat, inputs=(source,), name="flat"))
        weight, neuron = self.weighted(outputs, *flat)
        return self.put(
            Dense(in_shape=flat, shape=(outputs,), weight=weight, neuron=neuron, inputs=("flat",), name="fc")
        )


@st.composite
def speck_networks(draw: st.DrawFn, merges: bool = True) -> Network:
    """A network of two to nine cores: a chain, or sums of the events of two or three cores, over ways of any length.

    Pools stand behind cores, before the first one (the camera's), two in a row, and on one way of a sum.
    """
    build = _Builder(draw(st.integers(0, 2**32 - 1)))
    last = build.pool("input", 2) if build.below(0, 5) == 0 else "input"
    last = build.any_conv(last)
    for _ in range(build.below(0, 2)):
        large = min(build.shapes[last][1:]) > 1
        kind = build.random.choice(("core", "pool", "skip", "long", "branch") if merges else ("core", "pool"))
        if kind == "pool" and large:
            last = build.pool(last, 2)
            if min(build.shapes[last][1:]) > 1 and build.below(0, 1):
                last = build.pool(last, 2)
            last = build.any_conv(last)
        elif kind == "skip":
            last = build.any_conv(build.add(last, build.same(last)))
        elif kind == "long":  # three events of one cause, over ways of three lengths
            one = build.same(last)
            last = build.any_conv(build.add(last, one, build.same(one)))
        elif kind == "branch" and large:  # of one core to two, on one way by a pool
            channels = build.below(1, 3)
            pooled = build.conv(build.pool(last, 2), channels, 1)
            last = build.any_conv(build.add(pooled, build.conv(last, channels, 2, 2)))
        else:
            last = build.any_conv(last)
    rows, columns = build.shapes[last][1:]
    if rows == columns <= 16 and build.below(0, 2):
        build.dense(last, 3)
    else:
        build.any_conv(last)
    return Network(tuple(build.layers), reset="subtract", source="random")


def random_events(network: Network, seed: int, samples: int = 2, count: int = 60) -> Events:
    """Events at random places, some at one time."""
    random = np.random.default_rng(seed)
    c, y, x = (random.integers(0, size, samples * count) for size in network.in_shape)
    t = np.sort(random.integers(0, 40, (samples, count)), axis=1).ravel()
    return Events(np.repeat(np.arange(samples), count), t, c, y, x)
