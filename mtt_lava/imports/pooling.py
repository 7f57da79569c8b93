"""Sum pools as a part of the weights behind them, for chips whose pools have neurons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mtt_lava.imports.graph import Imported, ImportedError, Tensors
from mtt_lava.model import Add, Conv, Dense, Part, Pool
from netx_export.network import INPUT, conv_shape


def without_pools(found: Imported, profile: str) -> Imported:
    """The same network without pools that sum: each of their weights stands for a window of the pool's input.

    A pool of 2 x 2 before a kernel of 3 x 3 is a kernel of 6 x 6 with twice the stride. Pools that tell whether any
    spike came in stay: they are what such a chip has.

    Raises
    ------
    ImportedError
        A pool that no weights follow, or whose padded borders would differ.
    """
    tensors, notes = dict(found.tensors), list(found.notes)
    parts = found.model.parts()
    pools = [part for part in parts if isinstance(part.layer, Pool) and part.name not in found.maxima]
    if not pools:
        return found
    for pool in reversed(pools):
        users = [part for part in parts if pool.name in part.inputs]
        if not all(_same_borders(part, pool) for part in users):
            pool = _cropped(parts, pool, tensors, notes)
        parts = [part for part in parts if part.name != pool.name]
        for i, part in enumerate(parts):
            if pool.name not in part.inputs:
                continue
            where = f"{found.source}: {pool.name}: {profile} has no pools that sum, only some that spike"
            if not isinstance(part.layer, Conv | Dense):
                raise ImportedError(f"{where}, and no weights of {part.name} can sum in its place")
            folded = _conv(part, pool) if isinstance(part.layer, Conv) else part._replace(before=pool.before)
            if folded.shape != part.shape or not _same_borders(part, pool):
                raise ImportedError(f"{where}, and its padded border cannot be part of {part.name}'s weights")
            weight = _spread(tensors[part.name].weight, part, pool)
            tensors[part.name] = replace(tensors[part.name], weight=weight)
            parts[i] = folded._replace(inputs=pool.inputs)
            notes.append(f"{pool.name}: is part of the weights of {part.name}, because pools of {profile} spike")
    layers, before = [], INPUT
    for part in parts:
        update: dict[str, object] = {}
        if not isinstance(part.layer, Add):
            update["input"] = None if part.inputs[0] == before else part.inputs[0]
        if isinstance(part.layer, Pool):  # it keeps its name whatever was before it
            update["name"] = part.name
        layers.append(part.layer.model_copy(update=update))
        before = part.name
    return replace(found, model=found.model.model_copy(update={"layers": tuple(layers)}), tensors=tensors, notes=notes)


def _cropped(parts: list[Part], pool: Part, tensors: dict[str, Tensors], notes: list[str]) -> Part:
    """The pool behind a convolution that no longer gives what the pool leaves over: zeros at its kernel's end do that.

    Without it what is left over would stand where the next layer's padding is. The pool as it is, where that cannot be.
    """
    (name,) = pool.inputs
    at = next((i for i, part in enumerate(parts) if part.name == name), None)
    source = None if at is None else parts[at]
    if at is None or source is None or not isinstance(source.layer, Conv):
        return pool
    if [part.name for part in parts if name in part.inputs] != [pool.name]:
        return pool
    layer, more = source.layer, [0, 0]
    axes = _zip(source.before[1:], layer.padding, layer.kernel, layer.dilation, layer.stride)  # type: ignore[arg-type]
    for axis, (size, padding, kernel, dilation, stride) in enumerate(axes):
        wanted = min(pool.before[1 + axis], _window(pool)[1][axis] * pool.shape[1 + axis])
        room = size + 2 * padding - dilation * (kernel - 1) - 1
        more[axis] = max(0, -(-(room - wanted * stride + 1) // dilation))
    layer = layer.model_copy(update={"kernel": tuple(k + n for k, n in _zip(layer.kernel, (more[0], more[1])))})
    geometry = layer.channels, layer.kernel, layer.stride, layer.padding, layer.dilation
    shape = conv_shape(source.before, *geometry)
    if conv_shape(shape, shape[0], *_window(pool)) != pool.shape:
        return pool
    old = tensors[name]
    tensors[name] = replace(old, weight=np.pad(old.weight, ((0, 0), (0, 0), (0, more[0]), (0, more[1]))))
    parts[at] = source._replace(layer=layer, shape=shape)
    notes.append(f"{name}: does not give what {pool.name} leaves over: its kernel has zeros at its end")
    return pool._replace(before=shape)


def _conv(part: Part, pool: Part) -> Part:
    """The convolution that takes the pool's input."""
    layer, (kernel, stride) = part.layer, _window(pool)
    assert isinstance(layer, Conv)
    pairs = {
        "kernel": tuple((k - 1) * d * s + w for k, d, s, w in _zip(layer.kernel, layer.dilation, stride, kernel)),
        "stride": tuple(a * b for a, b in _zip(layer.stride, stride)),
        "padding": tuple(a * b for a, b in _zip(layer.padding, stride)),
    }
    layer = layer.model_copy(update=pairs | {"dilation": (1, 1)})
    shape = conv_shape(pool.before, layer.channels, layer.kernel, layer.stride, layer.padding)
    return part._replace(layer=layer, before=pool.before, shape=shape)


def _zip(*pairs: tuple[int, int]) -> list[tuple[int, ...]]:
    return list(zip(*pairs, strict=True))


def _window(pool: Part) -> tuple[tuple[int, int], tuple[int, int]]:
    assert isinstance(pool.layer, Pool)
    return pool.layer.kernel, pool.layer.stride or pool.layer.kernel


def _same_borders(part: Part, pool: Part) -> bool:
    """Whether what the padding stands for is nothing but zeros before the pool, too."""
    if not isinstance(part.layer, Conv):
        return True
    kernel, stride = _window(pool)
    sizes = _zip(part.layer.padding, kernel, stride, pool.before[1:], pool.shape[1:])  # type: ignore[arg-type]
    return all(p == 0 or (k <= s and size <= s * out) for p, k, s, size, out in sizes)


def _spread(weight: np.ndarray, part: Part, pool: Part) -> np.ndarray:
    """Weights on the pool's input."""
    kernel, stride = _window(pool)
    if isinstance(part.layer, Conv):
        apart = [d * s for d, s in _zip(part.layer.dilation, stride)]
    else:
        weight, apart = weight.reshape(len(weight), *pool.shape), list(stride)
    rows, columns = ((n - 1) * a + k for n, a, k in zip(weight.shape[2:], apart, kernel, strict=True))
    spread = np.zeros((*weight.shape[:2], rows, columns))
    for y in range(kernel[0]):
        for x in range(kernel[1]):
            spread[:, :, y : rows - kernel[0] + 1 + y : apart[0], x : columns - kernel[1] + 1 + x : apart[1]] += weight
    if isinstance(part.layer, Dense):
        missing = [size - n for size, n in zip(pool.before[1:], spread.shape[2:], strict=True)]
        spread = np.pad(spread, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1]))).reshape(len(spread), -1)
    return spread
