"""Our neuron against SLAYER's own, its gradients against plain autograd, and the norm against torch's."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mtt_lava
from mtt_lava import kernels
from mtt_lava import neuron as neuron_module
from mtt_lava.neuron import (
    STATE_UNIT,
    SURROGATES,
    VOLTAGE_MAX,
    WEIGHT_UNIT,
    Bias,
    Centring,
    Neuron,
    Norm,
    _Centred,
    slayer,
)
from mtt_lava.spiking import SumPool, _ConvSynapse


def quantised_input(seed: int, shape: tuple[int, ...], largest: int = 200) -> torch.Tensor:
    """Synaptic input as quantised weights give it: even integers in SLAYER's unit."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randint(-largest, largest + 1, shape, generator=generator) / WEIGHT_UNIT


@settings(deadline=None)
@given(
    current_decay=st.sampled_from([0, 1, 100, 2048, 4096]) | st.integers(0, 4096),
    voltage_decay=st.sampled_from([0, 1, 2048, 4095, 4096]) | st.integers(0, 4096),
    threshold=st.integers(1, 2000),
    maps=st.booleans(),
    t=st.integers(1, 20),
    seed=st.integers(0, 999),
)
def test_exact_spikes_are_slayers(
    current_decay: int, voltage_decay: int, threshold: int, maps: bool, t: int, seed: int
):
    """In chip arithmetic every spike is that of SLAYER's neuron, for any decay and threshold."""
    x = quantised_input(seed, (2, 3, 2, 2, t) if maps else (2, 5, t))
    decays = (current_decay / STATE_UNIT, voltage_decay / STATE_UNIT)
    ours = Neuron(threshold / WEIGHT_UNIT, *decays)
    ours.exact = True
    theirs = slayer.neuron.cuba.Neuron(threshold / WEIGHT_UNIT, *decays)
    assert torch.equal(ours(x), theirs(x))
    assert ours.threshold_mantissa == theirs.v_th_mant == threshold


