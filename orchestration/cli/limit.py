"""`millrace limit`: concurrency and rate limits, shared by all runs on a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import RunNotFoundError, UserError
from ..stores.as_json import lease_json, limit_json
from ..stores.liveness import this_host
from ..terminal import words
from .common import json_option, open_reaped, store_option
from .output import print_json, print_table

if TYPE_CHECKING:
    from ..stores.base import LeaseRow, RunRow, Store


@click.group()
def limit() -> None:
    """Set and look at concurrency and rate limits."""


class _Slots(click.IntRange):
    """A number of slots."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            limit_name = ctx.params.get("name", "NAME") if ctx else "NAME"
            self.fail(
                f"'{value}' is no whole number of at least 1. To let any number run at once, remove the limit: "
                f"millrace limit rm {limit_name}",
                param,
                ctx,
            )


# Unknown options are left to SLOTS, which says more about -1 than that there is no such option.
@limit.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("slots", type=_Slots(min=1))
@click.option(
    "--per-second", type=click.FloatRange(min=0, min_open=True), help="Make it a rate limit: N per second."
)
@store_option
def set_limit(name: str, slots: int, per_second: float | None, store: str | None) -> None:
    """Let at most SLOTS task runs tagged NAME run at once.

    With --per-second it is a rate limit for `rate_limit(NAME, ...)`: N per second, at most SLOTS at once.
    """
    open_reaped(store, new=True).set_limit(name, slots, per_second)
    what = (
        f"{per_second:g} per second, at most {slots} at once"
        if per_second
        else f"{words.plural(slots, 'slot')}"
    )
    click.echo(f"limit {name}: {what}")


@limit.command("ls")
@json_option
@store_option
def list_limits(as_json: bool, store: str | None) -> None:
    """List the limits. JSON: a list with keys name, slots, per_second, held, waiting."""
    place = open_reaped(store)
    limits = place.limits(place.now())
    if as_json:
        print_json([limit_json(one) for one in limits])
        return
    if not limits:
        click.echo("There are no limits. Set one: millrace limit set NAME SLOTS", err=True)
        return
    rows = [
        [one.name, _size(one.slots, one.per_second), f"{one.held:,}", f"{one.waiting:,}"] for one in limits
    ]
    print_table(["NAME", "LIMIT", "HELD", "WAITING"], rows, right=frozenset({2, 3}), shrink=(0,))


@limit.command()
@click.argument("name")
@json_option
@store_option
def show(name: str, as_json: bool, store: str | None) -> None:
    """Show who holds a limit and who waits for it.

    What is left by a process that is gone or silent comes free when it expires.

    JSON keys: name, slots, per_second, held, waiting, and leases: a list with keys held, left, label, run_id, run,
    host, pid, slots, since, expires.
    """
    place = open_reaped(store)
    now = place.now()
    found = {one.name: one for one in place.limits(now)}
    if name not in found:
        raise _unknown(name, list(found))
    leases = place.leases(name, now)
    runs = {lease.run_id: _run(place, lease.run_id) for lease in leases}
    if as_json:
        shown = [lease_json(lease, runs[lease.run_id]) for lease in leases]
        print_json({**limit_json(found[name]), "leases": shown})
        return
    one = found[name]
    click.echo(f"{name}: {_size(one.slots, one.per_second)}, {one.held} held, {one.waiting} waiting")
    if leases:
        rows = [_row(lease, runs[lease.run_id], now) for lease in leases]
        head = ["", "TASK RUN", "RUN", "SLOTS", "SINCE", "EXPIRES", "PROCESS"]
        print_table(head, rows, right=frozenset({3, 4, 5}), shrink=((1, 2), 6))


def _run(store: Store, run_id: str) -> RunRow | None:
    try:
        return store.run(run_id)
    except RunNotFoundError:
        return None


def _row(lease: LeaseRow, run: RunRow | None, now: float) -> list[str]:
    kind = "left" if lease.left else "holds" if lease.held else "waits"
    process = "?"
    if run is not None:
        process = str(run.pid) if run.host == this_host() else f"{run.pid}@{run.host}"
    return [
        kind,
        lease.label.removeprefix("flow run "),
        run.name if run is not None else lease.run_id[:12],
        str(lease.slots),
        words.ago(lease.since, now),
        f"in {words.brief(lease.expires - now)}" if lease.held else "-",
        process,
    ]


@limit.command()
@click.argument("name")
@store_option
def rm(name: str, store: str | None) -> None:
    """Remove a limit: who waits for it may run."""
    place = open_reaped(store)
    if not place.remove_limit(name):
        raise _unknown(name, [one.name for one in place.limits(place.now())])
    click.echo(f"limit {name} removed")


def _size(slots: int, per_second: float | None) -> str:
    return f"{per_second:g}/s, {slots} at once" if per_second else words.plural(slots, "slot")


def _unknown(name: str, known: list[str]) -> UserError:
    there = f"There are: {', '.join(known)}." if known else "There are none."
    return UserError(f"There is no limit {name!r}. {there}")
