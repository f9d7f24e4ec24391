"""What the chart promises: no lost request, no lost ledger, no secret in the clear, no silent typo."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gateway.models.model import Card
from gateway.settings import Settings, load_settings
from helm.settings_schema import is_secret
from tests.helm.conftest import (
    CHART,
    EXAMPLES,
    Chart,
    Manifest,
    Values,
    environment,
    find,
    gateway,
    pod_specs,
    validate,
)
from tests.helm.test_manifests import CARD, MATRIX, POSTGRES

SECRETS = {"database-url", "redis-url", "hub-token", "webhook-secret", "bootstrap-key", "admin-key"}


def test_every_farebox_variable_is_a_setting(chart: Chart) -> None:
    """The gateway refuses to start with a variable that it doesn't know."""
    known = {f"FAREBOX_{name.upper()}" for name in Settings.model_fields}
    for values in MATRIX.values():
        for name, spec in pod_specs(chart.render(values)):
            for container in spec["containers"]:
                used = {variable for variable in environment(container) if variable.startswith("FAREBOX_")}
                assert used <= known, name


def test_every_secret_setting_comes_from_a_secret(chart: Chart) -> None:
    variables = environment(gateway(chart.render(MATRIX["existing secrets"])))
    for setting in Settings.model_fields:
        if is_secret(setting):
            reference = variables[f"FAREBOX_{setting.upper()}"]
            assert "secretKeyRef" in reference


def test_settings_reach_the_gateway_as_it_reads_them(chart: Chart) -> None:
    settings = {"body_bytes_max": 8388608, "lease_seconds": 20.5, "engine": {"max_num_seqs": 64}, "log_level": "debug"}
    variables = environment(gateway(chart.render({"settings": settings, "shutdown": {"drainSeconds": 45}})))
    plain = {name: value for name, value in variables.items() if isinstance(value, str)}
    loaded = load_settings({name: value for name, value in plain.items() if name.startswith("FAREBOX_")})
    assert loaded.body_bytes_max == 8388608
    assert loaded.lease_seconds == 20.5
    assert loaded.engine == {"max_num_seqs": 64}
    assert loaded.shutdown_seconds == 45
    assert (loaded.host, loaded.port) == ("0.0.0.0", 8000)


def test_the_host_is_a_setting_like_others(chart: Chart) -> None:
    variables = gateway(chart.render({"settings": {"host": "::", "lease_seconds": 20}}))["env"]
    assert [entry["value"] for entry in variables if entry["name"] == "FAREBOX_HOST"] == ["::"]


def test_no_variable_is_there_twice(chart: Chart) -> None:
    """Kubernetes takes the last of two and warns; an update by another tool may keep either."""
    values = MATRIX["pod extras"] | POSTGRES | {"settings": {"host": "::"}, "hub": {"token": "hf_x"}}
    more = [{"name": name, "value": "mine"} for name in ("HOME", "HF_HOME", "HF_TOKEN", "VLLM_LOGGING_LEVEL")]
    for group in ({}, {key: MATRIX["HPA of groups"][key] for key in ("models", "gpu", "multiNode")}):
        for name, spec in pod_specs(chart.render(values | group | {"extraEnv": more, "tests": {"enabled": False}})):
            for container in spec["containers"]:
                names = [entry["name"] for entry in container.get("env", [])]
                assert len(names) == len(set(names)), name
                if container["name"] != "side":
                    assert {environment(container)[entry["name"]] for entry in more} == {"mine"}, name


@pytest.mark.parametrize("name", ["FAREBOX_HOST", "FAREBOX_PORT", "FAREBOX_DATABASE_URL", "FAREBOX_LEASE_SECONDS"])
def test_a_variable_of_the_charts_own_is_not_set_beside_its_value(chart: Chart, name: str) -> None:
    settings = {"settings": {"lease_seconds": 20}}
    refusal = chart.refusal(POSTGRES | settings | {"extraEnv": [{"name": name, "value": "x"}]})
    assert f"extraEnv sets {name}, which the chart sets itself" in refusal


def test_a_service_named_farebox_sets_no_variables(chart: Chart) -> None:
    """Kubernetes would set FAREBOX_PORT=tcp://... for a Service named farebox."""
    for values in MATRIX.values():
        for name, spec in pod_specs(chart.render(values, release="farebox")):
            assert spec["enableServiceLinks"] is False, name


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_cards_of_the_examples_are_cards(chart: Chart, example: Path) -> None:
    manifests = chart.render(file=example)
    text = find(manifests, "ConfigMap", "pool-farebox-cards")["data"]["cards.toml"]
    cards = [Card.model_validate(table) for table in tomllib.loads(text)["model"]]
    assert environment(gateway(manifests))["FAREBOX_MODELS"] == ",".join(card.name for card in cards)


