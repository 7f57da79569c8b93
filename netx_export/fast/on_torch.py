"""Simulation in PyTorch, for GPUs; called by `netx_export.fast.backend`.

Synapses are one convolution or matrix product over all samples and time steps, in floating point that holds every
partial sum as a whole number: 32 bits below 2**24, 64 bits below 2**53. Neurons are integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from netx_export.bounds import bounds
from netx_export.fast.backend import Results
from netx_export.limits import add_counts
from netx_export.network import (
    DECAY_UNITY,
    MESSAGE_BITS,
    STATE_BITS,
    STATE_SHIFT,
    Add,
    AnyNeuron,
    Average,
    Conv,
    ConvT,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Neuron,
    SigmaDelta,
    Windowed,
)
from netx_export.simulation import check_sums

BUFFER_BYTES = 1 << 30
"""What signals and states of a chunk of samples may take, unless a single sample needs more."""


def run(
    network: Network, inputs: np.ndarray, results: Results, *, device: str, chunk: int | None, progress: bool
) -> None:
    """Simulate all samples on a device, chunk by chunk, into `results`."""
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise NetworkError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    samples, steps = inputs.shape[0], inputs.shape[-1]
    span = int(inputs.min()), int(inputs.max())
    if chunk is None:
        most = max(int(np.prod(layer.in_shape)) + 4 * int(np.prod(layer.shape)) for layer in network)
        chunk = max(1, min(samples, BUFFER_BYTES // (8 * steps * most)))
    with exact(), torch.inference_mode(), tqdm(total=samples, desc="fast", unit="sample", delay=1, leave=False) as bar:
        bar.disable = bar.disable or not progress
        for n in range(0, samples, chunk):
            part = slice(n, min(n + chunk, samples))
            _run_chunk(network, inputs[part], span, results, part, place)
            bar.update(part.stop - part.start)


@contextmanager
def exact() -> Iterator[None]:
    """Make PyTorch add up products one by one: no transforms (cuDNN, NNPACK), no TF32, no bfloat16."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def _run_chunk(
    network: Network,
    inputs: np.ndarray,
    span: tuple[int, int],
    results: Results,
    part: slice,
    device: torch.device,
) -> None:
    start = torch.from_numpy(np.ascontiguousarray(np.moveaxis(inputs, -1, 1), np.int64)).to(device)  # (n, T, ...)
    terms = {bound.layer.name: bound.terms for bound in bounds(network, *span)}

    def step(layer: Layer, signals: list[torch.Tensor]) -> torch.Tensor:
        if isinstance(layer, Flatten):
            return signals[0].flatten(2)
        most = terms[layer.name]
        if network.graded:  # what comes in has no bound beforehand
            size = max(int(signal.long().abs().max()) for signal in signals)
            most = next(bounds([layer], -size, size)).terms * len(signals)
        act = synapses(layer, signals, _float(most, network, layer))
        if network.graded:
            check_sums(network, layer, int(act.abs().max()))
            act = _wrap(act, STATE_BITS if isinstance(layer, Conv) else 32)
        if layer.neuron is None:
            return act
        kept = bool(set(layer.neuron.states) & set(results.what))
        if isinstance(layer.neuron, Neuron):
            spikes, states, counts = _neurons(layer, layer.neuron, act, kept)
        else:
            spikes, states, counts = _messages(layer, layer.neuron, act, kept)
        add_counts(results.counts[network.spiking.index(layer)], counts)
        for what, array in {"spikes": spikes, **states}.items():
            if what in results.what:
                results.record[f"{what}.{layer.name}"][part] = _samples(array)
        if results.voltage is not None and layer is network.spiking[-1]:
            results.voltage[part] = states[layer.neuron.answer][:, -1].cpu().numpy()
        return spikes

    results.spikes[part] = _samples(network.walk(start, step))


def _samples(array: torch.Tensor) -> np.ndarray:
    """(n, T, ...) to (n, ..., T)."""
    return np.moveaxis(array.cpu().numpy(), 1, -1)


