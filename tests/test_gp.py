"""The Gaussian process: against scikit-learn's, against its own definition, and as a model of what is forgotten."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from phyla.strategies import gp
from phyla.strategies.gp import Inputs, Parameters, condition, fit, standardised

P = Parameters(variance=1.3, noise=0.05, lengths=(0.3, 0.8), decay=0.0, decay_categories=0.07, mix=0.4)
N, M = 40, 25


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with gp.one_thread():
        yield


def rows(n: int = N, d: int = 2, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """x, y, time and categories of a smooth function that drifts, seen with some noise."""
    rng = np.random.default_rng(seed)
    x, time, c = rng.random((n, d)), np.sort(rng.random(n) * 30), rng.integers(0, 3, (n, 2))
    y = np.sin(5 * x[:, 0] + 0.1 * time) + 0.5 * (c[:, 0] == 1) + 0.1 * rng.normal(size=n)
    return x, standardised(y), time, c


def sklearns(kernel: Any, x: Any, y: Any) -> Any:
    from sklearn.gaussian_process import GaussianProcessRegressor

    return GaussianProcessRegressor(kernel, alpha=0, optimizer=None).fit(x, y)


def kernels(p: Parameters, decay: float | None = None) -> Any:
    """scikit-learn's kernel of the same form, for x alone or, with a decay, for x and then time."""
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel

    off = 1e9  # a length at which an input has no effect
    timed = [] if decay is None else [off]
    kernel = ConstantKernel(p.variance) * RBF([*p.lengths, *timed])
    if decay is not None:  # exp(-r |t - t'|) is a Matérn of order ½
        kernel *= Matern([*[off] * len(p.lengths), 1 / decay], nu=0.5)
    return kernel + WhiteKernel(p.noise)


# The posterior --------------------------------------------------------------------------------------------------------


def test_mean_deviation_and_likelihood_are_those_of_scikit_learn() -> None:
    x, y, _, _ = rows()
    at = np.random.default_rng(1).random((M, 2))
    ours, theirs = condition(P, x, y), sklearns(kernels(P), x, y)
    mean, std = theirs.predict(at, return_std=True)
    assert ours.log_marginal_likelihood == pytest.approx(theirs.log_marginal_likelihood(), abs=1e-8)
    np.testing.assert_allclose(ours.mean_std(at)[0], mean, atol=1e-8)
    np.testing.assert_allclose(ours.mean_std(at)[1] ** 2 + P.noise, std**2, atol=1e-8)  # theirs counts the noise


@pytest.mark.parametrize("decay", [0.01, 0.2, 3.0])
def test_what_decays_with_time_does_so_as_in_scikit_learn(decay: float) -> None:
    x, y, time, _ = rows()
    at, then = np.random.default_rng(1).random((M, 2)), np.linspace(0, 40, M)
    ours = condition(replace(P, decay=decay), x, y, time)
    theirs = sklearns(kernels(P, decay), np.column_stack([x, time]), y)
    mean, std = theirs.predict(np.column_stack([at, then]), return_std=True)
    assert ours.log_marginal_likelihood == pytest.approx(theirs.log_marginal_likelihood(), abs=1e-6)
    np.testing.assert_allclose(ours.mean_std(at, then)[0], mean, atol=1e-6)
    np.testing.assert_allclose(ours.mean_std(at, then)[1] ** 2 + P.noise, std**2, atol=1e-6)


def covariance(p: Parameters, a: Inputs, b: Inputs) -> Any:
    """By the definition, one pair of rows after the other."""

    def k(i: int, j: int) -> float:
        apart = abs(a.time[i] - b.time[j])
        k_x = np.exp(-0.5 * np.sum(((a.x[i] - b.x[j]) / p.lengths) ** 2) - p.decay * apart)
        k_c = np.mean(a.categories[i] == b.categories[j]) * np.exp(-p.decay_categories * apart)
        return float(p.variance * ((1 - p.mix) / 2 * (k_x + k_c) + p.mix * k_x * k_c))

    return np.array([[k(i, j) for j in range(len(b.x))] for i in range(len(a.x))])


