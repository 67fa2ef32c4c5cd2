import json
import stat
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from inlay_api.auth import LEEWAY_SECONDS, Verifier, actor_from, check_exposure, ensure_key, is_loopback, key_file, mint
from inlay_api.problems import Unauthenticated
from inlay_core.domain.errors import Forbidden, Invalid
from inlay_core.domain.identity import ActorKind, Role
from inlay_core.settings import Settings

NOW = 1_800_000_000
CLAIMS = {"iss": "https://idp", "aud": "inlay", "sub": "dr-1", "name": "Dr. Ada", "roles": ["radiologist"]}
KEY = ECKey.generate_key("P-256", {"use": "sig"}, private=True)
KEY.ensure_kid()


def issued(changes: Mapping[str, Any] | None = None, key: Any = KEY, alg: str = "ES256", kid: str | None = None) -> str:
    """A token of the issuer; a change to None leaves the claim out."""
    claims = {**CLAIMS, "iat": NOW, "exp": NOW + 60, **(changes or {})}
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode({"alg": alg, "kid": kid or key.kid}, kept, key, algorithms=[alg])


def settings_with(tmp_path: Path, *keys: Any) -> Settings:
    """Settings of a site whose issuer has these keys."""
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(KeySet(list(keys or (KEY,))).as_dict(private=False)))
    return Settings(home=tmp_path, auth="jwt", jwks_file=str(file), jwt_issuer="https://idp")


def refused(tmp_path: Path, token: str) -> str:
    """The code with which the token is refused."""
    with pytest.raises(Unauthenticated) as caught:
        Verifier(settings_with(tmp_path), now=lambda: NOW).actor_of(f"Bearer {token}")
    return caught.value.code


def test_a_good_token_names_a_person_with_roles(tmp_path: Path) -> None:
    """Subject, name and known roles become the actor; roles of other systems are passed over."""
    token = issued({"roles": ["radiologist", "janitor", 3]})
    actor = Verifier(settings_with(tmp_path), now=lambda: NOW).actor_of(f"Bearer {token}")
    assert (actor.id, actor.name, actor.kind) == ("dr-1", "Dr. Ada", ActorKind.PERSON)
    assert actor.roles == {Role.RADIOLOGIST}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": NOW - 31}, "token-expired"),
        ({"exp": None}, "token-incomplete"),
        ({"nbf": NOW + 31}, "token-wrong"),
        ({"iss": "https://other"}, "token-wrong"),
        ({"iss": None}, "token-incomplete"),
        ({"aud": "another-service"}, "token-wrong"),
        ({"aud": None}, "token-incomplete"),
        ({"sub": None}, "token-incomplete"),
        ({"sub": " "}, "token-wrong"),
        ({"roles": "radiologist"}, "token-wrong"),
        ({"name": None}, "token-incomplete"),
        ({"name": "a\x00b"}, "token-wrong"),
        ({"kind": "robot"}, "token-wrong"),
        ({"exp": "soon"}, "token-wrong"),
    ],
)
def test_claims_that_do_not_fit_are_refused(changes: Mapping[str, Any], code: str, tmp_path: Path) -> None:
    """Expiry, issuer, audience, subject and name are all needed, and each must fit."""
    assert refused(tmp_path, issued(changes)) == code


def test_clocks_may_differ_a_little(tmp_path: Path) -> None:
    """Half a minute of difference between two clocks is no reason to refuse."""
    verifier = Verifier(settings_with(tmp_path), now=lambda: NOW)
    assert verifier.actor_of(f"bearer {issued({'exp': NOW - 20, 'nbf': NOW + 20})}").id == "dr-1"


def test_signatures_of_strangers_are_refused(tmp_path: Path) -> None:
    """Another key under the same key id, no algorithm, and a shared secret made of the public key do not hold."""
    stranger = ECKey.generate_key("P-256", private=True)
    assert refused(tmp_path, issued(key=stranger, kid=KEY.kid)) == "token-invalid"
    head, body, _ = issued().split(".")
    unsigned = "eyJhbGciOiJub25lIn0"
    assert refused(tmp_path, f"{unsigned}.{body}.") == "token-invalid"
    assert refused(tmp_path, f"{head}.{body}.") == "token-invalid"
    secret = OctKey.import_key(json.dumps(KEY.as_dict(private=False)).ljust(64))
    assert refused(tmp_path, issued(key=secret, alg="HS256", kid=KEY.kid)) == "token-invalid"


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "Bearer  ", "Bearer a b c", f"Bearer {'x' * 9000}", "ab"])
def test_garbage_in_the_header_is_refused(header: str, tmp_path: Path) -> None:
    """What is no bearer token is answered as such and never raises anything else."""
    with pytest.raises(Unauthenticated):
        Verifier(settings_with(tmp_path)).actor_of(header)


def test_rsa_keys_of_an_issuer_work(tmp_path: Path) -> None:
    """Many providers sign with RSA: RS256 and PS256 are allowed."""
    key = RSAKey.generate_key(2048, private=True)
    key.ensure_kid()
    verifier = Verifier(settings_with(tmp_path, KEY, key), now=lambda: NOW)
    for algorithm in ("RS256", "PS256"):
        assert verifier.actor_of(f"Bearer {issued(key=key, alg=algorithm)}").id == "dr-1"


