"""The log: which level is in effect, where lines go, and that importing the package sets nothing up."""

import logging

import pytest

from outrider import ConfigError
from outrider.core import log
from tests.support.log_lines import LOGGER


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's logger as a new process has it."""
    monkeypatch.setattr(LOGGER, "handlers", [])
    monkeypatch.setattr(LOGGER, "level", logging.NOTSET)
    monkeypatch.delenv(log.VARIABLE, raising=False)


def test_an_option_wins_over_the_environment_and_info_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(log.VARIABLE, raising=False)
    assert log.resolve_level(None) == "info" and log.resolve_level("Debug") == "debug"
    monkeypatch.setenv(log.VARIABLE, "ERROR")
    assert log.resolve_level(None) == "error" and log.resolve_level("debug") == "debug"


@pytest.mark.parametrize(("given", "words"), [("loud", "log_level='loud'"), (None, "OUTRIDER_LOG_LEVEL='chatty'")])
def test_an_unknown_level_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, given: str | None, words: str) -> None:
    monkeypatch.setenv(log.VARIABLE, "chatty")
    with pytest.raises(ConfigError, match=f"{words} is not a log level. Use debug, info, warning, error"):
        log.resolve_level(given)


@pytest.mark.usefixtures("bare")
def test_lines_go_to_stderr_once_and_from_the_level_on(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info")
    log.configure("warning")  # changes the level, and adds no second handler
    logging.getLogger("outrider.a").info("not this")
    logging.getLogger("outrider.a.b").warning("but %s", "this")
    out, err = capsys.readouterr()
    assert out == "" and err.endswith(" WARNING outrider.a.b: but this\n") and err.count("\n") == 1


@pytest.mark.usefixtures("bare")
def test_a_library_sets_up_its_log_only_when_the_environment_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    log.configure_from_environment()
    assert LOGGER.handlers == [] and LOGGER.level == logging.NOTSET
    monkeypatch.setenv(log.VARIABLE, "debug")
    log.configure_from_environment()
    assert len(LOGGER.handlers) == 1 and LOGGER.level == logging.DEBUG
