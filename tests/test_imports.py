"""Networks of others as runs: what they fire there they fire here, or the layer that does not is named."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from nir_files import clocked
from safetensors.torch import save_file
from strategies import spike_inputs
from test_nir import IF, LIF, LINEAR, foreign, without
from torch import nn

from mtt_lava import Run, Settings, evaluate, export_nir, import_network, load_model, load_run, to_network, train
from mtt_lava.cli import main
from mtt_lava.data import frames as counts
from mtt_lava.data import from_events, from_images, open_dataset, subset
from mtt_lava.imports import ImportedError, making
from mtt_lava.imports.ann import activations, normalised
from mtt_lava.imports.graph import Imported, assemble
from mtt_lava.imports.modules import nodes_of
from mtt_lava.imports.nodes import from_nir
from mtt_lava.imports.pooling import without_pools
from mtt_lava.imports.tensors import from_tensors
from mtt_lava.model import ModelError
from mtt_lava.run import RunError
from mtt_lava.training import phases
from netx_export import NetworkError, nir, read
from netx_export.network import Dense, Flatten, Layer, Network, Neuron
from netx_export.simulation import simulate

# ------------------------------------------------------------------------------------------------ stand-ins


class Leaky(nn.Module):
    """Fields of snnTorch's neurons, and what they compute."""

    def __init__(self, beta: float = 1.0, threshold: float = 1.0, reset: str = "zero", **more: Any) -> None:
        super().__init__()
        self.register_buffer("beta", torch.as_tensor(beta))
        self.register_buffer("threshold", torch.tensor(threshold))
        self._reset_mechanism = reset
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Spikes of (T, N, ...)."""
        v, i, out = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
        for now in x:
            i = getattr(self, "alpha", 0.0) * i + now
            v = self.beta * v + i
            spikes = (v > self.threshold).float()
            v = v * (1 - spikes)
            out.append(spikes)
        return torch.stack(out)


class Synaptic(Leaky):
    """With a current that decays."""


class MembraneSubtract:
    """Of sinabs."""

    subtract_value = None


class MultiSpike:
    """Of sinabs."""


class IAF(nn.Module):
    """Fields of sinabs' neurons, and what they compute."""

    def __init__(self, threshold: float = 1.0, least: float | None = -1.0, **more: Any) -> None:
        super().__init__()
        self.spike_threshold = nn.Parameter(torch.tensor(threshold), requires_grad=False)
        self.min_v_mem = None if least is None else torch.tensor(least)
        self.spike_fn, self.reset_fn = MultiSpike, MembraneSubtract()
        self.norm_input, self.alpha_mem_calculated, self.alpha_syn_calculated = False, torch.tensor(1.0), None
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Spikes of (T, N, ...)."""
        v, out, threshold = torch.zeros_like(x[0]), [], self.spike_threshold.item()
        for now in x:
            v = v + now
            spikes = torch.div(v, threshold, rounding_mode="floor").clamp(min=0)
            v = (v - threshold * spikes).clamp(min=-threshold)
            out.append(spikes)
        return torch.stack(out)


class SumPool2d(nn.LPPool2d):
    """Of sinabs."""

    def __init__(self, kernel: int) -> None:
        super().__init__(1, kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sums: PyTorch's has a root that is 0 / 0 where nothing came in."""
        return nn.functional.avg_pool2d(x, self.kernel_size, divisor_override=1)


NEURONS = (Leaky, IAF)


def theirs(network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What every layer of neurons fires, and what comes out, (T, N, ...), of frames (T, N, ...)."""
    found = []
    for module in network.modules():
        if list(module.children()):
            continue
        with torch.no_grad():
            x = module(x) if isinstance(module, NEURONS) else module.eval()(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        if isinstance(module, NEURONS):
            found.append(x)
    return [*found, x]


# ------------------------------------------------------------------------------------------------ random networks


@st.composite
def sequentials(draw: st.DrawFn, kind: str, biases: bool = True) -> tuple[nn.Sequential, tuple[int, int, int]]:
    """Networks whose weights are 64ths, so that sums are exact in any order; and the shape of their input."""
    torch.manual_seed(draw(st.integers(0, 1 << 30)))
    channels, height, width = shape = draw(st.tuples(st.integers(1, 2), st.integers(6, 9), st.integers(6, 9)))
    decay = draw(st.sampled_from((1.0, 0.75, 0.5)))
    most = 1 if kind == "zero" else 4

    def neurons() -> nn.Module:
        threshold = draw(st.sampled_from((0.5, 1.0, 2.0)))
        return Leaky(decay, threshold) if kind == "zero" else IAF(threshold, -threshold)

    modules: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 2))):
        out = draw(st.integers(1, 3))
        padding = draw(st.integers(0, 1))
        groups = channels if out % channels == 0 and draw(st.booleans()) else 1
        conv = nn.Conv2d(channels, out, 3, draw(st.integers(1, 2)), padding, groups=groups, bias=biases)
        modules += [conv, neurons(), nn.Dropout(0.5)]
        height, width = ((n + 2 * padding - 3) // conv.stride[0] + 1 for n in (height, width))
        channels = out
        if min(height, width) >= 4 and draw(st.booleans()):
            modules.append(draw(st.sampled_from((nn.AvgPool2d(2), SumPool2d(2)))))
            height, width = height // 2, width // 2
        if min(height, width) < 3:
            break
    modules += [nn.Flatten(), nn.Linear(channels * height * width, 3, bias=biases)]
    if draw(st.booleans()):
        modules.append(neurons())
    for module in modules:
        for value in module.parameters() if isinstance(module, nn.Conv2d | nn.Linear) else ():
            value.data = torch.randint(-24, 48, value.shape) / 64 / most
    return nn.Sequential(*modules), shape


def frames(shape: tuple[int, ...], seed: int, steps: int = 6, samples: int = 3) -> torch.Tensor:
    """Random counts (T, N, ...)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 3, (steps, samples, *shape), generator=generator).float()


def network_of(found: Imported, profile: str) -> Any:
    """The network of a model with its floating-point values."""
    values = {"data": "none", "profile": profile, "norm": "batch", "biases": "none"}
    network = Settings._made(found.model, values).build()
    making._fill(network, found)
    return network.eval()


