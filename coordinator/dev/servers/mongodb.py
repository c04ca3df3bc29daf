"""A private MongoDB of one member, or its stand-in where no mongod is installed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from coordinator.dev.servers.addresses import HOST, database_url
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.programs import STAND_IN, find, require
from coordinator.dev.servers.server import Server

_REPLICA_SET = "rs0"
_NOT_YET_INITIALIZED = 94  # mongodb: src/mongo/base/error_codes.yml


class MongoDB(Server):
    """A one-member replica set, since transactions need one: mongod if there is one, else SecantusDB.

    The two do not read each other's files, so each has its own below the directory.
    """

    name = "mongodb"
    not_ready: ClassVar[tuple[type[Exception], ...]] = (PyMongoError,)

    def __init__(self, directory: Path, databases: Sequence[str], port: int | None = None) -> None:
        super().__init__(directory, port)
        self._databases = databases
        self._mongod = find("mongod")
        self.title = "MongoDB" if self._mongod else "SecantusDB"
        if self._mongod is None:
            self.note = (
                "no mongod is installed: SecantusDB stands in for it here; real deployments use mongod "
                "(https://www.mongodb.com/docs/manual/administration/install-on-linux/)"
            )

    @property
    def url(self) -> str:
        """The address of its first database. Databases come into being by themselves."""
        return database_url("mongodb", self.port, self._databases[0])

    @property
    def data(self) -> Path:
        return self.directory / ("data" if self._mongod else "stand-in")

    def _prepare(self) -> None:
        self.data.mkdir(exist_ok=True)
        if self._mongod is None:
            # An empty configuration of its own, so that it does not search other directories for one.
            (self.directory / "secantusd.toml").write_text("")

    def _launch(self) -> Process:
        listen = ["--port", str(self.port)]
        command: list[str | Path]
        if self._mongod:
            listen += ["--bind_ip", HOST, "--nounixsocket"]
            command = [self._mongod, "--dbpath", self.data, "--replSet", _REPLICA_SET, *listen]
        else:
            listen += ["--host", HOST]
            configuration = ["--config", str(self.directory / "secantusd.toml"), "--cache-size", "256M"]
            command = [
                require(STAND_IN),
                "--storage-path",
                self.data,
                "--sync-on-commit",
                *configuration,
                *listen,
            ]
        return Process(command, log_path=self.log_path, directory=self.data)

    def _probe(self) -> str:
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
            self.url, serverSelectionTimeoutMS=1000, connectTimeoutMS=5000, socketTimeoutMS=20_000
        )
        with client:
            if self._mongod:
                self._make_replica_set(client)
            if not client.admin.command("hello").get("isWritablePrimary"):
                raise PyMongoError("it is not the primary yet")
            return str(client.server_info()["version"])

    def _make_replica_set(self, client: "pymongo.MongoClient[dict[str, Any]]") -> None:
        """Initiate the replica set, or move it to the port that we have now."""
        member = {"_id": 0, "host": f"{HOST}:{self.port}"}
        try:
            current: Mapping[str, Any] = client.admin.command("replSetGetConfig")["config"]
        except OperationFailure as error:
            if error.code != _NOT_YET_INITIALIZED:
                raise
            client.admin.command("replSetInitiate", {"_id": _REPLICA_SET, "members": [member]})
            return
        if current["members"][0]["host"] != member["host"]:
            moved = {
                **current,
                "members": [{**current["members"][0], **member}],
                "version": current["version"] + 1,
            }
            client.admin.command("replSetReconfig", moved, force=True)
