"""A plain PyTorch twin of a network in integers, measured by NeuroBench's own harness.

``python neurobench_twin.py NETWORK.npz INPUTS.npy``, in a Python that has neurobench 2.3.0 and nothing of ours; prints
JSON. NETWORK.npz holds ``layers``, a JSON list, and an array of each layer's weights by its number. Neurons integrate
and fire, with reset to zero. All samples and time steps go through a layer in one call.
"""

import json
import sys

import numpy as np
import torch


class Neurons(torch.nn.Module):
    """v <- v + x; a spike where v > threshold, and there v <- 0."""

    def __init__(self, threshold: int) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(T, N, ...) to spikes."""
        v, spikes = torch.zeros_like(x[0]), []
        for current in x:
            v = v + current
            spikes.append((v > self.threshold).double())
            v = v * (1 - spikes[-1])
        return torch.stack(spikes)


class Twin(torch.nn.Module):
    """The layers one after the other; those of kind ``add`` sum the layers whose names they give."""

    def __init__(self, layers: list, weights: dict) -> None:
        super().__init__()
        self.layers, self.parts, self.neurons = layers, torch.nn.ModuleDict(), torch.nn.ModuleDict()
        for number, layer in enumerate(layers):
            if f"{number}" in weights:
                weight = torch.from_numpy(weights[f"{number}"]).double()
                if layer["kind"] == "conv":
                    made = torch.nn.Conv2d(
                        layer["in_channels"], len(weight), weight.shape[2:], layer["stride"], layer["padding"],
                        layer["dilation"], layer["groups"], bias=False,
                    )  # fmt: skip
                else:
                    made = torch.nn.Linear(*weight.shape[::-1], bias=False)
                made.weight.data = weight
                self.parts[layer["name"]] = made
            if layer["threshold"] is not None:
                self.neurons[layer["name"]] = Neurons(layer["threshold"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(T, N, ...) to what the last layer sends."""
        sent = {"input": x}
        for layer in self.layers:
            inputs = [sent[name] for name in layer["inputs"]]
            x = sum(inputs[1:], inputs[0])
            flat = x.flatten(0, 1)
            if layer["kind"] == "pool":
                flat = torch.nn.functional.avg_pool2d(flat, layer["kernel"], divisor_override=1)
            elif layer["kind"] == "flatten":
                flat = flat.flatten(1)
            elif layer["name"] in self.parts:
                flat = self.parts[layer["name"]](flat)
            x = flat.unflatten(0, x.shape[:2])
            sent[layer["name"]] = self.neurons[layer["name"]](x) if layer["name"] in self.neurons else x
        return x if layer["name"] not in self.neurons else sent[layer["name"]]


def main(network: str, samples: str) -> None:
    """Measure, and print JSON."""
    from neurobench.metrics.static import ConnectionSparsity, Footprint
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import TorchModel

    arrays = np.load(network)
    inputs = torch.from_numpy(np.load(samples)).double()  # (N, ..., T)
    twin = Twin(json.loads(str(arrays["layers"])), arrays)
    model = TorchModel(twin)
    model.add_activation_module(Neurons)
    model.register_hooks()
    with torch.no_grad():
        out = model(inputs.movedim(-1, 0))
        operations = SynapticOperations()
        operations(model, out, (inputs, None))
        results = {
            "connection_sparsity": ConnectionSparsity()(model),
            "activation_sparsity": ActivationSparsity()(model, out, None),
            "synaptic_operations": operations.compute(),
            "output spikes": out.sum().item(),
        }
    # What a chip of 8-bit weights and 16-bit states holds, as buffers of these widths.
    held = torch.nn.Module()
    for number, layer in enumerate(twin.layers):
        if f"{number}" in arrays:
            held.register_buffer(f"weight{number}", torch.zeros(arrays[f"{number}"].shape, dtype=torch.int8))
        if layer["threshold"] is not None:
            held.register_buffer(f"v{number}", torch.zeros(layer["shape"], dtype=torch.int16))
    results["footprint"] = Footprint()(TorchModel(held))
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
