"""The web example, as its clients see it: real HTTP, server-sent events and WebSocket."""

import json
import re
import signal
import sqlite3
import subprocess
import threading
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from uuid import uuid4

import anyio
import attrs
import httpx
import numpy as np
import pytest
from httpx_sse import EventSource
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from studio import wire
from studio.config import Config
from studio.host import Host
from studio.options import Asked, Options
from studio.orders import Orders
from talkgen import Image, codecs, errors, events
from talkgen.generators.did import Clock, DIdGenerator, Polling
from talkgen.testing import FakeDId
from talkgen.testing.fake_did import Fault

from .processes import SERVER, process, until


def problem(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert (told["type"], told["status"]) == ("about:blank", status)
    assert told["title"]
    return told


# --- the whole job -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(site):
    """A finished task."""
    return site.post(background="white").json()


def test_the_answer_has_the_original_services_form(made):
    assert made["success"] is True
    assert made["status"] == "completed"
    assert made["execution_time_ms"] > 0
    assert {"upload_complete", "detection_complete", "completed"} <= set(made["stages_completed"])
    assert made["metadata"]["person_detection"]["total_persons"] == 1
    assert made["video_url"] == f"/api/pipeline/video/{made['task_id']}"


def test_the_video_is_there_whole_and_in_parts(site, made):
    whole = site.http.get(made["video_url"])
    assert whole.headers["content-type"] == "video/mp4"
    assert codecs.first_frame(whole.content).shape == (96, 96, 3)
    part = site.http.get(made["video_url"], headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")
    assert part.headers["content-range"] == f"bytes 4-7/{len(whole.content)}"


@pytest.mark.parametrize("file", ["video", "/page.css"])
@pytest.mark.parametrize(
    "malformed", ["bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=9-1", "lines=1-2"]
)
def test_a_range_that_is_none_is_ignored(site, made, file, malformed):
    url = made["links"].get(file, file)
    answer = site.http.get(url, headers={"Range": malformed})
    assert (answer.status_code, answer.content) == (200, site.http.get(url).content)


@pytest.mark.parametrize("file", ["video", "/page.css"])
def test_a_range_beyond_the_file_is_refused_with_its_length(site, made, file):
    url = made["links"].get(file, file)
    beyond = site.http.get(url, headers={"Range": "bytes=999999999-"})
    length = len(site.http.get(url).content)
    assert str(length) in problem(beyond, 416)["detail"]
    assert beyond.headers["content-range"] == f"bytes */{length}"


def test_the_head_of_a_video_can_be_asked_for(site, made):
    head = site.http.head(made["video_url"])
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 1000
    assert head.headers["accept-ranges"] == "bytes"


def test_the_poster_is_the_videos_first_picture(site, made):
    poster = site.http.get(made["links"]["poster"])
    assert poster.headers["content-type"] == "image/jpeg"
    assert Image.open(poster.content).width == 96


def test_the_status_is_the_last_event(site, made):
    told = site.status(made["task_id"]).json()
    assert told["task_id"] == made["task_id"]
    assert (told["stage"], told["progress_percent"]) == ("completed", 100)
    assert told["message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z", told["timestamp"])


def test_the_storage_is_counted(site, made):
    told = site.http.get("/api/pipeline/storage/stats").json()
    assert told["tiers"]["videos"]["file_count"] >= 1
    assert told["disk"]["free_gb"] > 0


def test_the_page_and_its_parts_are_there_and_nothing_comes_from_elsewhere(site):
    page = site.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    parts = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert {"page.css", "page.js", "icon.svg"} <= set(parts)
    for part in parts:
        assert site.http.get(f"/{part}").status_code == 200
    assert not re.findall(r"https?://(?!www\.w3\.org)", page.text + site.http.get("/page.js").text)


def test_the_description_of_the_api_has_the_form(site):
    paths = site.http.get("/openapi.json").json()["paths"]
    body = paths["/api/pipeline/generate"]["post"]["requestBody"]
    fields = body["content"]["multipart/form-data"]["schema"]["properties"]
    assert {"image", "audio", "conf_threshold", "iou_threshold", "selected_person_id"} <= set(
        fields
    )
    assert {"apply_smoothing", "background"} <= set(fields)
    assert set(paths["/api/pipeline/video/{task_id}"]) == {"get"}


# --- events ------------------------------------------------------------------------------------


def test_server_sent_events_are_flat_numbered_and_end_by_name(site):
    told = site.all_events(site.begin())
    events = [event for event in told if event.event != "preview"]
    assert [event.id for event in events] == [f"1-{n}" for n in range(len(events))]
    assert {event.event for event in events[:-1]} == {"message"}
    percents = [event.json()["progress_percent"] for event in events]
    assert percents == sorted(percents)
    assert events[-1].event == "complete"
    assert site.http.get(events[-1].json()["video_url"]).status_code == 200


def test_a_reader_goes_on_after_the_last_event_it_has_seen(site, made):
    everything = site.all_events(made["task_id"])
    rest = site.all_events(made["task_id"], after=everything[4].id)
    assert [(one.id, one.data) for one in rest] == [(one.id, one.data) for one in everything[5:]]


def test_a_browser_that_has_seen_the_end_does_not_come_again(site, made):
    last = site.all_events(made["task_id"])[-1]
    url = f"/api/pipeline/progress/{made['task_id']}/sse"
    answer = site.http.get(url, headers={"Last-Event-ID": last.id})
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_websocket_gets_the_wire_form(site, made):
    with connect(f"{site.socket}/{made['task_id']}") as socket:
        events = [json.loads(message) for message in socket]
    assert [event["sequence"] for event in events] == list(range(len(events)))
    assert set(events[0]) == {"task_id", "event_type", "sequence", "data", "timestamp"}
    assert events[-1]["event_type"] == "complete"
    assert events[-1]["data"]["video_url"] == made["video_url"]
    with connect(f"{site.socket}/{made['task_id']}?after=1-4") as socket:
        assert [json.loads(message) for message in socket] == events[5:]


def test_a_websocket_is_not_opened_after_the_end(site, made):
    last = site.all_events(made["task_id"])[-1]
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{site.socket}/{made['task_id']}?after={last.id}")
    assert refused.value.response.status_code == 204


def test_the_cut_out_is_shown_while_the_work_goes_on(serve, gated):
    with serve(generator=gated) as site:
        task = site.begin()
        with site.events(task) as events:
            gated.gate.set()
            previews = [event for event in events if event.event == "preview"]
        assert previews
        assert previews[0].json()["image"].startswith("data:image/jpeg;base64,")
        assert {one.event for one in site.all_events(task)} == {"message", "complete"}


def test_events_of_one_attempt_reach_every_reader(serve, gated):
    with serve(generator=gated) as site:
        task = site.begin()
        with site.events(task) as events, connect(f"{site.socket}/{task}") as socket:
            gated.gate.set()
            seen = [event.json()["sequence"] for event in events]
            assert [json.loads(message)["sequence"] for message in socket] == seen


def test_who_leaves_does_not_end_the_task(serve, gated):
    with serve(generator=gated) as site:
        task = site.begin()
        with site.events(task) as events:
            next(events)
        with connect(f"{site.socket}/{task}") as socket:
            socket.recv()
        impatient = httpx.Timeout(5.0, read=0.3)
        other = str(uuid4())
        with pytest.raises(httpx.ReadTimeout):
            site.http.post(
                "/api/pipeline/generate",
                files=site.files,
                data={"task_id": other},
                timeout=impatient,
            )
        gated.gate.set()
        assert site.all_events(task)[-1].event == "complete"
        until(lambda: site.status(other).status_code == 200)
        assert site.all_events(other)[-1].event == "complete"


# --- what is refused ---------------------------------------------------------------------------


def test_nobody_sees_a_task_without_its_id(site):
    for path in ("status/{}", "progress/{}/sse", "video/{}", "video/{}/poster"):
        told = problem(site.http.get(f"/api/pipeline/{path.format(uuid4())}"), 404)
        assert told["error_type"] == "TaskNotFound"
    with pytest.raises(InvalidStatus) as refused, connect(f"{site.socket}/{uuid4()}"):
        pass
    assert refused.value.response.status_code == 404
    assert json.loads(refused.value.response.body)["error_type"] == "TaskNotFound"


def test_a_task_without_a_video_says_so(serve, gated):
    with serve(generator=gated) as site:
        told = problem(site.http.get(f"/api/pipeline/video/{site.begin()}"), 404)
        assert told["error_type"] == "FileMissing"
        gated.gate.set()


def test_files_are_judged_by_their_content(site, files):
    swapped = {"image": files["audio"], "audio": files["image"]}
    told = problem(site.post(files=swapped), 422)
    assert told["error_type"] == "InvalidImage"
    assert told["detail"].startswith("image: ")
    assert told["hint"]
    told = problem(site.post(files={**files, "audio": ("a.wav", b"RIFF....WAVE")}), 422)
    assert told["error_type"] == "InvalidAudio"
    assert told["detail"].startswith("audio: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("conf_threshold", "1.5"),
        ("iou_threshold", "much"),
        ("selected_person_id", "0"),
        ("apply_smoothing", "perhaps"),
        ("background", "no such colour"),
        ("task_id", "1"),
        ("conf_treshold", "0.5"),
    ],
)
def test_a_field_that_is_no_good_is_named(site, name, value):
    told = problem(site.post(**{name: value}), 422)
    assert [one["field"] for one in told["fields"]] == [name]


def test_empty_fields_are_no_fields(site):
    assert site.post(later=True, selected_person_id="", background="").status_code == 202


def test_a_missing_file_is_named(site, files):
    told = problem(site.post(files={"image": files["image"]}), 422)
    assert "'audio'" in told["detail"]


def test_what_is_no_form_is_refused(site):
    problem(site.http.post("/api/pipeline/generate", json={}), 415)
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    problem(site.http.post("/api/pipeline/generate", content=b"y", headers=broken), 400)
    many = [("image", ("a", b"a"))] * 3
    problem(site.http.post("/api/pipeline/generate", files=many), 400)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/pipeline/generate", "POST"),
        ("POST", "/api/pipeline/status/x", "GET"),
        ("PUT", "/api/pipeline/progress/x/sse", "GET"),
        ("DELETE", "/api/pipeline/video/x", "GET, HEAD"),
        ("PUT", "/", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_one(site, method, path, allowed):
    answer = site.http.request(method, path)
    problem(answer, 405)
    assert sorted(answer.headers["allow"].split(", ")) == allowed.split(", ")


def test_a_picture_of_nobody_is_refused_with_advice(site, files):
    grey = Image(np.full((200, 200, 3), 128, np.uint8)).encode("png")
    told = problem(site.post(files={**files, "image": ("grey.png", grey)}), 422)
    assert told["error_type"] == "NoPersonDetected"
    assert told["hint"]
    assert site.all_events(told["task_id"])[-1].event == "error"


def test_a_person_who_is_not_there_is_refused(site):
    assert problem(site.post(selected_person_id=5), 422)["error_type"] == "PersonNotFound"


def test_a_cursor_that_is_none_is_refused(site, made):
    url = f"/api/pipeline/progress/{made['task_id']}/sse"
    problem(site.http.get(url, headers={"Last-Event-ID": "yesterday"}), 400)


def test_who_comes_with_a_cursor_that_no_event_has_is_told_everything(site, made):
    everything = [one.id for one in site.all_events(made["task_id"])]
    for unknown in ("1-9999", "7-0"):
        assert [one.id for one in site.all_events(made["task_id"], unknown)] == everything


def test_large_uploads_are_refused_told_or_not(serve, files):
    form = httpx.Request("POST", "http://x", files=files)
    length, body = int(form.headers["content-length"]), form.read()
    with serve(max_upload_mb=(length - 1) / 2**20) as site:
        assert "smaller" in problem(site.post(), 413)["hint"]
        kind = {"Content-Type": form.headers["content-type"]}
        pieces = (body[n : n + 65536] for n in range(0, length, 65536))
        problem(site.http.post("/api/pipeline/generate", content=pieces, headers=kind), 413)


def test_slow_uploads_are_refused(serve):
    def trickle():
        yield b"--x\r\n"
        gone.wait(10)

    gone = threading.Event()
    with serve(upload_seconds=0.2) as site:
        kind = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": "1000"}
        with connection(site) as socket:
            head = "".join(f"{name}: {value}\r\n" for name, value in kind.items())
            socket.sendall(
                f"POST /api/pipeline/generate HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode()
            )
            socket.sendall(b"--x\r\n")
            assert b" 408 " in socket.recv(1000)


def test_an_upload_that_breaks_off_is_no_error_of_the_server(serve, capfd):
    head = "POST /api/pipeline/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    kind = "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    with serve(max_tasks=1) as site:
        with connection(site) as socket:
            socket.sendall((head + kind).encode())
            until(lambda: site.post(files={}).status_code == 503)
        until(lambda: site.post(files={}).status_code != 503)  # its place is free again
    assert "Exception" not in capfd.readouterr().err


@contextmanager
def connection(site):
    import socket

    with socket.create_connection((site.http.base_url.host, site.http.base_url.port)) as opened:
        yield opened


def test_more_tasks_than_there_is_room_for_are_asked_to_come_again(serve, gated):
    with serve(generator=gated, max_tasks=1) as site:
        task = site.begin()
        told = site.post()
        assert problem(told, 503)["error_type"] == "Overloaded"
        assert int(told.headers["retry-after"]) > 0
        gated.gate.set()
        site.all_events(task)
        until(lambda: site.post(later=True).status_code == 202)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://other.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "{own}", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "{own}"}, 422),
        ({"Origin": "{own}", "Sec-Fetch-Site": "same-origin"}, 422),
        ({"Origin": "https://in.front.example", "Sec-Fetch-Site": "same-origin"}, 422),
        ({}, 422),
    ],
)
def test_only_the_own_page_may_begin_tasks_in_a_browser(site, headers, status):
    own = str(site.http.base_url)
    told = {name: value.format(own=own) for name, value in headers.items()}
    only_half = {"image": ("a", b"a")}
    problem(site.http.post("/api/pipeline/generate", files=only_half, headers=told), status)


