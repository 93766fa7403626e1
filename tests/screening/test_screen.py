"""Screening against `predict` and `failure_risk`, one architecture at a time."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import initdiag
from initdiag.errors import InvalidInput, UnsupportedArchitecture

NAMES = ("beta", "log_mean", "rms_gain_log_mean", "log_variance", "dead_probability")
EXACT = ("he_normal", "he_normal_fan_out", "lecun_normal", "xavier_normal", "orthogonal")
FIRST_ORDER = ("torch_default", "xavier_uniform", "he_truncated_normal")


def architectures(seed, count, narrowest=1, widest=300, deepest=20):
    generator = np.random.default_rng(seed)
    logs = np.log([narrowest, widest + 1])
    return [
        np.exp(generator.uniform(*logs, generator.integers(2, deepest + 2))).astype(int).tolist()
        for _ in range(count)
    ]


def one_by_one(rows, optimizer="sgd", **assumptions):
    """Columns as `screen` makes them, from `predict` and `failure_risk`; NaN where not covered."""
    predictions = [initdiag.predict(row, **assumptions) for row in rows]
    found = {name: np.array([getattr(p, name) for p in predictions], dtype=float) for name in NAMES}
    found["risk"] = np.array(
        [
            np.nan if p.coverage == "none" else initdiag.failure_risk(p, optimizer)
            for p in predictions
        ]
    )
    return found


def assert_equal(screening, expected, tolerance):
    for name, values in expected.items():
        found = (
            np.where(np.isnan(values), np.nan, screening.beta)
            if name == "beta"
            else getattr(screening, name)
        )
        np.testing.assert_allclose(found, values, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("init", EXACT)
@pytest.mark.parametrize(
    ("activation", "output"),
    [("relu", "linear"), ("leaky_relu", "relu"), ("linear", "linear"), ("relu", "relu")],
)
def test_exact_laws_equal_predict(init, activation, output):
    rows = architectures(1, 25)
    assumptions = {
        "init": init,
        "activation": activation,
        "output": output,
        "gain": 1.2,
        "negative_slope": 0.2,
    }
    assert_equal(initdiag.screen(rows, **assumptions), one_by_one(rows, **assumptions), 1e-12)


@pytest.mark.parametrize("init", FIRST_ORDER)
@pytest.mark.slow
def test_first_order_laws_equal_predict(init):
    rows = [[40, *row, 5] for row in architectures(2, 12, narrowest=64, widest=400)]
    assert_equal(initdiag.screen(rows, init=init), one_by_one(rows, init=init), 1e-11)


def test_narrow_uniform_layers_are_refused_where_predict_refuses_them():
    rows = architectures(3, 40, widest=2, deepest=4)
    expected = one_by_one(rows)
    found = initdiag.screen(rows, max_risk=1.0)
    assert 0 < np.isnan(expected["risk"]).sum() < len(rows)
    assert_equal(found, expected, 1e-11)
    assert not found.accepted[np.isnan(expected["risk"])].any()


EXTREME = (1, 2, 3, 8, 33, 70, 150, 1000, 70_000, 1_000_000)
"""Few, so that tables are shared: narrow, on both sides of where `k` is small and of where widths are interpolated, and wide."""


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.sampled_from(EXTREME), min_size=2, max_size=9), min_size=1, max_size=6))
@example(
    [
        [2, 1000] * 4,
        [1_000_000, 3, 1_000_000, 3],
        [8] * 40,
        [3] * 9,
        [5, 8],
        [1, 1],
        [150, 70] * 10,
        [70, 33, 70],
    ]
)
def test_uniform_weights_at_any_width_after_any_width(rows):
    """Narrow after wide, wide after narrow, all narrow, one layer; chains of unequal depth together."""
    assert_equal(initdiag.screen(rows), one_by_one(rows), 1e-11)


@pytest.mark.slow
def test_more_chains_than_are_gathered_together():
    """The last ones of a second block, deep among shallow, as if alone."""
    rows = [[8, 70, 150]] * 5000 + [[33, 70, 8, 33, 150, 70, 1000], [150, 8, 8]]
    found = initdiag.screen(rows)
    assert_equal(
        initdiag.screen(rows[-2:]), {name: getattr(found, name)[-2:] for name in NAMES}, 1e-13
    )
    assert np.ptp(found.log_variance[:5000]) < 1e-13


def test_dropout_extreme_widths_and_one_layer():
    rows = [[1, 1], [3, 1_000_000, 5], [1_000_000, 1], [784, 10], [2, 1, 1, 70_000, 2]]
    for assumptions in ({"init": "he_normal", "dropout": 0.4}, {"init": "orthogonal"}):
        assert_equal(initdiag.screen(rows, **assumptions), one_by_one(rows, **assumptions), 1e-12)


@pytest.mark.slow
def test_a_hundred_thousand_layers():
    row = [100] * 100_001
    shallow, deep = initdiag.screen([row[:1002], row], init="he_normal").log_variance
    last = initdiag.screen([row[:2]], init="he_normal").log_variance[0]
    assert (deep - last) / (shallow - last) == pytest.approx(99_999 / 1000, rel=1e-12)
    assert initdiag.screen([row[:2001]], init="torch_default").risk[0] == pytest.approx(1)


@pytest.mark.slow
def test_errors_do_not_build_up_along_fifteen_thousand_uniform_layers():
    row = [33, 8] * 7500 + [33]
    predicted = [initdiag.predict(row[:n]).log_variance for n in (1001, 3001)]
    shallow, middle, deep = initdiag.screen([row[:1001], row[:3001], row]).log_variance
    assert [shallow, middle] == pytest.approx(predicted, rel=1e-11)
    assert (deep - shallow) / (middle - shallow) == pytest.approx(14_000 / 2000, rel=1e-11)


def test_every_form_of_widths_gives_the_same():
    rows = architectures(4, 30)
    flat, offsets = np.concatenate(rows), np.cumsum([0, *map(len, rows)])
    expected = initdiag.screen(rows, init="he_normal").to_dict()
    assert initdiag.screen((flat, offsets), init="he_normal").to_dict() == expected
    assert initdiag.screen([np.array(row) for row in rows], init="he_normal").to_dict() == expected
    assert (
        initdiag.screen((flat.astype(np.uint16), offsets), init="he_normal").to_dict() == expected
    )
    table = np.array([[8, 9, 10], [20, 30, 40]])
    assert (
        initdiag.screen(table, init="he_normal").to_dict()
        == initdiag.screen(table.tolist(), init="he_normal").to_dict()
    )


def test_arrow_arrays():
    pyarrow = pytest.importorskip("pyarrow")
    rows = architectures(5, 30)
    expected = initdiag.screen(rows, init="he_normal").to_dict()
    for kind in (pyarrow.list_(pyarrow.int32()), pyarrow.large_list(pyarrow.int64())):
        array = pyarrow.array([[7], *rows], type=kind)[1:]
        assert initdiag.screen(array, init="he_normal").to_dict() == expected
        chunked = pyarrow.chunked_array([array[:11], array[11:]])
        assert initdiag.screen(chunked, init="he_normal").to_dict() == expected
    with pytest.raises(InvalidInput, match="row 1: 0 widths"):
        initdiag.screen(pyarrow.array([[8, 8], None, [8, 8]]))
    with pytest.raises(InvalidInput, match="row 1: width 1 is 0"):
        initdiag.screen(pyarrow.array([[8, 8], [8, None], [8, 8]]))


def test_no_architecture_gives_empty_arrays():
    found = initdiag.screen([])
    assert len(found) == 0
    assert found.to_dict()["risk"] == []


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 2000), min_size=2, max_size=12), min_size=1, max_size=8),
    st.sampled_from(EXACT),
    st.sampled_from(["sgd", "adam"]),
)
def test_any_rows_equal_predict(rows, init, optimizer):
    expected = one_by_one(rows, optimizer, init=init)
    found = initdiag.screen(rows, optimizer=optimizer, init=init, max_risk=0.3)
    assert_equal(found, expected, 1e-12)
    decided = np.abs(expected["risk"] - 0.3) > 1e-9
    assert (found.accepted == (expected["risk"] < 0.3))[decided].all()


@pytest.mark.parametrize("row", [[64, 64, 64, 10], [64] * 40 + [10], [1, 1, 1]])
def test_the_predicate_is_the_filter(row):
    assert initdiag.accepts(row) == initdiag.screen([row]).accepted[0]


def test_one_architecture_may_have_any_activation():
    assert initdiag.accepts([32, 32, 10], activation="tanh", init="xavier_normal")
    with pytest.raises(UnsupportedArchitecture, match="tanh"):
        initdiag.screen([[32, 32, 10]], activation="tanh")


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([[8, 8], [8, 0, 8]], "row 1: width 1 is 0"),
        ([[8, 8], [8, -3]], "row 1: width 1 is -3"),
        ([[8, 8], [8]], "row 1: 1 widths"),
        ([[8, 8], []], "row 1: 0 widths"),
        ([[8, 8], [8, 8.0]], "row 1, width 1: a positive integer, got 8.0"),
        ([[8, 8], [8, True]], "row 1, width 1: a positive integer, got True"),
        ([[8, 8], [8, None]], "row 1, width 1"),
        ([[8, 8], "8,8"], "row 1: '8,8'"),
        ([[8, 8], 8], "row 1: 8"),
        ([784, 256, 10], "row 0: 784"),
        ([[8, 8], [8, 10**30]], "row 1, width 1: .* got 1000000"),
        ([[8, 1_000_001]], "row 0: width 1 is 1000001"),
        ([[8] * 100_002], "row 0: 100002 widths"),
        (np.zeros((2, 2)), "2-d array of float64"),
        (np.ones(3, dtype=int), "1-d array of int64"),
        ((np.ones(4, dtype=int), np.array([0, 3])), "offsets from 0 to len"),
        ((np.ones(4, dtype=int), np.array([0, 3, 2, 4])), "they fall at row 1"),
        ("784,10", "784,10"),
        (7, "got 7"),
    ],
)
def test_the_first_bad_row_is_named(widths, message):
    with pytest.raises(InvalidInput, match=message):
        initdiag.screen(widths)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_risk": 2}, r"max_risk in \[0, 1\], got 2"),
        ({"optimizer": "lion"}, "lion"),
        ({"loss": "hinge"}, "hinge"),
        ({"gain": [1.0, 2.0]}, "gain: one value for all layers"),
        ({"init": "unknown"}, "init: one of"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(InvalidInput, match=message):
        initdiag.screen([[8, 8, 8]], **options)


def test_a_wrong_table_would_be_seen(monkeypatch):
    """Sabotage: ReLU's table in place of leaky ReLU's."""
    from initdiag.law.batch import laws as batch
    from initdiag.law.batch import tables as width_tables
    from initdiag.network.architecture import Activation

    rows = architectures(6, 5)
    assumptions = {"init": "he_normal", "activation": "leaky_relu", "negative_slope": 0.1}
    expected = one_by_one(rows, **assumptions)
    relu = Activation("relu").gate
    monkeypatch.setattr(
        batch, "width_table", lambda gate, widest: width_tables.width_table(relu, widest)
    )
    batch._by_width.cache_clear()
    try:
        with pytest.raises(AssertionError):
            assert_equal(initdiag.screen(rows, **assumptions), expected, 1e-12)
    finally:
        batch._by_width.cache_clear()


@pytest.mark.parametrize("init", ["he_normal", "orthogonal", "xavier_normal", "torch_default"])
@pytest.mark.parametrize(("fan_in", "hidden", "fan_out"), [(9, (11, 6), 4), (20, (15, 9, 7), 3)])
@pytest.mark.slow
def test_best_widths_have_nearly_the_least_risk_of_all(init, fan_in, hidden, fan_out):
    budget = sum((a + 1) * b for a, b in itertools.pairwise([fan_in, *hidden, fan_out]))
    table = np.array(
        [(fan_in, *row, fan_out) for row in itertools.product(range(1, 27), repeat=len(hidden))]
    )
    within = table[((table[:, :-1] + 1) * table[:, 1:]).sum(axis=1) <= budget]
    found = initdiag.widths_for(len(hidden) + 1, budget, fan_in=fan_in, fan_out=fan_out, init=init)
    assert found.cost <= budget
    assert found.risk <= np.nanmin(initdiag.screen(within, init=init).risk) + 0.02


@pytest.mark.slow
def test_the_front_of_depth_against_risk():
    front = initdiag.widths_front(
        60_000, range(1, 80, 6), fan_in=64, fan_out=10, init="he_normal", max_risk=0.2
    )
    assert [one.depth for one in front] == list(range(1, 80, 6))
    assert all(a.log_variance < b.log_variance for a, b in itertools.pairwise(front))
    assert [one.accepted for one in front] == [one.risk < 0.2 for one in front]
    assert {one.accepted for one in front} == {True, False}
    alone = initdiag.widths_for(13, 60_000, fan_in=64, fan_out=10, init="he_normal", max_risk=0.2)
    assert dataclasses.replace(alone, risk=0.0) == dataclasses.replace(front[2], risk=0.0)
    assert alone.risk == pytest.approx(front[2].risk, rel=1e-12)
    with pytest.raises(InvalidInput, match="unit: one of"):
        initdiag.widths_for(3, 100, fan_in=2, fan_out=2, unit="euros")


def test_a_recursion_without_the_covariance_would_be_seen(monkeypatch):
    """Sabotage: the concentration that enters is taken for independent of the norm so far."""
    from initdiag.law.batch import kurtosis as batch_kurtosis

    rows = [[40, 64, 64, 70, 5], [40, 70, 64, 5]]
    expected = one_by_one(rows)
    assert_equal(initdiag.screen(rows), expected, 1e-11)
    step = batch_kurtosis._step

    def forgetful(tables, width, entering):
        return step(tables, width, entering * np.array([[1.0], [1.0], [0.0]]))

    monkeypatch.setattr(batch_kurtosis, "_step", forgetful)
    with pytest.raises(AssertionError):
        assert_equal(initdiag.screen(rows), expected, 1e-11)
