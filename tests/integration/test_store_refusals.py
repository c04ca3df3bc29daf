"""What real SQL servers refuse: a command's fault where it is one, and otherwise an outage that says what to do."""

import itertools
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from sqlalchemy import make_url, text

from coordinator.lane.delivery import Delivery, Deposed, Settlement, Suspension
from coordinator.service.errors import ConfigurationError
from coordinator.stores.open import open_admin
from coordinator.stores.open import open_store as open_store_at
from coordinator.stores.port import LOOKS, BatchRefused, NotAdmitted, Store
from coordinator.stores.postgresql.policies import SHOWN_FOR_S
from tests.integration.test_stores import _OnServer, sql_ledgers  # noqa: F401  # a fixture
from tests.support.databases import sql_engine
from tests.support.lane_contract import LaneUnderTest, codes, delivery, merged
from tests.support.ledger import LEDGER, Account, OpenAccount
from tests.support.store_contract import NOW, OpenStore, account, changes, commit

_names = itertools.count(1)
APPLIED = "applied"


@contextmanager
def altered(url: str, statements: Sequence[str], undo: Sequence[str]) -> Iterator[None]:
    """The database with something changed, by its owner."""
    _run(url, statements)
    try:
        yield
    finally:
        _run(url, undo)


def _run(url: str, statements: Sequence[str]) -> None:
    engine = sql_engine(url)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def opened(*owners: str, first: int = 1) -> list[Delivery]:
    return [delivery(number, OpenAccount(owner=owner)) for number, owner in enumerate(owners, first)]


def applied(lane: LaneUnderTest, sent: Sequence[Delivery]) -> Settlement:
    """Everything, however often the lane is suspended in between."""
    found: list[Settlement] = []
    for _ in range(200):
        decision = lane.lane.apply(sent)
        if isinstance(decision, Settlement):
            found.append(decision)
            if not lane.lane.has_batch:
                return merged(found)
    raise AssertionError(decision)


def seen(lane: LaneUnderTest) -> list[Suspension]:
    """What the lane sees while it looks at all of its tables."""
    verdicts = [lane.lane.look() for _ in range(LOOKS)]
    assert not any(isinstance(verdict, Deposed) for verdict in verdicts)
    return [verdict for verdict in verdicts if isinstance(verdict, Suspension)]


