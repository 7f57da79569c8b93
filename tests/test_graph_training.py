"""Networks with shortcuts, from the model to the integers they run in."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_model import quantised

import hw_profiles
from hw_profiles import check, load
from mtt_lava import Run, Settings, SpikingNetwork, evaluate, export, kernels, load_model, prove, to_network, train
from mtt_lava import neuron as neuron_module
from mtt_lava.data import frames, from_images, open_dataset, subset
from mtt_lava.evaluation import evaluate_events, run_network, table, to_events
from mtt_lava.model import ModelError
from mtt_lava.neuron import Neuron
from mtt_lava.run import RunError
from mtt_lava.scoring import score
from netx_export.event.backend import simulate as simulate_events
from netx_export.fast.backend import simulate
from netx_export.network import Add, Conv, Dense
from netx_export.simulation import Simulation
from netx_export.simulation import simulate as simulate_file

NMNIST = Path(__file__).parents[2] / "shared/data/nmnist_small"
EVERYTHING = ("spikes", "u", "v")
CIFAR = Path(__file__).parents[2] / "shared/data/cifar10_subset"


def conv(name: str, channels: int = 2, **more: Any) -> dict[str, Any]:
    return {"type": "conv", "name": name, "channels": channels, "kernel": 3, "padding": 1, **more}


def model(*layers: dict[str, Any], **more: Any) -> dict[str, Any]:
    last = {"type": "dense", "features": 3}
    return {"name": "graph", "input": [2, 6, 6], "layers": [*layers, last], "readout": "voltage", **more}


def add(name: str, *inputs: str, **more: Any) -> dict[str, Any]:
    return {"type": "add", "name": name, "inputs": list(inputs), **more}


RESIDUAL = (
    conv("stem"),
    conv("a", block="one"),
    conv("b", neuron=False, block="one"),
    add("sum", "b", "stem", block="one"),
)
RECURRENT = {
    "name": "recurrent",
    "input": [2, 8, 8],
    "layers": [
        {"type": "pool", "kernel": 2},
        {"type": "pool", "kernel": [1, 2]},
        {"type": "dense", "features": 12, "recurrent": True},
        {"type": "dense", "features": 20},
        {"type": "average", "features": 10},
    ],
}
"""Pools of the input, a layer that feeds itself, two outputs a class."""
SPIKES = (conv("stem"), conv("a"), conv("b"), add("sum", "b", "stem", neuron=False), conv("c"))


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    """Residual blocks, some of three ways, of strides, with identity or trained shortcuts, from any layer before."""
    channels, size, layers = 2, 6, [conv("l0")]
    shapes = {"l0": (2, 6)}
    for number in range(draw(st.integers(1, 3))):
        source = f"l{number}"
        stride = draw(st.sampled_from([1, 1, 2])) if size > 2 else 1
        wide = draw(st.sampled_from([channels, channels + 1]))
        block = draw(st.sampled_from([None, f"b{number}"]))
        size = -(-size // stride)
        layers.append(conv(f"a{number}", wide, input=source, stride=stride, block=block))
        layers.append(conv(f"b{number}", wide, neuron=False, block=block))
        ways = [f"b{number}"]
        for way, start in enumerate(draw(st.sets(st.sampled_from(sorted(shapes)), min_size=1, max_size=2))):
            before = shapes[start]
            if before == (wide, size) and draw(st.booleans()):
                ways.append(start)
                continue
            step = -(-before[1] // size)
            name = f"s{number}.{way}"
            layers.append({
                "type": "conv", "name": name, "input": start, "channels": wide, "kernel": 1, "stride": step,
                "neuron": False, "block": block,
            })  # fmt: skip
            if -(-before[1] // step) != size:
                layers.pop()
                continue
            ways.append(name)
        if len(ways) == 1:
            layers.append({"type": "conv", "name": f"n{number}", "input": source, "channels": wide, "kernel": 1,
                           "stride": stride, "neuron": False, "block": block})  # fmt: skip
            ways.append(f"n{number}")
        ways = draw(st.permutations(ways))
        layers.append(add(f"l{number + 1}", *ways, block=block))
        shapes[f"l{number + 1}"] = (wide, size)
        channels = wide
    voltage, current = draw(st.sampled_from([0.0, 0.5])), draw(st.sampled_from([1.0, 1.0, 0.5]))
    decays = {"voltage_decay": voltage, "current_decay": current}
    return model(*layers, readout=draw(st.sampled_from(["voltage", "count"])), neuron=decays)


def states(run: Run, inputs: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Readout of quantised SLAYER, and spikes, u and v of every layer that spikes, in the chip's units.

    Without u where there are biases, which SLAYER adds to it and the chip to v.
    """
    found: list[list[torch.Tensor]] = []
    plain = neuron_module._fired

    def fired(current: torch.Tensor, *constants: Any) -> tuple[torch.Tensor, torch.Tensor]:
        spikes, voltage = plain(current, *constants)
        found.append([x.movedim(0, -1) for x in (spikes, current * 4096, voltage * (spikes == 0) * 4096)])
        return spikes, voltage

    with torch.no_grad(), run.at(inputs.shape[-1]), pytest.MonkeyPatch.context() as patch:
        compiled, _ = run_network(run, torch.from_numpy(inputs))
        patch.setattr(neuron_module, "_fired", fired)
        patch.setattr(kernels, "ready", lambda _: False)
        readout, _ = run_network(run, torch.from_numpy(inputs))
    assert torch.equal(readout, compiled)
    named = zip(run.network.spiking_names, found, strict=True)
    records = {f"{what}.{name}": x.numpy() for name, each in named for what, x in zip(EVERYTHING, each, strict=True)}
    if run.network.biases:
        records = {name: x for name, x in records.items() if not name.startswith("u.")}
    unit = 4096 if run.settings.model.readout == "voltage" else 1
    return (readout.double() * unit).round().long().numpy(), records


