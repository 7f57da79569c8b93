"""Networks with shortcuts on chips: what feeds neurons is counted by connection; what a chip cannot sum is refused."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import graphs
from test_contract import NEURON, one
from test_event import graph_cases

from hw_profiles import check, cost, load, place, synaptic_operations
from hw_profiles.families import FAMILIES
from netx_export.activity import Activity, event_activity
from netx_export.connections import connections
from netx_export.event.backend import simulate as run_events
from netx_export.fast.backend import simulate
from netx_export.network import INPUT, KINDS, Add, Conv, Dense, Flatten, Layer, Network, Neuron, Pool

SHAPE = (2, 4, 4)


def conv(name: str, source: str, neuron: Neuron | None = NEURON, **more: Any) -> Conv:
    weight = np.full((2, 2, 1, 1), 4)
    return Conv(name=name, inputs=(source,), in_shape=SHAPE, shape=SHAPE, weight=weight, neuron=neuron, **more)


def add(name: str, *inputs: str, neuron: Neuron | None = None) -> Add:
    return Add(name=name, inputs=inputs, in_shape=SHAPE, shape=SHAPE, neuron=neuron)


def dense(source: str) -> tuple[Layer, ...]:
    flat = Flatten(name="flat", inputs=(source,), in_shape=SHAPE, shape=(32,))
    last = Dense(name="last", inputs=("flat",), in_shape=(32,), shape=(3,), weight=np.full((3, 32), 2), neuron=NEURON)
    return flat, last


def residual() -> Network:
    """A shortcut of currents past one layer."""
    layers = (
        conv("stem", "input"),
        conv("a", "stem"),
        conv("b", "a", None),
        conv("short", "stem", None),
        add("sum", "b", "short", neuron=NEURON),
    )
    return Network((*layers, *dense("sum")))


def sums(**more: Any) -> Network:
    """A shortcut of spikes past two layers, for chips that sum events."""
    layers = (conv("stem", "input"), conv("a", "stem"), conv("b", "a"), add("sum", "b", "stem"), conv("c", "sum"))
    return Network((*layers, *dense("c")), reset="subtract", **more)


def said(network: Network, profile: str, rule: str) -> list[str]:
    return [str(f) for f in check(network, load(profile)).of("violation") if f.rule == rule]


def test_connections_by_hand() -> None:
    """Each group names what feeds it, by which weights, and how long that has to wait."""
    found = [(c.source, c.target, c.synapses.name, c.wait) for c in connections(residual())]
    assert found == [
        (INPUT, "stem", "stem", 0),
        ("stem", "a", "a", 0),
        ("a", "sum", "b", 0),
        ("stem", "sum", "short", 1),
        ("sum", "last", "last", 0),
    ]
    found = [(c.source, c.target, c.synapses.name, c.wait) for c in connections(sums())]
    assert found[3:5] == [("b", "c", "c", 0), ("stem", "c", "c", 2)]


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_every_way_arrives_in_time(network: Network) -> None:
    """A connection's own layers and its wait make up the depth of what it reaches."""
    for way in connections(network):
        depth = 0 if way.source == INPUT else network.depth(way.source)
        assert depth + way.wait + 1 == network.depth(way.target)
        assert way.wait >= 0
        assert way.path[-1].name == way.target
        assert all(layer.neuron is None for layer in way.path[:-1])


def test_what_feeds_a_sum_of_currents_by_hand() -> None:
    """Loihi: axons and synapses of both ways count, and the relay that holds the shortcut takes neurons."""
    report = check(residual(), load("loihi2"))
    assert report.fits
    demands = {demand.name: demand for demand in report.placement.demands}
    assert set(demands) == {"stem", "stem.relay1", "a", "sum", "last"}
    pixels, weights = 16, 4
    assert demands["a"].whole["input axons"] == pixels
    assert demands["sum"].whole["input axons"] == 2 * pixels
    assert demands["sum"].whole["synapse memory"] == 2 * demands["a"].whole["synapse memory"]
    assert demands["a"].whole["synapse memory"] == weights * load("loihi2").facts.weight_bits.value
    assert demands["stem.relay1"].whole["neurons"] == demands["stem"].whole["neurons"] == 32
    # The stem sends to a and to its relay: two population axons a pixel and channel.
    assert demands["stem"].whole["output axons"] == 2 * demands["a"].whole["output axons"]
    (note,) = (finding for finding in report.findings if finding.quantity == "relay neurons")
    assert (note.layer, note.used) == ("stem", 32)


