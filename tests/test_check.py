"""The hardware check: every rule at its limit and one beyond, formulas against values worked out by hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles import ProfileError, Report, check, load
from hw_profiles.families import FAMILIES
from hw_profiles.families.loihi import loihi1_axon_bits
from hw_profiles.families.speck import core_layers
from netx_export.network import (
    Average,
    Conv,
    Dense,
    Encoder,
    Flatten,
    Layer,
    Network,
    Neuron,
    Pool,
    Sigma,
    SigmaDelta,
    conv_shape,
)


def neuron(threshold: int = 100, **changes: Any) -> Neuron:
    return Neuron(threshold=threshold, **changes)


def dense(inputs: int, outputs: int, value: int = 2, name: str = "fc", **changes: Any) -> Dense:
    changes = {"weight": np.full((outputs, inputs), value, np.int64), "neuron": neuron(), **changes}
    return Dense(in_shape=(inputs,), shape=(outputs,), name=name, **changes)


def conv(in_shape: tuple[int, ...], channels: int, kernel: tuple[int, int] = (3, 3), **changes: Any) -> Conv:
    weight = np.full((channels, in_shape[0] // changes.get("groups", 1), *kernel), 2, np.int64)
    geometry = [changes.get(key, default) for key, default in (("stride", (1, 1)), ("padding", (0, 0)))]
    shape = conv_shape(in_shape, channels, kernel, *geometry, changes.get("dilation", (1, 1)))
    changes = {"weight": weight, "neuron": neuron(), "name": "conv", **changes}
    return Conv(in_shape=in_shape, shape=shape, **changes)


def pool(in_shape: tuple[int, ...], kernel: tuple[int, int] = (2, 2), **changes: Any) -> Pool:
    stride, padding = changes.pop("stride", kernel), changes.pop("padding", (0, 0))
    shape = conv_shape(in_shape, in_shape[0], kernel, stride, padding)
    return Pool(in_shape=in_shape, shape=shape, name="pool", kernel=kernel, stride=stride, padding=padding)


def flatten(in_shape: tuple[int, ...]) -> Flatten:
    return Flatten(in_shape=in_shape, shape=(int(np.prod(in_shape)),), name="flatten")


def chain(*layers: Layer) -> Network:
    """The layers one after the other; a name that stands twice gets a number."""
    names = [layer.name for layer in layers]
    numbers = (names[:i].count(name) + 1 for i, name in enumerate(names))
    named = zip(layers, names, numbers, strict=True)
    return Network(tuple(replace(layer, name=f"{name}{n}" if n > 1 else name) for layer, name, n in named))


def run(profile: str, *layers: Layer, **arguments: Any) -> Report:
    return check(chain(*layers), load(profile), **arguments)


def said(report: Report, rule: str, severity: str = "violation") -> list[str]:
    return [str(finding) for finding in report.of(severity) if finding.rule == rule]  # type: ignore[arg-type]


def n_mnist(pool_neurons: bool) -> Network:
    """The paper's 3C1FC: 6,160 weights; for Loihi its pools are grouped convolutions with neurons."""

    def half(in_shape: tuple[int, ...]) -> Layer:
        if not pool_neurons:
            return pool(in_shape)
        return conv(in_shape, in_shape[0], (2, 2), stride=(2, 2), groups=in_shape[0], name="pool")

    return chain(
        conv((2, 34, 34), 8, stride=(2, 2), padding=(1, 1), name="conv1"),
        half((8, 17, 17)),
        conv((8, 8, 8), 16, padding=(1, 1), name="conv2"),
        half((16, 8, 8)),
        conv((16, 4, 4), 16, padding=(1, 1), name="conv3"),
        flatten((16, 4, 4)),
        dense(256, 10, name="fc"),
    )


# Whole networks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "unchecked"),
    [("loihi1", []), ("kapoho-bay", [])]
    + [(name, ["input_axons", "output_axons"]) for name in ("loihi2", "hala-point")],
)
def test_n_mnist_network_fits_loihi(name: str, unchecked: list[str]) -> None:
    """The paper's N-MNIST network fits every Loihi; what nobody published of Loihi 2 is said."""
    report = check(n_mnist(pool_neurons=True), load(name), time_steps=16, input_payload=1)
    assert report.fits
    assert report.placement.complete
    assert [finding.rule for finding in report.of("not checked")] == unchecked
    more = " as far as checked (2 not checked)" if unchecked else ""
    assert str(report).startswith(f"network fits {name}{more}\n")


def test_an_unknown_input_is_not_called_binary() -> None:
    """On a chip of binary spikes an input nobody told about is reported as not checked."""
    report = check(n_mnist(pool_neurons=True), load("loihi1"), time_steps=16)
    assert report.fits
    assert "conv1: input payload: this chip's spikes carry values up to 1" in str(report)
    assert "payload" not in [f.rule for f in check(n_mnist(pool_neurons=True), load("loihi2")).of("not checked")]


@pytest.mark.parametrize("name", ["speck2e", "speck2f", "dynapcnn"])
def test_n_mnist_network_fits_speck(name: str) -> None:
    """The paper's N-MNIST network fits the event-driven chips, with neuron-less pools."""
    report = check(n_mnist(pool_neurons=False), load(name))
    assert report.fits
    assert report.of("warning") == ()
    assert [core.layers for core in report.placement.cores] == [("conv3",), ("fc",), ("conv1",), ("conv2",)]


