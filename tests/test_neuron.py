"""Our neuron against SLAYER's own, its gradients against plain autograd, and the norm against torch's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtt_lava import neuron as neuron_module
from mtt_lava.neuron import STATE_UNIT, SURROGATES, VOLTAGE_MAX, WEIGHT_UNIT, Bias, Centring, Neuron, Norm, slayer


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


@settings(deadline=None, max_examples=40)
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    large=st.booleans(),
    t=st.integers(1, 12),
    reset=st.sampled_from(["zero", "subtract"]),
    surrogate=st.sampled_from(SURROGATES),
    width=st.sampled_from([0.5, 1.0, 2.0]),
    decay=st.sampled_from([0.0, 0.25, 1.0]),
    exact=st.booleans(),
    seed=st.integers(0, 999),
)
def test_compiled_loops_compute_what_torch_does(
    shape: list[int],
    large: bool,
    t: int,
    reset: str,
    surrogate: str,
    width: float,
    decay: float,
    exact: bool,
    seed: int,
):
    """Forward every bit, backward within rounding, for any shape, reset and surrogate, on several threads too."""
    if large:
        shape = [*shape[:-1], 9000]
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((*shape, t), generator=generator) * 2
    if exact:
        x = (x * 1000).round() / STATE_UNIT
    results = []
    for compiled in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(neuron_module, "_on_cpu", lambda _, on=compiled: on)
            neuron = Neuron(0.75, 1.0, decay, surrogate, width, reset)
            neuron.exact = exact
            inputs = x.clone().requires_grad_()
            spikes = neuron(inputs)
            (spikes * torch.linspace(-1, 1, t)).sum().backward()
            results.append((spikes.detach(), inputs.grad))
    (spikes, gradient), (wanted, wanted_gradient) = results
    assert torch.equal(spikes, wanted)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-3, atol=1e-4)


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