def test_slayers_surrogate_has_slayers_gradient():
    """The exponential surrogate gives the gradient of SLAYER's own neuron, in time and value."""
    x = quantised_input(3, (2, 5, 12), 40)
    gradients = []
    for neuron in (Neuron(1.0, 0.25, 0.5, "exponential"), slayer.neuron.cuba.Neuron(1.0, 0.25, 0.5)):
        inputs = x.clone().requires_grad_()
        if isinstance(neuron, Neuron):
            neuron.exact = True
        weights = torch.linspace(-1, 1, 12)
        (neuron(inputs) * weights).sum().backward()
        gradients.append(inputs.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().sum() > 0


class _Step(torch.autograd.Function):
    """A spike whose derivative is written out, for the reference below."""

    @staticmethod
    def forward(ctx, v, threshold, width, kind):
        ctx.save_for_backward(v)
        ctx.args = threshold, width, kind
        return (v > threshold).to(v.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (v,) = ctx.saved_tensors
        threshold, width, kind = ctx.args
        d = (v - threshold).abs()
        slope = torch.clamp(1 - d / width, min=0) / width if kind == "triangular" else (d <= width) / (2 * width)
        return gradient * slope, None, None, None


@pytest.mark.parametrize("kind", ["triangular", "rectangular"])
@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("width", [1.0, 2.0])
def test_the_papers_surrogate_is_backpropagation_through_time(kind: str, decay: float, width: float):
    """The gradient equals autograd's through the unrolled recursion, the reset detached (paper, section 3)."""
    x = torch.randn(3, 4, 9, generator=torch.Generator().manual_seed(1)) + 0.3
    ours = x.clone().requires_grad_()
    weights = torch.randn(3, 4, 9, generator=torch.Generator().manual_seed(2))
    (Neuron(0.75, 1.0, decay, kind, width)(ours) * weights).sum().backward()
    theirs = x.clone().requires_grad_()
    v, total = torch.zeros(3, 4), torch.zeros(())
    for t in range(9):
        v = v * (1 - decay) + theirs[..., t]
        s = _Step.apply(v, 0.75, width * 0.75, kind)
        total = total + (s * weights[..., t]).sum()
        v = v * (1 - s.detach())
    total.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("width", [0.5, 1.0])
def test_the_laplace_surrogate_counts_a_charge_once(decay: float, width: float):
    """Its slope takes from what the next time steps feel what it gave to the spike; nothing passes a reset."""
    generator = torch.Generator().manual_seed(1)
    x = (torch.randn(3, 4, 9, generator=generator) + 0.3).requires_grad_()
    weights = torch.randn(3, 4, 9, generator=generator)
    (Neuron(0.75, 1.0, decay, "laplace", width)(x) * weights).sum().backward()
    v, voltages = torch.zeros(3, 4), []
    for t in range(9):
        v = v * (1 - decay) + x[..., t].detach()
        voltages.append(v)
        v = torch.where(v > 0.75, 0.0, v)
    wanted, after = torch.zeros(3, 4, 9), torch.zeros(3, 4)
    for t in range(8, -1, -1):
        slope = torch.exp(-(voltages[t] - 0.75).abs() / (0.75 * width)) / (0.75 * width)
        passed = (1 - 0.75 * slope).clamp(min=0) * (voltages[t] <= 0.75)
        after = weights[..., t] * slope + after * passed * (1 - decay)
        wanted[..., t] = after
    torch.testing.assert_close(x.grad, wanted, rtol=1e-4, atol=1e-4)


@st.composite
def neurons(draw: st.DrawFn) -> tuple[Neuron, int]:
    """A neuron of any kind, with any norm it can have, and its channels."""
    reset, surrogate = draw(st.sampled_from(["zero", "subtract"])), draw(st.sampled_from(SURROGATES))
    decays = draw(st.sampled_from([1.0, 1.0, 0.25, 0.0])), draw(st.sampled_from([0.0, 0.25, 1.0]))
    neuron = Neuron(0.75, *decays, surrogate, draw(st.sampled_from([0.5, 1.0, 2.0])), reset)
    neuron.exact = draw(st.booleans())
    channels = draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    norm = draw(st.sampled_from([None, "bias"] if neuron.exact else [None, "bias", "batch", "scale"]))
    if norm == "bias":
        neuron.norm = Bias(torch.randn(channels, generator=generator) / 4)
        neuron.norm.weight_scale = 50.0 if neuron.exact else None
    elif norm is not None:
        neuron.norm = Norm(channels, centred=norm == "batch")
        neuron.norm.mean.copy_(torch.randn(channels, generator=generator) * neuron.norm.centred)
        neuron.norm.power.copy_(torch.rand(channels, generator=generator) + 0.5)
        for parameter in neuron.norm.parameters():
            parameter.data.copy_(torch.rand(channels, generator=generator) + 0.2)
    return neuron.train(draw(st.booleans())), channels


SATURATING = Neuron(0.75)
SATURATING.exact = True


@settings(deadline=None, max_examples=60)
@example(which=(SATURATING, 5), samples=3, space=[4], large=False, channels_last=False, t=12, threads=1, seed=0)
@given(
    which=neurons(),
    samples=st.integers(2, 3),
    space=st.lists(st.integers(1, 4), max_size=2),
    large=st.booleans(),
    channels_last=st.booleans(),
    t=st.integers(1, 12),
    threads=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_compiled_loops_compute_what_torch_does(
    which: tuple[Neuron, int],
    samples: int,
    space: list[int],
    large: bool,
    channels_last: bool,
    t: int,
    threads: int,
    seed: int,
):
    """Spikes, gradients and running statistics, for any shape, layout, decay, reset, surrogate, norm and arithmetic."""
    shape = (t, samples * 4000 if large else samples, which[1], *space)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: threads)
        passes_compute_what_torch_does(kernels, which[0], shape, channels_last, seed)


@settings(deadline=None, max_examples=60)
@example(which=(SATURATING, 5), samples=3, space=[4], channels_last=False, t=12, seed=0)
@given(
    which=neurons(),
    samples=st.integers(2, 3),
    space=st.lists(st.integers(1, 9), max_size=2),
    channels_last=st.booleans(),
    t=st.integers(1, 12),
    seed=st.integers(0, 999),
)
def test_kernels_for_gpus_compute_what_torch_does(
    which: tuple[Neuron, int], samples: int, space: list[int], channels_last: bool, t: int, seed: int
):
    """On a GPU; where there is none in Triton's interpreter (`conftest.py`), where that has what they need."""
    triton = pytest.importorskip("triton")
    if not torch.cuda.is_available() and int(triton.__version__.split(".")[0]) < 3:
        pytest.skip(f"the interpreter of Triton {triton.__version__} has no floor, ceiling and barrier")
    from mtt_lava import kernels_gpu

    passes_compute_what_torch_does(kernels_gpu, which[0], (t, samples, which[1], *space), channels_last, seed)


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mtt_lava import kernels_gpu

flags = dict.fromkeys(["FILTERED", "LEAKY", "SUBTRACT", "NORMED", "LAST"], True)
for name in ("moments", "forward", "backward", "finish"):
    for exact in (False, True):
        kernel = getattr(kernels_gpu, "_" + name)
        fixed = {**flags, "EXACT": exact, "UNIT": 4096.0, "SURROGATE": 2, "BLOCK": kernels_gpu.BLOCK}
        types = dict.fromkeys(["steps", "size", "inner", "channels"], "i32")
        types |= dict.fromkeys(["threshold", "kept", "limit", "passed_on", "width"], "fp32")
        types |= dict.fromkeys(fixed, "constexpr")
        signature = {name: types.get(name, "*fp32") for name in kernel.arg_names}
        source = ASTSource(kernel, signature, {name: fixed[name] for name in fixed if name in signature})
        code = triton.compile(source, GPUTarget("cuda", 80, 32), {"enable_fp_fusion": False}).asm["ptx"]
        print(name, "fma." in code, "div.rn.f32" in code)
"""


def test_kernels_for_gpus_compile_as_they_must_round(tmp_path: Path):
    """For a GPU that need not be there: no product is fused with a sum, and the soft reset's quotient is IEEE's."""
    triton = pytest.importorskip("triton")
    if int(triton.__version__.split(".")[0]) < 3:
        pytest.skip(f"Triton {triton.__version__} compiles with a driver only")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", COMPILED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    quotients = {"moments": False, "forward": True, "backward": True, "finish": False}
    assert done.stdout.splitlines() == [f"{name} False {rn}" for name, rn in quotients.items() for _ in range(2)]


def test_without_triton_plain_torch_serves_gpus_and_a_warning_says_so(monkeypatch: pytest.MonkeyPatch):
    """Once; what is missing is named."""
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "mtt_lava.kernels_gpu", raising=False)
    monkeypatch.delattr(mtt_lava, "kernels_gpu", raising=False)
    on_gpu = SimpleNamespace(device=torch.device("cuda"), is_cuda=True, dtype=torch.float32)
    kernels._on_gpu.cache_clear()
    with pytest.warns(UserWarning, match=r"plain PyTorch, slower: Triton does not work here \(.*triton") as warned:
        assert [kernels.passes(on_gpu) for _ in range(2)] == [None, None]
    kernels._on_gpu.cache_clear()
    assert len(warned) == 1


def passes_compute_what_torch_does(
    passes: ModuleType, neuron: Neuron, shape: tuple[int, ...], channels_last: bool, seed: int
) -> None:
    """Compare both ways of a neuron on random input (T, N, C, ...), which for most seeds are two runs.

    Spikes bit for bit, but behind a norm where the voltage is within rounding (1e-4 thresholds) of where it decides.
    """
    device = "cuda" if passes is not kernels and torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator) * 2
    if neuron.exact:
        # Every other time so strong that the voltage saturates.
        x = (x * (1000 if seed % 2 else 3_000_000)).round() / STATE_UNIT
    if channels_last:
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    weights = torch.randn(x.shape, generator=generator).to(device)
    normal, first = isinstance(neuron.norm, Norm), seed % len(x)
    lengths = (first, len(x) - first) if first else ()
    results = []
    for of in (None, passes):
        one, inputs = copy.deepcopy(neuron).to(device), x.detach().to(device).requires_grad_()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "passes", lambda _, of=of: of)
            if normal and of is None:
                plain = neuron_module._fired

                def fired(*given: object, plain=plain) -> tuple[torch.Tensor, torch.Tensor]:
                    spikes, voltage = plain(*given)
                    halves = voltage / 0.375
                    weights.mul_(((halves - halves.round()).abs() > 2e-4).all(0))
                    return spikes, voltage

                patch.setattr(neuron_module, "_fired", fired)
            spikes = one(inputs.movedim(0, -1), lengths).movedim(-1, 0)
            (spikes * weights).sum().backward()
        found = [inputs.grad, *(p.grad for p in one.parameters() if p.requires_grad)]
        results.append((spikes.detach() * (weights != 0), found, dict(one.named_buffers())))
    (wanted, gradients, buffers), (spikes, found, kept) = results
    assert torch.equal(spikes, wanted)
    assert spikes.stride() == x.stride() or x.is_contiguous()
    torch.testing.assert_close(found[0], gradients[0], rtol=1e-3, atol=1e-4 * max(1, float(gradients[0].abs().max())))
    # Of parameters they are sums over all neurons, whose signs differ.
    most = float(gradients[0].abs().sum())
    for ours, theirs in zip(found[1:], gradients[1:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 + 5e-5 * most)
    for name, value in kept.items():
        torch.testing.assert_close(value, buffers[name], rtol=1e-4, atol=1e-5)


def test_a_silent_neuron_still_feels_a_gradient():
    """However far below its threshold a neuron is, both resets leave it a way back."""
    for reset in ("zero", "subtract"):
        x = torch.full((1, 1, 4), -3.0).requires_grad_()
        Neuron(reset=reset)(x).sum().backward()
        assert (x.grad > 0).all(), reset


def test_the_voltage_saturates_as_on_chip():
    """Unlike SLAYER's, exact neurons stop at -(2**23 - 1) and come back from there."""
    strong = -float(int(VOLTAGE_MAX))
    x = torch.tensor([[[strong, strong, -strong, -strong / 2, 3.0]]])
    neuron = Neuron(1000.0)
    neuron.exact = True
    # -2047 then -2047.99 (not -4094): +2047, +1023 end at 1022.
    assert neuron(x).tolist() == [[[0, 0, 0, 1, 0]]]
    assert float(neuron.integrate(x)) == pytest.approx(-(2**23 - 1) / 4096 + 2047 + 1023.5 + 3)


def test_integration_sums_the_current():
    """A readout without leak holds the sum of its input after the last time step."""
    x = quantised_input(5, (2, 3, 7))
    neuron = Neuron()
    torch.testing.assert_close(neuron.integrate(x), x.sum(-1))
    neuron.exact = True
    assert torch.equal(neuron.integrate(x), x.sum(-1))


def test_an_unknown_surrogate_is_refused():
    """The message lists the surrogates there are."""
    with pytest.raises(ValueError, match="surrogate gradient 'sigmoid' is unknown; there is: laplace"):
        Neuron(surrogate="sigmoid")


def test_centred_norm_is_batch_norm():
    """With mean and offset it is torch's batch norm over samples, space and time, in training and after."""
    x = torch.randn(4, 3, 2, 2, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
    ours, theirs = Norm(3), torch.nn.BatchNorm3d(3)
    torch.testing.assert_close(ours(x), theirs(x))
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))


def test_the_scale_norm_keeps_zero_at_zero():
    """Without mean and offset a channel's mean square becomes 1, and no bias is left to remove."""
    x = torch.randn(4, 3, 50, generator=torch.Generator().manual_seed(0)) * 3 + 1
    norm = Norm(3, centred=False)
    y = norm(x)
    torch.testing.assert_close(y.square().mean((0, 2)), torch.ones(3), rtol=1e-3, atol=1e-3)
    assert norm(torch.zeros(4, 3, 5)).abs().max() == 0
    assert norm.bias.abs().max() == 0


@pytest.mark.parametrize("centred", [True, False])
def test_calibration_averages_batches_alike(centred: bool):
    """After a reset with momentum None the statistics are the mean over all batches since."""
    norm = Norm(2, centred)
    norm(torch.full((2, 2, 4), 100.0))
    norm.reset(None)
    batches = [torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(i)) * (i + 1) for i in range(3)]
    for batch in batches:
        norm(batch)
    power = [b.var((0, 2), unbiased=True) if centred else b.square().mean((0, 2)) for b in batches]
    torch.testing.assert_close(norm.power, torch.stack(power).mean(0))