def test_speck_memory_of_n_mnist_network_by_hand() -> None:
    """Kernel c * 2^(ceil log2(kx ky) + ceil log2 f), neurons f * 2^(ceil log2 fy + ceil log2 fx)."""
    cores = core_layers(n_mnist(pool_neurons=False))
    assert [core.kernel_words for core in cores] == [2 * 16 * 8, 8 * 16 * 16, 16 * 16 * 16, 16 * 16 * 16]
    assert [core.neuron_words for core in cores] == [8 * 32 * 32, 16 * 8 * 8, 16 * 4 * 4, 10]
    assert [core.bias_words for core in cores] == [0, 0, 0, 0]


def test_vgg9_does_not_fit_speck2e() -> None:
    """The paper's VGG9 fails on Speck2e layer by layer, each with what it needs and what there is."""
    layers: list[Layer] = [pool((2, 128, 128), (4, 4))]
    for number, (channels, halve) in enumerate(
        [(64, 0), (128, 1), (256, 0), (256, 1), (512, 0), (512, 1), (512, 0), (512, 1)], start=1
    ):
        layers.append(conv(layers[-1].shape, channels, padding=(1, 1), name=f"conv{number}"))
        if halve:
            layers.append(pool(layers[-1].shape))
    layers += [flatten(layers[-1].shape), dense(512 * 2 * 2, 10)]
    cores = core_layers(chain(*layers))
    by_hand = {
        "conv1": (2 * 16 * 64, 64 * 32 * 32),
        "conv2": (64 * 16 * 128, 128 * 32 * 32),
        "conv3": (128 * 16 * 256, 256 * 16 * 16),
        "conv4": (256 * 16 * 256, 256 * 16 * 16),
        "conv5": (256 * 16 * 512, 512 * 8 * 8),
        "conv6": (512 * 16 * 512, 512 * 8 * 8),
        "conv7": (512 * 16 * 512, 512 * 4 * 4),
        "conv8": (512 * 16 * 512, 512 * 4 * 4),
        "fc": (512 * 4 * 16, 10),
    }
    assert {core.layer.name: (core.kernel_words, core.neuron_words) for core in cores} == by_hand
    report = run("speck2e", *layers)
    assert not report.fits
    memory = [finding for finding in report.of("violation") if finding.rule == "core_memory"]
    assert [(f.layer, f.quantity, f.used) for f in memory] == [
        ("conv2", "kernel memory", 131072),
        ("conv2", "neuron memory", 131072),
        *((f"conv{n}", "kernel memory", by_hand[f"conv{n}"][0]) for n in range(3, 9)),
    ]
    assert "conv2: neuron memory 131,072 > 65,536: use fewer channels" in str(report)


@pytest.mark.parametrize(
    ("synapses", "bits"), [(0, 0), (1, 64), (6, 64), (7, 128), (64, 576), (256, 2304), (1024, 9216)]
)
def test_loihi1_axon_bits_by_hand(synapses: int, bits: int) -> None:
    """Eight-bit dense axons: 64 * 8 + 10 = 522 bits take 9 words of 64, and so on."""
    assert loihi1_axon_bits(synapses) == bits


def test_loihi1_axon_bits_of_sparse_delayed_synapses_by_hand() -> None:
    """65 synapses of 8 + 6 + 10 bits: ceil(1546 / 64) = 25 words and one word; 11 of 5 bits: 65 bits, 2 words."""
    assert loihi1_axon_bits(65, delay_bits=6, index_bits=10) == 26 * 64
    assert loihi1_axon_bits(11, weight_bits=5) == 2 * 64


def test_all_violations_come_at_once() -> None:
    """One check says everything that is wrong, worst first, each with layer, limit, source and remedy."""
    bad = dense(4, 2, value=300, neuron=neuron(131_072, voltage_decay=5000, bias=np.array([5000, 0])), name="fc1")
    report = run("loihi1", bad, dense(2, 3, value=-301, name="fc2"))
    assert [(f.layer, f.rule) for f in report.of("violation")] == [
        ("fc1", "weights"),
        ("fc2", "weights"),
        ("fc2", "weights"),
        ("fc1", "threshold"),
        ("fc1", "decays"),
        ("fc1", "bias"),
    ]
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["violation", "warning", "not checked", "note"].index)
    assert all(f.source and f.status and f.remedy and f.limit is not None for f in report.of("violation"))
    assert "fc1: weight 300 > 254: train with --profile loihi1, or lower the layer's weight scale and" in str(report)
    assert str(report).startswith("network does not fit loihi1: 6 violations\n")


def test_report_is_json() -> None:
    """A report goes through JSON unchanged."""
    report = run("loihi1", dense(4, 2, value=300))
    data = json.loads(json.dumps(report.to_dict()))
    assert data == report.to_dict()
    assert (data["fits"], data["profile"]) == (False, "loihi1")
    assert data["findings"][0]["used"] == 300


def test_every_rule_is_named_and_explained() -> None:
    """Rules have names of their own and say what they check."""
    for rules in (family.rules for family in FAMILIES.values()):
        assert len({rule.__name__ for rule in rules}) == len(rules)
        assert all(rule.__doc__ for rule in rules)


@pytest.mark.parametrize("argument", ["time_steps", "input_payload"])
def test_arguments_must_be_positive(argument: str) -> None:
    """Zero time steps or an empty payload is a mistake of the caller."""
    with pytest.raises(ProfileError, match=f"{argument} must be at least 1, got 0"):
        run("loihi2", dense(2, 2), **{argument: 0})


# Rules at the limit, and one beyond ------------------------------------------------------------------------

Case = tuple[str, str, Callable[[int], Any], int, int]


def with_neuron(**changes: Any) -> Dense:
    return dense(2, 2, neuron=neuron(**changes))


def with_weight(value: int) -> Dense:
    return dense(2, 2, weight=np.array([[value, 2], [2, 2]]))


def recurrent(value: int) -> Dense:
    return dense(2, 2, recurrent=np.full((2, 2), value))


