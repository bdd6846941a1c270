"""TLS by uvicorn's own options. The certificate in `tls/` signs itself, for localhost and for these tests only."""

import json
import ssl
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from outrider import ConfigError
from outrider.server.options import ServerOptions
from tests.support.server_under_test import serve

FILES = Path(__file__).parent / "tls"


@pytest.mark.slow
def test_it_is_spoken_to_those_who_know_the_certificate() -> None:
    certificate = str(FILES / "certificate.pem")
    with serve("--ssl-certfile", certificate, "--ssl-keyfile", str(FILES / "key.pem")) as server:
        assert server.url.startswith("https://")
        knows = ssl.create_default_context(cafile=certificate)
        with urlopen(server.url + "health", context=knows) as answer:
            assert json.load(answer) == {"status": "ok"}
        with pytest.raises(URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urlopen(server.url + "health")


def test_a_key_without_certificate_is_refused() -> None:
    with pytest.raises(ConfigError, match="TLS needs both"):
        ServerOptions(ssl_keyfile="key.pem")
