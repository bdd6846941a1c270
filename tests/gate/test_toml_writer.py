"""`tomllib` reads what the writer wrote."""

import datetime
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.gate.toml_writer import write_toml

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PLAIN = (
    TEXTS
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.dates(min_value=datetime.date(1, 1, 1))
)
ARRAYS = st.lists(st.integers(0, 10**6), max_size=80) | st.lists(TEXTS, max_size=5)
TABLES = st.dictionaries(TEXTS, PLAIN | ARRAYS, max_size=4)
DOCUMENTS = st.dictionaries(
    TEXTS, PLAIN | ARRAYS | TABLES | st.lists(st.dictionaries(TEXTS, PLAIN | ARRAYS | TABLES), min_size=1, max_size=3)
)


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS)
def test_every_document_comes_back(values):
    assert tomllib.loads(write_toml(values, comment="first\nsecond")) == values


def test_it_is_readable():
    text = write_toml({"gate": {"model": "zoo/tiny", "marks": []}, "platform": [{"key": {"device": "cpu"}}]})
    assert text == '[gate]\nmodel = "zoo/tiny"\nmarks = []\n\n[[platform]]\n\n[platform.key]\ndevice = "cpu"\n'
    long = write_toml({"ids": list(range(1000, 1100))})
    assert max(map(len, long.splitlines())) <= 120


def test_what_toml_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="no form for None"):
        write_toml({"a": None})
