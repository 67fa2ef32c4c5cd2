from inlay_api.oidc import joined


def test_what_a_token_leaves_empty_comes_from_userinfo() -> None:
    """Some providers put empty claims into the ID token and the true ones into userinfo; what the token says wins."""
    claims = {"sub": "7", "name": "", "roles": [], "amr": []}
    userinfo = {"sub": "7", "name": "Rada", "roles": ["reader"], "email": "r@example.org"}
    assert joined(claims, userinfo) == {**userinfo, "amr": []}
    assert joined({"sub": "7", "name": "R. Phantom"}, userinfo)["name"] == "R. Phantom"
