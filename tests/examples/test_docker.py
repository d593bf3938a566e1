"""What can be known of the image without building it."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from studio.config import Config
from talkgen import Settings

ROOT = Path(__file__).parent.parent.parent
WEB = ROOT / "docs" / "examples" / "web"


@pytest.fixture(scope="module")
def steps():
    """The Dockerfile's instructions and their arguments."""
    text = (WEB / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [line.split(maxsplit=1) for line in lines]


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((WEB / "compose.yaml").read_text())


def copied(steps):
    return [source for name, what in steps if name == "COPY" for source in what.split()[:-1]]


def test_what_is_copied_is_there_and_not_ignored(steps):
    ignored = (WEB / "Dockerfile.dockerignore").read_text().split()
    for source in copied(steps):
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored


def test_the_image_is_pinned_not_root_and_watched(steps):
    named = dict(steps)
    assert named["FROM"].count("-") == 2, "the release of Debian, too"
    assert named["USER"] != "root"
    assert [name for name, _ in steps].index("USER") < [name for name, _ in steps].index("CMD")
    assert json.loads(named["CMD"]) == ["python", "-m", "studio"]
    assert named["VOLUME"] in named["ENV"]
    assert named["HEALTHCHECK"].count(f":{named['EXPOSE']}'") == 1


def test_the_image_is_healthy_while_the_application_answers(steps, site):
    check = json.loads(dict(steps)["HEALTHCHECK"].partition("CMD ")[2])
    told = [part.replace("8000", str(site.http.base_url.port)) for part in check[1:]]
    assert subprocess.run([sys.executable, *told], check=False).returncode == 0
    told = [part.replace("8000", "9") for part in check[1:]]
    gone = subprocess.run([sys.executable, *told], check=False, capture_output=True)
    assert gone.returncode == 1


def test_its_variables_are_the_applications(steps, monkeypatch):
    (told,) = (what for name, what in steps if name == "ENV")
    for variable in shlex.split(told):
        monkeypatch.setenv(*variable.split("="))
    assert Config.from_env().host == "0.0.0.0"
    assert Settings.from_env(os.environ).storage_root == Path("/data")


def test_compose_mounts_what_is_there_and_opens_nothing_to_others(compose):
    services = compose["services"]
    assert (WEB / services["web"]["build"]["context"]).resolve() == ROOT
    assert (ROOT / services["web"]["build"]["dockerfile"]).is_file()
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service.get("image", "x:1").rpartition(":")[2][-1].isdigit()
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (WEB / source).is_file()
    grace = int(services["web"]["stop_grace_period"].removesuffix("s"))
    assert grace > Config.from_env().stop_seconds


def test_prometheus_asks_the_service_by_its_name(compose, steps):
    asked = yaml.safe_load((WEB / "monitoring" / "prometheus.yml").read_text())
    (job,) = asked["scrape_configs"]
    host, port = job["static_configs"][0]["targets"][0].split(":")
    assert host in compose["services"]
    assert port == dict(steps)["EXPOSE"]
