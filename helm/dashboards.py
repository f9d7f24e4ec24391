"""Writes the Grafana dashboards of the chart: `python helm/dashboards.py [--check]`.

A panel is a title, a unit and its queries; the layout, the colours and the JSON around them are the same for all.
Queries use only the variables `$namespace`, `$model` and `$__rate_interval`.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent / "farebox" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
HEIGHT = 8

# `namespace` is missing where Prometheus scrapes without Kubernetes; =~".*" matches that too.
WHERE = 'namespace=~"$namespace"'
MODEL = WHERE + ',model=~"$model"'
CALLS = MODEL + ',route!~"/health.*|/metrics|other"'
LOCAL = WHERE  # vLLM's labels name the weights, not the card


@dataclass(frozen=True)
class Panel:
    """`queries` are pairs of PromQL and legend. `kind` is Grafana's panel type; `width` in 24ths."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    text: str = ""
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    steps: tuple[tuple[str, float | None], ...] = (("green", None),)


@dataclass(frozen=True)
class Dashboard:
    """`rows` are pairs of a heading and its panels."""

    uid: str
    title: str
    text: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...] = field(default=())


def quantiles(metric: str, where: str, by: str = "") -> tuple[tuple[str, str], ...]:
    labels = f"le, {by}" if by else "le"
    return tuple(
        (
            f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{where}}}[$__rate_interval])))",
            f"p{int(q * 100)}" + (f" {{{{{by}}}}}" if by else ""),
        )
        for q in (0.5, 0.95, 0.99)
    )


