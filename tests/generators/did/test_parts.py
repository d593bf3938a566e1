"""The client's small parts: tables, parsing, times, media."""

import base64
import io
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkgen import Image, Speech, Text, codecs
from talkgen.errors import (
    DIdError,
    InsufficientCredits,
    InvalidMedia,
    MediaFailed,
    Moderated,
    PermissionDenied,
    RateLimited,
    ServiceUnavailable,
    Unauthorized,
)
from talkgen.generators.did import (
    AudioUpload,
    Credits,
    ImageUpload,
    Polling,
    RetryPolicy,
    Talk,
    TalkPage,
    TalkRequest,
    Voice,
    media,
)
from talkgen.generators.did.credentials import authorization
from talkgen.generators.did.failures import failure, talk_failure
from talkgen.generators.did.finding import Wanted
from talkgen.generators.did.results import faces_of
from talkgen.generators.did.timing import retry_after

from .conftest import tone

json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.just(10**400)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "status", "url", "error", "talks", "config", "result_format", "created_at",
                 "duration", "faces", "credits", "remaining", "languages", "faceCrops", "token"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
def test_any_json_is_read_or_refused_in_one_way(value):
    readers = [cls.parse for cls in (Talk, TalkPage, ImageUpload, AudioUpload, Credits, Voice)]
    for read in (*readers, faces_of):
        with suppress(ValueError):
            read(value)


def test_an_answer_without_a_status_is_a_talk_all_the_same():
    assert Talk.parse({"id": "tlk_1", "status": None}).status == "unknown"
    page = TalkPage.parse({"talks": [{"id": "tlk_1"}, {"id": 7, "status": "done"}, None]})
    assert [talk.id for talk in page.talks] == ["tlk_1"]


def test_a_talk_is_read_leniently():
    talk = Talk.parse(
        {
            "id": "tlk_1",
            "status": "polishing",
            "created_at": "2026-06-09T13:48:40.440Z",
            "started_at": "2026-06-09T13:48:51.087",
            "modified_at": "yesterday",
            "duration": "3.5",
            "config": {"result_format": ".mp4", "new": 1},
            "error": None,
            "user": {"email": "x@y"},
            "never_seen": [1],
        }
    )
    assert talk.created_at == datetime(2026, 6, 9, 13, 48, 40, 440_000, tzinfo=UTC)
    assert talk.started_at == datetime(2026, 6, 9, 13, 48, 51, 87_000, tzinfo=UTC)
    assert (talk.modified_at, talk.duration, talk.result_format) == (None, 3.5, "mp4")
    assert (talk.known, talk.ended) == (False, False)
    assert "x@y" not in repr(talk)


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "cls", "said"),
    [
        (400, b'{"kind":"BadRequestError","description":"bad"}', InvalidMedia, "bad"),
        (
            400,
            b'{"kind":"ValidationError","details":{"body.script":{"message":"is required"}}}',
            DIdError,
            "body.script: is required",
        ),
        (401, b'{"kind":"AuthorizationError","description":"user unauthenticated"}',
         Unauthorized, "user unauthenticated"),
        (402, b"", InsufficientCredits, "does not say why"),
        (403, b'{"Message":"not authorized to access this resource"}', Unauthorized, "authorized"),
        (403, b'{"message":"Invalid key=value pair"}', Unauthorized, "Invalid key"),
        (403, b'{"kind":"PermissionError","description":"user has no permission for clips:write"}',
         PermissionDenied, "clips:write"),
        (404, b'{"kind":"NotFoundError","description":"talk not found"}', DIdError, "not found"),
        (415, b'{"kind":"UnsupportedMimeTypeError","details":{"received":"a"}}', InvalidMedia, "a"),
        (418, b"[1]", DIdError, "[1]"),
        (429, b"<html>slow <b>down</b></html>", RateLimited, "slow down"),
        (451, b'{"kind":"AudioModerationError","description":"no"}', Moderated, "no"),
        (500, b'{"kind":7,"description":null}', ServiceUnavailable, "does not say why"),
        (503, b"\xff\xfe", ServiceUnavailable, "HTTP 503"),
        (504, b'{"message":"Endpoint request timed out"}', ServiceUnavailable, "timed out"),
        (599, b"<Error><Code>SlowDown</Code><Message>wait</Message></Error>",
         ServiceUnavailable, "SlowDown: wait"),
    ],
)  # fmt: skip
def test_the_table(status, body, cls, said):
    error = failure(status, {}, body, doing="do it")
    assert type(error) is cls
    assert error.status == status
    assert said in str(error)
    assert error.retryable == error.outage == (status == 429 or status >= 500)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("times", [10_000, 300_000])
