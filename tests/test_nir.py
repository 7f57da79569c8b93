"""NIR files: what stands in them, read by NIR's own package, run by a plain interpreter, and read back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import reference
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from nir_files import clocked, hard_reset, interpret, soft_reset
from strategies import assert_same, chains, graphs, networks, spike_inputs

from mtt_lava.studies.readers import small
from netx_export import NetworkError, NetxWarning, nir
from netx_export.files import seal
from netx_export.network import INPUT, Add, Conv, Dense, Layer, Network, Neuron, SigmaDelta
from netx_export.nir.graph import ungrouped


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that examples write over."""
    return tmp_path_factory.mktemp("nir") / "network.nir"


# ------------------------------------------------------------------------------------------------ content


def content(path: Path) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str]]]:
    """Nodes and edges of a file."""
    with h5py.File(path) as file:
        nodes = {name: {field: value[()] for field, value in node.items()} for name, node in file["node/nodes"].items()}
        return nodes, [(a.decode(), b.decode()) for a, b in file["node/edges"][()]]


def test_every_node_of_a_file(tmp_path: Path) -> None:
    network = small("everything")
    notes = nir.write(network, tmp_path / "a.nir")
    nodes, edges = content(tmp_path / "a.nir")
    conv, dense = network["c1"], network["d"]
    assert edges == [
        ("input", "c1_conv"),
        ("c1_conv", "c1_neuron"),
        ("c1_neuron", "pool_pool"),
        ("pool_pool", "g_1_conv"),
        ("g_1_conv", "g_1_neuron"),
        ("pool_pool", "short_conv"),
        ("g_1_neuron", "sum_sum"),
        ("short_conv", "sum_sum"),
        ("sum_sum", "f_flatten"),
        ("f_flatten", "d_linear"),
        ("d_linear", "d_neuron"),
        ("d_neuron", "d_recurrent"),
        ("d_recurrent", "d_neuron"),
        ("d_neuron", "output"),
    ]
    assert list(nodes) == list(dict.fromkeys(name for edge in edges for name in edge))  # in an order that runs
    types = {name: node["type"].decode() for name, node in nodes.items()}
    assert types == {
        "input": "Input",
        "c1_conv": "Conv2d",
        "c1_neuron": "IF",
        "pool_pool": "SumPool2d",
        "g_1_conv": "Conv2d",
        "g_1_neuron": "CubaLIF",
        "short_conv": "Conv2d",
        "sum_sum": "Scale",
        "f_flatten": "Flatten",
        "d_linear": "Affine",
        "d_neuron": "IF",
        "d_recurrent": "Linear",
        "output": "Output",
    }
    assert nodes["input"]["shape"].tolist() == [2, 6, 6]
    assert nodes["output"]["shape"].tolist() == [5]
    node = nodes["c1_conv"]
    np.testing.assert_array_equal(node["weight"], conv.weight)
    assert [node[name].tolist() for name in ("stride", "padding", "dilation", "input_shape", "bias", "groups")] == [
        [1, 1],
        [1, 1],
        [1, 1],
        [6, 6],
        [3, 0, -2, 1],
        1,
    ]
    assert nodes["c1_neuron"]["v_threshold"].shape == (4, 6, 6)
    assert np.unique(nodes["c1_neuron"]["v_threshold"]).tolist() == [20.5]
    assert np.unique(nodes["c1_neuron"]["v_reset"]).tolist() == [0]
    pool = [nodes["pool_pool"][name].tolist() for name in ("kernel_size", "stride", "padding")]
    assert pool == [[2, 2], [2, 2], [0, 0]]
    assert nodes["g_1_conv"]["groups"] == 1
    np.testing.assert_array_equal(nodes["g_1_conv"]["weight"], ungrouped(network["g.1"].weight, 2))
    memory = {name: np.unique(nodes["g_1_neuron"][name]).tolist() for name in ("tau_syn", "tau_mem", "r", "w_in")}
    assert memory == {"tau_syn": [1e-4], "tau_mem": [1e-4], "r": [1], "w_in": [1]}
    assert nodes["sum_sum"]["scale"].tolist() == np.ones((4, 3, 3)).tolist()
    assert [int(nodes["f_flatten"][name]) for name in ("start_dim", "end_dim")] == [-3, -1]
    np.testing.assert_array_equal(nodes["d_linear"]["weight"], dense.weight)
    assert nodes["d_linear"]["bias"].tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(nodes["d_recurrent"]["weight"], dense.recurrent)
    assert nodes["d_neuron"]["v_threshold"].tolist() == [10.5, 20.5, 30.5, 40.5, 50.5]
    assert any("24 bits" in note for note in notes)
    with h5py.File(tmp_path / "a.nir") as file:
        assert file["version"][()] == b"1.0.8"
        assert file["node/metadata/reset"][()] == b"zero"
        assert file["node/metadata/notes"][()].decode() == "\n".join(notes)