def assert_alike(run: Run, inputs: np.ndarray, result: Simulation) -> int:
    """Spikes, u and v of every layer, and the readout, are quantised SLAYER's; returns how many spikes there were.

    (u and v of a voltage readout, whose neurons never spike, are the readout.)
    """
    readout, wanted = states(run, inputs)
    for name, array in wanted.items():
        np.testing.assert_array_equal(result.record[name], array, err_msg=name)
    np.testing.assert_array_equal(result.readout, readout)
    return sum(int(array.sum()) for name, array in wanted.items() if name.startswith("spikes."))


def assert_exact(run: Run, inputs: np.ndarray) -> int:
    """The same of the integers that are exported for this number of time steps."""
    network = to_network(run, inputs.shape[-1])
    return assert_alike(run, inputs, simulate(network, inputs, record=EVERYTHING, progress=False, device="cpu"))


@settings(max_examples=60, deadline=None)
@given(models(), st.booleans(), st.integers(0, 100))
def test_shortcuts_compute_what_the_integers_do(content: dict[str, Any], biases: bool, seed: int) -> None:
    """SLAYER's blocks with shortcuts, quantised, and the exported graph agree in every spike and in the readout."""
    run = quantised(content, biases, seed)
    inputs = (np.random.default_rng(seed).random((2, 2, 6, 6, 5)) < 0.5).astype(np.int32)
    assert_exact(run, inputs)


def test_the_file_of_a_residual_network_fires_the_same(tmp_path: Path) -> None:
    """What is exported is a graph that a file holds; its spikes, on `fast`, are the trained network's."""
    values = {"data": "digits-dvs", "epochs": 2, "time_steps": 4, "samples": 60, "allow_unfit": True}
    content = model(*RESIDUAL, {"type": "pool", "kernel": 2}) | {"input": list(load_model("nmnist-3c1fc").input)}
    content["layers"][-1]["features"] = 10
    run = train(Settings.make(content, **values), progress=False)
    network, _ = export(run, tmp_path / "a.net")
    assert not network.is_chain
    (proof,) = prove(run, [3], "fast", samples=5, progress=False)
    assert proof.bits > 0
    assert not any(proof.mismatches.values())