def test_the_media_types_letters_may_be_large(site):
    kind = {"Content-Type": "Multipart/Form-Data; boundary=x"}
    told = site.http.post("/api/pipeline/generate", content=b"--x--\r\n", headers=kind)
    assert "'image'" in problem(told, 422)["detail"]
    kind = {"Content-Type": "multipart/form-data-not; boundary=x"}
    problem(site.http.post("/api/pipeline/generate", content=b"--x--\r\n", headers=kind), 415)


# --- what nobody is told -----------------------------------------------------------------------


@attrs.frozen
class Broken:
    """A generator that fails with what only the operator should know."""

    error: Exception = attrs.field(eq=False)
    accepts_text = False
    key = "broken"

    async def generate(self, portrait, speech, context):
        raise self.error


SECRET = "/srv/private/weights.pt"


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (errors.ModelUnavailable(f"no {SECRET}", hint=f"look at {SECRET}"), 500, "error"),
        (OSError(2, "No such file", SECRET), 500, "error"),
        (errors.InsufficientStorage(f"{SECRET} needs more"), 507, "error"),
        (errors.StorageUnavailable(f"no answer from {SECRET}"), 202, "deferred"),
    ],
)
def test_texts_with_folders_stay_in_the_log(serve, caplog, error, status, word):
    task = str(uuid4())
    with serve(generator=Broken(error)) as site:
        answer = site.post(task_id=task)
        assert answer.status_code == status
        with connect(f"{site.socket}/{task}") as socket:
            heard = [*socket]
        last = site.all_events(task)[-1]
        told = [answer.text, *heard, last.data, site.status(task).text]
    with serve(generator=Broken(error)) as site:  # from the journal
        told += [one.data for one in site.all_events(task)]
    assert last.event == word
    assert not [text for text in told if "private" in text]
    assert SECRET in caplog.text


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"error_type": "ModelUnavailable"}, False),
        ({"error_type": "StageFailed"}, False),
        ({"backend": "detector"}, False),
        ({"restored": True}, False),
        ({"error_type": "OutOfMemory"}, True),
        ({"action": "level", "level": 1, "device": "cpu"}, True),
        ({}, True),
    ],
)
def test_a_step_down_does_not_name_folders(metadata, told):
    event = events.Degraded(
        task_id="t",
        attempt=1,
        sequence=1,
        timestamp=datetime.now(UTC),
        stage="detection",
        progress=20,
        message=f"It has no weights: there is no file {SECRET}",
        metadata=metadata,
    )
    assert (SECRET in json.dumps(wire.flat(event))) is told