def rate(metric: str, where: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


ERRORS = CALLS + ',status=~"5.."'
AVAILABILITY = (
    f"1 - ((sum(rate(farebox_requests_total{{{ERRORS}}}[$__rate_interval])) or vector(0)) "
    f"/ sum(rate(farebox_requests_total{{{CALLS}}}[$__rate_interval])))"
)
IN_TIME = MODEL + ',le="2.5"'

SERVICE = Dashboard(
    "farebox-service",
    "Farebox / Service",
    "Is it up, is it fast, and what holds it back?",
    (
        (
            "Now",
            (
                Panel(
                    "Requests answered without a 5xx",
                    "percentunit",
                    ((AVAILABILITY, ""),),
                    kind="stat",
                    width=4,
                    steps=(("red", None), ("orange", 0.99), ("green", 0.999)),
                ),
                Panel(
                    "First tokens within 2.5 s",
                    "percentunit",
                    (
                        (
                            f"sum(rate(farebox_time_to_first_token_seconds_bucket{{{IN_TIME}}}[$__rate_interval])) "
                            f"/ sum(rate(farebox_time_to_first_token_seconds_count{{{MODEL}}}[$__rate_interval]))",
                            "",
                        ),
                    ),
                    kind="stat",
                    width=4,
                    steps=(("red", None), ("orange", 0.95), ("green", 0.99)),
                ),
                Panel(
                    "Running requests",
                    "short",
                    ((f"sum(farebox_requests_running{{{WHERE}}})", ""),),
                    kind="stat",
                    width=4,
                ),
                Panel(
                    "Waiting requests",
                    "short",
                    ((f"sum(farebox_requests_waiting{{{WHERE}}})", ""),),
                    kind="stat",
                    width=4,
                    steps=(("green", None), ("orange", 5), ("red", 50)),
                ),
                Panel(
                    "Replicas",
                    "short",
                    ((f"sum(farebox_build_info{{{WHERE}}})", ""),),
                    kind="stat",
                    width=4,
                ),
                Panel(
                    "Engines ready",
                    "short",
                    ((f'sum(farebox_engine_state{{{MODEL},state="ready"}})', ""),),
                    kind="stat",
                    width=4,
                    steps=(("red", None), ("green", 1)),
                ),
            ),
        ),
        (
            "Traffic and errors",
            (
                Panel("Requests by model", "reqps", ((rate("farebox_requests_total", CALLS, "model"), "{{model}}"),)),
                Panel("Answers by status", "reqps", ((rate("farebox_requests_total", CALLS, "status"), "{{status}}"),)),
                Panel(
                    "Refusals and errors by reason",
                    "reqps",
                    ((rate("farebox_rejections_total", WHERE, "reason"), "{{reason}}"),),
                ),
                Panel(
                    "Tokens",
                    "short",
                    ((rate("farebox_tokens_total", MODEL, "kind"), "{{kind}} / s"),),
                    "Prompt tokens without the cached ones, cached ones, and completion tokens.",
                ),
                Panel(
                    "How requests end",
                    "reqps",
                    ((rate("farebox_request_seconds_count", MODEL, "outcome"), "{{outcome}}"),),
                    "client_gone: the client closed the connection. engine_error: also after the first token, where "
                    "the status was 200 already.",
                ),
                Panel(
                    "Clients that went away",
                    "reqps",
                    ((rate("farebox_disconnects_total", MODEL, "model"), "{{model}}"),),
                ),
            ),
        ),
        (
            "Latency",
            (
                Panel("Time to first token", "s", quantiles("farebox_time_to_first_token_seconds", MODEL)),
                Panel("Between tokens", "s", quantiles("farebox_inter_token_seconds", MODEL)),
                Panel("Whole requests", "s", quantiles("farebox_request_seconds", MODEL)),
                Panel(
                    "Delay of the event loop",
                    "s",
                    quantiles("farebox_event_loop_delay_seconds", WHERE),
                    "How late it is for everybody. The log says what held it up.",
                    width=12,
                ),
                Panel(
                    "Large requests in line",
                    "short",
                    ((f"sum by (pod) (farebox_large_requests_waiting{{{WHERE}}})", "{{pod}}"),),
                    "They are read in a process of their own and made into prompts in a thread, one of each key at a "
                    "time.",
                    width=12,
                ),
            ),
        ),
        (
            "Tiers and batches",
            (
                Panel(
                    "Waiting requests by tier",
                    "short",
                    ((f"sum by (tier) (farebox_requests_waiting{{{MODEL}}})", "{{tier}}"),),
                    "Lines of batches are begun only where there is room, so few of them wait here.",
                ),
                Panel(
                    "The oldest waiting request by tier",
                    "s",
                    ((f"max by (tier) (farebox_oldest_waiting_seconds{{{MODEL}}})", "{{tier}}"),),
                ),
                Panel(
                    "Running requests by tier",
                    "short",
                    ((f"sum by (tier) (farebox_requests_running{{{MODEL}}})", "{{tier}}"),),
                    stacked=True,
                ),
                Panel(
                    "Open batches",
                    "short",
                    ((f"max by (status) (farebox_batches{{{WHERE}}})", "{{status}}"),),
                    width=12,
                ),
                Panel(
                    "Lines of batches without a result",
                    "short",
                    (
                        (f"max(farebox_batch_lines_left{{{WHERE}}})", "lines"),
                        (f"max(farebox_batches_late{{{WHERE}}})", "batches that will miss their window"),
                    ),
                    width=12,
                ),
            ),
        ),
        (
            "Engine",
            (
                Panel(
                    "Queue",
                    "short",
                    (
                        (f"sum(farebox_requests_waiting{{{WHERE}}})", "waiting"),
                        (f"sum(farebox_requests_running{{{WHERE}}})", "running"),
                        (f"sum(vllm:num_requests_running{{{LOCAL}}})", "in the engine's batches"),
                    ),
                ),
                Panel(
                    "KV cache in use",
                    "percentunit",
                    ((f"max by (model_name) (vllm:kv_cache_usage_perc{{{LOCAL}}})", "{{model_name}}"),),
                ),
                Panel(
                    "Preemptions",
                    "ops",
                    ((rate("vllm:num_preemptions_total", LOCAL, "model_name"), "{{model_name}}"),),
                    "Requests that were pushed out of a full KV cache and are computed again.",
                ),
                Panel(
                    "Prefix cache hits",
                    "percentunit",
                    (
                        (
                            f"{rate('vllm:prefix_cache_hits_total', LOCAL, 'model_name')} "
                            f"/ {rate('vllm:prefix_cache_queries_total', LOCAL, 'model_name')}",
                            "{{model_name}}",
                        ),
                    ),
                ),
                Panel(
                    "Time in the engine's queue",
                    "s",
                    quantiles("vllm:request_queue_time_seconds", LOCAL),
                ),
                Panel(
                    "State of the engines",
                    "short",
                    ((f"sum by (state) (farebox_engine_state{{{MODEL}}})", "{{state}}"),),
                    stacked=True,
                ),
            ),
        ),
    ),
)

MONEY = Dashboard(
    "farebox-money",
    "Farebox / Money",
    "What was earned, who was refused, and whether the ledger keeps up. The ledger itself is the bill; this is not.",
    (
        (
            "Revenue",
            (
                Panel(
                    "Last hour",
                    "currencyUSD",
                    ((f"sum(increase(farebox_cost_usd_total{{{MODEL}}}[1h]))", ""),),
                    kind="stat",
                    width=6,
                ),
                Panel(
                    "Last 24 hours",
                    "currencyUSD",
                    ((f"sum(increase(farebox_cost_usd_total{{{MODEL}}}[1d]))", ""),),
                    kind="stat",
                    width=6,
                ),
                Panel(
                    "Per million tokens",
                    "currencyUSD",
                    (
                        (
                            f"1e6 * sum(increase(farebox_cost_usd_total{{{MODEL}}}[1h])) "
                            f"/ sum(increase(farebox_tokens_total{{{MODEL}}}[1h]))",
                            "",
                        ),
                    ),
                    kind="stat",
                    width=6,
                ),
                Panel(
                    "Accounts with less than a tenth left",
                    "short",
                    ((f'max(farebox_accounts_by_spent{{{WHERE},at_least="0.9"}})', ""),),
                    kind="stat",
                    width=6,
                    steps=(("green", None), ("orange", 1)),
                ),
                Panel(
                    "Revenue per hour, by model",
                    "currencyUSD",
                    ((f"sum by (model) (increase(farebox_cost_usd_total{{{MODEL}}}[1h]))", "{{model}}"),),
                    width=12,
                    stacked=True,
                ),
                Panel(
                    "Revenue per hour, by tier",
                    "currencyUSD",
                    ((f"sum by (tier) (increase(farebox_cost_usd_total{{{MODEL}}}[1h]))", "{{tier}}"),),
                    width=12,
                    stacked=True,
                ),
                Panel(
                    "Revenue per request, by model",
                    "currencyUSD",
                    (
                        (
                            f"{rate('farebox_cost_usd_total', MODEL, 'model')} "
                            f"/ {rate('farebox_request_seconds_count', MODEL, 'model')}",
                            "{{model}}",
                        ),
                    ),
                    width=12,
                ),
            ),
        ),
        (
            "What was sold",
            (
                Panel(
                    "Tokens per hour, by kind",
                    "short",
                    ((f"sum by (kind) (increase(farebox_tokens_total{{{MODEL}}}[1h]))", "{{kind}}"),),
                    width=12,
                    stacked=True,
                ),
                Panel(
                    "Tokens per hour, by model",
                    "short",
                    ((f"sum by (model) (increase(farebox_tokens_total{{{MODEL}}}[1h]))", "{{model}}"),),
                    width=12,
                    stacked=True,
                ),
            ),
        ),
        (
            "Refused",
            (
                Panel(
                    "Refusals by reason",
                    "reqps",
                    ((rate("farebox_rejections_total", WHERE, "reason"), "{{reason}}"),),
                    width=12,
                ),
                Panel(
                    "Refused for money or limits",
                    "reqps",
                    (
                        (
                            rate(
                                "farebox_rejections_total",
                                WHERE + ',reason=~"insufficient_funds|rate_limit_exceeded|model_not_allowed"',
                                "reason",
                            ),
                            "{{reason}}",
                        ),
                    ),
                    width=12,
                ),
            ),
        ),
        (
            "Ledger",
            (
                Panel("Commit time", "s", quantiles("farebox_ledger_commit_seconds", WHERE)),
                Panel("Commits", "ops", ((rate("farebox_ledger_commit_seconds_count", WHERE, "job"), "{{job}}"),)),
                Panel(
                    "Settlements not written yet",
                    "short",
                    ((f"sum by (job) (farebox_ledger_unsettled{{{WHERE}}})", "{{job}}"),),
                    "A few are usual between two commits. Many for minutes mean that the database is away.",
                ),
            ),
        ),
    ),
)


def variable(name: str, label: str, metric: str) -> dict[str, object]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({metric}, {name})", "refId": name},
        "definition": f"label_values({metric}, {name})",
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
        "sort": 1,
    }


