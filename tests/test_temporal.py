"""Temporal structure: what the TTM and the samplers promise."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtt_lava.temporal import (
    DRAWS,
    FORMS,
    METHODS,
    Sampler,
    TemporalError,
    accumulate,
    borders,
    matrix,
    random_borders,
    transform,
    transform_several,
)

steps = st.integers(1, 40)


def frames(t: int, seed: int = 0, shape: tuple[int, ...] = (2, 3, 4, 5)) -> torch.Tensor:
    return torch.randint(0, 9, (*shape, t), generator=torch.Generator().manual_seed(seed)).float()


def test_the_method_documents_examples():
    """5 -> 3 sums {1,2},{3},{4,5}; 3 -> 5 copies 1,1,2,3,3 -- with the borders round(k*many/few - 1e-5)."""
    x = torch.tensor([[[1.0, 10, 100, 1000, 10000]]])
    assert transform(x, 3).tolist() == [[[11, 100, 11000]]]
    assert borders(3, 5) == [0, 2, 3, 5]
    assert transform(torch.tensor([[[1.0, 2, 3]]]), 5).tolist() == [[[1, 1, 2, 3, 3]]]


@given(few=steps, many=steps, k=st.integers(0, 40))
def test_borders_follow_the_formula(few: int, many: int, k: int):
    """Border k is round(k * many / few - 1e-5), and every group holds at least one frame."""
    few, many = sorted((few, many))
    b = borders(few, many)
    k = min(k, few)
    assert b[k] == round(k * many / few - 1e-5) if k else b[0] == 0
    assert all(right > left for left, right in itertools.pairwise(b))


@given(t_in=steps, t_out=steps, form=st.sampled_from(["group", "fraction"]), seed=st.integers(0, 99))
def test_going_down_conserves_events(t_in: int, t_out: int, form: str, seed: int):
    """Going down, every pixel's sum over time stays what it was."""
    t_out, t_in = sorted((t_in, t_out))
    x = frames(t_in, seed)
    torch.testing.assert_close(transform(x, t_out, form).sum(-1), x.sum(-1), rtol=1e-5, atol=1e-4)


@given(t_in=steps, t_out=steps, seed=st.integers(0, 99))
def test_going_up_copies_frames(t_in: int, t_out: int, seed: int):
    """Going up, every output frame is one input frame, in order, and none is left out."""
    t_in, t_out = sorted((t_in, t_out))
    x = frames(t_in, seed)
    x[..., :] += 100 * torch.arange(t_in)
    y = transform(x, t_out)
    source = [(y[..., k, None] == x).flatten(0, -2).all(0).nonzero()[0].item() for k in range(t_out)]
    assert source == sorted(source)
    assert set(source) == set(range(t_in))


@given(t=steps, form=st.sampled_from(FORMS))
def test_equal_numbers_are_the_identity(t: int, form: str):
    """At a uniform T the transformation disappears."""
    x = frames(t)
    assert transform(x, t, form) is x
    np.testing.assert_array_equal(matrix(t, t, form), np.eye(t))


@given(t_in=steps, t_out=steps)
def test_fraction_shares_by_overlap(t_in: int, t_out: int):
    """Entry (i, k) is the overlap of the two frames as a fraction of the shorter one's axis; sums are whole."""
    m = matrix(t_in, t_out, "fraction")
    for i in range(t_in):
        for k in range(t_out):
            overlap = max(0.0, min((i + 1) / t_in, (k + 1) / t_out) - max(i / t_in, k / t_out))
            assert m[i, k] == pytest.approx(overlap * max(t_in, t_out), abs=1e-6)
    np.testing.assert_allclose(m.sum(1 if t_in >= t_out else 0), 1, rtol=1e-5)


@given(t_in=steps, t_out=steps)
def test_trim_keeps_the_first_frames(t_in: int, t_out: int):
    """Trim goes down by forgetting all but the first frames."""
    t_out, t_in = sorted((t_in, t_out))
    x = frames(t_in)
    assert torch.equal(transform(x, t_out, "trim"), x[..., :t_out])


@given(t_in=steps, t_out=steps)
def test_means_keep_what_comes_in_a_time_step(t_in: int, t_out: int):
    """Down, each output frame is the mean of the frames that `group` sums; up, it copies as `group` does."""
    m, group = matrix(t_in, t_out, "mean"), matrix(t_in, t_out)
    np.testing.assert_allclose(m, group / group.sum(0), rtol=1e-6)
    constant = torch.full((1, 2, t_in), 3.0)
    torch.testing.assert_close(transform(constant, t_out, "mean"), torch.full((1, 2, t_out), 3.0))


