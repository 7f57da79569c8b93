"""Files of graphs: read back as written, never run as another network, refused in one line where something is wrong."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netx_files import edited, in_lava
from strategies import assert_same, chains, graphs, infos, networks

from netx_export import layer_table, netx
from netx_export.network import Add, Average, Conv, Dense, Flatten, Layer, Network, NetworkError, Neuron, Pool
from netx_export.netx.fields import is_graph

PINNED = "08dd8d5da9c926c4b12937eb511a285aad7126837521b72ff1d34768f768467e"
"""SHA-256 of the file of `chain`, written by the code that knew no graphs (h5py 3.16.0, HDF5 2.0.0)."""


def chain() -> Network:
    """Every kind of layer and field that a chain can hold."""
    conv = Conv(
        name="conv",
        in_shape=(2, 5, 4),
        shape=(2, 3, 4),
        weight=2 * np.arange(-18, 18).reshape(2, 2, 3, 3),
        padding=(0, 1),
        neuron=Neuron(100, 1000, 200, np.array([3, -4])),
        weight_scale=32.0,
    )
    flat = Flatten(name="flat", in_shape=(2, 3, 4), shape=(24,))
    delayed = Dense(
        name="late",
        in_shape=(24,),
        shape=(3,),
        weight=2 * np.arange(-30, 42).reshape(3, 24),
        delay=np.arange(72).reshape(3, 24) % 7,
        neuron=Neuron(np.array([5, 6, 7])),
    )
    last = Dense(
        name="last",
        in_shape=(3,),
        shape=(3,),
        weight=2 * np.arange(9).reshape(3, 3),
        recurrent=2 * np.arange(-4, 5).reshape(3, 3),
        neuron=Neuron(131071),
    )
    return Network((conv, flat, delayed, last), readout="voltage", info={"method": "mtt", "time_steps": 4})


def residual() -> Network:
    """A residual block: conv, conv without neurons, a shortcut that is the input of the block, and a readout."""

    def conv(name: str, source: str, neuron: Neuron | None, **fields: Any) -> Conv:
        weight = 2 * np.arange(1, 10).reshape(1, 1, 3, 3)
        maps = {"in_shape": (1, 4, 4), "shape": (1, 4, 4), "padding": (1, 1)}
        return Conv(name=name, inputs=(source,), weight=weight, neuron=neuron, **maps, **fields)

    add = Add(name="sum", inputs=("b", "stem"), in_shape=(1, 4, 4), shape=(1, 4, 4), neuron=Neuron(np.array([70])))
    layers: tuple[Layer, ...] = (
        conv("stem", "input", Neuron(20, bias=np.arange(16).reshape(1, 4, 4))),
        conv("a", "stem", Neuron(30, 4096, 1), weight_scale=2.5),
        conv("b", "a", None),
        add,
        Pool(name="pool", in_shape=(1, 4, 4), shape=(1, 2, 2)),
        Flatten(name="flat", in_shape=(1, 2, 2), shape=(4,)),
        Dense(
            name="out",
            in_shape=(4,),
            shape=(4,),
            weight=np.full((4, 4), -2),
            delay=np.full((4, 4), 1),
            recurrent=np.full((4, 4), 6),
            recurrent_delay=np.full((4, 4), 62),
            neuron=Neuron(9),
        ),
        Average(name="mean", in_shape=(4,), shape=(2,)),
    )
    return Network(layers, info={"time_steps": 3})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test writes its file."""
    return tmp_path / "a.net"


