"""A clock that is wrong, on this side or on that of whoever made the credential: refused at once, and said so."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas
from pydantic import SecretStr

from tests.support.fault_proxy import Answer, Rule
from tests.support.fault_world import MIB, World, world
from vantage6_largefile.config.store import SasCredential, StoreConfig
from vantage6_largefile.errors import StoreAccessDenied
from vantage6_largefile.stores import Store, open_store
from vantage6_largefile.transfer import TransferOptions

pytestmark = pytest.mark.azurite

__all__ = ["world"]

#: Patient: a refusal must not be waited out.
OPTIONS = TransferOptions(part_size=MIB, concurrency=1, retry_for=3600)
HOUR = timedelta(hours=1)


def store_with(world: World, start: timedelta, expiry: timedelta) -> tuple[Store, str]:
    now = datetime.now(timezone.utc)
    sas = generate_container_sas(
        world.server.account,
        world.container,
        account_key=world.server.account_key,
        permission=ContainerSasPermissions.from_string("rcw"),
        start=now + start,
        expiry=now + expiry,
    )
    url = f"http://127.0.0.1:{world.proxy.port}/{world.server.account}"
    config = StoreConfig("azure", world.direct.root, {"account_url": url}, SasCredential(sas=SecretStr(sas)))
    return open_store(config), sas


@pytest.mark.parametrize(("start", "expiry"), [(HOUR, 2 * HOUR), (-2 * HOUR, -HOUR)], ids=["not yet valid", "expired"])
def test_sas_out_of_its_time_is_refused_at_once_and_the_clock_is_named(
    world: World, start: timedelta, expiry: timedelta
) -> None:
    store, sas = store_with(world, start, expiry)

    with pytest.raises(StoreAccessDenied, match="clock") as refused:
        world.upload(store, world.file(MIB), options=OPTIONS)

    assert len(world.proxy.requests) == 1
    assert sas not in str(refused.value)
    assert "sig=" not in str(refused.value)
    with pytest.raises(StoreAccessDenied, match="clock"):
        store.check()
    with pytest.raises(StoreAccessDenied, match="clock"):
        list(store.read(world.location))


def test_sas_that_expires_while_uploading_keeps_the_record_for_the_next_one(world: World) -> None:
    spool = world.file(4 * MIB)
    record = spool.with_name("session")
    store, _ = store_with(world, -HOUR, timedelta(seconds=2))
    # Half the object before the end of the SAS, the rest after it.
    world.proxy.bytes_per_second = MIB
    with pytest.raises(StoreAccessDenied, match="clock"):
        world.upload(store, spool, options=OPTIONS, session_file=record)
    assert world.objects() == []
    before = len(world.proxy.parts())
    world.proxy.bytes_per_second = None
    world.proxy.forget()
    fresh, _ = store_with(world, -HOUR, HOUR)

    world.upload(fresh, spool, options=OPTIONS, session_file=record)

    world.assert_whole(spool)
    assert before >= 1
    assert len(world.proxy.parts()) < 4


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AuthenticationFailed"),
        (401, "InvalidAuthenticationInfo"),
        (401, "NoAuthenticationInformation"),
        (403, "AuthorizationFailure"),
    ],
)
def test_every_answer_that_a_wrong_clock_can_cause_mentions_the_clock(world: World, status: int, code: str) -> None:
    """Azure has several; they come from the proxy here, because Azurite gives one of them only."""
    world.faults(Rule(Answer(status, {"x-ms-error-code": code, "x-ms-version": "2025-01-05"})))

    with pytest.raises(StoreAccessDenied, match=rf"{code}.*clock"):
        world.upload(world.through("cw"), world.file(MIB), options=OPTIONS)

    assert len(world.proxy.requests) == 1