def test_cards_keep_their_values_through_toml(chart: Chart) -> None:
    card: dict[str, Any] = CARD | {
        "context_length": 131072,
        "description": 'Quotes " and \\ and <tags> & ümlauts\nand lines',
        "chat_template": "{% for m in messages %}{{ m['content'] }}\n{% endfor %}",
        "tags": ["json", "tools"],
        "engine": {
            "gpu_memory_utilization": 0.92,
            "enable_prefix_caching": False,
            "max_num_batched_tokens": 8192,
            "compilation_config": {"mode": 3, "cudagraph_capture_sizes": [1, 2]},
        },
    }
    manifests = chart.render({"models": [card, CARD | {"name": "second"}]})
    text = find(manifests, "ConfigMap")["data"]["cards.toml"]
    first, second = tomllib.loads(text)["model"]
    assert first == card
    assert type(first["context_length"]) is int
    assert second["name"] == "second"
    assert environment(gateway(manifests))["FAREBOX_MODELS"] == "m,second"


def test_no_secret_stands_outside_of_a_secret(chart: Chart) -> None:
    values = MATRIX["inline secrets"]
    words = ["u:p@db", "redis://redis", "hf_x", "w" * 24, "k" * 24, "a" * 24]
    manifests = chart.render(values)
    for manifest in manifests:
        if manifest["kind"] != "Secret":
            text = json.dumps(manifest)
            assert not [word for word in words if word in text], manifest["kind"]
    assert find(manifests, "Secret", "pool-farebox")["data"].keys() == SECRETS


def test_the_schema_is_migrated_before_the_new_version_starts(chart: Chart) -> None:
    job = find(chart.render(POSTGRES), "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == ["db", "upgrade"]
    assert environment(container)["FAREBOX_DATABASE_URL"]["secretKeyRef"] == {"name": "db", "key": "url"}


def test_the_migration_runs_where_and_as_the_pods_do(chart: Chart) -> None:
    """A proxy's sidecar rule, a quota by priority class, a CA bundle's variable: they hold for every pod alike."""
    placed = {"nodeSelector": {"pool": "x"}, "affinity": {"nodeAffinity": {}}, "priorityClassName": "high"}
    placed["tolerations"] = [{"key": "gpu", "operator": "Exists"}]
    named = {"podLabels": {"team": "x"}, "podAnnotations": {"sidecar.istio.io/inject": "false"}}
    environments = {
        "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/etc/ca/ca.pem"}],
        "envFrom": [{"configMapRef": {"name": "more"}}],
    }
    labels = {"commonLabels": {"cost": "y", "team": "everyone"}}
    template = find(chart.render(POSTGRES | placed | named | environments | labels), "Job")["spec"]["template"]
    assert {name: template["spec"][name] for name in placed} == placed
    assert template["metadata"]["labels"].items() >= {"team": "x", "cost": "y"}.items()
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "migration"
    assert template["metadata"]["annotations"] == named["podAnnotations"]
    [container] = template["spec"]["containers"]
    assert environment(container)["SSL_CERT_FILE"] == "/etc/ca/ca.pem"
    assert container["envFrom"] == environments["envFrom"]


def test_the_migration_has_a_secret_of_its_own_where_the_chart_makes_it(chart: Chart) -> None:
    """Before an install the release's own objects aren't there yet."""
    manifests = chart.render(MATRIX["inline secrets"])
    secret = find(manifests, "Secret", "pool-farebox-migrate")
    job = find(manifests, "Job")
    assert int(secret["metadata"]["annotations"]["helm.sh/hook-weight"]) < int(
        job["metadata"]["annotations"]["helm.sh/hook-weight"]
    )
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert environment(container)["FAREBOX_DATABASE_URL"]["secretKeyRef"]["name"] == "pool-farebox-migrate"
    assert "serviceAccountName" not in job["spec"]["template"]["spec"]


def test_sqlite_is_kept_on_a_volume_that_outlives_the_release(chart: Chart) -> None:
    manifests = chart.render()
    claim = find(manifests, "PersistentVolumeClaim", "pool-farebox-ledger")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert find(manifests, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert not [m for m in manifests if m["kind"] == "Job"]


def test_postgres_replicas_roll(chart: Chart) -> None:
    deployment = find(chart.render(POSTGRES | {"replicas": 3}), "Deployment")
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_an_autoscaler_owns_the_replicas(chart: Chart) -> None:
    assert "replicas" not in find(chart.render(MATRIX["HPA"]), "Deployment")["spec"]


def test_the_grace_covers_pre_stop_drain_and_settling(chart: Chart) -> None:
    manifests = chart.render({"shutdown": {"preStopSeconds": 10, "drainSeconds": 90.5}})
    spec = find(manifests, "Deployment")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 121
    container = gateway(manifests)
    assert environment(container)["FAREBOX_SHUTDOWN_SECONDS"] == "90.5"
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] == 10


