"""Files in an object store: a real S3 API over HTTP, and what goes wrong on the way there."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import socket
import sys
import threading
import traceback
import urllib.request
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

import anyio
import anyio.from_thread
import obstore
import pytest
from anyio import CancelScope
from blockbuster import blockbuster_ctx
from moto.server import ThreadedMotoServer

from talkgen.errors import FileMissing, MissingDependency, StorageError, StorageUnavailable
from talkgen.storage import ObjectStorage, Retention
from talkgen.storage.objects import AT_ONCE
from talkgen.testing import check_storage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from talkgen.media import FileRef

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECRET = "not-for-the-log-0123456789"


class Proxy:
    """Between a client and a server; loses the connection at a chosen request.

    Attributes:
        address: Where it listens.
        requests: The first line of each request so far.
        lose: The number of the request to lose, from 0, or a part of its first line; None for
            none.
        when: `before` the server has heard of it, or `after` it has done it.
    """

    def __init__(self, server: tuple[str, int]) -> None:
        self.requests: list[str] = []
        self.lose: int | str | None = None
        self.when = "before"
        self._server = server
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, client.makefile("rb") as requests:
                self._serve(client, requests)

    def _serve(self, client, requests) -> None:
        """One request a connection: each is then counted, and lost alone."""
        head = b""
        while (line := requests.readline()) not in {b"\r\n", b""}:
            if not line.lower().startswith((b"connection:", b"expect:")):
                head += line
        if not head:
            return
        length = [
            line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        ]
        body = requests.read(int(length[0].partition(b":")[2])) if length else b""
        line = head.split(b" HTTP")[0].decode()
        lost = (
            line.startswith(self.lose)
            if isinstance(self.lose, str)
            else self.lose == len(self.requests)
        )
        self.requests.append(line)
        if lost and self.when == "before":
            return
        answer = self._asked(head + b"Connection: close\r\n\r\n" + body)
        if not lost:
            client.sendall(answer)

    def _asked(self, request: bytes) -> bytes:
        with socket.create_connection(self._server) as server:
            server.sendall(request)
            answer = b""
            while piece := server.recv(65536):
                answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        return head + b"\r\nConnection: close\r\n\r\n" + body


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    """An S3 API on this machine."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


numbers = itertools.count()


@pytest.fixture
def bucket(server: tuple[str, int]) -> str:
    """A bucket of the test's own."""
    name = f"talkgen-{next(numbers)}"
    request = urllib.request.Request("http://{}:{}/{}".format(*server, name), method="PUT")
    with urllib.request.urlopen(request):
        return name


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture
def at(server: tuple[str, int], bucket: str):
    """Makes storages in the bucket, by default without anything in between."""

    def make(
        folder: str = "folder", endpoint: str = "http://{}:{}".format(*server), **options
    ) -> ObjectStorage:
        return ObjectStorage(
            f"s3://{bucket}/{folder}",
            region="us-east-1",
            endpoint=endpoint,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
            **options,
        )

    return make


@pytest.fixture
def proxy(server: tuple[str, int]) -> Iterator[Proxy]:
    proxy = Proxy(server)
    yield proxy
    proxy.close()


def keys(storage: ObjectStorage) -> list[str]:
    return list(storage._bucket.objects(""))


async def listed(storage: ObjectStorage) -> set[FileRef]:
    return {info.file async for info in storage.list()}


async def published(storage: ObjectStorage, task_id: str = "task", data: bytes = b"video"):
    transaction = await storage.open(task_id)
    file = await transaction.put("videos", "final.mp4", data)
    await transaction.publish({"success": True})
    return file


async def leftovers(storage: ObjectStorage) -> set[str]:
    """Objects that no edition accounts for, and those that are lacking."""
    problems = set()
    for key in keys(storage):
        problems ^= set() if key.startswith("manifests/") else {key}
    newest = await storage._newest()
    for edition, left_over in newest.values():
        problems ^= edition.keys
        problems |= {"older editions"} if left_over else set()
        for file in edition.manifest.files:
            problems |= (
                {"damaged"} if sha256(await storage.get(file)).hexdigest() != file.sha256 else set()
            )
    return problems


# --- the contract ------------------------------------------------------------------------------


async def test_s3_keeps_the_contract(at):
    folders = itertools.count()
    gc.collect()
    with blockbuster_ctx():
        await check_storage(lambda: at(str(next(folders))))


async def test_memory_keeps_the_contract():
    with blockbuster_ctx():
        await check_storage(lambda: ObjectStorage("memory://"))


