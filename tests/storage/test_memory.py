"""Files in memory: what the contract does not say."""

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from talkgen.errors import FileMissing
from talkgen.storage import MemoryStorage, Retention


async def published(storage: MemoryStorage, data: bytes = b"video"):
    transaction = await storage.open("task")
    file = await transaction.put("videos", "final.mp4", data)
    await transaction.publish()
    return file


async def test_files_have_no_address():
    storage = MemoryStorage()
    assert not storage.durable
    assert (await published(storage)).url == ""
    assert (await storage.stats()).disk is None


async def test_there_is_always_room():
    await MemoryStorage().ensure_free(2**62)


async def test_a_closed_stream_gives_no_more():
    storage = MemoryStorage()
    async with storage.stream(await published(storage)) as stream:
        assert await stream.receive(2) == b"vi"
    with pytest.raises(anyio.ClosedResourceError):
        await stream.receive()


async def test_what_has_expired_is_gone_before_it_is_deleted():
    now = [datetime(2030, 1, 1, tzinfo=UTC)]
    storage = MemoryStorage(retention=Retention(videos=timedelta(1)), clock=lambda: now[0])
    file = await published(storage)
    now[0] += timedelta(days=1)
    with pytest.raises(FileMissing):
        await storage.get(file)
    assert (await storage.cleanup()).tasks_expired == ("task",)


async def test_a_result_is_a_copy():
    """Changing a dictionary after it was published changes nothing."""
    transaction = await MemoryStorage().open("task")
    result = {"numbers": [1]}
    manifest = await transaction.publish(result)
    result["numbers"].append(2)
    assert manifest.result == {"numbers": [1]}


async def test_a_result_that_is_not_json_publishes_nothing():
    storage = MemoryStorage()
    transaction = await storage.open("task")
    file = await transaction.put("videos", "final.mp4", b"video")
    with pytest.raises(TypeError):
        await transaction.publish({"pixels": b""})
    assert await storage.staged() == ("task",)
    assert (await transaction.publish()).files == (file,)


async def test_an_iteration_may_be_left():
    """A dropped iterator leaves nothing to finalise, on either loop."""
    storage = MemoryStorage()
    await published(storage)
    async for _ in storage.list():
        break
