"""Models as data, and networks that compute the same as SLAYER and as the integers they are lowered to."""

from typing import Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtt_lava import Run, Settings, SpikingNetwork, load_model, to_network
from mtt_lava.evaluation import run_network
from mtt_lava.model import ModelError, model_names
from mtt_lava.neuron import STATE_UNIT, slayer
from mtt_lava.spiking import Feedback
from mtt_lava.temporal import transform
from netx_export.quantise import weight_scale

PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3)).map(list)


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    """A model of one or two convolutions, maybe a pool after each, and one or two dense layers."""
    shape = [draw(st.integers(1, 2)), draw(st.integers(5, 9)), draw(st.integers(5, 9))]
    layers: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(0, 2))):
        groups = draw(st.sampled_from([1, shape[0]]))
        shape[0] = groups * draw(st.integers(1, 2))
        layers.append({
            "type": draw(st.sampled_from(["conv", "conv", "convT"])), "channels": shape[0], "kernel": draw(PAIRS),
            "stride": draw(st.sampled_from([1, [1, 2]])),
            "padding": draw(st.integers(0, 1)), "groups": groups, "dilation": draw(st.sampled_from([1, 1, [2, 1]])),
        })  # fmt: skip
        if draw(st.booleans()):
            layers.append({"type": "pool", "kernel": draw(st.sampled_from([1, 2, [1, 2]]))})
    layers += [{"type": "dense", "features": n} for n in draw(st.lists(st.integers(1, 6), min_size=1, max_size=2))]
    if draw(st.booleans()) and layers[-2:-1] and layers[-2]["type"] == "dense":
        layers[-2]["recurrent"] = True
    if draw(st.integers(0, 3)) == 3:
        layers.append({"type": "average", "features": layers[-1]["features"]})
        layers[-2]["features"] *= draw(st.integers(1, 3))
    decays = st.sampled_from([0.0, 0.25, 0.5, 1.0])
    return {
        "name": "random",
        "input": [layers[0].get("groups", 1) * 2, *shape[1:]],
        "layers": layers,
        "readout": draw(st.sampled_from(["voltage", "count"])),
        "neuron": {"current_decay": draw(decays), "voltage_decay": draw(decays)},
    }


def quantised(model: dict[str, Any], biases: bool = False, seed: int = 0) -> Run:
    """A run with random weights, quantised, whose neurons spike often."""
    choices: dict[str, Any] = {"allow_unfit": True}  # some currents never decay
    choices |= {"norm": "batch", "biases": "scaled"} if biases else {}
    run = Run(Settings.make(model, data="digits-dvs", seed=seed, **choices), SpikingNetwork(load_model(model)))
    torch.manual_seed(seed)
    for block in run.network.weighted:
        block.synapse.weight.data = torch.randn_like(block.synapse.weight)
        if biases and not isinstance(block, Feedback):
            torch.nn.init.normal_(block.neuron.norm.offset)
    run.network.fold_norms(biases)
    scales = {block: weight_scale(block.synapse.weight.detach().numpy()) for block in run.network.weighted}
    for owner, members in run.network.groups:
        # One scale for all that feeds the same neurons; an identity shortcut must fit it too.
        most = min([scales[block] for block in members] + [254.0] * (owner not in members))
        scales |= dict.fromkeys(members, most)
    run.network.quantise(list(scales.values()), 8)
    return run


def random_input(run: Run, t: int, seed: int, largest: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, largest + 1, (3, *run.settings.model.input, t))


@settings(deadline=None, max_examples=60)
@given(model=models(), biases=st.booleans(), t=st.integers(1, 9), seed=st.integers(0, 99))
def test_lowered_integers_compute_the_same(model: dict[str, Any], biases: bool, t: int, seed: int):
    """Spikes of every layer and the readout equal those of the integer description in plain NumPy."""
    try:
        run = quantised(model, biases, seed)
    except ModelError:  # a kernel larger than what an earlier pool left
        return
    x = random_input(run, t, seed)
    network = to_network(run, t)
    everything = reference.simulate(network, x)
    records = [r for r, layer in zip(everything, network, strict=True) if layer.neuron]
    readout, spikes = run_network(run, torch.from_numpy(x), spikes=True)
    for name, ours, theirs in zip(run.network.spiking_names, spikes, records, strict=False):
        np.testing.assert_array_equal(ours.numpy(), theirs["spikes"], err_msg=name)
    if network.readout == "voltage":
        assert len(records) == len(spikes) + 1
        answer = records[-1]["v"][..., -1].reshape(len(x), run.settings.model.classes, -1).sum(-1)
        np.testing.assert_array_equal(readout.double() * STATE_UNIT, answer)
    else:
        np.testing.assert_array_equal(readout, everything[-1]["spikes"].sum(-1))