def _float(bound: int, network: Network, layer: Layer) -> torch.dtype:
    if bound <= 1 << 24:
        return torch.float32
    if bound <= 1 << 53:
        return torch.float64
    raise NetworkError(
        f"{network.source}: layer {layer.name}: sums can reach {bound}, beyond {1 << 53} up to which "
        f"floating point is exact; give smaller inputs, or device='cpu'"
    )


def synapses(layer: Layer, signals: list[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """Weighted input (n, T, *layer.shape), int64, of a layer that gets (n, T, *layer.in_shape)."""
    if isinstance(layer, Add):
        return torch.stack([signal.long() for signal in signals]).sum(0)
    signal = signals[0].to(dtype)
    if isinstance(layer, Average):
        return signal.reshape(*signal.shape[:2], layer.shape[0], -1).sum(dim=-1).long()
    if isinstance(layer, Windowed):
        images, window = signal.flatten(0, 1), layer.window
        weight = torch.from_numpy(window.weight.copy()).to(images)
        stride, padding, dilation, groups = layer.stride, layer.padding, window.dilation, window.groups
        if isinstance(layer, ConvT):
            weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)  # PyTorch has inputs first
            sums = F.conv_transpose2d(images, weight, None, stride, padding, 0, groups, dilation).long()
        else:
            sums = F.conv2d(images, weight, None, stride, padding, dilation, groups).long()
        if isinstance(layer, Conv) and layer.neuron is None:
            sums = _wrap(sums, STATE_BITS)  # Lava's conv process keeps its sums in 24 bits
        return sums.reshape(*signal.shape[:2], *layer.shape)
    assert isinstance(layer, Dense)
    assert layer.weight is not None
    by_delay = _by_delay(layer.weight, layer.delay, signal)
    if layer.delay is None:
        return (signal @ by_delay[0][1]).long()
    total = signal.new_zeros(*signal.shape[:2], *layer.shape)
    steps = signal.shape[1]
    for late, weight in by_delay:
        if late < steps:
            total[:, late:] += signal[:, : steps - late] @ weight
    return total.long()


def _by_delay(weight: np.ndarray, delay: np.ndarray | None, like: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """Each delay in time steps with its weights, (inputs, outputs), and 0 for those of other delays."""
    weights = torch.from_numpy(weight.T).to(like)
    if delay is None:
        return [(0, weights)]
    delays = torch.from_numpy(delay.T).to(like.device)
    return [(late, weights * (delays == late)) for late in delays.unique().tolist()]


def _neurons(
    layer: Layer, neuron: Neuron, act: torch.Tensor, states: bool
) -> tuple[torch.Tensor, dict[str, torch.Tensor], np.ndarray]:
    """Spikes, and u and v, (n, T, *layer.shape) of neurons fed `act`; u and v of the last step only without `states`.

    What a recurrent layer feeds back is added to `act`. The last of the three: u_max, v_max, wraps and saturations, as
    in `netx_export.limits`.
    """
    limit = 1 << (STATE_BITS - 1)
    back: list[tuple[int, torch.Tensor]] = []
    if isinstance(layer, Dense) and layer.recurrent is not None:
        back = _by_delay(layer.recurrent, layer.recurrent_delay, torch.empty(0, dtype=torch.float64, device=act.device))
    current_keep, voltage_keep, threshold = (
        _per_neuron(layer, value, act.device)
        for value in (
            DECAY_UNITY - np.asarray(neuron.current_decay),
            DECAY_UNITY - np.asarray(neuron.voltage_decay),
            np.asarray(neuron.threshold, np.int64) << STATE_SHIFT,
        )
    )
    bias = _per_neuron(layer, np.asarray(0 if neuron.bias is None else neuron.bias), act.device) << neuron.bias_exponent
    u = torch.zeros_like(act[:, 0])
    u_most, v_most, wraps, saturations = (torch.zeros_like(u) for _ in range(4))
    v, fired = torch.zeros_like(u), torch.zeros_like(u, dtype=torch.bool)
    spikes = torch.zeros(act.shape, dtype=torch.int8, device=act.device)
    kept = act.shape[1] if states else 1
    us = torch.zeros((len(act), kept, *layer.shape), dtype=torch.int32, device=act.device)
    vs = torch.zeros_like(us)
    for t in range(act.shape[1]):
        rest, fed = _decayed(u, current_keep), _wrap(act[:, t], 32)
        size = (rest + (fed << STATE_SHIFT)).abs()
        u_most, wraps = torch.maximum(u_most, size), wraps + size.ge(limit)
        if isinstance(layer, Conv):
            fed = _wrap(fed, STATE_BITS)  # Lava's conv process keeps its sums in 24 bits
        u = _wrap(rest + _wrap(fed << STATE_SHIFT, 32), 32)
        # One turn round 24 bits only, and 2**23 itself stays.
        u = torch.where(u > limit, u - 2 * limit, torch.where(u <= -limit, u + 2 * limit, u))
        v = _wrap(_decayed(v, voltage_keep) + u + bias, 32)
        size = v.abs()
        v_most, saturations = torch.maximum(v_most, size), saturations + size.ge(limit)
        v = v.clamp(1 - limit, limit - 1)
        fired = v > threshold
        v = v.masked_fill(fired, 0)
        spikes[:, t] = fired
        for late, weight in back:
            if t + 1 + late < act.shape[1]:
                act[:, t + 1 + late] += (fired.to(weight) @ weight).long()
        us[:, min(t, kept - 1)], vs[:, min(t, kept - 1)] = u, v
    counts = torch.stack([u_most.max(), v_most.max(), wraps.sum(), saturations.sum()])
    return spikes, {"u": us, "v": vs}, counts.cpu().numpy()


def _messages(
    layer: Layer, neuron: AnyNeuron, act: torch.Tensor, states: bool
) -> tuple[torch.Tensor, dict[str, torch.Tensor], np.ndarray]:
    """As `_neurons`, of sigma-delta neurons: messages and what `netx_export.fast.kernels.run_graded` counts."""
    sums = _wrap(act.cumsum(1), 32)
    most = [sums.abs().max(), (sums.abs() >= 1 << (STATE_BITS - 1)).sum()]
    if not isinstance(neuron, SigmaDelta):
        nothing = torch.zeros_like(most[0])
        return sums.int(), {"sigma": sums.int()}, torch.stack([most[0], nothing, most[1], nothing]).cpu().numpy()
    bias = _per_neuron(layer, np.asarray(0 if neuron.bias is None else neuron.bias), act.device) << neuron.shift
    values = _wrap(sums + _wrap(bias, 32), 32).clamp(min=0)
    threshold = int(np.int64(neuron.threshold << neuron.shift).astype(np.int32))
    kept = act.shape[1] if states else 1
    residues = torch.zeros((len(act), kept, *layer.shape), dtype=torch.int32, device=act.device)
    sent, last, residue = torch.zeros_like(act), torch.zeros_like(act[:, 0]), torch.zeros_like(act[:, 0])
    for t in range(act.shape[1]):
        delta = _wrap(values[:, t] - last + residue, 32)
        sent[:, t] = torch.where(_wrap(delta.abs(), 32) >= threshold, delta, 0)
        residue, last = _wrap(delta - sent[:, t], 32), values[:, t]
        residues[:, min(t, kept - 1)] = residue
    sent >>= neuron.state_exponent
    size = sent.abs().max(), ((sent >= 1 << (MESSAGE_BITS - 1)) | (sent < -1 << (MESSAGE_BITS - 1))).sum()
    counts = torch.stack([most[0], size[0], most[1], size[1]]).cpu().numpy()
    return sent.int(), {"sigma": sums.int(), "act": values.int(), "residue": residues}, counts


def _per_neuron(layer: Layer, value: np.ndarray, device: torch.device) -> torch.Tensor:
    """One number for all, one a channel or one a neuron, to be broadcast to layer.shape."""
    shape = value.shape + (1,) * (len(layer.shape) - value.ndim if value.ndim else 0)
    return torch.from_numpy(np.array(value.reshape(shape), np.int64)).to(device)


def _decayed(state: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """state * keep / 4096, truncated toward zero."""
    return state.sign() * (state.abs() * keep // DECAY_UNITY)


def _wrap(x: torch.Tensor, bits: int) -> torch.Tensor:
    """What two's complement of this width keeps of an integer."""
    half = 1 << (bits - 1)
    return ((x + half) & (2 * half - 1)) - half
