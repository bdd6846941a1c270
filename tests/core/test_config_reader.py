"""Reading a JSON object: types, ranges, and the account of every key."""

import pytest

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import ConfigError, UnsupportedError

VALUES = {
    "size": 8, "eps": 1e-5, "is_tied": True, "act": "silu", "ids": [1, 2], "kinds": ["a"], "eos": 7, "empty": None,
    "rope": {"factor": 2, "inner": {"deep": 1}},
}  # fmt: skip


def reader(**values):
    return ConfigReader(VALUES | values, where="file.json")


def test_values_are_given_by_type():
    r = reader()
    assert (r.integer("size"), r.number("size"), r.number("eps"), r.flag("is_tied")) == (8, 8.0, 1e-5, True)
    assert (r.text("act"), r.choice("act", ("silu", "gelu")), r.choice("size", (4, 8))) == ("silu", "silu", 8)
    assert (r.integers("ids"), r.texts("kinds"), r.token_ids("ids"), r.token_ids("eos")) == (
        (1, 2),
        ("a",),
        (1, 2),
        (7,),
    )
    assert isinstance(r.number("size"), float)
    assert r.section("rope").number("factor") == 2.0
    assert r.section("rope") is r.section("rope")


@pytest.mark.parametrize("key", ["absent", "empty"])
def test_null_counts_as_absent(key):
    r = reader()
    assert not r.has(key)
    assert (r.integer(key, default=3), r.number(key, default=0.5), r.flag(key, default=True)) == (3, 0.5, True)
    assert (r.text(key, default="x"), r.choice(key, ("x",), default="x")) == ("x", "x")
    assert (r.integers(key), r.texts(key), r.token_ids(key), r.section(key).keys) == ((), (), (), ())
    for read in (r.integer, r.number, r.text):
        with pytest.raises(ConfigError, match=rf"^file.json has no {key}\. Copy the file"):
            read(key)
    with pytest.raises(ConfigError, match=rf"^file.json has no {key}\."):
        r.choice(key, ("x",))


WRONG = [
    ("integer", (), [0, -1, 2**31, True, 1.0, "8", [8]], "must be a positive integer"),
    ("number", (), [0, -0.5, float("inf"), float("nan"), True, "1"], "must be a positive number"),
    ("flag", (), [0, 1, "true", []], "must be true or false"),
    ("text", (), [1, True, ["a"]], "must be a string"),
    ("choice", ((1, "a"),), [True, 2, "b", [1]], "is not supported. Supported: 1, 'a'"),
    ("integers", (), [1, "1", [1.0], [True], [-1]], "must be a list of integers of at least 0"),
    ("texts", (), ["a", [1]], "must be a list of strings"),
    ("token_ids", (), [-1, "a", [1.5], [True], True], "must be a token id or a list of token ids"),
    ("section", (), [1, [1], "a"], "must be an object"),
]


@pytest.mark.parametrize(
    ("method", "arguments", "value", "message"),
    [(method, arguments, value, message) for method, arguments, values, message in WRONG for value in values],
)
def test_a_value_of_another_type_or_range_is_refused_by_key_and_value(method, arguments, value, message):
    r = ConfigReader({"key": {"x": value}}, where="file.json").section("key")
    with pytest.raises(ConfigError) as error:
        getattr(r, method)("x", *arguments)
    assert str(error.value).startswith(f"file.json: key.x={value!r} {message}")


def test_bounds_of_an_integer():
    assert reader(size=0).integer("size", minimum=0) == 0
    with pytest.raises(ConfigError, match="size=1 must be an integer of at least 2"):
        reader(size=1).integer("size", minimum=2)
    with pytest.raises(ConfigError, match="size=9 must be a positive integer of at most 8"):
        reader(size=9).integer("size", maximum=8)


def test_one_error_lists_every_key_that_is_left():
    r = reader()
    r.integer("size")
    r.ignore("act", "absent", reason="because")
    r.neutral("is_tied", False, reason="untied")
    r.section("rope").section("inner")
    with pytest.raises(UnsupportedError) as error:
        r.finish()
    assert str(error.value).startswith(
        "file.json: keys that are not supported: eps=1e-05; is_tied=True (only False); ids=[1, 2]; kinds=['a']; eos=7;"
        " empty=None; rope.factor=2; rope.inner.deep=1. A key that is not known may change what the model computes"
    )
    assert "Remove a key" in str(error.value)


def test_nothing_is_left_where_every_key_has_its_account():
    r = reader()
    assert r.keys_read == frozenset()
    r.integer("size"), r.number("eps"), r.has("empty")
    r.neutral("is_tied", True, reason="tied")
    r.neutral("absent", 1, reason="never")
    r.ignore("act", "ids", "kinds", "eos", reason="because")
    r.ignore("size", reason="read all the same")
    rope = r.section("rope")
    rope.number("factor")
    rope.ignore("inner", reason="whole")
    r.finish()
    assert r.keys_read == {"size", "eps", "empty", "rope", "rope.factor"}
    assert r.keys_ignored == {
        "is_tied": "tied", "act": "because", "ids": "because", "kinds": "because", "eos": "because",
        "rope.inner": "whole",
    }  # fmt: skip


@pytest.mark.parametrize(("value", "is_neutral"), [(None, True), (1, True), (1.0, True), (True, False), (2, False)])
def test_a_neutral_key_is_left_where_its_value_changes_something(value, is_neutral):
    r = ConfigReader({"factor": value})
    r.neutral("factor", 1, reason="a factor of one")
    assert ("factor" in r.keys_ignored) == is_neutral
    if not is_neutral:
        with pytest.raises(UnsupportedError, match=rf"factor={value} \(only 1\)"):
            r.finish()


@pytest.mark.parametrize("value", [None, False, 0, [], {}])
def test_refuse_lets_pass_what_is_off(value):
    r = ConfigReader({"window": value})
    r.refuse("window", "no windows. Set it to null.")
    r.finish()


def test_refuse_names_value_and_remedy():
    with pytest.raises(UnsupportedError, match=r"config.json: window=4 is not supported: no windows. Set it to null."):
        ConfigReader({"window": 4}).refuse("window", "no windows. Set it to null.")


def test_long_values_are_shortened():
    with pytest.raises(UnsupportedError) as error:
        ConfigReader({"long": list(range(1000))}).finish()
    assert len(str(error.value)) < 500