@pytest.mark.parametrize("mix", [1e-4, 0.4, 1 - 1e-4])
def test_with_categories_it_is_the_mixed_kernel_of_pb2_mix(mix: float) -> None:
    x, y, time, c = rows()
    p = replace(P, decay=0.03, mix=mix)
    data, at = Inputs.of(x, time, c), Inputs.of(*(rows(M, seed=1)[i] for i in (0, 2, 3)))
    k, k_at = covariance(p, data, data) + p.noise * np.eye(N), covariance(p, data, at)
    mean, std = condition(p, x, y, time, c).mean_std(*at)
    np.testing.assert_allclose(mean, k_at.T @ np.linalg.solve(k, y), atol=1e-9)
    left = np.diag(covariance(p, at, at)) - np.sum(k_at * np.linalg.solve(k, k_at), 0)
    np.testing.assert_allclose(std, np.sqrt(left), atol=1e-7)


def test_where_nothing_was_seen_for_long_nothing_is_known() -> None:
    x, y, time, _ = rows()
    mean, std = condition(replace(P, decay=0.5), x, y, time).mean_std(x, 1000.0)
    np.testing.assert_allclose(mean, 0, atol=1e-6)
    np.testing.assert_allclose(std**2, P.variance, atol=1e-6)


def test_the_same_row_twice_is_no_trouble_even_without_noise() -> None:
    x, _, _, _ = rows()
    y, at = np.sin(5 * x[:, 0]), np.random.default_rng(1).random((M, 2))
    model = condition(replace(P, noise=gp.LEAST_NOISE), np.repeat(x, 2, 0), np.repeat(y, 2))
    np.testing.assert_allclose(model.mean_std(at)[0], np.sin(5 * at[:, 0]), atol=0.01)


# What others are about to try -----------------------------------------------------------------------------------------


def test_what_is_pretended_moves_no_mean_and_leaves_less_doubt() -> None:
    x, y, time, c = rows()
    p, at = replace(P, decay=0.03), Inputs.of(*(rows(M, seed=1)[i] for i in (0, 2, 3)))
    model = condition(p, x, y, time, c)
    mean, std = model.mean_std(*at)
    more = model.pretend(at.x[3], at.time[3], at.categories[3])
    mean_after, std_after = more.mean_std(*at)
    np.testing.assert_allclose(mean_after, mean, atol=1e-9)
    assert (std_after <= std + 1e-9).all()
    assert std_after[3] < 0.7 * std[3]
    # It is what having seen the mean there would have come to.
    seen = [np.concatenate([old, new[3:4]]) for old, new in zip(Inputs.of(x, time, c), at, strict=True)]
    again = condition(p, seen[0], np.append(y, mean[3]), seen[1], seen[2])
    np.testing.assert_allclose(again.mean_std(*at), (mean_after, std_after), atol=1e-8)


# The fit --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_slope_of_the_loss_is_that_of_finite_differences(kinds: bool, seed: int) -> None:
    x, y, time, c = rows(30, 3, seed)
    data = Inputs.of(x, time, c if kinds else None)
    theta = gp._prior(3)[0] + 0.5 * np.random.default_rng(seed).normal(size=8)
    numeric = [(gp._loss(theta + h, data, y)[0] - gp._loss(theta - h, data, y)[0]) / 2e-5 for h in 1e-5 * np.eye(8)]
    np.testing.assert_allclose(gp._loss(theta, data, y)[1], numeric, rtol=1e-5, atol=1e-6)


def test_the_fit_comes_to_what_scikit_learn_comes_to() -> None:
    """Its likelihood is a little less than the highest, since there are priors."""
    from sklearn.gaussian_process import GaussianProcessRegressor

    x, y, _, _ = rows(80)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = GaussianProcessRegressor(kernels(P), alpha=0, n_restarts_optimizer=3, random_state=0).fit(x, y)
    model = fit(x, y)
    highest = best.log_marginal_likelihood_value_
    assert highest - 3 < model.log_marginal_likelihood < highest + 1e-6
    at = np.random.default_rng(1).random((M, 2))
    np.testing.assert_allclose(model.mean_std(at)[0], best.predict(at), atol=0.25)


def drawn(p: Parameters, n: int, seed: int) -> tuple[Any, Any, Any]:
    """Rows of a function that this very process has drawn."""
    rng = np.random.default_rng(seed)
    x, time = rng.random((n, 2)), np.sort(rng.random(n) * 60)
    k = covariance(p, data := Inputs.of(x, time, np.zeros((n, 1))), data) + p.noise * np.eye(n)
    return x, np.linalg.cholesky(k) @ rng.normal(size=n), time


