"""Tokenizers for the tests of text and admission."""

from pathlib import Path

import pytest

from outrider.engine.tokenizer import Tokenizer

from .tokenizers_made_here import save_byte_fallback, save_byte_level


@pytest.fixture(scope="session")
def byte_level_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_byte_level(tmp_path_factory.mktemp("byte_level"))


@pytest.fixture(scope="session")
def byte_level(byte_level_directory: Path) -> Tokenizer:
    return Tokenizer(byte_level_directory)


@pytest.fixture(scope="session")
def byte_fallback(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(save_byte_fallback(tmp_path_factory.mktemp("byte_fallback")))
