from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from inlay_core.domain.errors import Invalid
from inlay_core.settings import Settings, reference


def test_nothing_set_is_the_embedded_mode() -> None:
    """Without any variable: SQLite and images in the home folder, loopback addresses, no result target."""
    settings = Settings.from_env({})
    assert settings.database == f"sqlite:///{Path('var').absolute() / 'inlay.sqlite'}"
    assert (settings.http_host, settings.mllp_host, settings.images) == ("127.0.0.1", "127.0.0.1", Path("var/images"))
    assert settings.oru_address is None
    assert not settings.demo_model_on_any_study
    assert not settings.prompt_with_reason
    assert settings.fhir_draft_status == "partial"


def test_each_kind_of_variable_is_read() -> None:
    """Folders, texts, numbers and switches are read; an empty variable counts as not set."""
    settings = Settings.from_env(
        {
            "INLAY_HOME": "/srv/inlay",
            "INLAY_DATABASE_URL": "postgresql+psycopg://u:p@h/d",
            "INLAY_STEPS": "24",
            "INLAY_LEASE_SECONDS": "7.5",
            "INLAY_KILL_SWITCH": "Yes",
            "INLAY_DRAFT": "off",
            "INLAY_ORU_TARGET": "[::1]:2576",
            "INLAY_HTTP_PORT": "",
            "UNRELATED": "x",
        }
    )
    assert (settings.home, settings.database, settings.steps) == (
        Path("/srv/inlay"),
        "postgresql+psycopg://u:p@h/d",
        24,
    )
    assert (settings.lease_seconds, settings.kill_switch, settings.draft, settings.http_port) == (
        7.5,
        True,
        False,
        8080,
    )
    assert settings.oru_address == ("::1", 2576)


@pytest.mark.parametrize(
    ("said", "meant"), [("", None), ("auto", None), (" Auto ", None), ("true", True), ("1", True), ("off", False)]
)
def test_graphs_and_kernels_are_used_where_there_is_a_gpu_unless_it_is_said(said: str, meant: bool | None) -> None:
    """Not set and auto are the same: the model looks where it stands. true and false hold anywhere."""
    assert Settings.from_env({"INLAY_ACCELERATE": said}).accelerate is meant


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("INLAY_HTTP_PORT", "secret-port"),
        ("INLAY_ACCELERATE", "secret-fast"),
        ("INLAY_KILL_SWITCH", "secret-maybe"),
        ("INLAY_LEASE_SECONDS", "secret-long"),
        ("INLAY_AUTH", "secret-none"),
        ("INLAY_FHIR_DRAFT_STATUS", "final"),
        ("INLAY_LOG_LEVEL", "secret-loud"),
        ("INLAY_PREFIX_CACHE_MIB", "-512"),
        ("INLAY_MODEL_DIGEST", "secret-digest"),
        ("INLAY_MODEL_DIGEST", "AB" * 32),
    ],
)
def test_unreadable_settings_name_the_variable_and_never_the_value(variable: str, value: str) -> None:
    """The error says which variable is wrong and what is expected of it."""
    with pytest.raises(Invalid) as refused:
        Settings.from_env({variable: value})
    assert refused.value.place == variable
    assert value not in str(refused.value)


def test_a_target_without_a_port_is_refused() -> None:
    """host:port is the only form of a target."""
    with pytest.raises(Invalid):
        _ = Settings(oru_target="ris.hospital").oru_address


@pytest.mark.parametrize(
    ("given", "order"),
    [
        ("", ["indication", "technique", "comparison", "findings", "impression"]),
        ("impression, findings", ["indication", "technique", "comparison", "impression", "findings"]),
        (
            "impression,indication,technique,comparison,findings",
            ["impression", "indication", "technique", "comparison", "findings"],
        ),
    ],
)
def test_a_site_has_its_own_order_of_sections(given: str, order: list[str]) -> None:
    """What the site does not name comes first, as usual."""
    assert list(Settings.from_env({"INLAY_SECTION_ORDER": given}).sections) == order


