"""What measured spikes cost: operations and messages against a count one by one, figures by hand, unknowns unknown."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import networks
from test_placement import feeds, indices, limited

from hw_profiles import Activity, ProfileError, check, cost, load, place
from hw_profiles import sanafe as opinions
from mtt_lava.cli import main
from netx_export import netx
from netx_export.activity import measure
from netx_export.event.backend import Events
from netx_export.network import Conv, Dense, Flatten, Network, NetworkError, Neuron, Pool


def random_activity(network: Network, seed: int, steps: int = 8) -> Activity:
    rng = np.random.default_rng(seed)
    spikes = [rng.integers(0, steps + 1, layer.shape).astype(float) for layer in network.spiking]
    return Activity(steps, rng.integers(0, steps + 1, network.in_shape).astype(float), spikes)


def fan_out(layer: Conv | Dense) -> np.ndarray:
    """How many neurons each input reaches, one by one."""
    reached = np.zeros((*layer.in_shape, 1, 1)[:3])
    if isinstance(layer, Dense):
        return reached + layer.shape[0]
    size, fan = layer.weight.shape[1], layer.shape[0] // layer.groups  # type: ignore[union-attr]
    for o, r, c in np.ndindex(*layer.shape):
        for k, i, j in np.ndindex(*layer.weight.shape[1:]):  # type: ignore[union-attr]
            y = r * layer.stride[0] + i * layer.dilation[0] - layer.padding[0]
            x = c * layer.stride[1] + j * layer.dilation[1] - layer.padding[1]
            if 0 <= y < layer.in_shape[1] and 0 <= x < layer.in_shape[2]:
                reached[o // fan * size + k, y, x] += 1
    return reached


@given(networks(), st.integers(0, 2**31), st.integers(1, 12))
def test_operations_and_messages_are_those_counted_one_by_one(network: Network, seed: int, neurons: int) -> None:
    """Synaptic operations, updates, messages and hops on random networks cut over random small cores."""
    profile = limited("loihi1", neurons_per_core=neurons, cores_per_tile=1, tiles_north_south=2)
    placement = place(network, profile)
    activity = random_activity(network, seed)
    result = cost(network, activity, profile, placement)
    arriving = activity.inputs
    spiking = [i for i, layer in enumerate(network.layers) if layer.neuron is not None]
    parts = [(core.number, part) for core in placement.cores for part in core.parts]
    for at, (i, spikes, found) in enumerate(zip(spiking, activity.spikes, result.layers, strict=True)):
        layer = network.layers[i]
        assert isinstance(layer, Conv | Dense)
        recurrent = isinstance(layer, Dense) and layer.recurrent is not None
        back = spikes.sum() * layer.shape[0] if recurrent else 0
        assert found.synops == pytest.approx((fan_out(layer).ravel() * arriving.ravel()).sum() + back)
        assert found.macs == fan_out(layer).sum() + (layer.shape[0] ** 2 if recurrent else 0)
        assert found.updates == 8 * math.prod(layer.shape)
        messages, hops = 0.0, [0.0, 0.0]
        maps = spikes.reshape((*layer.shape, 1, 1)[:3])
        for (a, source), (b, target) in itertools.product(parts, parts):
            after = at + 1 < len(spiking) and target.layer == spiking[at + 1]
            if source.layer != i or not (after or (recurrent and target.layer == i)):
                continue
            other = network.layers[target.layer]
            seen = feeds(other, target) if isinstance(other, Conv) else None
            sent = sum(maps[at] for at in indices(source) if seen is None or at in seen)
            messages += sent
            hops[0] += sent * abs(a // 2 - b // 2)
            hops[1] += sent * abs(a % 2 - b % 2)
        assert found.messages == pytest.approx(messages)
        assert found.hops == pytest.approx(hops)
        arriving = spikes
    assert result.to_dict() == json.loads(json.dumps(result.to_dict()))


def two_layers() -> Network:
    """Four inputs, two neurons, one neuron."""
    first = Dense(in_shape=(4,), shape=(2,), weight=np.full((2, 4), 2), neuron=Neuron(1), name="a")
    second = Dense(in_shape=(2,), shape=(1,), weight=np.full((1, 2), 2), neuron=Neuron(1), name="b")
    return Network((first, second))


ACTIVITY = Activity(10, np.array([3.0, 0, 0, 1]), [np.array([2.0, 1]), np.array([1.0])])


def test_energy_and_time_by_hand() -> None:
    """4 input spikes x 2 and 3 x 1 operations; 30 updates, 4 of them active; 3 messages within a tile."""
    result = cost(two_layers(), ACTIVITY, load("loihi1"))
    assert result.synops == 4 * 2 + 3
    assert result.spikes == 4
    energy = {name: figure.value for name, figure in result.energy.items()}
    assert energy == pytest.approx(
        {
            "synaptic operations": 11 * 23.6,
            "neuron updates": 4 * 81 + 26 * 52,
            "spikes within a tile": 3 * 1.7,
            "hops": 0,
            "total": 11 * 23.6 + 4 * 81 + 26 * 52 + 3 * 1.7,
        }
    )
    assert result.energy["total"].status == "simulated"
    assert "at least" in result.energy["total"].note
    assert result.time_step.value == pytest.approx((11 * 3.5 + 4 * 8.4 + 26 * 5.3) / 10)
    assert result.latency.value == pytest.approx(12 * (11 * 3.5 + 4 * 8.4 + 26 * 5.3) / 10 / 1000)
    # Without spikes: 8 + 2 multiply-accumulates.
    assert result.arithmetic["float32"] == pytest.approx((10 * 4.6, 11 * 0.9))
    graded = cost(two_layers(), replace(ACTIVITY, graded=True), load("loihi1"))
    assert graded.arithmetic["int8"] == pytest.approx((10 * 0.23, 8 * 0.23 + 3 * 0.03))


def test_the_busiest_core_sets_the_time() -> None:
    """Layers on cores of their own work side by side."""
    result = cost(two_layers(), ACTIVITY, limited("loihi1", neurons_per_core=2))
    assert result.time_step.value == pytest.approx((8 * 3.5 + 3 * 8.4 + 17 * 5.3) / 10)


def test_what_a_chip_does_not_tell_is_unknown() -> None:
    """Loihi 2 has no public energies: no figure, not a guess; its time step is the maker's shortest."""
    result = cost(two_layers(), ACTIVITY, load("loihi2"))
    assert {figure.value for figure in result.energy.values()} == {None}
    assert (result.time_step.value, result.time_step.status) == (200, "documented")
    assert "energy in total                 unknown" in str(result)
    assert result.layers[0].hops is None
    speck = cost(two_layers(), replace(ACTIVITY, time_steps=None), load("speck2e"))
    assert speck.energy["total"].value is None
    assert speck.latency.status == "estimate"
    assert speck.latency.value is not None
    assert speck.layers[0].updates is None