def ours(network: Any, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Spikes (T, N, ...) of every layer that spikes, and the readout."""
    spikes: list[torch.Tensor] = []
    with torch.no_grad():
        readout = network(x.movedim(0, -1), None, spikes)
    return [each.movedim(-1, 0) for each in spikes], readout


@pytest.mark.parametrize("count", [15, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "profile"), [("zero", "loihi2"), ("subtract", "speck2e")])
def test_a_network_fires_here_what_it_fires_there(kind: str, profile: str, count: int) -> None:
    """Biases, thresholds, leaks, groups, padding; pools as they are, or (Loihi) as part of the weights behind them."""
    seen: Counter[str] = Counter()

    @settings(max_examples=count, deadline=None)
    @given(sequentials(kind), st.integers(0, 1000))
    def run(drawn: tuple[nn.Sequential, tuple[int, int, int]], seed: int) -> None:
        module, shape = drawn
        found = assemble(nodes_of(module, "s"), shape, "s", "s")
        pools = sum(layer.type == "pool" for layer in found.model.layers)
        if kind == "zero":
            found = without_pools(found, profile)
            assert not any(layer.type == "pool" for layer in found.model.layers)
        x = frames(shape, seed)
        expected = theirs(module, x)
        spikes, readout = ours(network_of(found, profile), x)
        for one, other in zip(spikes, expected[:-1], strict=False):
            # What nothing takes of a layer, because a pool behind it leaves it over, is not there.
            cut = other[(..., *(slice(n) for n in one.shape[3:]))] if one.dim() == 5 else other
            np.testing.assert_array_equal(one.numpy(), cut.reshape(one.shape).numpy())
            seen["spikes"] += int(one.sum())
        # A chip without a clock counts spikes, also where theirs ends with a voltage.
        if isinstance(module[-1], NEURONS) or profile == "loihi2":
            np.testing.assert_allclose(readout.numpy(), expected[-1].sum(0).numpy(), atol=1e-4)
        seen["networks"] += 1
        seen["pools"] += pools

    run()
    assert seen["networks"] > count // 2, seen
    assert seen["spikes"] > count, seen
    assert count < 100 or seen["pools"] > count // 10, seen


# ------------------------------------------------------------------------------------------------ integers, norms


def integer_network() -> nn.Sequential:
    """Weights that a chip holds as they are: even, thresholds integers."""
    torch.manual_seed(1)
    network = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), Leaky(1.0, 20.5), nn.Flatten(), nn.Linear(4 * 25, 3), Leaky(1.0, 30.0))
    )
    for module in (network[0], network[3]):
        module.weight.data = 2.0 * torch.randint(-4, 6, module.weight.shape)
        module.bias.data = 1.0 * torch.randint(-3, 4, module.bias.shape)
    return network


def test_integers_stay_what_they_are() -> None:
    """Weights, biases and thresholds of the exported network are those of the source, and so is every spike."""
    network, x = integer_network(), frames((2, 5, 5), 3, 8, 5)
    run = import_network(network, shape=(2, 5, 5))
    layers = to_network(run).spiking
    for layer, module in zip(layers, (network[0], network[3]), strict=True):
        np.testing.assert_array_equal(layer.weight, module.weight.detach().numpy())  # type: ignore[union-attr]
        np.testing.assert_array_equal(layer.neuron.bias, module.bias.detach().numpy())  # type: ignore[union-attr]
    assert [layer.neuron.threshold for layer in layers] == [20, 30]  # type: ignore[union-attr]
    inputs = x.movedim(0, -1).numpy().astype(int)
    result = simulate(to_network(run), inputs, backend="fast", record=("spikes",))
    for name, expected in zip(("conv1", "dense1"), theirs(network, x), strict=False):
        np.testing.assert_array_equal(result.record[f"spikes.{name}"], expected.movedim(0, -1).numpy())
    assert run.settings.biases == "kept"


def test_odd_integers_are_doubled_where_a_chip_wants_even_ones() -> None:
    network = integer_network()
    network[0].weight.data += 1
    layer = to_network(import_network(network, shape=(2, 5, 5))).spiking[0]
    np.testing.assert_array_equal(layer.weight, 2 * network[0].weight.detach().numpy())  # type: ignore[union-attr]
    assert layer.neuron.threshold == 40  # type: ignore[union-attr]


@given(st.integers(0, 1 << 30))
@settings(max_examples=10, deadline=None)
def test_batch_norms_are_folded(seed: int) -> None:
    """The ANN that is read gives what PyTorch's gives."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(3, 4, 2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)),
    )
    x = torch.rand(20, 2, 8, 8)
    network(x)  # statistics
    for norm in (network[1], network[8]):
        norm.weight.data, norm.bias.data = torch.rand_like(norm.weight), torch.randn_like(norm.bias)
    found = assemble(nodes_of(network, "s"), (2, 8, 8), "s", "s")
    given = list(activations(found, x).values())[-1]
    torch.testing.assert_close(given, network.eval()(x).detach(), atol=1e-4, rtol=1e-4)


def test_a_kernel_over_all_of_its_input_is_a_matrix() -> None:
    """The last layer of many networks of sinabs."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), IAF(), nn.Conv2d(2, 4, 4, bias=False), IAF(), nn.Flatten())
    network[0].bias = None
    found = assemble(nodes_of(network, "s"), (1, 6, 6), "s", "s")
    assert [layer.type for layer in found.model.layers] == ["conv", "dense"]
    assert found.model.readout == "count"
    x = frames((1, 6, 6), 0)
    spikes, _ = ours(network_of(found, "speck2e"), x)
    np.testing.assert_array_equal(spikes[-1].numpy(), theirs(network, x)[-1].numpy())


def test_a_decaying_current_and_a_name() -> None:
    """Synaptic's current comes before its voltage, and layers keep names that say something."""
    network = nn.Sequential()
    network.add_module("hidden", nn.Linear(4, 6, bias=False))
    network.add_module("cells", Synaptic(0.5, 1.0, alpha=0.75, reset_delay=False))
    network.add_module("out", nn.Linear(6, 2, bias=False))
    for module in (network.hidden, network.out):
        module.weight.data = torch.randint(-30, 60, module.weight.shape) / 64  # type: ignore[union-attr,operator]
    found = assemble(nodes_of(network, "s"), (4,), "s", "s")
    assert found.model.names == ["hidden", "out"]
    assert (found.model.neuron.current_decay, found.model.neuron.voltage_decay) == (0.25, 0.5)
    x = frames((4,), 1)
    spikes, _ = ours(network_of(found, "loihi2"), x)
    np.testing.assert_array_equal(spikes[0].numpy(), theirs(network, x)[0].numpy())
    assert spikes[0].sum() > 5


