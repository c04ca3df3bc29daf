"""`coordinator keys`: the API keys with which callers prove to gateways who they are."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from typing import Final

import click

from coordinator.access.api_keys import MadeKey
from coordinator.arguments import LANE, TEXT
from coordinator.exemplified import ExemplifiedGroup
from coordinator.operate import output
from coordinator.operate.acts import act_of, reason_option
from coordinator.operate.open import lane_api_keys
from coordinator.operate.output import (
    CommandRefused,
    MayBeDone,
    Misused,
    json_option,
    print_fields,
    print_json,
    print_table,
    refusing,
)
from coordinator.registry import registry
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.service.principal import Principal, defect_of_new
from coordinator.service.rules import named_scopes
from coordinator.service.text import printable
from coordinator.stores.admin import ChangeUnknown
from coordinator.stores.api_keys import CREATE_ACT, KEYS_MAX, SECRETS_MAX, ApiKeys, SecretTaken, TooManyKeys
from coordinator.stores.clocks import clocks_apart
from coordinator.stores.fingerprint_keys import next_fingerprint_key
from coordinator.stores.idempotency import SECRET_SETTLES_S, counts_from, new_secret, open_secret
from coordinator.stores.lane_tables import ApiKey, IdempotencySecret


@click.group("keys", cls=ExemplifiedGroup, example="keys create seats orders --subject mobile-app --expires 90d")
def keys_group() -> None:
    """The API keys of callers: rows of a lane's database, which its gateways read."""


@keys_group.command("create", example="keys create seats orders --subject mobile-app --expires 90d")
@click.argument("lanes", nargs=-1, required=True, type=LANE)
@click.option("--subject", required=True, type=TEXT, help="Whose it is: the gateways' log names him.")
@click.option("--tenant", type=TEXT, help="The customer for whom he acts.")
@click.option("--scope", "scopes", multiple=True, type=TEXT, help="What it is good for; may be given again.")
@click.option("--expires", type=output.deadline, help="When it ends: 90d from now, or a time.")
@reason_option
@json_option
@refusing
def create_key(  # click gives each option by its name
    lanes: tuple[str, ...],
    subject: str,
    tenant: str | None,
    scopes: tuple[str, ...],
    expires: datetime | None,
    reason: str | None,
    *,
    as_json: bool,
) -> None:
    """Make a key for the gateways of LANES, and print it.

    It is shown this once: the databases keep what it must match, and not the key itself.
    """
    principal = Principal(subject=subject, tenant=tenant, scopes=frozenset(scopes))
    defect = defect_of_new(principal)
    if defect is not None:
        raise Misused(defect)
    if expires is not None and expires <= output.now():
        raise Misused(f"--expires {expires:%Y-%m-%dT%H:%M:%SZ} is over: such a key would never count")
    _warn_of_unnamed(lanes, principal.scopes)
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
    done = list[str]()
    unsure = list[str]()
    with _reached(lanes) as (opened, failed):
        for lane, keys in opened.items():
            try:
                _add(lane, keys, key, reason)
            except CommandRefused as refusal:
                failed[lane] = refusal
            except _FAILURES as error:
                failed[lane] = error
                unsure.append(lane)
            else:
                done.append(lane)
    if not done and not unsure:
        raise _in_no_lane(failed, "nothing was made")
    if as_json:
        print_json({"key": made.text, "id": made.id, "lanes": done, **_shown(key)})
    else:
        click.echo(made.text)
        where = ", ".join(done) or "no lane for certain"
        click.echo(f"key {made.id} of {printable(subject)}, for {where}; it is not shown again", err=True)
        click.echo(f"gateways know it within {_KNOWN_WITHIN}; until then they answer 401", err=True)
    if failed:
        raise _ended("; ".join((_why(failed), *_what_is_made(done, unsure, made.id))), failed)


def _warn_of_unnamed(lanes: Sequence[str], scopes: frozenset[str]) -> None:
    """Say which scopes no rule of these lanes names: they may be misspelt."""
    try:
        services = [registry().service(lane) for lane in dict.fromkeys(lanes)]
    except ConfigurationError:
        # A key is made where the code of a service cannot be read, too.
        return
    named = named_scopes(services)
    if unnamed := sorted(scopes - named):
        click.echo(
            f"warning: no rule of {', '.join(each.name for each in services)} names the scope {', '.join(unnamed)} by "
            f"has_scope: those that are named are {', '.join(sorted(named))}",
            err=True,
        )


def _add(lane: str, keys: ApiKeys, key: ApiKey, reason: str | None) -> None:
    """Raises CommandRefused where nothing was made, and _FAILURES where that is not known."""
    if key.expires_at is not None:
        # Gateways go by their own clocks: this machine's must not be the one that is wrong.
        apart = clocks_apart(lane, output.now(), keys.clock())
        if apart is not None:
            raise CommandRefused(apart)
    try:
        details = {"id": key.id, "subject": key.subject, "tenant": key.tenant, "scopes": key.scopes.split()}
        keys.add(key, act_of(lane, CREATE_ACT, reason, **details))
    except TooManyKeys:
        raise CommandRefused(f"it has {KEYS_MAX} keys already, and revoked ones stay") from None