@given(
    st.lists(st.tuples(steps, steps), min_size=1, max_size=4), st.sampled_from(FORMS), st.booleans(), st.integers(0, 99)
)
def test_several_runs_are_transformed_as_each_alone(pairs: list[tuple[int, int]], form: str, shared: bool, seed: int):
    """Frames of several runs behind one another, or one recording for all of them."""
    t_in, t_out = [before for before, _ in pairs], [after for _, after in pairs]
    t_in = t_in[:1] if shared else t_in
    x = torch.rand(2, 3, 2, 2, sum(t_in), generator=torch.Generator().manual_seed(seed))
    runs = x.split(t_in, -1) if len(t_in) == len(t_out) else [x] * len(t_out)
    expected = torch.cat([transform(run, t, form) for run, t in zip(runs, t_out, strict=True)], -1)
    torch.testing.assert_close(transform_several(x, t_in, t_out, form), expected)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 7)])
def test_it_is_differentiable_on_both_layouts(shape: tuple[int, ...]):
    """The gradient is the transposed matrix, for NCHWT and NCT."""
    for t_in, t_out in ((7, 3), (3, 7)):
        x = frames(t_in, shape=shape).double().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, t=t_out: transform(x, t), x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_it_works_on_a_gpu():
    """The result stays on the device and equals the CPU's."""
    x = frames(10)
    assert torch.equal(transform(x.cuda(), 4).cpu(), transform(x, 4))


@given(
    method=st.sampled_from(["sdt", "nmt", "mtt"]),
    blocks=st.integers(1, 9),
    group=st.integers(1, 4),
    hold=st.booleans(),
    sandwich=st.booleans(),
    seed=st.integers(0, 99),
    step=st.integers(0, 99),
    draws=st.sampled_from(DRAWS),
)
def test_samplers(method: str, blocks: int, group: int, hold: bool, sandwich: bool, seed: int, step: int, draws: str):
    """Numbers stay in range, groups agree, SDT and NMT are uniform, held stages and the anchor are at t_max."""
    sampler = Sampler(method, blocks, 2, 7, 3, group, hold, sandwich, seed, draws=draws)
    drawn = sampler.draw(step)
    assert drawn == sampler.draw(step), "a draw depends on seed and step only"
    assert len(drawn) == (1 if method == "sdt" else 3)
    for t in drawn:
        assert len(t) == blocks
        assert all(2 <= n <= 7 for n in t)
        assert all(len(set(t[i : i + group])) == 1 for i in range(0, blocks, group))
        if (hold and not (sandwich and set(t) == {2})) or method == "sdt":
            assert set(t[:group]) == {7}
        if method != "mtt":
            assert len(set(t[group if hold else 0 :])) <= 1
    if method == "sdt" or sandwich:
        assert set(drawn[0]) == {7}
    if sandwich and method != "sdt":
        assert set(drawn[1]) == {2}


def test_mtt_draws_stages_independently_and_uniformly():
    """Over many draws every number is as frequent as any other, and neighbours are uncorrelated."""
    drawn = np.array([t for step in range(2000) for t in Sampler("mtt", 3, 1, 5, 3, seed=1).draw(step)])
    counts = np.stack([np.bincount(stage, minlength=6)[1:] for stage in drawn.T])
    assert abs(counts / len(drawn) - 0.2).max() < 0.03
    assert abs(np.corrcoef(drawn.T)[np.triu_indices(3, 1)]).max() < 0.05


@given(few=steps, more=steps, seed=st.integers(0, 99))
def test_frames_summed_at_random_borders_lose_nothing(few: int, more: int, seed: int):
    """Every group holds at least one frame, groups follow each other, and each pixel's sum over time stays."""
    many = few + more - 1
    cuts = random_borders(np.random.default_rng(seed), few, many)
    assert (len(cuts), cuts[0], cuts[-1]) == (few + 1, 0, many)
    assert all(right > left for left, right in itertools.pairwise(cuts))
    x = frames(many, seed)
    y = accumulate(x, cuts)
    assert torch.equal(y.sum(-1), x.sum(-1))
    assert all(torch.equal(y[..., k], x[..., a:b].sum(-1)) for k, (a, b) in enumerate(itertools.pairwise(cuts)))


def test_all_cuts_are_as_likely():
    """Two groups of six frames: each border a fifth of the time."""
    generator = np.random.default_rng(0)
    found = np.bincount([random_borders(generator, 2, 6)[1] for _ in range(5000)], minlength=6)
    assert found[0] == 0
    assert abs(found[1:] / 5000 - 0.2).max() < 0.02


