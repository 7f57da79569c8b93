"""Long trainings: stopped in the middle of an epoch, out of memory or disk, diverged; the best weights; patience."""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import bars, make, weights

from mtt_lava import load_run, to_network, train
from mtt_lava.evaluation import evaluate
from mtt_lava.run import RunError, load_settings
from mtt_lava.training import Trainer, checkpoint, loop
from netx_export import files


class Stopped(BaseException):
    """As a signal comes: nothing of ours catches it."""


def stop_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Let training write a checkpoint at every step, and end before step number `steps`."""
    patch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    real, done = Trainer.step, 0

    def step(self: Any, *arguments: Any) -> None:
        nonlocal done
        done += 1
        if done > steps:
            raise Stopped
        real(self, *arguments)

    patch.setattr(Trainer, "step", step)


TIMES = ("seconds", "waited")


def without_seconds(run: Any) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in TIMES} for line in run.metrics]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An unbroken run: 4 epochs of 3 mini-batches."""
    return train(make(epochs=4, augment=True), tmp_path_factory.mktemp("runs") / "whole", bars(), progress=False)


@pytest.mark.parametrize("steps", [1, 6, 7])
def test_stopped_within_an_epoch_it_goes_on(whole: Any, steps: int, tmp_path: Path):
    """Weights and metrics are those of an unbroken run, wherever it was stopped: also behind the rounding."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(Stopped):
            train(make(epochs=4, augment=True), tmp_path / "run", bars(), progress=False)
    resumed = train(make(epochs=4, augment=True), tmp_path / "run", bars(), resume=True, progress=False)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert without_seconds(resumed) == without_seconds(whole)
    assert sum("lowered" in line for line in resumed.metrics) == 1


@settings(max_examples=5, deadline=None)
@given(st.data())
def test_a_damaged_part_of_an_epoch_is_one_line(whole: Any, tmp_path_factory: pytest.TempPathFactory, data: Any):
    """What a checkpoint holds of an epoch is checked as everything else of it is."""
    folder = tmp_path_factory.mktemp("damaged") / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stopped):
            train(make(epochs=4), folder, bars(), progress=False)
    trainer = Trainer(make(epochs=4), folder, bars(), False)
    checkpoint.restore(trainer)
    assert trainer.within is not None
    content = trainer.within.tensors()
    name = data.draw(st.sampled_from(sorted(content)))
    wrong = data.draw(st.sampled_from([torch.zeros(5, 7), torch.full((2, 2), float("nan"))]))
    trainer.within.tensors = lambda: content | {name: wrong}  # type: ignore[method-assign]
    checkpoint.save(trainer)
    with pytest.raises(RunError, match=r"checkpoint.safetensors: damaged: ") as error:
        train(make(epochs=4), folder, bars(), resume=True, progress=False)
    assert "\n" not in str(error.value)


def fails(patch: pytest.MonkeyPatch, at: int, error: BaseException | None) -> None:
    """Let step number `at` raise this, or (None) find a loss that is no number."""
    real, done = Trainer._spikes, 0

    def spikes(self: Any, *arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done > 3 * at:
            if error is not None:
                raise error
            return torch.tensor(float("nan"))
        return real(self, *arguments)

    patch.setattr(Trainer, "_spikes", spikes)


@pytest.fixture(scope="module")
def straight() -> Any:
    """What the same training comes to where nothing ends it."""
    return train(make(epochs=4, spike_penalty=0.1), None, bars(), progress=False)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (None, "training diverged: the loss is nan: lower the learning rate"),
        (MemoryError(), "out of memory on cpu: give a smaller batch, fewer time steps or a narrower model"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory on cpu: give a smaller batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory on cpu"),
        (OSError(errno.ENOSPC, "No space left on device", "x.npz"), "No space left on device (x.npz): free some, then"),
    ],
)
def test_what_ends_a_training_is_said_in_a_line(error: BaseException | None, words: str, tmp_path: Path, straight: Any):
    """Where it was, why, and what is kept, from which training goes on as if nothing had happened."""
    chosen = make(epochs=4, spike_penalty=0.1)
    with pytest.MonkeyPatch.context() as patch:
        fails(patch, 4, error)
        with pytest.raises(RunError) as raised:
            train(chosen, tmp_path / "run", bars(), progress=False)
    said = str(raised.value)
    assert said.startswith(f"epoch 2, batch 2: {words}")
    assert said.endswith(f"; {tmp_path / 'run'} keeps what was learned until epoch 1")
    assert "\n" not in said
    resumed = train(chosen, tmp_path / "run", bars(), resume=True, progress=False)
    assert all(torch.equal(value, weights(straight)[name]) for name, value in weights(resumed).items())


def test_other_errors_keep_their_traceback(tmp_path: Path):
    """What is a mistake of ours is not taken for the machine's."""
    with pytest.MonkeyPatch.context() as patch:
        fails(patch, 1, RuntimeError("shapes cannot be multiplied"))
        with pytest.raises(RuntimeError, match="shapes cannot"):
            train(make(spike_penalty=0.1), tmp_path / "run", bars(), progress=False)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path):
    """Writing the next one fails: the one before is whole, and training goes on from it."""
    folder, real, written = tmp_path / "run", files.os.replace, 0

    def full(source: Any, target: Any) -> None:
        nonlocal written
        written += Path(target).name == checkpoint.NAME
        if written == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        with pytest.raises(RunError, match=r"No space left on device \(.*checkpoint.safetensors\): free some, then go"):
            train(make(epochs=4), folder, bars(), progress=False)
    assert not list(folder.glob(".*.safetensors"))
    resumed, straight = (
        train(make(epochs=4), folder, bars(), resume=True, progress=False),
        train(make(epochs=4), None, bars(), progress=False),
    )
    assert all(torch.equal(value, weights(straight)[name]) for name, value in weights(resumed).items())