@keys_group.command("list", example="keys list seats", looks=True)
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


@keys_group.command("revoke", example="keys revoke seats orders --id 5f3e0c9ab2d14e7f")
@click.argument("lanes", nargs=-1, required=True, type=LANE)
@click.option("--id", "key_id", required=True, type=TEXT, help="The key's id: the part behind `wck_`.")
@reason_option
@json_option
@refusing
def revoke_key(lanes: tuple[str, ...], key_id: str, reason: str | None, *, as_json: bool) -> None:
    """End a key in LANES. Their gateways refuse it within ACCESS_KEYS_REFRESH_S; it cannot be taken back."""
    revoked: list[tuple[str, ApiKey]] = []
    missing: list[str] = []
    with _reached(lanes) as (opened, failed):
        for lane, keys in opened.items():
            try:
                act = act_of(lane, "keys revoke", reason, id=key_id)
                key = keys.revoke(key_id, output.now(), output.as_user(), act)
            except _FAILURES as error:
                failed[lane] = error
                continue
            if key is None:
                missing.append(lane)
            else:
                revoked.append((lane, key))
    if failed and not revoked and not missing and not _may_be_done(failed):
        raise _in_no_lane(failed, "the key counts on")
    _print_revoked(revoked, as_json=as_json)
    wrong = list[str]()
    if missing:
        wrong.append(f"{', '.join(missing)}: there is no key {key_id[:40]!a}: `coordinator keys list` shows them")
    if failed:
        counts = "may count on" if _may_be_done(failed) else "counts on"
        wrong.append(f"{_why(failed)}; the key {counts} in {', '.join(failed)}: repeat this for {' '.join(failed)}")
    if wrong:
        raise _ended("; ".join(wrong), failed)


def _print_revoked(revoked: Sequence[tuple[str, ApiKey]], *, as_json: bool) -> None:
    if as_json:
        print_json([{"lane": lane, "id": key.id, **_shown(key)} for lane, key in revoked])
        return
    for lane, key in revoked:
        print_fields({"lane": lane, "key": key.id, "subject": key.subject, "revoked": key.revoked_at})
    if revoked:
        click.echo(f"gateways refuse it within {_KNOWN_WITHIN}", err=True)


@keys_group.command("secret", example="keys secret seats --new")
@click.argument("lane", type=LANE)
@click.option("--new", "is_new", is_flag=True, help="Make another one first, which gateways use some minutes later.")
@click.option("--forget-former", is_flag=True, help="Forget the earlier ones: keys of then are new ones.")
@click.option(
    "--remember-open",
    is_flag=True,
    help="Have keys count on that were sent to a gateway with ACCESS_METHODS=none.",
)
@reason_option
@json_option
@refusing
def idempotency_secret(
    lane: str, reason: str | None, *, is_new: bool, forget_former: bool, remember_open: bool, as_json: bool
) -> None:
    """Print the secret with which gateways of LANE make ids of their callers' idempotency keys.

    A program that issues commands by itself makes the same ids with it (`scoped_command_id_for`). All gateways go on
    with the one before for some minutes, refuse idempotency keys for some seconds (503), and then use the new one.
    --new is for a lane that follows (`coordinator status`): a request that was accepted before, and is not settled
    when the new one counts, would be another command when it is repeated.
    --remember-open is for a lane whose gateways let everybody in so far, and are to ask who asks. Everybody can make
    the ids of those keys: end it with --forget-former.
    """
    if remember_open and forget_former:
        raise click.UsageError("--remember-open and --forget-former exclude each other")
    with lane_api_keys(lane) as keys:
        known = keys.secrets()
        if not known:
            raise CommandRefused(f"lane {lane} has no secret yet: run `coordinator migrate {lane}`")
        if remember_open and known[0].secret:
            _remember_open(keys, lane, known, reason)
        if is_new:
            _make_new(keys, lane, known, reason, may_be_full=forget_former)
        forgotten = 0
        if forget_former:
            act = act_of(lane, "keys secret --forget-former", reason, below=known[-1].id)
            forgotten = keys.remove_secrets(known[-1].id, act)
    used = known[-1]
    since = counts_from(used)
    if as_json:
        shown = {"lane": lane, "id": used.id, "secret": used.secret, "made_at": used.made_at, "counts_from": since}
        print_json(shown | {"forgotten": forgotten, "former": 0 if forget_former else len(known) - 1})
        return
    click.echo(used.secret)
    if since > output.now():
        click.echo(
            f"gateways use it from {since:%Y-%m-%dT%H:%M:%SZ} on, none has to be started again; until then they use "
            f"the one before, and for about {SECRET_SETTLES_S:g} s in between they refuse idempotency keys",
            err=True,
        )
    if forgotten:
        click.echo(f"{forgotten} forgotten", err=True)


