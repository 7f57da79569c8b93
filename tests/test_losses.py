"""Losses over the time steps of an answer: what they are made of, and that their steps add up to what is deployed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from test_training import MODEL, bars, make, weights

from mtt_lava import Settings, evaluate, load_run, train
from mtt_lava.run import LOGIT_SCALE, RunError
from mtt_lava.training import Trainer, phases
from mtt_lava.training.losses import divergence, of_steps


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@given(steps=st.integers(1, 6), samples=st.integers(1, 4), weight=st.floats(0, 3), seed=st.integers(0, 99))
def test_the_loss_of_steps_is_its_formula(steps: int, samples: int, weight: float, seed: int):
    """Mean cross entropy, and 9 KL(average || step) of logits softened by 3, times its weight."""
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, 5, (steps, samples, 3)), rng.integers(0, 3, samples)
    right = softmax(logits)[:, np.arange(samples), labels]
    average, apart = softmax(logits.mean(0) / 3), softmax(logits / 3)
    divergence = (average * (np.log(average) - np.log(apart))).sum(-1)
    found = of_steps(torch.tensor(logits), torch.tensor(labels), weight)
    assert found.item() == pytest.approx(-np.log(right).mean() + 9 * weight * divergence.mean(), rel=1e-6)


def test_the_average_is_not_moved_toward_the_steps():
    """Its logits are a constant of the divergence: the gradient is that of the formula with a fixed average."""
    logits = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 2])
    (of_steps(logits, labels, 1.0) - of_steps(logits, labels, 0.0)).backward()
    average = F.softmax(logits.detach().mean(0) / 3, -1)
    wanted = 9 / 3 * (F.softmax(logits.detach() / 3, -1) - average) / 8
    torch.testing.assert_close(logits.grad, wanted)


def averaged() -> dict[str, Any]:
    """The model whose classes are the mean of two outputs each."""
    layers = [*MODEL["layers"][:-1], {"type": "dense", "features": 6}, {"type": "average", "features": 3}]
    return MODEL | {"layers": layers}


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("profile", ["loihi2", "speck2e"])
@pytest.mark.parametrize("readout", ["voltage", "count"])
@pytest.mark.parametrize("time_steps", [(4, 4), (2, 3), (1, 7)])
def test_what_the_steps_add_is_the_readout(readout: str, profile: str, quantised: bool, time_steps: tuple[int, ...]):
    """Voltages and counts, both resets, both phases: the sum over time is what is deployed, to the bit in integers."""
    if profile == "speck2e" and readout == "voltage":
        return  # has no clock, and no such readout
    settings = Settings.make(MODEL | {"readout": readout}, data="bars", profile=profile, time_steps=4, batch=20)
    trainer = Trainer(settings, None, bars(20), progress=False)
    if quantised:
        phases.lower(trainer)
    network, x = trainer.network.train(), trainer.batch(torch.arange(20), None)[0]
    with torch.no_grad():
        each, whole = network(x, time_steps, each=True), network(x, time_steps)
    assert each.shape == (time_steps[-1], 20, 3)
    torch.testing.assert_close(each.sum(0), whole, rtol=0 if quantised else 1e-4, atol=0 if quantised else 1e-4)


def test_steps_of_averaged_outputs_are_summed_by_class():
    """Where a class has several outputs, what a step adds is the sum of theirs."""
    settings = Settings.make(averaged(), data="bars", time_steps=4, batch=20, allow_unfit=True)
    trainer = Trainer(settings, None, bars(20), progress=False)
    x = trainer.batch(torch.arange(20), None)[0]
    each = trainer.network(x, (4, 4), each=True)
    assert each.shape == (4, 20, 3)
    torch.testing.assert_close(each.sum(0), trainer.network(x, (4, 4)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("profile", ["loihi2", "speck2e"])
def test_at_one_time_step_both_losses_are_the_same(profile: str):
    """One step is its own average, and all there is: the same weights come of either."""
    values = {"time_steps": 1, "method": "sdt", "profile": profile, "epochs": 4}
    runs = [train(make(loss=loss, **values), None, bars(), progress=False) for loss in ("mean", "steps")]
    for name, value in weights(runs[0]).items():
        torch.testing.assert_close(value, weights(runs[1])[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("profile", ["loihi2", "speck2e"])
@pytest.mark.parametrize("method", ["sdt", "nmt", "mtt"])
def test_every_method_learns_with_it(method: str, profile: str):
    """The bars are learned by the loss of steps, through the quantised forward too, with both resets."""
    settings = make(method=method, profile=profile, loss="steps", epochs=20 if profile == "loihi2" else 40)
    points = evaluate(train(settings, None, bars(120), progress=False), [4], bars(60, "test"), progress=False)
    assert points[0].accuracy > 0.85, points


def test_consistency_brings_the_steps_together():
    """With a large weight the answers of the time steps differ less than without."""
    spread = {}
    for weight in (0.0, 5.0):
        settings = make(method="sdt", loss="steps", consistency=weight, epochs=20, seed=1, logit_scale=10)
        run = train(settings, None, bars(120), progress=False)
        x = Trainer(settings, None, bars(60, "test"), progress=False).batch(torch.arange(60), None)[0]
        with torch.no_grad():
            logits = run.network(x, (4, 4), each=True) * (4 * 10 / run.network.readout_unit / 4)
        spread[weight] = float(F.softmax(logits / 3, -1).std(0).mean())
    assert spread[5.0] < 0.8 * spread[0.0], spread


def test_it_is_stored_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run with the loss of steps goes on to the weights of an unbroken one; the folder keeps its settings."""
    settings = make(loss="steps", consistency=0.5, augment=True)
    whole = train(settings, None, bars(), progress=False)
    real = Trainer.epoch

    def epoch(self: Any, bar: Any) -> Any:
        if self.done == 4:
            raise KeyboardInterrupt
        return real(self, bar)

    monkeypatch.setattr(Trainer, "epoch", epoch)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run", bars(), progress=False)
    monkeypatch.setattr(Trainer, "epoch", real)
    resumed = train(settings, tmp_path / "run", bars(), resume=True, progress=False)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
    stored = load_run(tmp_path / "run").settings
    assert (stored.loss, stored.consistency) == ("steps", 0.5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"loss": "step"}, "loss: Input should be 'mean' or 'steps' (got 'step')"),
        ({"loss": "steps", "consistency": -1.0}, "consistency: Input should be greater than or equal to 0 (got -1.0)"),
        ({"consistency": 0.5}, "consistency is 0.5, but loss is 'mean', which has one answer"),
    ],
)
def test_impossible_losses_are_refused_at_once(values: dict[str, Any], words: str):
    """In one line, with the field, the value and what is allowed."""
    with pytest.raises(RunError) as error:
        make(**values)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("loss", ["mean", "steps"])