def test_nir_reads_the_file(tmp_path: Path) -> None:
    """NIR's own package reads it, with its check of shapes, and its edges and values are those of the network."""
    package = pytest.importorskip("nir", reason="the extra nir is not installed")
    for reader, kind in (("nir", "everything"), ("spikingjelly", "chain"), ("snntorch", "chain"), ("norse", "chain")):
        nir.write(small(kind), tmp_path / "a.nir", reader)
        graph = package.read(tmp_path / "a.nir")
        nodes, edges = content(tmp_path / "a.nir")
        assert graph.edges == edges
        assert list(graph.nodes) == list(nodes)
        for name, node in graph.nodes.items():
            assert type(node).__name__ == nodes[name]["type"].decode()
        np.testing.assert_array_equal(graph.nodes["c1_conv"].weight, small(kind)["c1"].weight)
        assert graph.metadata["reset"] == "zero"


@pytest.mark.parametrize(
    ("reader", "threshold", "fields"),
    [
        ("norse", 20.5, {"type": "IF", "r": 1}),
        ("spikingjelly", 20.5, {"type": "IF", "r": 1e4, "v_reset": 0}),
        ("snntorch", 20.5, {"type": "LIF", "r": 2.0**60, "tau": 1e-4 * 2.0**60, "v_leak": 0}),
        ("sinabs", 20, {"type": "IF", "r": 1}),
    ],
)
def test_what_each_reader_wants(tmp_path: Path, reader: str, threshold: float, fields: dict[str, Any]) -> None:
    """Neurons in its words, pools and groups as full convolutions, Affine where it has no Linear."""
    network = replace(small("chain"), reset="subtract" if reader == "sinabs" else "zero")
    nir.write(network, tmp_path / "a.nir", reader)
    nodes, _ = content(tmp_path / "a.nir")
    neuron = {name: value for name, value in nodes["c1_neuron"].items() if name != "type"}
    assert nodes["c1_neuron"]["type"].decode() == fields.pop("type")
    assert {name: np.unique(value).tolist() for name, value in neuron.items()} == {
        name: [value] for name, value in (fields | {"v_threshold": threshold}).items()
    }
    pool, group = nodes["pool_pool"], nodes["g_1_conv"]
    assert (pool["type"], pool["weight"].shape, pool["weight"].sum()) == (b"Conv2d", (4, 4, 2, 2), 16)
    assert (group["groups"], group["weight"].shape) == (1, (4, 4, 3, 3))
    assert not group["weight"][:2, 2:].any()
    assert not group["weight"][2:, :2].any()
    assert nodes["d_linear"]["type"] == (b"Affine" if reader == "sinabs" else b"Linear")


def test_full_weights_of_groups() -> None:
    weight = np.arange(1, 9).reshape(4, 2, 1, 1)
    full = ungrouped(weight, 2)[:, :, 0, 0]
    assert full.tolist() == [[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 5, 6], [0, 0, 7, 8]]


# ------------------------------------------------------------------------------------------------ random networks


def attempt(
    network: Network, path: Path, reader: str, allow_inexact: bool = False
) -> tuple[str | None, tuple[str, ...]]:
    """Why a network is not written, if so, and the notes."""
    try:
        return None, nir.write(network, path, reader, allow_inexact=allow_inexact)
    except NetworkError as error:
        return str(error), ()


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_network_is_written_or_refused_by_layer(path: Path, count: int) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=count, deadline=None)
    @given(
        network=networks() | chains() | graphs() | graphs("spikes") | clocked(),
        reader=st.sampled_from(list(nir.READERS)),
        allow_inexact=st.booleans(),
    )
    def run(network: Network, reader: str, allow_inexact: bool) -> None:
        path.unlink(missing_ok=True)
        refusal, notes = attempt(network, path, reader, allow_inexact)
        if refusal is not None:
            names = [f"network: layer {layer.name}: " for layer in network]
            assert any(name in refusal for name in names) or "its neurons reset" in refusal
            assert not path.exists()
            seen["refused"] += 1
            return
        seen["written"] += 1
        neurons = [layer.neuron for layer in network.spiking if layer.neuron is not None]
        decays = [np.asarray(value) for each in neurons for value in (each.current_decay, each.voltage_decay)]
        rounded = any((~np.isin(value, (0, 4096))).any() for value in decays)
        assert allow_inexact or not rounded
        assert ("spikes can differ" in "".join(notes)) >= rounded

    run()
    assert min(seen["written"], seen["refused"]) >= count // 20, seen


