"""Visitors of the web example, for Locust.

locust -f locustfile.py --headless --users 10 --spawn-rate 2 --host http://localhost:8000
"""

from pathlib import Path

from locust import HttpUser, between, task

DEMO = Path(__file__).parents[2] / "assets" / "demo"
PHOTO = (DEMO / "portrait.png").read_bytes()
SPEECH = (DEMO / "speech.wav").read_bytes()


class Visitor(HttpUser):
    """Looks at the page, and now and then makes a video and fetches it."""

    wait_time = between(0.5, 2)

    @task(3)
    def look(self) -> None:
        """Open the page."""
        for part in ("/", "/page.css", "/page.js"):
            self.client.get(part)

    @task
    def make(self) -> None:
        """Make a video; a server that is full, and says so, does what it should."""
        files = {"image": ("photo.png", PHOTO), "audio": ("speech.wav", SPEECH)}
        with self.client.post("/api/pipeline/generate", files=files, catch_response=True) as answer:
            if answer.status_code == 503 and "Retry-After" in answer.headers:  # noqa: PLR2004
                answer.success()
                return
        if answer.ok:
            self.client.get(answer.json()["video_url"], name="/api/pipeline/video/[id]")
