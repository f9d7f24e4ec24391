"""`farebox batches list | show | cancel`, on the database, and `farebox batches run FILE --wait`, over HTTP."""

import argparse
import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from gateway.batches.batch import Batch
from gateway.batches.shapes import batch_object
from gateway.batches.store import BatchStore
from gateway.commands.common import add_database_flags, iso_time, open_database, show_rows
from gateway.protocol.batches import BODIES
from gateway.settings import SettingsError
from pricing.accounts import Accounts
from pricing.money import format_usd
from storage.errors import InvalidSetting
from storage.text import shorten

COUNT = 100  # that are listed
ENDED = ("completed", "failed", "expired", "cancelled")
KEY_VARIABLE = "OPENAI_API_KEY"
POLL_SECONDS = 1.0
BAR = 30  # characters


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("batches", help="batches: list, show, cancel, and run a file")
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    listing = actions.add_parser("list", help=f"the newest {COUNT} batches of all accounts")
    add_database_flags(listing)
    listing.set_defaults(run=lambda options: asyncio.run(_list(options)))

    for name, text, run in (("show", "one batch", _show), ("cancel", "begin no more of its lines", _cancel)):
        action = actions.add_parser(name, help=text)
        action.add_argument("id")
        add_database_flags(action)
        action.set_defaults(run=lambda options, run=run: asyncio.run(run(options)))

    running = actions.add_parser("run", help="upload a file of requests to a gateway and make a batch of it")
    running.add_argument("file", type=Path)
    running.add_argument("--url", default="http://127.0.0.1:8000", help="the gateway. Default: %(default)s.")
    running.add_argument("--key", help=f"a client's key. Default: the variable {KEY_VARIABLE}.")
    running.add_argument("--endpoint", choices=sorted(BODIES), help="default: the `url` of the file's first line")
    running.add_argument("--wait", action="store_true", help="show its progress, and write its results beside the file")
    running.set_defaults(run=_run)


async def _list(options: argparse.Namespace) -> int:
    async with open_database(options) as database:
        found = await BatchStore(database).page(None, after=None, count=COUNT)
        accounts = {account.id: account.name for account in await Accounts(database).list()}
    rows = [_row(batch, accounts) for batch in found]
    show_rows(rows, options.json, "There are no batches. Make one: farebox batches run FILE --wait")
    return 0


def _row(batch: Batch, accounts: Mapping[int, str]) -> dict[str, object]:
    return {
        "batch": batch.id,
        "account": accounts.get(batch.account_id, str(batch.account_id)),
        "status": batch.status.value,
        "model": batch.model,
        "total": batch.total,
        "completed": batch.tally.completed,
        "failed": batch.tally.failed,
        "cost_usd": format_usd(batch.tally.cost),
        "created": iso_time(batch.created_at),
        "expires": iso_time(batch.expires_at),
    }


async def _show(options: argparse.Namespace) -> int:
    async with open_database(options) as database:
        print(json.dumps(batch_object(await _one(BatchStore(database), options.id)), indent=2, ensure_ascii=False))
    return 0


async def _cancel(options: argparse.Namespace) -> int:
    async with open_database(options) as database:
        store = BatchStore(database)
        batch = await _one(store, options.id)
        if not await store.cancel(batch.id, None):
            raise InvalidSetting(f"The batch {batch.id} is {batch.status}; it can't be cancelled any more.")
    print(f"{batch.id} is being cancelled: no further line is begun.")
    return 0


async def _one(store: BatchStore, batch_id: str) -> Batch:
    batch = await store.get(batch_id) if batch_id.isprintable() else None
    if batch is None:
        raise InvalidSetting(
            f"There is no batch {shorten(batch_id)}. `farebox batches list` shows those that there are."
        )
    return batch


def _run(options: argparse.Namespace) -> int:
    key = options.key or os.environ.get(KEY_VARIABLE)
    if not key:
        raise SettingsError(f"There is no key: give --key, or set {KEY_VARIABLE}.")
    endpoint = options.endpoint or _endpoint_of(options.file)
    headers = {"authorization": f"Bearer {key}"}
    try:
        with httpx.Client(base_url=options.url, headers=headers, timeout=httpx.Timeout(30, read=None)) as client:
            with options.file.open("rb") as file:
                form = {"file": (options.file.name, file)}
                uploaded = _answer(client.post("/v1/files", files=form, data={"purpose": "batch"}))
            body = {"input_file_id": uploaded["id"], "endpoint": endpoint, "completion_window": "24h"}
            batch = _answer(client.post("/v1/batches", json=body))
            print(batch["id"])
            return _wait(client, batch, options.file) if options.wait else 0
    except httpx.HTTPError as error:
        raise SettingsError(
            f"The gateway at {options.url} can't be reached: {error or type(error).__name__}."
        ) from None


def _endpoint_of(path: Path) -> str:
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    try:
        url = json.loads(first).get("url")
    except (ValueError, AttributeError):
        url = None
    if url not in BODIES:
        raise SettingsError(f"The first line of {path} names no endpoint as its `url`; give --endpoint.")
    return str(url)


def _answer(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        try:
            message = answer.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = f"HTTP status {answer.status_code}"
        raise SettingsError(f"The gateway refused: {message}")
    found: dict[str, Any] = answer.json()
    return found


def _wait(client: httpx.Client, batch: dict[str, Any], path: Path) -> int:
    shows = sys.stderr.isatty()
    while batch["status"] not in ENDED:
        time.sleep(POLL_SECONDS)
        batch = _answer(client.get(f"/v1/batches/{batch['id']}"))
        if shows:
            print(f"\r{progress(batch)}", end="", file=sys.stderr, flush=True)
    print(("\r" if shows else "") + progress(batch), file=sys.stderr)
    for fault in (batch["errors"] or {"data": []})["data"]:
        place = ", ".join(str(part) for part in (_line(fault["line"]), fault["param"]) if part)
        print(f"{place or path}: {fault['message']}", file=sys.stderr)
    for kind, target in _targets(batch, path):
        with client.stream("GET", f"/v1/files/{batch[kind]}/content") as answer, target.open("wb") as file:
            answer.raise_for_status()
            for piece in answer.iter_bytes():
                file.write(piece)
        print(target)
    print(f"${batch['estimated_cost']:.6f}", file=sys.stderr)
    return 0 if batch["status"] == "completed" else 1


def _targets(batch: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Path]]:
    for kind, ending in (("output_file_id", ".output.jsonl"), ("error_file_id", ".errors.jsonl")):
        if batch[kind] is not None:
            yield kind, path.with_name(path.stem + ending)


def _line(number: int | None) -> str | None:
    return None if number is None else f"line {number}"


def progress(batch: Mapping[str, Any]) -> str:
    """One line that says how far a batch is."""
    counts = batch["request_counts"]
    done = counts["completed"] + counts["failed"]
    share = done / counts["total"] if counts["total"] else 0.0
    bar = "█" * int(share * BAR)
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    text = f"{bar:░<{BAR}} {share:4.0%}  {done} of {counts['total']}{failed}  {batch['status']}"
    return text.ljust(shutil.get_terminal_size().columns - 1)