@pytest.mark.parametrize("reader", list(nir.READERS))
def test_spikes_are_those_of_the_reference(path: Path, reader: str) -> None:
    """A plain interpreter of the file fires what the reference fires, whether it compares with > or >=."""
    seen: Counter[str] = Counter()
    reset = nir.READERS[reader].resets[0]

    @settings(max_examples=60, deadline=None)
    @given(data=st.data(), above=st.booleans())
    def run(data: st.DataObject, above: bool) -> None:
        network = data.draw(clocked(reader))
        inputs = data.draw(spike_inputs(network))
        refusal, _ = attempt(network, path, reader)
        if refusal is not None:
            return
        expected = (hard_reset if reset == "zero" else soft_reset)(network, inputs)
        assume(expected is not None)
        found = interpret(path, inputs, nir.READERS[reader].dt, above, reset)
        assert expected is not None
        for name, spikes in expected.items():
            np.testing.assert_array_equal(found[f"{name}_neuron"], spikes, err_msg=name)
            seen["spikes"] += int(spikes.sum())
        seen["networks"] += 1

    run()
    assert seen["networks"] >= 12, seen
    assert seen["spikes"] > 100, seen


@pytest.mark.parametrize("count", [25, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("reader", list(nir.READERS))
def test_round_trip_of_random_networks(path: Path, reader: str, count: int) -> None:
    """Networks come back as they were, whoever the file is for: 200 and more of the long runs' 1000."""
    seen: Counter[str] = Counter()
    some = networks() | chains() | graphs() | graphs("spikes") if reader == "nir" else st.nothing()

    @settings(max_examples=count, deadline=None)
    @given(some | clocked(reader) | clocked(reader) | clocked(reader, leaky=True))
    def run(network: Network) -> None:
        refusal, _ = attempt(network, path, reader, allow_inexact=True)
        if refusal is None:
            assert_same(network, nir.read(path))
            seen["written"] += 1

    run()
    # Which examples are drawn depends on what else has been imported.
    assert seen["written"] >= count // 5, seen


# ------------------------------------------------------------------------------------------------ refusals


def dense(**fields: Any) -> Network:
    common: dict[str, Any] = {"in_shape": (2,), "shape": (2,), "weight": np.array([[4, 2], [-2, 4]]), "name": "d"}
    return Network((Dense(**common | {"neuron": Neuron(5)} | fields),), source="n")


@pytest.mark.parametrize(
    ("network", "reader", "message"),
    [
        (dense(), "sinabs", r"n: its neurons reset to zero, and sinabs imports all as neurons that reset by sub"),
        (replace(dense(), reset="subtract"), "norse", r"n: its neurons reset by subtraction, and norse imports all"),
        (dense(neuron=Neuron(5, 4096, 100)), "nir", r"n: layer d: .*voltage_decay 100\.\.100: states are truncated"),
        (dense(neuron=Neuron(5, 0, 0)), "norse", r"n: layer d: current_decay 0\.\.0"),
        (dense(neuron=Neuron(np.array([1, 2]))), "snntorch", r"n: layer d: threshold 1\.\.2 differs from neuron"),
        (dense(recurrent=np.eye(2, dtype=int)), "snntorch", r"n: layer d: feeds itself, which snntorch does not"),
        (dense(delay=np.ones((2, 2), int)), "norse", r"n: layer d: has delays, which norse does not import"),
        (dense(delay=np.eye(2, dtype=int)), "nir", r"n: layer d: has delays of its own for every synapse"),
        (dense(neuron=Neuron(5, 0, 0, bias=np.ones(2, int))), "nir", r"n: layer d: biases enter v here"),
        (replace(dense(neuron=Neuron(0)), reset="subtract"), "sinabs", r"n: layer d: threshold 0: a reset by sub"),
        (dense(), "sinab", r"reader 'sinab' is unknown \(did you mean sinabs\?\)"),
    ],
)
def test_what_a_reader_computes_otherwise_is_refused(
    tmp_path: Path, network: Network, reader: str, message: str
) -> None:
    with pytest.raises(NetworkError, match=f"^{message}"):
        nir.write(network, tmp_path / "a.nir", reader)
    assert not list(tmp_path.iterdir())


def test_counts_that_float32_cannot_hold_are_said(tmp_path: Path) -> None:
    layers = [replace(dense(neuron=Neuron(1)).layers[0], name=name, inputs=()) for name in "abcdefghijkl"]
    notes = nir.write(Network(tuple(layers), reset="subtract", source="n"), tmp_path / "a.nir", "sinabs")
    # Every layer multiplies by up to 6: 7, 43, 259, ...
    assert any("n: layer j: with all inputs active its sums can reach " in note for note in notes), notes
    notes = nir.write(Network(tuple(layers[:3]), reset="subtract", source="n"), tmp_path / "a.nir", "sinabs")
    assert not any("float32" in note for note in notes)


def depth_first(edges: list[tuple[str, str]], node: str = "input", seen: list[str] | None = None) -> list[str]:
    """The order in which ``nirtorch.load`` runs the nodes."""
    seen = [] if seen is None else seen
    seen.append(node)
    for one, other in edges:
        if one == node and other not in seen:
            depth_first(edges, other, seen)
    return seen


@settings(max_examples=30, deadline=None)
@given(network=clocked("norse", graphs("any") | networks("recurrent")))
def test_readers_that_go_depth_first_run_merges_in_order(path: Path, network: Network) -> None:
    """Every node comes behind what feeds it; what was added for that is zeros, and the network is the same."""
    try:
        nir.write(network, path, "norse")
    except NetworkError as error:
        event("refused: " + ("merge" if "before what feeds it" in str(error) else "other"))
        return
    nodes, edges = content(path)
    order = depth_first(edges)
    assert set(order) == set(nodes)
    assert [pair for pair in edges if order.index(pair[0]) > order.index(pair[1])] == [
        pair for pair in edges if pair[0].endswith("_recurrent")
    ]
    zeros = {name for name in nodes if name.startswith("zeros")}
    event("with zeros" if zeros else "as it is")
    assert not any(np.any(nodes[name].get("weight", 0)) or np.any(nodes[name].get("bias", 0)) for name in zeros)
    assert_same(nir.read(path), network)


def test_merges_that_a_reader_runs_too_early_are_refused(tmp_path: Path) -> None:
    """Two ways from a map to a flat sum: no node makes zeros of a map of what is flat."""
    network = small("sum of flat ways")
    with pytest.raises(NetworkError, match=r"^sum of flat ways: layer add: norse runs it before what feeds it \(b1\)"):
        nir.write(network, tmp_path / "a.nir", "norse")
    nir.write(network, tmp_path / "a.nir", "spikingjelly")


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nir"
    changes: list[tuple[Callable[[h5py.File], None], str]] = [
        (lambda file: file["node/nodes/pool_pool/weight"].write_direct(np.ones((4, 4, 2, 2), "f")), "pool_pool'"),
        (lambda file: file["node/nodes/c1_neuron/v_threshold"].write_direct(np.full((4, 6, 6), 7.0)), "c1_neuron'"),
        (lambda file: file["node/nodes/c1_conv/weight"].write_direct(np.full((4, 2, 3, 3), 0.3, "f")), "0.3, not int"),
        (lambda file: file.__delitem__("node/nodes/d_neuron"), "d_neuron"),
    ]
    for change, text in changes:
        nir.write(small("chain"), path, "norse")
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(NetworkError, match="digest"):
            nir.read(path)
        seal(path)
        with pytest.raises(NetworkError, match=text):
            nir.read(path)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), value=st.sampled_from((None, -1, 0, 3, 1e300, True, "x", "", [], {}, [1], ["c1"], 10**9)))
