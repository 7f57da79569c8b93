"""Train a spiking neural network once and run it at any number of time steps.

>>> from mtt_lava import Settings, evaluate, export, train
>>> run = train(Settings.make("nmnist-3c1fc", data="digits-dvs"), "runs/digits")  # doctest: +SKIP
>>> points = evaluate(run, [1, 2, 4, 10, 100])  # doctest: +SKIP
>>> network, report = export(run, "digits.net")  # doctest: +SKIP
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Before torch is imported: threads that wait busily for each other make it many times slower where a core has other
# work too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from mtt_lava.data import Dataset, frames, open_dataset
    from mtt_lava.deploy import export, export_nir, export_speck, to_network
    from mtt_lava.early_exit import early_exit, early_exit_events
    from mtt_lava.evaluation import Point, evaluate
    from mtt_lava.imports import import_network
    from mtt_lava.model import Model, load_model, model_names
    from mtt_lava.proof import Proof, prove
    from mtt_lava.run import Run, Settings, load_run
    from mtt_lava.scoring import Score, score
    from mtt_lava.sources import open_source
    from mtt_lava.spiking import SpikingNetwork
    from mtt_lava.stream import Stream
    from mtt_lava.studies.report import RunReport, report
    from mtt_lava.studies.sweep import Sweep, sweep
    from mtt_lava.temporal import Sampler, transform
    from mtt_lava.training import train

_HOME = {
    "Dataset": "data",
    "Model": "model",
    "Point": "evaluation",
    "Proof": "proof",
    "Run": "run",
    "RunReport": "studies.report",
    "Sampler": "temporal",
    "Score": "scoring",
    "Settings": "run",
    "SpikingNetwork": "spiking",
    "Stream": "stream",
    "Sweep": "studies.sweep",
    "early_exit": "early_exit",
    "early_exit_events": "early_exit",
    "evaluate": "evaluation",
    "export": "deploy",
    "export_nir": "deploy",
    "export_speck": "deploy",
    "frames": "data",
    "import_network": "imports",
    "load_model": "model",
    "load_run": "run",
    "model_names": "model",
    "open_dataset": "data",
    "open_source": "sources",
    "prove": "proof",
    "report": "studies.report",
    "score": "scoring",
    "sweep": "studies.sweep",
    "to_network": "deploy",
    "train": "training",
    "transform": "temporal",
}

__all__ = [
    "Dataset",
    "Model",
    "Point",
    "Proof",
    "Run",
    "RunReport",
    "Sampler",
    "Score",
    "Settings",
    "SpikingNetwork",
    "Stream",
    "Sweep",
    "early_exit",
    "early_exit_events",
    "evaluate",
    "export",
    "export_nir",
    "export_speck",
    "frames",
    "import_network",
    "load_model",
    "load_run",
    "model_names",
    "open_dataset",
    "open_source",
    "prove",
    "report",
    "score",
    "sweep",
    "to_network",
    "train",
    "transform",
]


def __getattr__(name: str) -> Any:
    # torch and SLAYER take seconds to import: only once something of theirs is asked for.
    if name not in _HOME:
        raise AttributeError(f"module 'mtt_lava' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"mtt_lava.{_HOME[name]}"), name)