class _Refusals(_OnServer):
    rules: ClassVar[dict[str, tuple[list[str], list[str]]]]
    """By name: what lets the database refuse the owner `forbidden`, and what takes that back."""
    slow: ClassVar[tuple[list[str], list[str]]]
    """What makes a set of rows take longer than a statement may, and a part of it not."""
    role: ClassVar[tuple[list[str], list[str]]]
    revoke: ClassVar[str]
    grant: ClassVar[str]
    lacking: ClassVar[str]
    """How the reason names an account, a right and a table."""
    only_read: ClassVar[str]
    read_and_write: ClassVar[str]

    @pytest.fixture
    def limited_store(self, url: str) -> Iterator[Store]:
        """A store whose role has no more rights than it was given."""
        name = f"limited_{next(_names)}"
        database = make_url(url).database
        made, undo = ([line.format(name=name, database=database) for line in lines] for lines in self.role)
        with altered(url, made, undo):
            limited = make_url(url).set(username=name, password="limited").render_as_string(hide_password=False)
            store = open_store_at(limited, LEDGER)
            self.limited = name
            yield store
            store.close()

    def test_what_the_service_s_own_rules_refuse_is_the_command_s_fault(self, limited_store: Store, url: str) -> None:
        lane = LaneUnderTest(limited_store)
        for number, (name, (made, undo)) in enumerate(self.rules.items(), 1):
            with altered(url, made, undo):
                sent = opened(f"{name} a", "forbidden", f"{name} b", first=100 * number)
                assert codes(applied(lane, sent).outcomes) == [APPLIED, "database_refused", APPLIED], name

    def slow_on(self, url: str) -> tuple[list[str], list[str]]:
        """What makes an insert slow and ends it for that, and what takes that back."""
        return self.slow

    def test_a_batch_that_takes_too_long_is_applied_in_pieces(self, open_store: OpenStore, url: str) -> None:
        with altered(url, *self.slow_on(url)):
            lane = LaneUnderTest(open_store())
            outcomes = applied(lane, opened(*(f"o{number}" for number in range(300)))).outcomes
            assert codes(outcomes) == [APPLIED] * 300
            lane.store.close()

    def test_a_missing_right_suspends_the_lane_until_it_is_given(self, limited_store: Store, url: str) -> None:
        lane = LaneUnderTest(limited_store)
        assert codes(applied(lane, opened("before")).outcomes) == [APPLIED]
        for rights in ("accounts", "command_log"):
            names = {"name": self.limited, "table": rights, "database": make_url(url).database}
            sent = opened(f"{rights} a", f"{rights} b", first=10 if rights == "accounts" else 20)
            _run(url, [self.revoke.format(**names)])
            for _ in range(8):
                suspension = lane.lane.apply(sent)
                assert isinstance(suspension, Suspension)
                assert re.search(self.lacking.format(right="INSERT", **names), suspension.reason), suspension.reason
                assert "`coordinator database-accounts" in suspension.reason
            _run(url, [self.grant.format(**names)])
            assert codes(applied(lane, sent).outcomes) == [APPLIED] * 2

    def unwritable(self, name: str, database: str) -> dict[str, tuple[list[str], list[str]]]:
        """By a word of what an idle lane says: what makes its database take no writes, and what takes that back."""
        given = {"name": name, "database": database}
        lease, entries = given | {"table": "lane_lease"}, given | {"table": "command_log"}
        return {
            "lane_lease": ([self.revoke.format(**lease)], [self.grant.format(**lease)]),
            "command_log": ([self.revoke.format(**entries)], [self.grant.format(**entries)]),
            "outbox": (["ALTER TABLE outbox RENAME TO outbox_away"], ["ALTER TABLE outbox_away RENAME TO outbox"]),
            "accounts": (["ALTER TABLE accounts RENAME TO away"], ["ALTER TABLE away RENAME TO accounts"]),
            "note": (
                ["ALTER TABLE accounts RENAME COLUMN note TO away"],
                ["ALTER TABLE accounts RENAME COLUMN away TO note"],
            ),
            "read.only": ([self.only_read.format(**given)], [self.read_and_write.format(**given)]),
        }

    def test_an_idle_lane_says_that_its_database_takes_no_writes(self, limited_store: Store, url: str) -> None:
        """It may have nothing to write for hours, and is to say so within 5 s."""
        lane = LaneUnderTest(limited_store)
        assert codes(applied(lane, opened("before")).outcomes) == [APPLIED]
        assert seen(lane) == []
        for word, (made, undo) in self.unwritable(self.limited, str(make_url(url).database)).items():
            with altered(url, made, undo):
                # What a session begins with is no more changed in it.
                lane.store.close()
                found = seen(lane)
                assert found, word
                assert all(re.search(word, suspension.reason) for suspension in found), (word, found)
            lane.store.close()
            assert seen(lane) == [], word
        assert codes(applied(lane, opened("after", first=2)).outcomes) == [APPLIED]

    def test_a_column_that_no_row_fills_suspends_the_lane_until_it_has_a_default(
        self, open_store: OpenStore, url: str
    ) -> None:
        """A start refuses such a table. Here it gets the column while the lane runs: no command is at fault."""
        lane = LaneUnderTest(open_store())
        assert codes(applied(lane, opened("before")).outcomes) == [APPLIED]
        made = [
            "ALTER TABLE accounts ADD COLUMN added INTEGER NOT NULL DEFAULT 1",
            "ALTER TABLE accounts ALTER COLUMN added DROP DEFAULT",
        ]
        with altered(url, made, ["ALTER TABLE accounts DROP COLUMN added"]):
            sent = opened("a", "b", first=10)
            for _ in range(3):
                suspension = lane.lane.apply(sent)
                assert isinstance(suspension, Suspension)
                assert "accounts has the column added, which no row fills: give it a DEFAULT" in suspension.reason
            _run(url, ["ALTER TABLE accounts ALTER COLUMN added SET DEFAULT 1"])
            assert codes(applied(lane, sent).outcomes) == [APPLIED, APPLIED]

    def test_a_table_that_is_missing_suspends_the_lane_until_it_is_back(self, open_store: OpenStore, url: str) -> None:
        lane = LaneUnderTest(open_store())
        assert codes(applied(lane, opened("before")).outcomes) == [APPLIED]
        sent = opened("a", "b", first=10)
        with altered(
            url, ["ALTER TABLE accounts RENAME TO accounts_away"], ["ALTER TABLE accounts_away RENAME TO accounts"]
        ):
            for _ in range(8):
                suspension = lane.lane.apply(sent)
                assert isinstance(suspension, Suspension)
                assert "run `coordinator migrate`" in suspension.reason
                assert "accounts" in suspension.reason
        assert codes(applied(lane, sent).outcomes) == [APPLIED] * 2
        assert len(lane.rows(Account)) == 3


