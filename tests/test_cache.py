"""What models said is kept by content, whole or not at all, and never fails a run."""

import random
import threading
from datetime import timedelta

import anyio
import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkgen import (
    DetectPersons,
    Image,
    LocalStorage,
    MemoryJournal,
    MemoryStorage,
    Pipeline,
    RemoveBackground,
)
from talkgen._clock import utc_now
from talkgen.cache import IMAGE, PERSONS, ResultCache
from talkgen.draft import Box, Person
from talkgen.errors import StorageError
from talkgen.models.face import FaceDetector
from talkgen.models.segmentation import SelfieRemover
from talkgen.protocols import Codec
from talkgen.settings import Settings

ORIGIN = "0123456789abcdef" * 4
TEXT = Codec(str.encode, bytes.decode)


class Maker:
    """Makes texts, and counts how often."""

    def __init__(self, text="made", error=None):
        self.made, self._text, self._error = 0, text, error

    async def __call__(self):
        self.made += 1
        await anyio.lowlevel.checkpoint()
        if self._error:
            raise self._error
        return self._text


@pytest.fixture(params=["memory", "local"])
def storage(request, tmp_path):
    return MemoryStorage() if request.param == "memory" else LocalStorage(tmp_path / "store")


async def test_the_second_call_finds_what_the_first_made(storage):
    make = Maker()
    for _ in range(2):
        assert await ResultCache(storage).remember(ORIGIN, "key", make, TEXT) == "made"
    assert make.made == 1


class Telltale:
    """A detector whose key is asked for."""

    def __init__(self):
        self.threads = set()

    @property
    def key(self):
        self.threads.add(threading.get_ident())
        return "telltale"

    async def detect(self, image, *, scheduler, confidence=0.5, iou=0.45):
        return (Person(1, Box(0, 0, 1, 1), 1.0),)


async def test_the_loop_waits_for_no_key(storage):
    """It may be the digest of a file of weights."""
    detector = Telltale()
    pipeline = Pipeline([DetectPersons(detector, framing="image")], storage=storage)
    async with pipeline:
        await pipeline.run(np.zeros((2, 2, 3), np.uint8))
        await pipeline.recover()

    assert detector.threads
    assert threading.get_ident() not in detector.threads


@pytest.mark.parametrize(("origin", "key"), [("f" * 64, "key"), (ORIGIN, "other")])
async def test_another_photo_or_key_is_another_entry(storage, origin, key):
    cache = ResultCache(storage)
    await cache.remember(ORIGIN, "key", Maker(), TEXT)
    assert await cache.remember(origin, key, Maker("new"), TEXT) == "new"


async def test_whoever_asks_meanwhile_waits_for_the_first(storage):
    cache, make = ResultCache(storage), Maker()
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(cache.remember, ORIGIN, "key", make, TEXT)
    assert make.made == 1
    assert not cache._locks


async def test_a_failure_is_the_caller_s_alone_and_the_next_one_tries(storage):
    cache = ResultCache(storage)
    with pytest.raises(RuntimeError, match="broken"):
        await cache.remember(ORIGIN, "key", Maker(error=RuntimeError("broken")), TEXT)
    assert await cache.remember(ORIGIN, "key", Maker(), TEXT) == "made"


async def test_a_cancelled_maker_leaves_the_place_to_the_next(storage):
    cache, entered = ResultCache(storage), anyio.Event()

    async def stay():
        entered.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cache.remember, ORIGIN, "key", stay, TEXT)
        await entered.wait()
        tasks.cancel_scope.cancel()
    assert await cache.remember(ORIGIN, "key", Maker(), TEXT) == "made"
    assert await storage.staged() == ()


async def test_what_fell_short_is_not_kept(storage):
    cache, make = ResultCache(storage), Maker()
    for _ in range(2):
        await cache.remember(ORIGIN, "key", make, TEXT, worth_keeping=lambda: False)
    assert make.made == 2
    assert [info async for info in storage.list()] == []


