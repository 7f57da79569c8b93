"""Networks run by the programs that import NIR, in the Python that has one: what every node of a file gives.

    PYTHON nir_runner.py READER JOB.npz OUT.npz

A job holds ``files`` (texts) and for each its input ``input0``, ... (N, ..., T). The answer holds ``i/node``
(N, ..., T), or ``i/error``; and the program's ``version``. It imports nothing of ours.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
import torch


def _load(path: str) -> Any:
    nir = import_module("nir")
    try:
        return nir.read(path, type_check=False)  # its check fails on kernels that are not square
    except TypeError:
        return nir.read(path)  # NIR before 1.0.5


IMPORTS = {
    "norse": ("norse.torch", "from_nir"),
    "snntorch": ("snntorch.import_nir", "import_from_nir"),
    "spikingjelly": ("spikingjelly.activation_based.nir_exchange", "import_from_nir"),
    "sinabs": ("sinabs.nir", "from_nir"),
}
"""Each program's function: module and name."""


def run(reader: str, path: str, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Outputs of all nodes for input (N, ..., T)."""
    batch, steps = len(x), x.shape[-1]
    module, name = IMPORTS[reader]
    model = getattr(import_module(module), name)(_load(path), **({"batch_size": batch} if reader == "sinabs" else {}))
    seen: dict[str, list[torch.Tensor]] = defaultdict(list)

    def keep(name: str) -> Any:
        return lambda module, inputs, out: seen[name].append(out[0] if isinstance(out, tuple) else out)

    for name, module in model.named_modules():
        if name and "." not in name:
            module.register_forward_hook(keep(name))
    with torch.no_grad():
        if reader == "sinabs":
            model(torch.moveaxis(x, -1, 1).flatten(0, 1))
            found = {name: out[0].reshape(batch, steps, *out[0].shape[1:]) for name, out in seen.items()}
            return {name: torch.moveaxis(out, 1, -1) for name, out in found.items()}
        state = None
        for t in range(steps):
            answer = model(x[..., t]) if state is None else model(x[..., t], state)
            state = None if reader == "snntorch" else answer[1]
    return {name: torch.stack(out, -1) for name, out in seen.items() if len(out) == steps}


def main() -> None:
    """Run a job."""
    reader, job, out = sys.argv[1:]
    torch.set_num_threads(1)
    found = {"version": np.array(version(reader))}
    with np.load(job) as content:
        for i, path in enumerate(content["files"].tolist()):
            try:
                values = run(reader, path, torch.from_numpy(content[f"input{i}"]).float())
                found |= {f"{i}/{name}": value.numpy() for name, value in values.items()}
            except Exception as error:  # of whatever the program fails with
                found[f"{i}/error"] = np.array(f"{type(error).__name__}: {error}"[:300])
    np.savez(out, **found)


if __name__ == "__main__":
    main()