class TestPostgresRefusals(_Refusals):
    setting = "USERS_DATABASE_URL"
    rules: ClassVar = {
        "a trigger": (
            [
                (
                    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                    "IF NEW.owner = 'forbidden' THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$"
                ),
                "CREATE TRIGGER refuse BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION refuse()",
            ],
            ["DROP TRIGGER refuse ON accounts", "DROP FUNCTION refuse"],
        ),
        "a code of its own": (
            [
                (
                    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.owner = 'forbidden' "
                    "THEN RAISE EXCEPTION 'no' USING ERRCODE = '57P01'; END IF; RETURN NEW; END $$"
                ),
                "CREATE TRIGGER refuse BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION refuse()",
            ],
            ["DROP TRIGGER refuse ON accounts", "DROP FUNCTION refuse"],
        ),
        "row security": (
            [
                "ALTER TABLE accounts ENABLE ROW LEVEL SECURITY",
                "CREATE POLICY refuse ON accounts USING (true) WITH CHECK (owner <> 'forbidden')",
            ],
            ["DROP POLICY refuse ON accounts", "ALTER TABLE accounts DISABLE ROW LEVEL SECURITY"],
        ),
        "a view": (
            [
                "ALTER TABLE accounts RENAME TO all_accounts",
                "CREATE VIEW accounts AS SELECT * FROM all_accounts WHERE owner <> 'forbidden' WITH CHECK OPTION",
                "GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC",
            ],
            [
                "DROP VIEW accounts",
                "ALTER TABLE all_accounts RENAME TO accounts",
                "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC",
            ],
        ),
        "a dropped row": (
            [
                (
                    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                    "IF NEW.owner = 'forbidden' THEN RETURN NULL; END IF; RETURN NEW; END $$"
                ),
                "CREATE TRIGGER refuse BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION refuse()",
            ],
            ["DROP TRIGGER refuse ON accounts", "DROP FUNCTION refuse"],
        ),
        # A start takes the column: its type has a default.
        "a null elsewhere": (
            [
                "CREATE DOMAIN filled AS integer DEFAULT 1",
                "ALTER TABLE accounts ADD COLUMN added filled NOT NULL",
                "CREATE TABLE audit (line text NOT NULL)",
                (
                    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN "
                    "IF NEW.owner = 'forbidden' THEN INSERT INTO audit VALUES (NULL); END IF; RETURN NEW; END $$"
                ),
                "CREATE TRIGGER refuse BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION refuse()",
            ],
            [
                "DROP TRIGGER refuse ON accounts",
                "DROP FUNCTION refuse",
                "DROP TABLE audit",
                "ALTER TABLE accounts DROP COLUMN added",
                "DROP DOMAIN filled",
            ],
        ),
        "a broken trigger": (
            [
                (
                    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                    "IF NEW.owner = 'forbidden' THEN INSERT INTO no_such_table VALUES (1); END IF; RETURN NEW; END $$"
                ),
                "CREATE TRIGGER refuse BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION refuse()",
            ],
            ["DROP TRIGGER refuse ON accounts", "DROP FUNCTION refuse"],
        ),
    }
    slow: ClassVar = (
        [
            (
                "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.002); "
                "RETURN NEW; END $$"
            ),
            "CREATE TRIGGER slow BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION slow()",
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = 400', current_database()); END $$",
        ],
        [
            "DROP TRIGGER slow ON accounts",
            "DROP FUNCTION slow",
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET statement_timeout', current_database()); END $$",
        ],
    )
    role: ClassVar = (
        [
            "CREATE ROLE {name} LOGIN PASSWORD 'limited'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}",
        ],
        ["DROP OWNED BY {name}", "DROP ROLE {name}"],
    )
    revoke = "REVOKE INSERT ON {table} FROM {name}"
    grant = "GRANT INSERT ON {table} TO {name}"
    lacking: ClassVar = "role {name} lacks {right} on table {table}:"
    only_read = "ALTER ROLE {name} SET default_transaction_read_only = on"
    read_and_write = "ALTER ROLE {name} RESET default_transaction_read_only"

    @pytest.mark.parametrize("right", ["SELECT", "INSERT", "UPDATE", "DELETE"])
    def test_a_start_names_the_account_the_right_and_the_table(
        self, limited_store: Store, url: str, right: str
    ) -> None:
        names = {"right": right, "name": self.limited, "table": "accounts"}
        with altered(url, [f"REVOKE {right} ON accounts FROM {self.limited}"], []):
            with pytest.raises(NotAdmitted, match=self.lacking.format(**names)) as refused:
                limited_store.check(LEDGER.models)
            assert "run `coordinator migrate`" not in str(refused.value)

    @pytest.mark.parametrize(
        "policy",
        [
            "FOR INSERT TO {name} WITH CHECK (true)",
            "TO {name} USING (owner <> 'hidden') WITH CHECK (true)",
            "AS RESTRICTIVE TO PUBLIC USING (owner <> 'hidden')",
        ],
    )
    def test_rows_that_a_policy_hides_are_not_taken_for_missing(
        self, limited_store: Store, url: str, policy: str
    ) -> None:
        lane = LaneUnderTest(limited_store)
        assert codes(applied(lane, opened("hidden")).outcomes) == [APPLIED]
        words = f"row-level security may hide rows of accounts from role {self.limited}"
        made = [
            "CREATE POLICY shown ON accounts USING (true)" if "RESTRICTIVE" in policy else "SELECT 1",
            f"CREATE POLICY hides ON accounts {policy.format(name=self.limited)}",
            "ALTER TABLE accounts ENABLE ROW LEVEL SECURITY",
        ]
        undo = [
            "ALTER TABLE accounts DISABLE ROW LEVEL SECURITY",
            "DROP POLICY hides ON accounts",
            "DROP POLICY IF EXISTS shown ON accounts",
        ]
        sent = opened("a", first=2)
        with altered(url, made, undo):
            reasons = [lane.lane.apply(sent) for _ in range(4)]
            assert all(isinstance(reason, Suspension) for reason in reasons)
            assert isinstance(reasons[-1], Suspension)
            assert words in reasons[-1].reason
            with pytest.raises(NotAdmitted, match=words):
                limited_store.check(LEDGER.models)
            assert all(words in found.reason for found in seen(lane))
        assert codes(applied(lane, sent).outcomes) == [APPLIED]

    def test_the_policies_that_it_advises_let_the_lane_go_on(self, limited_store: Store, url: str) -> None:
        lane = LaneUnderTest(limited_store)
        tables = ("accounts", "command_log", "lane_lease")
        made = [f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY" for table in tables]
        undo = [f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY" for table in tables]
        with altered(url, made, undo):
            with pytest.raises(NotAdmitted) as refused:
                limited_store.check(LEDGER.models)
            advised = re.search(r"each of these tables a policy (.+ USING \(true\))", str(refused.value))
            assert advised is not None
            policies = [f"CREATE POLICY advised ON {table} {advised[1]}" for table in tables]
            with altered(url, policies, [f"DROP POLICY advised ON {table}" for table in tables]):
                assert codes(applied(lane, opened("a")).outcomes) == [APPLIED]
                limited_store.check(LEDGER.models)

    def test_a_policy_of_later_stops_a_busy_lane_whose_role_meets_others_already(
        self, limited_store: Store, url: str
    ) -> None:
        made = ["CREATE TABLE somebodys (id integer)", "ALTER TABLE somebodys ENABLE ROW LEVEL SECURITY"]
        hiding = ["CREATE POLICY hides ON accounts USING (owner <> 'hidden')"]
        hiding.append("ALTER TABLE accounts ENABLE ROW LEVEL SECURITY")
        undo = ["ALTER TABLE accounts DISABLE ROW LEVEL SECURITY", "DROP POLICY hides ON accounts"]
        with altered(url, made, ["DROP TABLE somebodys"]):
            lane = LaneUnderTest(limited_store)
            assert codes(applied(lane, opened("hidden")).outcomes) == [APPLIED]
            with altered(url, hiding, undo):
                time.sleep(SHOWN_FOR_S)
                reason = lane.lane.apply(opened("a", first=2))
                assert isinstance(reason, Suspension)
                assert "row-level security may hide rows of accounts" in reason.reason
            assert codes(applied(lane, opened("a", first=2)).outcomes) == [APPLIED]

    def test_a_policy_that_hides_nothing_is_no_reason_to_stop(self, limited_store: Store, url: str) -> None:
        lane = LaneUnderTest(limited_store)
        made = [f"CREATE POLICY shown ON accounts TO {self.limited} USING (true)"]
        made.append("ALTER TABLE accounts ENABLE ROW LEVEL SECURITY")
        undo = ["ALTER TABLE accounts DISABLE ROW LEVEL SECURITY", "DROP POLICY shown ON accounts"]
        with altered(url, made, undo):
            assert codes(applied(lane, opened("a")).outcomes) == [APPLIED]
            limited_store.check(LEDGER.models)
            assert not seen(lane)

    @pytest.mark.parametrize(
        "passes_by",
        [
            "ALTER ROLE {name} BYPASSRLS",
            "ALTER TABLE audit OWNER TO {name}",
        ],
    )
    def test_a_policy_that_a_trigger_meets_for_its_own_role_is_no_reason_to_refuse(
        self, limited_store: Store, url: str, passes_by: str
    ) -> None:
        """Of the lane's role it hides nothing, and it lets the trigger do what it does."""
        name, keeper = self.limited, f"keeper_of_{self.limited}"
        made = [
            f"CREATE ROLE {keeper}",
            "CREATE TABLE audit (owner text)",
            f"GRANT INSERT ON audit TO {keeper}",
            "CREATE POLICY shown ON audit USING (true)",
            "ALTER TABLE audit ENABLE ROW LEVEL SECURITY",
            (
                "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN "
                "INSERT INTO audit VALUES (NEW.owner); RETURN NEW; END $$"
            ),
            f"ALTER FUNCTION note OWNER TO {keeper}",
            (
                "CREATE TRIGGER note BEFORE INSERT ON accounts FOR EACH ROW WHEN (NEW.owner = 'noted') "
                "EXECUTE FUNCTION note()"
            ),
            passes_by.format(name=name),
        ]
        undo = [
            "DROP TRIGGER note ON accounts",
            "DROP FUNCTION note",
            "DROP TABLE audit",
            f"DROP ROLE {keeper}",
            f"ALTER ROLE {name} NOBYPASSRLS",
        ]
        with altered(url, made, undo):
            lane = LaneUnderTest(limited_store)
            assert codes(applied(lane, opened("a", "noted", "b")).outcomes) == [APPLIED] * 3
            limited_store.check(LEDGER.models)
            assert not seen(lane)

    def test_a_schema_that_may_not_be_used_is_no_missing_migration(self, limited_store: Store, url: str) -> None:
        lane = LaneUnderTest(limited_store)
        words = f"role {self.limited} lacks USAGE on schema public:"
        with altered(url, ["REVOKE USAGE ON SCHEMA public FROM PUBLIC"], ["GRANT USAGE ON SCHEMA public TO PUBLIC"]):
            with pytest.raises(NotAdmitted, match=words):
                limited_store.check(LEDGER.models)
            suspension = lane.lane.apply(opened("a"))
            assert isinstance(suspension, Suspension)
            for reason in (suspension.reason, *(found.reason for found in seen(lane))):
                assert words in reason
                assert "run `coordinator migrate`" not in reason
            limited = make_url(url).set(username=self.limited, password="limited")
            admin = open_admin(limited.render_as_string(hide_password=False), LEDGER.lane)
            with pytest.raises(ConfigurationError, match=r"DATABASE_URL lacks USAGE on schema public:"):
                admin.state()
            admin.close()
        assert codes(applied(lane, opened("b", first=2)).outcomes) == [APPLIED]

    def test_a_schema_that_is_closed_on_purpose_is_not_what_a_missing_table_lacks(
        self, limited_store: Store, url: str
    ) -> None:
        """Such as `public`, beside a schema of the role's own: before the first migration nothing is in either."""
        made = [
            "CREATE SCHEMA closed",
            f"ALTER ROLE {self.limited} SET search_path = public, closed",
            "ALTER TABLE accounts RENAME TO other_accounts",
            "ALTER TABLE lane_lease RENAME TO other_lease",
        ]
        undo = [
            "DROP SCHEMA closed",
            "ALTER TABLE other_accounts RENAME TO accounts",
            "ALTER TABLE other_lease RENAME TO lane_lease",
        ]
        limited = make_url(url).set(username=self.limited, password="limited")
        with altered(url, made, undo):
            with pytest.raises(ConfigurationError, match="run `coordinator migrate`"):
                limited_store.check(LEDGER.models)
            admin = open_admin(limited.render_as_string(hide_password=False), LEDGER.lane)
            with pytest.raises(ConfigurationError, match="is not migrated: run `coordinator migrate ledger`"):
                admin.state()
            admin.close()

    def test_a_sequence_of_a_column_that_no_row_has_is_named(self, limited_store: Store, url: str) -> None:
        lane = LaneUnderTest(limited_store)
        made = ["CREATE SEQUENCE counted", "ALTER TABLE accounts ADD serial BIGINT DEFAULT nextval('counted')"]
        words = f"role {self.limited} lacks USAGE on sequence counted:"
        with altered(url, made, ["ALTER TABLE accounts DROP serial", "DROP SEQUENCE counted"]):
            with pytest.raises(NotAdmitted, match=words):
                limited_store.check(LEDGER.models)
            assert [suspension.reason for suspension in seen(lane) if words not in suspension.reason] == []
            suspension = lane.lane.apply(opened("a"))
            assert isinstance(suspension, Suspension)
            assert words in suspension.reason
            _run(url, [f"GRANT USAGE ON SEQUENCE counted TO {self.limited}"])
            limited_store.check(LEDGER.models)
            assert codes(applied(lane, opened("b", first=2)).outcomes) == [APPLIED]

    def test_a_canceled_statement_is_refused_for_no_certain_reason(self, open_store: OpenStore, url: str) -> None:
        with altered(url, *self.slow):
            store = open_store()
            lease = store.take_over("holder", NOW)
            with pytest.raises(BatchRefused):
                commit(store, lease, changes(inserts=[account(number) for number in range(1, 400)]))
            commit(store, lease, changes(inserts=[account(1)]))
            store.close()


class TestMysqlRefusals(_Refusals):
    setting = "PAYMENTS_DATABASE_URL"
    rules: ClassVar = {
        "a trigger": (
            [
                (
                    "CREATE TRIGGER refuse BEFORE INSERT ON accounts FOR EACH ROW BEGIN IF NEW.owner = 'forbidden' "
                    "THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF; END"
                )
            ],
            ["DROP TRIGGER refuse"],
        ),
        "a code of its own": (
            [
                (
                    "CREATE TRIGGER refuse BEFORE INSERT ON accounts FOR EACH ROW BEGIN IF NEW.owner = 'forbidden' "
                    "THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no', MYSQL_ERRNO = 30001; END IF; END"
                )
            ],
            ["DROP TRIGGER refuse"],
        ),
        "a view": (
            [
                "ALTER TABLE accounts RENAME TO all_accounts",
                "CREATE VIEW accounts AS SELECT * FROM all_accounts WHERE owner <> 'forbidden' WITH CHECK OPTION",
            ],
            ["DROP VIEW accounts", "ALTER TABLE all_accounts RENAME TO accounts"],
        ),
        **{
            f"number {number}": (
                [
                    (
                        "CREATE TRIGGER refuse BEFORE INSERT ON accounts FOR EACH ROW BEGIN "
                        "IF NEW.owner = 'forbidden' THEN SIGNAL SQLSTATE '45000' "
                        f"SET MESSAGE_TEXT = 'no', MYSQL_ERRNO = {number}; END IF; END"
                    )
                ],
                ["DROP TRIGGER refuse"],
            )
            for number in (1020, 1054, 1114, 1205, 1213)
        },
        "a null elsewhere": (
            [
                # The lane's own table, of which a start does not ask for more than its columns.
                "ALTER TABLE command_log ADD COLUMN added INTEGER NOT NULL",
                "CREATE TRIGGER filled BEFORE INSERT ON command_log FOR EACH ROW SET NEW.added = 1",
                "CREATE TABLE audit (line VARCHAR(100) NOT NULL, other INTEGER)",
                (
                    "CREATE TRIGGER refuse BEFORE INSERT ON accounts FOR EACH ROW BEGIN IF NEW.owner = 'forbidden' "
                    "THEN INSERT INTO audit (other) VALUES (1); END IF; END"
                ),
            ],
            [
                "DROP TRIGGER refuse",
                "DROP TABLE audit",
                "DROP TRIGGER filled",
                "ALTER TABLE command_log DROP COLUMN added",
            ],
        ),
        "a column": (
            [
                "CREATE TABLE audit (line VARCHAR(100))",
                "CREATE PROCEDURE break_it() INSERT INTO audit (version) VALUES (1)",
                (
                    "CREATE TRIGGER refuse BEFORE INSERT ON accounts FOR EACH ROW BEGIN IF NEW.owner = 'forbidden' "
                    "THEN CALL break_it(); END IF; END"
                ),
            ],
            ["DROP TRIGGER refuse", "DROP PROCEDURE break_it", "DROP TABLE audit"],
        ),
        "a broken trigger": (
            [
                "CREATE PROCEDURE break_it() INSERT INTO no_such_table VALUES (1)",
                (
                    "CREATE TRIGGER refuse BEFORE INSERT ON accounts FOR EACH ROW BEGIN IF NEW.owner = 'forbidden' "
                    "THEN CALL break_it(); END IF; END"
                ),
            ],
            ["DROP TRIGGER refuse", "DROP PROCEDURE break_it"],
        ),
    }
    slow: ClassVar = (
        [
            "CREATE TRIGGER slow BEFORE INSERT ON accounts FOR EACH ROW BEGIN DO SLEEP(0.004); END",
            "SET GLOBAL max_statement_time = 0.4",
        ],
        ["SET GLOBAL max_statement_time = 0", "DROP TRIGGER slow"],
    )
    # MySQL limits the time of a SELECT only: the trigger says of others what the server says of those. NOW() is when
    # the statement began.
    slow_on_mysql: ClassVar = (
        [
            (
                "CREATE TRIGGER slow BEFORE INSERT ON accounts FOR EACH ROW BEGIN DO SLEEP(0.004); "
                "IF TIMESTAMPDIFF(MICROSECOND, NOW(6), SYSDATE(6)) > 400000 THEN "
                "SIGNAL SQLSTATE 'HY000' SET MESSAGE_TEXT = 'too long', MYSQL_ERRNO = 3024; END IF; END"
            )
        ],
        ["DROP TRIGGER slow"],
    )
    revoke = "REVOKE INSERT ON `{database}`.`{table}` FROM {name}"
    grant = "GRANT INSERT ON `{database}`.`{table}` TO {name}"
    lacking: ClassVar = "{right} command denied to user '{name}'@.*{table}"
    only_read = "SET GLOBAL read_only = 1"
    read_and_write = "SET GLOBAL read_only = 0"

    def slow_on(self, url: str) -> tuple[list[str], list[str]]:
        engine = sql_engine(url)
        with engine.connect() as connection:
            version = connection.execute(text("SELECT VERSION()")).scalar_one()
        engine.dispose()
        return self.slow if "MariaDB" in version else self.slow_on_mysql

    @pytest.fixture
    def limited_store(self, url: str) -> Iterator[Any]:
        """Rights table by table, so that one of them can be taken back."""
        engine = sql_engine(url)
        with engine.connect() as connection:
            tables = [name for (name,) in connection.execute(text("SHOW TABLES")).all()]
        engine.dispose()
        name, database = f"limited_{next(_names)}", make_url(url).database
        made = [f"CREATE USER {name} IDENTIFIED BY 'limited'"]
        made += [f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{database}`.`{table}` TO {name}" for table in tables]
        with altered(url, made, [f"DROP USER {name}"]):
            limited = make_url(url).set(username=name, password="limited").render_as_string(hide_password=False)
            store = open_store_at(limited, LEDGER)
            self.limited = name
            yield store
            store.close()

    def test_a_column_that_a_trigger_fills_keeps_no_lane_from_starting(self, open_store: OpenStore, url: str) -> None:
        """In one of its own tables, where a start asks for no more than its columns. EXPLAIN runs no trigger."""
        made = [
            "ALTER TABLE command_log ADD COLUMN added INTEGER NOT NULL",
            "CREATE TRIGGER filled BEFORE INSERT ON command_log FOR EACH ROW SET NEW.added = 1",
        ]
        with altered(url, made, ["DROP TRIGGER filled", "ALTER TABLE command_log DROP COLUMN added"]):
            store = open_store()
            store.check(LEDGER.models, must_sync=False)
            lane = LaneUnderTest(store)
            assert codes(applied(lane, opened("a")).outcomes) == [APPLIED]
            assert seen(lane) == []