def test_answers_that_nobody_planned_are_careful_too(serve, tmp_path):
    with serve() as site:
        made = site.post().json()
        (video,) = (tmp_path / "store" / "videos").glob("*.mp4")
        video.unlink()
        answer = site.http.get(made["video_url"])
        assert answer.status_code in {404, 500}
        assert str(tmp_path) not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"


# --- ids of the client's own -------------------------------------------------------------------


def test_a_repeated_request_joins_its_task_or_gets_its_result(serve, gated, files):
    task = str(uuid4())
    with serve(generator=gated) as site:
        assert site.begin(task_id=task) == site.begin(task_id=task) == task
        assert problem(site.post(task_id=task, background="teal"), 409)
        other = {
            **files,
            "image": ("white.png", Image(np.full((9, 9, 3), 255, np.uint8)).encode("png")),
        }
        assert problem(site.post(task_id=task, files=other), 409)
        gated.gate.set()
        first, second = site.post(task_id=task).json(), site.post(task_id=task).json()
        assert first["video_url"] == second["video_url"]
        assert problem(site.post(task_id=task, files=other), 409)
        told = problem(site.post(task_id=task, background="teal"), 409)
        assert told["error_type"] == "TaskConflict"


# --- outages and crashes -----------------------------------------------------------------------


