"""Networks of others as runs: weights from safetensors, state dicts, modules of PyTorch, sinabs, snnTorch and SLAYER,
and NIR files.

>>> from mtt_lava import import_network
>>> run = import_network("lenet.safetensors", "runs/lenet", model="lenet.toml")  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtt_lava.imports.graph import Imported, ImportedError, Relu, assemble
from mtt_lava.model import Model, load_model

if TYPE_CHECKING:
    import torch

    from mtt_lava.data import Dataset
    from mtt_lava.run import Run

__all__ = ["ImportedError", "import_network"]


def import_network(
    source: str | os.PathLike[str] | Mapping[str, Any] | torch.nn.Module,
    out: str | os.PathLike[str] | None = None,
    *,
    model: str | Path | dict[str, Any] | Model | None = None,
    shape: tuple[int, ...] | None = None,
    profile: str | None = None,
    data: str = "",
    root: str | None = None,
    dataset: Dataset | None = None,
    time_steps: int | None = None,
    biases: str | None = None,
    pools: str = "sum",
    ann: bool = False,
    percentile: float = 99.9,
    input_scale: float = 1.0,
    dt: float | None = None,
    reset: str | None = None,
    allow_inexact: bool = False,
) -> Run:
    """Make a run of a network of others, to be evaluated, exported, and trained on.

    Its weights are quantised for the profile's chip as ours are; ``Settings.tune(out, ...)`` trains them further.

    Parameters
    ----------
    source : path, mapping or torch.nn.Module
        A ``.safetensors`` file or a state dict, of a `model`; a ``.nir`` file; a ``Sequential`` of the usual layers
        with neurons of sinabs, snnTorch or SpikingJelly, a network of sinabs, a list of SLAYER's CUBA blocks.
    out : path, optional
        Run folder to write; without it nothing is written.
    model : Model, or what `load_model` takes
        Which layers the tensors are of.
    shape : tuple of int, optional
        Of the input of a module, (C, H, W) or (F,); default: that of the data, or what a first matrix takes.
    profile : str, optional
        Hardware profile. Default: loihi2, or speck2e where neurons reset by subtraction.
    data, root, dataset
        A data set by name, or itself, as for `train`: over it activations, biases and states are measured. Optional but
        for `ann` and absorbed biases.
    time_steps : int, optional
        For which biases of event data are right, and rates of an ANN are set; default of the latter: 10.
    biases : {"kept", "scaled", "absorbed", "none"}, optional
        As in `Settings`; default: kept, or with event data scaled.
    pools : {"sum", "average", "max"}
        What pools of `model` did where its weights were trained.
    ann : bool
        The weights are those of an ANN with ReLUs. Modules with ``ReLU`` say so themselves.
    percentile : float
        Of a layer's activations: what one spike a time step stands for; see `mtt_lava.imports.ann`.
    input_scale : float
        What a count of 1 in a frame, or a pixel of 1, was to the ANN.
    dt, reset
        Of a NIR file: seconds a time step, and the reset of neurons without ``v_reset``.
    allow_inexact : bool
        Take weights over also where neurons do otherwise than ours; what, stands in ``run.imported["differs"]``.

    Returns
    -------
    Run

    Raises
    ------
    ImportedError
        What our networks, or the chip's, cannot be: layer and reason. Or data that are needed.
    RunError
        A folder that holds something, data that do not fit.

    Examples
    --------
    >>> run = import_network(network, "runs/theirs", data="digits-dvs", time_steps=10)  # doctest: +SKIP
    >>> run.imported["notes"]  # doctest: +SKIP
    """
    from mtt_lava.imports.making import make

    if dataset is None and data:
        from mtt_lava.data import open_dataset

        dataset = open_dataset(data, split="train", root=root)
    if shape is None and dataset is not None:
        width, height, channels = dataset.sensor_size
        shape = (channels, height, width)
    found, relus = _found(source, model, shape, pools, dt, reset)
    return make(
        found,
        None if out is None else Path(out),
        profile=profile,
        data=data,
        root=root,
        dataset=dataset,
        time_steps=time_steps,
        biases=biases,
        ann=ann or relus,
        percentile=percentile,
        input_scale=input_scale,
        allow_inexact=allow_inexact,
    )


def _found(
    source: Any, model: Any, shape: tuple[int, ...] | None, pools: str, dt: float | None, reset: str | None
) -> tuple[Imported, bool]:
    """The network of a source, and whether it is an ANN."""
    if isinstance(source, Mapping) or (isinstance(source, str | os.PathLike) and not _is_nir(source)):
        from mtt_lava.imports.tensors import from_tensors, read

        named = "state dict" if isinstance(source, Mapping) else os.fspath(source)
        tensors = source if isinstance(source, Mapping) else read(source)
        if model is None:
            raise ImportedError(f"{named}: tensors alone do not say what layers they are of: give a model")
        model = model if isinstance(model, Model) else load_model(model)
        return from_tensors(tensors, model, named, pools, natural=tensors is not source), False
    if model is not None or pools != "sum":
        raise ImportedError("model and pools are for tensors: modules and NIR files say what their layers are")
    if isinstance(source, str | os.PathLike):
        from mtt_lava.imports.nodes import from_nir

        return from_nir(source, dt, reset), False
    if dt is not None or reset is not None:
        raise ImportedError("dt and reset are for NIR files: modules say themselves what their neurons do")
    from mtt_lava.imports.modules import first_shape, nodes_of

    named = type(source).__name__
    nodes = nodes_of(source, named)
    shape = shape or first_shape(source, named)
    if shape is None:
        raise ImportedError(f"{named}: does not say the size of its input: give shape=(C, H, W), or data")
    return assemble(nodes, shape, named, named.lower()), any(isinstance(node.part, Relu) for node in nodes)


def _is_nir(path: str | os.PathLike[str]) -> bool:
    """Whether a file is HDF5; one that is not there, by its name."""
    from netx_export.reading import opened

    if Path(path).suffix in (".nir", ".net"):
        return True
    with opened(path, ImportedError) as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"