def slayer_blocks() -> nn.Module:
    """A network of lava-dl as its tutorials write them."""
    from lava.lib.dl import slayer

    torch.manual_seed(0)
    neuron = {"threshold": 1.25, "current_decay": 0.25, "voltage_decay": 0.03}

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            more = {"weight_scale": 2, "delay_shift": False}
            self.blocks = nn.ModuleList(
                [
                    slayer.block.cuba.Conv(dict(neuron), 2, 4, 3, padding=1, **more),
                    slayer.block.cuba.Pool(dict(neuron), 2, weight_scale=1, delay_shift=False),
                    slayer.block.cuba.Flatten(),
                    slayer.block.cuba.Dense(dict(neuron), 4 * 9, 3, **more),
                ]
            )

    return Network()


def test_a_network_of_slayer_fires_the_same() -> None:
    """Bit for bit: its 8-bit weights stay what they are."""
    network = slayer_blocks()
    x = 2 * frames((2, 6, 6), 0, 12, 4)
    run = import_network(network, shape=(2, 6, 6))
    found: list[torch.Tensor] = []
    out = x.movedim(0, -1)
    for block in network.blocks:  # type: ignore[union-attr]
        out = block(out)
        found.append(out.detach())
    spikes, _ = ours(run.network, x)
    for one, other in zip(spikes, (found[0], found[1], found[3]), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.movedim(-1, 0).reshape(one.shape).numpy())
        assert one.sum() > 10


def test_an_affine_block_of_slayer_is_a_voltage() -> None:
    """Its currents, summed over time; neurons of it that leak are refused."""
    from lava.lib.dl import slayer

    neuron = {"threshold": 1.25, "current_decay": 0.25, "voltage_decay": 0.03}
    network = nn.Sequential(
        slayer.block.cuba.Dense(dict(neuron), 9, 6, weight_scale=2, delay_shift=False),
        slayer.block.cuba.Affine(dict(neuron), 6, 3, weight_scale=2, dynamics=False),
    )
    x = 2 * frames((9,), 0, 12, 4)
    run = import_network(network, shape=(9,))
    expected = network(x.movedim(0, -1)).detach().sum(-1)
    np.testing.assert_allclose(ours(run.network, x)[1].numpy() * run_unit(run), expected.numpy(), atol=1e-4)
    network[1].dynamics = True
    with pytest.raises(ImportedError, match=r"1\.2: integrate with a leak, and do not spike"):
        import_network(network, shape=(9,))


def run_unit(run: Run) -> float:
    """SLAYER's unit of what a quantised readout counts in: its weights are as large as the scale made them."""
    return 64 / run.network.weight_scales[-1]


# ------------------------------------------------------------------------------------------------ refusals


def linear(*behind: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3, bias=False), *behind)


class Custom(nn.Module):
    """Has code of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding_mode="reflect"), Leaky()), {}, r"0 \(Conv2d\): padding_mode 'r"),
        (nn.Sequential(nn.Conv2d(1, 2, 2, padding="same"), Leaky()), {}, r"0 \(Conv2d\): padding 'same' of an"),
        (nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9, 2)), {}, r"0: takes the largest of values"),
        (nn.Sequential(nn.AvgPool2d(2, ceil_mode=True)), {}, r"0 \(AvgPool2d\): ceil_mode"),
        (nn.Sequential(nn.AvgPool2d(3, padding=1)), {}, r"0 \(AvgPool2d\): padding 1"),
        (linear(nn.GELU()), {"shape": (4,)}, r"1 \(GELU\): is not read; these are: AvgPool2d, "),
        (linear(nn.Linear(3, 2)), {}, r"1: comes behind 0, which has weights and no neurons"),
        (linear(nn.BatchNorm1d(3, track_running_stats=False)), {}, r"1 \(BatchNorm1d\): has no running statistics"),
        (nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)), {"shape": (4,)}, r"0: a norm is folded into the convol"),
        (linear(Leaky(0.9), nn.Linear(3, 2), Leaky(0.8)), {}, r"3: voltage_decay is 0\.2, and 0\.1 in 1: all"),
        (linear(Leaky(reset="subtract")), {}, r"1: fire one spike a time.*\(and 1 more\).*--allow-inex"),
        (linear(Leaky(0.9, 1.0, "subtract")), {}, r"1: fire one spike.*\(and 2 more\)"),
        (linear(Leaky(inhibition=True)), {}, r"1 \(Leaky\): inhibition is not read"),
        (linear(Leaky(torch.tensor([0.1, 0.2, 0.3]))), {}, r"1 \(Leaky\): beta differs from neuron to neuron"),
        (linear(Synaptic(0.9, alpha=0.5)), {}, r"1: what comes in right behind a spike is lost \(reset_delay\)"),
        (linear(Leaky(), nn.Linear(3, 2), nn.ReLU()), {}, r"one of 3 and 1 spikes, and the other"),
        (linear(IAF()), {"profile": "loihi2"}, r"Sequential: neurons reset by subtraction, and those of loihi2 to"),
        (linear(IAF(least=None)), {}, r"1: their voltage has no lower bound"),
        (linear(IAF(), nn.Linear(3, 2, bias=False)), {}, r"the answer is a voltage, and on speck2e, which has no"),
        (nn.Sequential(nn.Linear(4, 2), IAF()), {}, r"dense1: has biases, and speck2e has none: use --biases absorbed"),
        (Custom(), {}, r"Custom \(Custom\): holds Linear: in which order its code"),
        (linear(nn.ReLU(), nn.Linear(3, 2)), {}, r"an ANN is converted by what its layers give over data"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), Leaky()), {"shape": None}, r"does not say the size of its input"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), Leaky()), {}, r"1: the last layer must be a matrix"),
        (nn.Sequential(nn.Conv2d(3, 2, 3), Leaky()), {}, r"0: takes 3 channels, and 1 come in"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), Leaky(), nn.Linear(4, 2)), {}, r"2: takes 4, and \(2, 4, 4\)"),
    ],
)
def test_what_ours_do_not_is_refused_by_layer_and_reason(
    network: nn.Module, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    shape = None if any(isinstance(module, nn.Linear) for module in list(network.modules())[:2]) else (1, 6, 6)
    with pytest.raises(ImportedError, match=message):
        import_network(network, tmp_path / "run", **{"shape": shape, **options})
    assert not list(tmp_path.iterdir())


def test_what_differs_is_taken_over_where_asked_for_and_said(tmp_path: Path) -> None:
    run = import_network(linear(Leaky(0.9, 1.0, "subtract")), tmp_path / "run", allow_inexact=True, profile="loihi2")
    differs = load_run(tmp_path / "run").imported["differs"]  # type: ignore[index]
    assert run.imported is not None
    assert run.imported["differs"] == differs
    assert [text.split(":")[0] for text in differs[:3]] == ["1", "1", "1"]
    assert differs[3] == "neurons reset by subtraction, and those of loihi2 to zero"


# ------------------------------------------------------------------------------------------------ tensors

MODEL = {
    "name": "m",
    "input": [1, 8, 8],
    "layers": [
        {"type": "conv", "channels": 3, "kernel": 3},
        {"type": "pool", "kernel": 2},
        {"type": "conv", "channels": 3, "kernel": 2},
        {"type": "dense", "features": 4},
    ],
}


def state(*names: str, biases: bool = False) -> dict[str, torch.Tensor]:
    """Weights of that model by these names."""
    generator = torch.Generator().manual_seed(3)
    shapes = ((3, 1, 3, 3), (3, 3, 2, 2), (4, 12))
    found = {f"{n}.weight": torch.randn(s, generator=generator) for n, s in zip(names, shapes, strict=True)}
    return found | ({f"{name}.bias": torch.ones(len(found[f"{name}.weight"])) for name in names} if biases else {})


def taken(tensors: dict[str, torch.Tensor], **options: Any) -> Imported:
    return from_tensors(tensors, load_model(MODEL), "weights", **options)


def test_tensors_are_those_of_layers_by_name_order_or_shape() -> None:
    """By the model's own names in any order; by the order of a state dict; else by a shape that only one has."""
    by_name = state("x.conv1", "x.conv2", "x.dense1")
    in_order = state("features.0", "features.10", "classifier.1")
    for tensors, options in (
        (dict(reversed(by_name.items())), {}),
        (in_order, {}),
        (dict(sorted(in_order.items())), {}),
        (dict(sorted(state("features.2", "features.10", "fc").items())), {"natural": True}),
    ):
        found = taken(tensors, **options)
        for name, value in zip(("conv1", "conv2", "dense1"), in_order.values(), strict=True):
            np.testing.assert_array_equal(found.tensors[name].weight, value.double().numpy())
    assert found.notes == ["conv1: features.2", "conv2: features.10", "dense1: fc"]


