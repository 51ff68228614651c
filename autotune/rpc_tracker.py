"""What is asked of an RPC tracker: which servers it knows, and a session with one."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any

from ..errors import DeviceUnavailableError, OptionError

_SECONDS = 5.0
"""For a tracker to answer."""


@dataclass(frozen=True)
class Tracker:
    """A tracker's address, and what can be asked of it.

    TVM's own client waits for ever for a key that nobody serves, and a minute for a tracker that is not there; this one does not.
    """

    host: str
    port: int

    @staticmethod
    def parse(text: str) -> Tracker:
        """``HOST:PORT``; OptionError when it is not that."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise OptionError(f"'{text}' is no address of a tracker; give HOST:PORT, such as 127.0.0.1:9190")
        return Tracker(host, int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def servers(self) -> dict[str, list[str]]:
        """The addresses of the servers under each key."""
        from tvm.rpc.base import TrackerCode

        found: dict[str, list[str]] = {}
        for server in self._ask([TrackerCode.SUMMARY])[1]["server_info"]:
            host, port = server["addr"]
            found.setdefault(server["key"].removeprefix("server:"), []).append(f"{host}:{port}")
        return found

    def free(self, key: str) -> int:
        """How many servers with ``key`` are free."""
        from tvm.rpc.base import TrackerCode

        return int(self._ask([TrackerCode.SUMMARY])[1]["queue_info"].get(key, {}).get("free", 0))

    def request(self, key: str) -> tuple[str, int, str]:
        """Host, port and session key of a free server. DeviceUnavailableError when there is none."""
        from tvm.rpc.base import TrackerCode

        host, port, session_key = self._ask([TrackerCode.REQUEST, key, "", 1])[1]
        return host, port, session_key

    def _ask(self, question: list[Any]) -> Any:
        from tvm.rpc.base import RPC_TRACKER_MAGIC, TrackerCode, recvall, recvjson, sendjson

        try:
            with socket.create_connection((self.host, self.port), _SECONDS) as connection:
                connection.sendall(struct.pack("<i", RPC_TRACKER_MAGIC))
                if struct.unpack("<i", recvall(connection, 4))[0] != RPC_TRACKER_MAGIC:
                    raise DeviceUnavailableError(f"what answers at {self} is no RPC tracker; 'mlc devices tracker' starts one")
                sendjson(connection, question)
                answer = recvjson(connection)
        except OSError as error:
            raise DeviceUnavailableError(f"no tracker answers at {self} ({error}); 'mlc devices tracker' starts one") from error
        if answer[0] != TrackerCode.SUCCESS:
            raise DeviceUnavailableError(f"the tracker at {self} refuses: {answer}")
        return answer