def test_messages_between_chips_have_no_figure() -> None:
    """Across chips hops are unknown: those messages are named, and the total is a lower bound."""
    result = cost(two_layers(), ACTIVITY, limited("loihi1", neurons_per_core=2, cores_per_chip=1, chips=2))
    assert result.layers[0].between_chips == 3
    assert result.energy["messages between chips"].value is None
    assert "messages between chips" in result.energy["total"].note


def test_nothing_is_placed_nothing_is_sent() -> None:
    """A network that fits on no cores still has operations, but no messages and no time."""
    result = cost(two_layers(), ACTIVITY, limited("loihi1", input_axons_per_core=1))
    assert result.synops == 11
    assert result.energy["hops"].status == "not placed"
    assert result.layers[0].messages is None
    assert result.time_step.value is None


def test_an_activity_of_another_network_is_refused() -> None:
    """Shapes that do not fit say so."""
    with pytest.raises(ProfileError, match=r"activity of shapes \[\(3,\), \(2,\)\] is not that of layers"):
        cost(two_layers(), Activity(1, np.zeros(3), [np.zeros(2)]), load("loihi1"))


def test_pools_without_neurons_pass_events_on() -> None:
    """Speck: an event counts in the layer after the pool as often as a kernel reaches from its pooled pixel."""
    conv = np.ones((1, 1, 1, 1), int)
    layers = (
        Conv(in_shape=(1, 4, 4), shape=(1, 4, 4), weight=conv, neuron=Neuron(1), name="a"),
        Pool(in_shape=(1, 4, 4), shape=(1, 2, 2), kernel=(2, 2), stride=(2, 2)),
        Conv(in_shape=(1, 2, 2), shape=(3, 2, 2), weight=np.ones((3, 1, 1, 1), int), neuron=Neuron(1), name="b"),
    )
    spikes = [np.full((1, 4, 4), 2.0), np.zeros((3, 2, 2))]
    result = cost(Network(layers, reset="subtract"), Activity(None, np.ones((1, 4, 4)), spikes), load("speck2e"))
    assert [layer.synops for layer in result.layers] == [16, 32 * 3]
    assert [layer.messages for layer in result.layers] == [32, 0]