# ------------------------------------------------------------------------------------------------ best, and patience


def held(run: Any) -> list[float]:
    return [m["validation"]["accuracy"] for m in run.metrics if m["phase"] == "quantised"]


def test_the_best_weights_are_kept_beside_the_last(tmp_path: Path):
    """The file holds the weights of the first epoch with the best accuracy, runs like a run, and does not count."""
    test = bars(40, "test")
    run = train(make(epochs=12), tmp_path / "run", bars(100), validation=test, progress=False)
    accuracies = held(run)
    best = load_run(tmp_path / "run" / "best.safetensors")
    assert load_settings(tmp_path / "run" / "best.safetensors") == run.settings
    assert evaluate(best, [4], test, progress=False)[0].accuracy == pytest.approx(max(accuracies))
    assert evaluate(load_run(tmp_path / "run"), [4], test, progress=False)[0].accuracy == pytest.approx(accuracies[-1])
    assert best.measured
    assert best.classes == run.classes
    assert [layer.name for layer in to_network(best)] == [layer.name for layer in to_network(run)]
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_patience_ends_a_run_that_no_longer_gets_better(tmp_path: Path):
    """So many epochs behind the best one; a run that is resumed ends at the same."""
    chosen = make(epochs=40, patience=2, fine_tune=0.9)
    run = train(chosen, tmp_path / "run", bars(100), validation=bars(40, "test"), progress=False)
    accuracies = held(run)
    assert len(run.metrics) < 40
    assert len(accuracies) - 1 - int(np.argmax(accuracies)) == 2
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 5 * (len(run.metrics) - 1) + 3)
        with pytest.raises(Stopped):
            train(chosen, tmp_path / "broken", bars(100), validation=bars(40, "test"), progress=False)
    resumed = train(chosen, tmp_path / "broken", bars(100), validation=bars(40, "test"), resume=True, progress=False)
    assert without_seconds(resumed) == without_seconds(run)


def test_patience_needs_something_held_out():
    """There is nothing to lose it on otherwise."""
    with pytest.raises(RunError, match="patience is 3, but nothing is held out to lose it on: set validate_on"):
        train(make(patience=3), None, bars(), progress=False)


# ------------------------------------------------------------------------------------------------ precision


def test_bfloat16_is_for_the_first_phase_only(tmp_path: Path):
    """Products of the first phase are rounded; the second is in integers, as the file that comes out of it is."""
    run = train(make(epochs=20, precision="bfloat16"), tmp_path / "run", bars(90), progress=False)
    assert all(block.synapse.precision is None for block in run.network.weighted)
    points = evaluate(load_run(tmp_path / "run"), [4, 20], bars(60, "test"), progress=False)
    assert min(point.accuracy for point in points) > 0.9
    losses = [train(make(epochs=2, precision=name), None, bars(), progress=False) for name in ("float32", "bfloat16")]
    assert not torch.equal(*(weights(each)["blocks.0.synapse.weight"] for each in losses))


def test_bfloat16_products_are_near_those_of_float32():
    """Three digits of a product; spikes and small counts are exact."""
    network = make().build()
    network.eval()
    x = torch.randint(0, 3, (4, 2, 8, 8, 4), generator=torch.Generator().manual_seed(0)).float()
    exact = network.blocks[0].synapse(x)
    network.multiply_in(torch.bfloat16)
    rounded = network.blocks[0].synapse(x)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.02)
    assert not torch.equal(rounded, exact)


def test_a_checkpoint_is_json_and_tensors(tmp_path: Path):
    """Nothing of it is executed when it is read."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stopped):
            train(make(), tmp_path / "run", bars(), progress=False)
    content = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert {"epoch.readouts", "epoch.generator"} <= set(json.loads(content[8 : 8 + size]))
