"""Run by the Python of another program (`test_imports_real`): networks of its own, what they fire, and their files.

    PYTHON import_runner.py PROGRAM FOLDER

writes for each of its networks, by name, ``NAME.nir`` (where it writes one) and ``NAME.npz``: ``inputs`` and output
``spikes``, (N, ..., T), and the parts that `mtt_lava.imports.modules` makes of its modules (or ``refused``). What its
export does not write stands in ``NAME.npz`` as ``unwritten``.
"""

import sys
from pathlib import Path

import nir
import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

STEPS, SAMPLES = 10, 4


def frames(*shape):
    torch.manual_seed(7)
    return torch.randint(0, 3, (STEPS, SAMPLES, *shape)).float()


def weighted(*modules, scale=1.0):
    """With weights that fire."""
    torch.manual_seed(3)
    for module in modules:
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan = module.weight[0].numel()
            module.weight.data = scale * (torch.rand_like(module.weight) * 3 - 1.1) / fan**0.5
            if module.bias is not None:
                module.bias.data = scale * torch.rand_like(module.bias) / 5
    return nn.Sequential(*modules)


# ------------------------------------------------------------------------------------------------ snnTorch


def snntorch_networks():
    import snntorch as snn

    def neurons(kind=snn.Leaky, n=3, last=False, **more):
        # Only what has a value a neuron passes NIR's check of shapes.
        more = {"threshold": torch.full(n if isinstance(n, tuple) else (n,), 0.7), "init_hidden": True} | more
        more.setdefault("reset_mechanism", "zero")
        for name in ("beta", "alpha"):
            if name in more:
                more[name] = torch.full_like(more["threshold"], more[name])
        return kind(output=last, **more)

    def two(kind=snn.Leaky, **more):
        return weighted(nn.Linear(12, 5), neurons(kind, 5, **more), nn.Linear(5, 3), neurons(kind, 3, True, **more))

    yield "leaks", two(beta=0.8), (12,)
    yield "integrates", two(beta=1.0 - 2**-20), (12,)
    yield "subtracts", two(beta=0.8, reset_mechanism="subtract"), (12,)
    yield "synaptic", two(snn.Synaptic, beta=0.8, alpha=0.5, reset_delay=False), (12,)
    circle = neurons(snn.RLeaky, 5, beta=0.8, linear_features=5, reset_delay=False)
    circle.recurrent.bias.data.zero_()
    last = neurons(beta=0.8, last=True)
    yield "feeds itself", weighted(nn.Linear(12, 5), circle, nn.Linear(5, 3), last), (12,)
    maps = {"beta": 0.8, "n": (4, 6, 6)}
    conv = nn.Conv2d(2, 4, 3, padding=1), neurons(**maps), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    yield "convolution", weighted(*conv, neurons(beta=0.8, last=True)), (2, 6, 6)


def run_snntorch(network, x):
    from snntorch import utils

    utils.reset(network)
    return torch.stack([network(now)[0] for now in x])


def write_snntorch(network, x):
    from snntorch.export_nir import export_to_nir

    return export_to_nir(network, x[0, :1], ignore_dims=[0])


# ------------------------------------------------------------------------------------------------ Norse


def norse_networks():
    import norse.torch as norse
    from norse.torch.functional.iaf import IAFParameters
    from norse.torch.functional.lif import LIFParameters
    from norse.torch.functional.lif_box import LIFBoxParameters

    def two(cell):
        return weighted(nn.Linear(12, 5), cell(5), nn.Linear(5, 3), cell(3))

    yield "integrates", two(lambda n: norse.IAFCell(IAFParameters(v_th=torch.full((n,), 0.7)))), (12,)

    def values(n, **more):
        return {"v_th": torch.full((n,), 0.7), "v_leak": torch.zeros(n)} | {
            name: torch.full((n,), value) for name, value in more.items()
        }

    box = LIFBoxParameters
    yield "leaks", two(lambda n: norse.LIFBoxCell(box(**values(n, tau_mem_inv=300.0)))), (12,)
    cuba = LIFParameters
    taus = {"tau_mem_inv": 300.0, "tau_syn_inv": 500.0}
    yield "synaptic", two(lambda n: norse.LIFCell(cuba(**values(n, **taus)))), (12,)
    yield "leaks at the end", weighted(nn.Linear(12, 3), norse.LIBoxCell()), (12,)


def run_norse(network, x):
    import norse.torch as norse

    model, state, out = norse.SequentialState(*network), None, []
    for now in x:
        spikes, state = model(now, state)
        out.append(spikes)
    return torch.stack(out)


def write_norse(network, x):
    import norse.torch as norse

    return norse.to_nir(norse.SequentialState(*network), x[0, 0])


# ------------------------------------------------------------------------------------------------ sinabs