async def test_a_damaged_entry_is_made_again_and_replaced(tmp_path, caplog):
    storage = LocalStorage(tmp_path)
    cache, make = ResultCache(storage), Maker()
    await cache.remember(ORIGIN, "key", make, TEXT)
    (entry,) = (tmp_path / "processed").iterdir()
    entry.write_bytes(b"made up")
    for _ in range(2):
        assert await cache.remember(ORIGIN, "key", make, TEXT) == "made"
    assert make.made == 2
    assert "made again" in caplog.text


async def test_an_entry_of_another_form_is_made_again(storage):
    cache = ResultCache(storage)
    await cache.remember(ORIGIN, "key", Maker("no picture"), TEXT)
    picture = Image(np.zeros((2, 3, 4), np.uint8))

    async def make():
        return picture

    assert (await cache.remember(ORIGIN, "key", make, IMAGE)) is picture
    assert (await cache.remember(ORIGIN, "key", Maker(), IMAGE)).digest == picture.digest


async def test_a_storage_that_keeps_nothing_does_not_fail_the_caller(storage, caplog):
    class Full:
        async def open(self, task_id):
            raise StorageError("full")

        def __getattr__(self, name):
            return getattr(storage, name)

    assert await ResultCache(Full()).remember(ORIGIN, "key", Maker(), TEXT) == "made"
    assert "is not cached: full" in caplog.text


async def test_the_oldest_entries_go_when_all_are_too_large(storage):
    cache = ResultCache(storage, max_bytes=8)
    for number in range(4):
        await cache.remember(ORIGIN, str(number), Maker(f"<{number}>"), TEXT)
    other = await storage.open("cache-of-my-own")
    await other.put("processed", "cached.bin", b"not an entry")
    await other.publish()
    await cache.trim()
    left = [await storage.get(info.file) async for info in storage.list()]
    assert left == [b"<2>", b"<3>", b"not an entry"]


async def test_it_is_trimmed_now_and_then(storage, monkeypatch):
    monkeypatch.setattr("talkgen.cache.random", random.Random(0))
    monkeypatch.setattr("talkgen.cache.PUTS_BETWEEN_TRIMS", 3)
    kept = set()
    for number in range(30):
        cache = ResultCache(storage, max_bytes=3)
        await cache.remember(ORIGIN, str(number), Maker("<1>"), TEXT)
        kept.add(len([info async for info in storage.list()]))
    assert 1 in kept
    assert 1 < max(kept) < 15


async def test_entries_expire_with_their_tier(storage):
    await ResultCache(storage).remember(ORIGIN, "key", Maker(), TEXT)
    report = await storage.cleanup(utc_now() + timedelta(days=4))
    assert [info async for info in storage.list()] == []
    assert len(report.tasks_expired) == 1  # nor is there a manifest left


async def test_forgetting_a_photo_forgets_its_entries_alone(storage):
    cache = ResultCache(storage)
    for origin in (ORIGIN, "f" * 64):
        await cache.remember(origin, "key", Maker(origin), TEXT)
    await cache.forget(ORIGIN)
    assert [await storage.get(info.file) async for info in storage.list()] == [b"f" * 64]


# --- kinds of results ----------------------------------------------------------------------------

coordinates = st.integers(-(2**31), 2**31)


@given(
    st.lists(
        st.tuples(
            st.tuples(coordinates, coordinates, coordinates, coordinates),
            st.floats(0, 1),
            st.one_of(st.none(), st.integers(0, 5)),
        ),
        max_size=4,
    )
)
def test_persons_come_back_to_the_last_bit(found):
    persons = tuple(
        Person(
            number,
            Box(*box),
            sure,
            None if points is None else np.random.default_rng(0).random((points, 2), np.float32),
        )
        for number, (box, sure, points) in enumerate(found, start=1)
    )
    again = PERSONS.load(PERSONS.dump(persons))
    assert [(p.id, p.box, p.confidence) for p in again] == [
        (p.id, p.box, p.confidence) for p in persons
    ]
    for one, other in zip(again, persons, strict=True):
        if other.landmarks is None:
            assert one.landmarks is None
        else:
            assert one.landmarks.dtype == np.float32
            assert (one.landmarks == other.landmarks).all()