@keys_group.command("fingerprints", example="keys fingerprints seats --new")
@click.argument("lane", type=LANE)
@click.option("--new", "is_new", is_flag=True, help="Make another one, which the lane uses at once.")
@reason_option
@json_option
@refusing
def fingerprint_keys(lane: str, reason: str | None, *, is_new: bool, as_json: bool) -> None:
    """Show the keys with which LANE makes fingerprints of its commands; their secrets are not shown.

    A lane that began with an earlier release has none: whoever reads its log can prove by a fingerprint what he guesses
    of a command's arguments. --new ends that for commands to come, once no process of that release runs any more, nor
    is to run again: it would take a repetition for another command. What is in the log is compared as it was made.
    """
    with lane_api_keys(lane) as keys:
        known = keys.fingerprint_keys()
        if is_new:
            key = next_fingerprint_key(known)
            try:
                keys.add_fingerprint_key(key, act_of(lane, "keys fingerprints --new", reason, id=key.id))
            except SecretTaken:
                raise CommandRefused(f"somebody else has just made another key of lane {lane}, and it counts") from None
            known.append(key)
    if as_json:
        print_json([{"lane": lane, "id": key.id, "made_at": key.made_at} for key in known])
    else:
        print_table(("LANE", "ID", "MADE"), [(lane, key.id, key.made_at) for key in known])


def _make_new(
    keys: ApiKeys, lane: str, known: list[IdempotencySecret], reason: str | None, *, may_be_full: bool
) -> None:
    """Make the next of the `known` secrets, and add it to them."""
    if len(known) >= SECRETS_MAX and not may_be_full:
        text = f"lane {lane} has {SECRETS_MAX} secrets, and its gateways read no more"
        raise CommandRefused(f"{text}: forget the former ones with --new --forget-former")
    # A gateway that starts goes by its own clock.
    apart = clocks_apart(lane, output.now(), keys.clock())
    if apart is not None:
        raise CommandRefused(f"{apart}; nothing was made")
    known.append(new_secret(known[-1].id + 1))
    try:
        keys.add_secret(known[-1], act_of(lane, "keys secret --new", reason, id=known[-1].id))
    except SecretTaken:
        raise CommandRefused(
            f"somebody else has just made another secret of lane {lane}, and it counts: "
            f"`coordinator keys secret {lane}` shows it"
        ) from None


def _remember_open(keys: ApiKeys, lane: str, known: list[IdempotencySecret], reason: str | None) -> None:
    if len(known) >= SECRETS_MAX:
        text = f"lane {lane} has {SECRETS_MAX} secrets, and its gateways read no more: --forget-former first"
        raise CommandRefused(text)
    # Somebody else may have just done the same.
    with suppress(SecretTaken):
        keys.add_secret(open_secret(), act_of(lane, "keys secret --remember-open", reason))
    known.insert(0, open_secret())


_KNOWN_WITHIN: Final = "2 s, or what their ACCESS_KEYS_REFRESH_S says"
"""How soon gateways have read a change, with the default of that setting: they have settings of their own."""
_FAILURES: Final = (ConfigurationError, Unavailable)
"""What a database raises that cannot be used now, or until somebody acts."""


@contextmanager
def _reached(lanes: Sequence[str]) -> Iterator[tuple[dict[str, ApiKeys], dict[str, Exception]]]:
    """The keys of those of these lanes whose databases can be reached, before anything is changed; and why others not.

    Raises ConfigurationError for settings: nothing is done then.
    """
    with ExitStack() as stack:
        opened = {lane: stack.enter_context(lane_api_keys(lane)) for lane in dict.fromkeys(lanes)}
        failed: dict[str, Exception] = {}
        for lane, keys in opened.items():
            try:
                keys.connect()
            except _FAILURES as error:
                failed[lane] = error
        yield {lane: keys for lane, keys in opened.items() if lane not in failed}, failed


def _why(failed: Mapping[str, Exception]) -> str:
    return "; ".join(f"{lane}: {error}" for lane, error in failed.items())


def _in_no_lane(failed: Mapping[str, Exception], so: str) -> Exception:
    """With status 2 where all would fail again."""
    text = f"{_why(failed)}; {so}"
    is_wrong = all(isinstance(error, ConfigurationError) for error in failed.values())
    return ConfigurationError(text) if is_wrong else CommandRefused(text)


def _may_be_done(failed: Mapping[str, Exception]) -> bool:
    return any(isinstance(error, ChangeUnknown) for error in failed.values())


def _ended(text: str, failed: Mapping[str, Exception]) -> CommandRefused:
    return MayBeDone(text) if _may_be_done(failed) else CommandRefused(text)


def _what_is_made(done: Sequence[str], unsure: Sequence[str], key_id: str) -> Iterator[str]:
    """What is to be said where a key is made in some lanes only."""
    if unsure:
        yield f"in {', '.join(unsure)} the key may be made: `coordinator keys list {' '.join(unsure)}` shows it"
    if done:
        yield f"in {', '.join(done)} the key is made: to take it back, `keys revoke {' '.join(done)} --id {key_id}`"


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