def test_a_load_may_take_half_an_hour_and_liveness_waits_for_it(chart: Chart) -> None:
    container = gateway(chart.render())
    startup, liveness = container["startupProbe"], container["livenessProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] == 1800
    assert liveness["httpGet"]["path"] == "/health/live"
    assert "initialDelaySeconds" not in liveness


def test_pods_run_without_rights(chart: Chart) -> None:
    """The `restricted` level of the Pod Security Standards."""
    for values in ({}, MATRIX["inline secrets"], MATRIX["HPA of groups"]):
        for name, spec in pod_specs(chart.render(values)):
            assert spec["securityContext"]["runAsNonRoot"] is True, name
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
            assert spec["automountServiceAccountToken"] is False, name
            for container in spec["containers"]:
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }, name


def test_admin_and_metrics_are_not_exposed(chart: Chart) -> None:
    manifests = chart.render(MATRIX["edges"])
    rules = find(manifests, "Ingress")["spec"]["rules"]
    paths = [path["path"] for rule in rules for path in rule["http"]["paths"]]
    matches = find(manifests, "HTTPRoute")["spec"]["rules"][0]["matches"]
    paths += [match["path"]["value"] for match in matches]
    clients = {"/v1", "/v2", "/anthropic", "/models", "/tokenize", "/detokenize", "/score", "/rerank"}
    assert set(paths) == clients | {"/openapi.json", "/docs"}


def test_gpus_and_shared_memory_are_asked_for(chart: Chart) -> None:
    manifests = chart.render(file=CHART / "examples" / "70b-fp8.yaml")
    assert gateway(manifests)["resources"]["limits"] == {"memory": "128Gi", "nvidia.com/gpu": "2"}
    volumes = find(manifests, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "20Gi"}} in volumes


def test_a_group_of_nodes_is_one_engine(chart: Chart) -> None:
    manifests = chart.render(file=CHART / "examples" / "multinode.yaml")
    template = find(manifests, "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]
    assert template["size"] == 2
    options = json.loads(environment(gateway(manifests))["FAREBOX_ENGINE"])
    assert options["nnodes"] == 2
    assert options["node_rank"] == 0
    worker = template["workerTemplate"]["spec"]["containers"][0]
    flags = worker["args"]
    assert {"--headless", "--nnodes=2", "--node-rank=$(LWS_WORKER_INDEX)", "--tensor-parallel-size=8"} <= set(flags)
    # The leader's sleep, its drain and what it takes to settle.
    assert worker["lifecycle"]["preStop"]["sleep"]["seconds"] == 15 + 120 + 10
    # LeaderWorkerSet's own headless Service has the set's name.
    names = [manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "Service"]
    assert names == ["pool-farebox"]


def test_only_the_leader_takes_requests(chart: Chart) -> None:
    manifests = chart.render(file=CHART / "examples" / "multinode.yaml")
    selector = find(manifests, "Service")["spec"]["selector"]
    template = find(manifests, "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]
    assert selector.items() <= template["leaderTemplate"]["metadata"]["labels"].items()
    assert not selector.items() <= template["workerTemplate"]["metadata"]["labels"].items()


def test_migration_and_test_pods_take_no_requests(chart: Chart) -> None:
    manifests = chart.render(MATRIX["inline secrets"])
    selector = find(manifests, "Service")["spec"]["selector"]
    for labels in (
        find(manifests, "Job")["spec"]["template"]["metadata"]["labels"],
        find(manifests, "Pod")["metadata"]["labels"],
    ):
        assert not selector.items() <= labels.items()


def test_a_changed_card_restarts_the_pods(chart: Chart) -> None:
    def checksum(price: str) -> str:
        card = CARD | {"price": {"input": price, "output": "1"}}
        template = find(chart.render({"models": [card]}), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/cards"])

    assert checksum("0.1") != checksum("0.2")


EDGES: Values = {
    "ingress": {"enabled": True, "hosts": ["llm.example.com"]},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "edge"}]},
}


def edge_paths(manifests: list[Manifest]) -> tuple[dict[str, str], dict[str, str]]:
    """What the Ingress and the HTTPRoute lead to, with the kind of each path."""
    http = find(manifests, "Ingress")["spec"]["rules"][0]["http"]["paths"]
    matches = find(manifests, "HTTPRoute")["spec"]["rules"][0]["matches"]
    return (
        {path["path"]: path["pathType"] for path in http},
        {match["path"]["value"]: match["path"]["type"] for match in matches},
    )