@pytest.mark.parametrize("given", ["impression,conclusion", "findings,findings"])
def test_an_order_of_unknown_or_repeated_sections_is_refused(given: str) -> None:
    """It is refused at the start, not at the first report."""
    with pytest.raises(Invalid) as refused:
        Settings.from_env({"INLAY_SECTION_ORDER": given})
    assert refused.value.place == "INLAY_SECTION_ORDER"


def test_a_time_zone_that_does_not_exist_is_refused() -> None:
    """A misspelt zone would shift every study: it is refused at the start, not at the first image."""
    with pytest.raises(Invalid) as refused:
        Settings.from_env({"INLAY_TIME_ZONE": "Europe/Wien"})
    assert refused.value.place == "INLAY_TIME_ZONE"
    assert str(Settings.from_env({"INLAY_TIME_ZONE": "Europe/Vienna"}).zone) == "Europe/Vienna"


def test_passwords_are_not_printed() -> None:
    """URLs that may carry a password are left out of repr, and marked for those who list settings."""
    settings = Settings.from_env(
        {f"INLAY_{name}_URL": "scheme://u:geheim@h" for name in ("DATABASE", "BROKER", "REDIS")}
    )
    assert "geheim" not in repr(settings)
    secret = {field.name for field in dataclasses.fields(Settings) if field.metadata["secret"]}
    assert secret == {
        *("database_url", "broker_url", "redis_url"),
        *("subscription_secret", "oidc_client_secret", "traces_headers"),
    }


def test_every_setting_is_documented() -> None:
    """The reference names every variable with a text of what it does, and the stored page is the current one."""
    page = reference()
    for field in dataclasses.fields(Settings):
        assert f"`INLAY_{field.name.upper()}`" in page
        assert field.metadata["help"].endswith(".")
    stored = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"
    assert stored.read_text(encoding="utf-8") == page


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    """The last line break of a file of a secret does not count; a file beside the variable, or none, is refused."""
    secret = tmp_path / "database"
    secret.write_text("postgresql://u:geheim@h/d\n", encoding="utf-8")
    variable = "INLAY_DATABASE_URL_FILE"
    assert Settings.from_env({variable: str(secret)}).database == "postgresql://u:geheim@h/d"
    for wrong in (
        {variable: str(secret), "INLAY_DATABASE_URL": "sqlite://"},
        {variable: str(tmp_path / "none")},
    ):
        with pytest.raises(Invalid) as refused:
            Settings.from_env(wrong)
        assert refused.value.place == variable
        assert "geheim" not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    ["Bearer geheim", "=geheim", "a=", "a=b,geheim", "a=x;geheim", "a=geheim%0Ab=c", "a b=geheim", "a=%E9geheim"],
)
def test_headers_for_a_collector_are_refused_without_quoting_them(wrong: str) -> None:
    """What is no list of name=value in the form of OTEL_EXPORTER_OTLP_HEADERS ends the start."""
    with pytest.raises(Invalid) as refused:
        Settings.from_env({"INLAY_TRACES_HEADERS": wrong})
    assert refused.value.place == "INLAY_TRACES_HEADERS"
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("right", ["authorization=Bearer%20geheim==", "a=b, x-tenant=the radiology,", "a=1/2:3.4-5"])
def test_headers_for_a_collector_stand_in_the_form_of_its_own_variable(right: str) -> None:
    """Percent-encoded or as they are, several with commas."""
    assert Settings.from_env({"INLAY_TRACES_HEADERS": right}).traces_headers == right


def test_only_secrets_are_read_from_files(tmp_path: Path) -> None:
    """A variable that holds no secret has no file: its name with _FILE means nothing."""
    other = tmp_path / "port"
    other.write_text("9999", encoding="utf-8")
    assert Settings.from_env({"INLAY_HTTP_PORT_FILE": str(other)}).http_port == Settings().http_port
