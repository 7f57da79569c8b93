"""Chips that networks are checked against and not trained for: what fits passes, what does not is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hw_profiles import check, cost, load
from hw_profiles.energy import Activity
from netx_export.network import Conv, Dense, Flatten, Layer, Network, Neuron, Pool, conv_shape

HALF = 2048
"""A decay of 1/2: a state loses itself, shifted right by one bit."""


def dense(name: str, inputs: int, outputs: int, weight: int = 3, **fields: Any) -> Dense:
    fields = {"neuron": Neuron(20, HALF, HALF // 4)} | fields
    return Dense(name=name, in_shape=(inputs,), shape=(outputs,), weight=np.full((outputs, inputs), weight), **fields)


def conv(name: str, in_shape: tuple[int, ...], channels: int, weight: int = 3, size: int = 3, **fields: Any) -> Conv:
    fields = {"padding": (size // 2, size // 2), "neuron": Neuron(5)} | fields
    stride = fields.get("stride", (1, 1))
    shape = conv_shape(in_shape, channels, (size, size), stride, fields["padding"])
    kernel = np.full((channels, in_shape[0] // fields.get("groups", 1), size, size), weight)
    return Conv(name=name, in_shape=in_shape, shape=shape, weight=kernel, **fields)


def findings(layers: list[Layer], profile: str, severity: Any = "violation", **options: Any) -> list[str]:
    """What is found of a network in which neurons reset by subtraction."""
    report = check(Network(tuple(layers), reset="subtract"), load(profile), **options)
    return [str(each) for each in report.of(severity)]


@pytest.mark.parametrize("profile", ["xylo-audio2", "xylo-audio3", "xylo-imu"])
def test_a_small_network_fits_xylo(profile: str) -> None:
    """Sixteen channels, recurrent hidden neurons, eight outputs, decays that are shifts: nothing is left unchecked."""
    layers = [dense("hidden", 16, 40, recurrent=np.full((40, 40), 1)), dense("out", 40, 8)]
    report = check(Network(tuple(layers), reset="subtract"), load(profile), 10, 15)
    assert (report.fits, report.complete) == (True, True), str(report)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([dense("a", 17, 40), dense("b", 40, 8)], "input channels 17 > 16"),
        ([dense("a", 16, 40), dense("b", 40, 9)], "b: outputs 9 > 8"),
        ([dense("a", 16, 8)], "a: layers of neurons 1 < 2"),
        ([dense("a", 16, 40, recurrent=np.ones((40, 40), int)), dense("b", 40, 25), dense("c", 25, 8)],
         "a: synapses from one neuron 65 > 64"),
        ([dense("a", 16, 40), dense("b", 40, 8, recurrent=np.ones((8, 8), int))], "b: recurrent outputs"),
        ([dense("a", 16, 40, weight=128), dense("b", 40, 8)], "a: weight 128 > 127"),
        ([dense("a", 16, 40, neuron=Neuron(20, 3000, HALF)), dense("b", 40, 8)],
         "a: current decay 3,000 is not 4096 / 2^n"),
        ([dense("a", 16, 40, neuron=Neuron(40_000, HALF, HALF)), dense("b", 40, 8)], "a: threshold 40,000 > 32,767"),
    ],
)  # fmt: skip
def test_what_xylo_cannot_hold_is_named(layers: list[Layer], message: str) -> None:
    """Layer, quantity, number and limit; and nothing else is wrong."""
    found = findings(layers, "xylo-audio2", time_steps=10, input_payload=15)
    assert len(found) == 1
    assert found[0].startswith(message)


def test_xylo_counts_synapses_of_convolutions_and_not_those_of_weight_0() -> None:
    """A neuron inside a map feeds 9 pixels of 8 channels; with half of the channels pruned, 36 synapses."""
    hidden = conv("a", (1, 4, 4), 2, neuron=Neuron(20, HALF, HALF))
    next_ = conv("b", (2, 4, 4), 8, neuron=Neuron(20, HALF, HALF))
    end = [Flatten(name="flat", in_shape=(8, 4, 4), shape=(128,)), dense("out", 128, 8)]
    (found,) = findings([hidden, next_, *end], "xylo-audio2", input_payload=1)
    assert found.startswith("a: synapses from one neuron 72 > 64")
    assert next_.weight is not None
    pruned = next_.weight * (np.arange(8) % 2)[:, None, None, None]
    assert findings([hidden, replace(next_, weight=pruned), *end], "xylo-audio2", input_payload=1) == []


def test_on_other_xylos_the_input_reaches_few() -> None:
    """128 hidden neurons at either end; integrate-and-fire neurons are no shift that is documented."""
    layers: list[Layer] = [dense("a", 16, 497), dense("b", 497, 8)]
    found = findings(layers, "xylo-imu", input_payload=15)
    assert found[0].startswith("hidden neurons 497 > 496")
    layers = [dense("a", 16, 129), dense("b", 129, 129), dense("c", 129, 8)]
    found = findings(layers, "xylo-imu", input_payload=15)
    assert found[0].startswith("neurons that the input reaches 129 > 128")
    assert found[1].startswith("neurons that feed outputs 129 > 128")
    layers = [dense("a", 16, 40, neuron=Neuron(20)), dense("b", 40, 8)]
    assert findings(layers, "xylo-imu", input_payload=15) == []
    unchecked = findings(layers, "xylo-imu", "not checked", input_payload=15)
    assert [each[:22] for each in unchecked] == ["a: current decay 4,096", "a: voltage decay 0: a "]


def test_one_time_step_of_few_bits_fits_akida() -> None:
    """Eight bits in the first layer, four in the others; a neuron is a step of its input."""
    layers = [
        conv("a", (1, 8, 8), 4, weight=-128),
        conv("b", (4, 8, 8), 4, weight=-8, stride=(2, 2)),
        Flatten(name="flat", in_shape=(4, 4, 4), shape=(64,)),
        dense("c", 64, 10, weight=7, neuron=Neuron(5)),
    ]
    report = check(Network(tuple(layers), reset="subtract"), load("akd1000"), 1, 255)
    assert (report.fits, report.complete) == (True, True), str(report)
    assert str(report).endswith("not placed: the tools of akd1000 place its neurons")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([conv("a", (2, 8, 8), 4)], "a: channels of the input 2 not in 1, 3"),
        ([conv("a", (1, 8, 8), 4, size=1)], "a: kernel 1 not in 3, 5, 7"),
        ([conv("a", (1, 8, 8), 4, stride=(4, 4))], "a: stride 4 not in 1, 2, 3"),
        ([conv("a", (1, 8, 8), 4), conv("b", (4, 8, 8), 4, weight=8)], "b: weight bits 5 > 4"),
        ([conv("a", (1, 8, 8), 4), conv("b", (4, 8, 8), 4, padding=(0, 0))], "b: padding (0, 0)"),
        ([conv("a", (1, 8, 8), 4), conv("b", (4, 8, 8), 4, groups=2)], "b: groups 2 > 1"),
        ([Pool(name="p", in_shape=(1, 8, 8), shape=(1, 4, 4)), conv("a", (1, 4, 4), 4)], "p: sum pool"),
        ([dense("a", 57_335, 1)], "a: inputs 57,335 > 57,334"),
    ],
)  # fmt: skip
def test_what_akida_cannot_compute_is_named(layers: list[Layer], message: str) -> None:
    """Layer, quantity, number and what is possible; and nothing else is wrong."""
    found = findings(layers, "akd1000", time_steps=1, input_payload=1)
    assert len(found) == 1
    assert found[0].startswith(message)


def test_akida_keeps_nothing_between_time_steps() -> None:
    """More than one is a violation; an unknown number is not checked."""
    layers: list[Layer] = [conv("a", (1, 8, 8), 4)]
    (found,) = findings(layers, "akd1000", time_steps=4, input_payload=1)
    assert found.startswith("time steps 4 > 1: run it at T = 1")
    (unchecked,) = findings(layers, "akd1000", "not checked", input_payload=1)
    assert unchecked.startswith("time steps: the chip keeps no state")


def test_a_microcontroller_holds_what_its_memory_does() -> None:
    """Weights of a byte and two states of four bytes a neuron, by hand: 264 kB of SRAM are 270,336 bytes."""
    fits = [dense("a", 500, 500), dense("b", 500, 30)]  # 265,000 + 4,240 bytes
    report = check(Network(tuple(fits)), load("rp2040"), 10, 1)
    assert (report.fits, report.complete) == (True, True), str(report)
    layers = [dense("a", 500, 500), dense("b", 500, 33)]  # 266,500 + 4,264
    (found,) = findings(layers, "rp2040", input_payload=1)
    assert found.startswith("bytes of weights and states 270,764 > 270,336")
    (found,) = findings([dense("a", 5, 5, weight=-128)], "rp2040", input_payload=1)
    assert found.startswith("a: weight -128 < -127")


def test_spinnaker2_says_what_is_not_public() -> None:
    """Its memory for weights is; how wide states are, and what a spike carries, is not."""
    report = check(Network((dense("a", 500, 500),)), load("spinnaker2"), 10, 1)
    assert report.fits
    unknown = sorted(str(each) for each in report.of("not checked"))
    assert [each.partition(":")[0] for each in unknown] == ["a", "bytes of states"]
    big = replace(dense("a", 5000, 4000), neuron=Neuron(1))
    (found,) = findings([big], "spinnaker2", input_payload=1)
    assert found.startswith("bytes of weights 20,000,000 > 19,922,944")


def test_a_cost_there_is_operations_only() -> None:
    """No energy is public: nothing is made up."""
    network = Network((dense("a", 16, 40), dense("b", 40, 8)), reset="subtract")
    for profile in ("xylo-audio2", "akd1000", "rp2040", "spinnaker2"):
        found = cost(network, Activity(10, np.ones(16), [np.ones(40), np.ones(8)]), load(profile))
        assert found.synops == 16 * 40 + 40 * 8
        assert found.energy["total"].value is None