def test_a_file_of_weights_is_read_as_people_count(tmp_path: Path) -> None:
    """Files come sorted by name: layer 10 before layer 2."""
    tensors = state("2", "10", "11", biases=True) | {"3.threshold": torch.tensor(2.0)}
    save_file(tensors, tmp_path / "w.safetensors")
    run = import_network(tmp_path / "w.safetensors", model=MODEL, pools="max")
    assert run.imported is not None
    assert run.imported["notes"][:3] == ["conv1: 2", "conv2: 10", "dense1: 11"]
    found = run.network.blocks[0].synapse.weight.detach()
    torch.testing.assert_close(found.flatten(), tensors["2.weight"].flatten() / 2)
    assert any("its threshold of 2 is 1 here" in note for note in run.imported["notes"])


@pytest.mark.parametrize("names", [("bn1", "bn2"), ("1", "3")])
def test_batch_norms_of_files_are_folded(names: tuple[str, str]) -> None:
    """Right behind a convolution, or of its number."""
    convs = ("conv1", "conv2") if names[0] == "bn1" else ("0", "2")
    tensors = state(*convs, "9" if convs[0] == "0" else "fc")
    for name in names:
        values = {"weight": [1, 2, 3], "bias": [0, 1, 0], "running_mean": [0, 0, 1], "running_var": [1, 1, 4]}
        tensors |= {f"{name}.{key}": torch.tensor(value).float() for key, value in values.items()}
        tensors[f"{name}.num_batches_tracked"] = torch.tensor(3)
    found = taken(dict(sorted(tensors.items())), natural=True)
    gain = np.array([1, 2, 3]) / np.sqrt(np.array([1, 1, 4]) + 1e-5)
    expected = tensors[f"{convs[1]}.weight"].double().numpy() * gain[:, None, None, None]
    np.testing.assert_allclose(found.tensors["conv2"].weight, expected)
    np.testing.assert_allclose(found.tensors["conv2"].bias, [0, 1, -gain[2]])