def test_spikes_summed_before_weights_share_them() -> None:
    """Loihi: a sum of spikes is more axons to the same synapses."""
    demands = {demand.name: demand for demand in place(sums(), load("loihi2")).demands}
    assert demands["c"].whole["input axons"] == 2 * demands["a"].whole["input axons"]
    assert demands["c"].whole["synapse memory"] == demands["a"].whole["synapse memory"]
    assert {"stem.relay1", "stem.relay2"} <= set(demands)


@settings(max_examples=25, deadline=None)
@given(graphs("currents"), st.sampled_from(["loihi1", "loihi2"]))
def test_every_neuron_has_one_core(network: Network, profile: str) -> None:
    """All neurons and relays are placed once, and no core holds more than it can."""
    placement = place(network, load(profile))
    if placement.reason or not placement.complete:
        return
    waits: dict[str, int] = {}
    for way in connections(network):
        if way.source != INPUT:
            waits[way.source] = max(waits.get(way.source, 0), way.wait)
    wanted = {layer.name: int(np.prod(layer.shape)) for layer in network.spiking}
    relays = {f"{n}.relay{k}": wanted[n] for n, wait in waits.items() for k in range(1, wait + 1)}
    placed: dict[str, int] = {}
    for core in placement.cores:
        for part in core.parts:
            placed[part.name] = placed.get(part.name, 0) + part.neurons
        for name, used in core.used.items():
            assert core.limits[name] is None or used <= core.limits[name]  # type: ignore[operator]
    assert placed == wanted | relays


@settings(max_examples=40, deadline=None)
@given(graph_cases())
def test_operations_are_those_that_the_simulator_counts(case: Any) -> None:
    """Synaptic operations by connection, from spikes alone, equal the event-driven simulator's, event by event."""
    network, events = case
    result = run_events(network, events, record=("spikes",), progress=False)
    activity = event_activity(network, events, result)
    mean = result.synops_per_layer.sum(0) / max(events.n, 1)
    np.testing.assert_allclose(synaptic_operations(network, activity), mean, rtol=1e-9)


def test_cost_by_hand() -> None:
    """Operations of a sum are those of all that feeds it; relays cost what neurons cost."""
    network = residual()
    inputs = (np.random.default_rng(0).random((1, *SHAPE, 6)) < 0.4).astype(np.int8)
    record = simulate(network, inputs, record=("spikes",), progress=False, device="cpu").record
    spikes = [record[f"spikes.{layer.name}"].sum((0, -1)).astype(float) for layer in network.spiking]
    activity = Activity(6, inputs.sum((0, -1)).astype(float), spikes)
    result = cost(network, activity, load("loihi1"))
    by_name = {layer.name: layer for layer in result.layers}
    total = {layer.name: float(each.sum()) for layer, each in zip(network.spiking, spikes, strict=True)}
    assert total["stem"] > 0
    assert by_name["sum"].synops == 2 * total["a"] + 2 * total["stem"]
    assert by_name["stem.relay1"].synops == by_name["stem.relay1"].spikes == total["stem"]
    assert by_name["stem.relay1"].updates == 32 * 6
    assert result.energy["total"].value is not None


def test_sanafe_runs_shortcuts() -> None:
    """SANA-FE, handed every connection and relay, fires the spikes of our own simulation, and counts as many hops."""
    pytest.importorskip("sanafe", reason="needs the extra `sanafe`")
    from hw_profiles.sanafe import sanafe

    network = residual()
    inputs = (np.random.default_rng(0).random((1, *SHAPE, 6)) < 0.4).astype(np.int8)
    record = simulate(network, inputs, record=("spikes",), progress=False, device="cpu").record
    spikes = [record[f"spikes.{layer.name}"].sum((0, -1)).astype(float) for layer in network.spiking]
    activity = Activity(6, inputs.sum((0, -1)).astype(float), spikes)
    placement = place(network, load("loihi1"))
    opinion = sanafe(network, placement, inputs[0], cost(network, activity, load("loihi1"), placement))
    assert opinion.same_spikes, (opinion.spikes, opinion.measured)
    assert sum(opinion.spikes) > 50