async def test_a_store_made_elsewhere_can_be_used():
    """Its credentials are its own affair; two storages may share it."""
    store = obstore.store.MemoryStore()
    file = await published(ObjectStorage("memory://", store=store))
    assert await ObjectStorage("memory://", store=store).get(file) == b"video"


# --- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "durable"),
    [
        ("s3://bucket/folder", True),
        ("gs://bucket", True),
        ("az://account/container/folder", True),
        ("memory://", False),
    ],
)
def test_addresses(url: str, durable: bool, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    storage = ObjectStorage(url)
    assert storage.durable is durable
    assert repr(storage) == f"ObjectStorage({url!r})"


@pytest.mark.parametrize("url", ["folder", "ftp://x/y", "file:///tmp", "https://example.org/x", ""])
def test_other_addresses_are_refused(url: str):
    with pytest.raises(ValueError, match=r"cannot be used|no address"):
        ObjectStorage(url)


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingDependency) as missing:
        ObjectStorage("memory://")
    assert "talkgen[s3]" in missing.value.hint


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="colour"):
        ObjectStorage("s3://bucket", colour="red")


async def test_published_files_have_addresses(at, bucket: str):
    file = await published(at())
    assert file.url.startswith(f"s3://{bucket}/folder/videos/")
    assert file.url.endswith("/task_final.mp4")
    assert await listed(at()) == {file}


async def test_places_cannot_be_guessed(at):
    """Nor does a second version take the first one's place."""
    files = [await published(at(), data=data) for data in (b"one", b"two")]
    tokens = {file.url.split("/")[-2] for file in files}
    assert len(tokens) == 2
    assert all(len(token) == 32 and int(token, 16) for token in tokens)


async def test_nothing_private_is_told(at, proxy: Proxy, caplog):
    """Neither the storage nor its errors hold a key or a signature, however they are shown."""
    caplog.set_level(logging.DEBUG)
    options = {"access_key_id": f"id-{SECRET}", "secret_access_key": SECRET, "token": SECRET}
    storage = at(endpoint=proxy.address, retry_config={"max_retries": 0}, **options)
    proxy.lose = 0
    with pytest.raises(StorageUnavailable) as failed:
        await storage.staged()
    told = "".join(traceback.format_exception(failed.value))
    signed = ObjectStorage(f"s3://me:{SECRET}@bucket/folder?signature={SECRET}#{SECRET}")
    with pytest.raises(ValueError, match="cannot be used") as refused:
        ObjectStorage(f"az://me:{SECRET}@/?sig={SECRET}", account_key=SECRET)
    told += "".join(traceback.format_exception(refused.value))
    for text in (told, repr(storage), repr(signed), repr(failed.value.__dict__), caplog.text):
        assert SECRET not in text


# --- what is in the store ----------------------------------------------------------------------


async def test_large_files_come_in_pieces(at):
    """They go out in parts as well, from a file of scratch()."""
    data = os.urandom(6 << 20)
    storage = at()
    transaction = await storage.open("task")
    async with transaction.scratch() as folder:
        (folder / "a.mp4").write_bytes(data)
        file = await transaction.put("videos", "final.mp4", folder / "a.mp4")
        assert not (folder / "a.mp4").exists()
    await transaction.publish()
    async with storage.stream(file) as stream:
        first = await stream.receive()
        assert 0 < len(first) <= 65536
        assert first + b"".join([piece async for piece in stream]) == data


async def test_a_dead_writers_transaction_goes_on(at):
    transaction = await at().open("task")
    await transaction.put("videos", "final.mp4", b"first")
    mask = await transaction.put("processed", "mask.png", b"mask")
    second = await transaction.put("videos", "final.mp4", b"second")

    again = at()
    assert await again.staged() == ("task",)
    reopened = await again.open("task")
    assert await reopened.get(second) == b"second"
    assert set((await reopened.publish()).files) == {mask, second}
    assert await again.staged() == ()
    assert await leftovers(again) == set()


async def test_the_later_of_two_files_counts_when_the_clock_is_set_back(at, monkeypatch):
    transaction = await at().open("task")
    await transaction.put("videos", "final.mp4", b"first")
    monkeypatch.setattr("talkgen.storage.staged_objects.time.time_ns", lambda: 1)
    second = await transaction.put("videos", "final.mp4", b"second")
    assert await transaction.get(second) == b"second"
    third = await (await at().open("task")).put("videos", "final.mp4", b"third")
    assert (await (await at().open("task")).publish()).files == (third,)