def test_what_pools_did_is_asked() -> None:
    """Means make the weights behind them smaller; maxima are pools that spike."""
    whole, means = (taken(state("a", "b", "c"), pools=pools) for pools in ("sum", "average"))
    np.testing.assert_allclose(means.tensors["conv2"].weight, whole.tensors["conv2"].weight / 4)
    np.testing.assert_array_equal(means.tensors["dense1"].weight, whole.tensors["dense1"].weight)
    assert taken(state("a", "b", "c"), pools="max").maxima == ("pool1",)
    with pytest.raises(ImportedError, match=r"pool1: takes the largest, and pools of speck2e sum"):
        import_network(state("a", "b", "c"), model=MODEL | {"readout": "count"}, pools="max", profile="speck2e")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"c.weight": None}, r"its weights are not those of the model, which has conv1 \[3, 1, 3, 3\], "),
        ({"c.weight": torch.zeros(4, 13)}, r"its weights are not those of the model.*c \[4, 13\]"),
        ({"c.weight": torch.full((4, 12), torch.nan)}, r"c\.weight: holds values that are no numbers"),
        ({"c.bias": torch.ones(5)}, r"c\.bias has the shape \(5,\), not \(4,\)"),
        ({"c.weight_g": torch.ones(4)}, r"c\.weight_g: is none of the tensors that are read"),
        ({"d.beta": torch.tensor(0.9)}, r"d: beta is 0\.9, and the model's neurons have voltage_decay 0: set it to"),
        ({"d.threshold": torch.ones(4)}, r"d: one threshold above 0 behind weights is read"),
        ({"n.running_mean": torch.ones(7), "n.running_var": torch.ones(7)}, r"n: a batch norm of 7 channels, and no"),
        ({"r.recurrent.weight": torch.ones(4, 4)}, r"has recurrent weights for 1 layers, and the model 0"),
    ],
)
def test_tensors_that_are_none_of_the_model_are_refused(change: dict[str, Any], message: str) -> None:
    tensors = {name: value for name, value in (state("a", "b", "c") | change).items() if value is not None}
    with pytest.raises(ImportedError, match=message):
        taken(tensors)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ImportedError, match=r"w\.safetensors: is not a whole safetensors file"):
        import_network(tmp_path / "w.safetensors", model=MODEL)
    (tmp_path / "w.pt").write_bytes(b"PK")
    with pytest.raises(ImportedError, match=r"w\.pt: such files hold pickles.*safetensors\.torch\.save_file"):
        import_network(tmp_path / "w.pt", model=MODEL)
    with pytest.raises(ImportedError, match=r"state dict: tensors alone do not say"):
        import_network(state("a", "b", "c"))
    with pytest.raises(ImportedError, match=r"nosuch\.safetensors: cannot be read"):
        import_network(tmp_path / "nosuch.safetensors", model=MODEL)


# ------------------------------------------------------------------------------------------------ runs