def test_metadata_that_are_wrong_are_refused_in_a_line(path: Path, data: st.DataObject, value: object) -> None:
    """Whatever a value in them becomes: the same network is read, or the file is refused."""
    network = small("everything")
    nir.write(network, path)
    with h5py.File(path, "r+") as file:
        text = json.loads(file["node/metadata/mtt_lava"][()])
        at: Any = text
        while isinstance(at, dict | list) and at:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            parent, key = at, data.draw(st.sampled_from(keys))
            at = at[key]
            if data.draw(st.integers(0, 3)) == 0:
                break
        parent[key] = value
        del file["node/metadata/mtt_lava"]
        file["node/metadata/mtt_lava"] = json.dumps(text)
    seal(path)
    try:
        found = nir.read(path)
    except NetworkError as error:
        event(str(error).partition(": ")[2][:40])
    else:
        # Names, scales and whatever else no node holds.
        for one, other in zip(network, found, strict=True):
            assert one.shape == other.shape
            np.testing.assert_array_equal(one.weight, other.weight)  # type: ignore[arg-type]


def test_too_many_texts_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.nir"
    foreign(path, {"fc": LINEAR, "n": IF}, [("fc", "n")] * 10_001)
    with pytest.raises(NetworkError, match="node/edges are not pairs of names"):
        nir.read(path)