def read_quietly(path: Path) -> Network:
    """Read a file; no warning may be given."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return netx.read(path)


# ---------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("form", ["any", "currents", "spikes"])
def test_what_is_written_is_read_back(form: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """read(write(graph)) is the graph: names, inputs, weights, neurons, reset and information."""
    folder = tmp_path_factory.mktemp("graphs")
    seen = []

    @settings(max_examples=15, deadline=None)
    @given(network=graphs(form), info=infos)
    def check(network: Network, info: dict[str, Any]) -> None:
        network = replace(network, info=info)
        netx.write(network, folder / "a.net", allow_wrap=True)
        with h5py.File(folder / "a.net") as file:
            assert set(file) == {"graph" if is_graph(network) else "layer"}
        assert_same(read_quietly(folder / "a.net"), network)
        seen.append(network.is_chain)

    check()
    assert not all(seen)


@settings(max_examples=15, deadline=None)
@given(network=chains())
def test_chains_that_lava_dl_does_not_know_are_graphs(
    network: Network, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Pools, averages and layers without neurons anywhere in a chain are written and read back, too."""
    if not is_graph(network):
        return
    path = tmp_path_factory.mktemp("chains") / "a.net"
    netx.write(network, path, allow_wrap=True)
    assert_same(netx.read(path), network)


def test_every_field_comes_back(path: Path) -> None:
    """Also what random graphs do not hold: recurrent synapses, delays of their own, measurements."""
    network = residual()
    layers = list(network.layers)
    layers[0] = replace(layers[0], neuron=Neuron(20, 0), u_measured=99)
    network = replace(network, layers=tuple(layers))
    with pytest.warns(netx.NetxWarning, match=r"1 \(stem\): .* can reach inf, .* reached 99 \(0 % of the range\)"):
        netx.write(network, path)
    assert_same(netx.read(path), network)