def test_quantised_blocks_are_slayers_own():
    """A chain of plain SLAYER blocks with the same integers as weights gives the same spikes, bit for bit."""
    run = quantised(load_model("nmnist-3c1fc").model_dump() | {"readout": "count"}, seed=3)
    x = torch.from_numpy(random_input(run, 6, 0)).float()
    _, spikes = run_network(run, x, spikes=True)
    assert all(0.02 < layer.mean() < 0.98 for layer in spikes), "spikes too few or too many to tell anything"
    cuba = slayer.block.cuba
    for layer in to_network(run):
        if layer.kind == "flatten":
            x = cuba.Flatten()(x)
            continue
        params = {"threshold": layer.neuron.threshold / 64, "current_decay": 1.0, "voltage_decay": 0.0}
        weight = torch.from_numpy(layer.weight).float() / 64
        if layer.kind == "conv":
            arguments = (layer.in_shape[0], layer.shape[0], layer.weight.shape[2:], layer.stride, layer.padding)
            block = cuba.Conv(params, *arguments, groups=layer.groups, delay_shift=False)
        else:
            block = cuba.Dense(params, layer.in_shape[0], layer.shape[0], delay_shift=False)
        block.synapse.weight.data = weight.reshape(block.synapse.weight.shape)
        x = block(x)
        assert torch.equal(x, spikes.pop(0)), layer.name
    assert not spikes


def test_the_papers_network():
    """nmnist-3c1fc has 6,160 weights, no bias, four stages, and a pool within the stage of its convolution."""
    network = SpikingNetwork(load_model("nmnist-3c1fc"))
    assert network.weights == 6160
    assert network.biases == []
    assert network.names == ["conv1", "pool1", "conv2", "pool2", "conv3", "dense1"]
    assert network.stages == [0, 0, 1, 1, 2, 3]
    assert network.model.shapes()[1:] == [(8, 17, 17), (8, 8, 8), (16, 8, 8), (16, 4, 4), (16, 4, 4), (10,)]


def test_stages_run_their_own_numbers_of_time_steps():
    """A temporal configuration gives every stage its T; a uniform one is the identity."""
    network = SpikingNetwork(load_model("nmnist-3c1fc")).eval()
    x = torch.randint(0, 3, (2, 2, 34, 34, 6)).float()
    spikes: list[torch.Tensor] = []
    network(x, [6, 3, 2, 5], spikes)
    assert [s.shape[-1] for s in spikes] == [6, 6, 3, 3, 2]
    assert torch.equal(network(x, [6, 6, 6, 6]), network(x))


def test_transformations_have_the_forms_asked_for():
    """The input's and those between stages each take their own form."""
    model = {"name": "m", "input": [2], "layers": [{"type": "dense", "features": n} for n in (3, 2)]}
    x = torch.rand(1, 2, 5, generator=torch.Generator().manual_seed(0)) * 4
    for form, input_form in (("group", "trim"), ("fraction", "group"), ("mean", "group")):
        torch.manual_seed(0)
        network = SpikingNetwork(load_model(model), norm=None, form=form, input_form=input_form)
        hidden = network.blocks[0](transform(x, 4, input_form))
        current = network.blocks[1].synapse(transform(hidden, 3, form))
        torch.testing.assert_close(network(x, [4, 3]), current.sum(-1))


def test_inputs_are_cut_to_the_payload():
    """Where the chip's input spikes are binary, larger event counts become 1, after the temporal transformation."""
    model = {"name": "m", "input": [4], "layers": [{"type": "dense", "features": 3}]}
    network = SpikingNetwork(load_model(model), norm=None, input_max=1)
    x = torch.tensor([[[0.0, 1], [2, 3], [0, 5], [1, 1]]])
    assert torch.equal(network(x), network(x.clamp(max=1)))
    assert torch.equal(network(x, [1]), network(x.sum(-1, keepdim=True).clamp(max=1)))


