"""The web example under load: 100 requests, 10 at a time, over loopback, to a stand-in for D-ID.

    python benchmarks/load.py [REQUESTS]

The server has a process of its own. Each request has its own photo, so that nothing comes from a
cache; every twentieth request of each kind to D-ID fails in passing: refused, dropped, cut off. The
stand-in is 10 times as fast as the service; a talk, which takes 12 s there, is the bound of a
single request. Beside it the original's targets: over 95 % succeed, under 60 s.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import anyio
import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from talkgen import Image, Speech
from talkgen.testing import FakeDId
from talkgen.testing.fake_did import Fault

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "docs" / "assets" / "demo"
REQUESTS, AT_ONCE = 100, 10
SPEED = 10.0
EVERY = 20  # one in so many fails: 5 %

SERVER = f"""
import sys, uvicorn
from studio import metrics
from studio.app import create_app
from studio.config import Config
from talkgen import Settings
from talkgen.generators.did import Clock, DIdGenerator

metrics.collect()
generator = DIdGenerator(sys.argv[2], base_url=sys.argv[1], clock=Clock({SPEED}))
settings = Settings.from_env({{"STORAGE_ROOT": sys.argv[3], "STORAGE_MIN_FREE_SPACE_GB": "0.1",
                              "TALKGEN_DETECTOR": "embedded", "TALKGEN_REMOVER": "embedded"}})
uvicorn.run(create_app(settings, Config(), generator=generator), port=0, access_log=False)
"""

# What passes: the client tries each of these again. What a talk costs is asked for once only.
FAULTS = {
    "POST /images": (Fault(status=503), Fault(drop=True)),
    "POST /audios": (Fault(status=502), Fault(drop=True)),
    "POST /talks": (Fault(status=429, headers={"Retry-After": "1"}),),
    "GET /talks/{id}": (Fault(status=500), Fault(drop=True), Fault(status=429)),
    "GET result": (Fault(truncate=1000), Fault(status=503)),
}


def script(service: FakeDId, requests: int) -> None:
    """Let one in twenty of each kind fail."""
    for kind, faults in FAULTS.items():
        for fault, _ in zip(cycle(faults), range(requests), strict=False):
            service.fail(kind, fault, after=EVERY - 1)


@contextmanager
def server(service: FakeDId, folder: str) -> Iterator[str]:
    """The example in a process of its own; its address."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "docs" / "examples" / "web")])
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, service.base_url, service.api_key, folder],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        address = next(filter(None, (re.search(r"http://\S+", line) for line in process.stderr)))
        yield address[0]
    finally:
        process.terminate()
        process.communicate()


def photos(count: int) -> list[bytes]:
    """The demo's portrait, each time a little brighter."""
    pixels = Image.open(DEMO / "portrait.png").pixels[..., :3].astype(int)
    brighter = (np.clip(pixels + number % 60, 0, 255).astype(np.uint8) for number in range(count))
    return [Image(one).encode("jpeg", quality=70 + n // 60) for n, one in enumerate(brighter)]


async def load(address: str, requests: int) -> tuple[list[float], float]:
    """Seconds of each request that succeeded, and of all together."""
    speech = Speech.open(DEMO / "speech.wav").original().data
    room, took = anyio.Semaphore(AT_ONCE), []

    async def one(http: httpx.AsyncClient, photo: bytes) -> None:
        async with room:
            files = {"image": ("photo.jpg", photo), "audio": ("speech.wav", speech)}
            began = time.perf_counter()
            answer = await http.post("/api/pipeline/generate", files=files)
            if answer.status_code != httpx.codes.OK or not answer.json()["success"]:
                print(answer.status_code, answer.text)
                return
            took.append(time.perf_counter() - began)
            video = await http.get(answer.json()["video_url"])
            assert video.headers["content-type"] == "video/mp4"

    began = time.perf_counter()
    async with (
        httpx.AsyncClient(base_url=address, timeout=300) as http,
        anyio.create_task_group() as tasks,
    ):
        for photo in photos(requests):
            tasks.start_soon(one, http, photo)
    return took, time.perf_counter() - began


def device_use(address: str) -> dict[str, float]:
    """Per cent of the time since the last call with a model at work, by device."""
    families = text_string_to_metric_families(httpx.get(f"{address}/metrics").text)
    return {
        sample.labels["device"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "gpu_utilization_percent"
    }


def main(requests: int) -> None:
    """Measure, and print the table."""
    with tempfile.TemporaryDirectory() as folder, FakeDId(speed=SPEED, credits=1e6) as service:
        script(service, requests)
        with server(service, folder) as address:
            device_use(address)
            took, together = anyio.run(load, address, requests)
            use = device_use(address)
        ledger = service.ledger
    p50, p95 = np.percentile(took, [50, 95])
    kinds = {kind: count for kind, count in ledger.requests.items() if kind in FAULTS}
    failed = sum(count // EVERY for count in kinds.values())
    print(
        f"{requests} requests, {AT_ONCE} at a time, to a stand-in {SPEED:g} times as fast as D-ID"
    )
    print(f"  succeeded        {len(took):8} of {requests}   (original's target: over 95 %)")
    print(f"  p50, p95         {p50:8.2f} s, {p95:.2f} s   (the talk alone: {12 / SPEED:.2f} s)")
    print(f"  together         {together:8.2f} s, {len(took) / together:.2f} videos a second")
    print(f"  faults           {failed:8} of {sum(kinds.values())} requests to D-ID")
    print(f"  talks paid for   {len(ledger.talks):8}")
    for device, percent in use.items():
        print(f"  {device:16} {percent:8.1f} % of the time a model was at work")
    assert len(took) == requests
    assert len(ledger.talks) == requests


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS)