@pytest.mark.parametrize("piece", ["[", "<", "http://", '{"a":', "\n"])
def test_a_body_of_nothing_but_beginnings_is_read_at_once(piece, times):
    """What looks for the end of each would take hours."""
    error = failure(402, {}, (piece * times).encode(), doing="x")
    assert isinstance(error, InsufficientCredits)
    assert len(str(error)) < 1000


def test_why_a_talk_failed_is_told_in_a_line_without_signatures():
    said = "cannot read https://a.b/c.png?Sig=xyz\n" + "x" * 100_000
    error = talk_failure(Talk(id="tlk_1", status="error", error_kind="FaceError", error=said))
    assert str(error).startswith(
        "D-ID could not make talk tlk_1: FaceError: cannot read https://a.b/c.png xxx"
    )
    assert len(str(error)) < 1000


def test_facts_of_an_error():
    body = b'{"kind":"PermissionError","description":"user has no permission for stitch"}'
    error = failure(403, {}, body, doing="make a talk")
    assert (error.feature, error.kind) == ("stitch", "PermissionError")
    assert failure(429, {"retry-after": "9"}, b"", doing="x").retry_after == 9


@pytest.mark.parametrize("before", ["cannot validate ", "why?", "(", "url=", "http://a.b/,"])
@pytest.mark.parametrize("scheme", ["https", "HTTPS", "gs"])
def test_links_in_a_body_lose_their_signature(before, scheme):
    body = f'{{"kind":"BadRequestError","description":"{before}{scheme}://a.b/c.wav?Sig=xyz"}}'
    said = str(failure(400, {}, body.encode(), doing="x"))
    assert "xyz" not in said
    assert f"{before}{scheme}://a.b/c.wav" in said


def test_a_body_steers_no_terminal():
    body = b"\x1b]0;mine\x07no\x1b[2J \xe2\x80\xaethanks"
    assert "]0;mine no [2J thanks" in str(failure(400, {}, body, doing="x"))


def test_a_key_in_a_body_is_hidden_and_a_short_one_breaks_no_word():
    body = b'{"kind":"BadRequestError","description":"bad header: Basic user:long-secret"}'
    for key in ("Basic user:long-secret", "Bearer long-secret"):
        error = failure(400, {}, body, doing="x", key=key)
        assert "long-secret" not in str(error)
        assert error.kind == "BadRequestError"
    assert "bad header" in str(failure(400, {}, body, doing="x", key="Basic a:b"))


def test_a_key_that_was_given_in_base64_is_hidden_in_both_forms():
    key = base64.b64encode(b"user:long-secret").decode()
    for said in ("user:long-secret", "long-secret", key):
        assert said not in str(failure(403, {}, said.encode(), doing="x", key=f"Basic {key}"))


@pytest.mark.parametrize(
    ("key", "header"),
    [
        ("Basically:secret", "Basic Basically:secret"),
        ("Bearers:secret", "Basic Bearers:secret"),
        ("Basic x:y", "Basic x:y"),
        ("Bearer token", "Bearer token"),
    ],
)
def test_a_scheme_is_a_word_of_its_own(key, header):
    assert str.__str__(authorization(key)) == header


@given(st.integers(300, 599), st.binary(max_size=60))
def test_any_body_gives_an_error(status, body):
    assert isinstance(failure(status, {}, body, doing="x"), DIdError)


# --- times -------------------------------------------------------------------------------------

