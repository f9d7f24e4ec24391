"""Whatever is switched on, what comes out is valid Kubernetes."""

from pathlib import Path

import pytest

from tests.helm.conftest import CHART, EXAMPLES, Chart, Manifest, Values, find, pod_specs, validate

CARD = {
    "name": "m",
    "source": "org/m",
    "context_length": 8192,
    "default_max_tokens": 1024,
    "profile": "llama3-turbo",
    "price": {"input": "0.1", "output": "0.2"},
}
POSTGRES = {"database": {"existingSecret": "db"}}

# What a custom resource must have; its own definition isn't at hand offline.
CUSTOM = {
    "LeaderWorkerSet": ("leaderworkerset.x-k8s.io/v1", {"leaderWorkerTemplate", "startupPolicy"}),
    "ScaledObject": ("keda.sh/v1alpha1", {"scaleTargetRef", "triggers", "minReplicaCount", "maxReplicaCount"}),
    "HTTPRoute": ("gateway.networking.k8s.io/v1", {"parentRefs", "rules"}),
    "PodMonitor": ("monitoring.coreos.com/v1", {"selector", "podMetricsEndpoints"}),
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"selector", "endpoints"}),
    "PrometheusRule": ("monitoring.coreos.com/v1", {"groups"}),
}

MATRIX: dict[str, Values] = {
    "defaults": {},
    "inline secrets": {
        "database": {"url": "postgresql://u:p@db/farebox"},
        "redis": {"url": "redis://redis:6379/0"},
        "hub": {"token": "hf_x"},
        "webhook": {"secret": "w" * 24},
        "keys": {"bootstrapKey": "k" * 24, "adminKey": "a" * 24},
        "networkPolicy": {"enabled": True, "ingressNamespaces": ["apps"]},
    },
    "existing secrets": {
        **POSTGRES,
        "redis": {"existingSecret": "redis"},
        "hub": {"existingSecret": "hub"},
        "webhook": {"existingSecret": "webhook"},
        "keys": {"existingSecret": "keys"},
    },
    "HPA": {**POSTGRES, "autoscaling": {"enabled": True}},
    "HPA of groups": {
        **POSTGRES,
        "models": [CARD | {"engine": {"tensor_parallel_size": 4}}],
        "gpu": {"count": 2},
        "multiNode": {"enabled": True},
        "autoscaling": {"enabled": True},
    },
    "KEDA": {**POSTGRES, "keda": {"enabled": True, "prometheusAddress": "http://p:9090"}},
    "no extras": {
        "sharedMemory": {"enabled": False},
        "serviceAccount": {"create": False},
        "tests": {"enabled": False},
        "shutdown": {"preStopSeconds": 0},
        "topologySpreadConstraints": [],
        "ledger": {"persistent": False},
    },
    "storage": {
        "modelCache": {"persistent": True, "storageClass": "fast", "annotations": {"a": "b"}},
        "ledger": {"storageClass": "fast"},
        "scratchSize": "50Gi",
    },
    "existing claims": {"modelCache": {"existingClaim": "models"}, "ledger": {"existingClaim": "ledger"}},
    "placement": {
        "gpu": {"count": 1},
        "nodeSelector": {"gpu": "h100"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "runtimeClassName": "nvidia",
        "priorityClassName": "high",
    },
    "pod extras": {
        "initContainers": [{"name": "fetch", "image": "busybox"}],
        "extraContainers": [{"name": "side", "image": "busybox"}],
        "extraEnv": [{"name": "VLLM_LOGGING_LEVEL", "value": "INFO"}],
        "envFrom": [{"configMapRef": {"name": "more"}}],
        "extraArgs": ["--log-level", "debug"],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "x"},
        "commonLabels": {"cost": "y"},
        "imagePullSecrets": [{"name": "pull"}],
        "image": {"digest": "sha256:" + "0" * 64},
    },
    "edges": {
        "ingress": {"enabled": True, "hosts": ["a.example.com", "b.example.com"], "className": "nginx"},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}], "hostnames": ["a.example.com"]},
        "podDisruptionBudget": {"enabled": True},
        "service": {"type": "LoadBalancer", "port": 8080, "annotations": {"a": "b"}},
        "networkPolicy": {
            "enabled": True,
            "publicHTTPS": False,
            "prometheusNamespace": "",
            "extraEgress": [{"ports": [{"port": 4317}]}],
        },
    },
    "monitoring": {
        "podMonitor": {"enabled": True, "labels": {"release": "p"}},
        "prometheusRule": {"enabled": True, "runbooksURL": "https://example.com/runbooks"},
        "dashboards": {"enabled": True, "namespace": "monitoring"},
    },
    "ServiceMonitor": {"serviceMonitor": {"enabled": True, "metricRelabelings": [{"action": "keep"}]}},
    "extra objects": {
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "{{ .Release.Name }}-x"},
                "data": {"a": "b"},
            },
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\n",
        ]
    },
}


def check(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        kind = manifest["kind"]
        if kind in CUSTOM:
            version, fields = CUSTOM[kind]
            assert manifest["apiVersion"] == version
            assert fields <= manifest["spec"].keys()
            if kind == "LeaderWorkerSet":
                check_templates(manifest)
        else:
            validate(manifest)
    names = [(m["kind"], m["metadata"]["name"]) for m in manifests]
    assert len(names) == len(set(names))
    for _, spec in pod_specs(manifests):
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        for container in spec["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes


def check_templates(group: Manifest) -> None:
    """The pods of a group are pods like others."""
    for part in ("leaderTemplate", "workerTemplate"):
        template = group["spec"]["leaderWorkerTemplate"][part]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"} | template["metadata"]}
        validate(pod | {"spec": template["spec"]})


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_every_switch_gives_valid_manifests(chart: Chart, values: Values) -> None:
    check(chart.render(values))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_gives_valid_manifests(chart: Chart, example: Path) -> None:
    check(chart.render(file=example))


def test_all_switches_at_once(chart: Chart) -> None:
    values: Values = {}
    for name in ("existing secrets", "KEDA", "placement", "pod extras", "edges", "monitoring", "extra objects"):
        values |= MATRIX[name]
    manifests = chart.render(values)
    check(manifests)
    assert find(manifests, "ScaledObject")["spec"]["scaleTargetRef"]["name"] == "pool-farebox"


@pytest.mark.parametrize("example", [None, *EXAMPLES], ids=lambda path: path.stem if path else "defaults")
def test_lint_finds_nothing(chart: Chart, example: Path | None) -> None:
    status, out, err = chart.run(["lint", "--strict", str(CHART)], file=example)
    assert status == 0, out + err
    assert "[WARNING]" not in out
    assert "[ERROR]" not in out


def test_a_long_release_name_gives_valid_names(chart: Chart) -> None:
    check(chart.render(MATRIX["monitoring"], release="a" * 53))