def stand_in(service, **options):
    return DIdGenerator(
        service.api_key,
        base_url=service.base_url,
        clock=Clock(100.0),
        polling=Polling(first=1.0),
        **options,
    )


def test_an_outage_defers_and_the_server_goes_on_by_itself(serve):
    with (
        FakeDId(speed=100) as service,
        serve(generator=stand_in(service), recover_seconds=1) as site,
    ):
        service.fail("POST /images", Fault(status=503), times=20)
        answer = site.post()
        assert answer.status_code == 202
        assert answer.json()["status"] == "deferred"
        assert answer.json()["video_url"] is None
        task = answer.json()["task_id"]
        service.heal()
        until(lambda: site.status(task).json()["event_type"] == "complete")
        assert len(service.ledger.talks) == 1


def test_a_new_server_remembers_what_became_of_tasks(serve, files):
    with serve() as site:
        done = site.post().json()
        grey = Image(np.full((200, 200, 3), 128, np.uint8)).encode("png")
        failed = site.post(files={**files, "image": ("grey.png", grey)}).json()["task_id"]
    with serve() as site:
        (last,) = site.all_events(done["task_id"])
        assert last.event == "complete"
        assert site.http.get(last.json()["video_url"]).status_code == 200
        (last,) = site.all_events(failed)
        assert last.event == "error"
        assert last.json()["error_type"] == "NoPersonDetected"
        assert last.json()["hint"]
        # A browser that does not close its EventSource comes again, and is sent away for good.
        url = f"/api/pipeline/progress/{failed}/sse"
        assert site.http.get(url, headers={"Last-Event-ID": last.id}).status_code == 204
        assert site.http.get(url, headers={"Last-Event-ID": "1-0"}).status_code == 200