def test_the_fit_finds_the_parameters_that_data_were_drawn_with() -> None:
    true = Parameters(variance=1.0, noise=0.02, lengths=(0.3, 3.0), decay=0.03, decay_categories=0.0, mix=1 - 1e-12)
    found = [fit(*drawn(true, 100, seed)).parameters for seed in range(4)]
    for name, factor in (("variance", 2), ("noise", 2), ("decay", 2)):
        middle = np.median([getattr(p, name) for p in found])
        assert getattr(true, name) / factor < middle < getattr(true, name) * factor, name
    short, long = np.median([p.lengths for p in found], axis=0)
    assert 0.2 < short < 0.45
    assert long > 3 * short


def test_what_never_changes_is_not_forgotten_and_what_does_is() -> None:
    x, _, time, _ = rows(120)
    stays = fit(x, standardised(np.sin(5 * x[:, 0])), time).parameters
    moves = fit(x, standardised(np.sin(5 * x[:, 0] + 0.5 * time)), time).parameters
    assert stays.decay < 0.03 < moves.decay


def test_a_fit_goes_on_from_an_earlier_one_and_comes_to_the_same() -> None:
    x, y, time, c = rows(60)
    first = fit(x, y, time, c)
    again = fit(x, y, time, c, start=Parameters.from_json(first.parameters.as_json()))
    far = fit(x, y, time, c, start=replace(first.parameters, noise=1.0, lengths=(3.0, 0.1), mix=0.9))
    for other in (again, far):
        assert other.log_marginal_likelihood == pytest.approx(first.log_marginal_likelihood, abs=0.5)
    assert fit(x, y, time, c, start=replace(first.parameters, lengths=(1.0,))).parameters == first.parameters


def test_rounding_errors_in_the_data_do_not_show_in_the_parameters() -> None:
    x, y, time, c = rows(60)
    noise = 1e-13 * np.random.default_rng(0).normal(size=60)
    assert fit(x, y + noise, time, c).parameters == fit(x, y, time, c).parameters


def test_of_many_rows_the_newest_make_the_parameters_and_all_of_them_the_prediction() -> None:
    n = gp.LEARN_FROM + 50
    x, y, time, _ = rows(n)
    other = np.where(np.arange(n) < 50, 1 - y, y)
    model, changed = fit(x, y, time), fit(x, other, time)
    assert model.parameters == changed.parameters
    assert np.abs(model.mean_std(x[:50], time[:50])[0] - changed.mean_std(x[:50], time[:50])[0]).max() > 0.5


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_rows_are_enough_to_predict_something(n: int) -> None:
    x, y, time, c = rows(n)
    mean, std = fit(x, y, time, c).mean_std(x, time, c)
    assert np.isfinite(mean).all()
    assert (std > 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("which", range(3))
def test_what_is_not_finite_is_refused(bad: float, which: int) -> None:
    data = [np.array(array, float) for array in rows(10)]
    data[which][3] = bad
    with pytest.raises(np.linalg.LinAlgError, match="not finite"):
        fit(*data)


def test_blas_has_one_thread_meanwhile_and_its_own_again_after_it() -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    def threads() -> set[int]:
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    with threadpool_limits(2, "blas"):
        with gp.one_thread(), gp.one_thread():
            assert threads() == {1}
        assert threads() == {2}


# Targets --------------------------------------------------------------------------------------------------------------


def test_targets_are_standardised_in_their_order() -> None:
    y = np.random.default_rng(0).normal(7, 3, 50)
    z = standardised(y)
    assert z.mean() == pytest.approx(0, abs=1e-12)
    assert z.std() == pytest.approx(1)
    np.testing.assert_allclose(np.corrcoef(y, z)[0, 1], 1)


@pytest.mark.parametrize("far", [-1e9, 1e300, -1.7e308])
def test_one_value_far_out_does_not_make_the_others_alike(far: float) -> None:
    y = np.append(np.random.default_rng(0).normal(size=30), far)
    z = standardised(y)
    assert np.ptp(z[:30]) > 1
    assert np.argsort(z, kind="stable").tolist() == np.argsort(y, kind="stable").tolist()


@pytest.mark.parametrize("y", [[3.0], [3.0] * 9, [0.0] * 4])
def test_equal_targets_are_all_zero(y: list[float]) -> None:
    assert standardised(y).tolist() == [0.0] * len(y)
