"""The proof that an exported network fires as the trained one does."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtt_lava.data import Dataset, open_frames
from mtt_lava.deploy import export
from mtt_lava.evaluation import run_network
from mtt_lava.neuron import STATE_UNIT
from mtt_lava.run import Run, open_split
from mtt_lava.scoring import Score, score
from netx_export import simulation
from netx_export.activity import recordable


@dataclass(frozen=True)
class Proof:
    """A comparison of the trained network with a backend, bit by bit.

    Attributes
    ----------
    time_steps : int
    score : Score
        Of the backend's answers.
    spikes : int
        Spikes that the trained network fired, over all samples and layers.
    bits : int
        Compared: one for every neuron that spikes, time step and sample.
    mismatches : dict of str to int
        Differing bits of every layer that spikes, and ``readout``: differing values of the readout.
    """

    time_steps: int
    score: Score
    spikes: int
    bits: int
    mismatches: dict[str, int]

    @property
    def accuracy(self) -> float:
        """Share of samples that the backend classified rightly; see `Score`."""
        return self.score.accuracy

    @property
    def samples(self) -> int:
        """How many were compared."""
        return self.score.samples

    @property
    def exact(self) -> bool:
        """Nothing differs."""
        return not any(self.mismatches.values())

    def __repr__(self) -> str:
        return f"<Proof {self}>"

    def row(self) -> dict[str, Any]:
        """Its numbers side by side, for a table (``pandas.DataFrame([proof.row() for proof in proofs])``)."""
        values = {name: getattr(self.score, name) for name in ("samples", "accuracy", "silent", "tied")}
        wrong = {f"mismatches.{name}": number for name, number in self.mismatches.items()}
        return {"T": self.time_steps, **values, "spikes": self.spikes, "bits": self.bits, **wrong}

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "time_steps": self.time_steps,
            **self.score.to_dict(),
            "spikes": self.spikes,
            "bits": self.bits,
            "mismatches": self.mismatches,
        }

    def __str__(self) -> str:
        wrong = {name: count for name, count in self.mismatches.items() if count}
        return (
            f"T = {self.time_steps}, {self.score}, "
            f"{sum(self.mismatches.values())} mismatching of {self.bits:,} bits ({self.spikes:,} spikes)"
            + (f" in {wrong}" if wrong else "")
        )


def prove(
    run: Run,
    time_steps: Sequence[int],
    backend: str = "lava",
    samples: int | None = None,
    dataset: Dataset | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> list[Proof]:
    """Run the exported network on a backend and compare every spike of every layer with the trained one's.

    Parameters
    ----------
    run : Run
    time_steps : sequence of int
    backend : str
        See `netx_export.simulation.simulate`.
    samples : int, optional
        Only the first so many samples.
    dataset : Dataset, optional
        Default: the test split of the data that the run was trained on.
    workers : int, optional
        Spread the samples over so many processes.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of Proof
    """
    dataset = dataset or open_split(run.settings)
    run.check_data(dataset)
    names = run.network.spiking_names
    proofs = []
    with tempfile.TemporaryDirectory(prefix="mtt-") as folder:
        for t in time_steps:
            reader = open_frames(dataset, t)
            chosen = np.arange(len(reader))[:samples]
            path = Path(folder) / f"{t}.net"
            network, _ = export(run, path, time_steps=t)
            most = min(run.settings.input_max or reader.largest, reader.largest)
            unit = STATE_UNIT if network.readout == "voltage" else 1
            mismatches, readouts, bits, fired = dict.fromkeys([*names, "readout"], 0), [], 0, 0
            for part in reader.parts(chosen, recordable(network, t)):
                counts = np.minimum(np.moveaxis(reader.take(part), 0, -1), most)
                result = simulation.simulate(
                    path, counts, backend=backend, workers=workers, record=("spikes",), progress=progress
                )
                readouts.append(result.readout)
                readout, spikes = run_network(run, torch.from_numpy(counts), spikes=True)
                for name, layer, trained in zip(names, network.spiking, spikes, strict=False):
                    wanted = trained.numpy().astype(bool)
                    got = result.record[f"spikes.{layer.name}"].astype(bool)
                    mismatches[name] += int((wanted != got).sum())
                    bits += wanted.size
                    fired += int(wanted.sum())
                other = (readout.double() * unit).round().long().numpy() != result.readout
                mismatches["readout"] += int(other.sum())
            answered = score(np.concatenate(readouts), reader.labels[chosen], network.readout)
            proofs.append(Proof(t, answered, fired, bits, mismatches))
    return proofs
