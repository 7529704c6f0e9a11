"""Makes one container per party in Azurite, and for each party a SAS for exactly what it may do.

Runs once in the image of the server, which has the Azure SDK. At Azure this is what an administrator does with
containers and service principals; here SAS tokens stand in for those, because Azurite enforces them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

URL = "https://azurite:10000/devstoreaccount1"
ACCOUNT = "devstoreaccount1"
CENTRAL = "dhd"
HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
#: An upload needs no right to read, list or delete, and a node that cannot delete cannot be made to.
WRITE = ContainerSasPermissions(write=True, create=True)
WRITE_AND_READ = ContainerSasPermissions(write=True, create=True, read=True)
READ = ContainerSasPermissions(read=True)


def main() -> None:
    """Containers first, then the tokens."""
    key, secrets = os.environ["AZURITE_ACCOUNT_KEY"], Path(sys.argv[1])
    service = BlobServiceClient(
        URL, credential={"account_name": ACCOUNT, "account_key": key}, connection_verify=os.environ["AZURITE_CA"]
    )
    for container in (CENTRAL, *HOSPITALS):
        with contextlib.suppress(ResourceExistsError):
            service.create_container(container)
    expiry = datetime.now(timezone.utc) + timedelta(days=365)

    def grant(reader: str, file: str, container: str, permission: ContainerSasPermissions) -> None:
        token = generate_container_sas(ACCOUNT, container, account_key=key, permission=permission, expiry=expiry)
        target = secrets / reader / f"{file}.sas"
        target.write_text(token, "utf-8")
        target.chmod(0o600)

    for hospital in HOSPITALS:
        grant(hospital, "own", hospital, WRITE)
        grant(hospital, CENTRAL, CENTRAL, READ)
        grant(CENTRAL, hospital, hospital, READ)
    grant(CENTRAL, "own", CENTRAL, WRITE_AND_READ)
    grant("researcher", "own", CENTRAL, READ)


if __name__ == "__main__":
    main()
