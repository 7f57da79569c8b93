"""Online training: time steps one after the other, states carried on, gradients that stay in their time step."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_long_runs import Stopped, stop_after, without_seconds
from test_training import MODEL, bars, make, weights
from tqdm import tqdm

from mtt_lava import Settings, evaluate, load_run, train
from mtt_lava.data import from_images
from mtt_lava.neuron import SURROGATES, Neuron, _slopes
from mtt_lava.run import LOGIT_SCALE, RunError
from mtt_lava.temporal import transform
from mtt_lava.training import Trainer, phases
from mtt_lava.training.losses import of_steps

decays = st.sampled_from([(1.0, 0.0), (1.0, 0.5), (0.25, 0.125)])


def apart(neuron: Neuron, call: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """What `call` gives of the frames of (N, ..., T) one by one, with the states carried on."""
    neuron.carried = {}
    found = [call(x[..., t : t + 1]) for t in range(x.shape[-1])]
    neuron.carried = None
    return torch.cat(found, -1)


@settings(deadline=None)
@given(
    decay=decays,
    reset=st.sampled_from(["zero", "subtract"]),
    surrogate=st.sampled_from(SURROGATES),
    exact=st.booleans(),
    steps=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_frames_one_by_one_give_the_same_spikes(
    decay: tuple[float, float], reset: str, surrogate: str, exact: bool, steps: int, seed: int
):
    """Carried states are those that the compiled loops have between the time steps, to the bit in integers."""
    neuron = Neuron(1.0, *decay, surrogate=surrogate, reset=reset)
    neuron.exact = exact
    x = torch.randint(-40, 90, (3, 5, steps), generator=torch.Generator().manual_seed(seed)).float() / 64
    assert torch.equal(apart(neuron, neuron, x), neuron(x))


@settings(deadline=None)
@given(
    decay=st.sampled_from([(1.0, 0.0), (1.0, 0.5)]),
    reset=st.sampled_from(["zero", "subtract"]),
    surrogate=st.sampled_from(SURROGATES),
    seed=st.integers(0, 99),
)
def test_the_gradient_of_a_step_is_that_of_its_own_spike(
    decay: tuple[float, float], reset: str, surrogate: str, seed: int
):
    """It is the surrogate at the voltage of the step, and nothing of what came before or after."""
    neuron, generator = Neuron(1.0, *decay, surrogate=surrogate, reset=reset), torch.Generator().manual_seed(seed)
    x = torch.randn((2, 4, 6), generator=generator).requires_grad_()
    toward = torch.randn((2, 4, 6), generator=generator)
    (apart(neuron, neuron, x) * toward).sum().backward()
    v, wanted = torch.zeros(2, 4), []
    for now, to in zip(x.detach().unbind(-1), toward.unbind(-1), strict=True):
        v = v * (1 - decay[1]) + now
        wanted.append(_slopes(v, 1.0, reset, surrogate, 1.0)[0] * to)
        v = (v - v.floor().clamp(min=0)).clamp(min=-1) if reset == "subtract" else v * (v <= 1)
    torch.testing.assert_close(x.grad, torch.stack(wanted, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("exact", [False, True])
def test_recurrent_neurons_are_carried_on_too(exact: bool):
    """Spikes that feed back arrive one frame later, and what they add decays as ever."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-64, 64, (5, 5), generator=generator) / 64
    neuron = Neuron(1.0, 0.5, 0.25)
    neuron.exact = exact
    x = torch.randint(-40, 120, (3, 5, 8), generator=generator) / 64

    def recur(x: torch.Tensor) -> torch.Tensor:
        return neuron.recur(x, lambda spikes: spikes @ weight)

    torch.testing.assert_close(apart(neuron, recur, x), recur(x))


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize(("profile", "readout"), [("loihi2", "voltage"), ("loihi2", "count"), ("speck2e", "count")])
def test_a_network_goes_on_frame_by_frame(profile: str, readout: str, quantised: bool):
    """Outside training what the frames add one by one is what all of them add at once; nothing stays behind."""
    made = Settings.make(MODEL | {"readout": readout}, data="bars", profile=profile, time_steps=4, batch=20)
    trainer = Trainer(made, None, bars(20), progress=False)
    if quantised:
        phases.lower(trainer)
    network, x = trainer.network.eval(), trainer.batch(torch.arange(20), None)[0]
    with torch.no_grad():
        whole = network(x, each=True)
        for _ in range(2):
            with network.carrying():
                found = torch.cat([network(frame, each=True) for frame in x.split(1, -1)])
            torch.testing.assert_close(found, whole, rtol=0 if quantised else 1e-4, atol=0 if quantised else 1e-4)
        assert torch.equal(network(x, each=True), whole)


