"""``v6-largefile object`` as people and scripts run it: a process of its own, against a folder and against Azurite."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.support.fault_proxy import COMMIT, PART, Answer, FaultProxy, Rule, fault_proxy
from vantage6_largefile.cli.objects import objects
from vantage6_largefile.config import load_large_result_store
from vantage6_largefile.demo.azurite import AzuriteServer
from vantage6_largefile.stores import Store, open_store
from vantage6_largefile.transfer import TransferOptions, upload_stream

MIB = 1 << 20
OBJECT_ID = "0b6e2a1c-7b0e-4c8e-9a35-6d1f6c1c2a11"
PROGRAM = [sys.executable, "-m", "vantage6_largefile.cli.main"]


@dataclass
class Place:
    """A configured store, and a folder to run in."""

    folder: Path
    block: dict[str, Any]
    root: str
    secrets: tuple[str, ...] = ()

    @property
    def config(self) -> Path:
        path = self.folder / "node.yaml"
        path.write_text(yaml.safe_dump({"api_key": "x", "large_result_store": self.block}))
        return path

    def command(self, name: str, *arguments: object) -> list[str]:
        return [*PROGRAM, "object", name, "-c", str(self.config), *map(str, arguments)]

    def run(self, name: str, *arguments: object, answer: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(name, *arguments),
            input=answer,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=self.folder,
        )
        for secret in self.secrets:
            assert secret not in done.stdout + done.stderr
        return done

    def call(self, name: str, *arguments: object, answer: str = "") -> subprocess.CompletedProcess[str]:
        """The same in this process, where nothing but the command itself matters: it is much quicker."""
        words = [name, "-c", str(self.config), *map(str, arguments)]
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            result = CliRunner(mix_stderr=False).invoke(objects, words, input=answer)
        finally:
            os.chdir(before)
        return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)

    def file(self, data: bytes, name: str = "spool") -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def put(self, data: bytes, name: str) -> None:
        """An object that is there before a command runs."""
        store = self.store()
        location = store.root.child(*name.split("/"))
        upload_stream(store, [data], location, media_type="text/plain", options=TransferOptions())

    def content(self, name: str) -> bytes:
        """The object, whatever the commands say of it."""
        store = self.store()
        return b"".join(store.read(store.root.child(*name.split("/"))))

    def store(self) -> Store:
        return open_store(load_large_result_store(self.block, source="test").own)


@pytest.fixture
def folder_place(tmp_path: Path) -> Place:
    (tmp_path / "store").mkdir()
    (tmp_path / "work").mkdir()
    block = {"driver": "file", "root": "dhd", "path": str(tmp_path / "store"), "prefix": "central/"}
    return Place(tmp_path / "work", block, "file://dhd/central")


def azure_place(
    server: AzuriteServer, folder: Path, *, permissions: str = "rcwdl", port: int | None = None, **more: object
) -> Place:
    container = f"c{uuid.uuid4().hex}"
    server.create_container(container)
    sas = server.sas(container, permissions, lifetime=timedelta(hours=1))
    folder.mkdir()
    secret = folder / "sas"
    secret.write_text(sas)
    secret.chmod(0o600)
    block = {
        "driver": "azure",
        "account_url": f"http://127.0.0.1:{port or server.port}/{server.account}",
        "container": container,
        "credential": {"type": "sas", "sas": f"${{file:{secret}}}"},
        **more,
    }
    signature = sas.rpartition("sig=")[2].partition("&")[0]
    return Place(folder, block, f"azure://{server.account}/{container}", (sas, signature))


@pytest.fixture(params=["file", pytest.param("azure", marks=pytest.mark.azurite)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "file":
        found: Place = request.getfixturevalue("folder_place")
        return found
    return azure_place(request.getfixturevalue("azurite_server"), tmp_path / "azure")


@pytest.fixture
def proxy(azurite_server: AzuriteServer) -> Iterator[FaultProxy]:
    with fault_proxy(azurite_server.port) as proxy:
        yield proxy


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def reference_file(place: Place, data: bytes, **changes: object) -> Path:
    document = {
        "version": 1,
        "id": OBJECT_ID,
        "location": f"{place.root}/{OBJECT_ID}",
        "size": len(data),
        "stored_size": len(data),
        "sha256": sha256_of(data),
        "etag": None,
        "media_type": "application/octet-stream",
        "envelope": None,
        "created_at": "2026-11-22T19:00:00.000000Z",
        **changes,
    }
    path = place.folder / "reference.json"
    path.write_text(json.dumps(document))
    return path


def error_of(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(done.stdout)["error"]
    assert found["exit_code"] == done.returncode
    return found


# --- the ordinary way, on both stores -----------------------------------------------------------------------------


def test_object_goes_in_is_looked_at_comes_out_and_is_removed(place: Place) -> None:
    data = os.urandom(3 * MIB + 1)
    place.file(data)
    location = f"{place.root}/a/result.bin"

    put = place.run("put", "spool", "a/result.bin", "--json")
    stat = place.run("stat", "a/result.bin", "--json")
    listed = place.run("ls", "--json")
    got = place.run("get", location, "result", "--sha256", sha256_of(data).upper(), "--json")
    verified = place.run("verify", "a/result.bin", "--sha256", sha256_of(data), "--json")
    removed = place.run("rm", location, "--yes", "--json")
    gone = place.run("stat", "a/result.bin", "--json")

    assert [done.returncode for done in (put, stat, listed, got, verified, removed, gone)] == [0, 0, 0, 0, 0, 0, 3]
    stored = json.loads(put.stdout)
    assert (stored["location"], stored["stored_size"], stored["sha256"]) == (location, len(data), sha256_of(data))
    info = json.loads(stat.stdout)
    assert (info["location"], info["size"]) == (location, len(data))
    assert info["modified"].endswith("Z")
    assert [item["location"] for item in json.loads(listed.stdout)] == [location]
    assert (place.folder / "result").read_bytes() == data
    assert json.loads(got.stdout)["verified"] is True
    assert json.loads(verified.stdout)["verified"] is True
    assert json.loads(removed.stdout) == {"location": location, "removed": True}
    assert error_of(gone)["type"] == "ObjectNotFound"


def test_object_that_is_there_is_never_overwritten(place: Place) -> None:
    place.put(b"first", "result")

    again = place.run("put", place.file(b"second"), "result", "--json")

    assert again.returncode == 5
    assert error_of(again)["type"] == "ObjectExists"
    assert place.content("result") == b"first"


def test_damaged_object_is_found_and_never_gets_the_name_of_the_file(place: Place) -> None:
    place.put(b"what is there", "result")
    expected = sha256_of(b"what was put")

    verified = place.run("verify", "result", "--sha256", expected, "--json")
    got = place.run("get", "result", "target", "--sha256", expected, "--json")

    assert (verified.returncode, got.returncode) == (6, 6)
    assert error_of(got)["type"] == "IntegrityError"
    assert [name for name in os.listdir(place.folder) if "target" in name] == []


def test_reference_says_what_an_object_must_be(place: Place) -> None:
    data = os.urandom(1000)
    place.put(data, OBJECT_ID)
    reference = reference_file(place, data)

    got = place.run("get", f"{place.root}/{OBJECT_ID}", "target", "--reference", reference)
    verified = place.run("verify", OBJECT_ID, "--reference", reference)
    reference_file(place, data, size=999, stored_size=999)
    longer = place.run("verify", OBJECT_ID, "--reference", reference)
    reference_file(place, data + b"x")
    shorter = place.run("verify", OBJECT_ID, "--reference", reference)

    assert [done.returncode for done in (got, verified, longer, shorter)] == [0, 0, 6, 6]
    assert "verified" in got.stdout
    assert (place.folder / "target").read_bytes() == data


def test_nothing_to_verify_by_is_said(place: Place) -> None:
    place.put(b"anything", "result")

    got = place.run("get", "result", "target")
    as_json = place.run("get", "result", "other", "--json")

    assert (got.returncode, as_json.returncode) == (0, 0)
    assert "NOT verified" in got.stdout
    assert json.loads(as_json.stdout)["verified"] is False
    assert (place.folder / "target").read_bytes() == b"anything"


# --- what does not depend on the store ----------------------------------------------------------------------------


def test_file_that_is_there_is_replaced_only_by_force(folder_place: Place) -> None:
    folder_place.put(b"object", "result")
    target = folder_place.file(b"mine", "target")

    refused = folder_place.call("get", "result", target, "--json")
    kept = target.read_bytes()
    forced = folder_place.call("get", "result", target, "--force")

    assert (refused.returncode, kept) == (5, b"mine")
    assert "--force" in refused.stderr
    assert (forced.returncode, target.read_bytes()) == (0, b"object")


def test_link_to_nowhere_is_a_file_that_is_there(folder_place: Place) -> None:
    folder_place.put(b"object", "result")
    (folder_place.folder / "target").symlink_to("nowhere")

    assert folder_place.call("get", "result", "target").returncode == 5
    assert not (folder_place.folder / "nowhere").exists()


def test_name_of_an_object_is_by_default_that_of_the_file(folder_place: Place) -> None:
    done = folder_place.call("put", folder_place.file(b"x", "weights.bin"))

    assert f"{folder_place.root}/weights.bin" in done.stdout


def test_list_is_sorted_and_by_whole_segments(folder_place: Place) -> None:
    for name in ("b/2", "a/1", "ab/3"):
        folder_place.put(b"x", name)

    everything = folder_place.call("ls")
    some = folder_place.call("ls", "a/", "--json")
    nothing = folder_place.call("ls", "c", "--json")

    assert [line.split()[-1].removeprefix(folder_place.root) for line in everything.stdout.splitlines()] == [
        "/a/1",
        "/ab/3",
        "/b/2",
    ]
    assert [item["location"] for item in json.loads(some.stdout)] == [f"{folder_place.root}/a/1"]
    assert json.loads(nothing.stdout) == []


def test_removal_asks_first(folder_place: Place) -> None:
    folder_place.put(b"x", "result")

    no = folder_place.run("rm", "result", answer="n\n")
    nobody = folder_place.run("rm", "result")
    there = folder_place.run("stat", "result").returncode
    yes = folder_place.run("rm", "result", "--json", answer="y\n")

    assert (no.returncode, nobody.returncode, there, yes.returncode) == (1, 1, 0, 0)
    assert "Remove file://dhd/central/result?" in no.stderr
    assert json.loads(yes.stdout)["removed"] is True
    assert folder_place.run("rm", "result", "--yes").returncode == 3


def test_store_of_another_is_read_and_never_written(folder_place: Place, tmp_path: Path) -> None:
    (tmp_path / "hospital").mkdir()
    (tmp_path / "hospital" / "result").write_bytes(b"theirs")
    folder_place.block["readable"] = [
        {"organization": 7, "location": "file://hospital-a", "path": str(tmp_path / "hospital")}
    ]
    theirs = "file://hospital-a/result"

    read = folder_place.call("get", theirs, "target")
    listed = folder_place.call("ls", "file://hospital-a", "--json")
    removed = folder_place.call("rm", theirs, "--yes", "--json")
    written = folder_place.call("put", folder_place.file(b"x"), "file://hospital-a/mine")
    elsewhere = folder_place.call("stat", "file://hospital-b/result", "--json")

    assert (read.returncode, listed.returncode) == (0, 0)
    assert (removed.returncode, written.returncode, elsewhere.returncode) == (4, 4, 4)
    assert error_of(removed)["type"] == "LocationRefused"
    assert os.listdir(tmp_path / "hospital") == ["result"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["stat", "a/../b"],
        ["stat", ""],
        ["get", "result", "no/such/folder/target"],
        ["get", "result", "target", "--sha256", "abc"],
        ["verify", "result"],
        ["verify", "result", "--reference", "no-such-file"],
        ["verify", "result", "--reference", "node.yaml"],
        ["put", "no-such-file"],
        ["put", ".", "result"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_command_line_is_exit_code_2(folder_place: Place, arguments: Sequence[str]) -> None:
    folder_place.put(b"x", "result")

    done = folder_place.call(*arguments)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr != ""


def test_reference_of_another_object_is_refused(folder_place: Place) -> None:
    folder_place.put(b"x", "result")

    done = folder_place.call("verify", "result", "--reference", reference_file(folder_place, b"x"), "--json")

    assert done.returncode == 2
    assert error_of(done)["type"] == "InvalidReference"


def test_mistakes_of_the_configuration_are_exit_code_2_and_all_told(folder_place: Place) -> None:
    folder_place.block |= {"pth": "x", "threshold": "much"}

    done = folder_place.call("ls", "--json")

    assert done.returncode == 2
    assert "large_result_store.pth" in done.stderr
    assert "large_result_store.threshold" in done.stderr
    assert error_of(done)["type"] == "ConfigurationError"


def test_missing_folder_of_the_store_is_exit_code_2(folder_place: Place) -> None:
    folder_place.block["path"] = str(folder_place.folder / "not-there")

    assert folder_place.call("stat", "result").returncode == 2


def test_full_disk_is_exit_code_1(folder_place: Place) -> None:
    import resource

    folder_place.put(os.urandom(MIB), "result")
    done = subprocess.run(
        folder_place.command("get", "result", "target", "--json"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (MIB // 2, MIB // 2)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder_place.folder,
    )

    assert done.returncode == 1
    assert error_of(done)["type"] == "StoreFull"
    assert [name for name in os.listdir(folder_place.folder) if "target" in name] == []


def test_configuration_may_be_the_block_alone(folder_place: Place) -> None:
    alone = folder_place.folder / "block.yaml"
    alone.write_text(yaml.safe_dump(folder_place.block))

    done = subprocess.run(
        [*PROGRAM, "object", "ls", "-c", str(alone), "--json"], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, json.loads(done.stdout)) == (0, [])


def test_progress_is_a_bar_on_a_terminal_and_stdout_stays_clean(folder_place: Place) -> None:
    folder_place.file(os.urandom(MIB))
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        folder_place.command("put", "spool", "result", "--json"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        cwd=folder_place.folder,
    ) as process:
        os.close(theirs)
        out, _ = process.communicate(timeout=60)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:
            pass  # EIO is how a terminal ends
        finally:
            os.close(ours)

    assert process.returncode == 0
    assert json.loads(out)["stored_size"] == MIB
    text = shown.decode()
    assert "put spool" in text
    assert "1.0/1.0 MiB" in text
    assert "\x1b[" in text


def test_progress_is_plain_lines_elsewhere_and_none_when_quiet(folder_place: Place) -> None:
    folder_place.file(os.urandom(MIB))

    said = folder_place.run("put", "spool", "first")
    quiet = folder_place.call("put", "spool", "second", "--quiet")

    assert "put spool: 1.0 MiB of 1.0 MiB (100 %)" in said.stderr
    assert "\x1b" not in said.stderr
    assert "%" not in said.stdout
    assert quiet.stderr == ""


# --- what only a service can do -----------------------------------------------------------------------------------


@pytest.mark.azurite
def test_write_only_credential_can_put_and_is_told_that_it_can_do_no_more(
    azurite_server: AzuriteServer, tmp_path: Path
) -> None:
    place = azure_place(azurite_server, tmp_path / "azure", permissions="cw")
    place.file(b"x")

    put = place.run("put", "spool", "result")
    again = place.run("put", "spool", "result")
    refused = [
        place.call("stat", "result", "--json"),
        place.call("ls", "--json"),
        place.call("get", "result", "target", "--json"),
        place.call("rm", "result", "--yes", "--json"),
    ]

    assert (put.returncode, again.returncode) == (0, 5)
    assert [done.returncode for done in refused] == [4, 4, 4, 4]
    assert {error_of(done)["type"] for done in refused} == {"StoreAccessDenied"}


@pytest.mark.azurite
def test_missing_container_is_exit_code_2(azurite_server: AzuriteServer, tmp_path: Path) -> None:
    place = azure_place(azurite_server, tmp_path / "azure")
    place.block["credential"] = {"type": "connection_string", "connection_string": azurite_server.connection_string}
    place.block["container"] = "not-there"
    place.secrets = (azurite_server.account_key,)

    done = place.run("stat", "result")

    assert done.returncode == 2
    assert "container" in done.stderr


@pytest.mark.azurite
def test_store_that_is_away_is_exit_code_7_after_the_patience_asked_for(
    azurite_server: AzuriteServer, tmp_path: Path, proxy: FaultProxy
) -> None:
    place = azure_place(azurite_server, tmp_path / "azure", port=proxy.port)
    place.file(b"x")
    proxy.go_away()

    put = place.run("put", "spool", "result", "--retry-for", "0.5", "--json")
    looked = place.run("stat", "result", "--json")

    assert (put.returncode, looked.returncode) == (7, 7)
    assert "will try again" in put.stderr
    assert "--session" in put.stderr
    assert error_of(put)["type"] == "TransferStalled"


@pytest.mark.azurite
def test_upload_that_failed_goes_on_where_it_was(
    azurite_server: AzuriteServer, tmp_path: Path, proxy: FaultProxy
) -> None:
    place = azure_place(azurite_server, tmp_path / "azure", port=proxy.port, transfer={"part_size": MIB})
    data = os.urandom(4 * MIB)
    place.file(data)
    proxy.rules = [Rule(Answer(503), "PUT", COMMIT)]
    arguments = ("put", "spool", "result", "--session", "session", "--retry-for", "0.5", "--json")

    first = place.run(*arguments)
    proxy.forget()
    proxy.rules = []
    second = place.run(*arguments)

    assert (first.returncode, second.returncode) == (7, 0)
    assert "To go on, run this again" in first.stderr
    assert "--session session" in first.stderr
    assert proxy.parts() == {}
    assert place.content("result") == data
    assert not (place.folder / "session").exists()


@pytest.mark.azurite
def test_file_that_changed_since_its_session_is_never_sent(
    azurite_server: AzuriteServer, tmp_path: Path, proxy: FaultProxy
) -> None:
    place = azure_place(azurite_server, tmp_path / "azure", port=proxy.port)
    place.file(b"first")
    proxy.rules = [Rule(Answer(503), "PUT", COMMIT)]
    arguments = ("put", "spool", "result", "--session", "session", "--retry-for", "0.1")
    assert place.run(*arguments).returncode == 7
    proxy.rules = []
    place.file(b"second, and longer")

    done = place.run(*arguments, "--json")

    assert done.returncode == 6
    assert error_of(done)["type"] == "SpoolMismatch"


@pytest.mark.azurite
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_upload_says_how_to_go_on_and_does(
    azurite_server: AzuriteServer, tmp_path: Path, proxy: FaultProxy, number: signal.Signals
) -> None:
    transfer = {"part_size": MIB, "concurrency": 1}
    place = azure_place(azurite_server, tmp_path / "azure", permissions="cw", port=proxy.port, transfer=transfer)
    data = os.urandom(6 * MIB)
    place.file(data)
    arguments = ("spool", "result", "--session", "session", "--json")
    process = subprocess.Popen(
        place.command("put", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place.folder,
        # As a shell with job control does it: the process group of its own gets the signal.
        start_new_session=True,
    )
    proxy.on_body = lambda total: process.send_signal(number) if 3 * MIB <= total < 3 * MIB + 65536 else None
    proxy.bytes_per_second = 8 * MIB

    out, err = process.communicate(timeout=60)
    proxy.on_body = None
    first = len(proxy.parts())
    proxy.forget()
    second = place.run("put", *arguments)

    assert process.returncode == 130
    assert json.loads(out)["error"]["type"] == "TransferCancelled"
    assert "To go on, run this again" in err
    assert "object put -c" in err
    assert "Traceback" not in err
    assert first < 6
    assert second.returncode == 0
    assert len(proxy.parts()) <= 6 - first + 1
    assert json.loads(second.stdout)["sha256"] == sha256_of(data)


@pytest.mark.azurite
def test_interrupted_download_leaves_nothing(azurite_server: AzuriteServer, tmp_path: Path, proxy: FaultProxy) -> None:
    place = azure_place(azurite_server, tmp_path / "azure", port=proxy.port)
    place.put(os.urandom(2 * MIB), "result")
    proxy.rules = [Rule(Answer(503, {"Retry-After": "3000"}), "GET")]
    process = subprocess.Popen(
        place.command("get", "result", "target"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place.folder,
    )
    proxy.on_answer = None
    proxy.on_request = lambda seen: process.send_signal(signal.SIGINT) if seen.method == "GET" else None

    out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert (out, "Traceback" in err) == ("", False)
    assert [name for name in os.listdir(place.folder) if "target" in name] == []


@pytest.mark.azurite
def test_no_secret_is_shown_however_it_fails_and_however_much_is_said(
    azurite_server: AzuriteServer, tmp_path: Path, proxy: FaultProxy
) -> None:
    place = azure_place(azurite_server, tmp_path / "azure", port=proxy.port)
    sas = (place.folder / "sas").read_text()
    place.file(b"x")
    place.block["credential"] = {"type": "sas", "sas": sas}
    proxy.rules = [Rule(Answer(500), "PUT", PART)]

    failing = place.run("put", "spool", "result", "--verbose", "--retry-for", "0.1")
    place.block["credential"] = {"type": "sas", "sas": sas.replace("sig=", "sig=AAAA")}
    wrong = place.run("stat", "result", "--verbose")
    place.block["credential"] = {"type": "sas", "sas": sas, "extra": sas}
    mistaken = place.run("ls", "--verbose")
    (place.folder / "broken.yaml").write_text(f"large_result_store: {{credential: {{sas: '{sas}'")
    broken = subprocess.run(
        [*PROGRAM, "object", "ls", "-c", str(place.folder / "broken.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert [done.returncode for done in (failing, wrong, mistaken, broken)] == [7, 4, 2, 2]
    for secret in place.secrets:
        assert secret not in broken.stdout + broken.stderr
