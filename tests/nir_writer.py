"""Run by the Python of a NIR reader (`test_nir_readers`): it writes a network of its own.

    PYTHON nir_writer.py READER FILE.nir OUT.npz

With integer weights; OUT holds its ``inputs`` and output ``spikes``.
"""

import sys

import nir
import numpy as np
import torch


def conv_and_linear():
    """Integer weights, without biases where a reader has them so."""
    torch.manual_seed(0)
    conv, linear = torch.nn.Conv2d(2, 4, 3, padding=1, bias=False), torch.nn.Linear(4 * 25, 3, bias=False)
    for layer in (conv, linear):
        layer.weight.data = torch.randint(-4, 6, layer.weight.shape).float()
    return conv, linear


def write_sinabs(x):
    import sinabs
    from sinabs import layers

    conv, linear = conv_and_linear()
    neurons = [layers.IAFSqueeze(batch_size=len(x), spike_threshold=torch.tensor(9.0), min_v_mem=-9.0) for _ in "ab"]
    model = torch.nn.Sequential(conv, neurons[0], torch.nn.Flatten(), linear, neurons[1])
    steps = torch.moveaxis(x, -1, 1).flatten(0, 1)
    spikes = model(steps)
    graph = sinabs.nir.to_nir(model, steps)
    for node in graph.nodes.values():  # its export leaves out shapes, without which NIR writes no file
        if isinstance(node, nir.Conv2d):
            node.input_shape = (5, 5)
        if isinstance(node, nir.Flatten):
            node.input_type = {"input": np.array([4, 5, 5])}
    return graph, torch.moveaxis(spikes.reshape(len(x), -1, 3), 1, -1)


def write_norse(x):
    import norse.torch as norse
    from norse.torch.functional.iaf import IAFParameters

    linear, last = two_linear()
    cells = [norse.IAFCell(IAFParameters(v_th=torch.full((3,), 5.5))) for _ in "ab"]
    model = norse.SequentialState(linear, cells[0], last, cells[1])
    x, state, spikes = x.flatten(1, -2), None, []
    for t in range(x.shape[-1]):
        out, state = model(x[..., t], state)
        spikes.append(out)
    return norse.to_nir(model, x[0, ..., 0]), torch.stack(spikes, -1)


def two_linear():
    """The same, flat, with biases."""
    _, linear = conv_and_linear()
    linear.weight.data = linear.weight.data[:, :50].contiguous()
    linear.bias = torch.nn.Parameter(torch.tensor([0.0, 1.0, -2.0]))
    last = torch.nn.Linear(3, 3)
    last.weight.data, last.bias.data = torch.tensor([[4.0, 2, 1], [0, 5, 3], [6, 1, 2]]), torch.tensor([1.0, 0, -1])
    return linear, last


def write_snntorch(x):
    import snntorch as snn
    from snntorch.export_nir import export_to_nir

    linear, last = two_linear()
    x = x.flatten(1, -2)
    # Only what has a value a neuron passes NIR's check of shapes.
    options = {"beta": torch.zeros(3), "threshold": torch.full((3,), 5.5), "init_hidden": True}
    options |= {"reset_mechanism": "zero", "reset_delay": False}
    circle = snn.RLeaky(**options, linear_features=3)
    circle.recurrent.weight.data = torch.tensor([[0.0, -2, 1], [3, 0, 0], [0, 1, -1]])
    circle.recurrent.bias.data.zero_()
    model = torch.nn.Sequential(linear, circle, last, snn.Leaky(**options, output=True))
    spikes = [model(x[..., t])[0] for t in range(x.shape[-1])]
    return export_to_nir(model, x[:1, ..., 0], ignore_dims=[0]), torch.stack(spikes, -1)


def write_spikingjelly(x):
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    conv, linear = conv_and_linear()
    cells = [neuron.IFNode(v_threshold=8.5, v_reset=0.0) for _ in "ab"]
    model = torch.nn.Sequential(conv, cells[0], layer.Flatten(), linear, cells[1])
    spikes = [model(x[..., t]) for t in range(x.shape[-1])]
    functional.reset_net(model)
    return export_to_nir(model, x[..., 0]), torch.stack(spikes, -1)


def write(reader, path, out):
    x = (torch.from_numpy(np.random.default_rng(1).random((6, 2, 5, 5, 8))) < 0.3).float()
    graph, spikes = globals()[f"write_{reader}"](x)
    nir.write(path, graph)
    inputs = x.flatten(1, -2) if reader in ("norse", "snntorch") else x
    np.savez(out, inputs=inputs.numpy(), spikes=spikes.detach().numpy())


if __name__ == "__main__":
    write(*sys.argv[1:])
