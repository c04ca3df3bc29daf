#!/opt/secantus/bin/python
"""SecantusDB with the manners of `mongod --replSet NAME`: in no set before replSetInitiate, then its primary."""

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from secantus import commands
from secantus.server import SecantusDBServer

PORT = 27017
MEMBER = Path("/data/db/member.json")
OF_A_SET = ("setName", "setVersion", "hosts", "passives", "arbiters", "primary", "me", "electionId", "lastWrite")


def take_part(name: str) -> None:
    """Have the server answer as a member of this set, once it is told that it is one."""
    handlers: dict[str, Any] = commands._HANDLERS
    hello, status = handlers["hello"], handlers["replSetGetStatus"]

    def answer_hello(request: Any, context: Any) -> dict[str, Any]:
        answer: dict[str, Any] = hello(request, context)
        if not MEMBER.exists():
            outside = {key: value for key, value in answer.items() if key not in OF_A_SET}
            return outside | {"isWritablePrimary": False, "ismaster": False, "secondary": False, "isreplicaset": True}
        host = json.loads(MEMBER.read_text())
        return answer | {"setName": name, "hosts": [host], "me": host, "primary": host}

    def answer_status(request: Any, context: Any) -> dict[str, Any]:
        if MEMBER.exists():
            answer: dict[str, Any] = status(request, context)
            return answer | {"set": name}
        errmsg = "no replset config has been received"
        return {"ok": 0.0, "errmsg": errmsg, "code": 94, "codeName": "NotYetInitialized"}

    def initiate(request: Any, _context: Any) -> dict[str, Any]:
        if MEMBER.exists():
            return {"ok": 0.0, "errmsg": "already initialized", "code": 23, "codeName": "AlreadyInitialized"}
        config = request["replSetInitiate"]
        if config["_id"] != name:
            errmsg = f"the set is {name}"
            return {"ok": 0.0, "errmsg": errmsg, "code": 93, "codeName": "InvalidReplicaSetConfig"}
        MEMBER.write_text(json.dumps(config["members"][0]["host"]))
        return {"ok": 1.0}

    handlers |= {"hello": answer_hello, "isMaster": answer_hello, "ismaster": answer_hello}
    handlers |= {"replSetGetStatus": answer_status, "replSetInitiate": initiate}


def main() -> None:
    parser = argparse.ArgumentParser(prog="mongod", description=__doc__)
    parser.add_argument("--replSet")
    parser.add_argument("--bind_ip_all", action="store_true")
    name = parser.parse_args().replSet
    if name:
        take_part(name)
    server = SecantusDBServer(
        host="0.0.0.0",
        port=PORT,
        storage_path="/data/db/secantus",
        replica_set_name=name,
        enable_test_commands=False,
        cache_size="256M",
        sync_on_commit=True,
    )

    def stop(*_: object) -> None:
        server.stop()
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.start()
    print("Waiting for connections: SecantusDB stands in for MongoDB", flush=True)
    server.wait()


if __name__ == "__main__":
    main()