# Measured --------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A network of two layers and input of five samples."""
    rng = np.random.default_rng(0)
    conv = Conv(
        in_shape=(2, 6, 6),
        shape=(3, 4, 4),
        weight=2 * rng.integers(-5, 20, (3, 2, 3, 3)),
        neuron=Neuron(60),
        name="conv",
    )
    flat = Flatten(in_shape=(3, 4, 4), shape=(48,))
    fc = Dense(in_shape=(48,), shape=(4,), weight=2 * rng.integers(-5, 20, (4, 48)), neuron=Neuron(80), name="fc")
    netx.write(Network((conv, flat, fc), info={"profile": "loihi1"}), tmp_path / "a.net")
    np.save(tmp_path / "input.npy", (rng.random((5, 2, 6, 6, 7)) < 0.2).astype(np.int8))
    return tmp_path / "a.net", tmp_path / "input.npy"


def test_measured_spikes_are_means_over_samples(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every neuron's spikes and every input's, whatever chunks the samples come in."""
    inputs = np.load(files[1])
    whole = measure(files[0], inputs, progress=False)
    monkeypatch.setattr("netx_export.activity.RECORD_BYTES", 1)
    apart = measure(files[0], inputs, progress=False)
    for one, other in zip([whole.inputs, *whole.spikes], [apart.inputs, *apart.spikes], strict=True):
        np.testing.assert_allclose(one, other)
    np.testing.assert_allclose(whole.inputs, inputs.sum((0, -1)) / 5)
    assert whole.time_steps == 7
    assert not whole.graded
    assert measure(files[0], 3 * inputs, progress=False).graded


def test_measured_events_agree_with_what_the_simulator_counts(files: tuple[Path, Path]) -> None:
    """Event-driven: operations computed from every neuron's spikes are those that were counted on the way."""
    rng = np.random.default_rng(1)
    sample = np.sort(rng.integers(0, 3, 200))
    events = Events(sample, np.arange(200), *(rng.integers(0, n, 200) for n in (2, 6, 6)), 3)
    from netx_export.event import backend as event_backend

    counted = event_backend.simulate(files[0], events, progress=False)
    activity = measure(files[0], events, "event", progress=False)
    result = cost(netx.read(files[0]), activity, load("speck2e"))
    np.testing.assert_allclose([layer.synops for layer in result.layers], counted.synops_per_layer.mean(0))
    np.testing.assert_allclose([layer.spikes for layer in result.layers], counted.spikes_per_layer.mean(0))


def test_command(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`mtt cost` prints the operations and where they happen; --json the same; --picture draws the chip."""
    network, inputs = map(str, files)
    assert main(["cost", network, inputs, "--picture", str(tmp_path / "chip.png")]) == 0
    out = capsys.readouterr().out
    assert "on loihi1 at T = 7, mean of a sample" in out
    assert "1 of 128 cores in use" in out
    assert (tmp_path / "chip.png").stat().st_size > 1000
    assert main(["cost", network, inputs, "--profile", "loihi2", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["cost"]["energy"]["total"]["value"] is None
    assert content["placement"]["cores_used"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "loihi9"], "no profile 'loihi9' (did you mean loihi"),
        (["--backend", "quick"], "backend 'quick' is unknown"),
        (["--backend", "event"], "is not a whole .npz file"),
        (["--backend", "event", "--sanafe"], "--sanafe runs time steps"),
        (["--profile", "loihi2", "--sanafe"], "SANA-FE models Loihi 1, not loihi2"),
    ],
)
def test_mistakes_get_one_line(
    files: tuple[Path, Path], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and what to do."""
    try:
        code: object = main(["cost", *map(str, files), *arguments])
    except SystemExit as stop:  # options are refused before anything runs
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


# SANA-FE ---------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(networks(synapses="plain"), st.integers(0, 2**31))
def test_synapses_handed_to_sanafe_are_those_of_the_network(network: Network, seed: int) -> None:
    """The list of pairs and weights gives the same sums as the layer."""
    rng = np.random.default_rng(seed)
    for layer in network.spiking:
        assert isinstance(layer, Conv | Dense)
        spikes = rng.integers(0, 2, math.prod(layer.in_shape))
        pairs, weights = opinions._connections(layer, np.flatnonzero(spikes))
        sums = np.zeros(math.prod(layer.shape))
        np.add.at(sums, pairs[:, 1], weights)
        assert len(pairs) == (fan_out(layer).ravel() * spikes).sum()
        if isinstance(layer, Dense):
            np.testing.assert_array_equal(sums, layer.weight @ spikes)  # type: ignore[operator]
        else:
            import torch

            wanted = torch.nn.functional.conv2d(
                torch.from_numpy(spikes.reshape(1, *layer.in_shape)).double(),
                torch.from_numpy(layer.weight).double(),
                None,
                layer.stride,
                layer.padding,
                layer.dilation,
                layer.groups,
            )
            np.testing.assert_array_equal(sums, wanted.numpy().ravel())


def test_sanafe_fires_the_same_spikes(files: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    """The mapped network on SANA-FE's Loihi fires as measured; both estimates stand side by side, with reasons."""
    pytest.importorskip("sanafe")
    assert main(["cost", *map(str, files), "--sanafe"]) == 0
    out = capfd.readouterr().out
    lines = {line.rsplit(None, 2)[0]: line.split()[-2:] for line in out.splitlines() if len(line.split()) > 2}
    assert lines["spikes"][0] == lines["spikes"][1] != "0"
    assert lines["hops"][0] == "0"
    assert "Executed" not in out
    assert "why they differ:" in out
    assert "fired otherwise" not in out


def _lasting(layer: Dense) -> Dense:
    return replace(layer, neuron=replace(layer.neuron, current_decay=100))  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_lasting, "layer b: a current that lasts longer"),
        (lambda layer: replace(layer, neuron=replace(layer.neuron, bias=np.ones(1, int))), "layer b: biases"),
        (lambda layer: replace(layer, recurrent=np.full((1, 1), 2)), "layer b: delays and recurrence"),
    ],
)
def test_what_sanafe_cannot_represent_is_refused(change: Any, message: str) -> None:
    """Named, with the layer."""
    pytest.importorskip("sanafe")
    a, b = two_layers().layers
    network = Network((a, change(b)))
    profile = load("loihi1")
    ours = cost(network, ACTIVITY, profile)
    with pytest.raises(ProfileError, match=message):
        opinions.sanafe(network, place(network, profile), np.ones((4, 3), int), ours)


def test_check_draws_the_chip(files: tuple[Path, Path], tmp_path: Path) -> None:
    """`mtt check --picture` leaves a picture, for Loihi and for Speck."""
    for profile in ("loihi1", "speck2e", "hala-point"):
        picture = tmp_path / f"{profile}.png"
        main(["check", str(files[0]), "--profile", profile, "--picture", str(picture)])
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert check(netx.read(files[0]), load("loihi1")).placement.complete


def test_a_soft_reset_file_is_measured_event_by_event_only(tmp_path: Path) -> None:
    """Clocked backends refuse it, as they do in `mtt simulate`."""
    netx.write(replace(two_layers(), reset="subtract"), tmp_path / "soft.net")
    with pytest.raises(NetworkError, match="give events to --backend event"):
        measure(tmp_path / "soft.net", np.ones((1, 4, 3), int))