def sinabs_networks():
    import sinabs.activation as activation
    from sinabs import layers

    def iaf(least=-0.7, **more):
        return layers.IAFSqueeze(batch_size=SAMPLES, spike_threshold=torch.tensor(0.7), min_v_mem=least, **more)

    pool = nn.Flatten(), nn.Linear(36, 3, bias=False)
    yield "convolution", weighted(nn.Conv2d(2, 4, 3, padding=1), iaf(), layers.SumPool2d(2), *pool, iaf()), (2, 6, 6)
    mean = nn.Conv2d(2, 4, 3, padding=1, bias=False), iaf(), nn.AvgPool2d(2)
    yield "mean", weighted(*mean, *pool, iaf()), (2, 6, 6)
    yield "no lower bound", weighted(nn.Linear(12, 3), iaf(None)), (12,)
    yield "single spikes", weighted(nn.Linear(12, 3), iaf(spike_fn=activation.SingleSpike)), (12,)
    reset = {"reset_fn": activation.MembraneReset(), "spike_fn": activation.SingleSpike}
    yield "resets to zero", weighted(nn.Linear(12, 5), iaf(None, **reset), nn.Linear(5, 3), iaf(None, **reset)), (12,)

    def lif(**more):
        fields = {"tau_mem": 4.0, "spike_threshold": torch.tensor(0.4), "min_v_mem": None} | reset
        return layers.LIFSqueeze(batch_size=SAMPLES, **fields, **more)

    yield "leaks", weighted(nn.Linear(12, 5), lif(), nn.Linear(5, 3), lif()), (12,)
    yield (
        "does not norm",
        weighted(nn.Linear(12, 5), lif(norm_input=False), nn.Linear(5, 3), lif(norm_input=False)),
        (12,),
    )
    yield "synaptic", weighted(nn.Linear(12, 5), lif(tau_syn=2.0), nn.Linear(5, 3), lif(tau_syn=2.0)), (12,)
    yield "leaks at the end", weighted(nn.Linear(12, 3), layers.ExpLeakSqueeze(tau_mem=4.0, batch_size=SAMPLES)), (12,)


def run_sinabs(network, x):
    import sinabs

    sinabs.reset_states(network)
    steps = x.transpose(0, 1).flatten(0, 1)
    return network(steps).unflatten(0, (SAMPLES, STEPS)).transpose(0, 1)


def write_sinabs(network, x):
    import sinabs

    graph = sinabs.nir.to_nir(network, x.transpose(0, 1).flatten(0, 1))
    for node in graph.nodes.values():  # its export leaves out shapes, without which NIR writes no file
        if isinstance(node, nir.Conv2d):
            node.input_shape = (6, 6)
        if isinstance(node, nir.Flatten):
            node.input_type = {"input": np.array([4, 3, 3])}
    return graph


# ------------------------------------------------------------------------------------------------ SpikingJelly


def spikingjelly_networks():
    from spikingjelly.activation_based import layer, neuron

    def two(cell):
        return weighted(nn.Linear(12, 5), cell(), nn.Linear(5, 3), cell())

    threshold = {"v_threshold": 0.7, "v_reset": 0.0}
    yield "integrates", two(lambda: neuron.IFNode(**threshold)), (12,)
    yield "leaks", two(lambda: neuron.LIFNode(tau=2.5, decay_input=False, **threshold)), (12,)
    yield "decays its input", two(lambda: neuron.LIFNode(tau=2.5, **threshold | {"v_threshold": 0.3})), (12,)
    yield "learnt leak", two(lambda: neuron.ParametricLIFNode(init_tau=2.5, decay_input=False, **threshold)), (12,)
    yield "synaptic", two(lambda: neuron.CUBALIFNode(c_decay=0.5, v_decay=0.75, **threshold)), (12,)
    yield "subtracts", two(lambda: neuron.IFNode(v_threshold=0.7, v_reset=None)), (12,)
    conv = layer.Conv2d(2, 4, 3, padding=1), neuron.LIFNode(tau=2.5, decay_input=False, **threshold), layer.AvgPool2d(2)
    last = layer.Flatten(), layer.Linear(36, 3), neuron.LIFNode(tau=2.5, decay_input=False, **threshold)
    yield "convolution", weighted(*conv, *last), (2, 6, 6)


def run_spikingjelly(network, x):
    from spikingjelly.activation_based import functional

    functional.reset_net(network)
    return torch.stack([network(now) for now in x])


def write_spikingjelly(network, x):
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    functional.reset_net(network)
    return export_to_nir(network, x[0])


# ------------------------------------------------------------------------------------------------


def parts(network):
    """What our reader makes of the modules, as arrays."""
    from mtt_lava.imports.graph import ImportedError
    from mtt_lava.imports.modules import nodes_of

    try:
        nodes = nodes_of(network, "network")
    except ImportedError as error:
        return {"refused": np.array(str(error))}
    found = {}
    for i, node in enumerate(nodes):
        found |= {f"parts/{i}/kind": np.array(type(node.part).__name__), f"parts/{i}/name": np.array(node.name)}
        found[f"parts/{i}/inputs"] = np.array(node.inputs)
        for name, value in vars(node.part).items():
            if value is not None:
                found[f"parts/{i}/fields/{name}"] = np.asarray(value)
    return found


def main():
    program, folder = sys.argv[1], Path(sys.argv[2])
    here = globals()
    for name, network, shape in here[f"{program}_networks"]():
        x = frames(*shape)
        with torch.no_grad():
            spikes = here[f"run_{program}"](network.eval(), x)
            content = {"inputs": x.movedim(0, -1).numpy(), "spikes": spikes.movedim(0, -1).numpy()}
            try:
                nir.write(str(folder / f"{name}.nir"), here[f"write_{program}"](network, x))
            except Exception as error:
                (folder / f"{name}.nir").unlink(missing_ok=True)
                content["unwritten"] = np.array(f"{type(error).__name__}: {error}"[:200])
        np.savez(folder / f"{name}.npz", **content, **parts(network))


if __name__ == "__main__":
    main()