NOW = datetime(2015, 10, 21, 7, 27, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 60.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 60.0),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0),
        ("soon", None),
        ("9" * 400, None),
        ("-3", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_in_both_forms(value, seconds):
    assert retry_after(value, NOW) == seconds


@given(st.text() | st.builds("Wed, 21 Oct 2015 07:28:00 {:+d}".format, st.integers()))
def test_any_retry_after_is_read_or_left_out(value):
    seconds = retry_after(value, NOW)
    assert seconds is None or seconds >= 0


@given(st.none() | st.floats(0, 1e6))
def test_a_429_waits_as_asked_at_least_5_s_and_120_at_most(asked):
    wait = RetryPolicy().wait(RateLimited("slow", retry_after=asked))
    assert min(5.0 if asked is None else asked, 120.0) <= wait <= 120.0


def test_what_is_tried_again():
    policy = RetryPolicy()
    assert policy.wait(ServiceUnavailable("down")) is True
    assert 30 <= policy.wait(ServiceUnavailable("down", retry_after=30)) <= 30 + policy.jitter
    assert policy.wait(DIdError("still at work", status=409)) is True
    for error in (DIdError("no"), Unauthorized("no"), Moderated("no"), ValueError("no")):
        assert policy.wait(error) is False


def test_usual_waits_are_1_2_4_s_with_jitter():
    import stamina._core as core

    policy = RetryPolicy()
    for number, base in enumerate((1, 2, 4), start=1):
        wait = core._compute_backoff(
            number, policy.longest_wait, policy.first_wait, 2, policy.jitter
        )
        assert base <= wait <= base + policy.jitter


def test_looks_begin_after_2_s_and_grow_to_10():
    waits = list(islice(Polling(jitter=0).waits(), 20))
    assert waits[0] == 2.0
    assert waits[1] == pytest.approx(2.4)
    assert waits[-1] == max(waits) == 10.0
    for wait, base in zip(Polling().waits(), waits, strict=False):
        assert 0.8 * base <= wait <= 1.2 * base


def test_with_a_webhook_the_first_look_is_early_and_the_others_rare():
    """What came before anybody waited has woken nobody."""
    assert list(islice(Polling(jitter=0).waits(webhook=True), 4)) == [2.0, 30.0, 30.0, 30.0]


def test_the_deadline():
    assert Polling().deadline(3) == 300
    assert Polling().deadline(60) == 1200


# --- finding -----------------------------------------------------------------------------------

URL = "s3://d-id-images-prod/google-oauth2|1/img_abc/portrait.jpg"
SIGNED = "https://d-id-images-prod.s3.amazonaws.com/google-oauth2%7C1/img_abc/portrait.jpg?Sig=1"


@pytest.mark.parametrize(
    ("facts", "answer"),
    [
        ({"user_data": "mine"}, True),
        ({"user_data": "other", "source_url": URL}, False),
        ({"source_url": URL}, True),
        ({"source_url": SIGNED}, True),
        ({"source_url": SIGNED.replace("abc", "abd")}, None),
        ({}, None),
        ({"user_data": ""}, None),
        ({"user_data": "", "source_url": URL}, True),
    ],
)
def test_what_tells_a_talk(facts, answer):
    wanted = Wanted("mine", (URL,), NOW)
    assert wanted.is_it(Talk(id="1", status="done", **facts)) is answer


@pytest.mark.parametrize(
    "url", ["", "img_abc", "s3://bucket", "s3://bucket/", "s3://b/portrait.jpg"]
)
def test_an_upload_whose_address_has_no_name_of_its_own_tells_no_talk(url):
    """It would be somebody else's talk, and their video."""
    wanted = Wanted("mine", (url,), NOW)
    assert wanted.is_it(Talk(id="1", status="done", source_url=SIGNED)) is None


# --- requests and media ------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "  ", "two\nlines", "x" * 1001])
def test_user_data_is_one_line(text):
    with pytest.raises(ValueError, match="user_data"):
        TalkRequest(source_url="https://a/b.jpg", script={}, user_data=text)


def test_a_noisy_picture_of_the_largest_size_fits():
    noise = np.random.default_rng(0).integers(0, 255, (3000, 3000, 3), np.uint8)
    made = media.picture(Image(noise), "#ffffff")
    assert Image.open(made.data).width == 2048
    assert len(made.data) <= media.MAX_IMAGE_BYTES


@pytest.mark.parametrize(
    ("size", "made"),
    [
        ((160, 160), (160, 160)),
        ((2048, 300), (2048, 300)),
        ((4096, 3000), (2048, 1500)),
        ((4000, 200), (3200, 160)),
    ],
)
def test_size_of_a_picture(size, made):
    picture = Image(np.zeros((size[1], size[0], 3), np.uint8))
    sent = Image.open(media.picture(picture, "white").data)
    assert (sent.width, sent.height) == made


def test_a_recording_that_is_too_large_becomes_m4a():
    time = np.arange(33 * 48_000, dtype=np.float32) / 48_000
    speech = Speech(np.stack([0.5 * np.sin(1000 * time)] * 2), 48_000)
    assert len(speech.original().data) > media.MAX_AUDIO_BYTES
    made = media.sound(speech)
    assert made.type == "m4a"
    assert Speech.open(made.data).duration == pytest.approx(33, abs=0.1)
    # So that the longest that is taken fits.
    assert len(made.data) / 33 * media.MAX_SECONDS < media.MAX_AUDIO_BYTES


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_m4a_of_any_rate(rate):
    samples = 0.5 * np.sin(np.arange(2 * rate, dtype=np.float32) * 2000 / rate)
    made = Speech.open(codecs.encode_m4a(samples[None], rate))
    assert made.duration == pytest.approx(2, abs=0.1)
    assert np.sqrt(np.mean(made.samples**2)) == pytest.approx(0.5 / np.sqrt(2), abs=0.01)


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.01, 1.0, 15.0])
def test_m4a_is_not_louder_later_or_longer(rate, seconds):
    """An abrupt beginning stays where and as it is, and no credit is paid for filled-up frames."""
    samples = 0.45 * np.sin(np.arange(round(seconds * rate)) * 2000 / rate) + 0.45
    made = Speech.open(codecs.encode_m4a(samples.astype(np.float32)[None], rate))
    assert np.abs(made.samples).max() < 0.93
    assert seconds - 1024 / made.sample_rate < made.duration
    assert made.duration <= max(seconds, 1024 / made.sample_rate)
    if seconds >= 1:
        onset = np.argmax(np.abs(made.samples[0]) > 0.2) / made.sample_rate
        assert onset == pytest.approx(0, abs=0.001)