@pytest.mark.parametrize("bytes_", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_what_is_no_nir_is_refused(tmp_path: Path, bytes_: bytes) -> None:
    (tmp_path / "a.nir").write_bytes(bytes_)
    with pytest.raises(NetworkError, match=r"a\.nir: not a readable HDF5 file"):
        nir.read(tmp_path / "a.nir")


def test_a_netx_file_is_no_nir(tmp_path: Path) -> None:
    from netx_export import write

    write(dense(), tmp_path / "a.net")
    with pytest.raises(NetworkError, match="not a NIR graph"):
        nir.read(tmp_path / "a.net")


# ------------------------------------------------------------------------------------------------ files of others


def foreign(path: Path, nodes: dict[str, dict[str, Any]], edges: list[tuple[str, str]] | None = None) -> Path:
    """A file as NIR's package writes it: a chain, unless edges say otherwise."""
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file.create_dataset("version", data="1.0.8")
        node = file.create_group("node")
        node.create_dataset("type", data="NIRGraph", dtype=text)
        pairs = edges or list(zip(["input", *nodes], [*nodes, "output"], strict=True))
        node.create_dataset("edges", data=np.array(pairs, dtype=object), dtype=text)
        ends = {name: {"type": name.title(), "shape": np.array([2])} for name in ("input", "output")}
        for name, fields in (ends | nodes).items():
            for field, value in fields.items():
                node.create_dataset(f"nodes/{name}/{field}", data=value, dtype=text if isinstance(value, str) else None)
    return path


LINEAR = {"type": "Linear", "weight": np.array([[4.0, 2.0], [-2.0, 4.0]])}
IF = {"type": "IF", "r": np.ones(2), "v_threshold": np.full(2, 5.0), "v_reset": np.zeros(2)}
LIF = {"type": "LIF", "tau": np.full(2, 1e-3), "r": np.ones(2), "v_leak": np.zeros(2)}
LIF |= {"v_threshold": np.full(2, 5.0), "v_reset": np.zeros(2)}


def without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {field: value for field, value in fields.items() if field != name}


def test_integers_of_others_are_read(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.nir", {"fc": LINEAR, "lif": IF})
    found = nir.read(path)
    assert (found.reset, found.layers[0].name, found.layers[0].neuron.threshold) == ("zero", "fc", 5)  # type: ignore[union-attr]
    np.testing.assert_array_equal(found.layers[0].weight, LINEAR["weight"])  # type: ignore[arg-type]
    half = foreign(tmp_path / "b.nir", {"fc": LINEAR, "lif": IF | {"v_threshold": np.full(2, 5.5)}})
    assert nir.read(half).layers[0].neuron.threshold == 5  # type: ignore[union-attr]
    soft = foreign(tmp_path / "c.nir", {"fc": LINEAR, "lif": without(IF, "v_reset")})
    assert nir.read(soft, reset="subtract").reset == "subtract"
    resistance = foreign(tmp_path / "d.nir", {"fc": LINEAR, "lif": IF | {"r": np.full(2, 1e4)}})
    assert nir.read(resistance, dt=1e-4).layers[0].neuron.threshold == 5  # type: ignore[union-attr]
    leaky = foreign(tmp_path / "e.nir", {"fc": LINEAR, "lif": LIF})
    with pytest.warns(NetxWarning, match=r"e\.nir: node 'fc': its neurons' tau of 4 time steps: states decay as float"):
        neuron = nir.read(leaky, dt=2.5e-4, allow_inexact=True).layers[0].neuron
    assert neuron is not None
    assert (neuron.current_decay, neuron.voltage_decay, neuron.threshold) == (4096, 1024, 20)  # r dt / tau = 1 / 4
    edges = [("input", "fc"), ("fc", "lif"), ("lif", "back"), ("back", "lif"), ("lif", "output")]
    circle = foreign(tmp_path / "f.nir", {"fc": LINEAR, "lif": IF, "back": LINEAR}, edges)
    np.testing.assert_array_equal(nir.read(circle).layers[0].recurrent, LINEAR["weight"])  # type: ignore[attr-defined]
    edges = [("input", "fc"), ("input", "b"), ("fc", "lif"), ("b", "lif"), ("lif", "output")]
    merge = nir.read(foreign(tmp_path / "g.nir", {"fc": LINEAR, "b": LINEAR, "lif": IF}, edges))
    assert [layer.kind for layer in merge] == ["dense", "dense", "add"]
    assert merge["lif"].inputs == ("fc", "b")


def test_graphs_in_graphs_are_read(tmp_path: Path) -> None:
    """As snnTorch writes neurons that feed themselves."""
    inner = {"in": {"type": "Input", "shape": np.array([2])}, "out": {"type": "Output", "shape": np.array([2])}}
    path = foreign(tmp_path / "a.nir", {"fc": LINEAR, "rnn": {"type": "NIRGraph"}})
    with h5py.File(path, "r+") as file:
        graph = file["node/nodes/rnn"]
        edges = [("in", "lif"), ("lif", "back"), ("back", "lif"), ("lif", "out")]
        graph.create_dataset("edges", data=np.array(edges, dtype=object), dtype=h5py.string_dtype())
        for name, fields in (inner | {"lif": IF, "back": LINEAR}).items():
            for field, value in fields.items():
                graph[f"nodes/{name}/{field}"] = value
    found = nir.read(path)
    assert [layer.name for layer in found] == ["fc"]
    np.testing.assert_array_equal(found.layers[0].recurrent, LINEAR["weight"])  # type: ignore[attr-defined]


def test_floating_point_is_rounded_only_when_asked_to(tmp_path: Path) -> None:
    weight = np.array([[0.5, 0.25], [-0.3, 0.1]])
    path = foreign(tmp_path / "a.nir", {"fc": LINEAR | {"weight": weight}, "lif": IF | {"v_threshold": np.ones(2)}})
    with pytest.raises(NetworkError, match=r"a\.nir: node 'fc': weight or bias holds 0\.5, not integers: --bits 8"):
        nir.read(path)
    with pytest.warns(NetxWarning, match=r"a\.nir: node 'fc': weights are rounded to 8 bits, by at most 0\.\d+ %"):
        network = nir.read(path, bits=8)
    assert "rounded to 8 bits" in network.info["imported"][0]
    layer = network.layers[0]
    assert layer.weight_scale is not None
    assert np.abs(layer.weight / layer.weight_scale - weight).max() <= 1 / layer.weight_scale  # type: ignore[operator]
    assert layer.neuron is not None
    assert layer.neuron.threshold == round(layer.weight_scale)


@pytest.mark.parametrize(
    ("nodes", "options", "message"),
    [
        ({"fc": LINEAR, "n": {"type": "Threshold", "threshold": np.ones(2)}}, {}, "node 'n': is a Threshold, which is"),
        ({"fc": LINEAR, "n": without(IF, "v_reset")}, {}, "node 'n': has no v_reset: give --reset subtract"),
        ({"fc": LINEAR, "n": IF | {"v_reset": np.ones(2)}}, {}, "node 'n': v_reset 1: only 0 is read"),
        ({"fc": LINEAR, "n": IF | {"r": np.full(2, 2.0)}}, {}, "node 'n': r 2 is neither 1 nor 1 / dt; dt is not"),
        ({"fc": LINEAR, "n": LIF}, {}, "node 'n': has time constants, .*: give --dt SECONDS"),
        ({"fc": LINEAR, "n": LIF}, {"dt": 1e-4}, "node 'n': tau of 9.99 time steps: states decay as floating point"),
        ({"fc": LINEAR, "n": LIF}, {"dt": 1e-2}, "node 'n': tau is shorter than dt 0.01"),
        ({"fc": LINEAR, "n": LIF | {"v_leak": np.ones(2)}}, {"dt": 1e-4}, "node 'n': v_leak 1: only 0 is read"),
        ({"fc": LINEAR, "n": LIF}, {"dt": -1.0}, None),
        ({"fc": LINEAR, "n": LIF}, {"bits": 9}, None),
        ({"n": IF}, {}, "node 'n': are neurons behind no weights of their own"),
        ({"fc": LINEAR | {"weight": np.ones((2, 3))}}, {}, r"node 'fc': weight of shape \(2, 3\) does not fit"),
        ({"fc": LINEAR | {"weight": np.ones(2)}}, {}, r"node 'fc': weight of shape \(2,\) does not fit"),
        ({"fc": LINEAR | {"type": "Affine", "bias": np.ones(2)}}, {}, "node 'fc': has biases, and no neurons of its"),
        ({"fc": {"type": "Linear"}}, {}, "node 'fc': its fields are not those of NIR"),
        ({"fc": LINEAR, "n": without(IF, "v_threshold")}, {}, "node 'n': its fields are not those of NIR"),
    ],
)
def test_nodes_of_others_are_refused_by_name(
    tmp_path: Path, nodes: dict[str, Any], options: dict[str, Any], message: str | None
) -> None:
    path = foreign(tmp_path / "a.nir", nodes)
    with pytest.raises(NetworkError, match=rf"a\.nir: {message}" if message else "^--(dt|bits) .*: must be "):
        nir.read(path, **options)


def test_structures_of_others_are_refused(tmp_path: Path) -> None:
    edges = [("input", "fc"), ("fc", "a"), ("a", "b"), ("b", "fc"), ("b", "output")]
    path = foreign(tmp_path / "a.nir", {"fc": LINEAR, "a": LINEAR, "b": LINEAR}, edges)
    with pytest.raises(NetworkError, match="is in a circle that is no Linear of its neurons"):
        nir.read(path)
    path = foreign(tmp_path / "b.nir", {"fc": LINEAR}, [("input", "fc"), ("fc", "gone")])
    with pytest.raises(NetworkError, match="'fc' to 'gone': there is no such node"):
        nir.read(path)
    path = foreign(tmp_path / "c.nir", {"fc": LINEAR, "two": {"type": "Input", "shape": np.array([2])}})
    with pytest.raises(NetworkError, match="has 2 Input nodes, and one is read"):
        nir.read(path)


def test_kinds_that_nir_lacks_are_refused_by_name(tmp_path: Path) -> None:
    from test_contract import one

    from netx_export.network import KINDS

    for kind in KINDS.values():
        for neuron in (Neuron(3), None) if kind.may_spike else (None,):
            refusal, _ = attempt(one(kind, neuron), tmp_path / "a.nir", "nir")
            if refusal is None:
                assert_same(one(kind, neuron), nir.read(tmp_path / "a.nir"))
            else:
                assert refusal.startswith("one: layer it: a convT layer: NIR has none")


def test_biases_of_an_add_are_refused(tmp_path: Path) -> None:
    layers: list[Layer] = [
        Conv(in_shape=(1, 2, 2), shape=(1, 2, 2), weight=np.full((1, 1, 1, 1), 2), name=name, inputs=(INPUT,))
        for name in "ab"
    ]
    neuron = Neuron(3, bias=np.array([1]))
    layers.append(Add(in_shape=(1, 2, 2), shape=(1, 2, 2), inputs=("a", "b"), neuron=neuron, name="s"))
    with pytest.raises(NetworkError, match="layer s: an add with biases"):
        nir.write(Network(tuple(layers)), tmp_path / "a.nir")
    assert reference.simulate(Network(tuple(layers)), np.ones((1, 1, 2, 2, 3), int))[-1]["spikes"].any()


def test_neurons_that_send_values_are_refused(tmp_path: Path) -> None:
    """NIR knows none; the layer is named, and nothing is written."""
    weight = np.full((1, 1, 1, 1), 2)
    layer = Conv(in_shape=(1, 2, 2), shape=(1, 2, 2), weight=weight, name="a", neuron=SigmaDelta(3))
    with pytest.raises(NetworkError, match="layer a: sends values, with sigma-delta neurons: NIR has none such"):
        nir.write(Network((layer,)), tmp_path / "a.nir")
    assert not (tmp_path / "a.nir").exists()