def test_the_command_stops_when_its_tasks_have_ended(tmp_path, files):
    with process(["-m", "studio"], tmp_path) as (url, server):
        asked = {"files": files, "headers": {"Prefer": "respond-async"}, "timeout": 60}
        task = httpx.post(f"{url}/api/pipeline/generate", **asked).json()["task_id"]
        server.terminate()
        server.wait(60)
    assert (tmp_path / "videos" / f"{task}_final.mp4").exists()


def test_a_follow_up_that_fails_is_tried_again(serve, monkeypatch):
    tried = []

    async def recover(host):
        tried.append(host)
        if len(tried) > 1:  # not the start's
            raise RuntimeError("its pipeline was closed meanwhile")

    monkeypatch.setattr(Host, "recover", recover)
    with serve(recover_seconds=1) as site:
        until(lambda: len(tried) > 2)
        assert site.post().status_code == 200


def test_options_of_another_version_do_not_keep_the_server_from_starting(serve, tmp_path, caplog):
    orders = Orders(tmp_path / "store" / "orders.db")
    anyio.run(orders.keep, "old", Asked(options=Options(), image="", audio=""))
    with closing(sqlite3.connect(orders.path)) as database, database:
        database.execute("UPDATE tasks SET asked = '{\"colour\": 1}'")
    with serve(recover_seconds=1) as site:
        assert site.post().status_code == 200
    assert "Task old was begun with options" in caplog.text