def test_identity_shortcuts_are_weights_that_fit() -> None:
    """The shortcut of spikes is written as 1 times the common scale, small enough for eight bits to hold it."""
    run = quantised(model(*RESIDUAL), False, 3)
    layers = {layer.name: layer for layer in to_network(run)}
    identity, main, total = layers["sum.identity2"], layers["b"], layers["sum"]
    assert isinstance(identity, Conv)
    assert isinstance(total, Add)
    assert total.inputs == ("b", "sum.identity2")
    assert identity.weight_scale == main.weight_scale
    assert main.weight_scale is not None
    assert identity.weight is not None
    wanted = 2 * round(main.weight_scale / 2)
    assert [identity.weight[c, 0, 0, 0] for c in range(2)] == [wanted, wanted]
    assert 0 < wanted <= 254


def test_time_steps_stand_on_edges_between_blocks() -> None:
    """Layers of a block share their time steps; the inputs of an add are aligned whatever ran before."""
    network = SpikingNetwork(load_model(model(*RESIDUAL)))
    assert network.stages == [0, 1, 1, 1, 2]
    x = (torch.rand(2, 2, 6, 6, 4) < 0.5).float()
    for time_steps in ((4, 2, 3), (1, 4, 1), (3, 3, 3)):
        spikes: list[torch.Tensor] = []
        network(x, time_steps, spikes)
        assert [each.shape[-1] for each in spikes] == [time_steps[s] for s in (0, 1, 1)]


CONFIGURATIONS = st.lists(st.lists(st.integers(1, 6), min_size=8, max_size=8), min_size=1, max_size=4)


def runs_apart(network: SpikingNetwork, x: torch.Tensor, configurations: list[list[int]], each: bool) -> list[Any]:
    """Readout and spikes of every configuration by itself."""
    found = []
    for time_steps in configurations:
        spikes: list[torch.Tensor] = []
        found.append([network(x, time_steps, spikes, each), *spikes])
    return found


@settings(max_examples=40, deadline=None)
@given(st.one_of(models(), st.just(RECURRENT)), CONFIGURATIONS, st.booleans(), st.integers(0, 100))
def test_configurations_in_one_pass_are_those_apart(
    content: dict[str, Any], configurations: list[list[int]], compiled: bool, seed: int
) -> None:
    """On integers, shortcuts, feedback and time steps of every stage included: the same spikes and readouts."""
    run = quantised(content, False, seed)
    generator = np.random.default_rng(seed)
    x = torch.from_numpy((generator.random((2, *content["input"], 5)) < 0.5).astype(np.float32))
    configurations = [each[: run.network.n_stages] for each in configurations]
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(kernels, "ready", lambda _: False)
        for each in (False, True):
            wanted = runs_apart(run.network, x, configurations, each)
            spikes: list[list[torch.Tensor]] = [[] for _ in configurations]
            answers = run.network.several(x, configurations, spikes, each)
            for readout, sent, expected in zip(answers, spikes, wanted, strict=True):
                for one, other in zip([readout, *sent], expected, strict=True):
                    assert torch.equal(one, other)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("norm", ["batch", "scale", None])