def digits() -> tuple[Any, Any]:
    """Some of scikit-learn's digits, 8 x 8 pixels with 0..15, shown in every time step."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.minimum(found.images, 15).astype(np.int64)[:, None]
    parts = {"train": slice(0, 1500), "test": slice(1500, None)}
    train_set, test_set = (
        from_images(images[part], found.target[part], classes=10, name="digits", split=name)
        for name, part in parts.items()
    )
    return train_set, test_set


def small_digits_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 5, 4), Leaky(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 10))


def test_a_run_is_evaluated_exported_and_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the file to the command lines, as a user goes; the run says where it is from."""
    network, file = small_digits_network(), tmp_path / "w.safetensors"
    save_file(network.state_dict(), file)
    model = tmp_path / "m.toml"
    model.write_text(
        'name = "m"\ninput = [2, 34, 34]\n[[layers]]\ntype = "conv"\nchannels = 4\nkernel = 5\nstride = 4\n'
        '[[layers]]\ntype = "pool"\nkernel = 2\n[[layers]]\ntype = "dense"\nfeatures = 10\n'
    )
    run, net, on = (str(tmp_path / name) for name in ("run", "a.net", "on"))
    arguments = ["import", str(file), "--model", str(model), "--pools", "average", "--out", run]
    assert main([*arguments, "--json", str(tmp_path / "a.json")]) == 0
    said = capsys.readouterr().out
    assert "conv1: 0" in said
    assert "pool1: is part of the weights of dense1, because pools of loihi2 spike" in said
    assert "biases" not in said
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["imported"]["source"] == str(file)
    assert (content["settings"]["biases"], content["weights"]) == ("kept", 2 * 4 * 25 + 256 * 10)
    loaded = load_run(run)
    assert repr(loaded).startswith(f"<Run {run}: m imported from {file}, ")
    x = frames((2, 34, 34), 0)
    expected = import_network(network, shape=(2, 34, 34)).network
    np.testing.assert_array_equal(ours(loaded.network, x)[1], ours(expected, x)[1])
    assert main(["evaluate", run, "--time-steps", "2", "--samples", "9"]) == 2
    assert "names no data" in capsys.readouterr().err
    data = ["--data", "digits-dvs"]
    assert main(["evaluate", run, "--time-steps", "2", "--samples", "9", *data, "--backend", "fast"]) == 0
    assert main(["export", run, net]) == 0
    assert read(net).info["method"] == "imported"
    assert main(["import", str(file), "--out", run, "--model", str(model)]) == 2
    assert "holds a run already" in capsys.readouterr().err
    # Biases of event data are right at one T only, which the run has to know.
    tuning = ["train", "--from", run, *data, "--epochs", "2", "--samples", "50", "--time-steps", "3"]
    assert main([*tuning, "--out", on]) == 2
    assert "use biases 'none' or 'scaled'" in capsys.readouterr().err
    again = str(tmp_path / "scaled")
    assert main([*arguments[:-1], again, *data, "--time-steps", "3"]) == 0
    tuning[2] = again
    assert main([*tuning, "--out", on]) == 0
    settings = load_run(on).settings
    assert (settings.start, settings.biases, settings.norm) == (again, "scaled", "batch")
    assert [line["phase"] for line in load_run(on).metrics] == ["quantised"] * 2


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of random weights without biases, for event data."""
    network, folder = small_digits_network(), tmp_path_factory.mktemp("imported") / "run"
    network[0].bias = network[4].bias = None
    import_network(network, folder, shape=(2, 34, 34))
    return folder


def some_digits() -> Any:
    return subset(open_dataset("digits-dvs", split="train"), range(60))


def tuning(start: Path, **more: Any) -> Settings:
    values = {"data": "digits-dvs", "time_steps": 3, "epochs": 2, "batch": 20, "augment": "none"}
    return Settings.tune(start, **values | more)


def test_training_starts_from_the_network_of_the_run(imported: Path, tmp_path: Path) -> None:
    """With steps of nothing it ends with it; and with real ones it does not."""
    x = frames((2, 34, 34), 1)
    before = ours(load_run(imported).network, x)[1]
    for rate, same in ((1e-30, True), (1e-2, False)):
        run = train(tuning(imported, fine_tune_rate=rate), None, some_digits(), progress=False)
        assert np.array_equal(ours(run.network, x)[1], before) == same
        assert run.network.weight_scales == load_run(imported).network.weight_scales


def test_rescaled_biases_are_those_of_the_run_whatever_the_time_steps(tmp_path: Path) -> None:
    network = small_digits_network()
    for module in (network[0], network[4]):
        module.bias.data = torch.randint(1, 9, module.bias.shape) / 16
    run = import_network(network, tmp_path / "run", dataset=some_digits(), time_steps=8)
    assert run.settings.biases == "scaled"
    more = {"time_steps": 4, "fine_tune_rate": 1e-30}
    tuned = train(tuning(tmp_path / "run", **more), None, some_digits(), progress=False)
    x = frames((2, 34, 34), 2)
    for steps in (2, 8):
        with run.at(steps), tuned.at(steps):
            np.testing.assert_array_equal(ours(run.network, x)[1], ours(tuned.network, x)[1])


def test_a_training_from_a_run_resumes_to_the_same(imported: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Killed behind the first epoch, it ends as an unbroken one does, the start being gone."""
    from mtt_lava.training.loop import Trainer

    whole = train(tuning(imported), tmp_path / "whole", some_digits(), progress=False)
    saves = []

    def stop(trainer: Trainer) -> None:
        saves.append(trainer.done)
        if trainer.done == 1 and trainer.within is None:
            original(trainer)
            raise KeyboardInterrupt

    original = Trainer.save
    monkeypatch.setattr(Trainer, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        train(tuning(imported), tmp_path / "broken", some_digits(), progress=False)
    monkeypatch.undo()
    ended = train(tuning(imported), tmp_path / "broken", some_digits(), resume=True, progress=False)
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(ended.network.state_dict()[name], value, atol=0, rtol=0)
    assert saves


def test_a_start_that_is_none_or_another_is_refused(imported: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nosuch: not a run folder"):
        Settings.tune(tmp_path / "nosuch", data="digits-dvs")
    with pytest.raises(RunError, match=r"run: has profile loihi2, and speck2e cannot be made of it"):
        Settings.tune(imported, data="digits-dvs", profile="speck2e")
    other = tuning(imported).model_copy(update={"start": str(tmp_path)})
    with pytest.raises(RunError, match=r"not a run folder"):
        train(other, None, some_digits(), progress=False)


def test_what_is_trained_from_is_said_on_the_command_line(imported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["--from", str(imported), "nmnist-3c1fc"], "has its model: leave MODEL and --width out"),
        ([], "no model: name one, as nmnist-3c1fc, or a run to go on from, with --from RUN"),
        (["--from", str(imported), "--profile", "loihi1"], "has profile loihi2, and loihi1 cannot be made of it"),
    ):
        assert main(["train", *arguments, "--data", "digits-dvs", "--out", "nowhere"]) == 2
        assert words in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ ANNs


@pytest.mark.parametrize("profile", ["speck2e", "loihi2"])
def test_rates_are_the_activations_of_the_ann(profile: str) -> None:
    """Of a still image, at many time steps: exactly as much as a staircase can; a reset to zero gives less."""
    torch.manual_seed(2)
    ann = nn.Sequential(nn.Flatten(), nn.Linear(16, 12, bias=False), nn.ReLU(), nn.Linear(12, 3, bias=False))
    images = np.random.default_rng(0).integers(0, 2, (8, 1, 4, 4))
    data = from_images(images, np.arange(8) % 3, classes=3)
    more = {"percentile": 100, "allow_inexact": True}
    run = import_network(ann, dataset=data, profile=profile, time_steps=100, **more)  # type: ignore[arg-type]
    x = torch.from_numpy(images).float()
    given = ann[:3](x).detach()
    level = given.max()
    steps = 400
    spikes, _ = ours(run.network, x.expand(steps, *x.shape))
    rates, wanted = spikes[0].mean(0), given / level
    if profile == "speck2e":
        assert (rates - wanted).abs().max() < 0.02  # weights have 8 bits
    else:
        assert (rates <= wanted + 0.02).all()
        assert (rates - wanted)[wanted > 0.55].min() < -0.1  # 1 / ceil(1 / rate) at best
    assert wanted.max() == 1


def test_a_count_is_shared_out_among_time_steps() -> None:
    """Of a recording, whose charge does not grow with T, biases and all."""
    rng = np.random.default_rng(1)
    events = []
    for _ in range(6):
        found = np.zeros(400, dtype=[("t", "i8"), ("x", "i4"), ("y", "i4"), ("p", "i4")])
        found["t"] = np.sort(rng.integers(0, 10_000, 400))
        found["x"], found["y"] = rng.integers(0, 3, (2, 400))
        events.append(found)
    data = from_events(events, [0, 1, 0, 1, 0, 1], sensor_size=(3, 3, 1), duration=10_000, classes=2)
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 2))
    ann[1].weight.data.abs_()
    ann[1].bias.data = torch.full((8,), 20.0)
    nodes = nodes_of(ann, "s")
    counts = torch.tensor(np.stack([np.histogram2d(e["y"], e["x"], (3, 3), ((0, 3), (0, 3)))[0] for e in events]))
    found = normalised(assemble(nodes, (1, 3, 3), "s", "s"), counts[:, None].float(), 50, 100)
    run = import_network(ann, dataset=data, time_steps=50, percentile=100)
    assert run.settings.biases == "scaled"
    first = run.network.blocks[0].synapse.weight.detach().numpy().reshape(8, 9)
    np.testing.assert_allclose(first, found.tensors["dense1"].weight, rtol=1e-5)
    given = activations(assemble(nodes, (1, 3, 3), "s", "s"), counts[:, None].float())["dense1"]
    np.testing.assert_allclose(first, ann[1].weight.detach().numpy() * 50 / given.max().item(), rtol=1e-5)


@pytest.mark.parametrize(
    ("ann", "options", "message"),
    [
        (linear(nn.ReLU(), nn.Linear(3, 2)), {"percentile": 0}, r"percentile 0 and input scale 1: must be"),
        (linear(nn.ReLU(), nn.Linear(3, 2)), {"input_scale": -1}, r"input scale -1: must be"),
        (linear(Leaky(), nn.Linear(3, 2)), {"ann": True}, r"has neurons that spike: it is no ANN"),
    ],
)
def test_anns_that_cannot_be_converted_are_refused(ann: nn.Module, options: dict[str, Any], message: str) -> None:
    data = from_images(np.ones((4, 1, 1, 4), int), [0, 1, 0, 1], classes=2)
    with pytest.raises(ImportedError, match=message):
        import_network(nn.Sequential(nn.Flatten(), *ann), dataset=data, **options)