STOP = {"TALKGEN_WEB_STOP_SECONDS": "1"}


@pytest.mark.parametrize("environment", [STOP, pytest.param({}, marks=pytest.mark.slow)])
def test_tasks_that_take_long_do_not_hold_the_server_up_and_are_not_lost(
    tmp_path, files, environment
):
    with FakeDId(finish_after=1e6) as service:
        arguments = ["-c", SERVER, service.base_url, service.api_key]
        with process(arguments, tmp_path, **environment) as (url, server):
            asked = {"files": files, "headers": {"Prefer": "respond-async"}, "timeout": 60}
            links = httpx.post(f"{url}/api/pipeline/generate", **asked).json()["links"]
            with httpx.stream("GET", url + links["events"], timeout=60) as answer:
                next(EventSource(answer).iter_sse())
                until(lambda: len(service.ledger.talks) == 1)
                began = time.monotonic()
                server.send_signal(signal.SIGINT)
                if not environment:
                    with pytest.raises(subprocess.TimeoutExpired):
                        server.wait(1)  # it lets its tasks end
                    server.send_signal(signal.SIGINT)
                assert server.wait(20) == 1
            assert time.monotonic() - began < 20, "it took as long as its tasks"
        service.advance(1e6)
        with process(arguments, tmp_path) as (url, _):
            last = f"{url}{links['status']}"
            told = until(lambda: _ended(httpx.get(last).json()))
            assert told["event_type"] == "complete", told
        assert len(service.ledger.talks) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("TALKGEN_WEB_PORT", "x"), ("TALKGEN_WEB_MAX_TASKS", "0")]
)
def test_a_variable_that_is_no_good_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name}='{value}'"):
        Config.from_env()


def test_a_killed_server_is_followed_by_one_that_finishes_and_pays_once(tmp_path, files):
    with FakeDId(speed=100, finish_after=1e6) as service:
        arguments = ["-c", SERVER, service.base_url, service.api_key]
        with process(arguments, tmp_path) as (url, server), httpx.Client(base_url=url) as http:
            asked = {"data": {"background": "teal"}, "headers": {"Prefer": "respond-async"}}
            answer = http.post("/api/pipeline/generate", files=files, timeout=60, **asked).json()
            until(lambda: len(service.ledger.talks) == 1)
            until(lambda: http.get(answer["links"]["status"]).json()["stage"] == "did_processing")
            server.send_signal(signal.SIGKILL)
            server.wait()
        service.advance(1e6)
        with process(arguments, tmp_path) as (url, _), httpx.Client(base_url=url) as http:
            told = until(lambda: _ended(http.get(answer["links"]["status"]).json()))
            assert told["event_type"] == "complete", told
            assert len(service.ledger.talks) == 1
            video = http.get(told["video_url"]).content
            assert codecs.first_frame(video).ndim == 3
            # The storage is counted now and then.
            until(lambda: "storage_used_bytes" in http.get("/metrics").text)
            until(lambda: metric(http, "storage_used_bytes", tier="videos") > 0)
            assert metric(http, "pipeline_runs", outcome="completed") == 1
            assert metric(http, "pipeline_execution_time_seconds_count", outcome="completed") == 1
            assert metric(http, "active_pipelines_count") == 0
            assert metric(http, "storage_free_bytes") > 0
            assert metric(http, "gpu_utilization_percent") >= 0


def _ended(told):
    return told if told["event_type"] in {"complete", "error", "deferred"} else None


def metric(http, name, **labels):
    """What Prometheus scrapes of a metric: the sum of those that have the labels."""
    scraped = http.get("/metrics")
    assert scraped.headers["content-type"].startswith("text/plain")
    values = [
        sample.value
        for family in text_string_to_metric_families(scraped.text)
        for sample in family.samples
        if sample.name.removesuffix("_total") == name and labels.items() <= sample.labels.items()
    ]
    assert values, f"no {name}"
    return sum(values)