@given(
    method=st.sampled_from(sorted(METHODS)),
    sandwich=st.booleans(),
    finer=st.integers(1, 3),
    configurations=st.integers(2, 4),
    step=st.integers(0, 99),
)
def test_only_accumulation_cuts(method: str, sandwich: bool, finer: int, configurations: int, step: int):
    """One entry a configuration; what it draws for itself is cut into as many groups, by the same borders each time."""
    sampler = Sampler(method, 3, 2, 7, configurations, sandwich=sandwich, finer=finer, seed=1)
    drawn, cuts = sampler.draw(step), sampler.cuts(step, 7 * finer)
    assert len(drawn) == len(cuts)
    assert cuts == sampler.cuts(step, 7 * finer)
    for time_steps, each in zip(drawn, cuts, strict=True):
        assert each is None or (len(each) == time_steps[0] + 1 and each[-1] == 7 * finer and len(set(time_steps)) == 1)
    ends = 2 if sandwich and (configurations > 2 or step % 2 == 0) else 0
    assert sum(each is not None for each in cuts) == (configurations - ends if method == "accumulate" else 0)


@pytest.mark.parametrize(("method", "draws"), [(m, d) for m in ("nmt", "mtt") for d in DRAWS])
def test_every_number_is_drawn_as_often(method: str, draws: str):
    """However configurations are drawn together, each of them is uniform, and stages of MTT are uncorrelated."""
    sampler = Sampler(method, 3, 1, 5, 4, seed=1, draws=draws)
    drawn = np.array([sampler.draw(step) for step in range(1500)])
    counts = np.stack([[np.bincount(stage, minlength=6)[1:] for stage in each.T] for each in drawn.swapaxes(0, 1)])
    assert abs(counts / len(drawn) - 0.2).max() < 0.05
    if method == "mtt":
        assert abs(np.corrcoef(drawn.reshape(-1, 3).T)[np.triu_indices(3, 1)]).max() < 0.05
    means = drawn.mean((1, 2))
    assert means.std() < {"independent": 1.0, "antithetic": 1e-9, "stratified": 0.25}[draws]


@given(st.integers(0, 99), st.integers(1, 9), st.integers(1, 6))
def test_pairs_mirror_and_parts_are_all_there(step: int, blocks: int, pairs: int):
    """Two of a pair cost together what the ends of the range do; of ten parts of ten, each number is there once."""
    drawn = np.array(Sampler("mtt", blocks, 2, 9, 2 * pairs, draws="antithetic").draw(step))
    assert (drawn[::2] + drawn[1::2] == 11).all()
    drawn = np.array(Sampler("mtt", blocks, 1, 10, 10, draws="stratified").draw(step))
    assert (np.sort(drawn, axis=0) == np.arange(1, 11)[:, None]).all()


def test_two_configurations_take_turns_at_the_ends():
    """With a sandwich of two, every second mini-batch has both ends, and the others are drawn."""
    sampler = Sampler("mtt", 3, 1, 10, 2, sandwich=True, draws="antithetic")
    assert all(sampler.draw(step) == [(10, 10, 10), (1, 1, 1)] for step in range(0, 20, 2))
    assert len({tuple(sampler.draw(step)) for step in range(1, 20, 2)}) > 5


def test_seeds_differ():
    """Another seed gives another sequence."""
    a, b = (Sampler("mtt", 4, seed=s) for s in (0, 1))
    assert [a.draw(k) for k in range(5)] != [b.draw(k) for k in range(5)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: transform(frames(3), 0), "at least 1"),
        (
            lambda: matrix(3, 2, "fold"),
            "form of a temporal transformation 'fold' is unknown; there is: group, fraction, trim, mean",
        ),
        (lambda: Sampler("bptt", 3), "training method 'bptt' is unknown; there is: sdt, nmt, mtt, accumulate, online"),
        (lambda: Sampler("accumulate", 3, hold_first=True), "method 'accumulate' runs the same number of time steps"),
        (lambda: random_borders(np.random.default_rng(0), 4, 3), "cannot cut 3 frames into 4"),
        (lambda: Sampler("mtt", 3, 5, 4), "5..4"),
        (lambda: Sampler("mtt", 0), "blocks is 0"),
        (lambda: Sampler("mtt", 3, configurations=1, sandwich=True), "must be at least 2"),
        (lambda: Sampler("mtt", 3, draws="paired"), "there is: independent, antithetic, stratified"),
        (lambda: borders(4, 3), "cannot cut 3 frames into 4"),
    ],
)
def test_wrong_numbers_are_refused_in_one_line(call, words: str):
    """Each refusal says the value and what is allowed."""
    with pytest.raises(TemporalError) as error:
        call()
    assert words in str(error.value)
    assert "\n" not in str(error.value)