def trained_ann(x: torch.Tensor, y: torch.Tensor, biases: bool) -> nn.Sequential:
    """Of pictures or counts (N, C, H, W)."""
    torch.manual_seed(0)
    first = nn.Conv2d(x.shape[1], 8, 3, padding=1, stride=1 if x.shape[-1] < 16 else 4, bias=biases)
    ann = nn.Sequential(
        *(first, nn.ReLU(), nn.AvgPool2d(2), nn.Dropout(0.1)),
        *(nn.Conv2d(8, 16, 3, padding=1, bias=biases), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, 10, bias=biases)),
    )
    optimiser = torch.optim.Adam(ann.parameters(), 5e-3)
    for _ in range(25):
        for chosen in torch.randperm(len(x)).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(ann(x[chosen]), y[chosen]).backward()
            optimiser.step()
    return ann.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("data", "profile"), [("digits", "loihi2"), ("digits", "speck2e"), ("digits-dvs", "speck2e")])
def test_an_ann_of_digits_spikes_and_learns_few_time_steps(data: str, profile: str, tmp_path: Path) -> None:
    """At many time steps nearly as right as the ANN, at few not; MTT mends that. With -s it prints the numbers.

    An ANN of event data saw all of a recording at once, as the network does at T = 1 only: what comes first makes
    spikes that what comes later does not take back.
    """
    if data == "digits":
        train_set, test_set = digits()
        x, held = (torch.from_numpy(each.events).float() / 16 for each in (train_set, test_set))
        scale = 1 / 16
    else:
        train_set, test_set = (open_dataset(data, split=split) for split in ("train", "test"))
        x, held = (torch.from_numpy(counts(each, 1)[0][..., 0]).float() for each in (train_set, test_set))
        scale = 1.0
    ann = trained_ann(x, torch.from_numpy(train_set.labels), biases=profile == "loihi2")
    with torch.no_grad():
        right = float((ann(held).argmax(1).numpy() == test_set.labels).mean())
    run = import_network(
        ann, tmp_path / "run", dataset=train_set, profile=profile, time_steps=32, input_scale=scale, percentile=99.9
    )
    at = [1, 2, 4, 64]
    before = [point.accuracy for point in evaluate(run, at, test_set, progress=False)]
    tuning = {"time_steps": 8, "method": "mtt", "epochs": 6, "augment": "none", "seed": 0}
    tuned = train(Settings.tune(tmp_path / "run", data=data, **tuning), None, train_set, progress=False)
    after = [point.accuracy for point in evaluate(tuned, at, test_set, progress=False)]
    texts = [" ".join(f"{100 * accuracy:.1f}" for accuracy in found) for found in (before, after)]
    print(f"{data}, {profile}: ANN {100 * right:.1f} %; T = {at}: converted {texts[0]}, then trained by MTT {texts[1]}")
    assert right > 0.7
    assert after[1] > before[1] + 0.2
    assert after[2] > 0.7
    like, unlike = (-1, 0) if data == "digits" else (0, -1)
    assert abs(before[like] - right) < 0.05
    assert before[unlike] < 0.5


# ------------------------------------------------------------------------------------------------ NIR


def with_classes(network: Network) -> Network:
    """With two counted outputs behind it: the neurons of a voltage readout never spike in a run."""
    (*_, last) = network
    flat = (int(np.prod(last.shape)),)
    weight = np.random.default_rng(int(np.prod(flat))).choice([-2, 4, 6], (2, *flat))
    layers: list[Layer] = [Flatten(in_shape=last.shape, shape=flat, name="f")] if len(last.shape) == 3 else []
    layers.append(Dense(in_shape=flat, shape=(2,), weight=weight, neuron=Neuron(7), name="classes"))
    return replace(network, layers=(*network.layers, *layers), readout="count")


@pytest.mark.parametrize("count", [25, pytest.param(300, marks=pytest.mark.slow)])
def test_a_nir_file_of_ours_is_a_run_that_fires_the_same(tmp_path_factory: pytest.TempPathFactory, count: int) -> None:
    """Integers stay what they are; what is not trained here is refused by name."""
    seen: Counter[str] = Counter()
    path = tmp_path_factory.mktemp("nir") / "a.nir"

    @settings(max_examples=count, deadline=None, phases=[Phase.generate])  # to make them smaller takes minutes
    @given(clocked("nir").flatmap(lambda network: spike_inputs(network).map(lambda x: (network, x))))
    def run(case: tuple[Network, np.ndarray]) -> None:
        network, inputs = case
        network = with_classes(network)
        try:
            nir.write(network, path)
        except NetworkError:
            return
        try:
            made = import_network(path)
        except (ImportedError, RunError, ModelError) as error:
            seen["refused"] += 1
            refusals.add(str(error).removeprefix(str(path)))
            return
        if any(np.ndim(layer.neuron.threshold) for layer in network.spiking):  # type: ignore[union-attr]
            seen["rounded"] += 1  # a threshold for each: weights are divided by it
            return
        expected = simulate(network, inputs, backend="fast")
        found = simulate(to_network(made), inputs, backend="fast")
        np.testing.assert_array_equal(found.spikes, expected.spikes.reshape(found.spikes.shape))
        seen["taken"] += 1
        seen["spikes"] += int(found.spikes.sum())

    refusals: set[str] = set()
    run()
    # Few have only what models have.
    assert seen["taken"] > count // 25, (seen, refusals)
    assert count < 100 or seen["spikes"] > 0


@pytest.mark.parametrize("profile", ["loihi2", "speck2e"])
def test_a_run_comes_back_from_nir_as_it_was(profile: str, tmp_path: Path) -> None:
    """With the model's pools, the readout's weights, and its profile."""
    settings = Settings.make("nmnist-3c1fc", data="digits-dvs", profile=profile, biases="none", norm="batch")
    network = settings.build()
    network.fold_norms(False)
    phases.quantise(settings, network)
    run = Run(settings, network)
    export_nir(run, tmp_path / "a.nir")
    back = import_network(tmp_path / "a.nir", tmp_path / "run")
    assert back.settings.model.layers == settings.model.layers
    assert (back.settings.profile, back.settings.model.readout) == (profile, settings.model.readout)
    for one, other in zip(to_network(back), to_network(run), strict=True):
        assert (one.name, one.inputs, one.shape) == (other.name, other.inputs, other.shape)
        np.testing.assert_array_equal(one.weight, other.weight)
        if one.neuron is not None:
            assert one.neuron.threshold == other.neuron.threshold  # type: ignore[union-attr]
    with pytest.raises(ImportedError, match=r"a\.nir: says itself what --dt and --reset would"):
        import_network(tmp_path / "a.nir", dt=1e-4)


