"""The rows of DBOS and Restate: what this machine cannot have is left out by name, and the others stay."""

import json
from pathlib import Path

import pytest

from tests.bench.benchmark import available
from tests.bench.catalogue import rows
from tests.bench.durable.packages import RESTATE, CannotBeHad, installed_restate, require_package
from tests.bench.durable.serving import REQUIRED_BY, SERVED_BY, server_settings


def test_a_machine_without_npm_runs_all_other_rows_and_says_which_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    def without_npm() -> object:
        return installed_restate(tmp_path / "none")

    monkeypatch.setitem(REQUIRED_BY, "restate", without_npm)
    monkeypatch.setitem(REQUIRED_BY, "dbos", lambda: require_package("no_such_package"))
    chosen = [row for row in rows() if row.section == "http"]
    kept, left_out = available(chosen)
    assert {row.key for row in chosen} - {row.key for row in kept} >= {"http/restate", "http/dbos"}
    assert (
        "Restate, a virtual object an account, 64 connections: npm, which has its server, is not installed" in left_out
    )
    assert any(text.startswith("DBOS") and "no_such_package is not installed" in text for text in left_out)
    assert "http/lane" in {row.key for row in kept}


def test_what_npm_cannot_fetch_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, script in (("npm", "#!/bin/sh\necho 'npm error network unreachable' >&2\nexit 1\n"), ("node", "")):
        program = tmp_path / name
        program.write_text(script)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(CannotBeHad, match="npm cannot fetch its packages: npm error network unreachable"):
        installed_restate(tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == [], "half of it is left"


def test_each_row_has_somebody_who_serves_it_and_says_what_it_takes() -> None:
    modes = {row.gateway_mode for row in rows() if row.is_durable}
    assert modes == set(SERVED_BY) == set(REQUIRED_BY)


def test_all_packages_of_npm_are_pinned_with_their_digests_and_name_no_registry() -> None:
    lock = json.loads((RESTATE / "package-lock.json").read_text())
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert len(packages) > 10
    assert all(one["integrity"].startswith("sha512-") and "resolved" not in one for one in packages.values())


def test_the_server_of_restate_listens_on_loopback_alone() -> None:
    settings = server_settings(Path("data"), ingress=1, admin=2, node=3)
    bound = {value for name, value in settings.items() if name.endswith("BIND_ADDRESS")}
    assert bound == {"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}
    assert settings["RESTATE_LISTEN_MODE"] == "tcp"
    assert settings["RESTATE_DISABLE_TELEMETRY"] == "true"
