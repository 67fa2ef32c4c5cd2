"""Networks that can be cut: each process in a network namespace of its own, with a cable (a veth pair) to this one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from inlay_testkit.drills.skipped import Skipped
from inlay_testkit.peers import PeerMissing, find_program


class Cables:
    """A namespace for each name; `middle` is the address of all that is here, `ends` are those of the processes.

    A cable that is pulled drops what is under way, as a switch does that loses its power: nobody is told that a
    connection is over. Raises Skipped where this machine permits no namespaces.
    """

    def __init__(self, names: Sequence[str]) -> None:
        number = os.getpid()
        # A network that no site uses (RFC 2544), a part of it for each process that drills at the same time.
        part = f"198.{18 + (number >> 13) % 2}.{number >> 5 & 255}"
        first = (number & 31) * 8 + 1
        self.middle = f"{part}.{first}"
        self.ends = {name: f"{part}.{first + place}" for place, name in enumerate(names, 1)}
        self._spaces = {name: f"inlay-{number}-{name}" for name in names}
        self._plugs = {name: f"inl{number % 10_000_000}{place}" for place, name in enumerate(names)}

    def __enter__(self) -> Self:
        try:
            for name in self.ends:
                self._lay(name)
        except PeerMissing as missing:
            raise Skipped(f"no network namespaces: {missing}") from None
        except subprocess.CalledProcessError as refused:
            self._remove()
            said = refused.stderr.decode(errors="replace").strip()
            raise Skipped(f"no network namespaces: {said or refused}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def behind(self, name: str) -> tuple[str, ...]:
        """What to put before a command so that it runs at the end of that cable."""
        return (str(find_program("ip")), "netns", "exec", self._spaces[name])

    def pull(self, name: str) -> None:
        """Nothing goes through from now on."""
        _ip("link", "set", self._plugs[name], "down")

    def plug(self, name: str) -> None:
        """As before."""
        _ip("link", "set", self._plugs[name], "up")
        # A route ends with the link that it uses.
        _ip("route", "replace", self.ends[name], "dev", self._plugs[name], "src", self.middle)

    def _lay(self, name: str) -> None:
        space, plug = self._spaces[name], self._plugs[name]
        _ip("netns", "add", space)
        _ip("link", "add", plug, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("address", "add", self.middle, "peer", self.ends[name], "dev", plug)
        _ip("-n", space, "address", "add", self.ends[name], "peer", self.middle, "dev", "eth0")
        for each in ("lo", "eth0"):
            _ip("-n", space, "link", "set", each, "up")
        self.plug(name)

    def _remove(self) -> None:
        for space in self._spaces.values():
            # The cable goes with its end.
            subprocess.run([str(find_program("ip")), "netns", "delete", space], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run([str(find_program("ip")), *arguments], check=True, capture_output=True)
