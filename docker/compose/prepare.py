#!/usr/bin/env python3
"""Makes everything secret that docker-compose.yml needs, in docker/compose/generated/ (never committed).

Fresh API keys, passwords and a certificate for Azurite; the configurations beside this file with those values filled
in. Needs Python and the program openssl. Run once, before ``docker-compose up``; it refuses to overwrite, because the
database keeps the keys of the first time.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
GENERATED = HERE / "generated"
HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
PARTIES = ("dhd", *HOSPITALS)


def render(template: str, target: str, values: dict[str, str]) -> None:
    """Fill in a template."""
    text = (HERE / template).read_text("utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    (GENERATED / target).write_text(text, "utf-8")


def certificate() -> None:
    """A certificate for Azurite, its own authority: the nodes send credentials to https only."""
    folder = GENERATED / "azurite"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:3072", "-nodes", "-days", "365", "-subj", "/CN=azurite"]
    command += ["-addext", "subjectAltName=DNS:azurite,DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(folder / "azurite.key"), "-out", str(folder / "azurite.pem")]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def main() -> int:
    """Make it all; the exit code."""
    if GENERATED.exists():
        sys.stderr.write(
            f"{GENERATED} is there already. To begin anew: docker-compose down --volumes, then remove it.\n"
        )
        return 1
    if shutil.which("openssl") is None:
        sys.stderr.write("The program openssl is not here.\n")
        return 1
    os.umask(0o077)
    for folder in ("azurite", *(f"secrets/{reader}" for reader in (*PARTIES, "researcher"))):
        (GENERATED / folder).mkdir(parents=True)
    certificate()
    for reader in (*PARTIES, "researcher"):
        shutil.copy(GENERATED / "azurite" / "azurite.pem", GENERATED / "secrets" / reader)
    api_keys = {party: str(uuid.uuid4()) for party in PARTIES}
    password, researcher = secrets.token_urlsafe(24), f"Aa1-{secrets.token_urlsafe(16)}"
    (GENERATED / "postgres-password").write_text(password, "utf-8")
    (GENERATED / "researcher-password").write_text(researcher + "\n", "utf-8")
    (GENERATED / "root-password").write_text(f"Aa1-{secrets.token_urlsafe(16)}\n", "utf-8")
    render("server.yaml", "server.yaml", {"POSTGRES_PASSWORD": password, "JWT_SECRET": secrets.token_urlsafe(48)})
    keys = {f"API_KEY_{party.upper().replace('-', '_')}": key for party, key in api_keys.items()}
    render("entities.yaml", "entities.yaml", {"RESEARCHER_PASSWORD": researcher, **keys})
    for party in PARTIES:
        template = "dhd.yaml" if party == "dhd" else "hospital.yaml"
        render(template, f"{party}.yaml", {"API_KEY": api_keys[party], "PARTY": party})
    render("researcher.yaml", "researcher.yaml", {"GENERATED": str(GENERATED)})
    sys.stdout.write(f"Made {GENERATED}. Next: docker-compose up\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
