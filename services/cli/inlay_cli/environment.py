"""Hands the process environment to `inlay_core.settings`, and on to children. Nothing else here looks inside it."""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inlay_cli.parsing import CommandError

if TYPE_CHECKING:
    from inlay_core.bootstrap import Services
    from inlay_core.domain.identity import Actor
    from inlay_core.settings import Settings

# sysexits.h: "something was found in an unconfigured or misconfigured state".
MISCONFIGURED = 78


def read_settings() -> "Settings":
    """The settings of this process; CommandError, naming the variable, where one cannot be read."""
    from inlay_core.domain.errors import Invalid
    from inlay_core.settings import Settings

    try:
        return Settings.from_env(os.environ)
    except Invalid as error:
        raise CommandError(f"{error.place}: {error.message}", status=MISCONFIGURED) from error


@contextmanager
def opened(settings: "Settings") -> "Iterator[Services]":
    """The database of these settings for one command, closed again afterwards."""
    from inlay_core.bootstrap import bootstrap

    services = bootstrap(settings)
    try:
        yield services
    finally:
        services.close()


def administrator() -> "Actor":
    """Whoever runs commands on this machine, by the name of their account: the trail says who did it."""
    import getpass

    from inlay_core.domain.identity import Actor, Role

    account = getpass.getuser()
    return Actor(id=f"cli:{account}", name=account, roles=frozenset({Role.ADMIN}))


def child_environment(changes: Mapping[str, str], keep: Collection[str]) -> dict[str, str]:
    """This process' environment for a child with settings of its own: of ours, only those named in `keep` pass on."""
    passed = {name: value for name, value in os.environ.items() if not name.startswith("INLAY_") or name in keep}
    return {**passed, **changes}
