"""Draws the timeline of five runs from their events: docs/assets/timeline.svg.

    python benchmarks/timeline.py

Two detections at a time, one cut-out at a time, any number of runs in the cloud; the times are
those of `throughput.py`, the cloud takes 6 s so that all can be seen. Real time, scaled.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import numpy as np

from talkgen import Draft, Image, LocalScheduler, MemoryStorage, Pipeline
from talkgen.events import Event
from talkgen.protocols import StageContext
from talkgen.testing import FakeDevice, FakeModel

RUNS, SCALE = 5, 0.25
DETECTION, CUTOUT, CLOUD = 0.15, 1.2, 6.0
TARGET = Path(__file__).parent.parent / "docs" / "assets" / "timeline.svg"

Item = Callable[[], None]


def tell(batch: list[Item], *_: Any) -> None:
    """Each item says that its turn has come: in the worker's thread."""
    for begun in batch:
        begun()


YOLO = FakeModel("yolo", max_instances=2, latency=DETECTION * SCALE, at_run=tell)
BIREFNET = FakeModel("birefnet", latency=CUTOUT * SCALE, at_run=tell)


@attrs.define
class Step:
    """A stage that runs a model, or spends its time in the cloud."""

    name: str
    model: FakeModel | None = None
    weight: float = 1.0
    requires: frozenset[str] = frozenset()
    provides: frozenset[str] = frozenset()
    resets: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """The name."""
        return self.name

    async def run(self, draft: Draft, context: StageContext) -> Draft:
        """Tell when the work begins, and do it."""

        def begun() -> None:
            context.report(0.0, "At work", stage=f"{self.name}_working")

        if self.model is not None:
            await context.scheduler.run(self.model, begun)
        else:
            begun()
            await anyio.sleep(CLOUD * SCALE)
            context.report(1.0, "Done", stage=f"{self.name}_complete")
        return draft


STAGES = (
    Step("detection", YOLO),
    Step("background_removal", BIREFNET),
    Step("video_generation"),
)


async def told() -> list[tuple[Event, ...]]:
    """The events of five runs that start together, with warm models."""
    scheduler = LocalScheduler([FakeDevice()])
    await scheduler.run(BIREFNET, bool)
    async with anyio.create_task_group() as tasks:
        for _ in range(YOLO.max_instances):
            tasks.start_soon(scheduler.run, YOLO, bool)
    picture = Image(np.zeros((8, 8, 3), np.uint8))
    async with Pipeline(STAGES, scheduler=scheduler, storage=MemoryStorage()) as pipeline:
        runs = [pipeline.start(picture, task_id=f"run-{n}") for n in range(1, RUNS + 1)]
        for run in runs:
            await run
    await scheduler.aclose()
    return [tuple(run.history.events) for run in runs]


# --- drawing -----------------------------------------------------------------------------------

COLOURS = {
    "waiting": ("#d9dde3", "waiting"),
    "detection": ("#2f6fb2", "detection, 0.15 s, two at a time"),
    "background_removal": ("#3a9a6b", "background removal, 1.2 s, one at a time"),
    "video_generation": ("#e3a23c", "cloud, 6 s, any number"),
}
LEFT, TOP, ROW, BAR, WIDTH = 64, 46, 34, 20, 860
FONT = 'font-family="system-ui, sans-serif" font-size="12" fill="#222"'


def bars(events: tuple[Event, ...], start: float) -> list[tuple[str, float, float]]:
    """What a run did: kind, from, to, in seconds of the unscaled time."""
    times = {event.stage: (event.timestamp.timestamp() - start) / SCALE for event in events}
    made = []
    before = times["upload_complete"]
    for stage in STAGES:
        begun, ended = times[f"{stage.name}_working"], times[f"{stage.name}_complete"]
        made += [("waiting", before, begun), (stage.name, begun, ended)]
        before = ended
    return made


def ready(events: tuple[Event, ...]) -> float:
    """When a run's inputs had been read, in seconds of the real time."""
    return next(e.timestamp.timestamp() for e in events if e.stage == "upload_complete")


def svg(histories: list[tuple[Event, ...]]) -> str:
    """The picture."""
    start = min(ready(events) for events in histories)
    rows = sorted((bars(events, start) for events in histories), key=lambda row: row[-1][2])
    end = max(row[-1][2] for row in rows)
    x = (WIDTH - LEFT - 20) / end
    height = TOP + ROW * len(rows) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{len(rows)} runs: who works and who waits, over {end:.1f} seconds</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for place, (colour, text) in zip((LEFT, 150, 380, 660), COLOURS.values(), strict=True):
        parts.append(f'<rect x="{place}" y="14" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{place + 18}" y="24" {FONT}>{text}</text>')
    for second in range(int(end) + 1):
        at = LEFT + second * x
        parts.append(f'<path d="M{at:.1f} {TOP - 6}V{height - 28}" stroke="#eceef1"/>')
        parts.append(
            f'<text x="{at:.1f}" y="{height - 12}" text-anchor="middle" {FONT}>{second} s</text>'
        )
    for number, row in enumerate(rows):
        y = TOP + ROW * number
        parts.append(f'<text x="10" y="{y + 15}" {FONT}>run {number + 1}</text>')
        for kind, begin, finish in row:
            left, width = LEFT + begin * x, max((finish - begin) * x, 0.5)
            parts.append(
                f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" '
                f'fill="{COLOURS[kind][0]}"/>'
            )
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Run, and draw."""
    TARGET.write_text(svg(anyio.run(told)))
    print(TARGET.relative_to(Path.cwd()))


if __name__ == "__main__":
    main()