def panel_json(panel: Panel, number: int, x: int, y: int) -> dict[str, object]:
    height = 4 if panel.kind == "stat" else HEIGHT
    thresholds = {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in panel.steps]}
    defaults: dict[str, object] = {"unit": panel.unit, "thresholds": thresholds}
    options: dict[str, object]
    if panel.kind == "stat":
        defaults["color"] = {"mode": "thresholds"}
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    else:
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        defaults["color"] = {"mode": "palette-classic"}
        defaults["min"] = 0
        defaults["custom"] = {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never", "stacking": stacking}
        options = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": height},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            for i, (query, legend) in enumerate(panel.queries)
        ],
    }


def panels_json(dashboard: Dashboard) -> list[dict[str, object]]:
    panels: list[dict[str, object]] = []
    y = 0
    for heading, row in dashboard.rows:
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": heading, "gridPos": place, "panels": []})
        x, y = 0, y + 1
        for i, panel in enumerate(row):
            panels.append(panel_json(panel, len(panels) + 1, x, y))
            x += panel.width
            height = 4 if panel.kind == "stat" else HEIGHT
            if x >= COLUMNS or i == len(row) - 1:
                x, y = 0, y + height
    return panels


def dashboard_json(dashboard: Dashboard) -> dict[str, object]:
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.text,
        "tags": ["farebox"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                source,
                variable("namespace", "Namespace", "farebox_build_info"),
                variable("model", "Model", "farebox_requests_total"),
            ]
        },
        "annotations": {"list": []},
        "links": [{"type": "dashboards", "tags": ["farebox"], "title": "Farebox", "asDropdown": False}],
        "panels": panels_json(dashboard),
    }


def texts() -> dict[Path, str]:
    """The files and what they must hold."""
    named = {"service": SERVICE, "money": MONEY}
    return {
        FOLDER / f"{name}.json": json.dumps(dashboard_json(dashboard), indent=2, ensure_ascii=False) + "\n"
        for name, dashboard in named.items()
    }


def main() -> None:
    check = sys.argv[1:] == ["--check"]
    for path, text in texts().items():
        if check and path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path} is out of date; run: python helm/dashboards.py")
        if not check:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
