"""Baseline files: what is written is read, platforms are found or fall back, and a hand-edited count is noticed."""

import datetime

import pytest

from outrider.gate.baseline import Baseline, Settings, read_baseline, write_baseline
from outrider.gate.check import check
from outrider.gate.errors import GateError
from outrider.gate.sample import accepted_by_step

from .samples_made_here import KEY, measurement, sample

SAMPLES = [sample("1"), sample("1", turn=2, steps=(0, 1)), sample('ü \\ "', steps=(0, 3, 3, 3), category="math")]


def settings(**changes):
    values = {
        "model": "zoo/tiny",
        "speculative_config": {"method": "eagle3", "aux_hidden_state_layer_ids": [1]},
        "num_speculative_tokens": 3,
        "prompts": "p.jsonl",
        "prompts_digest": "00",
    }
    return Settings(**(values | changes))


def one(**changes):
    return Baseline(settings=settings(**changes), entries=()).with_entry(measurement(SAMPLES))


def test_what_is_written_is_read(tmp_path):
    baseline = one(marks=["slow"], excluded_backends={"x": "has no sinks"}, required_memory_gib=32.0)
    write_baseline(baseline, tmp_path / "deep" / "b.toml")
    assert read_baseline(tmp_path / "deep" / "b.toml") == baseline
    text = (tmp_path / "deep" / "b.toml").read_text()
    assert "mean_acceptance_length = 3.285714" in text and 'accepted_by_step = "0312"' in text


def test_sixteen_drafts_have_a_letter(tmp_path):
    long = sample("1", steps=(0, 16, 10), k=16)
    write_baseline(Baseline(settings=settings(), entries=()).with_entry(measurement([long], k=16)), tmp_path / "b.toml")
    assert read_baseline(tmp_path / "b.toml").entries[0].samples == (long,)


def test_a_platform_finds_its_own_entry_then_its_hardware_then_the_default():
    other = {**KEY, "device": "cuda", "capability": "9.0"}
    baseline = one().with_entry(measurement(SAMPLES, key=other))
    assert [entry.is_default for entry in baseline.entries] == [True, False]
    entry, why = baseline.choose(other)
    assert entry.key == other and why == ""
    entry, why = baseline.choose({**other, "torch": "3"})
    assert entry.key == other and "same hardware" in why and "torch 3 instead of 2" in why
    entry, why = baseline.choose({**KEY, "capability": "NEON"})
    assert entry.is_default and "default entry" in why and "capability NEON instead of AVX2" in why


def test_a_platform_is_replaced_and_keeps_what_was_edited_by_hand(tmp_path):
    write_baseline(one(), tmp_path / "b.toml")
    path = tmp_path / "b.toml"
    path.write_text(path.read_text().replace("[[platform]]\n", "[[platform]]\ntolerance = 0.15\n", 1))
    again = read_baseline(path).with_entry(measurement([sample("1", steps=(0, 2))]))
    assert len(again.entries) == 1
    assert again.entries[0].tolerance == 0.15 and again.entries[0].is_default
    assert again.entries[0].samples[0].accepted_by_step == (0, 2)
    assert again.entries[0].recorded == datetime.date.today()


def test_an_entry_may_have_a_tolerance_of_its_own():
    samples = [sample(str(index), steps=(0, 3, 3, 3, 3)) for index in range(10)]
    baseline = Baseline(settings=settings(), entries=()).with_entry(measurement(samples))
    now = measurement([sample(str(index), steps=(0, 3, 3, 3, 2)) for index in range(10)], key={**KEY, "torch": "9"})
    assert not check(baseline, now, title="t").verdict.passed
    (entry,) = baseline.entries
    loose = Baseline(
        settings=baseline.settings,
        entries=(type(entry)(**{**{n: getattr(entry, n) for n in entry.__dataclass_fields__}, "tolerance": 0.3}),),
    )
    result = check(loose, now, title="t")
    assert result.verdict.passed and not result.verdict.is_exact
    assert any("no entry of its own" in note for note in result.notes)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("num_accepted_tokens_per_pos = [3, 2, 1]", "num_accepted_tokens_per_pos = [3, 2, 2]", "contradict each other"),
        ('accepted_by_step = "0312"', 'accepted_by_step = "0311"', "contradict each other"),
        ("num_tokens = 10", "num_tokens = 11", "contradict each other"),
        ("token_ids = [100, 101", "token_ids = [100, 102", "tokens_digest does not belong"),
        ("format = 1", "format = 2", "format=2 is not 1"),
        ("default = true", "default = false", "0 entries have default"),
        ("alarm_level = 0.01", "alarm_level = 0.05", "alarm_level=0.05 is out of range"),
        ("tolerance = 0.01", "tolerance = 1.5", "tolerance=1.5 is out of range"),
        ("max_tokens", "max_tokenz", "max_tokenz"),
        ("turn = 1", "", "missing 1 required"),
        ("[gate]", "[gate", "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, old, new, words):
    path = tmp_path / "b.toml"
    write_baseline(one(), path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(GateError, match=words):
        read_baseline(path)


def test_steps_follow_from_where_tokens_came_from():
    flags = [False, True, True, False, False, True, False]
    assert accepted_by_step(flags) == (0, 2, 0, 1)
    assert accepted_by_step([*flags, True]) == (0, 2, 0, 1, 1)  # cut short behind an accepted draft
    assert accepted_by_step([]) == ()
    assert sample(steps=(0, 2, 0, 1)).is_draft == flags
    assert sample(steps=(0, 2, 0, 1, 1), num_tokens=8).is_draft == [*flags, True]
