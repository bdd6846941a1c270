"""Quantiles against SciPy's, an independent implementation."""

import pytest
from scipy import special, stats

from outrider.gate.quantiles import beta_quantile, binomial_lower_bound, incomplete_beta, t_quantile, t_tail


@pytest.mark.parametrize("a", [0.5, 1.0, 3.7, 50.0, 400.0])
@pytest.mark.parametrize("b", [0.5, 1.0, 12.0, 300.0])
def test_incomplete_beta_is_that_of_scipy(a, b):
    for x in (0.0, 1e-9, 0.01, 0.3, 0.5, 0.77, 0.999, 1.0):
        assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-11, abs=1e-290)


@pytest.mark.parametrize("df", [1.0, 1.7, 2.0, 4.4, 19.0, 39.2, 1000.0])
def test_t_quantile_is_that_of_scipy(df):
    for tail in (1e-6, 0.001, 0.0025, 0.01, 0.2, 0.5, 0.8, 0.999):
        assert t_quantile(tail, df) == pytest.approx(stats.t.isf(tail, df), rel=1e-10, abs=1e-9)
        assert t_tail(t_quantile(tail, df), df) == pytest.approx(tail, rel=1e-10)


def test_binomial_bound_is_that_of_clopper_and_pearson():
    for successes, trials in ((1, 1), (1, 20), (12, 20), (244, 400), (400, 400)):
        expected = stats.binomtest(successes, trials, alternative="greater").proportion_ci(0.99, method="exact").low
        assert binomial_lower_bound(successes, trials, alarm_level=0.01) == pytest.approx(expected, rel=1e-9)
    assert binomial_lower_bound(0, 20, alarm_level=0.01) == 0.0


def test_beta_quantile_is_that_of_scipy():
    for mass in (0.001, 0.05, 0.5, 0.99):
        assert beta_quantile(mass, 2.5, 7.0) == pytest.approx(stats.beta.ppf(mass, 2.5, 7.0), rel=1e-10)