def test_distillation_follows_the_configuration_at_t(loss: str):
    """The others' loss has the divergence from its answer, and no gradient flows into that."""
    values = {"loss": loss, "batch": 20, "augment": False}
    plain, distilled = (Trainer(make(distil=w, **values), None, bars(20), progress=False) for w in (0.0, 2.0))
    x, labels = plain.batch(torch.arange(20), None)
    for trainer in (plain, distilled):
        trainer.network.train()
    both, alone = [(4, 4), (1, 1)], [(1, 1)]
    with torch.no_grad():
        gain = LOGIT_SCALE / plain.network.readout_unit
        teacher, student = plain.network(x, (4, 4)) * gain / 4, plain.network(x, (1, 1)) * gain
    for trainer in (plain, distilled):
        trainer.optimiser = torch.optim.SGD(trainer.network.parameters(), lr=0.0)
    plain.step(x, labels, both)
    distilled.step(x, labels, both)
    assert distilled.loss - plain.loss == pytest.approx(float(divergence(student, teacher)), rel=1e-3)
    distilled.step(x, labels, alone)
    plain.step(x, labels, alone)
    assert distilled.loss == pytest.approx(plain.loss)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"distil": 1.0, "method": "sdt"}, "no batch has a configuration at T to learn from"),
        ({"distil": 1.0, "sandwich": False}, "no batch has a configuration at T to learn from"),
        ({"distil": 1.0, "shared": True}, "distil lets configurations learn from the one at T"),
        ({"distil": 1.0, "method": "online-nmt"}, "distil needs whole answers"),
        ({"distil": -1.0}, "distil: Input should be greater than or equal to 0"),
    ],
)
def test_impossible_distillation_is_refused(values: dict[str, Any], words: str):
    """In one line that says what it needs."""
    with pytest.raises(RunError, match=words):
        make(**values)