FLOATS = LINEAR | {"weight": np.array([[0.75, 0.5], [-0.25, 1.0]], np.float32)}


def test_floating_point_of_others_becomes_a_run(tmp_path: Path) -> None:
    """By forward Euler: the weights times what a time step adds, over the threshold; r = 1 / dt is a factor of 1."""
    path = foreign(tmp_path / "a.nir", {"fc": FLOATS, "lif": LIF | {"v_threshold": np.full(2, 0.5)}})
    with pytest.raises(ImportedError, match=r"a\.nir: node 'lif': has time constants, .*give --dt SECONDS"):
        import_network(path)
    run = import_network(path, tmp_path / "run", dt=1e-4)
    lost = 1e-4 / float(LIF["tau"][0])
    gain = float(LIF["r"][0]) * lost
    weight = run.network.blocks[0].synapse.weight.detach().flatten(1).numpy()
    np.testing.assert_allclose(weight, FLOATS["weight"] * gain / 0.5, rtol=1e-6)
    assert run.settings.model.neuron.voltage_decay == pytest.approx(lost)
    assert run.settings.model.names == ["fc"]
    assert load_run(tmp_path / "run").imported["source"] == str(path)  # type: ignore[index]
    assert any("does not say all that its program does" in note for note in run.imported["notes"])  # type: ignore[index]
    soft = foreign(tmp_path / "b.nir", {"fc": FLOATS, "a": without(IF, "v_reset"), "on": FLOATS, "i": INTEGRATES})
    with pytest.raises(ImportedError, match=r"b\.nir: node 'a': has no v_reset: give --reset subtract"):
        import_network(soft)
    assert import_network(soft, reset="zero").settings.model.readout == "voltage"


INTEGRATES = {"type": "I", "r": np.ones(2)}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"fc": FLOATS, "x": {"type": "LI", "r": np.ones(2)}}, r"node 'x': is a LI, which is not read; these are: In"),
        ({"fc": FLOATS, "x": IF | {"v_reset": np.ones(2)}}, r"node 'x': v_reset 1: only 0 is read"),
        ({"fc": FLOATS, "x": LIF | {"v_leak": np.ones(2)}}, r"node 'x': v_leak 1: only 0 is read"),
        ({"fc": FLOATS, "x": LIF | {"tau": np.array([1e-3, 2e-3])}}, r"node 'x': tau differs from neuron to neuron"),
        ({"fc": FLOATS, "x": LIF | {"tau": np.full(2, 1e-5)}}, r"node 'x': tau is 0\.1 time steps of 0\.0001 s"),
        ({"fc": FLOATS, "x": IF, "y": IF}, r"y: integrate|y: "),
        ({"fc": FLOATS | {"weight": np.full((2, 2), np.nan)}, "x": IF}, r"node 'fc': holds values that are no numbers"),
        ({"fc": without(FLOATS, "weight"), "x": IF}, r"node 'fc': its fields are not those of NIR"),
        ({"fc": FLOATS, "more": FLOATS, "x": IF}, r"more: comes behind fc, which has weights and no neurons"),
    ],
)
def test_nodes_of_others_are_refused_by_name_and_reason(
    nodes: dict[str, dict[str, Any]], message: str, tmp_path: Path
) -> None:
    path = foreign(tmp_path / "a.nir", nodes)
    if message == r"y: integrate|y: ":
        # Neurons behind neurons: a weight of 1 for each, as it is said.
        run = import_network(path, dt=1e-4)
        assert any("y: stands behind no weights" in note for note in run.imported["notes"])  # type: ignore[index]
        return
    with pytest.raises(ImportedError, match=rf"a\.nir: {message}"):
        import_network(path, dt=1e-4)


def test_the_command_line_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(foreign(tmp_path / "a.nir", {"fc": FLOATS, "x": IF}))
    run, net = str(tmp_path / "run"), str(tmp_path / "a.net")
    for arguments, words in (
        ([path], "name one thing to write: OUT.net, a NetX file, or --out RUN"),
        ([path, net, "--out", run], "name one thing to write"),
        ([path, net, "--profile", "loihi1"], "--profile is for run folders: name one with --out RUN"),
        ([path, "--out", run, "--bits", "8"], "--bits is for OUT.net"),
        ([path, "--out", run, "--model", "nmnist-3c1fc"], "model and pools are for tensors"),
        ([path, net], "0.75, not integers"),
    ):
        assert main(["import", *arguments]) == 2
        assert words in capsys.readouterr().err
    assert main(["import", path, "--out", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["imported"]["source"] == path


def test_what_feeds_itself_or_is_summed_shares_one_threshold(tmp_path: Path) -> None:
    """Integers with a threshold between two: all weights are in units of the lower one, or none."""
    half = IF | {"v_threshold": np.full(2, 5.5)}
    edges = [("input", "fc"), ("fc", "x"), ("x", "back"), ("back", "x"), ("x", "on"), ("on", "y"), ("y", "output")]
    nodes = {"fc": LINEAR, "x": half, "back": LINEAR, "on": LINEAR, "y": IF}
    run = import_network(foreign(tmp_path / "a.nir", nodes, edges))
    one, _ = to_network(run).spiking
    np.testing.assert_array_equal(one.weight, LINEAR["weight"])
    np.testing.assert_array_equal(one.recurrent, LINEAR["weight"])  # type: ignore[union-attr]
    assert one.neuron.threshold == 5  # type: ignore[union-attr]
    edges = [("input", "a"), ("input", "b"), ("a", "x"), ("b", "x"), ("x", "on"), ("on", "y"), ("y", "output")]
    nodes = {"a": LINEAR, "b": FLOATS, "x": half, "on": LINEAR, "y": IF}
    found = from_nir(foreign(tmp_path / "b.nir", nodes, edges))
    for name, fields in (("a", LINEAR), ("b", FLOATS)):
        np.testing.assert_allclose(found.tensors[name].weight, fields["weight"] / 5.5)
        assert found.tensors[name].whole is None