def biased(value: int, exponent: int = 6) -> Dense:
    return with_neuron(bias=np.array([value, 0]), bias_exponent=exponent)


def summing_to(total: int) -> Dense:
    """One neuron, second layer: inputs of weight 2 that add up to `total`."""
    return dense(total // 2, 1, name="fc2")


def hidden(layer: Layer) -> tuple[Layer, Layer]:
    """The layer, and before it one that has its inputs as neurons."""
    size = layer.in_shape[0]
    before = conv((1, 1, size), 1, (1, 1), name="before")
    return (before, flatten((1, 1, size)), layer)  # type: ignore[return-value]


AT_LIMIT: list[Case] = [
    # rule, profile, layer or layers made from a number, the limit, one beyond
    ("weights", "loihi1", with_weight, 254, 256),
    ("weights", "loihi1", with_weight, -256, -258),
    ("weights", "loihi2", with_weight, 254, 255),
    ("weights", "loihi2", recurrent, 254, 256),
    ("weights", "loihi2", recurrent, -256, -257),
    ("weights", "speck2e", with_weight, 127, 128),
    ("weights", "speck2e", with_weight, -128, -129),
    ("threshold", "loihi1", lambda n: with_neuron(threshold=n), 131_071, 131_072),
    ("threshold", "loihi2", lambda n: with_neuron(threshold=n), 0, -1),
    ("threshold", "speck2e", lambda n: with_neuron(threshold=n), 32_767, 32_768),
    ("decays", "loihi2", lambda n: with_neuron(current_decay=n), 4096, 4097),
    ("decays", "loihi2", lambda n: with_neuron(current_decay=n), 1, 0),
    ("decays", "loihi2", lambda n: with_neuron(voltage_decay=n), 4095, 4097),
    ("decays", "loihi2", lambda n: with_neuron(voltage_decay=n), 0, -1),
    ("decays", "speck2e", lambda n: with_neuron(voltage_decay=n), 0, 1),
    ("decays", "speck2e", lambda n: with_neuron(current_decay=n), 4096, 4095),
    ("bias", "loihi1", biased, 4095, 4096),
    ("bias", "loihi1", biased, -4096, -4097),
    ("bias", "loihi1", lambda n: biased(1, n), 7, 8),
    ("bias", "loihi1", lambda n: biased(1, n), 0, -1),
    ("bias", "speck2e", biased, 0, 1),
    ("delay", "loihi1", lambda n: dense(2, 2, delay=np.array([[0, 1], [n, 0]])), 62, 63),
    ("delay", "speck2e", lambda n: dense(2, 2, delay=np.full((2, 2), n)), 0, 1),
    ("fan_in", "loihi1", summing_to, 131_070, 131_072),
    ("fan_in", "loihi2", lambda n: hidden(summing_to(n)), 131_070, 131_072),
    ("neurons", "loihi1", lambda n: conv((1, 1, n), 1, (1, 1)), 128 * 1024, 128 * 1024 + 1),
    ("neurons", "kapoho-bay", lambda n: conv((1, 1, n), 1, (1, 1)), 256 * 1024, 256 * 1024 + 1),
    # A dense layer's inputs are input axons, a convolution's are pixels; 3 x 3 lists of 12,942 synapses take 9 *
    # (202 chunks of 576 bits + 128 bits for the last 14).
    ("input_axons", "loihi1", lambda n: dense(n, 1), 4096, 4097),
    ("input_axons", "loihi1", lambda n: conv((1, 64, n), 1, (64, n)), 64, 65),
    ("synapse_memory", "loihi1", lambda n: conv((n, 3, 3), 1, (3, 3)), 12_942, 12_943),
    ("core_count", "speck2e", lambda n: [dense(2, 2, name=f"fc{i}") for i in range(n)], 9, 10),
    # 1x1 kernels of one channel: kernel words = channels out, rounded up.
    ("core_memory", "speck2e", lambda n: dense(n, 64), 1024, 1025),
    ("core_memory", "speck2e", lambda n: conv((1, 64, 64), n, (1, 1)), 16, 17),
    ("feature_maps", "speck2e", lambda n: conv((1, n, n), 1, (1, 1), stride=(2, 2)), 128, 129),
    ("feature_maps", "speck2e", lambda n: conv((1, n, n), 1, (1, 1)), 64, 65),
    ("feature_maps", "speck2e", lambda n: dense(n, 2), 1024, 1025),
    ("feature_maps", "speck2e", lambda n: dense(2, n), 1024, 1025),
    ("kernels", "speck2e", lambda n: conv((1, 32, 32), 1, (n, n)), 16, 17),
    ("kernels", "speck2e", lambda n: conv((1, 32, 32), 1, (3, n)), 3, 4),
    ("kernels", "speck2e", lambda n: [flatten((1, n, n)), dense(n * n, 2)], 16, 17),
    ("kernels", "speck2e", lambda n: conv((1, 32, 32), 1, (1, 1), stride=(n, n)), 8, 9),
    ("kernels", "speck2e", lambda n: conv((1, 32, 32), 1, (1, 1), stride=(n, 1)), 2, 3),
    ("kernels", "speck2e", lambda n: conv((1, 32, 32), 1, (1, 1), padding=(0, n)), 7, 8),
    ("kernels", "speck2e", lambda n: conv((2, 8, 8), 2, groups=n), 1, 2),
    ("kernels", "speck2e", lambda n: conv((2, 8, 8), 2, dilation=(1, n)), 1, 2),
    ("pools", "speck2e", lambda n: [conv((1, 32, 32), 1, (1, 1)), pool((1, 32, 32), (n, n))], 8, 16),
    ("pools", "speck2e", lambda n: [conv((1, 32, 32), 1, (1, 1)), pool((1, 32, 32), (n, n))], 2, 3),
    ("pools", "speck2e", lambda n: [conv((1, 32, 32), 1, (1, 1)), pool((1, 32, 32), (2, n))], 2, 4),
    # Before the first core only the camera pools, by 1, 2 or 4.
    ("pools", "speck2e", lambda n: [pool((2, 32, 32), (n, n)), conv((2, 32 // n, 32 // n), 1)], 4, 8),
    ("pools", "speck2e", lambda n: [pool((2, 32, 32), (n, n)), conv((2, 32 // n, 32 // n), 1)], 2, 3),
    ("pools", "speck2e", lambda n: [pool((1, 32, 32), (2, 2)), pool((1, 16, 16), (n, n))], 2, 4),
    ("camera", "speck2e", lambda n: [pool((n, 32, 32)), conv((n, 16, 16), 1)], 2, 3),
    ("camera", "speck2e", lambda n: [pool((1, n, n)), conv((1, n // 2, n // 2), 1, stride=(2, 2))], 128, 130),
    ("pools", "speck2e", lambda n: pool((1, 32, 32), (2, 2), stride=(n, n)), 2, 1),
    ("pools", "speck2e", lambda n: pool((1, 32, 32), (2, 2), padding=(n, n)), 0, 1),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "profile", "make", "limit", "beyond"), AT_LIMIT)
def test_rule_at_limit_and_beyond(rule: str, profile: str, make: Callable[[int], Any], limit: int, beyond: int) -> None:
    """A network at the limit passes the rule; one beyond violates it."""
    for number, wrong in ((limit, False), (beyond, True)):
        layers = make(number)
        report = run(profile, *(layers if isinstance(layers, list | tuple) else [layers]))
        assert bool(said(report, rule)) is wrong, report
        assert not wrong or not report.fits


@pytest.mark.parametrize(
    ("rule", "make", "limit", "beyond", "words"),
    [
        (
            "single_events", lambda n: dense(2, 2, value=127, neuron=neuron(n)), 32_640, 32_641,
            "fc: threshold plus largest weight 32,768 > 32,767: a spike can lose 1 of v, which saturates",
        ),
        (
            "outputs", lambda n: dense(2, n), 15, 16,
            "fc: outputs 16 > 15: the chip's readout names no more: read the last core's events",
        ),
    ],
)  # fmt: skip
def test_what_loads_on_speck_is_a_warning(
    rule: str, make: Callable[[int], Any], limit: int, beyond: int, words: str
) -> None:
    """A threshold up to 2^15 - 1, whatever the weights, and more outputs than the readout names load on the chip."""
    assert said(run("speck2e", make(limit)), rule, "warning") == []
    report = run("speck2e", make(beyond))
    assert report.fits
    (message,) = said(report, rule, "warning")
    assert message.startswith(words)


def test_samna_takes_the_largest_threshold_with_any_weight() -> None:
    """2^15 - 1 with weights of 127 fits; one more does not, whatever the weights."""
    assert run("speck2e", dense(2, 2, value=127, neuron=neuron(32_767))).fits
    report = run("speck2e", dense(2, 2, value=0, neuron=neuron(32_768)))
    assert {f.rule for f in report.of("violation")} == {"threshold", "single_events"}  # v never gets there


def test_a_pool_of_the_input_is_the_cameras() -> None:
    """The finding says which sizes the camera has and that no core pools its input; it may pool oblong, a core not."""
    (message,) = said(run("speck2e", pool((2, 32, 32), (8, 8)), conv((2, 4, 4), 1)), "pools")
    assert message.startswith("pool: pool of the input 8 not in 1, 2, 4: use one of these, or a strided convolution")
    assert "only the camera does [SV, documented]" in message
    assert run("speck2e", pool((2, 32, 32), (2, 4)), conv((2, 16, 8), 1)).fits
    between = [conv((1, 32, 32), 1, (1, 1)), pool((1, 32, 32), (2, 4))]
    assert any("not square" in text for text in said(run("speck2e", *between), "pools"))


def changed(folder: Path, extends: str, **facts: int) -> str:
    """A profile with other numbers."""
    known = load(extends).facts
    lines = [f'title = "changed"\nextends = "{extends}"\n[facts]']
    for name, value in facts.items():
        unit, status = getattr(known, name).unit, "documented"
        lines.append(f'{name} = {{ value = {value}, unit = "{unit}", source = ["none"], status = "{status}" }}')
    path = folder / "changed.toml"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_a_layer_is_split_by_what_runs_out_first_and_the_note_says_so() -> None:
    """1,536 neurons go on two cores of 1,024; 31 dense outputs of 4,096 inputs on two cores for their memory."""
    (note,) = said(run("loihi1", conv((1, 1, 1536), 1, (1, 1), name="conv3")), "neurons", "note")
    assert note == "conv3: neurons 1,536 > 1,024: split over 2 cores [NL, documented]"
    # 4096 axons of ceil((30 * 8 + 10) / 64) = 4 words are the 1,048,576 bits; one more output takes a fifth word.
    assert run("loihi1", dense(4096, 30)).placement.cores[0].used["synapse memory"] == 1_048_576
    (note,) = said(run("loihi1", dense(4096, 31)), "synapse_memory", "note")
    assert note.startswith("fc: synapse memory 1,310,720 > 1,048,576: split over 2 cores")


def test_more_cores_than_the_board_has(tmp_path: Path) -> None:
    """What a core's memory splits further than there are cores does not fit."""
    small = changed(tmp_path, "loihi1", cores_per_chip=1)
    assert run(small, dense(4096, 30)).fits
    (message,) = said(run(small, dense(4096, 31)), "cores")
    assert message.startswith("cores 2 > 1: use fewer channels")


def test_synapses_per_chip_at_limit_and_beyond(tmp_path: Path) -> None:
    """Where a chip's synapses are known, stored weights count against them, recurrent ones too."""
    few = changed(tmp_path, "loihi2", synapses_per_chip=8)
    assert said(run(few, recurrent(2)), "synapses") == []
    assert len(said(run(few, dense(3, 3)), "synapses")) == 1


def test_estimated_limit_warns(tmp_path: Path) -> None:
    """Loihi 2's synapse memory is an estimate: cores needed only because of it warn and do not fail."""
    small = changed(tmp_path, "loihi2", cores_per_chip=1)
    assert run(small, dense(4096, 32)).of("warning") == ()
    report = run(small, dense(4096, 33))
    assert report.fits
    (message,) = said(report, "cores", "warning")
    assert "a limit is an estimate" in message
    assert not run(small, dense(4096, 8193)).fits  # its neurons alone need two cores


def test_output_axons_at_limit_and_beyond(tmp_path: Path) -> None:
    """A neuron needs an output axon for every core it feeds: three cores of one neuron each are too many for two."""
    layers = [dense(2, 1, name="fc1"), dense(1, 2, name="fc2")]
    small = changed(tmp_path, "loihi1", neurons_per_core=1, output_axons_per_core=2)
    assert run(small, *layers).fits
    layers[1] = dense(1, 3, name="fc2")
    (message,) = said(run(small, *layers), "output_axons")
    assert message.startswith("fc1: output axons of a single neuron 3 > 2: make the layer after it smaller")


def test_unshared_thresholds_and_formats(tmp_path: Path) -> None:
    """Eight thresholds a core, or sixteen, as sources go: nine warn, seventeen fail; formats alike."""

    def with_thresholds(n: int) -> Dense:
        return dense(2, n, neuron=neuron(np.arange(n)))  # type: ignore[arg-type]

    assert run("loihi1", with_thresholds(8)).of("warning") == ()
    assert len(said(run("loihi1", with_thresholds(9)), "threshold_profiles", "warning")) == 1
    assert len(said(run("loihi1", with_thresholds(17)), "threshold_profiles")) == 1
    layers = [dense(2, 2, name=f"fc{i}") for i in range(9)]
    assert len(run("loihi1", *layers[:8]).placement.cores) == 1
    assert len(run("loihi1", *layers).placement.cores) == 2  # packing keeps to the smaller number
    none = changed(tmp_path, "loihi1", synapse_formats_per_core=0)
    assert len(said(run(none, layers[0]), "synapse_formats")) == 1


def test_layers_that_compete_for_a_core(tmp_path: Path) -> None:
    """Three layers of 64 Ki words of kernels want the two cores that have them: the reason names all."""
    big = [conv((64, 4, 4), 64, (3, 3), padding=(1, 1), name=f"conv{i}") for i in range(3)]
    assert said(run("speck2e", *big[:2]), "assignment") == []
    report = run("speck2e", *big)
    (message,) = said(report, "assignment")
    assert message.startswith("layers conv0, conv1, conv2 compete for cores: 3 > 2: only cores 5, 6 have the memory")
    assert report.placement.rivals == ((("conv0", "conv1", "conv2"), (5, 6)),)


def test_only_what_is_not_placed_is_listed_so() -> None:
    """Of three layers that want two cores two have them; a layer that fits nowhere is listed beside the third."""
    big = [conv((64, 4, 4), 64, (3, 3), padding=(1, 1), name=f"conv{i}") for i in range(3)]
    placement = run("speck2e", *big, conv((64, 4, 4), 256, (3, 3), padding=(1, 1), name="huge")).placement
    placed = {name for core in placement.cores for name in core.layers}
    assert len(placed) == 2
    assert set(placement.unplaced) == {"conv0", "conv1", "conv2", "huge"} - placed
    assert str(placement).splitlines()[0] == f"2 of 9 cores in use; not placed: {', '.join(placement.unplaced)}"
    assert placement.to_dict()["unplaced"] == list(placement.unplaced)


def test_layers_without_neurons_are_not_placed() -> None:
    """What has no neurons has no core; that nothing was placed is said."""
    report = run("loihi1", dense(2, 2, neuron=None))
    assert said(report, "placement", "not checked") == ["placement on cores: fc has no neurons"]
    assert "not placed: fc has no neurons" in str(report)


@dataclasses.dataclass(frozen=True, eq=False)
class Pausing(Neuron):
    """A neuron with a refractory period."""

    refractory: int = 1


@pytest.mark.parametrize(("steps", "severity"), [(63, None), (64, "warning"), (65, "violation"), (0, "violation")])
def test_refractory_at_limit_and_beyond(steps: int, severity: str | None) -> None:
    """Loihi 1 pauses for 1 to 63 steps, or 64 as another source has it."""
    report = run("loihi1", dense(2, 2, neuron=Pausing(threshold=100, refractory=steps)))
    assert [f.severity for f in report.findings if f.rule == "refractory"] == ([severity] if severity else [])


def test_weight_exponent_at_limit_and_beyond() -> None:
    """Loihi 1's weights have a power of two in common, -7 to 7."""

    @dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
    class Scaled(Dense):
        weight_exponent: int = 0

    def scaled(exponent: int) -> Dense:
        weight = np.full((2, 2), 2)
        return Scaled(in_shape=(2,), shape=(2,), weight=weight, neuron=neuron(), weight_exponent=exponent)

    for limit, beyond in ((7, 8), (-7, -8)):
        assert said(run("loihi1", scaled(limit)), "weight_exponent") == []
        assert len(said(run("loihi1", scaled(beyond)), "weight_exponent")) == 1


def test_disputed_limit_warns_between_the_sources() -> None:
    """A voltage decay of 4096 passes one source's limit and not the other's: a warning, not a failure."""
    assert said(run("loihi1", with_neuron(voltage_decay=4095)), "decays", "warning") == []
    report = run("loihi1", with_neuron(voltage_decay=4096))
    assert report.fits
    (message,) = said(report, "decays", "warning")
    assert "voltage decay 4,096 > 4,095" in message
    assert "sources disagree on voltage_decay_max: 4,095 or 4,096" in message


def test_disputed_number_of_chips_warns_from_the_smaller(tmp_path: Path) -> None:
    """Kapoho Point has 8 chips or 4: neurons for more than 4 warn, for more than 8 fail."""
    small = changed(tmp_path, "kapoho-point", cores_per_chip=2, neurons_per_core=8)
    sizes = (4 * 2 * 8, 4 * 2 * 8 + 1, 8 * 2 * 8, 8 * 2 * 8 + 1)
    fits, warns, still, fails = (run(small, conv((1, 1, size), 1, (1, 1))) for size in sizes)
    assert fits.fits
    assert not fits.of("warning")
    assert "neurons 65 > 64" in said(warns, "neurons", "warning")[0]
    assert still.fits
    assert still.of("warning")
    assert "neurons 129 > 128" in said(fails, "neurons")[0]


def test_structure() -> None:
    """Loihi's pools need neurons, weights need neurons everywhere, unknown kinds are not checked."""
    network = [conv((1, 4, 4), 1, (1, 1)), pool((1, 4, 4))]
    assert "write it as a grouped convolution" in said(run("loihi2", *network), "structure")[0]
    assert said(run("speck2e", *network), "structure") == []
    assert "weights without neurons" in said(run("speck2e", dense(2, 2, neuron=None)), "structure")[0]

    class Merge(Layer):
        kind = "merge"

    merge = Merge(in_shape=(2,), shape=(2,), name="add")
    mean = Average(in_shape=(2,), shape=(1,), name="mean")
    assert "off the chip" in said(run("loihi2", dense(2, 2), mean), "structure", "note")[0]
    assert "add: layer of kind 'merge'" in said(run("loihi2", dense(2, 2), merge), "structure", "not checked")[0]


def test_recurrence() -> None:
    """Loihi feeds back, Speck does not."""
    assert said(run("loihi1", recurrent(2)), "recurrence") == []
    assert "the chip only feeds forward" in said(run("speck2e", recurrent(2)), "recurrence")[0]


def test_reset_is_one_the_chip_has() -> None:
    """Loihi's neurons reset to zero, Speck's by subtraction or to zero."""
    for reset, profile, fits in (
        ("zero", "loihi1", True),
        ("subtract", "loihi1", False),
        ("zero", "speck2e", True),
        ("subtract", "speck2e", True),
    ):
        network = dataclasses.replace(chain(dense(2, 2)), reset=reset)
        assert (said(check(network, load(profile)), "reset") == []) == fits


def test_bias_on_clockless_chip_says_what_to_do() -> None:
    """A bias without a clock is refused with the recipe."""
    assert "train bias-free" in said(run("speck2e", biased(1)), "bias")[0]
    assert said(run("speck2e", with_neuron(bias=np.zeros(2, int))), "bias") == []


def test_odd_weights_are_counted() -> None:
    """Odd weights on a chip with even ones are counted."""
    (message,) = said(run("loihi2", dense(2, 2, weight=np.array([[1, 2], [3, -5]]))), "weights")
    assert message.startswith(
        "fc: 3 of 4 weights not multiples of 2: train with --profile loihi2, or quantise to multiples of 2"
    )


@pytest.mark.parametrize(("profile", "payload", "fits"), [("loihi1", 1, True), ("loihi1", 2, False)])
def test_payload_at_limit_and_beyond(profile: str, payload: int, fits: bool) -> None:
    """Loihi 1 takes binary input only; more time steps thin it out."""
    found = said(run(profile, dense(2, 2), input_payload=payload, time_steps=10), "payload")
    assert (found == []) is fits
    assert fits or "bin it into more time steps (20 where events spread evenly)" in found[0]


def test_graded_payload() -> None:
    """Loihi 2 takes graded input up to 32 bits; on Speck a count is so many events."""
    assert said(run("loihi2", dense(1, 1), input_payload=2**32 - 1), "payload") == []
    assert "input payload bits 33 > 32" in said(run("loihi2", dense(1, 1), input_payload=2**32), "payload")[0]
    assert said(run("speck2e", dense(1, 1), input_payload=9), "payload") == []


@given(st.integers(1, 64), st.sampled_from([-256, -2, 2, 254]), st.integers(1, 4096))
def test_largest_input_payload_is_the_largest(inputs: int, value: int, decay: int) -> None:
    """The payload noted for the first layer passes, one more does not; none is noted where not even 1 passes."""
    layer = dense(inputs, 1, value, neuron=neuron(current_decay=decay))
    if said(report := run("loihi2", layer), "fan_in"):
        assert report.of("note") == ()
        assert abs(value) * inputs * 64 * 4096 / decay > 2**23 - 1
        return
    (note,) = report.of("note")
    assert isinstance(note.used, int)
    assert said(run("loihi2", layer, input_payload=note.used), "fan_in") == []
    assert len(said(run("loihi2", layer, input_payload=note.used + 1), "fan_in")) == 1


def test_slow_current_piles_up() -> None:
    """A current that halves reaches twice its input; one that never decays grows with the time steps."""
    layer = dense(1, 1, 254, neuron=neuron(current_decay=2048))
    (note,) = run("loihi2", layer).of("note")
    assert note.used == (2**23 - 1) // (2 * 64 * 254)
    (note,) = run("loihi2", layer, time_steps=1).of("note")
    assert note.used == (2**23 - 1) // (64 * 254)
    forever = dense(1, 1, 254, neuron=neuron(current_decay=0))
    assert "give the number of time steps" in said(run("loihi2", forever), "fan_in", "not checked")[0]
    assert said(run("loihi2", forever, time_steps=516), "fan_in") == []
    assert len(said(run("loihi2", forever, time_steps=517), "fan_in")) == 1


def test_recurrent_input_counts_to_the_fan_in() -> None:
    """What a layer feeds itself comes on top of what it gets."""
    network = hidden(summing_to(131_070))
    assert said(run("loihi2", *network), "fan_in") == []
    looped = dataclasses.replace(network[-1], recurrent=np.array([[2]]))
    assert len(said(run("loihi2", *network[:-1], looped), "fan_in")) == 1


@pytest.mark.parametrize("before", [flatten((1, 8, 8)), pool((1, 8, 8)), "average"])
def test_what_stands_before_the_first_neurons_does_not_hide_them(before: Any) -> None:
    """A first layer behind a flatten, a pool or an average gets what becomes of the input's payload there."""
    if before == "average":
        before = Average(in_shape=(1, 8, 8), shape=(16,))
    grown = 64 // int(np.prod(before.shape))
    flat = [] if len(before.shape) == 1 else [flatten(before.shape)]
    network = [before, *flat, dense(int(np.prod(before.shape)), 1, 254)]
    largest = (2**23 - 1) // (64 * 64 * 254)
    (note,) = run("loihi2", *network).of("note")[-1:]
    assert (grown, note.used) == (64 // network[-1].in_shape[0], largest)
    assert said(run("loihi2", *network, input_payload=largest), "fan_in") == []
    (message,) = said(run("loihi2", *network, input_payload=255), "fan_in")
    assert message.startswith(f"fc: worst-case current {255 * 64 * 254 * 64:,} > 8,388,607")


@pytest.mark.parametrize("decay", [4096, 0])
def test_a_measured_current_counts_more_than_its_bound(decay: int) -> None:
    """What could wrap but did not over the training data is a warning with both numbers; what did is a violation."""
    *before, last = hidden(summing_to(131_072))
    last = dataclasses.replace(last, neuron=neuron(current_decay=decay), u_measured=2**23 - 1)
    report = run("loihi2", *before, last)
    assert said(report, "fan_in") == []
    (warning,) = said(report, "fan_in", "warning")
    bound = "8,388,608" if decay else "unbounded"
    assert f"worst-case current {bound} > 8,388,607: over the training data it reached 8,388,607 (100 %" in warning
    assert said(report, "fan_in", "not checked") == []
    report = run("loihi2", *before, dataclasses.replace(last, u_measured=2**23))
    (violation,) = said(report, "fan_in")
    assert "measured current 8,388,608 > 8,388,607: the training data itself makes it wrap" in violation
    small = dataclasses.replace(summing_to(2), u_measured=2**23)
    assert len(said(run("loihi2", small), "fan_in")) == 1


@pytest.mark.parametrize(("readout", "warns"), [("voltage", True), ("count", False)])
def test_a_saturated_readout_is_a_warning(readout: str, warns: bool) -> None:
    """A voltage that saturated over the training data is said where it is what is read out."""
    network = Network(layers=(dense(2, 2, v_measured=2**23),), readout=readout)
    found = said(check(network, load("loihi2")), "saturation", "warning")
    assert bool(found) is warns
    assert not warns or "measured voltage of the readout 8,388,608 > 8,388,607" in found[0]
    network = Network(layers=(dense(2, 2, v_measured=2**23 - 1),), readout=readout)
    assert said(check(network, load("loihi2")), "saturation", "warning") == []


@pytest.mark.parametrize(("profile", "severities"), [("loihi2", ["note"]), ("loihi1", [])])
def test_a_readout_threshold_that_spiked_on_silicon_is_noted(profile: str, severities: list[str]) -> None:
    """On Loihi 2 above 2^16, with its source and the option; not of spikes that are counted."""
    for threshold, wanted in ((131_071, severities), (65_537, severities), (65_536, [])):
        layer = dense(2, 2, neuron=neuron(threshold), v_measured=64)
        for readout in ("voltage", "count"):
            report = check(Network(layers=(layer,), readout=readout), load(profile))
            found = [f for f in report.findings if f.rule == "readout_threshold"]
            assert [f.severity for f in found] == (wanted if readout == "voltage" else [])
            assert report.fits
            for finding in found:
                assert "export with --readout-threshold 65536" in str(finding)
                assert "[MG, measured]" in str(finding)


@pytest.mark.parametrize(
    ("measured", "severities"), [(64 * 1000, []), (64 * 1000 + 1, ["warning"]), (None, ["not checked"])]
)
def test_a_readout_that_would_spike_is_said(measured: int | None, severities: list[str]) -> None:
    """A neuron spikes where v is above 64 times its threshold: measured over the training data, or unknown."""
    network = Network(layers=(dense(2, 2, neuron=neuron(1000), v_measured=measured),), readout="voltage")
    found = [f for f in check(network, load("loihi2")).findings if f.rule == "readout_threshold"]
    assert [f.severity for f in found] == severities


def test_before_training_only_shapes_are_checked() -> None:
    """Weights, thresholds and biases out of range are no finding then; the kernel, the pool and the cores are."""
    wrong = [
        conv((2, 48, 48), 2, (17, 17), weight=np.full((2, 2, 17, 17), 999), neuron=neuron(10**6, bias=np.ones(2, int))),
        pool((2, 32, 32), (3, 3)),
    ]
    rules = {f.rule for f in run("speck2e", *wrong, trained=False).of("violation")}
    assert {"kernels", "pools"} <= rules
    assert not rules & {rule.__name__ for family in FAMILIES.values() for rule in family.of_training}
    assert {"weights", "threshold", "bias"} <= {f.rule for f in run("speck2e", *wrong).of("violation")}


@pytest.mark.parametrize(("steps", "warns"), [(1, False), (16, False), (17, True), (10, True), (64, False)])
def test_reset_interval(steps: int, warns: bool) -> None:
    """Loihi 2 hardware resets every power of two of time steps."""
    report = run("loihi2", dense(2, 2), time_steps=steps)
    assert report.fits
    assert bool(said(report, "reset_interval", "warning")) is warns
    assert said(run("loihi1", dense(2, 2), time_steps=steps), "reset_interval", "warning") == []


def test_reset_interval_says_what_to_use() -> None:
    """The warning names the powers of two around."""
    (message,) = said(run("loihi2", dense(2, 2), time_steps=10), "reset_interval", "warning")
    assert message.startswith("time steps 10 is not a power of two: on hardware use 8 or 16")


def test_kernel_and_neurons_on_different_cores() -> None:
    """A layer whose kernel fits only cores with little neuron memory, and whose neurons only others, fits none."""
    # Kernel 128 * 2^(4 + 4) = 32 Ki words: cores 3 to 6. Neurons 16 * 64 * 64 = 64 Ki words: cores 0 to 2.
    layer = conv((128, 64, 64), 16, (3, 3), padding=(1, 1))
    (message,) = said(run("speck2e", layer), "core_memory")
    assert "kernel memory 32,768, neuron memory 65,536, bias memory 0 do not fit on any one core" in message


def test_unknown_limits_are_not_checked(tmp_path: Path) -> None:
    """A profile without facts finds no violation in its limits, and says that it checked nothing."""
    for family in ("loihi", "speck"):
        path = tmp_path / f"{family}.toml"
        path.write_text(f'title = "bare"\nfamily = "{family}"\n')
        network = [conv((1, 4, 4), 1, (1, 1), neuron=neuron(bias=np.ones(1, int))), pool((1, 4, 4))]
        network += [flatten((1, 2, 2)), dense(4, 2, recurrent=np.ones((2, 2), int), delay=np.ones((2, 4), int))]
        if family == "loihi":
            del network[1:3]
            network[1] = dense(16, 2, recurrent=np.ones((2, 2), int), delay=np.ones((2, 16), int))
            network.insert(1, flatten((1, 4, 4)))
        report = check(Network(layers=tuple(network)), load(path))
        assert report.fits
        assert not report.complete
        unchecked = {finding.rule for finding in report.of("not checked")}
        silent = {rule.__name__ for rule in FAMILIES[family].rules} - unchecked
        # These speak only where the chip is known to need it, or the caller gives numbers.
        assert silent <= {
            *("payload", "reset_interval", "placement", "refractory", "weight_exponent", "structure", "sigma_delta"),
            *("synapses", "threshold_profiles", "synapse_formats", "assignment", "saturation"),
            *("readout_threshold", "camera", "merges", "destinations"),
        }


def test_shape_on_speck_of_a_network_lowered_for_loihi() -> None:
    """A network whose pools were written as grouped convolutions is told to write pools."""
    report = check(n_mnist(pool_neurons=True), load("speck2e"))
    assert {f.layer for f in report.of("violation")} == {"pool", "pool2"}
    assert "write a sum pool as a pool layer" in str(report)


def test_neurons_that_lava_dl_adds_are_not_blamed_on_the_user() -> None:
    """A dense layer without neurons gets lava-dl's, which no chip has: the findings say whose they are."""
    added = Neuron(1 << 17, 0, 4096, added=True)
    network = Network((dense(2, 2), dense(2, 2, name="last", neuron=added)))
    report = check(network, load("loihi2"))
    blamed = {f.quantity: f.remedy for f in report.findings if f.layer == "last" and f.severity != "not checked"}
    assert blamed.keys() >= {"threshold", "current decay"}
    assert all(remedy.startswith("the file has no neurons here, and lava-dl adds these") for remedy in blamed.values())


def test_input_neurons_are_noted() -> None:
    """They are not placed, and the report says so."""
    network = Network((dense(2, 2),), encoder=Encoder(neuron(), (2,)))
    assert said(check(network, load("loihi2")), "structure", "note")[0].startswith("input neurons 2: are not placed")


def test_sigma_delta_neurons() -> None:
    """Allowed where the chip has them, refused by layer where not; thresholds and biases fit the states."""
    layers = [
        replace(conv((1, 4, 4), 1, (1, 1), name="first"), neuron=SigmaDelta(2047, np.array([-2047]))),
        replace(conv((1, 4, 4), 1, (1, 1), name="second"), neuron=SigmaDelta(2048, np.array([-3000]))),
        replace(conv((1, 4, 4), 1, (1, 1), name="last"), neuron=Sigma()),
    ]
    network = Network(tuple(layers))
    found = {str(finding).partition(" [")[0] for finding in check(network, load("loihi2")).of("violation")}
    remedy = "lower the layer's weight scale, threshold and bias together"
    assert found == {f"second: threshold 2,048 > 2,047: {remedy}", f"second: bias 3,000 > 2,047: {remedy}"}
    for chip in ("loihi1", "speck2e", "kapoho-bay", "dynapcnn"):
        found = check(network, load(chip)).of("violation")
        assert {finding.layer for finding in found if "neurons" in finding.quantity} == {"first", "second", "last"}