async def test_a_listing_needs_few_tasks_for_many_editions():
    storage, most = ObjectStorage("memory://"), 0
    for number in range(100):
        transaction = await storage.open(f"task-{number}")
        await transaction.put("videos", "final.mp4", b"video")
        await transaction.publish()
    read = storage._editions.readable

    def counted(key):
        nonlocal most
        most = max(most, len(anyio.from_thread.run_sync(anyio.get_running_tasks)))
        return read(key)

    storage._editions.readable = counted
    before = len(anyio.get_running_tasks())
    assert (await storage.stats()).total_files == 100
    assert most <= before + AT_ONCE


async def test_files_that_vanished_are_not_published(at):
    storage = at()
    transaction = await storage.open("task")
    file = await transaction.put("videos", "final.mp4", b"video")
    storage._bucket.remove([file.url.partition("folder/")[2]])
    with pytest.raises(FileMissing, match="has gone"):
        await transaction.publish()
    assert await listed(storage) == set()
    await transaction.discard()
    assert keys(storage) == []


async def test_a_damaged_object_is_not_returned(at):
    storage = at()
    file = await published(storage)
    storage._bucket.put(file.url.partition("folder/")[2], b"vodei")
    with pytest.raises(FileMissing, match="other content"):
        await storage.get(file)


async def test_damaged_editions_hide_their_task_alone(at, caplog):
    storage = at()
    damaged, whole = await published(storage, "task-a"), await published(storage, "task-b")
    for text in (b"{", b'{"publication": "", "tokens": {"videos/task-a_final.mp4": "../.."}}'):
        storage._bucket.put("manifests/task-a/000000001.json", text)
        assert await listed(storage) == {whole}
        assert "cannot be read" in caplog.text
        with pytest.raises(StorageError, match="task-a is damaged"):
            await storage.get(damaged)
    await storage.delete_task("task-a")
    assert await leftovers(storage) == set()


async def test_unchanged_manifests_are_not_read_again(at, proxy: Proxy):
    storage = at(endpoint=proxy.address)
    await published(storage)
    await storage.stats()
    proxy.requests.clear()
    await storage.stats()
    assert len(proxy.requests) == 1


async def test_what_has_expired_goes(at, caplog):
    caplog.set_level("INFO", "talkgen.storage")
    now = [NOW]
    storage = at(clock=lambda: now[0], retention=Retention(videos=timedelta(days=2)))
    file = await published(storage)
    now[0] += timedelta(days=2)
    assert await listed(storage) == set()
    with pytest.raises(FileMissing, match="not published"):
        await storage.get(file)
    assert (await storage.cleanup()).tasks_expired == ("task",)
    assert "deleted 1 files of 5 bytes" in caplog.text
    assert SECRET not in caplog.text
    assert keys(storage) == []


async def test_another_machines_storage_is_told_of_everything(at):
    one, other = at(), at()
    file = await published(one)
    assert await listed(other) == {file}
    await one.delete_task("task")
    assert await listed(other) == set()


# --- two at a time -----------------------------------------------------------------------------


@pytest.mark.parametrize("old", [True, False])
async def test_of_two_writers_exactly_one_publishes(at, old: bool):
    """The other is told, and its objects go."""
    if old:
        await published(at(), data=b"old")
    transactions = [await at().open("task") for _ in range(2)]
    for number, transaction in enumerate(transactions):
        await transaction.put("videos", "final.mp4", b"%d" % number)
    outcomes: dict[int, str] = {}

    async def publish(number: int) -> None:
        try:
            await transactions[number].publish({"number": number})
            outcomes[number] = "published"
        except StorageError as error:
            outcomes[number] = str(error)

    async with anyio.create_task_group() as group:
        for number in range(2):
            group.start_soon(publish, number)
    assert set(outcomes.values()) > {"published"}
    assert any("published by somebody else" in outcome for outcome in outcomes.values())
    (file,) = await listed(at())
    winner = {outcome: number for number, outcome in outcomes.items()}["published"]
    assert await at().get(file) == b"%d" % winner
    assert await leftovers(at()) == set()
    await transactions[1 - winner].discard()
    assert await at().get(file) == b"%d" % winner


async def test_clean_up_between_opening_and_publishing_is_no_conflict(at):
    """Nor is deleting: neither publishes anything."""
    for change in ("cleanup", "delete_task"):
        await published(at(clock=lambda: NOW))
        storage = at()
        transaction = await storage.open("task")
        file = await transaction.put("temp", "a.bin", b"a")
        if change == "cleanup":
            await at().cleanup(NOW + timedelta(days=400))
        else:
            await at().delete_task("task")
        await transaction.publish()
        assert await listed(storage) == {file}
        assert await leftovers(storage) == set()


