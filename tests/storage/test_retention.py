"""What is kept how long: rules over manifests and a time."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkgen.media import FileRef
from talkgen.protocols import DiskStats, Manifest
from talkgen.storage.listing import find, in_order, sizes, statistics, visible
from talkgen.storage.names import TIERS
from talkgen.storage.retention import Retention, expired_files, expires, file_infos, remainder

CREATED = datetime(2030, 1, 1, tzinfo=UTC)
FILES = tuple(FileRef("a", tier, f"a_{tier}.bin", 2**20, tier) for tier in TIERS)
MANIFEST = Manifest("a", CREATED, FILES, {"success": True})

durations = st.timedeltas(timedelta(), timedelta(days=60)) | st.just(timedelta.max)
retentions = st.builds(Retention, *[durations] * 4)
times = st.datetimes(datetime(2029, 12, 1), datetime(2031, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("after", "tiers"),
    [
        (timedelta(0), ["uploads", "processed", "videos", "temp"]),
        (timedelta(hours=1), ["uploads", "processed", "videos"]),
        (timedelta(days=3), ["uploads", "videos"]),
        (timedelta(days=7), ["videos"]),
        (timedelta(days=30) - timedelta(microseconds=1), ["videos"]),
    ],
)
def test_tiers_expire_one_after_the_other(after: timedelta, tiers: list[str]):
    left = remainder(MANIFEST, Retention(), CREATED + after)
    assert [file.tier for file in left.files] == tiers
    assert left.result == MANIFEST.result


def test_the_task_ends_with_its_video():
    assert remainder(MANIFEST, Retention(), CREATED + timedelta(days=30)) is None


def test_the_manifest_stays_while_a_file_does():
    """Where originals are kept longer than videos, so is what names them."""
    retention = Retention(uploads=timedelta(days=90))
    left = remainder(MANIFEST, retention, CREATED + timedelta(days=31))
    assert left.files == FILES[:1]


def test_for_ever_is_for_ever():
    retention = Retention(videos=timedelta.max)
    assert expires(CREATED, "videos", retention) == datetime.max.replace(tzinfo=UTC)
    assert remainder(MANIFEST, retention, datetime(9999, 1, 1, tzinfo=UTC)) is not None


@given(retentions, times)
def test_a_file_is_visible_or_expired(retention: Retention, now: datetime):
    seen = {info.file for info in visible(MANIFEST, retention, now)}
    gone = set(expired_files(MANIFEST, retention, now))
    assert seen | gone == set(FILES)
    assert not seen & gone
    left = remainder(MANIFEST, retention, now)
    assert set(left.files if left else ()) == seen
    assert left is None or remainder(left, retention, now) == left


@given(retentions, st.lists(times, min_size=2, max_size=2).map(sorted))
def test_nothing_comes_back(retention: Retention, moments: list[datetime]):
    earlier, later = (set(expired_files(MANIFEST, retention, now)) for now in moments)
    assert earlier <= later


def test_unpublished_tasks_have_no_files():
    assert visible(None, Retention(), CREATED) == ()


def test_finding_needs_the_same_content():
    infos = file_infos(MANIFEST, Retention())
    assert find(FILES[2], infos) == FILES[2]
    with pytest.raises(FileNotFoundError, match=r"a_videos\.bin is not published") as missing:
        find(FileRef("a", "videos", "a_videos.bin", 2**20, "other"), infos)
    assert "expired" in missing.value.hint


def test_order_is_by_age():
    older = Manifest("b", CREATED - timedelta(1), (FileRef("b", "videos", "b_x.mp4", 1, ""),), None)
    infos = [info for task in (MANIFEST, older) for info in file_infos(task, Retention())]
    assert [info.file.task_id for info in in_order(infos, "videos")] == ["b", "a"]


def test_statistics_have_the_form_that_dashboards_read():
    disk = DiskStats(total_gb=100, used_gb=45.3, free_gb=54.7, percent_used=45.3)
    infos = file_infos(MANIFEST, Retention())
    assert statistics("/srv", sizes(infos), Retention(), disk).to_dict() == {
        "storage_root": "/srv",
        "tiers": {
            "uploads": {"file_count": 1, "size_mb": 1.0, "retention_days": 7.0},
            "processed": {"file_count": 1, "size_mb": 1.0, "retention_days": 3.0},
            "videos": {"file_count": 1, "size_mb": 1.0, "retention_days": 30.0},
            "temp": {"file_count": 1, "size_mb": 1.0, "retention_days": pytest.approx(1 / 24)},
        },
        "total_files": 4,
        "total_size_mb": 4.0,
        "disk": {"total_gb": 100, "used_gb": 45.3, "free_gb": 54.7, "percent_used": 45.3},
    }
    assert statistics("memory", {}, Retention(), None).to_dict()["disk"] is None