@pytest.mark.parametrize("centred", [True, False])
def test_folding_a_norm_changes_nothing(centred: bool):
    """gain * x + bias is what the norm computes in evaluation."""
    x = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(0)) * 2 + 1
    norm = Norm(3, centred)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
    for _ in range(3):
        norm(x)
    norm.eval()
    folded = x * norm.gain.view(1, -1, 1) + norm.bias.view(1, -1, 1)
    torch.testing.assert_close(norm(x), folded)


def test_a_quantised_bias_is_what_the_chip_adds():
    """The forward adds whole mantissas, rescaled for T; the gradient is that of the bias itself."""
    bias = Bias(torch.tensor([0.5, -0.26]))
    bias.weight_scale = 100.0
    bias.per_step = 0.5
    added = bias(torch.zeros(1, 2, 3))
    np.testing.assert_array_equal(bias.integers, [25, -13])
    np.testing.assert_array_equal(added[0, :, 0].detach() * WEIGHT_UNIT, [25, -13])
    added.sum().backward()
    torch.testing.assert_close(bias.value.grad, torch.full((2,), 3 * 0.5 * 100 / WEIGHT_UNIT))


@settings(deadline=None)
@given(threshold=st.integers(1, 300), t=st.integers(1, 20), seed=st.integers(0, 999))
def test_soft_reset_fires_as_many_spikes_as_thresholds(threshold: int, t: int, seed: int):
    """Integers: v += x; one spike a threshold from v >= threshold on, each subtracted; never below -threshold."""
    x = torch.randint(-400, 401, (2, 5, t), generator=torch.Generator().manual_seed(seed))
    v, wanted = np.zeros((2, 5), int), np.zeros((2, 5, t), int)
    for step in range(t):
        v = v + x[..., step].numpy()
        while (v >= threshold).any():
            wanted[..., step] += v >= threshold
            v = v - threshold * (v >= threshold)
        v = np.maximum(v, -threshold)
    neuron = Neuron(threshold / WEIGHT_UNIT, reset="subtract")
    neuron.exact = True
    np.testing.assert_array_equal(neuron(x / WEIGHT_UNIT).numpy(), wanted)


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("width", [1.0, 2.0])
def test_soft_reset_is_backpropagation_through_time(decay: float, width: float):
    """The gradient is plain autograd's with the slope of the staircase, through reset and clamp."""

    class Staircase(torch.autograd.Function):
        @staticmethod
        def forward(ctx, v):
            ctx.save_for_backward(v)
            return v.floor().clamp(min=0)

        @staticmethod
        def backward(ctx, gradient):
            (v,) = ctx.saved_tensors
            return gradient * ((v - 1) / width).clamp(max=0).exp()

    generator = torch.Generator().manual_seed(0)
    x = torch.randn((3, 4, 8), generator=generator).requires_grad_()
    other = x.detach().clone().requires_grad_()
    weight = torch.randn((3, 4, 8), generator=generator)
    (Neuron(1.0, 1.0, decay, width=width, reset="subtract")(x) * weight).sum().backward()
    v, spikes = torch.zeros(3, 4), []
    for step in range(8):
        v = v * (1 - decay) + other[..., step]
        n = Staircase.apply(v)
        spikes.append(n)
        v = (v - n).clamp(min=-1)
    (torch.stack(spikes, -1) * weight).sum().backward()
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_counted_outputs_learn_from_their_charge(reset: str):
    """The answer is the number of spikes; in training its gradient is that of the spikes and of the charge."""
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(3))
    gradients = {}
    for training in (True, False):
        neuron = Neuron(0.5, reset=reset).train(training)
        inputs = x.clone().requires_grad_()
        spikes, number = neuron.count(inputs)
        assert torch.equal(spikes, neuron(x))
        assert torch.equal(number, spikes.sum(-1))
        number.sum().backward()
        gradients[training] = inputs.grad
    torch.testing.assert_close(gradients[True], gradients[False] + 1 / 0.5)