def test_new_keys_of_the_issuer_are_taken_without_a_restart(tmp_path: Path) -> None:
    """Issuers rotate their keys; the file is read again when it changed, and a broken one changes nothing."""
    fresh = ECKey.generate_key("P-256", private=True)
    fresh.ensure_kid()
    settings = settings_with(tmp_path)
    verifier = Verifier(settings, now=lambda: NOW)
    Path(settings.jwks_file).write_text("{broken")
    assert verifier.actor_of(f"Bearer {issued()}").id == "dr-1"
    settings_with(tmp_path, KEY, fresh)
    assert verifier.actor_of(f"Bearer {issued(key=fresh)}").id == "dr-1"


def test_a_token_that_was_seen_is_good_no_longer_than_before(tmp_path: Path) -> None:
    """It expires, and it ends with the key that signed it: what is remembered is that it held, not that it holds."""
    settings, clock = settings_with(tmp_path), [NOW]
    verifier = Verifier(settings, now=lambda: clock[0])
    authorization = f"Bearer {issued()}"
    assert [verifier.actor_of(authorization).id for _ in range(2)] == ["dr-1"] * 2
    clock[0] = NOW + 61 + LEEWAY_SECONDS
    with pytest.raises(Unauthenticated):
        verifier.actor_of(authorization)
    clock[0] = NOW
    assert verifier.actor_of(authorization).id == "dr-1"
    fresh = ECKey.generate_key("P-256", private=True)
    fresh.ensure_kid()
    settings_with(tmp_path, fresh)
    with pytest.raises(Unauthenticated):
        verifier.actor_of(authorization)


def test_a_token_that_was_seen_is_not_verified_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system sends the same token with each request; its signature is looked at once."""
    verifier = Verifier(settings_with(tmp_path), now=lambda: NOW)
    authorization = f"Bearer {issued()}"
    verifier.actor_of(authorization)
    monkeypatch.setattr(jwt, "decode", None)
    assert verifier.actor_of(authorization).id == "dr-1"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'])
def test_a_file_without_public_keys_is_a_bad_setting(text: str, tmp_path: Path) -> None:
    """A JWKS without a public key stops the start, naming the setting; shared secrets do not count."""
    file = tmp_path / "jwks.json"
    file.write_text(text)
    with pytest.raises(Invalid) as caught:
        Verifier(Settings(home=tmp_path, auth="jwt", jwks_file=str(file)))
    assert caught.value.place == "INLAY_JWKS_FILE"


def test_machines_are_no_persons() -> None:
    """A token with machine roles alone, or that says so, is a system's: a system never signs."""
    assert actor_from({"sub": "ehr", "roles": ["ehr"]}).kind is ActorKind.SYSTEM
    assert actor_from({"sub": "bot", "roles": ["radiologist"], "kind": "system"}).kind is ActorKind.SYSTEM
    assert actor_from({"sub": "x", "name": "X", "roles": ["ehr", "radiologist"]}).kind is ActorKind.PERSON


def test_nobody_becomes_a_process_of_ours() -> None:
    """A system without roles may generate; a token cannot make one."""
    with pytest.raises(Forbidden):
        actor_from({"sub": "inlay:worker", "roles": [], "kind": "system"})


def test_the_embedded_key_is_made_once_and_private(tmp_path: Path) -> None:
    """Processes that start at the same time agree on one key, and only its owner can read it."""
    settings = Settings(home=tmp_path / "new")
    with ThreadPoolExecutor(8) as pool:
        keys = {key.thumbprint() for key in pool.map(lambda _: ensure_key(settings), range(16))}
    assert len(keys) == 1
    assert stat.S_IMODE(key_file(settings).stat().st_mode) == 0o600
    assert [path.name for path in key_file(settings).parent.iterdir()] == [key_file(settings).name]


def test_minted_tokens_hold_until_they_expire(tmp_path: Path) -> None:
    """`inlay token` makes tokens that this home believes, for as long as was said, and no other home does."""
    settings = Settings(home=tmp_path / "a")
    token = mint(settings, "local:me", "Me", ["radiologist", "admin"], 0.5)
    actor = Verifier(settings).actor_of(f"Bearer {token}")
    assert (actor.id, actor.name, actor.roles) == ("local:me", "Me", {Role.RADIOLOGIST, Role.ADMIN})
    with pytest.raises(Unauthenticated, match="expired"):
        Verifier(settings, now=lambda: time.time() + 1900).actor_of(f"Bearer {token}")
    with pytest.raises(Unauthenticated, match="trusted"):
        Verifier(Settings(home=tmp_path / "b")).actor_of(f"Bearer {token}")


def test_tokens_are_minted_in_the_embedded_mode_only(tmp_path: Path) -> None:
    """Where a provider issues tokens, ours would be worth nothing."""
    with pytest.raises(Invalid):
        mint(Settings(home=tmp_path, auth="jwt"), "x", "X", ["ehr"], 1)
    with pytest.raises(Invalid):
        mint(Settings(home=tmp_path), "x", "X", ["ehr"], 0)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "inlay.hospital.example", ""])  # noqa: S104
def test_other_addresses_need_real_authentication(host: str, tmp_path: Path) -> None:
    """The embedded mode refuses every address that others can reach; with a provider's keys it is allowed."""
    with pytest.raises(Invalid) as caught:
        check_exposure(Settings(home=tmp_path, http_host=host))
    assert caught.value.place == "INLAY_HTTP_HOST"
    check_exposure(Settings(home=tmp_path, http_host=host, auth="jwt", jwks_file="keys.json"))
    with pytest.raises(Invalid):
        check_exposure(Settings(home=tmp_path, http_host=host, auth="jwt"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]"])
def test_loopback_is_loopback(host: str) -> None:
    """All spellings of this machine's own address are allowed."""
    assert is_loopback(host)