def test_a_step_is_the_mean_of_the_losses_of_time_steps(monkeypatch: pytest.MonkeyPatch):
    """Gradients and the loss are those of a forward over detached time steps, summed; one optimiser step follows."""
    trainer, updates = Trainer(make(method="online"), None, bars(20), progress=False), []
    phases.lower(trainer)  # no norms, whose moments are those of a time step
    network, (x, labels) = trainer.network.train(), trainer.batch(torch.arange(20), None)
    total = 0.0
    with network.carrying():
        for frame in x.split(1, -1):
            readout = network(frame, each=True) * (LOGIT_SCALE / network.readout_unit)
            loss = of_steps(readout, labels, 0.0) / 4
            loss.backward()
            total += loss.item()
    wanted = [p.grad.clone() for p in network.parameters() if p.grad is not None]

    def update() -> None:
        updates.append([p.grad.clone() for p in network.parameters() if p.grad is not None])

    monkeypatch.setattr(trainer.optimiser, "step", update)
    trainer.step(x, labels, [(4, 4)])
    (found,) = updates
    torch.testing.assert_close(found, wanted)
    assert trainer.loss == pytest.approx(total)


@pytest.mark.parametrize("profile", ["loihi2", "speck2e"])
def test_at_one_time_step_it_is_standard_training(profile: str):
    """Where there is no time to go back through, the weights are those of SDT, within rounding."""
    values = {"time_steps": 1, "profile": profile, "epochs": 4}
    runs = [train(make(method=method, **values), None, bars(), progress=False) for method in ("sdt", "online")]
    for name, value in weights(runs[0]).items():
        torch.testing.assert_close(value, weights(runs[1])[name], rtol=1e-2, atol=1e-3)


class Saved:
    """Bytes that graphs keep for their backward passes: now, and at most."""

    def __init__(self) -> None:
        self.now, self.most = 0, 0

    def pack(self, x: torch.Tensor) -> list[torch.Tensor]:
        size = x.numel() * x.element_size()
        self.now += size
        self.most = max(self.most, self.now)
        box = _Box([x])
        weakref.finalize(box, self._free, size)
        return box

    def _free(self, size: int) -> None:
        self.now -= size


class _Box(list):
    """A list that can be referred to weakly."""


def saved(method: str, time_steps: int, quantised: bool, static: bool = False) -> int:
    """Bytes kept at most in a mini-batch."""
    data = from_images(np.full((20, 2, 8, 8), 3), [i % 3 for i in range(20)], classes=3) if static else bars(20)
    trainer = Trainer(make(method=method, time_steps=time_steps, sandwich=True), None, data, progress=False)
    if quantised:
        phases.lower(trainer)
    trainer.network.train()
    found = Saved()
    x, labels = trainer.batch(torch.arange(20), None)
    with torch.autograd.graph.saved_tensors_hooks(found.pack, lambda box: box[0]):
        trainer.step(x, labels, trainer.samplers[quantised].draw(0))
    return found.most


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("quantised", [False, True])
def test_memory_does_not_grow_with_the_time_steps(quantised: bool, static: bool):
    """At 4 and at 40 time steps, constant or drawn, graphs keep the same; by other methods ten times as much."""
    for method in ("online", "online-nmt"):
        assert saved(method, 40, quantised, static) == saved(method, 4, quantised, static) > 0
    assert saved("online", 40, quantised, static) < saved("sdt", 40, quantised, static) / 10
    assert saved("nmt", 40, quantised, static) > 5 * saved("nmt", 4, quantised, static)


@pytest.mark.parametrize(("method", "profile"), [("online", "loihi2"), ("online-nmt", "loihi2"), ("online", "speck2e")])
def test_it_learns(method: str, profile: str):
    """The bars, at the T of training and at others, with both resets."""
    made = make(method=method, profile=profile, epochs=20 if profile == "loihi2" else 40)
    points = evaluate(train(made, None, bars(120), progress=False), [1, 4, 20], bars(60, "test"), progress=False)
    assert all(point.accuracy > 0.9 for point in points), points


def test_a_recurrent_network_learns_online():
    """Feedback weights get a gradient, of the spikes of the time step before."""
    layers = [{"type": "dense", "features": 12, "recurrent": True}, {"type": "dense", "features": 3}]
    values: Any = {"method": "online", "time_steps": 4, "epochs": 20, "batch": 20}
    made = Settings.make({"name": "loop", "input": [2, 8, 8], "layers": layers}, data="bars", **values)
    trainer = Trainer(made, None, bars(120), progress=False)
    before = trainer.network.blocks[0].feedback.synapse.weight.detach().clone()
    trainer.epoch(tqdm(disable=True))
    assert not torch.equal(trainer.network.blocks[0].feedback.synapse.weight, before)
    assert trainer.run().network.weights == 12 * 128 + 12 * 12 + 36


def test_stopped_within_an_epoch_it_goes_on(tmp_path: Path):
    """Weights and metrics are those of an unbroken run, with a penalty and a first phase of its own."""
    made = make(method="online-nmt", float_method="online", spike_penalty=0.1, augment=True, epochs=4)
    whole = train(made, tmp_path / "whole", bars(), progress=False)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 7)
        with pytest.raises(Stopped):
            train(made, tmp_path / "run", bars(), progress=False)
    resumed = train(made, tmp_path / "run", bars(), resume=True, progress=False)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
    assert without_seconds(whole) == without_seconds(resumed)
    assert load_run(tmp_path / "run").settings.float_method == "online"