@settings(deadline=None)
@given(
    groups=st.integers(1, 3),
    outputs=st.integers(1, 3),
    inputs=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_centred_weights_give_no_mean_current(groups: int, outputs: int, inputs: int, seed: int):
    """Weighted by the mean input the weights of an output sum to its lift, group by group; a lift of 0 gives 0."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(groups * outputs, inputs, 3, 2, 1, generator=generator)
    x = torch.rand(20, groups * inputs, 4, 4, generator=generator)
    centring = Centring(groups * inputs, groups * outputs)
    mean = x.mean((0, 2, 3))

    def current(centred: torch.Tensor) -> torch.Tensor:
        by_group = centred.flatten(2).sum(2).view(groups, outputs, inputs)
        return (by_group * mean.view(groups, 1, inputs)).sum(2).flatten() / 6

    np.testing.assert_allclose(current(centring(weight, x)).detach(), 0, atol=1e-5)
    with torch.no_grad():
        centring.lift.fill_(2.0)
    wanted = 2 * weight.std() * mean.view(groups, inputs).sum(1).repeat_interleave(outputs)
    np.testing.assert_allclose(current(centring(weight, x)).detach(), wanted, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(centring.eval()(weight, None).detach(), centring.train()(weight, x).detach(), atol=1e-5)


def test_the_gradient_of_centred_weights_is_autograds():
    """Through the mean weighted by the inputs', and to the lift; the deviation that it lifts by is a constant."""
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(6, 2, 3, 3, 1, generator=generator), torch.rand(20, 4, 5, 5, generator=generator)
    centring, gradients = Centring(4, 6), []
    toward = torch.randn(weight.shape, generator=generator)
    share = (x.mean((0, 2, 3)).view(2, 1, 2) / x.mean((0, 2, 3)).view(2, 1, 2).sum(2, keepdim=True)).expand(2, 3, 2)
    for ours in (True, False):
        inputs, lift = weight.clone().requires_grad_(), torch.ones(6, requires_grad=True)
        if ours:
            centring.lift = torch.nn.Parameter(lift.detach())
            lift, centred = centring.lift, centring(inputs, x)
        else:
            middle = (inputs.flatten(2).mean(2) * share.reshape(6, 2)).sum(1) - lift * weight.std()
            centred = inputs - middle.view(-1, 1, 1, 1, 1)
        (centred * toward).sum().backward()
        gradients.append((inputs.grad, lift.grad))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(groups=st.integers(1, 3), outputs=st.integers(1, 4), inputs=st.integers(1, 4), seed=st.integers(0, 999))
def test_centring_in_loops_is_that_in_torch(groups: int, outputs: int, inputs: int, seed: int):
    """Centred weights and both gradients, also where nothing or nothing of a group came in."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(groups * outputs, inputs, 3, 2, 1, generator=generator)
    mean = torch.rand(groups, inputs, generator=generator) * (torch.rand(groups, 1, generator=generator) > 0.3)
    toward, found = torch.randn(weight.shape, generator=generator), []
    for ready in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "ready", lambda _, ready=ready: ready)
            given, lift = weight.clone().requires_grad_(), torch.ones(groups * outputs, requires_grad=True)
            centred = _Centred.apply(given, lift, mean.flatten())
            (centred * toward).sum().backward()
            found.append((centred.detach(), given.grad, lift.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 2, *[st.integers(4, 9)] * 2),
    kernel=st.tuples(*[st.integers(1, 4)] * 2),
    stride=st.tuples(*[st.integers(1, 4)] * 2),
    channels_last=st.booleans(),
)
def test_sum_pools_compute_what_torchs_do(
    shape: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int], channels_last: bool
):
    """Sums and gradients, of windows that overlap, touch or leave gaps."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 9, (*shape, 1), generator=generator).float()
    x = x.to(memory_format=torch.channels_last_3d) if channels_last else x
    results = []
    for compiled in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "ready", lambda _, on=compiled: on)
            inputs = x.clone().requires_grad_()
            y = SumPool(kernel, stride)(inputs)
            (y * torch.arange(y.numel()).view(y.shape)).sum().backward()
            results.append((y.detach(), inputs.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


@settings(deadline=None, max_examples=30)
@example(n=6, channels=(4, 8), size=(32, 32), kernel=(1, 1), stride=(2, 2), padding=0, channels_last=True)
@given(
    n=st.integers(1, 6),
    channels=st.tuples(*[st.sampled_from([1, 2, 3, 4, 8])] * 2),
    size=st.tuples(*[st.integers(4, 9)] * 2),
    kernel=st.tuples(*[st.integers(1, 3)] * 2),
    stride=st.tuples(*[st.integers(1, 3)] * 2),
    padding=st.integers(0, 1),
    channels_last=st.booleans(),
)
def test_convolutions_compute_what_sums_over_windows_do(
    n: int,
    channels: tuple[int, int],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: int,
    channels_last: bool,
):
    """Synaptic input and both gradients, whatever lies innermost (PyTorch 2.3's own broke memory in the example)."""
    generator = torch.Generator().manual_seed(0)
    synapse = _ConvSynapse(*channels, kernel, stride, padding)
    weight = torch.randint(-3, 4, synapse.weight.shape[:-1], generator=generator).float().requires_grad_()
    x = torch.randint(0, 3, (n, channels[0], *size), generator=generator).float()
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format).requires_grad_()
    y = synapse.sums(x, weight, 1)
    windows = torch.nn.functional.unfold(x, kernel, padding=padding, stride=stride)
    reference = (weight.flatten(1) @ windows).view(y.shape)
    toward = torch.randint(-2, 3, y.shape, generator=generator).float()
    ours, theirs = (torch.autograd.grad((sums * toward).sum(), (x, weight)) for sums in (y, reference))
    for one, other in zip((y, *ours), (reference, *theirs), strict=True):
        assert torch.equal(one, other)
