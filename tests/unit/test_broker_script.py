"""The script that makes accounts, as a shell runs it that reads it bit by bit."""

import subprocess
from pathlib import Path

from coordinator.accounts.broker_script import lines_of
from coordinator.transports.rabbitmq.rights import BrokerAccount, BrokerRights

RIGHTS = BrokerRights(configure="^$", write="^writes$", read="^$")


def test_no_command_of_the_script_takes_the_rest_of_it_for_its_input(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    accounts = [
        BrokerAccount(name=name, whose="a lane", rights=RIGHTS, limits={"max-channels": 1}) for name in ("one", "two")
    ]
    script = "\n".join(lines_of(accounts, "/", dict.fromkeys(("one", "two"), tmp_path / "password"))) + "\n"
    # Like an Erlang, it reads whatever is there.
    stub = 'rabbitmqctl() { cat > /dev/null; echo "$1" "$2"; }\n'
    done = subprocess.run(["bash", "-e"], input=stub + script, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split("\n") == [
        "add_user one",
        "set_permissions -p",
        "set_user_limits one",
        "add_user two",
        "set_permissions -p",
        "set_user_limits two",
        "",
    ]
