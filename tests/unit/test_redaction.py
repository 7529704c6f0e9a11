"""What looks like a secret does not get into a log, whoever logs it and whichever handler writes it."""

from __future__ import annotations

import io
import logging
import logging.config
import logging.handlers
import queue
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vantage6_largefile.errors import ConfigurationError
from vantage6_largefile.redaction import MASK, RedactionFilter, install, redact, redact_record

CANARY = "Q0FOQVJZL2NhbmFyeQ=="
TOKEN = "eyJhbGciOiJSU0EtT0FFUC0yNTYifQ"

SECRETS = [
    f"GET https://a.blob.core.windows.net/c?comp=list&sv=2024&sig={CANARY}&se=2026",
    f"https://a.blob.core.windows.net/c?sig={CANARY.replace('/', '%2F').replace('=', '%3D')}",
    f"https://login/?next=https%3A%2F%2Fa%2Fc%3Fsv%3D1%26sig%3D{CANARY}",
    f"?SIG={CANARY}",
    f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={CANARY};EndpointSuffix=core.windows.net",
    f"accountkey={CANARY}",
    f"BlobEndpoint=https://a;SharedAccessSignature=sv=1&sig={CANARY}&sp={CANARY}",
    f"Authorization: Bearer {CANARY}",
    f"{{'Authorization': 'bearer {CANARY}'}}",
    f"Authorization: Basic {CANARY}",
    f"Authorization: SharedKey account:{CANARY}",
    f"token {TOKEN}.{CANARY.rstrip('=').replace('/', '_')}.sig",
    f"key={TOKEN}.{CANARY.rstrip('=').replace('/', '_')}.a.b.c",
    f"grant_type=client_credentials&client_id=x&client_secret={CANARY}&scope=y",
    f"client_secret%3D{CANARY}",
    f'{{"client_secret": "{CANARY}", "x": 1}}',
    f"{{'client_secret': '{CANARY} with a blank', 'x': 1}}",
    f'{{"client_secret": "quote \\" {CANARY}"}}',
    f"client_secret: {CANARY}",
    f"{{'client_secret': ['{CANARY}']}}",
    f"client_secret=({CANARY})",
    f"'client_secret': '{CANARY}",  # a text that was cut
    f"client_assertion={CANARY}",
    f'"access_token":"{CANARY}"',
    f'"refresh_token" : "{CANARY}"',
    f"account_key='{CANARY}'",
    f"aws_secret_access_key={CANARY}",
    f"password={CANARY}",
    f"api_key: {CANARY}",
    f"connection_string={CANARY}",
    f"postgresql://user:{CANARY.replace('/', '')}@db:5432/v6",
    f"http://user:{CANARY.replace('/', '')}@proxy:3128",
]

