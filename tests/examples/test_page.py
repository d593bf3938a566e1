"""The page of the web example in a real browser, through Chromium's DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

import io
import json
import re
import shutil
import time
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count

import attrs
import httpx
import numpy as np
import PIL.Image
import pytest
from websockets.sync.client import connect

from talkgen.errors import InsufficientCredits
from talkgen.generators.local import LocalGenerator
from talkgen.testing import FakeDId

from .processes import SERVER, process, started, until

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium")
LISTENING = re.compile(r"DevTools listening on ws://([^/]+)")
SECONDS = 60


@attrs.frozen
class Page:
    """A page of the browser."""

    socket: object
    _numbers: object = attrs.field(factory=lambda: count(1))

    def call(self, method, **parameters):
        number = next(self._numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self.socket.recv(timeout=SECONDS))
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]

    def evaluate(self, script):
        told = self.call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, script):
        """Wait until an expression is true; in a page that is loading, parts are missing."""
        end = time.monotonic() + SECONDS
        attempt = f"(() => {{ try {{ return {script}; }} catch {{ return false; }} }})()"
        while not (value := self.evaluate(attempt)):
            assert time.monotonic() < end, (script, self.evaluate("document.body.innerText"))
            time.sleep(0.05)
        return value

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def click(self, selector):
        self.evaluate(f"document.querySelector('{selector}').click()")

    def trouble(self):
        """What the page says has gone wrong, once it does."""
        self.until("!document.querySelector('#trouble').hidden")
        return self.evaluate("document.querySelector('#trouble').innerText")

    def choose(self, selector, path):
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def drop(self, selector, path):
        """Drop a file in the middle of an element."""
        x, y = self.evaluate(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
            f"(document.querySelector('{selector}').getBoundingClientRect())"
        )
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def look(self, width=1100, height=900, *, dark=False):
        """A screenshot, RGB."""
        phone = width < 500
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.evaluate("new Promise((go) => requestAnimationFrame(() => setTimeout(go, 300)))")
        whole = self.call("Page.captureScreenshot", captureBeyondViewport=phone)
        return PIL.Image.open(io.BytesIO(b64decode(whole["data"]))).convert("RGB")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """The address of a browser's DevTools."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    options = [
        "--headless=new",
        "--no-sandbox",  # where it is root, as in a container
        "--disable-gpu",
        "--remote-debugging-port=0",
        "--autoplay-policy=no-user-gesture-required",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ]
    with started([CHROMIUM, *options], LISTENING) as (address, _):
        yield address


@pytest.fixture
def page(browser):
    target = httpx.put(f"http://{browser}/json/new?about:blank").json()
    with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
        opened = Page(socket)
        for part in ("Page", "DOM", "Runtime"):
            opened.call(f"{part}.enable")
        yield opened
    httpx.get(f"http://{browser}/json/close/{target['id']}")


@pytest.fixture
def site(serve):
    with serve(generator=LocalGenerator(size=256)) as site:
        yield site


def filled(page, url, photo, recording):
    """The page with both files chosen."""
    page.open(url)
    page.choose("input[name=image]", photo)
    page.choose("input[name=audio]", recording)
    page.until("!document.querySelector('#make').disabled")


SHOWN = """(() => {
  const video = document.querySelector("#video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  return Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data);
})()"""


def picture_of(page):
    """The frame that the video element shows, RGB."""
    side = page.evaluate("document.querySelector('#video').videoWidth")
    return np.array(page.evaluate(SHOWN), np.uint8).reshape(side, side, 4)[..., :3]


