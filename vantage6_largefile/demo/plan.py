"""Who takes part in the demo, and which store and credential each of them gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vantage6_largefile.demo.azurite import ACCOUNT, AzuriteServer
from vantage6_largefile.demo.system import Config, Party

CENTRAL = "dhd"
CENTRAL_ID = 1
#: Container names of the interim layout.
LOCAL_MODELS, AGGREGATED_MODELS = "local-models", "aggregated-models"


@dataclass
class Plan:
    """Parties with their node blocks, the server's block, and the researcher's block.

    Attributes
    ----------
    parties : list of Party
        The central one first, so that it gets organisation id 1.
    largefile : dict
        The server's block.
    researcher : dict
        The ``large_result_store`` block of DHD's researcher.
    inspection : list of dict
        Blocks that open every store with rights to list it, to check at the end what is really there.
    """

    parties: list[Party]
    largefile: Config
    researcher: Config = field(repr=False)
    inspection: list[Config] = field(repr=False)
    hospitals: list[Party] = field(init=False)

    def __post_init__(self) -> None:
        self.hospitals = [party for party in self.parties if party.name != CENTRAL]

    @property
    def central(self) -> Party:
        """DHD."""
        return self.parties[0]


def _names(hospitals: int) -> list[str]:
    return [f"hospital-{chr(ord('a') + index)}" for index in range(hospitals)]


def _largefile(locations: Mapping[int, Sequence[str]]) -> Config:
    return {"central_organizations": [CENTRAL_ID], "locations": {key: list(value) for key, value in locations.items()}}


def plan_file(folder: Path, hospitals: int, *, overrides: Config | None = None) -> Plan:
    """One folder per organisation. Nothing but each party's configuration keeps them apart."""
    stores = folder / "stores"
    names = [CENTRAL, *_names(hospitals)]
    ids = {name: number for number, name in enumerate(names, start=1)}
    for name in names:
        (stores / name).mkdir(parents=True, mode=0o700, exist_ok=True)

    def entry(name: str) -> Config:
        return {"organization": ids[name], "location": f"file://{name}", "path": str(stores / name)}

    def block(name: str) -> Config:
        readable = [entry(other) for other in names[1:]] if name == CENTRAL else [entry(CENTRAL)]
        own: Config = {"driver": "file", "root": name, "path": str(stores / name), "readable": readable}
        return {**own, **(overrides or {})}

    return Plan(
        [Party(name, ids[name], block(name)) for name in names],
        _largefile({ids[name]: [f"file://{name}"] for name in names}),
        block(CENTRAL),
        [block(name) for name in names],
    )


def plan_azure(azurite: AzuriteServer, hospitals: int, *, overrides: Config | None = None) -> Plan:
    """One container and one SAS per organisation: write and read own; only the central one reads the others."""
    names = [CENTRAL, *_names(hospitals)]
    ids = {name: number for number, name in enumerate(names, start=1)}
    for name in names:
        azurite.create_container(name)

    def entry(name: str) -> Config:
        # A SAS is bound to one container, so each readable store comes with a credential of its own.
        return {
            "organization": ids[name],
            "location": f"azure://{ACCOUNT}/{name}",
            "credential": _sas(azurite, name, "r"),
        }

    def block(name: str) -> Config:
        readable = [entry(other) for other in names[1:]] if name == CENTRAL else [entry(CENTRAL)]
        own = _azure_block(azurite, name, "rcw", readable)
        return {**own, **(overrides or {})}

    return Plan(
        [Party(name, ids[name], block(name)) for name in names],
        _largefile({ids[name]: [f"azure://{ACCOUNT}/{name}"] for name in names}),
        _azure_block(azurite, CENTRAL, "r", [entry(name) for name in names[1:]]),
        [_azure_block(azurite, name, "rl", []) for name in names],
    )


def plan_interim(azurite: AzuriteServer, hospitals: int, *, overrides: Config | None = None) -> Plan:
    """Two containers for all: hospitals only write local-models, each under its prefix, and only read the other."""
    names = _names(hospitals)
    ids = {CENTRAL: CENTRAL_ID, **{name: number for number, name in enumerate(names, start=2)}}
    for container in (LOCAL_MODELS, AGGREGATED_MODELS):
        azurite.create_container(container)
    aggregated: Config = {
        "organization": CENTRAL_ID,
        "location": f"azure://{ACCOUNT}/{AGGREGATED_MODELS}",
        "credential": _sas(azurite, AGGREGATED_MODELS, "r"),
    }
    local: list[Config] = [
        {
            "organization": ids[name],
            "location": f"azure://{ACCOUNT}/{LOCAL_MODELS}/{name}",
            "credential": _sas(azurite, LOCAL_MODELS, "r"),
        }
        for name in names
    ]
    central = {**_azure_block(azurite, AGGREGATED_MODELS, "cw", local), **(overrides or {})}
    parties = [Party(CENTRAL, CENTRAL_ID, central)]
    for name in names:
        block = {**_azure_block(azurite, LOCAL_MODELS, "cw", [aggregated]), "prefix": f"{name}/", **(overrides or {})}
        parties.append(Party(name, ids[name], block))
    return Plan(
        parties,
        _largefile(
            {
                CENTRAL_ID: [f"azure://{ACCOUNT}/{AGGREGATED_MODELS}"],
                **{ids[name]: [f"azure://{ACCOUNT}/{LOCAL_MODELS}/{name}"] for name in names},
            }
        ),
        _azure_block(azurite, AGGREGATED_MODELS, "r", local),
        [_azure_block(azurite, container, "rl", []) for container in (LOCAL_MODELS, AGGREGATED_MODELS)],
    )


def _sas(azurite: AzuriteServer, container: str, permissions: str) -> Config:
    return {"type": "sas", "sas": azurite.sas(container, permissions)}


def _azure_block(azurite: AzuriteServer, container: str, permissions: str, readable: list[Config]) -> Config:
    return {
        "driver": "azure",
        "account_url": azurite.account_url,
        "container": container,
        "credential": _sas(azurite, container, permissions),
        "readable": readable,
    }
