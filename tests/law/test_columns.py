"""The columns of the law take one number or an array: a number stays a plain float,
which is what `predict` is quick by, and equals the array's entry.
"""

import numpy as np
import pytest

from initdiag.law import columns

NUMBERS = [
    (columns.gate_beta, (1.7, 40.0)),
    (columns.radius_beta, (40.0,)),
    (columns.entry_kurtosis_share, (-1.2, 0.1, 2.0, 40.0)),
    (columns.uniform_concentration, (40.0,)),
    (columns.bounded_spread, (0.2, 0.003)),
    (columns.bounded_spread, (0.2, 3.0)),
    (columns.bounded_spread, (0.9, 3.0)),
    (columns.bounded_spread, (0.2, -1e-20)),
    (columns.light_error_share, (0.2, 40.0)),
    (columns.light_error_share, (1.0, 1.0)),
    (lambda m, v, a, b: columns.without_radius(m, v, (a, b)), (0.1, 0.02, 0.01, 0.03)),
]


@pytest.mark.parametrize(("column", "numbers"), NUMBERS)
def test_one_number_and_an_array_of_them_agree(column, numbers):
    one = column(*numbers)
    arrays = column(*(np.array([x, x]) for x in numbers))
    for number, array in zip(np.atleast_1d(one), np.atleast_2d(arrays), strict=True):
        np.testing.assert_array_equal(array, np.full(2, number))
    assert all(type(x) is float for x in (one if isinstance(one, tuple) else (one,)))


def test_the_two_points_of_a_concentration_stay_between_a_quarter_of_it_and_1():
    for k in np.linspace(0.01, 1.0, 12):
        spread = columns.bounded_spread(float(k), 10.0)
        assert k - spread >= k / 4 - 1e-15
        assert k + spread <= 1 + 1e-15
