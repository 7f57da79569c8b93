"""Modules of PyTorch, sinabs, snnTorch, SpikingJelly and lava-dl SLAYER as a graph of parts.

Modules are known by the names of their classes and by their fields, so that none of these programs need be installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mtt_lava.imports.graph import AnyPart, Cells, Flatten, ImportedError, Node, Norm, Pair, Pool, Relu, Weights
from netx_export.network import INPUT, Shape

MANY = "fire one spike a time step at most, and ours as many as there are thresholds in the voltage"
OPEN = "their voltage has no lower bound, and that of ours is the negative threshold"
_LISTS = ("Sequential", "ModuleList")
LATE = "the threshold is subtracted behind the leak of the next time step, and here at once"


def nodes_of(network: Any, source: str) -> list[Node]:
    """The parts of a network, one behind the other.

    Parameters
    ----------
    network : torch.nn.Module
        A ``Sequential``, nested ones too; of sinabs also a ``Network``, of lava-dl one with a list of blocks.
    source : str
        What messages start with.

    Raises
    ------
    ImportedError
        A module that is not known, or does what ours do not: its name, and the reason.
    """
    nodes: list[Node] = []
    for name, module in _flat(network, "", source):
        try:
            parts = _parts(module)
        except ImportedError as error:
            raise ImportedError(f"{source}: {name} ({type(module).__name__}): {error}") from None
        for i, part in enumerate(parts):
            called = name if i == 0 else f"{name}.{i + 1}"
            nodes.append(Node(called, part, (nodes[-1].name if nodes else INPUT,)))
    return nodes


def first_shape(network: Any, source: str) -> Shape | None:
    """The shape of the input, where the first module says it: a matrix does."""
    for _, module in _flat(network, "", source):
        if _kind(module) == "Linear":
            return (int(module.weight.shape[1]),)
        if not _ignored(module):
            break
    return None


def _flat(network: Any, prefix: str, source: str) -> Iterator[tuple[str, Any]]:
    """The modules of a network in order, by their names."""
    children = list(network.named_children())
    known = _slayer(network) or _kind(network) in _KINDS or _ignored(network)
    if known or not (children or _kind(network) in _LISTS):
        yield prefix or "0", network
        return
    within = getattr(network, "spiking_model", None)  # of sinabs' Network
    if within is not None:
        yield from _flat(within, prefix, source)
        return
    if _kind(network) not in _LISTS:
        lists = [child for _, child in children if type(child).__name__ == "ModuleList"]
        if len(lists) == 1 and all(_slayer(block) for block in lists[0]):
            yield from _flat(lists[0], f"{prefix}blocks", source)
            return
        held = ", ".join(type(child).__name__ for _, child in children)
        raise ImportedError(
            f"{source}: {prefix or type(network).__name__} ({type(network).__name__}): holds {held}: in which order "
            f"its code runs them is not read: give a torch.nn.Sequential, or a model and the state dict"
        )
    for name, child in children:
        yield from _flat(child, f"{prefix}.{name}" if prefix else name, source)


def _kind(module: Any) -> str:
    """The class of a module that is known, its own or one that it is made of; else its own name."""
    names = [each.__name__ for each in type(module).__mro__]
    return next((name for name in names if name in _KINDS or name in _LISTS), names[0])


def _ignored(module: Any) -> bool:
    name = type(module).__name__
    return (name == "Identity" or name.startswith("Dropout")) and not _slayer(module)


def _slayer(module: Any) -> bool:
    """Whether it is a block of lava-dl SLAYER, which has its own kinds of the same names."""
    return ".slayer.block." in f".{type(module).__module__}."


def _parts(module: Any) -> list[AnyPart]:
    if _slayer(module):
        return _slayer_block(module)
    if _ignored(module):
        return []
    kind = _kind(module)
    if kind not in _KINDS:
        raise ImportedError(f"is not read; these are: {', '.join(sorted(_KINDS))}, Dropout, and blocks of SLAYER")
    return [_KINDS[kind](module)]


def _array(value: Any) -> Any:
    return np.asarray(value.detach().cpu().double() if hasattr(value, "detach") else value, np.float64)


def _number(value: Any, what: str) -> float:
    """One number for all neurons."""
    found = np.unique(_array(value))
    if len(found) != 1:
        raise ImportedError(f"{what} differs from neuron to neuron ({found[0]:g}..{found[-1]:g}): one is read")
    return float(found[0])


def _pair(value: Any) -> Pair:
    one, other = np.broadcast_to(np.asarray(value), (2,)).tolist()
    return int(one), int(other)


# ------------------------------------------------------------------------------------------------ PyTorch


def _conv(module: Any) -> Weights:
    if getattr(module, "padding_mode", "zeros") != "zeros":
        raise ImportedError(f"padding_mode {module.padding_mode!r}: only zeros are padded")
    padding: Any = module.padding
    if padding == "valid":
        padding = 0
    elif padding == "same":
        reach = [(k - 1) * d for k, d in zip(_pair(module.kernel_size), _pair(module.dilation), strict=True)]
        if any(n % 2 for n in reach):
            raise ImportedError("padding 'same' of an even kernel is uneven: give numbers")
        padding = [n // 2 for n in reach]
    return Weights(
        _array(module.weight),
        None if module.bias is None else _array(module.bias),
        _pair(module.stride),
        _pair(padding),
        _pair(module.dilation),
        int(module.groups),
    )


def _linear(module: Any) -> Weights:
    return Weights(_array(module.weight), None if module.bias is None else _array(module.bias))


def _batch_norm(module: Any) -> Norm:
    if module.running_var is None:
        raise ImportedError("has no running statistics: train it with track_running_stats")
    gain = 1 / np.sqrt(_array(module.running_var) + module.eps)
    gain = gain if module.weight is None else gain * _array(module.weight)
    offset = -_array(module.running_mean) * gain
    return Norm(gain, offset if module.bias is None else offset + _array(module.bias))


def _pool(kind: str) -> Callable[[Any], Pool]:
    def made(module: Any) -> Pool:
        kernel = _pair(module.kernel_size)
        stride = kernel if module.stride is None else _pair(module.stride)
        if getattr(module, "ceil_mode", False):
            raise ImportedError("ceil_mode: windows that reach over the border are not read")
        if np.any(getattr(module, "padding", 0)):
            raise ImportedError(f"padding {module.padding}: pools here have none")
        if np.any(np.asarray(getattr(module, "dilation", 1)) != 1):
            raise ImportedError(f"dilation {module.dilation}: pools here have none")
        if getattr(module, "divisor_override", None) is not None:
            raise ImportedError("divisor_override is not read")
        return Pool(kind, kernel, stride)

    return made


def _power_pool(module: Any) -> Pool:
    if module.norm_type != 1:
        raise ImportedError(f"norm_type {module.norm_type}: only 1, a sum, is read")
    return _pool("sum")(module)


def _flatten(module: Any) -> Flatten:
    if module.start_dim not in (1, 2, -3) or module.end_dim not in (-1, 3, 4):
        raise ImportedError(f"flattens axes {module.start_dim} to {module.end_dim}: all but that of samples are")
    return Flatten()


# ------------------------------------------------------------------------------------------------ neurons of others


def _sinabs(module: Any) -> Cells:
    """IAF and LIF of sinabs: v = a v + x, spikes where v >= threshold."""
    differs = []
    if module.spike_fn is None:
        return Cells(1.0, 1.0, 1 - _number(module.alpha_mem_calculated, "alpha_mem"), spiking=False)
    spikes, reset = (_name(getattr(module, name)) for name in ("spike_fn", "reset_fn"))
    if reset not in ("MembraneSubtract", "MembraneReset"):
        raise ImportedError(f"reset_fn {reset}: MembraneSubtract and MembraneReset are read")
    if spikes not in ("MultiSpike", "SingleSpike"):
        raise ImportedError(f"spike_fn {spikes}: MultiSpike and SingleSpike are read")
    if getattr(module, "rec_connect", None) is not None:
        raise ImportedError("feeds itself: not read of sinabs")
    subtract = getattr(module.reset_fn, "subtract_value", None)
    if subtract is not None:
        raise ImportedError(f"reset_fn subtracts {subtract}: only the threshold is read")
    if np.any(getattr(module.reset_fn, "reset_value", 0) or 0):
        raise ImportedError("reset_fn resets to another voltage than 0")
    threshold = _array(module.spike_threshold)
    kept, current, gain = _array(module.alpha_mem_calculated), module.alpha_syn_calculated, np.ones(())
    if module.norm_input:
        gain = 1 - kept
    decay = 1.0
    if current is not None:  # i = a (i + x): what comes in decays at once
        alpha = _number(current, "alpha_syn")
        decay, gain = 1 - alpha, gain * alpha
    voltage = 1 - _number(kept, "alpha_mem")
    least = None if module.min_v_mem is None else _array(module.min_v_mem)
    if reset == "MembraneSubtract":
        if spikes == "SingleSpike":
            differs.append(MANY)
        if least is None or not np.all(np.isclose(least, -threshold)):
            differs.append(OPEN if least is None else f"their voltage stays above {least.ravel()[0]:g}, not -threshold")
        return Cells(threshold, decay, voltage, "subtract", gain, differs=tuple(differs))
    if spikes == "MultiSpike":
        differs.append("fire several spikes a time step, and ours, which reset to zero, one")
    if least is not None:
        differs.append(f"their voltage stays above {least.ravel()[0]:g}, and that of ours has no lower bound")
    return Cells(threshold, decay, voltage, "zero", gain, differs=tuple(differs))


def _name(value: Any) -> str:
    return str(getattr(value, "__name__", type(value).__name__))


def _leaky(module: Any) -> Cells:
    """Leaky and Synaptic of snnTorch: v = beta v + x (or the current), spikes where v > threshold."""
    for name in ("inhibition", "state_quant"):
        if getattr(module, name, False):
            raise ImportedError(f"{name} is not read")
    if _number(getattr(module, "graded_spikes_factor", 1.0), "graded_spikes_factor") != 1:
        raise ImportedError("graded_spikes_factor is not 1: put it into the weights behind")
    beta = min(1.0, max(0.0, _number(module.beta, "beta")))
    alpha = min(1.0, max(0.0, _number(module.alpha, "alpha"))) if hasattr(module, "alpha") else 0.0
    reset = getattr(module, "_reset_mechanism", None) or getattr(module, "reset_mechanism", "subtract")
    late = getattr(module, "reset_delay", True)
    threshold = _array(module.threshold)
    if reset == "none":
        return Cells(threshold, 1 - alpha, 1 - beta, "zero", spiking=False)
    differs = []
    if reset == "subtract":
        differs += [MANY, OPEN, *([LATE] if late and beta < 1 else [])]
    elif late and (hasattr(module, "alpha") or hasattr(module, "recurrent")):
        differs.append("what comes in right behind a spike is lost (reset_delay), and here it counts")
    return Cells(threshold, 1 - alpha, 1 - beta, str(reset), back=_back(module), differs=tuple(differs))


def _back(module: Any) -> np.ndarray | None:
    """Recurrent weights of RLeaky and RSynaptic."""
    inner = getattr(module, "recurrent", None)
    if inner is None:
        return None
    if hasattr(inner, "V"):
        factors = _array(inner.V)
        if factors.ndim != 1:
            raise ImportedError("one recurrent weight for all (V): how many neurons there are is not said")
        return np.diag(factors)
    if _kind(inner) != "Linear":
        raise ImportedError(f"recurrent {type(inner).__name__}: only a Linear is read")
    if inner.bias is not None and np.any(_array(inner.bias)):
        raise ImportedError("the recurrent Linear has biases: put them into the one before")
    return _array(inner.weight)


def _node(module: Any) -> Cells:
    """IFNode, LIFNode, ParametricLIFNode and CUBALIFNode of SpikingJelly: spikes where v >= threshold."""
    current, decay, gain, kind = 1.0, 0.0, 1.0, _kind(module)
    if kind == "CUBALIFNode":
        current, decay = 1 - float(module.c_decay), 1 - float(module.v_decay)
    elif kind != "IFNode":
        decay = 1 / float(module.tau) if kind == "LIFNode" else float(module.w.sigmoid())
        gain = decay if module.decay_input else 1.0
    threshold = np.asarray(float(module.v_threshold))
    if module.v_reset is None:
        differs = (MANY, OPEN)
        return Cells(threshold, current, decay, "subtract", gain, differs=differs)
    if module.v_reset != 0:
        raise ImportedError(f"v_reset {module.v_reset:g}: only 0 is read")
    return Cells(threshold, current, decay, "zero", gain)


_KINDS: dict[str, Callable[[Any], AnyPart]] = {
    "Conv2d": _conv,
    "Linear": _linear,
    "BatchNorm1d": _batch_norm,
    "BatchNorm2d": _batch_norm,
    "AvgPool2d": _pool("average"),
    "MaxPool2d": _pool("max"),
    "SumPool2d": _power_pool,
    "Flatten": _flatten,
    "ReLU": lambda _: Relu(),
    "IAF": _sinabs,
    "LIF": _sinabs,
    "ExpLeak": _sinabs,
    "Leaky": _leaky,
    "Synaptic": _leaky,
    "RLeaky": _leaky,
    "RSynaptic": _leaky,
    "IFNode": _node,
    "LIFNode": _node,
    "ParametricLIFNode": _node,
    "CUBALIFNode": _node,
}


# ------------------------------------------------------------------------------------------------ SLAYER


def _slayer_block(block: Any) -> list[AnyPart]:
    """A CUBA block of lava-dl in the chip's integers, which its forward quantises to."""
    kind = type(block).__name__
    if not type(block).__module__.endswith(".cuba"):
        raise ImportedError(f"of {type(block).__module__.rpartition('.')[2]} neurons: only blocks of CUBA are read")
    if kind == "Flatten":
        return [Flatten()]
    if kind not in ("Conv", "Dense", "Pool", "Affine"):
        raise ImportedError("is not read; of SLAYER's blocks Conv, Dense, Pool, Flatten and Affine are")
    if getattr(block, "delay", None) is not None and np.any(np.floor(_array(block.delay.delay))):
        raise ImportedError("has delays, which training does not have here")
    synapse = block.synapse
    if getattr(synapse, "complex", False):
        raise ImportedError("has complex weights")
    if getattr(synapse, "weight_norm_enabled", False):
        raise ImportedError("has a weight norm: call synapse.disable_weight_norm() first")
    hook = getattr(synapse, "pre_hook_fx", None)
    if hook is None:
        weight, unit = _array(synapse.weight), 1.0
    else:
        unit = float(block.neuron.w_scale)
        weight = _array(hook(synapse.weight)) * unit
        weight = np.rint(weight) if np.allclose(weight, np.rint(weight), atol=1e-3) else weight
    if getattr(block, "mask", None) is not None:
        weight = weight * _array(block.mask)
    bias = _slayer_bias(block, unit)
    weight = weight[..., 0] if weight.ndim == 5 else weight
    if kind in ("Dense", "Affine"):
        part = Weights(weight.reshape(weight.shape[:2]), bias)
    else:
        stride, padding, dilation = (
            _pair(np.asarray(getattr(synapse, name))[:2]) for name in ("stride", "padding", "dilation")
        )
        # A pool has neurons with a threshold: it is a convolution of each channel with the same weights.
        part = Weights(weight, bias, stride, padding, dilation, 0 if kind == "Pool" else int(synapse.groups))
    neuron = block.neuron
    current, voltage = (_number(getattr(neuron, name), name) / 4096 for name in ("current_decay", "voltage_decay"))
    if kind == "Affine":  # gives its current in every time step, or the voltage of neurons that do not spike
        current, voltage = (current, voltage) if block.dynamics else (1.0, 0.0)
        return [part, Cells(unit, current, voltage, spiking=False)]
    if getattr(neuron, "graded_spike", False):
        raise ImportedError("sends graded spikes, which training does not have here")
    threshold = float(neuron._threshold) * unit
    return [part, Cells(np.asarray(round(threshold) if hook is not None else threshold), current, voltage)]


def _slayer_bias(block: Any, unit: float) -> np.ndarray | None:
    norm = getattr(block.neuron, "norm", None)
    if norm is None:
        return None
    if type(norm).__name__ != "MeanOnlyBatchNorm":
        raise ImportedError(f"its norm {type(norm).__name__} is not read: fold it into the weights first")
    bias = -_array(norm.pre_hook_fx(norm.running_mean)) * unit
    return np.rint(bias) if np.allclose(bias, np.rint(bias), atol=1e-3) else bias
