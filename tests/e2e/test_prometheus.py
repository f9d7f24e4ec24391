"""Every panel and every alert, asked of a real Prometheus that scraped a real gateway under load."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest
import yaml

from tests.programs import missing
from tests.server import Server

CHART = Path(__file__).resolve().parent.parent.parent / "helm" / "farebox"
RULES = CHART / "rules" / "farebox.yaml"
LOAD_SECONDS = 12
# What Grafana would put in. The interval is short because the test is.
VARIABLES = {"$namespace": ".*", "$model": ".*", "$__rate_interval": "10s"}


def panels() -> list[tuple[str, str]]:
    """Title and query of every panel of both dashboards."""
    found = []
    for path in sorted((CHART / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            found += [(f"{path.stem}: {panel['title']}", target["expr"]) for target in panel.get("targets", [])]
    return found


def alert_parts() -> list[tuple[str, str]]:
    """The series that each alert looks at: its operands, without the comparisons that decide when it fires."""
    found = []
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                for operand in re.split(r"\s(?:and|or|unless)\s", " ".join(rule["expr"].split())):
                    series = re.sub(r"\s(?:>|<|==|>=|<=)\s[-0-9.* ]+$", "", operand.strip())
                    found.append((rule["alert"], series))
    return found


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[httpx.Client]:
    """A Prometheus that scrapes `target` every second, with the chart's rules."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "farebox", "static_configs": [{"targets": [target], "labels": {"namespace": "test"}}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as http:
            for _ in range(600):
                try:
                    if http.get("/-/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield http
    finally:
        process.terminate()
        process.wait(30)


def load(server: Server, stop: Event) -> None:
    """Answers, streams, refusals, and a client that goes away, until told to stop."""
    hello = {"model": "farebox/demo", "messages": [{"role": "user", "content": "Hello!"}]}
    with server.client() as http:
        while not stop.is_set():
            http.post("/v1/chat/completions", json=hello)
            http.post("/v1/chat/completions", json=hello | {"stream": True})
            http.post("/v1/chat/completions", json=hello | {"n": 9})
            with http.stream("POST", "/v1/chat/completions", json=hello | {"stream": True}) as answer:
                next(answer.iter_lines())


@pytest.fixture(scope="module")
def scraped(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    if shutil.which("prometheus") is None:
        missing("prometheus", "install Debian's package `prometheus`.")
    with prometheus(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{server.port}") as http:
        stop = Event()
        clients = [Thread(target=load, args=(server, stop)) for _ in range(2)]
        for client in clients:
            client.start()
        time.sleep(LOAD_SECONDS)
        yield http
        stop.set()
        for client in clients:
            client.join()


def ask(http: httpx.Client, expression: str) -> list[object]:
    answer = http.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
    return list(answer["data"]["result"])


@pytest.mark.parametrize(("title", "expression"), panels(), ids=lambda value: value[:50])
def test_every_panel_has_data(scraped: httpx.Client, title: str, expression: str) -> None:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    assert ask(scraped, expression), f"{title}: {expression}"


@pytest.mark.parametrize(("alert", "series"), alert_parts(), ids=lambda value: value[:50])
def test_every_alert_looks_at_something(scraped: httpx.Client, alert: str, series: str) -> None:
    assert ask(scraped, series), f"{alert}: {series}"


def test_no_alert_fires_on_a_healthy_gateway(scraped: httpx.Client) -> None:
    rules = scraped.get("/api/v1/rules").json()["data"]["groups"]
    assert all(rule["health"] == "ok" for group in rules for rule in group["rules"])
    assert [rule["name"] for group in rules for rule in group["rules"] if rule.get("state") == "firing"] == []
