"""Two organisations' clients in one process do not share a key, as upstream's singletons would have it."""

from __future__ import annotations

import base64
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from vantage6_largefile.client import LargeFileClient


class LoggedIn(LargeFileClient):
    """A client that has logged in at a server which knows its organisation's public key."""

    def __init__(self, public_key: str) -> None:
        super().__init__("http://127.0.0.1", 1, "/api", log_level="error")
        self._access_token = "token"
        self.whoami = SimpleNamespace(organization_id=1)
        self._key = public_key

    def request(self, *args: object, **kwargs: object) -> dict[str, str]:
        return {"public_key": self._key}


def make_key(path: Path) -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(public).decode()


def test_each_client_decrypts_with_its_own_key(tmp_path: Path) -> None:
    files = [tmp_path / "one.pem", tmp_path / "two.pem"]
    keys = [make_key(file) for file in files]
    clients = [LoggedIn(key) for key in keys]
    for client, file in zip(clients, files, strict=True):
        client.setup_encryption(str(file))

    for client, key in zip(clients, keys, strict=True):
        sealed = client.cryptor.encrypt_bytes_to_str(b'{"a": "secret"}', key)
        assert client.cryptor.decrypt(sealed) == b'{"a": "secret"}'


def test_missing_key_file_is_a_clear_error(tmp_path: Path) -> None:
    key = make_key(tmp_path / "one.pem")
    (tmp_path / "broken.pem").write_text("not a key")
    with pytest.raises(Exception, match=r"(?i)key|pem|deserialize"):
        LoggedIn(key).setup_encryption(str(tmp_path / "broken.pem"))