def test_the_console_is_reached_from_outside_only_where_that_is_wanted(chart: Chart) -> None:
    for values, exposed in (({}, False), ({"exposed": True}, True), ({"exposed": True, "enabled": False}, False)):
        manifests = chart.render(EDGES | {"console": values})
        for manifest in manifests:
            if manifest["kind"] == "Ingress":
                validate(manifest)
        ingress, route = edge_paths(manifests)
        assert (ingress.get("/console"), ingress.get("/")) == (("Prefix", "Exact") if exposed else (None, None))
        assert (route.get("/console"), route.get("/")) == (("PathPrefix", "Exact") if exposed else (None, None))
        assert "/v1" in ingress


def test_the_consoles_values_are_the_gateways_settings(chart: Chart) -> None:
    for values, console, public in (
        ({}, True, True),
        ({"catalogPublic": False}, True, False),
        ({"enabled": False}, False, True),
    ):
        variables = environment(gateway(chart.render({"console": values})))
        plain = {name: value for name, value in variables.items() if isinstance(value, str)}
        loaded = load_settings({name: value for name, value in plain.items() if name.startswith("FAREBOX_")})
        assert (loaded.console, loaded.console_catalog_public) == (console, public)


def test_runbook_links_follow_the_value(chart: Chart) -> None:
    rule = find(chart.render(MATRIX["monitoring"]), "PrometheusRule")
    links = re.findall(r'"runbook_url": "([^"]+)"', json.dumps(rule))
    assert links
    assert all(link.startswith("https://example.com/runbooks#farebox") for link in links)


REFUSED: dict[str, tuple[Values, str]] = {
    "SQLite for two": ({"replicas": 2}, "can't share the SQLite ledger"),
    "SQLite for an autoscaler": ({"autoscaling": {"enabled": True}}, "can't share the SQLite ledger"),
    "short grace": ({"shutdown": {"terminationGracePeriodSeconds": 60}}, "20 s to settle are 155"),
    "two autoscalers": (
        POSTGRES | {"autoscaling": {"enabled": True}, "keda": {"enabled": True, "prometheusAddress": "http://p"}},
        "fight over the replicas",
    ),
    "two monitors": ({"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}, "count everything twice"),
    "KEDA without Prometheus": (POSTGRES | {"keda": {"enabled": True}}, "keda.prometheusAddress"),
    "two secrets": ({"hub": {"existingSecret": "a", "token": "b"}}, "leave out one of them"),
    "too few GPUs": (
        {"models": [CARD | {"engine": {"tensor_parallel_size": 2}}], "gpu": {"count": 1}},
        "needs 2 GPUs",
    ),
    "tensor parallel without shared memory": (
        {
            "models": [CARD | {"engine": {"tensor_parallel_size": 2}}],
            "gpu": {"count": 2},
            "sharedMemory": {"enabled": False},
        },
        "set sharedMemory.enabled",
    ),
    "nodes that don't fit": (
        POSTGRES | {"models": [CARD], "gpu": {"count": 8}, "multiNode": {"enabled": True}},
        "2 nodes with 8 each have 16",
    ),
    "nodes for two cards": (
        POSTGRES | {"models": [CARD, CARD | {"name": "n"}], "gpu": {"count": 1}, "multiNode": {"enabled": True}},
        "exactly one card",
    ),
    "Ingress for no host": ({"ingress": {"enabled": True}}, "ingress.hosts"),
    "HTTPRoute without Gateway": ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
    "typo at the top": ({"replica": 2}, "'replica' not allowed"),
    "typo below": ({"modelCache": {"persistant": True}}, "'persistant' not allowed"),
    "typo in a setting": ({"settings": {"leese_seconds": 3}}, "'leese_seconds' not allowed"),
    "typo in a card": ({"models": [CARD | {"contextLength": 3}]}, "'contextLength' not allowed"),
    "card without price": ({"models": [{k: v for k, v in CARD.items() if k != "price"}]}, "price"),
    "price as a number": ({"models": [CARD | {"price": {"input": 0.1, "output": "1"}}]}, "price"),
    "wrong type": ({"gpu": {"count": "2"}}, "gpu"),
    "short key": ({"keys": {"bootstrapKey": "short"}}, "bootstrapKey"),
    "a secret among the settings": ({"settings": {"admin_key": "x" * 24}}, "'admin_key' not allowed"),
    "SQLite as shared database": ({"database": {"url": "sqlite:///x"}}, "/database/url"),
}


@pytest.mark.parametrize(("values", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused(chart: Chart, values: Values, sentence: str) -> None:
    assert sentence in chart.refusal(values)
