"""`coordinator keys`: the API keys with which callers prove to gateways who they are."""

from collections.abc import Sequence
from datetime import datetime

import click

from coordinator.access.api_keys import MadeKey
from coordinator.arguments import LANE, TEXT
from coordinator.operate import output
from coordinator.operate.open import lane_api_keys
from coordinator.operate.output import (
    CommandRefused,
    Misused,
    json_option,
    print_fields,
    print_json,
    print_table,
    refusing,
)
from coordinator.registry import registry
from coordinator.service.principal import Principal, defect_of
from coordinator.stores.api_keys import KEYS_MAX, SecretTaken, TooManyKeys
from coordinator.stores.idempotency import new_secret
from coordinator.stores.lane_tables import ApiKey


@click.group("keys")
def keys_group() -> None:
    """The API keys of callers: rows of a lane's database, which its gateways read."""


@keys_group.command("create")
@click.argument("lanes", nargs=-1, required=True, type=LANE)
@click.option("--subject", required=True, type=TEXT, help="Whose it is: the gateways' log names him.")
@click.option("--tenant", type=TEXT, help="The customer for whom he acts.")
@click.option("--scope", "scopes", multiple=True, type=TEXT, help="What it is good for; may be given again.")
@click.option("--expires", type=output.deadline, help="When it ends: 90d from now, or a time.")
@json_option
@refusing
def create_key(
    lanes: tuple[str, ...],
    subject: str,
    tenant: str | None,
    scopes: tuple[str, ...],
    expires: datetime | None,
    *,
    as_json: bool,
) -> None:
    """Make a key for the gateways of LANES, and print it.

    It is shown this once: the databases keep what it must match, and not the key itself.
    """
    principal = Principal(subject=subject, tenant=tenant, scopes=frozenset(scopes))
    defect = defect_of(principal)
    if defect is not None:
        raise Misused(defect)
    if expires is not None and expires <= output.now():
        raise Misused(f"--expires {expires:%Y-%m-%dT%H:%M:%SZ} is over: such a key would never count")
    made = MadeKey()
    key = ApiKey(
        id=made.id,
        digest=made.digest,
        subject=subject,
        tenant=tenant,
        scopes=" ".join(sorted(principal.scopes)),
        created_at=output.now(),
        created_by=output.as_user(),
        expires_at=expires,
    )
    done: list[str] = []
    for lane in dict.fromkeys(lanes):
        try:
            with lane_api_keys(lane) as keys:
                keys.add(key)
        except TooManyKeys:
            raise CommandRefused(_only(done, made, f"lane {lane} has {KEYS_MAX} keys already")) from None
        done.append(lane)
    if as_json:
        print_json({"key": made.text, "id": made.id, "lanes": done, **_shown(key)})
    else:
        click.echo(made.text)
        click.echo(
            f"key {made.id} of {output.printable(subject)}, for {', '.join(done)}; it is not shown again", err=True
        )


@keys_group.command("list")
@click.argument("lanes", nargs=-1, type=LANE)
@json_option
@refusing
def list_keys(lanes: tuple[str, ...], *, as_json: bool) -> None:
    """List the keys of LANES (all, if none is named), those that have ended, too; without their secrets."""
    found: list[tuple[str, ApiKey]] = []
    for lane in lanes or registry().names:
        with lane_api_keys(lane) as keys:
            found += [(lane, key) for key in keys.every()]
    if as_json:
        print_json([{"lane": lane, "id": key.id, **_shown(key)} for lane, key in found])
        return
    print_table(
        ("LANE", "ID", "SUBJECT", "TENANT", "SCOPES", "CREATED", "EXPIRES", "REVOKED"),
        [
            (lane, key.id, key.subject, key.tenant, key.scopes, key.created_at, key.expires_at, key.revoked_at)
            for lane, key in found
        ],
    )


@keys_group.command("revoke")
@click.argument("lanes", nargs=-1, required=True, type=LANE)
@click.option("--id", "key_id", required=True, type=TEXT, help="The key's id: the part behind `wck_`.")
@json_option
@refusing
def revoke_key(lanes: tuple[str, ...], key_id: str, *, as_json: bool) -> None:
    """End a key in LANES. Their gateways refuse it within ACCESS_KEYS_REFRESH_S; it cannot be taken back."""
    revoked: list[tuple[str, ApiKey]] = []
    missing: list[str] = []
    for lane in dict.fromkeys(lanes):
        with lane_api_keys(lane) as keys:
            key = keys.revoke(key_id, output.now(), output.as_user())
        if key is None:
            missing.append(lane)
        else:
            revoked.append((lane, key))
    if as_json:
        print_json([{"lane": lane, "id": key.id, **_shown(key)} for lane, key in revoked])
    else:
        for lane, key in revoked:
            print_fields({"lane": lane, "key": key.id, "subject": key.subject, "revoked": key.revoked_at})
    if missing:
        raise CommandRefused(
            f"{', '.join(missing)}: there is no key {key_id[:40]!a}: `coordinator keys list` shows them"
        )


@keys_group.command("secret")
@click.argument("lane", type=LANE)
@click.option("--new", "is_new", is_flag=True, help="Make another one first: for gateways that start from now on.")
@click.option("--forget-former", is_flag=True, help="Forget the earlier ones: keys of then are new ones.")
@json_option
@refusing
def idempotency_secret(lane: str, *, is_new: bool, forget_former: bool, as_json: bool) -> None:
    """Print the secret with which gateways of LANE make ids of their callers' idempotency keys.

    A program that issues commands by itself makes the same ids with it (`scoped_command_id_for`). Before --new, stop
    all gateways of LANE, and wait until none of its commands waits (`coordinator status`): a request that was accepted
    before, and is not settled, would be another command when it is repeated.
    """
    with lane_api_keys(lane) as keys:
        known = keys.secrets()
        if not known:
            raise CommandRefused(f"lane {lane} has no secret yet: run `coordinator migrate {lane}`")
        if is_new:
            known.append(new_secret(known[-1].id + 1))
            try:
                keys.add_secret(known[-1])
            except SecretTaken:
                raise CommandRefused(
                    f"somebody else has just made another secret of lane {lane}, and it counts: "
                    f"`coordinator keys secret {lane}` shows it"
                ) from None
        forgotten = keys.remove_secrets(known[-1].id) if forget_former else 0
    used = known[-1]
    if as_json:
        shown = {"lane": lane, "id": used.id, "secret": used.secret, "made_at": used.made_at, "forgotten": forgotten}
        print_json(shown | {"former": 0 if forget_former else len(known) - 1})
        return
    click.echo(used.secret)
    if is_new:
        click.echo("start the gateways again: those that run go on with the one before", err=True)
    if forgotten:
        click.echo(f"{forgotten} forgotten", err=True)


def _only(done: Sequence[str], made: MadeKey, why: str) -> str:
    """What is to be said where a key is made in some lanes only."""
    if not done:
        return f"{why}: revoked keys stay; nothing was made"
    return f"{why}; in {', '.join(done)} the key is made: `coordinator keys revoke {' '.join(done)} --id {made.id}`"


def _shown(key: ApiKey) -> dict[str, object]:
    return {
        "subject": key.subject,
        "tenant": key.tenant,
        "scopes": key.scopes.split(),
        "created_at": key.created_at,
        "created_by": key.created_by,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "revoked_by": key.revoked_by,
    }