@pytest.mark.parametrize("format_", ["wav", "mp3", "m4a", "flac", "ogg"])
def test_an_original_that_fits_is_passed_through(format_):
    file = io.BytesIO()
    codec = {"m4a": "aac", "ogg": "libopus", "wav": "pcm_s16le", "mp3": "mp3", "flac": "flac"}
    container = {"m4a": "mp4"}.get(format_, format_)
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec[format_], rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.float32), "fltp", "mono")
        frame.sample_rate = 48_000
        resampler = av.AudioResampler(stream.format.name, "mono", 48_000, stream.frame_size or None)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    original = file.getvalue()
    made = media.sound(Speech.open(original))
    assert (made.data == original) == (format_ != "ogg")
    assert made.type == ("m4a" if format_ == "ogg" else format_)


def test_limits_of_speech():
    media.check_speech(tone())
    media.check_speech(Text("Hey"))
    with pytest.raises(InvalidMedia):
        media.check_speech(Text("x" * 10_001))


@pytest.mark.parametrize("cut", [0, 10, 0.5, 0.95])
def test_a_video_that_is_cut_is_noticed(tmp_path, cut):
    from talkgen.testing.fake_did._media import video

    whole, path = video(3.0), tmp_path / "video.mp4"
    path.write_bytes(whole)
    assert media.examine(path, 3.0).duration == pytest.approx(3.0, abs=0.3)
    path.write_bytes(whole[: cut if isinstance(cut, int) else int(len(whole) * cut)])
    with pytest.raises(MediaFailed):
        media.examine(path, 3.0)


def test_a_video_that_plays_another_file_is_none(tmp_path):
    from talkgen.testing.fake_did._media import video

    (tmp_path / "other.mp4").write_bytes(video(3.0))
    path = tmp_path / "video.mp4"
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")
    with pytest.raises(MediaFailed, match="damaged or truncated"):
        media.examine(path, 3.0)


@pytest.mark.parametrize("seconds", [10.0, 0.1])
def test_a_video_of_another_length_is_noticed(tmp_path, seconds):
    from talkgen.testing.fake_did._media import video

    path = tmp_path / "video.mp4"
    path.write_bytes(video(4.0))
    media.examine(path, None)
    with pytest.raises(MediaFailed, match="not about"):
        media.examine(path, seconds)