@settings(max_examples=40, deadline=None)
@given(network=networks(), seed=st.integers(0, 3))
def test_chains_are_no_graphs(network: Network, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What lava-dl's loader runs stays in its form, with the version that older readers know."""
    path = tmp_path_factory.mktemp("chain") / f"{seed}.net"
    netx.write(network, path)
    with h5py.File(path) as file:
        assert (set(file), file.attrs["format_version"]) == ({"layer"}, 2)


def test_the_file_of_a_chain_is_byte_for_byte_that_of_before(path: Path) -> None:
    """The digest was taken of what the code before graphs wrote."""
    if (h5py.__version__, h5py.version.hdf5_version) != ("3.16.0", "2.0.0"):
        pytest.skip("the bytes are those of h5py 3.16.0 with HDF5 2.0.0")
    netx.write(chain(), path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == PINNED


def test_same_graph_same_bytes(tmp_path: Path) -> None:
    """Writing is deterministic."""
    for name in "ab":
        netx.write(residual(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_table_says_what_a_layer_takes() -> None:
    """A graph's table has one column more; a chain's is as it was."""
    lines = layer_table(residual()).splitlines()
    assert lines[0].split()[-1] == "takes"
    assert [line.split("  ")[-1].strip() for line in lines[1:5]] == ["input", "stem", "a", "b, stem"]
    assert "takes" not in layer_table(chain())


def test_how_to_run_it_is_no_recipe_for_lava_dl() -> None:
    """What `mtt-export` prints names the command that runs a graph, not lava-dl's loader."""
    assert "mtt simulate a.net INPUT --backend lava" in netx.in_lava(residual(), "a.net")
    assert "hdf5.Network" not in netx.in_lava(residual(), "a.net")


# ---------------------------------------------------------------------------------------------- lava-dl

LOAD = """
import sys
from netx_export.lava import child
child.load()
from lava.lib.dl import netx
for path in sys.argv[1:]:
    try:
        print("LOADED", len(netx.hdf5.Network(path, input_shape=(4, 4, 1)).layers))
    except Exception as error:
        print("FAILED", type(error).__name__)
"""


@pytest.mark.lava
def test_lava_dl_fails_at_once_on_a_graph(tmp_path: Path) -> None:
    """It loads the chain beside it, and of the graph not one layer."""
    netx.write(residual(), tmp_path / "graph.net")
    netx.write(chain(), tmp_path / "chain.net")
    done = in_lava(LOAD, str(tmp_path / "graph.net"), str(tmp_path / "chain.net"))
    said = [line for line in done.stdout.splitlines() if line.startswith(("LOADED", "FAILED"))]
    assert said == ["FAILED KeyError", "LOADED 3"], done.stderr


# ---------------------------------------------------------------------------------------------- what is wrong


def put(name: str, value: Any) -> Callable[[h5py.File], None]:
    """A change: another value, or (None) nothing."""

    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value

    return change


def attribute(name: str, value: Any, group: str = "/") -> Callable[[h5py.File], None]:
    """A change of an attribute."""
    return lambda file: file[group].attrs.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("graph/4/inputs", [3, 9]), "graph/4/inputs: holds 9; inputs are groups before this one, 0..3"),
        (put("graph/4/inputs", [3, 4]), "graph/4/inputs: holds 4; inputs are groups before"),
        (put("graph/2/inputs", [3]), "graph/2/inputs: holds 3; inputs are groups before"),
        (put("graph/2/inputs", [-1]), "graph/2/inputs: holds -1"),
        (put("graph/4/inputs", [3, 3]), r"graph/4/inputs: is \[3, 3\]; an add takes two or more different"),
        (put("graph/4/inputs", [3]), r"graph/4/inputs: is \[3\]; an add takes two"),
        (lambda file: file.copy("graph/1/neuron", "graph/6/neuron"), "layer flat: a flatten layer has no neurons"),
        (put("graph/2/inputs", [0, 1]), r"graph/2/inputs: is \[0, 1\]; .* another kind one"),
        (put("graph/2/inputs", None), "graph/2/inputs: is missing"),
        (put("graph/2/inputs", [0.5]), "graph/2/inputs: holds float64, not integers"),
        (put("graph/2/inputs", "stem"), "graph/2/inputs: holds a text, not integers"),
        (put("graph/3/inputs", [1]), "layer a feeds nothing; only the last layer may"),
        (put("graph/5/inputs", [0]), None),
        (put("graph/7/inputs", [5]), r"graph/7: layer out: takes a flat input, not \(1, 2, 2\)"),
        (put("graph/4/shape", [1, 5, 4]), r"graph/4: layer sum: gives \(1, 4, 4\), not the shape \(1, 5, 4\)"),
        (put("graph/0/shape", [1, 5, 4]), r"graph/1: layer stem: gives \(1, 5, 4\), not the shape \(1, 4, 4\)"),
        (put("graph/0/shape", None), "graph/0/shape: is missing"),
        (put("graph/0/type", b"conv"), "graph/0/type: the first entry of a graph is its input"),
        (put("graph/3/type", b"input"), "graph/3/type: 'input' is no layer of a graph; .*conv, .*add are"),
        (put("graph/3/type", b"concat"), "graph/3/type: 'concat' is no layer of a graph"),
        (put("graph/3/bias", [1]), "graph/3/bias: there are no neurons that could have one"),
        (put("graph/7/delay_rec", 63), "graph/7/delay_rec: holds what no graph may: lava-dl clamps delays"),
        (put("graph/2/neuron/gradedSpike", True), "graph/2/neuron/gradedSpike: holds what no graph may"),
        (
            put("graph/2/weight", np.full((1, 1, 3, 3), 0.5)),
            "graph/2/weight: holds what no graph may: lava-dl cuts 0.5",
        ),
        (put("graph/3/shape", [1 << 12, 1 << 12, 2]), "graph/3/shape: is .* of all layers are not read"),
        (put("graph/2", None), "group graph/2 is missing; layers are numbered 0..7"),
        (put("layer/0/type", b"input"), "group 'graph' beside a group 'layer', so which network is meant is unknown"),
        (attribute("format", "other"), "group 'graph' in a file without the attribute format of this package"),
        (attribute("format_version", 2), "group 'graph' in a file of format version 2; graphs have 3"),
        (attribute("format_version", 4), "format version 4 is newer than 3"),
        (attribute("reset", "none"), "reset 'none' is neither"),
        (attribute("name", "stem", "graph/2"), "two layers are called 'stem'"),
        (attribute("name", "input", "graph/2"), "two layers are called 'input'"),
        (attribute("name", "x" * 101, "graph/2"), "graph/2: attribute name is .* at most 100 characters"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    change: Callable[[h5py.File], None], message: str | None, path: Path
) -> None:
    """Which file, group and field, and what is allowed."""
    netx.write(residual(), path)
    with edited(path) as file:
        change(file)
    if message is None:
        message = "layer sum feeds nothing"
    with pytest.raises(NetworkError, match=message) as caught:
        netx.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300


def test_too_many_layers_are_not_read(path: Path) -> None:
    """Their number is bounded before one of them is looked at."""
    netx.write(residual(), path)
    with edited(path) as file:
        for number in range(9, 4098):
            file.create_group(f"graph/{number}")
    with pytest.raises(NetworkError, match="group graph: holds 4,098 layers; more than 4,096 are not read"):
        netx.read(path)


def test_a_flipped_bit_is_noticed(path: Path) -> None:
    """The digest covers graphs as it does chains."""
    netx.write(residual(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(NetworkError, match="is damaged"):
        netx.read(path)


def changed(number: int, **fields: Any) -> Network:
    """The residual network with another layer of this number."""
    network = residual()
    layers = list(network.layers)
    layers[number] = replace(layers[number], **fields)
    return replace(network, layers=tuple(layers))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: changed(2, weight=np.full((1, 1, 3, 3), 3)), r"3 \(b\): weight 3 is not an even integer"),
        (lambda: changed(6, weight=np.full((4, 4), 256)), r"7 \(out\): weight 256 is not an even"),
        (lambda: changed(6, delay=np.full((4, 4), 63)), r"7 \(out\): delay 63 is more than 62"),
        (lambda: changed(6, recurrent_delay=np.full((4, 4), 63)), r"7 \(out\): recurrent delay 63 is more than 62"),
        (lambda: changed(3, neuron=Neuron(1 << 17)), r"4 \(sum\): threshold 131072 is not an integer in 0\.\.131071"),
        (lambda: changed(3, neuron=Neuron(1, bias=np.array([5000]))), r"4 \(sum\): bias 5000"),
        (lambda: changed(7, name="x" * 101), "its name is not a printable text of at most 100 characters"),
        (lambda: changed(7, name="a\nb"), "its name is not a printable text"),
        (lambda: Network((Pool(in_shape=(1, 4, 4), shape=(1, 2, 2)),)), "no layer has neurons"),
        (lambda: changed(1, u_measured=1 << 23), r"2 \(a\): over the training data the current u reached 8388608"),
        (
            lambda: changed(1, neuron=Neuron(9, 0)),
            r"2 \(a\): with all inputs spiking the current u can reach inf, beyond 8388607",
        ),
    ],
)
def test_what_no_file_holds_is_refused_by_name(network: Callable[[], Network], message: str, path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(NetworkError, match=message):
        netx.write(network(), path)
    assert not path.exists()


def test_a_merge_of_spikes_for_chips_without_a_clock(path: Path) -> None:
    """A graph that resets by subtraction keeps its reset and odd weights; recurrence is refused."""
    network = residual()
    conv, _, _, add, *_ = network.layers
    other = replace(conv, name="other", inputs=("input",), weight=np.full((1, 1, 3, 3), 255))
    add = replace(add, inputs=("stem", "other"), neuron=None)
    last = replace(conv, name="last", inputs=("sum",))
    graph = Network((conv, other, add, last), reset="subtract")
    netx.write(graph, path)
    read = netx.read(path)
    assert read.reset == "subtract"
    assert_same(read, graph)
    with pytest.raises(NetworkError, match=r"7 \(out\): reset 'subtract' knows no recurrence"):
        netx.write(replace(network, reset="subtract"), path)