def test_in_one_pass_norms_see_every_configuration_by_itself(
    norm: str | None, reset: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training, gradients and what norms remember are those of one configuration after the other."""
    if not compiled:
        monkeypatch.setattr(kernels, "ready", lambda _: False)
    configurations = [[4, 2, 3], [1, 3, 1], [3, 3, 3]]
    x = (torch.rand(4, 2, 6, 6, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    found = []
    for packed in (False, True):
        torch.manual_seed(0)
        network = SpikingNetwork(load_model(model(*RESIDUAL)), norm=norm, reset=reset).train()
        packs = [configurations] if packed else [[each] for each in configurations]
        for pack in packs:
            torch.stack([answer.square().sum() for answer in network.several(x, pack)]).sum().backward()
        gradients = {name: p.grad for name, p in network.named_parameters()}
        found.append((gradients, dict(network.named_buffers())))
    (apart, remembered), (together, also) = found
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in apart.values())
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(also, remembered)


def test_charge_is_counted_along_every_way() -> None:
    """Copies of frames multiply charge, means divide it; where ways meet, their mean."""
    layers = (conv("stem"), conv("a"), conv("b"), add("sum", "b", "stem", neuron=False, block="end"), conv("c"))
    network = SpikingNetwork(load_model(model(*layers)))
    assert network.stages == [0, 1, 2, 3, 4, 5]
    assert network.copies([2, 4, 2, 2, 2, 2], 1.0) == [1, 2, 2, 1.5, 1.5, 1.5]
    averaged = SpikingNetwork(load_model(model(*layers)), form="mean")
    assert averaged.copies([2, 4, 2, 2, 2, 2], 1.0) == [1, 2, 1, 1, 1, 1]


def test_blocks_by_default() -> None:
    """Every conv and dense layer is a block; what an add sums without neurons is in that of the add."""
    plain = [{k: v for k, v in layer.items() if k != "block"} for layer in RESIDUAL]
    assert load_model(model(*plain)).stages() == [0, 1, 2, 2, 3]
    assert load_model(model({"type": "pool", "kernel": 2}, *SPIKES)).stages() == [0, 0, 1, 2, 2, 3, 4]


WRONG: list[tuple[list[dict[str, Any]], str]] = [
    ([conv("a"), conv("a")], r"layer 2 \(conv a\): another layer is called a"),
    ([conv("a", input="stem")], r"its input 'stem' is no layer before it"),
    ([conv("stem"), conv("b", input="sten")], r"its input 'sten' is no layer before it \(did you mean stem\?\)"),
    ([conv("a", input="b"), conv("b")], r"its input 'b' is no layer before it"),
    ([conv("a"), conv("b", neuron=False), conv("c")], r"its input b has no neurons: only an add takes its current"),
    ([conv("a"), add("s", "a", "a")], r"names an input twice"),
    ([conv("a"), add("s", "a")], r"inputs"),
    ([conv("a"), conv("b", 3, neuron=False), add("s", "a", "b")], r"differ in shape: a \[2, 6, 6\], b \[3, 6, 6\]"),
    ([conv("a"), conv("b"), add("s", "a", "b")], r"all its inputs are spikes"),
    ([conv("a"), conv("b", neuron=False), add("s", "a", "b", neuron=False)], r"it sums spikes, but b has none"),
    ([conv("a"), conv("b", input="input")], r"layer 1 \(a\) feeds no other"),
    ([conv("a/b")], "name"),
]


@pytest.mark.parametrize(("layers", "message"), WRONG)
def test_what_cannot_be_is_refused_in_one_line(layers: list[dict[str, Any]], message: str) -> None:
    """The layer, the value, and what to do."""
    with pytest.raises(ModelError, match=message) as error:
        load_model(model(*layers))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_width_scales_all_but_the_classes() -> None:
    """Half as wide has half the channels everywhere, so that shortcuts still fit."""
    whole, half = load_model("resnet18"), load_model("resnet18").scaled(0.5)
    assert [shape[0] for shape in half.shapes()[1:-1]] == [shape[0] // 2 for shape in whole.shapes()[1:-1]]
    assert half.shapes()[-1] == whole.shapes()[-1]
    assert Settings.make("resnet18", data="digits-dvs", width=0.5, allow_unfit=True).model == half
    with pytest.raises(ModelError, match="width is 0"):
        whole.scaled(0)


@pytest.mark.parametrize("spikes", [False, True], ids=["currents", "spikes"])
def test_training_learns_through_shortcuts(spikes: bool) -> None:
    """A residual network of either kind learns bars: Loihi's sum of currents, Speck's sum of spikes."""
    from test_training import bars

    data = bars(120)
    layers = SPIKES if spikes else RESIDUAL
    content = model(*layers) | {"input": [2, 8, 8]}
    content["layers"][-1]["features"] = len(data.classes)
    profile = "speck2e" if spikes else "loihi2"
    values = {"data": "bars", "epochs": 12, "time_steps": 4, "profile": profile, "allow_unfit": True}
    run = train(Settings.make(content, **values), dataset=data, progress=False)
    test = bars(40, "test")
    counts, labels = frames(test, 4)
    readout, _ = run_network(run, torch.from_numpy(counts))
    assert (readout.argmax(1).numpy() == labels).mean() > 0.9


@pytest.fixture(scope="module")
def trained() -> Run:
    """Two residual blocks, trained on N-MNIST for a few epochs."""
    if not NMNIST.exists():
        pytest.skip("no N-MNIST recordings here (../shared/data/nmnist_small)")
    values = {"data": "nmnist", "root": str(NMNIST), "epochs": 4, "samples": 200, "allow_unfit": True}
    return train(Settings.make("nmnist-res2", **values), progress=False)


@pytest.mark.parametrize("time_steps", [4, 10, 16])
def test_two_blocks_on_n_mnist_are_exact(trained: Run, time_steps: int) -> None:
    """20 digits: no spike and no readout differs between quantised SLAYER and the integers."""
    counts, _ = frames(open_dataset("nmnist", split="test", root=NMNIST), time_steps)
    assert assert_exact(trained, np.minimum(counts[:20], trained.settings.input_max or counts.max())) > 1000


@pytest.mark.lava
@pytest.mark.parametrize("time_steps", [4, *(pytest.param(t, marks=pytest.mark.slow) for t in (10, 16))])
def test_two_blocks_on_lava_are_exact(trained: Run, tmp_path: Path, time_steps: int) -> None:
    """20 digits from the file on Lava's own processes: no spike, u, v or readout differs from quantised SLAYER's."""
    counts, _ = frames(open_dataset("nmnist", split="test", root=NMNIST), time_steps)
    inputs = np.minimum(counts[:20], trained.settings.input_max or counts.max())
    export(trained, tmp_path / "a.net", time_steps=time_steps)
    result = simulate_file(tmp_path / "a.net", inputs, "lava", record=EVERYTHING, progress=False)
    assert assert_alike(trained, inputs, result) > 1000


@pytest.mark.parametrize(("model", "profile"), [("nmnist-res2", "loihi2"), ("nmnist-sum2", "speck2e")])
def test_residual_runs_are_evaluated(model: str, profile: str) -> None:
    """Spikes of all layers, operations of all that have weights: a sum of currents has those that feed it."""
    values = {"data": "digits-dvs", "epochs": 2, "samples": 50, "time_steps": 4, "allow_unfit": True}
    run = train(Settings.make(model, profile=profile, **values), progress=False)
    data = subset(open_dataset("digits-dvs", split="test"), range(20))
    points = evaluate(run, [2, 4], data, event_driven=profile == "speck2e", progress=False)
    for point in points:
        network, activity = to_network(run, point.time_steps), point.activity
        assert activity is not None
        layers = [layer.name for layer in network.spiking]
        operations = dict(zip(layers, hw_profiles.synaptic_operations(network, activity), strict=True))
        assert point.synops == {name: each for name, each in operations.items() if not name.startswith("pool")}
        assert list(point.spikes) == run.network.spiking_names
    assert "synops" in table(points)


@pytest.mark.lava
@pytest.mark.parametrize("backend", ["fast", pytest.param("lava", marks=pytest.mark.slow)])
def test_a_narrow_resnet18_is_exact(tmp_path: Path, backend: str) -> None:
    """One CIFAR-10 image at T = 4 through eight residual blocks: no spike, u or v differs from quantised SLAYER's."""
    if not CIFAR.exists():
        pytest.skip("no CIFAR-10 images here (../shared/data/cifar10_subset)")
    with np.load(CIFAR / "test1000.npz") as file:
        images, labels = file["x"][:32].transpose(0, 3, 1, 2) >> 4, file["y"][:32]
    data = from_images(images, labels, classes=10)
    values = {"data": "images", "epochs": 2, "batch": 8, "time_steps": 4, "width": 1 / 16, "allow_unfit": True}
    run = train(Settings.make("resnet18", **values), dataset=data, progress=False)
    inputs = np.repeat(images[:1, ..., None].astype(np.int32), 4, axis=-1)
    export(run, tmp_path / "a.net")
    result = simulate_file(tmp_path / "a.net", inputs, backend, record=EVERYTHING, progress=False)
    assert assert_alike(run, inputs, result) > 100


# ------------------------------------------------------------------------------------------------ the paper's networks


def convs(*channels: int, kernel: int = 9) -> int:
    """Weights of convolutions of 3 x 3, one behind the other."""
    return sum(kernel * a * b for a, b in pairwise(channels))


def residual(before: int, channels: int, blocks: int) -> int:
    """Weights of residual blocks; the first has a 1 x 1 convolution where channels change."""
    first = convs(before, channels, channels) + (before * channels if before != channels else 0)
    return first + (blocks - 1) * convs(channels, channels, channels)


RESNET18 = residual(64, 64, 2) + residual(64, 128, 2) + residual(128, 256, 2) + residual(256, 512, 2) + 512 * 10
HAND = {
    "nmnist-3c1fc": convs(2, 8, 16, 16) + 256 * 10,
    "dvs-gesture": convs(2, 8, 16, 32, 32) + 512 * 64 + 64 * 11,
    "vgg9": convs(2, 64, 128, 256, 256, 512, 512, 512, 512) + 512 * 2 * 2 * 10,
    "vggsnn": convs(2, 64, 128, 256, 256, 512, 512, 512, 512) + 512 * 3 * 3 * 10,
    "vgg14": convs(3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512) + 512 * 10,
    "resnet18": convs(3, 64) + RESNET18,
    "resnet18-dvs": convs(2, 64) + RESNET18,
    "resnet19": convs(3, 128) + residual(128, 128, 3) + residual(128, 256, 3) + residual(256, 512, 2)
    + 512 * 256 + 256 * 10,
    "nmnist-res2": convs(2, 8) + residual(8, 8, 1) + residual(8, 16, 1) + 16 * 3 * 3 * 10,
    "nmnist-sum2": convs(2, 8) + residual(8, 8, 1) + convs(8, 16, 16) + 16 * 4 * 4 * 10,
}  # fmt: skip


@pytest.mark.parametrize(("name", "weights"), HAND.items())
def test_weights_as_worked_out_by_hand(name: str, weights: int) -> None:
    """Every trained weight of the architecture, and none more."""
    assert load_model(name).weights == weights


# ------------------------------------------------------------------------------------------------ recurrence, averages


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """Trained with mixed time steps, and its file."""
    values: dict[str, Any] = {"data": "digits-dvs", "epochs": 10, "time_steps": 4, "samples": 200, "method": "mtt"}
    content = RECURRENT | {"input": list(load_model("nmnist-3c1fc").input)}
    run = train(Settings.make(content, **values), progress=False)
    path = tmp_path_factory.mktemp("recurrent") / "a.net"
    export(run, path)
    return run, path


def test_recurrent_layers_and_averages_learn_and_fire_the_same(recurrent: tuple[Run, Path]) -> None:
    """Mixed time steps train what feeds itself; its integers fire the same at any T, in the file too."""
    run, path = recurrent
    feedback = dict(zip(run.network.names, run.network.blocks, strict=True))["dense1"].feedback
    weights = run.network.weights
    assert weights == run.settings.model.weights
    assert feedback.synapse.weight.abs().max() > 0
    (layer,) = (layer for layer in to_network(run) if layer.name == "dense1")
    assert isinstance(layer, Dense)
    assert layer.recurrent is not None
    for proof in prove(run, [1, 3, 9], "fast", samples=10, progress=False):
        assert proof.bits > 0
        assert not any(proof.mismatches.values())
    counts, labels = frames(open_dataset("digits-dvs", split="test"), 6)
    result = simulate_file(path, counts[:100].astype(np.int32), backend="fast", progress=False)
    assert result.readout.shape == (100, 10)
    assert score(result.readout, labels[:100], "voltage").accuracy > 0.3  # chance is 0.1


@pytest.mark.lava
def test_a_recurrent_layer_fires_the_same_on_lava(recurrent: tuple[Run, Path]) -> None:
    """Feedback, pools and averages of a trained network on Lava's own processes."""
    (proof,) = prove(recurrent[0], [4], "lava", samples=3, progress=False)
    assert proof.bits > 0
    assert not any(proof.mismatches.values())


@pytest.mark.parametrize("surrogate", ["laplace", "triangular", "exponential"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_without_feedback_recurrence_is_the_plain_neuron(surrogate: str, reset: str) -> None:
    """Spikes and gradients of the loop over time steps, with feedback weights of 0, are those of the compiled loops."""
    torch.manual_seed(0)
    neuron = Neuron(1.0, 0.75, 0.25, surrogate=surrogate, reset=reset)
    ways = []
    for fire in (neuron, lambda x: neuron.recur(x, torch.zeros_like)):
        x = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(1), requires_grad=True)
        spikes = fire(x)
        (spikes * torch.linspace(-1, 1, 7)).sum().backward()
        ways.append((spikes.detach(), x.grad))
    assert ways[0][0].sum() > 10
    assert torch.equal(ways[0][0], ways[1][0])
    torch.testing.assert_close(ways[0][1], ways[1][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{"type": "dense", "features": 4, "recurrent": True}], "feeds nothing back: leave recurrent out"),
        ([{"type": "dense", "features": 5}, {"type": "average", "features": 2}], "5 outputs cannot be shared out"),
        ([{"type": "average", "features": 2}], "the last layer must be dense"),
        (
            [{"type": "average", "features": 2}, {"type": "dense", "features": 4}],
            "an average stands behind the last dense layer only",
        ),
    ],
)
def test_what_recurrence_and_averages_cannot_be(layers: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model({"name": "m", "input": [6], "layers": layers})


def test_without_a_clock_averages_count_the_events_of_their_outputs() -> None:
    """A class has the output events of its neurons, which are what the chip's readout must have room for."""
    layers = ({"type": "pool", "kernel": 4}, *RECURRENT["layers"][3:])
    content = {"name": "votes", "input": list(load_model("nmnist-3c1fc").input), "layers": list(layers)}
    values: dict[str, Any] = {"data": "digits-dvs", "profile": "speck2e", "epochs": 4, "time_steps": 4, "samples": 100}
    run = train(Settings.make(content, **values), progress=False)
    test = subset(open_dataset("digits-dvs", split="test"), range(20))
    network, events = to_network(run), to_events(test)
    whole = simulate_events(network, events, progress=False)
    *layers, _ = network.layers
    parts = simulate_events(replace(network, layers=tuple(layers)), events, progress=False)
    assert whole.counts.sum() > 20
    np.testing.assert_array_equal(whole.counts, parts.counts.reshape(20, 10, 2).sum(2))
    np.testing.assert_array_equal(whole.readout, evaluate_events(run, test, progress=False).readout)
    (finding,) = (each for each in check(network, load("speck2e")).findings if each.quantity == "outputs")
    assert (finding.used, finding.layer) == (20, "dense1")


def test_a_chip_that_only_feeds_forward_refuses_recurrence() -> None:
    with pytest.raises(RunError, match=r"does not fit profile speck2e: .*recurrent synapse"):
        Settings.make(RECURRENT, data="digits-dvs", profile="speck2e")