HARMLESS = [
    "",
    "upload of run 42 finished: 1073741824 bytes in 12.3 s",
    "azure://dhdplugin/ziekenhuis-a/v6lf/5f1c0e1e-7a7b-4d8e-8f00-1234567890ab/c3/results/run-42",
    "design and signal=3, sigma=4, assign=5, signed by key holder",
    "the token expired, the secret is not set, the key is missing",
    "GET /api/token/user HTTP/1.1 200",
    "user@hospital.nl logged in at https://server.nl:443/api",
    "bearer of news; basic training",
    "large_result_store.credential.client_secret: found nothing, expected text, ${env:NAME} or ${file:/path}.",
    "large_result_store.credential.client_secrt: unknown key; did you mean 'client_secret'?",
    "Bearer authentication is not enabled here",
    "ClientSecretCredential(type='client_secret', client_id='b', client_secret=SecretStr('**********'))",
    "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secret_is_masked_and_the_rest_is_kept(text: str) -> None:
    clean = redact(text)

    for form in (CANARY, CANARY.rstrip("="), CANARY.replace("/", ""), CANARY.rstrip("=").replace("/", "_"), "Q0FOQVJZ"):
        assert form not in clean
    assert MASK in clean
    assert redact(clean) == clean


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_is_left_alone(text: str) -> None:
    assert redact(text) is text or redact(text) == text


def test_only_the_secret_is_masked() -> None:
    assert redact("GET https://a/c?sv=1&sig=abcdef&se=2 done") == f"GET https://a/c?sv=1&sig={MASK}&se=2 done"
    assert redact("AccountName=a;AccountKey=abc==;X=y") == f"AccountName=a;AccountKey={MASK};X=y"
    assert redact("http://user:hunter2@proxy:3128/") == f"http://user:{MASK}@proxy:3128/"


@settings(deadline=None)
@given(st.text(max_size=200), st.text(max_size=200))
def test_a_signature_is_masked_in_whatever_it_is_embedded(before: str, after: str) -> None:
    text = f"{before}?sig=CANARY0123456789 {after}"

    assert "CANARY0123456789" not in redact(text)
    assert redact(redact(text)) == redact(text)


@settings(deadline=None)
@given(st.sampled_from(SECRETS), st.sampled_from(SECRETS), st.sampled_from([" ", "\n", ", ", "; ", "&"]))
def test_two_secrets_in_one_text_are_both_masked(one: str, other: str, between: str) -> None:
    assert "Q0FOQVJZ" not in redact(one + between + other)


@pytest.mark.parametrize(
    "text",
    [
        "sig=" * 50_000,
        "eyJ" + "a" * 200_000,
        "eyJaaaa." * 30_000,
        "://" * 60_000,
        "://a:" * 40_000,
        "client_secret" * 15_000,
        'client_secret="' + "\\" * 200_000,
        "client_secret = " + " " * 200_000,
        "Bearer " * 30_000,
        "AccountKey " + " " * 200_000,
    ],
    ids=lambda text: text[:12],
)
def test_long_text_takes_linear_time(text: str) -> None:
    def cost(sample: str) -> float:
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            redact(sample)
            best = min(best, time.process_time() - start)
        return best

    # Quadratic time would take minutes for the whole; a generous bound on the ratio finds it without a clock limit.
    part = max(cost(text[: len(text) // 8]), 1e-3)
    assert cost(text) < 32 * part


# --- records -------------------------------------------------------------------------------------------------------


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A fresh handler on the root logger, added AFTER the installation, as vantage6 and web servers do."""
    factory = logging.getLogRecordFactory()
    install()
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield output
    root.removeHandler(handler)
    root.setLevel(level)
    logging.setLogRecordFactory(factory)


@pytest.mark.parametrize("secret", SECRETS)
def test_message_and_arguments_are_masked_for_handlers_added_later(stream: io.StringIO, secret: str) -> None:
    log = logging.getLogger("azure.core.some.child")

    log.warning(secret.replace("%", "%%") + "%s", "")
    log.warning("asked for %s", secret)
    log.warning("asked for %(url)s", {"url": secret})
    log.debug("asked for %r", {"a": [secret]})
    log.error(ValueError(secret))

    assert "Q0FOQVJZ" not in stream.getvalue()
    assert stream.getvalue().count(MASK) >= 5


def test_a_secret_that_only_the_whole_message_shows_is_masked(stream: io.StringIO) -> None:
    logging.getLogger("urllib3").debug("%s://%s/c?sv=1&sig=%s", "https", "a", CANARY)

    assert stream.getvalue() == f"DEBUG urllib3 https://a/c?sv=1&sig={MASK}\n"


def test_traceback_is_masked_with_its_causes(stream: io.StringIO) -> None:
    try:
        try:
            raise ValueError(f"AccountKey={CANARY}")
        except ValueError as error:
            raise RuntimeError(f"sig={CANARY}") from error
    except RuntimeError:
        logging.getLogger("x").exception("it failed")

    text = stream.getvalue()
    assert CANARY not in text
    assert "Traceback (most recent call last)" in text
    assert "RuntimeError: sig=" in text
    assert "ValueError: AccountKey=" in text


def test_a_formatter_that_formats_the_exception_itself_sees_no_secret(stream: io.StringIO) -> None:
    class OwnFormatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            assert record.exc_info is None
            return f"{record.getMessage()} {record.exc_text}"

    (handler,) = [h for h in logging.getLogger().handlers if getattr(h, "stream", None) is stream]
    handler.setFormatter(OwnFormatter())
    try:
        raise ValueError(f"sig={CANARY}")
    except ValueError:
        logging.getLogger("x").exception("failed")

    assert CANARY not in stream.getvalue()
    assert f"ValueError: sig={MASK}" in stream.getvalue()


def test_stack_info_is_masked(stream: io.StringIO) -> None:
    def call(client_secret: str = "") -> None:
        logging.getLogger("x").warning("where", stack_info=True)

    call(client_secret="Q0FOQVJZ")

    assert "Q0FOQVJZ" not in stream.getvalue()
    assert "Stack (most recent call last)" in stream.getvalue()


def test_a_clean_record_is_left_as_it_is(stream: io.StringIO) -> None:
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    keep = Keep()
    logging.getLogger().addHandler(keep)
    try:
        raise ValueError("harmless")
    except ValueError as error:
        logging.getLogger("x").warning("run %d: %s", 42, error, exc_info=True)
    finally:
        logging.getLogger().removeHandler(keep)

    (record,) = records
    assert record.msg == "run %d: %s"
    assert record.args is not None
    assert record.args[0] == 42  # type: ignore[index]
    assert record.exc_info is not None


class Broken:
    def __str__(self) -> str:
        raise RuntimeError(f"sig={CANARY}")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("%d", (CANARY,)),
        ("%s %s", (CANARY,)),
        ("%s", (CANARY, CANARY)),
        ("%(x)s", ({"y": CANARY},)),
        ("%s", (Broken(),)),
    ],
)
def test_arguments_that_do_not_fit_are_neither_raised_nor_printed(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str], message: str, arguments: tuple[object, ...]
) -> None:
    logging.getLogger("x").warning(message, *arguments)

    captured = capsys.readouterr()
    assert CANARY not in stream.getvalue() + captured.err + captured.out
    assert "the arguments of this message do not fit it" in stream.getvalue()


def test_a_message_object_that_cannot_be_shown_is_named_by_its_type(stream: io.StringIO) -> None:
    logging.getLogger("x").warning(Broken())

    assert "an object of type Broken" in stream.getvalue()


def test_installing_twice_wraps_once_and_mends_a_factory_that_another_library_set(stream: io.StringIO) -> None:
    first = logging.getLogRecordFactory()
    install()
    assert logging.getLogRecordFactory() is first

    made: list[str] = []

    def foreign(*args: object, **kwargs: object) -> logging.LogRecord:
        made.append("record")
        return logging.LogRecord(*args, **kwargs)  # type: ignore[arg-type]

    logging.setLogRecordFactory(foreign)
    install()
    logging.getLogger("x").warning("sig=%s", CANARY)

    assert CANARY not in stream.getvalue()
    assert made == ["record"]


def test_logging_configured_anew_stays_redacted(stream: io.StringIO, tmp_path: object) -> None:
    target = f"{tmp_path}/node.log"
    name = "vantage6.configured.anew"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"file": {"class": "logging.FileHandler", "filename": target}},
            "loggers": {name: {"handlers": ["file"], "level": "DEBUG", "propagate": False}},
        }
    )
    log = logging.getLogger(name)

    log.warning("sig=%s", CANARY)

    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    with open(target, encoding="utf-8") as file:
        assert file.read() == f"sig={MASK}\n"


def test_records_from_elsewhere_are_cleaned_by_the_filter() -> None:
    passed: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(passed)
    handler.addFilter(RedactionFilter())

    handler.handle(logging.LogRecord("x", logging.INFO, __file__, 1, "sig=%s", (CANARY,), None))

    assert passed.get().getMessage() == f"sig={MASK}"


def test_text_of_an_exception_that_was_formatted_already_is_masked() -> None:
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "m", None, None)
    record.exc_text = f"ValueError: sig={CANARY}"

    redact_record(record)

    assert record.exc_text == f"ValueError: sig={MASK}"


def test_our_own_configuration_errors_stay_readable(stream: io.StringIO) -> None:
    error = ConfigurationError(
        [
            "large_result_store.credential.client_secret: found nothing, expected text, ${env:NAME} or ${file:/path}.",
            "large_result_store.credential.connection_string: found an AccountKey that is not base64.",
        ],
        source="node.yaml",
    )

    logging.getLogger("x").error("%s", error)

    assert stream.getvalue() == f"ERROR x {error}\n"
