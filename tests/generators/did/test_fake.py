"""The stand-in by itself, asked by a client that is not the library's."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import httpx
import jsonschema
import pytest

import talkgen.testing.fake_did
from talkgen.testing import FakeDId
from talkgen.testing.fake_did import Fault

from .conftest import face, tone

SCHEMAS = json.loads((Path(__file__).parent / "d-id-schemas.json").read_text())
JPEG, WAV = face().encode("jpeg"), tone().original().data

ANSWERS = {
    "POST /images": "ImageUpload",
    "POST /audios": "AudioUpload",
    "POST /images/face-detection": "FaceDetection",
    "POST /talks": "CreateTalkResponse",
    "GET /talks/{id}": "Talk",
    "DELETE /talks/{id}": "Talk",
    "GET /talks": "TalkList",
    "GET /credits": "Credits",
}


def validate(value, name):
    jsonschema.validate(value, {**SCHEMAS, "$ref": f"#/$defs/{name}"})


@pytest.fixture
def http(service):
    auth = {"Authorization": f"Basic {service.api_key}"}
    with httpx.Client(base_url=service.base_url, headers=auth) as http:
        yield http


def upload(http, data=JPEG, name="a.jpg", kind="image/jpeg", **fields):
    return http.post("/images", files={"image": (name, data, kind)}, data=fields)


def body(http, **extra):
    image = upload(http).json()
    audio = http.post("/audios", files={"audio": ("a.wav", WAV, "audio/wav")}).json()
    script = {"type": "audio", "audio_url": audio["url"]}
    return {"source_url": image["url"], "script": script, "user_data": "token", **extra}


def finished(service, http, **extra):
    number = http.post("/talks", json=body(http, **extra)).json()["id"]
    service.advance(60)
    return http.get(f"/talks/{number}").json()


@pytest.mark.parametrize("outcome", ["done", "error", "rejected"])
def test_every_message_validates_against_the_schemas(service, http, outcome):
    service.behaviour.outcome = outcome
    upload(http, detect_faces="true")
    http.post("/images/face-detection", json={"source_url": upload(http).json()["url"]})
    talk = http.post("/talks", json=body(http, config={"stitch": True, "result_format": "mp4"}))
    for _ in range(3):
        http.get(f"/talks/{talk.json()['id']}")
        service.advance(6)
    http.get("/talks")
    http.get("/credits")
    for hook in service.webhook_bodies(talk.json()["id"]):
        validate(json.loads(hook), "WebhookTalk")
    http.delete(f"/talks/{talk.json()['id']}")
    http.get(f"/talks/{talk.json()['id']}")
    http.post("/talks", json={})
    seen = set()
    for exchange in service.exchanges:
        if exchange.status >= 400:
            validate(exchange.answered, "Error")
        else:
            validate(exchange.answered, ANSWERS[exchange.request])
            seen.add(exchange.request)
        if exchange.request == "POST /talks" and exchange.status == 201:
            validate(exchange.sent, "CreateTalkRequest")
    assert seen == set(ANSWERS)


async def test_the_requests_of_the_generator_validate_too(anyio_backend, bench):
    from talkgen import Text
    from talkgen.generators.did import Expression

    generator = bench.generator(
        fluent=True, pad_audio=1, driver_expressions=[Expression("happy")], webhook="https://a.b/c"
    )
    await bench.run(generator, task_id="one")
    await bench.run(generator, task_id="two", speech=Text("Hello", voice="en-US-JennyNeural"))
    requests = [each.sent for each in bench.service.exchanges if each.request == "POST /talks"]
    for request in requests:
        validate(request, "CreateTalkRequest")
    assert len(requests) == 2


def test_it_shares_no_module_with_the_client():
    folder = Path(talkgen.testing.fake_did.__file__).parent
    imported = set()
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module)
    own = {name for name in imported if name.startswith("talkgen")}
    assert own - {"talkgen._types", "talkgen.requirements"} == {
        name for name in own if name.startswith("talkgen.testing.fake_did")
    }


def test_it_needs_no_loop_and_leaves_no_thread():
    code = (
        "import threading; from talkgen.testing import FakeDId\n"
        "import urllib.request, urllib.error\n"
        "with FakeDId() as service:\n"
        "    try: urllib.request.urlopen(service.base_url + '/credits')\n"
        "    except urllib.error.HTTPError as error: print(error.code, error.close())\n"
        "print(threading.active_count())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["403", "None", "1"]


def test_keys(service):
    def status(header):
        headers = {"Authorization": header} if header else {}
        answer = httpx.get(service.base_url + "/credits", headers=headers)
        return answer.status_code, answer.json()

    assert status(f"Bearer {service.api_key}")[0] == 200
    code, said = status("Basic wrong:key")
    assert (code, said["kind"]) == (401, "AuthorizationError")
    code, said = status("nonsense")
    assert (code, "kind" in said, "nonsense" in said["message"]) == (403, False, True)


def test_uploads_are_checked(http, service):
    assert upload(http, name="so long" * 9).status_code == 400
    assert upload(http, kind="image/gif").json()["details"]["received"] == "image/gif"
    small = face().cropped((0, 0, 128, 128)).encode("png")
    assert upload(http, small, "a.png", "image/png").json()["kind"] == "InvalidImageResolutionError"
    assert "faces" not in upload(http).json()
    assert len(upload(http, detect_faces="true").json()["faces"]) == 1
    sound = http.post("/audios", files={"audio": ("a.wav", b"RIFF", "audio/wav")})
    assert sound.json()["kind"] == "InvalidAudioDurationError"
    service.behaviour.moderation = "CelebrityRecognizedError"
    assert upload(http).status_code == 451


def test_an_upload_that_has_expired_is_gone(http, service):
    image = upload(http).json()["id"]
    service.advance(25 * 3600)
    assert http.delete(f"/images/{image}").status_code == 404


@pytest.mark.parametrize(
    "changes",
    [
        {"script": None},
        {"script": "text"},
        {"script": {"type": "text", "input": "Hi"}},
        {"script": {"type": "text", "input": "Hello", "provider": {"type": "microsoft"}}},
        {"script": {"type": "audio"}},
        {"script": {"type": "audio", "audio_url": "data:audio/wav;base64,AAAA"}},
        {"source_url": "data:image/png;base64,AAAA"},
        {"source_url": 7},
        {"config": None},
        {"config": {"result_format": "gif"}},
        {"config": {"pad_audio": 61}},
        {"config": {"pad_audio": "1"}},
        {"user_data": "two\nlines"},
        {"user_data": " "},
    ],
    ids=str,
)
def test_what_is_not_as_documented_is_refused_and_costs_nothing(http, service, changes):
    answer = http.post("/talks", json=body(http, **changes))
    assert answer.status_code == 400
    validate(answer.json(), "Error")
    assert service.ledger.talks == ()


def test_what_is_no_json_is_refused(http):
    json_type = {"Content-Type": "application/json"}
    for content in (b"{", b"[1]", b"\xff"):
        assert http.post("/talks", content=content, headers=json_type).status_code == 400
    assert http.get("/talks", params={"limit": "many"}).status_code == 400
    assert http.get("/talks", params={"token": "-1"}).status_code == 400


def test_pixels_are_counted_by_the_talk_alone(http, service):
    service.behaviour.max_pixels = 100
    request = body(http)
    assert http.post("/talks", json=request).json()["kind"] == "InvalidFileSizeError"


def test_talks_are_checked(http, service):
    request = body(http)
    text = http.post("/talks", content=json.dumps(request))
    assert text.json()["details"] == {"body.script": {"message": "'script' is required"}}
    assert http.post("/talks", json={**request, "persist": True}).status_code == 400
    service.behaviour.strict = False
    assert http.post("/talks", json={**request, "persist": True}).status_code == 201
    service.advance(25 * 3600)
    assert "cannot validate" in http.post("/talks", json=request).json()["description"]


def test_life_of_a_talk(http, service):
    number = http.post("/talks", json=body(http)).json()["id"]
    first = http.get(f"/talks/{number}").json()
    assert first["config"]["result_format"] == ".mp4"
    assert first["pending_url"].startswith("s3://")
    assert "result_url" not in first
    assert http.delete(f"/talks/{number}").status_code == 409
    service.advance(60)
    done = http.get(f"/talks/{number}").json()
    assert done["created_at"].endswith("Z")
    assert not done["started_at"].endswith("Z")
    assert "pending_url" not in done
    assert http.delete(f"/talks/{number}").status_code == 200
    assert http.get(f"/talks/{number}").status_code == 404


def test_links(http, service):
    talk = finished(service, http)
    link = talk["result_url"]
    assert httpx.get(link).headers["content-type"] == "video/mp4"
    assert httpx.get(link, headers={"Authorization": "Basic a:b"}).status_code == 400
    assert b"SignatureDoesNotMatch" in httpx.get(link.replace("Expires=", "Expires=1")).content
    service.advance(25 * 3600)
    assert b"AccessDenied" in httpx.get(link).content
    renewed = http.get(f"/talks/{talk['id']}").json()["result_url"]
    assert renewed != link
    assert httpx.get(renewed).status_code == 200


def test_credits_are_taken_and_given_back(http, service):
    finished(service, http, config={"pad_audio": 20})
    assert http.get("/credits").json()["remaining"] == 998
    service.behaviour.outcome = "error"
    finished(service, http)
    assert http.get("/credits").json()["remaining"] == 998
    assert (service.ledger.charged, service.ledger.refunded) == (3, 1)


def test_an_empty_account():
    with FakeDId(credits=0, api_key="a:b") as poor:
        auth = {"Authorization": "Basic a:b"}
        with httpx.Client(base_url=poor.base_url, headers=auth) as http:
            assert http.post("/talks", json=body(http)).status_code == 402
        assert poor.ledger.talks == ()


@pytest.mark.parametrize(
    ("order", "statuses"),
    [
        ("usual", ["created", "started", "done"]),
        ("reversed", ["done", "started", "created"]),
        ("twice", ["created", "created", "started", "started", "done", "done"]),
        ("none", []),
    ],
)
def test_webhooks(http, service, order, statuses):
    service.behaviour.webhooks = order
    number = http.post("/talks", json=body(http)).json()["id"]
    bodies = map(json.loads, service.webhook_bodies(number))
    assert [each["status"] for each in bodies] == statuses


def test_faults_come_in_order_and_by_kind(http, service):
    service.fail("GET /credits", Fault(status=503, headers={"Retry-After": "3"}), after=1)
    service.fail("GET /credits", Fault(drop=True))
    service.fail("GET /credits", Fault(truncate=3))
    assert http.get("/credits").status_code == 200
    assert http.get("/tts/voices").status_code == 200
    answer = http.get("/credits")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            http.get("/credits")
    service.fail("GET /credits", Fault(status=500))
    service.heal()
    assert http.get("/credits").status_code == 200
    assert service.ledger.requests["GET /credits"] == 5


@pytest.mark.parametrize("work", [False, True])
def test_a_drop_is_before_or_after_the_work(http, service, work):
    request = body(http)
    service.fail("POST /talks", Fault(drop=True, work=work))
    with pytest.raises(httpx.RemoteProtocolError):
        http.post("/talks", json=request)
    assert len(service.ledger.talks) == work
