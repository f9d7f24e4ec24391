"""Alerts and dashboards: promtool takes them, each alert has its runbook, and no metric is made up."""

import json
import re
import subprocess
from pathlib import Path

import yaml

from tests.helm.conftest import CHART, ROOT

RULES = CHART / "rules" / "farebox.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks.md"
VLLM = {
    "vllm:num_requests_running",
    "vllm:kv_cache_usage_perc",
    "vllm:num_preemptions_total",
    "vllm:prefix_cache_hits_total",
    "vllm:prefix_cache_queries_total",
    "vllm:request_queue_time_seconds_bucket",
}
# The names of the design, and what the alerts need beside them.
FAREBOX = {
    "farebox_requests_total",
    "farebox_tokens_total",
    "farebox_cost_usd_total",
    "farebox_time_to_first_token_seconds",
    "farebox_inter_token_seconds",
    "farebox_request_seconds",
    "farebox_requests_running",
    "farebox_requests_waiting",
    "farebox_rejections_total",
    "farebox_ledger_commit_seconds",
    "farebox_ledger_unsettled",
    "farebox_disconnects_total",
    "farebox_build_info",
    "farebox_engine_state",
    "farebox_accounts_by_spent",
    "farebox_event_loop_delay_seconds",
    "farebox_large_requests_waiting",
    "farebox_oldest_waiting_seconds",
    "farebox_batches",
    "farebox_batch_lines_left",
    "farebox_batches_late",
}


def promql() -> list[str]:
    """Every expression of rules and dashboards."""
    rules = yaml.safe_load(RULES.read_text())
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    for path in (CHART / "dashboards").glob("*.json"):
        board = json.loads(path.read_text())
        found += [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return found


def alerts() -> list[dict[str, dict[str, str]]]:
    rules = yaml.safe_load(RULES.read_text())
    return [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]


def run(*arguments: str | Path) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_rules(promtool: str) -> None:
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", RULES)


def test_the_rules_do_what_they_say(promtool: str) -> None:
    run(promtool, "test", "rules", Path(__file__).parent / "rules_test.yaml")


def test_every_alert_is_tested_to_fire_and_not_to() -> None:
    text = (Path(__file__).parent / "rules_test.yaml").read_text()
    cases = yaml.safe_load(text)["tests"]
    fired = {case["alertname"] for test in cases for case in test.get("alert_rule_test", []) if case.get("exp_alerts")}
    quiet = {
        case["alertname"] for test in cases for case in test.get("alert_rule_test", []) if not case.get("exp_alerts")
    }
    names = {str(alert["alert"]) for alert in alerts()}
    assert fired == names
    assert quiet == names


def test_every_panels_query_is_promql(promtool: str, tmp_path: Path) -> None:
    """promtool checks rules, so each query becomes one."""
    rules = []
    for number, query in enumerate(promql()):
        text = query.replace("$__rate_interval", "1m").replace("$namespace", ".*").replace("$model", ".*")
        assert "$" not in text, f"{query} uses a variable that isn't known here"
        rules.append({"record": f"panel:{number}", "expr": text})
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    run(promtool, "check", "rules", path)


def test_every_alert_has_its_section_in_the_runbooks() -> None:
    headings = re.findall(r"^## (\w+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert headings == [str(alert["alert"]) for alert in alerts()]
    for alert in alerts():
        annotations = alert["annotations"]
        assert annotations.keys() == {"summary", "description", "runbook_url"}
        assert annotations["runbook_url"] == f"docs/runbooks.md#{str(alert['alert']).lower()}"


def test_every_metric_is_one_that_is_exposed() -> None:
    known = FAREBOX | {f"{name}_{part}" for name in FAREBOX for part in ("bucket", "count", "sum")} | VLLM
    for query in promql():
        used = set(re.findall(r"\b(?:farebox_\w+|vllm:\w+)", query))
        assert used <= known, query
