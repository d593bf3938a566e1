"""Many videos at once from a stand-in for D-ID: the generator beside two plain scripts.

    python benchmarks/did.py [RUNS]

All three prepare the picture, upload, ask, wait and download. The scripts look each second, check
nothing and write nothing down: one after the other (of a twentieth of the runs), and all at the
same time. The stand-in is 3 times as fast as the service; times are in its seconds, 12 of which a
talk takes. Each way has a process of its own, so that its peak of memory is its own.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import attrs
import httpx
import numpy as np

from talkgen import GenerateVideo, Image, LocalStorage, Pipeline, Speech
from talkgen.generators.did import Clock, DIdGenerator
from talkgen.testing import FakeDId

RUNS = 200
SPEED = 3.0
API_KEY = "user:password"
PORTRAIT = Image(np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8))
SPEECH = Speech(0.5 * np.sin(np.arange(16_000, dtype=np.float32))[None], 16_000)

Ended = dict[str, float]
"""When each talk's video was in hand, by the machine's monotonic clock."""


# --- the three ways, each in a process of its own ----------------------------------------------


async def generator(base_url: str, runs: int) -> Ended:
    """All runs at a time in one pipeline, on a folder."""
    made = DIdGenerator(API_KEY, base_url=base_url, clock=Clock(SPEED), check_face=False)
    ended: Ended = {}
    with tempfile.TemporaryDirectory() as folder:
        storage = LocalStorage(Path(folder), min_free_bytes=0)
        async with Pipeline([GenerateVideo(made)], storage=storage) as pipeline:
            pairs = ((PORTRAIT, SPEECH) for _ in range(runs))
            async with pipeline.map(pairs, limit=runs) as results:
                async for _, result in results:
                    if isinstance(result, Exception):
                        raise result
                    ended[result.metadata["d_id"]["talk_id"]] = time.monotonic()
    return ended


async def script(http: httpx.AsyncClient, path: Path) -> tuple[str, float]:
    """One video, as a first script has it."""
    picture, sound = PORTRAIT.encode("jpeg"), SPEECH.original().data
    image = await http.post("/images", files={"image": ("a.jpg", picture, "image/jpeg")})
    audio = await http.post("/audios", files={"audio": ("a.wav", sound, "audio/wav")})
    said = {"type": "audio", "audio_url": audio.json()["url"]}
    body = {"source_url": image.json()["url"], "script": said}
    number = (await http.post("/talks", json=body)).json()["id"]
    while (talk := (await http.get(f"/talks/{number}")).json())["status"] != "done":  # noqa: ASYNC110
        await anyio.sleep(1 / SPEED)
    video = await http.get(talk["result_url"], headers={"Authorization": ""})
    await anyio.Path(path).write_bytes(video.content)
    return number, time.monotonic()


def plain(base_url: str) -> httpx.AsyncClient:
    """A client as the documentation of D-ID suggests."""
    headers = {"Authorization": f"Basic {API_KEY}"}
    return httpx.AsyncClient(base_url=base_url, headers=headers, timeout=300)


async def one_after_the_other(base_url: str, runs: int) -> Ended:
    """The script in a loop."""
    with tempfile.TemporaryDirectory() as folder:
        async with plain(base_url) as http:
            return dict([await script(http, Path(folder) / f"{n}.mp4") for n in range(runs)])


async def all_at_once(base_url: str, runs: int) -> Ended:
    """The script in a task for each."""
    ended: Ended = {}

    async def one(path: Path) -> None:
        number, when = await script(http, path)
        ended[number] = when

    with tempfile.TemporaryDirectory() as folder:
        async with plain(base_url) as http, anyio.create_task_group() as tasks:
            for number in range(runs):
                tasks.start_soon(one, Path(folder) / f"{number}.mp4")
    return ended


WAYS: dict[str, Callable[[str, int], Awaitable[Ended]]] = {
    "generator": generator,
    "one after the other": one_after_the_other,
    "all at once": all_at_once,
}


def child(way: str, base_url: str, runs: int) -> None:
    """Do it, and print what it took."""
    began = time.monotonic()
    ended = anyio.run(partial(WAYS[way], base_url, runs))
    print(json.dumps({"seconds": time.monotonic() - began, "ended": ended, "peak": peak_mb()}))


def peak_mb() -> float:
    """The most memory that this process ever had; Linux only."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


# --- the comparison ----------------------------------------------------------------------------


@attrs.frozen
class Figures:
    """What one way took, in the service's seconds."""

    each: float
    after_done: float
    requests: float
    connections: int
    peak: float

    def line(self, name: str) -> str:
        """For people."""
        return (
            f"{name:20} {self.each:9.2f} {self.after_done:11.2f} {self.requests:9.1f} "
            f"{self.connections:12} {self.peak:8.0f}"
        )


def measure(way: str, runs: int) -> Figures:
    """One way against a stand-in of its own."""
    with FakeDId(speed=SPEED, api_key=API_KEY, credits=1e9) as service:
        command = [sys.executable, __file__, way, service.base_url, str(runs)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        told, ledger = json.loads(done.stdout), service.ledger
        late = [when - service.ended(number) for number, when in told["ended"].items()]
    return Figures(
        each=told["seconds"] * SPEED / runs,
        after_done=statistics.median(late) * SPEED,
        requests=sum(ledger.requests.values()) / runs,
        connections=ledger.connections,
        peak=told["peak"],
    )


def main(runs: int) -> None:
    """Measure and compare."""
    figures = {
        "one after the other": measure("one after the other", max(1, runs // 20)),
        "all at once": measure("all at once", runs),
        "generator": measure("generator", runs),
    }
    print(f"{runs} runs        seconds each  after done  requests  connections  peak MB")
    for name, each in figures.items():
        print(each.line(name))
    made = figures["generator"]
    for name in ("one after the other", "all at once"):
        print(f"generator / {name}: {made.each / figures[name].each:.3f} of the time")


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in WAYS:
        child(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else RUNS)
