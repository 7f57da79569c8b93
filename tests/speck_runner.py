"""Run by a Python that has sinabs (`test_speck_sinabs`): what scripts for Speck make of events, and of the chip.

    PYTHON speck_runner.py JOB.npz OUT.npz

A job holds ``scripts`` (texts) and for each ``i/sample``, ``i/c``, ``i/y``, ``i/x``. The answer holds ``i/events``,
(n, 5): sample, the event of the recording that caused it, channel, row, column; ``i/chip``, JSON: what sinabs would
write into which core, in how many counts its network for the chip differs from the script's, and the configuration.

The real samna is not on PyPI. Its release 0.6.11 of 2021 is, and knows Speck2b, which stands for the other boards here;
without it sinabs is given an empty one, which its layers do not need.
"""

import json
import runpy
import sys
from importlib.metadata import version
from unittest.mock import MagicMock

import numpy as np
import torch
from sinabs.layers import Merge

SAMNA = version("samna").startswith("0.6.")
if SAMNA:
    import samna

    board = samna.speck2b
else:
    samna = sys.modules["samna"] = sys.modules["samnagui"] = MagicMock()
    board = samna.speck2b
for name in ("speck2e", "speck2f"):
    setattr(samna, name, board)
    sys.modules[f"samna.{name}"] = board
    sys.modules[f"samna.{name}.configuration"] = board.configuration


def put(target, values):
    """Set fields of fields, which samna took one by one in 2021."""
    for name, value in values.items():
        if isinstance(value, dict):
            put(getattr(target, name), value)
        else:
            setattr(target, name, value)


def configured(network, cores):
    """The chip's configuration as JSON, once samna has found it valid."""
    from sinabs.backend.dynapcnn.chips.dynapcnn import DynapcnnConfigBuilder as Builder

    def write(cls, layer, layer2core_map, destination_indices, chip_layer):
        values = cls.get_dynapcnn_layer_config_dict(layer, layer2core_map, destination_indices)
        for place, destination in enumerate(values.pop("destinations")):
            put(chip_layer.destinations[place], destination)
        out, into, kernel, _ = np.shape(values["weights"])
        put(chip_layer, values | {"leak_enable": bool(values["leak_enable"])})
        # Bits of 2021 that leave out single weights, biases and neurons.
        chip_layer.weights_kill_bit = np.zeros((out, into, kernel, kernel), int).tolist()
        chip_layer.biases_kill_bit = [0] * out
        chip_layer.neurons_value_kill_bit = np.zeros(np.shape(values["neurons_initial_value"]), int).tolist()

    Builder.write_dynapcnn_layer_config = classmethod(write)
    return network.make_config(cores, device="speck2edevkit:0").to_json()


class Sum(torch.nn.Module):
    """A merge of any number: sinabs maps more than two cores to one, but its own forward pass takes two."""

    def forward(self, *given):
        return sum(given)


def on_chip(script):
    """See above."""
    from sinabs.backend.dynapcnn.chips.dynapcnn import DynapcnnConfigBuilder as Builder

    network, cores = script["chip"]()
    network.dynapcnn_module.merge_layer = Sum()
    into = {
        cores[number]: Builder.get_dynapcnn_layer_config_dict(layer, cores, network.layer_destination_map[number])
        for number, layer in network.dynapcnn_layers.items()
    }
    for values in into.values():
        values["leak_enable"] = bool(values["leak_enable"])
    steps = torch.poisson(torch.full((30, *script["INPUT"]), 0.3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = network(steps), script["Network"]()(steps)
    # In 2021 samna took no two cores for one target, and cut the camera's picture before its pool, sinabs after it.
    plain = not script["CAMERA"] and not any(isinstance(part, Merge) for part in script["Network"]().parts)
    camera = [cores[number] for number in network.layer_destination_map.get("dvs", [])]
    return {
        "cores": into,
        "camera": camera,
        "pools": list(network.dvs_layer.get_pooling()) if network.has_dvs_layer() else [1, 1],
        "differing": int((found.reshape(expected.shape) != expected).sum()),
        "counts": int(expected.sum()),
        "configuration": json.loads(configured(network, cores)) if SAMNA and plain else None,
    }


def main():
    torch.set_num_threads(1)
    found = {}
    with np.load(sys.argv[1]) as job:
        for i, path in enumerate(job["scripts"].tolist()):
            script = runpy.run_path(path)
            network = script["Network"]()
            place, sample = torch.from_numpy(np.stack([job[f"{i}/{name}"] for name in "cyx"], 1)), job[f"{i}/sample"]
            outputs = []
            for number in np.unique(sample):
                where, cause = network.run(place[torch.from_numpy(sample == number)])
                outputs.append(np.column_stack([np.full(len(where), number), cause.numpy(), where.numpy()]))
            found[f"{i}/events"] = np.concatenate(outputs)
            found[f"{i}/chip"] = np.array(json.dumps(on_chip(script)))
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