def test_pools_without_neurons_pass_sums_on():
    """For a chip whose pools need no neurons the next layer gets sums, and the description says so."""
    run = quantised(load_model("nmnist-3c1fc").model_dump())
    network = SpikingNetwork(run.settings.model, pool_neurons=False, norm=None)
    network.load_state_dict({k: v for k, v in run.network.state_dict().items() if k in network.state_dict()})
    network.quantise(run.network.weight_scales, 8)
    run.network = network
    lowered = to_network(run)
    assert [layer.kind for layer in lowered] == ["conv", "pool", "conv", "pool", "conv", "flatten", "dense"]
    x = random_input(run, 4, 0)
    record = reference.simulate(lowered, x)
    readout, spikes = run_network(run, torch.from_numpy(x), spikes=True)
    np.testing.assert_array_equal(spikes[1], record[2]["spikes"])
    np.testing.assert_array_equal(readout.double() * STATE_UNIT, record[-1]["v"][..., -1])


def test_rescaled_biases_keep_their_charge():
    """With biases 'scaled' the bias of T time steps adds up to that of training, whatever T is."""
    run = quantised({"name": "m", "input": [3], "layers": [{"type": "dense", "features": 4}]}, biases=True)
    at = {t: to_network(run, t).layers[0].neuron.bias * t for t in (5, 10, 40)}
    assert np.abs(at[10]).max() > 100
    for t in (5, 40):
        np.testing.assert_allclose(at[t], at[10], atol=t / 2 + 5)


def test_models_from_toml_and_python_agree(tmp_path):
    """A TOML file of a few lines is the model that the same dictionary makes."""
    path = tmp_path / "tiny.toml"
    path.write_text(
        'name = "tiny"\ninput = [2, 8, 8]\n'
        '[[layers]]\ntype = "conv"\nchannels = 4\nkernel = 3\n[[layers]]\ntype = "dense"\nfeatures = 2\n'
    )
    layers = [{"type": "conv", "channels": 4, "kernel": 3}, {"type": "dense", "features": 2}]
    assert load_model(path) == load_model({"name": "tiny", "input": [2, 8, 8], "layers": layers})
    assert "nmnist-3c1fc" in model_names()


def broken(**changes: Any) -> dict[str, Any]:
    conv = {"type": "conv", "channels": 4, "kernel": 3, **changes.pop("conv", {})}
    return {"name": "m", "input": [2, 8, 8], "layers": [conv, {"type": "dense", "features": 2}], **changes}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("no-such-net", "no model 'no-such-net': use one of dvs-gesture, nmnist-3c1fc, nmnist-res2"),
        (broken(conv={"kernle": 3}), "layers.1.conv.kernle: field 'kernle' is unknown (did you mean kernel?)"),
        (broken(conv={"channels": 0}), "layers.1.conv.channels: Input should be greater than 0 (got 0)"),
        (broken(conv={"kernel": 9}), "layer 1 (conv): its kernel is larger than its input [2, 8, 8]"),
        (broken(conv={"groups": 3}), "2 input channels cannot be cut into 3 groups"),
        (broken(readout="softmax"), "readout: Input should be 'voltage' or 'count' (got 'softmax')"),
        (broken(input=[2, 8]), "input is [2, 8]; it must be [C, H, W] or [F]"),
        (broken(layers=[]), "the last layer must be dense"),
        (broken(input=[4]), "layer 1 (conv) needs an input of channels, height and width, but gets [4]"),
        (broken(neuron={"voltage_decay": 2}), "neuron.voltage_decay: Input should be less than or equal to 1"),
        ({"input": [4]}, "name: missing"),
    ],
)
def test_wrong_models_are_refused_in_one_line(model: Any, words: str):
    """Every refusal names the layer and field, the value, and what is allowed."""
    with pytest.raises(ModelError) as error:
        load_model(model)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_toml_names_the_file(tmp_path):
    """A syntax error says which file and which line."""
    path = tmp_path / "bad.toml"
    path.write_text("name = \n")
    with pytest.raises(ModelError, match=r"bad\.toml: is not valid TOML: .*line 1"):
        load_model(path)