# --- lost connections --------------------------------------------------------------------------


async def stage(storage: ObjectStorage):
    transaction = await storage.open("task")
    await transaction.put("processed", "mask.png", b"new mask")
    await transaction.put("videos", "final.mp4", b"new video")
    return transaction


WHOLE = {"task_mask.png": b"new mask", "task_final.mp4": b"new video"}


async def contents(storage: ObjectStorage) -> dict[str, bytes]:
    return {file.name: await storage.get(file) for file in await listed(storage)}


# All of it happens in threads.
on_one_loop = pytest.mark.parametrize("anyio_backend", ["asyncio"])
cases = [
    pytest.param("before", "go on", marks=pytest.mark.slow),
    pytest.param("before", "reopen", marks=pytest.mark.slow),
    pytest.param("before", "discard", marks=pytest.mark.slow),
    ("after", "go on"),
    pytest.param("after", "reopen", marks=pytest.mark.slow),
    pytest.param("after", "discard", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("when", "end"), cases)
@on_one_loop
async def test_any_request_may_be_lost(at, proxy: Proxy, when: str, end: str):
    """Nothing half is seen, and the next attempt goes on where it was."""
    fine = at("counted", endpoint=proxy.address)
    await published(fine, data=b"old")
    proxy.requests.clear()
    await (await stage(fine)).publish()
    count = len(proxy.requests)
    assert count > 10
    for number in range(count):
        folder = f"{number}"
        direct = at(folder)
        await published(direct, data=b"old")
        broken = at(folder, endpoint=proxy.address, retry_config={"max_retries": 0})
        proxy.requests.clear()
        proxy.lose, proxy.when = number, when
        transaction = None
        with pytest.raises(StorageUnavailable):  # noqa: PT012 - whichever request it is
            transaction = await stage(broken)
            await transaction.publish()
        proxy.lose = None
        seen = await contents(direct)
        assert seen in ({"task_final.mp4": b"old"}, WHOLE), (number, when)
        if end == "go on" and transaction is not None:
            await transaction.publish()
            assert await contents(direct) == WHOLE
        else:
            again = await at(folder).open("task")
            await (again.publish() if end == "reopen" else again.discard())
            assert set((await contents(direct)).items()) <= {*WHOLE.items(), *seen.items()}
        assert await direct.staged() == ()
        await direct.cleanup()
        assert await leftovers(direct) == set(), (number, when, proxy.requests)


@on_one_loop
async def test_discarding_after_a_lost_answer_takes_it_back(at, proxy: Proxy, bucket: str):
    """Whoever was told that publishing failed, and gave up, leaves nothing visible."""
    storage = at(endpoint=proxy.address, retry_config={"max_retries": 0})
    transaction = await stage(storage)
    proxy.lose, proxy.when = f"PUT /{bucket}/folder/manifests/", "after"
    with pytest.raises(StorageUnavailable):
        await transaction.publish()
    proxy.lose = None
    with pytest.raises(StorageError, match="is being published"):
        await transaction.put("temp", "a.bin", b"a")
    await transaction.discard()
    assert keys(storage) == []


@on_one_loop
async def test_a_short_failure_is_ridden_out(at, proxy: Proxy, bucket: str):
    """The client tries again by itself; a conditional write that had been done is recognised."""
    storage = at(endpoint=proxy.address)
    transaction = await stage(storage)
    proxy.lose, proxy.when = len(proxy.requests) + 3, "after"
    await transaction.publish()
    assert f"PUT /{bucket}/folder/manifests/" in proxy.requests[proxy.lose]
    assert await contents(storage) == WHOLE


async def test_a_store_that_is_not_there(at):
    storage = at(endpoint="http://127.0.0.1:9", retry_config={"max_retries": 0})
    for call in (storage.staged, storage.stats, storage.cleanup):
        with pytest.raises(StorageUnavailable, match="Could not list") as failed:
            await call()
        assert failed.value.outage
        assert failed.value.retryable


async def test_a_bucket_that_is_not_there(server: tuple[str, int], at):
    storage = at()
    storage._bucket._store = obstore.store.from_url(
        "s3://absent",
        endpoint="http://{}:{}".format(*server),
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    with pytest.raises(StorageError, match=r"NoSuchBucket|404") as failed:
        await storage.stats()
    assert not failed.value.retryable


async def test_a_cancelled_publication_is_whole(at):
    storage = at()
    transaction = await stage(storage)
    with CancelScope() as scope:
        scope.cancel()
        await transaction.publish()
    assert await contents(storage) == WHOLE