def test_speck_sums_events_only() -> None:
    """Sums of spikes before weights fit; of currents, or before anything else, they are refused with the remedy."""
    assert check(sums(), load("speck2e")).fits
    (finding,) = said(residual(), "speck2e", "merges")
    assert "sum: sum of currents: the chip adds up events: train with neuron = false" in finding
    layers = (conv("stem", "input"), conv("a", "stem"), add("sum", "a", "stem"))
    pool = Pool(name="pool", inputs=("sum",), in_shape=SHAPE, shape=(2, 2, 2))
    flat = Flatten(name="flat", inputs=("pool",), in_shape=(2, 2, 2), shape=(8,))
    last = Dense(name="last", inputs=("flat",), in_shape=(8,), shape=(3,), weight=np.ones((3, 8), int), neuron=NEURON)
    (finding,) = said(Network((*layers, pool, flat, last), reset="subtract"), "speck2e", "merges")
    assert "it goes into pool: a sum of events stands right before a conv or dense layer" in finding


def test_speck_cores_send_to_two() -> None:
    """A third destination is one too many, and the finding names all three."""
    layers = (
        *(conv("stem", "input"), conv("a", "stem"), conv("b", "stem"), conv("c", "stem")),
        *(add("sum", "a", "b", "c"), conv("d", "sum")),
    )
    (finding,) = said(Network((*layers, *dense("d")), reset="subtract"), "speck2e", "destinations")
    assert "stem: destinations of a core 3 > 2: it feeds a, b, c" in finding


CHIPS = {"loihi": "loihi2", "speck": "speck2e", "xylo": "xylo-audio2", "akida": "akd1000", "processor": "rp2040"}
RUNS = {"xylo": (Conv, Dense, Add), "akida": (Conv, Dense), "processor": tuple(KINDS.values())}
"""Kinds that chips whose own tools place the neurons run; a program computes any."""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("with_neurons", [True, False], ids=["neurons", "plain"])
@pytest.mark.parametrize("kind", list(KINDS.values()))
def test_every_kind_is_judged_by_name(kind: type[Layer], with_neurons: bool, family: str) -> None:
    """No family passes over a kind of layer: it is placed, part of a neighbour, or named with a reason."""
    if with_neurons and not kind.may_spike:
        return
    network = one(kind, NEURON if with_neurons else None)
    report = check(network, load(CHIPS[family]))
    named = {finding.layer for finding in report.findings}
    placed = {demand.name for demand in report.placement.demands}
    silent = kind is Flatten or (kind is Pool and family == "speck") or (kind is Add and not with_neurons)
    silent |= kind in RUNS.get(family, ())
    assert silent or "it" in named | placed
    assert report.placement.complete or report.placement.reason or not report.fits


def test_a_shortcut_from_the_input_needs_no_relay() -> None:
    """The host sends it later."""
    ways = (conv("b", "a", None), conv("short", "input", None))
    layers = (conv("a", "input"), *ways, add("sum", "b", "short", neuron=NEURON))
    network = Network((*layers, *dense("sum")))
    assert {way.wait for way in connections(network) if way.source == INPUT} == {0, 1}
    assert not [d for d in place(network, load("loihi2")).demands if "relay" in d.name]


# ------------------------------------------------------------------------------------------------ arrows

ROOT = Path(__file__).parents[1]
PACKAGES = ("netx_export", "hw_profiles", "mtt_lava")
"""From the bottom up: each imports itself and those before it."""


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports when it is imported itself."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.split(".")[0] in PACKAGES}


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def test_arrows_go_one_way() -> None:
    """Nothing imports a package above its own, at the top of a file or within a function."""
    for name, path in modules().items():
        above = PACKAGES[PACKAGES.index(name.split(".")[0]) + 1 :]
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not [each for each in names if each.split(".")[0] in above], f"{name} imports {names}"


def test_no_circle_of_imports() -> None:
    """No module imports, by whatever way, itself."""
    files = modules()
    edges = {name: {each for each in imports(path) if each in files} for name, path in files.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for after in edges[name]:
                # A package's own __init__ stands above its modules.
                if after != name and not name.startswith(f"{after}."):
                    visit(after, (*way, name))
            done.add(name)

    for name in files:
        visit(name, ())


def test_chips_know_the_types_of_networks() -> None:
    """No layer or network is typed `Any` in hw_profiles."""
    for name, path in modules().items():
        if not name.startswith("hw_profiles"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.arg) and node.annotation is not None and node.arg in ("layer", "network", "layers"):
                assert "Any" not in ast.unparse(node.annotation), f"{name}: {node.arg}"