def test_the_penalty_is_that_of_all_time_steps():
    """A recording's spikes count the same whether its frames come at once or one after the other."""
    losses = {}
    for weight in (0.0, 1.0):
        trainer = Trainer(make(method="online", spike_penalty=weight), None, bars(20), progress=False)
        phases.lower(trainer)
        trainer.network.train()
        x, labels = trainer.batch(torch.arange(20), None)
        spikes: list[torch.Tensor] = []
        trainer.network(x, (4, 4), spikes)
        wanted = float(trainer._spikes(spikes, (4, 4)))
        trainer.step(x, labels, [(4, 4)])
        losses[weight] = trainer.loss
    assert losses[1.0] - losses[0.0] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"loss": "steps"}, "consistency is 0.2, but method 'online' knows one time step at a time"),
        ({"hold_first": True}, "hold_first keeps the first stage at T, but method 'online' runs the same number"),
        ({"method": "sdt", "float_method": "online-nmt", "hold_first": True}, "but method 'online-nmt' runs the same"),
    ],
)
def test_what_cannot_be_online_is_refused(values: dict[str, Any], words: str):
    """In one line, at once."""
    with pytest.raises(ValueError) as error:
        make(**{"method": "online"} | values)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    make(method="online", loss="steps", consistency=0.0)


# ------------------------------------------------------------------------------------------------ frames accumulated


def test_the_network_sees_frames_summed_at_random_borders(monkeypatch: pytest.MonkeyPatch):
    """What is drawn runs its T in all stages on unequal groups of finer frames; ends and finer frames are even."""
    trainer = Trainer(make(method="accumulate", finer=3, configurations=4), None, bars(20), progress=False)
    seen: list[tuple[torch.Tensor, tuple[int, ...]]] = []
    real = trainer.network.several

    def several(x: torch.Tensor, configurations: list[tuple[int, ...]], *rest: Any) -> list[torch.Tensor]:
        (time_steps,) = configurations
        seen.append((x, time_steps))
        return real(x, configurations, *rest)

    monkeypatch.setattr(trainer.network, "several", several)
    trainer.epoch(tqdm(disable=True))
    cuts = trainer.samplers[0].cuts(0, 12)
    assert [time_steps for _, time_steps in seen] == trainer.samplers[0].draw(0)
    whole = seen[0][0]
    assert whole.shape[-1] == 12
    for (x, time_steps), borders in zip(seen, cuts, strict=True):
        assert torch.equal(x.sum(-1), whole.sum(-1))
        if borders is None:
            assert x is whole
        else:
            assert x.shape[-1] == time_steps[0]
            assert all(
                torch.equal(x[..., k], whole[..., borders[k] : borders[k + 1]].sum(-1)) for k in range(time_steps[0])
            )
    assert [borders is None for borders in cuts] == [True, True, False, False, True]


def test_accumulation_learns_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The bars, and to the same weights where training was stopped."""
    made = make(method="accumulate", finer=2, epochs=20)
    whole = train(made, None, bars(120), progress=False)
    points = evaluate(whole, [1, 4, 20], bars(60, "test"), progress=False)
    assert all(point.accuracy > 0.9 for point in points), points
    real = Trainer.epoch

    def epoch(self: Any, bar: Any) -> Any:
        if self.done == 12:
            raise KeyboardInterrupt
        return real(self, bar)

    monkeypatch.setattr(Trainer, "epoch", epoch)
    with pytest.raises(KeyboardInterrupt):
        train(made, tmp_path / "run", bars(120), progress=False)
    monkeypatch.setattr(Trainer, "epoch", real)
    resumed = train(made, tmp_path / "run", bars(120), resume=True, progress=False)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


def test_still_images_have_nothing_to_accumulate(tmp_path: Path):
    """Refused by name before anything is written; online training takes them."""
    data = from_images(np.full((60, 2, 8, 8), 3), [i % 3 for i in range(60)], classes=3)
    for values in ({"method": "accumulate"}, {"method": "mtt", "float_method": "accumulate"}):
        with pytest.raises(RunError, match="method 'accumulate' sums the frames of event data, and images has still"):
            train(make(**values), tmp_path / "run", data, progress=False)
    assert not (tmp_path / "run").exists()
    train(make(method="online-nmt", epochs=2), None, data, progress=False)


def test_frames_one_by_one_are_those_of_the_transformation():
    """Whatever the numbers and the form."""
    from mtt_lava.temporal import FORMS, one_by_one

    x = torch.randint(0, 9, (2, 3, 4, 5, 7), generator=torch.Generator().manual_seed(0)).float()
    for form in FORMS:
        for t in (1, 2, 3, 7, 9, 14):
            found = torch.cat([*one_by_one(x, t, form)], -1)
            torch.testing.assert_close(found, transform(x, t, form), rtol=1e-6, atol=1e-5)
