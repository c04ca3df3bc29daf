"""The commands of docs/MIGRATING.md, run one after the other in an empty folder, do what that page says."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from sqlalchemy import text

from coordinator.dev.servers.ports import free_port
from tests.support.databases import FreshDatabases, sql_engine

pytestmark = pytest.mark.upgrades

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "MIGRATING.md").read_text()
INSTALL = re.compile(r"^pip install .*\n", re.MULTILINE)
SOLD = [997, 994, 991, 985]
"""What the page says that its sales print; the gateway's answer comes between the last two."""


def _script(amqp_url: str, target: str) -> str:
    """All of its commands, in order; those that go on in the background write to files of their own."""
    script = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
    script = INSTALL.sub("", script).replace("8081", str(free_port())).replace("9101", str(free_port()))
    script = re.sub(r"AMQP_URL=\S+", f"AMQP_URL={amqp_url}", script)
    script = re.sub(r"NEW=postgresql\S+", f"NEW={target}", script)
    parts = script.split(" &\n")
    logged = "".join(f"{part} >background-{number}.log 2>&1 &\n" for number, part in enumerate(parts[:-1]))
    return f"set -e\n{logged}{parts[-1]}! python -m warehouse.sell 7 5000\n"


@pytest.mark.authors
@pytest.mark.timeout(240)
def test_its_commands_take_a_table_from_a_monolith_to_a_service_on_another_database(
    databases: FreshDatabases, tmp_path: Path
) -> None:
    target = databases.new("USERS_DATABASE_URL")
    _, administrators = databases.environments()
    shutil.copytree(DOCS / "examples" / "warehouse", tmp_path / "warehouse")
    (tmp_path / "script").write_text(_script(administrators["AMQP_URL"], target))
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONUNBUFFERED": "1",
    }
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            ["bash", "script"],
            cwd=tmp_path,
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        status = process.wait(200)
    finally:
        # And what it has left in the background.
        os.killpg(process.pid, signal.SIGKILL)
    output = (tmp_path / "said").read_text()
    logs = [path.read_text() for path in sorted(tmp_path.glob("background-*.log"))]
    assert status == 0, "\n".join([output, *logs])
    assert [int(line) for line in output.splitlines() if line.isdigit()] == SOLD
    assert '"stock":988' in output
    assert all(f"`{number}`" in PAGE for number in SOLD)
    assert output.splitlines()[-1] == "product 7: 985 are left"
    assert "warehouse has moved to postgresql://" in output
    # The coordinator of the file said where its lane went.
    assert "has moved to postgresql://" in logs[0]
    engine = sql_engine(target)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*), sum(stock) FROM products")).one() == (2000, 2_000_000 - 15)
        assert connection.execute(text("SELECT stock, version FROM products WHERE id = 7")).one() == (985, 5)
        found = connection.execute(text("SELECT sequence FROM command_log ORDER BY sequence")).scalars().all()
    engine.dispose()
    assert found == [1, 2, 3, 4, 5]


def _owner_statements(owner: str, role: str, database: str) -> list[str]:
    """What the page has an administrator run; the session's owner of databases is the one that migrates here."""
    (block,) = re.findall(r"```sql\n(CREATE ROLE.*?)```", PAGE, re.DOTALL)
    statements = [line.rstrip(";") for line in block.splitlines() if not line.startswith("CREATE ROLE")]
    names = {"warehouse_owner": f'"{owner}"', "DATABASE shop": f'DATABASE "{database}"', "TO shop": f"TO {role}"}
    names["PUBLIC, shop"] = f"PUBLIC, {role}"
    for name, given in names.items():
        statements = [each.replace(name, given) for each in statements]
    return statements


@pytest.mark.authors
@pytest.mark.timeout(120)
def test_its_roles_take_the_right_to_write_from_the_application_as_it_was(
    databases: FreshDatabases, tmp_path: Path
) -> None:
    url = databases.new("USERS_DATABASE_URL")
    parts = urlsplit(url)
    number = os.getpid()
    role, lane_role = f"shop_{number}", f"warehouse_lane_{number}"
    shutil.copytree(DOCS / "examples" / "warehouse", tmp_path / "warehouse")

    def as_role(name: str) -> str:
        return urlunsplit(parts._replace(netloc=f"{name}:password@{parts.hostname}:{parts.port}"))

    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COORDINATOR_APP": "warehouse.service:warehouse",
        "PYTHONPATH": ".",
    }

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, cwd=tmp_path, env=environment | settings, capture_output=True, text=True, check=False, timeout=60
        )

    def execute(*statements: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            for each in statements:
                connection.execute(each.encode())

    before = {"APPLICATION_URL": as_role(role).replace("postgresql://", "postgresql+psycopg://")}
    execute(f"CREATE ROLE {role} LOGIN PASSWORD 'password'", f"GRANT USAGE, CREATE ON SCHEMA public TO {role}")
    try:
        filled = run(sys.executable, "-m", "warehouse.before", "fill", "20", **before)
        assert filled.returncode == 0, filled.stderr
        execute(f"GRANT {role} TO CURRENT_USER")
        execute(*_owner_statements(str(parts.username), role, parts.path.strip("/")))
        execute(f"REVOKE {role} FROM CURRENT_USER", "ALTER TABLE products ADD COLUMN version BIGINT DEFAULT 1 NOT NULL")
        (block,) = re.findall(r"```bash\nexport APPLICATION_URL=.*?\n(coordinator .*?)```", PAGE, re.DOTALL)
        settings = {"WAREHOUSE_DATABASE_URL": as_role(lane_role), "WAREHOUSE_MIGRATION_URL": url}
        sold = run(sys.executable, "-m", "warehouse.before", "sell", "7", "3", **before)
        assert sold.stdout == "997\n", sold.stderr
        with psycopg.connect(as_role(role)) as connection:
            # It goes on inserting rows, too.
            connection.execute("SELECT nextval('products_id_seq')")
        ran = run("bash", "-ec", re.sub(r"^export .*\n", "", block, flags=re.MULTILINE), **settings)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert f"no role may write its tables but {lane_role}" in ran.stdout
        refused = run(sys.executable, "-m", "warehouse.before", "sell", "7", "3", **before)
        assert refused.returncode == 1
        assert "permission denied for table products" in refused.stderr
        lane = {"WAREHOUSE_DATABASE_URL": settings["WAREHOUSE_DATABASE_URL"]}
        sold = run(sys.executable, "-m", "warehouse.sell", "7", "3", **before, **lane)
        assert sold.stdout == "994\n", sold.stderr
    finally:
        for each in (role, lane_role):
            execute(f"DROP OWNED BY {each}", f"DROP ROLE {each}")