def test_a_photo_and_a_recording_become_a_video_that_plays(page, site, portrait_path, speech_path):
    filled(page, str(site.http.base_url), portrait_path, speech_path)
    page.evaluate(
        "window.previews = 0; document.querySelector('#preview').onload = () => previews++"
    )
    page.click("#make")
    page.until("document.querySelector('#steps .now') !== null")
    page.until("previews > 0")

    page.until("document.querySelector('#video').readyState === 4")
    page.until("document.querySelectorAll('#steps .done').length === 5")
    video = "document.querySelector('#video')"
    assert page.evaluate(f"{video}.duration") == pytest.approx(10.0, abs=0.5)
    page.evaluate(f"{video}.muted = true; {video}.play()")
    page.until(f"{video}.currentTime > 0.5")
    early = picture_of(page)
    assert early.std() > 20, "it shows nothing"
    page.until(f"{video}.currentTime > 1.5")
    page.evaluate(f"{video}.pause()")
    late = picture_of(page)
    assert np.abs(early.astype(int) - late).mean() > 0.5, "nothing moves"

    seen = page.look()
    box = page.evaluate(
        f"(({{x, y, width, height}}) => [x, y, x + width, y + height])"
        f"({video}.getBoundingClientRect())"
    )
    cut = np.array(seen.crop([round(edge) for edge in box]).resize((256, 256)), int)
    assert np.abs(cut[:200] - late[:200]).mean() < 12, "the screenshot has another picture"

    address = page.evaluate("location.href")
    page.open("about:blank")
    page.open(address)  # whoever comes back finds the task again
    page.until(f"{video}.readyState === 4")


def test_the_microphone_records_and_nothing_is_sent_meanwhile(
    page, site, portrait_path, speech_path
):
    filled(page, str(site.http.base_url), portrait_path, speech_path)
    page.click("#record")
    page.until("document.querySelector('#record').innerText.includes('1 s')")
    assert page.evaluate("document.querySelector('#make').disabled")
    page.click("#record")
    page.until("!document.querySelector('#make').disabled")
    assert page.evaluate("document.querySelector('[name=audio]').files[0].name") == "Your recording"
    page.click("#make")
    page.until("document.querySelector('#video').readyState === 4")


def test_what_goes_wrong_is_said_with_advice(page, site, tmp_path, speech_path):
    grey = tmp_path / "grey.png"
    PIL.Image.new("RGB", (200, 200), "gray").save(grey)
    filled(page, str(site.http.base_url), grey, speech_path)
    page.click("#make")
    told = page.trouble()
    assert "Nobody was found" in told
    assert "well-lit" in told
    page.open(f"{site.http.base_url}#no-such-task")
    assert "not known here" in page.trouble()


@attrs.frozen
class OutOfCredits:
    """A generator that nobody has paid for."""

    accepts_text = False
    key = "unpaid"

    async def generate(self, portrait, speech, context):
        raise InsufficientCredits("The credits are used up.")


def test_a_second_try_shows_nothing_of_the_first(page, serve, portrait_path, speech_path):
    with serve(generator=OutOfCredits()) as site:
        filled(page, str(site.http.base_url), portrait_path, speech_path)
        page.click("#make")
        assert "used up" in page.trouble()
        page.until("document.querySelector('#preview').src.startsWith('data:image')")
        again = "document.querySelector('#make').click(), document.querySelector('#preview').hidden"
        assert page.evaluate(again)


def test_a_microphone_that_is_denied_is_no_end(page, site):
    page.open(str(site.http.base_url))
    page.evaluate("""
      window.asked = [];
      navigator.mediaDevices.getUserMedia = () =>
        new Promise((given, denied) => { asked.push({ given, denied }); });
    """)
    click = "document.querySelector('#record').click()"
    page.evaluate(f"{click}; {click}")
    assert page.evaluate("asked.length") == 1, "who is asked is not asked again"
    page.evaluate("asked[0].denied(new DOMException('Permission denied', 'NotAllowedError'))")
    told = page.trouble()
    assert "The microphone cannot be used." in told
    assert "Permission denied" in told
    page.evaluate(click)
    page.until("asked.length === 2")


def test_a_folded_field_that_is_wrong_is_shown(page, site, portrait_path, speech_path):
    filled(page, str(site.http.base_url), portrait_path, speech_path)
    page.evaluate("document.querySelector('[name=conf_threshold]').value = '7'")
    page.click("#make")
    assert page.evaluate("document.querySelector('details').open")
    page.evaluate("document.querySelector('[name=conf_threshold]').value = '0.33'")
    assert page.evaluate("document.querySelector('form').checkValidity()")


