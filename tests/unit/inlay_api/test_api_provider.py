import json
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from inlay_api.auth import Verifier, role_map, with_roles
from inlay_api.keys import UrlKeys
from inlay_core.domain.errors import Invalid, Unavailable
from inlay_core.domain.identity import Role
from inlay_core.settings import Settings

OLD = ECKey.generate_key("P-256", {"kid": "old", "use": "sig"}, private=True)
NEW = ECKey.generate_key("P-256", {"kid": "new", "use": "sig"}, private=True)


class Provider:
    """A JWKS at a URL, with a clock; `away` makes it unreachable."""

    def __init__(self, *keys: ECKey) -> None:
        self.keys, self.asked, self.away, self.now = list(keys), 0, False, 0.0

    def fetch(self, _url: str) -> Any:
        """The document."""
        self.asked += 1
        if self.away:
            raise Unavailable("keys-unavailable", "Away.")
        return KeySet(list(self.keys)).as_dict(private=False)

    def source(self) -> UrlKeys:
        """The keys as Inlay keeps them."""
        return UrlKeys("https://idp.test/jwks", "INLAY_JWKS_URL", self.fetch, lambda: self.now)


def kids(keys: KeySet) -> set[str | None]:
    """The names of keys."""
    return {key.kid for key in keys.keys}


def test_keys_are_asked_for_once_in_a_while() -> None:
    """Not per token: once, then again after ten minutes."""
    provider = Provider(OLD)
    source = provider.source()
    for _ in range(5):
        assert kids(source.current("old")) == {"old"}
    assert provider.asked == 1
    provider.now = 601.0
    source.current("old")
    assert provider.asked == 2


def test_a_new_key_is_found_at_once_but_not_by_a_flood() -> None:
    """A token with an unknown key makes Inlay look again, at most every quarter of a minute."""
    provider = Provider(OLD)
    source = provider.source()
    source.current("old")
    provider.keys.append(NEW)
    for _ in range(9):
        source.current("unknown")
    assert provider.asked == 1
    provider.now = 16.0
    assert kids(source.current("new")) == {"old", "new"}
    assert provider.asked == 2


def test_a_provider_that_is_away_locks_nobody_out() -> None:
    """Keys that were read stay good; who never had any gets a clear error."""
    provider = Provider(OLD)
    source = provider.source()
    source.current()
    provider.away, provider.now = True, 1000.0
    assert kids(source.current("old")) == {"old"}
    never = Provider()
    never.away = True
    with pytest.raises(Unavailable):
        never.source().current()


@pytest.mark.parametrize("url", ["http://idp.example/jwks", "ftp://idp/jwks", "jwks", "file:///etc/jwks"])
def test_keys_come_over_tls(url: str) -> None:
    """Whoever could change the keys on the way could be anybody."""
    with pytest.raises(Invalid):
        UrlKeys(url, "INLAY_JWKS_URL")


def test_the_providers_roles_become_ours() -> None:
    """The claim may be nested, or one text; with a map only what it names counts."""
    table = role_map("Radiologie Ärzte=radiologist, IT=admin")
    assert table == {"Radiologie Ärzte": Role.RADIOLOGIST, "IT": Role.ADMIN}
    claims = {"realm_access": {"roles": ["Radiologie Ärzte", "radiologist", 7]}}
    assert with_roles(claims, "realm_access.roles", table)["roles"] == ["radiologist"]
    assert with_roles({"groups": "IT"}, "groups", table)["roles"] == ["admin"]
    assert with_roles({"https://x.y/roles": ["auditor"]}, "https://x.y/roles", {})["roles"] == ["auditor"]
    assert with_roles({"roles": ["admin"]}, "groups", table)["roles"] == []


@pytest.mark.parametrize("text", ["radiologist", "a=nobody", "=admin"])
def test_a_wrong_map_is_refused(text: str) -> None:
    """A misspelt role is told at the start: it would take somebody's rights, or give them."""
    with pytest.raises(Invalid):
        role_map(text)


def test_a_verifier_maps_roles(tmp_path: Path) -> None:
    """A token of the provider with its own names for roles is a radiologist's here."""
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(KeySet([OLD]).as_dict(private=False)))
    settings = Settings(
        home=tmp_path, auth="jwt", jwks_file=str(file), role_claim="resource.roles", role_map="Doctors=radiologist"
    )
    claims = {
        "iss": "inlay",
        "aud": "inlay",
        "sub": "dr",
        "name": "Dr. A",
        "exp": 200,
        "resource": {"roles": ["Doctors"]},
    }
    token = jwt.encode({"alg": "ES256", "kid": "old"}, claims, OLD)
    assert Verifier(settings, now=lambda: 100).actor_of(f"Bearer {token}").roles == {Role.RADIOLOGIST}