def test_pictures_keep_the_colours_under_a_clear_alpha():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    pixels[..., 3] = 0
    assert (IMAGE.load(IMAGE.dump(Image(pixels))).pixels == pixels).all()


# --- in a pipeline -------------------------------------------------------------------------------


@attrs.frozen
class Counting:
    """A backend that counts its calls."""

    inner: object
    calls: list = attrs.field(factory=list, eq=False)

    @property
    def key(self):
        return self.inner.key

    async def detect(self, image, **options):
        self.calls.append("detect")
        return await self.inner.detect(image, **options)

    async def remove(self, image, **options):
        self.calls.append("remove")
        return await self.inner.remove(image, **options)


@pytest.mark.integration
@pytest.mark.parametrize(("megabytes", "calls"), [(64, 1), (0, 2)])
async def test_the_same_portrait_a_second_time_runs_no_model(
    portrait_path, storage, megabytes, calls
):
    detector, remover = Counting(FaceDetector()), Counting(SelfieRemover())
    stages = [DetectPersons(detector), RemoveBackground(remover)]
    results = []
    for _ in range(2):
        settings = Settings(cache_megabytes=megabytes)
        pipeline = Pipeline(stages, storage=storage, settings=settings)
        results.append(await pipeline.run(portrait_path))
    assert (len(detector.calls), len(remover.calls)) == (calls, calls)
    first, second = (result.draft for result in results)
    assert first.portrait.digest == second.portrait.digest
    assert (first.person.landmarks == second.person.landmarks).all()


@pytest.mark.integration
async def test_forgetting_a_task_forgets_what_is_cached_of_its_photo(portrait_path, storage):
    async with Pipeline([DetectPersons()], storage=storage) as pipeline:
        result = await pipeline.run(portrait_path)
        await pipeline.forget(result.task_id)
    assert [info async for info in storage.list()] == []


class Remembering:
    """A stage that has something of the photo cached."""

    name = key = "remembering"
    weight = 1.0
    requires = provides = resets = frozenset()

    async def run(self, draft, context):
        await context.remember("key", Maker(), TEXT)
        return draft


PICTURE = np.zeros((2, 2, 3), np.uint8)


async def test_forgetting_reaches_what_another_pipeline_has_cached(storage):
    shared = {"storage": storage, "journal": MemoryJournal()}
    await Pipeline([Remembering()], **shared).run(PICTURE, task_id="t")
    await Pipeline([], settings=Settings(cache_megabytes=0), **shared).forget("t")
    assert [info async for info in storage.list()] == []


async def test_forgetting_again_goes_on_where_the_disk_refused():
    """The journal alone knows whose photo it was."""

    class Stuck(MemoryStorage):
        refuses = True

        async def delete_task(self, task_id):
            if self.refuses:
                self.refuses = False
                raise StorageError("the disk refused")
            await super().delete_task(task_id)

    pipeline = Pipeline([Remembering()], storage=(storage := Stuck()))
    await pipeline.run(PICTURE, task_id="t")
    with pytest.raises(StorageError):
        await pipeline.forget("t")
    await pipeline.forget("t")
    assert [info async for info in storage.list()] == []


async def test_a_codec_may_raise_anything(storage):
    def fail(_value):
        raise KeyError("no such field")

    cache, make = ResultCache(storage), Maker()
    for codec in (Codec(fail, bytes.decode), TEXT, Codec(str.encode, fail)):
        assert await cache.remember(ORIGIN, "key", make, codec) == "made"
    assert make.made == 3
