"""Quantiles of Student's t and of the beta distribution, both from the incomplete beta function.

Uses the standard library only, so that a gate needs no SciPy; tests compare it with SciPy.
"""

import math
from statistics import NormalDist

_TINY = 1e-300
_MOST_STEPS = 200
"""Far more than either search takes; bisection ends when a double cannot be halved."""


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1.0) / (a + b + 2.0):  # on this side the fraction of the mirror image converges faster
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / a / _continued_fraction(a, b, x)


def _continued_fraction(a: float, b: float, x: float) -> float:
    """1 + d1 / (1 + d2 / (1 + …)) by the method of Lentz: products of ratios, so that nothing overflows."""
    value = upper = 1.0
    lower = 0.0
    for step in range(1, 10_000):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        upper = _away_from_zero(1.0 + term / upper)
        lower = 1.0 / _away_from_zero(1.0 + term * lower)
        value *= upper * lower
        if abs(upper * lower - 1.0) < 1e-15:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def t_tail(t: float, df: float) -> float:
    """P(T > t) of Student's t with `df` degrees of freedom."""
    tail = 0.5 * incomplete_beta(df / 2.0, 0.5, df / (df + t * t))
    return tail if t >= 0 else 1.0 - tail


def t_quantile(tail: float, df: float) -> float:
    """The t that P(T > t) = `tail`, for 0 < tail < 1, by Newton's method from the normal quantile.

    The tail is convex where t > 0 and heavier than the normal one, so the steps go up to the root and never past it.
    """
    if tail > 0.5:
        return -t_quantile(1.0 - tail, df)
    t = max(NormalDist().inv_cdf(1.0 - tail), 0.0)
    log_scale = math.lgamma((df + 1.0) / 2.0) - math.lgamma(df / 2.0) - 0.5 * math.log(df * math.pi)
    for _ in range(_MOST_STEPS):
        density = math.exp(log_scale - 0.5 * (df + 1.0) * math.log1p(t * t / df))
        step = (t_tail(t, df) - tail) / density
        t += step
        if abs(step) <= 1e-13 * t:
            break
    return t


def beta_quantile(mass: float, a: float, b: float) -> float:
    """The x that I_x(a, b) = `mass`."""
    low, high = 0.0, 1.0
    for _ in range(_MOST_STEPS):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if incomplete_beta(a, b, middle) < mass else (low, middle)
    return low


def binomial_lower_bound(successes: int, trials: int, *, alarm_level: float) -> float:
    """The rate below which `successes` or more of `trials` have probability `alarm_level` (Clopper and Pearson)."""
    if successes == 0:
        return 0.0
    return beta_quantile(alarm_level, successes, trials - successes + 1)