def test_names_of_files_are_text(page, site, portrait_path, tmp_path):
    named = tmp_path / "<img src=x onerror=document.title=1>.png"
    named.write_bytes(portrait_path.read_bytes())
    page.open(str(site.http.base_url))
    page.choose("input[name=image]", named)
    page.until("document.querySelector('.filled .name').textContent !== ''")
    assert page.evaluate("document.querySelector('.filled .name').textContent") == named.name
    assert page.evaluate("document.querySelectorAll('.name *').length") == 0


def test_files_may_be_dropped_on_their_cards(page, site, portrait_path, speech_path):
    page.open(str(site.http.base_url))
    page.drop("[data-input=image]", portrait_path)
    page.drop("[data-input=audio]", speech_path)
    page.until("!document.querySelector('#make').disabled")
    names = "[...document.querySelectorAll('.filled .name')].map((name) => name.textContent)"
    assert page.evaluate(names) == [portrait_path.name, speech_path.name]


def test_a_file_that_misses_the_cards_does_not_replace_the_page(page, site):
    page.open(str(site.http.base_url))
    drop = "document.body.dispatchEvent(new DragEvent('{}', {{bubbles: true, cancelable: true}}))"
    for kind in ("dragover", "drop"):
        assert page.evaluate(drop.format(kind)) is False, "the browser would open it"


def test_another_tasks_address_opens_that_task(page, site):
    page.open(str(site.http.base_url))
    task = site.post().json()["task_id"]
    page.evaluate(f"location.hash = '{task}'")
    page.until("document.querySelector('#video').readyState === 4")


class Proxy(BaseHTTPRequestHandler):
    """Stands before a server that is not there."""

    def do_GET(self):
        self.send_error(502)

    def log_message(self, *_):
        pass


def test_a_page_outlives_the_server(page, portrait_path, speech_path, tmp_path):
    with FakeDId(speed=100, finish_after=1e6) as service:
        arguments = ["-c", SERVER, service.base_url, service.api_key]
        with process(arguments, tmp_path) as (url, server):
            filled(page, url, portrait_path, speech_path)
            page.click("#make")
            until(lambda: len(service.ledger.talks) == 1)
            server.kill()
            page.until("document.querySelector('#message').innerText.includes('is lost')")
        port = int(url.rpartition(":")[2])
        with HTTPServer(("127.0.0.1", port), Proxy) as proxy:
            for _ in range(2):  # the page's stream, and its question after the task
                proxy.handle_request()
        service.advance(1e6)
        with process(arguments, tmp_path, TALKGEN_WEB_PORT=str(port)):
            page.until("document.querySelector('#video').readyState === 4")
            assert page.evaluate("document.querySelector('#trouble').hidden")
        assert len(service.ledger.talks) == 1


# The client of the original service, as its documentation has it.
SNIPPET = """
const eventSource = new EventSource('/api/pipeline/progress/{task_id}/sse');

eventSource.onmessage = (event) => {
  const progress = JSON.parse(event.data);
  updateProgressBar(progress.progress_percent);
};

eventSource.addEventListener('complete', (event) => {
  const data = JSON.parse(event.data);
  displayVideo(data.video_url);
  eventSource.close();
});
"""


def test_the_original_services_client_works_unchanged(page, site):
    task = site.begin()
    page.open(str(site.http.base_url))
    page.evaluate("""
      window.percents = [];
      window.updateProgressBar = (percent) => percents.push(percent);
      window.displayVideo = (url) => { window.shown = url; };
    """)
    page.evaluate(SNIPPET.replace("{task_id}", task))
    url = page.until("window.shown")
    assert site.http.get(url).headers["content-type"] == "video/mp4"
    percents = page.evaluate("percents")
    assert percents[0] == 0
    assert percents == sorted(percents)
    assert percents[-1] == 90
