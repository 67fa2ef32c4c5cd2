"""Every setting of Inlay, documented here and read from the environment here only.

`docs/reference/settings.md` is generated from this file; `Settings.from_env` is called once, at the start of a process.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Final
from urllib.parse import unquote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from inlay_core.domain.errors import Invalid
from inlay_core.domain.fragment import order_of_sections
from inlay_core.domain.matching import PatientCheck
from inlay_core.domain.origins import is_private, origin_of

PREFIX: Final = "INLAY_"
# 45 CFR 164.316(b)(2)(i) asks for six years; a site whose law asks for more says so.
LEAST_AUDIT_DAYS: Final = 2192
FILE_SUFFIX: Final = "_FILE"
"""Behind the name of a secret setting: the file that it stands in."""


def _setting(default: Any, help_text: str, *, secret: bool = False) -> Any:
    """A documented field. Secret ones (they may carry a password) stay out of repr and of `inlay check`."""
    return dataclasses.field(default=default, metadata={"help": help_text, "secret": secret}, repr=not secret)


# ruff: noqa: RUF009 (each default is made once, by _setting, and none of them is mutable)
@dataclass(frozen=True, slots=True)
class Settings:
    """What a process is configured with. The environment variable of a field is INLAY_ and its name in capitals."""

    home: Path = _setting(Path("var"), "Folder of the embedded data: database, broker queues, keys.")
    database_url: str = _setting("", "SQLAlchemy URL. Empty: SQLite in INLAY_HOME.", secret=True)
    broker_url: str = _setting("", "Celery broker (redis://...). Empty: file queues in INLAY_HOME.", secret=True)
    redis_url: str = _setting("", "Redis for live progress. Empty: a throttled database row.", secret=True)
    redis_master: str = _setting("", "Name of the master, where a URL of Redis names sentinels (sentinel://...).")
    database_pool: int = _setting(10, "Connections that a process keeps to PostgreSQL; it may open as many more.")
    database_wait_seconds: float = _setting(10.0, "How long to wait for one of them.")
    database_statement_seconds: float = _setting(30.0, "PostgreSQL ends a statement that takes longer. 0: never.")
    database_lock_seconds: float = _setting(5.0, "PostgreSQL ends a statement that waits longer for a lock. 0: never.")
    http_host: str = _setting("127.0.0.1", "Address of the HTTP server.")
    http_port: int = _setting(8080, "Port of the HTTP server.")
    http_threads: int = _setting(16, "Threads per HTTP process. A live progress stream holds one.")
    rate_limits: str = _setting(
        "read=6000/minute write=1200/minute generate=300/minute token=60/minute refused=60/minute",
        "Requests of one client by class of route; off: no limits. Shared by all processes where there is a Redis.",
    )
    trusted_proxies: int = _setting(0, "Proxies before us whose X-Forwarded-For is believed.")
    max_streams: int = _setting(8, "Live progress streams per HTTP process; further ones are told to poll.")
    mllp_host: str = _setting("127.0.0.1", "Address of the MLLP listener.")
    mllp_port: int = _setting(2575, "Port of the MLLP listener.")
    mllp_max_frame: int = _setting(1_048_576, "Largest HL7 message in bytes; a larger one closes the connection.")
    mllp_max_connections: int = _setting(100, "MLLP connections at a time.")
    mllp_stall_seconds: float = _setting(30.0, "How long a message that has begun may stand still.")
    mllp_tls_certificate: str = _setting("", "PEM file: the listener's certificate. Empty: MLLP without TLS.")
    mllp_tls_key: str = _setting("", "PEM file: the key of INLAY_MLLP_TLS_CERTIFICATE.")
    mllp_tls_clients: str = _setting(
        "", "PEM file: authorities whose clients may connect. Empty: TLS without client certificates."
    )
    mllp_charset: str = _setting("windows-1252", "Character set of senders that leave MSH-18 empty.")
    hl7_mapping: str = _setting("", "TOML file: what holds per sending application. Empty: IHE RAD-4 for all.")
    application: str = _setting("INLAY", "Our name in HL7 messages (MSH-3).")
    facility: str = _setting("INLAY", "Our facility in HL7 messages (MSH-4).")
    oru_target: str = _setting("", "host:port that gets ORU^R01 for drafts and signed reports. Empty: none.")
    hl7_targets: str = _setting("", "TOML file: further targets of results, with filters and TLS. Empty: none.")
    oru_timeout_seconds: float = _setting(10.0, "How long to wait for the acknowledgement of an ORU.")
    dicom_host: str = _setting("127.0.0.1", "Address of the DICOM listener (C-ECHO, C-STORE).")
    dicom_port: int = _setting(11112, "Port of the DICOM listener.")
    dicom_config: str = _setting("", "TOML file: who may send images, which archive is asked, where reports go.")
    dicom_reports: str = _setting(
        "",
        "Where signed reports go as DICOM documents: dicomweb or dimse of INLAY_DICOM_CONFIG. Empty: nowhere.",
    )
    dicom_documents: str = _setting(
        "sr", "In which form signed reports go there: sr (Basic Text SR), pdf (Encapsulated PDF) or both."
    )
    images_folder: str = _setting("", "Watched folder of DICOM files. Empty: images in INLAY_HOME.")
    viewer_url: str = _setting(
        "", "Link from a report to an image viewer: a URL with {study_instance_uid} or {accession_number}. Empty: none."
    )
    time_zone: str = _setting("UTC", "Time zone of images that name none, for instance Europe/Vienna.")
    patient_check: str = _setting(
        "person",
        "What of an image's header must not contradict the order's patient: identifier; person (name, birth date and "
        "sex, too); strict (another assigner is another patient); off.",
    )
    model: str = _setting("", "Checkpoint: a folder or a hub id. Empty: the demonstration checkpoint that is shipped.")
    model_revision: str = _setting("", "Pinned revision of a hub checkpoint.")
    model_digest: str = _setting(
        "",
        "Digest of the only checkpoint that workers may serve (inlay model digest prints it). Empty: any.",
    )
    adapter: str = _setting("", "Folder of a PEFT adapter (LoRA) that is added to the checkpoint. Empty: none.")
    adapters: str = _setting("", "TOML file: adapters by sending site and modality. Empty: INLAY_ADAPTER for all.")
    device: str = _setting(
        "", "Torch device of the worker; auto spreads the model over all GPUs. Empty: the first GPU, else the CPU."
    )
    precision: str = _setting("bf16", "Precision of the model's experts: bf16, fp8 or 4bit.")
    accelerate: bool | None = _setting(
        None,
        "Run the model as captured graphs with own kernels; auto does so on a GPU. false: by the library's passes.",
    )
    demo_model_on_any_study: bool = _setting(
        False, "Let the demonstration model read studies that are no phantoms. Its words say nothing about them."
    )
    steps: int = _setting(16, "Denoising steps of a draft or an infill, unless the request says otherwise.")
    views: int = _setting(1, "Views of a study that a draft is made from, as far as the checkpoint reads several.")
    jobs_together: int = _setting(
        1, "Waiting jobs that a worker takes at once and denoises in one batch. More than 1 pays on a GPU."
    )
    prefix_cache_mib: int = _setting(
        512,
        "Memory of the worker's device, in MiB, in which encoded studies are kept for further texts. 0: none are kept.",
    )
    metrics_port: int = _setting(
        0,
        "Port of /metrics, /livez and /readyz, on INLAY_HTTP_HOST. 0: none; with INLAY_AUTH=embedded, the page's port "
        "has /metrics then. `inlay up` gives it to the worker.",
    )
    traces: bool = _setting(
        False, "Send OpenTelemetry traces (OTLP over HTTP) to where OTEL_* variables say. Needs the extra `traces`."
    )
    traces_headers: str = _setting(
        "",
        "Headers for their collector, besides those of OTEL_EXPORTER_OTLP_HEADERS and in its form: "
        "`authorization=Bearer%20TOKEN,x-tenant=radiology`.",
        secret=True,
    )
    warm_up: bool = _setting(
        False,
        "Draft and fill from a made-up picture before the first job is taken, alone and as many together as jobs may "
        "be, each unless it is stopped.",
    )
    report_style: str = _setting("", "Style of drafts, one that the model was trained in. Empty: its first.")
    section_order: str = _setting(
        "",
        "Order of the sections of reports from now on, for instance `impression,findings`; those that it does not name "
        "come first. Empty: indication, technique, comparison, findings, impression.",
    )
    draft: bool = _setting(True, "Intended use: drafts from images.")
    infill: bool = _setting(True, "Intended use: infill between locked fragments.")
    infill_without_images: bool = _setting(True, "Intended use: infill from the text alone, where images are missing.")
    kill_switch: bool = _setting(False, "Stop all generation; reading and signing go on.")
    prompt_with_reason: bool = _setting(
        False, "Let the order's free text (identifying) and imported text (earlier studies) reach the model."
    )
    fhir_draft_status: str = _setting("partial", "DiagnosticReport.status of drafts: partial or preliminary.")
    pdf_font: str = _setting("", "TrueType font of PDF reports. Empty: Bitstream Vera, for Latin scripts.")
    fhir_target: str = _setting("", "FHIR server that reports are written back to (https://ehr/fhir). Empty: none.")
    fhir_token_url: str = _setting("", "Token endpoint of that server.")
    fhir_client_id: str = _setting("", "Our client id there (SMART Backend Services). Empty: it asks for no token.")
    fhir_client_key: str = _setting("", "File with our private key (JWK: RSA, or EC on P-384) for that server.")
    fhir_scope: str = _setting("system/*.cruds", "Scopes that we ask that server for.")
    auth: str = _setting("embedded", "embedded: a key pair in INLAY_HOME, loopback only. jwt: tokens of your provider.")
    jwks_file: str = _setting("", "Public keys (JWKS) of the token issuer, for INLAY_AUTH=jwt.")
    jwks_url: str = _setting("", "URL of those keys, in place of a file: the provider's jwks_uri.")
    role_claim: str = _setting("roles", "Claim with a person's roles; dots lead into objects (realm_access.roles).")
    role_map: str = _setting("", "The provider's roles as Inlay's: Doctors=radiologist,IT=admin. Empty: same names.")
    smart_clients: str = _setting("", "TOML file: systems that get tokens by SMART Backend Services. Empty: none.")
    smart_key_file: str = _setting("", "Private key (JWK, P-384) that signs their tokens. Empty: one in INLAY_HOME.")
    public_url: str = _setting("", "URL under which others reach Inlay. Empty: as each request names it.")
    subscription_origins: str = _setting(
        "", "Where subscribers may be told: https://ehr.example.org,... Empty: nowhere."
    )
    subscription_secret: str = _setting(
        "", "Key that signs notifications (HMAC-SHA256), 16 characters or more.", secret=True
    )
    oidc_issuer: str = _setting("", "Login by OpenID Connect at this provider (https://id/realms/x). Empty: none.")
    oidc_client_id: str = _setting("", "Our client id there; the redirect URI is INLAY_PUBLIC_URL/login/callback.")
    oidc_client_secret: str = _setting("", "Our client secret there. Empty: a public client, with PKCE.", secret=True)
    oidc_scope: str = _setting("openid profile", "Scopes of the login.")
    session_idle_minutes: float = _setting(15.0, "A browser's session is locked after so long without any activity.")
    session_hours: float = _setting(10.0, "A browser's session ends after so long at the latest.")
    jwt_issuer: str = _setting("inlay", "Issuer that tokens must name.")
    jwt_audience: str = _setting("inlay", "Audience that tokens must name.")
    audit_checkpoint_seconds: float = _setting(
        3600.0, "Pause between two signed checkpoints of the audit trail. 0: none are made."
    )
    audit_key_file: str = _setting(
        "", "Private key (JWK, P-256) that signs checkpoints. Empty: one in INLAY_HOME, with SQLite only."
    )
    audit_trusted_keys: str = _setting("", "Public keys (JWKS) whose checkpoints are trusted besides: earlier ones.")
    message_keys: str = _setting(
        "", "TOML file: keys that received HL7 messages are encrypted with. Empty: they are not."
    )
    keep_messages_days: int = _setting(0, "Days that received HL7 messages are kept, for `inlay purge`. 0: for ever.")
    keep_jobs_days: int = _setting(0, "Days that jobs without a result are kept after their end. 0: for ever.")
    keep_outbox_days: int = _setting(0, "Days that delivered items of the outbox are kept. 0: for ever.")
    keep_progress_days: int = _setting(1, "Days that the last canvas of a finished job is kept. 0: for ever.")
    keep_images_days: int = _setting(
        0, "Days that received images are kept once their report is signed. 0: as INLAY_DICOM_CONFIG says."
    )
    keep_audit_days: int = _setting(0, "Days that audit events are kept: 2192 (six years) or more. 0: for ever.")
    syslog_target: str = _setting(
        "", "Syslog receiver of the audit trail: tls://host:6514 or, in one's own network, tcp://host:601. Empty: none."
    )
    syslog_tls_ca: str = _setting(
        "", "PEM file: authorities that sign the receiver's certificate. Empty: the system's."
    )
    syslog_tls_certificate: str = _setting("", "PEM file: our certificate and key, where the receiver asks for one.")
    lease_seconds: float = _setting(60.0, "A worker that is silent for so long has lost its job.")
    max_attempts: int = _setting(5, "Attempts of a job before it is parked with its reason.")
    max_open_jobs: int = _setting(0, "Open draft jobs per priority before orders are refused; 0 is no limit.")
    sweep_seconds: float = _setting(2.0, "Pause between two rounds of the relay's sweepers.")
    forgotten_seconds: float = _setting(30.0, "A queued job that nobody took for so long is announced again.")
    progress_seconds: float = _setting(0.1, "Least time between two canvases in the database row.")
    log_level: str = _setting("info", "debug, info, warning or error.")
    log_format: str = _setting("json", "json or console.")

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings; raise Invalid, naming the variable (never its value), where one cannot be read."""
        given = ((field, _given(field, environ)) for field in dataclasses.fields(cls))
        values: dict[str, Any] = {field.name: _read(field, text) for field, text in given if text != ""}
        return _checked(cls(**values))

    @property
    def database(self) -> str:
        """The URL that is used: the given one, else SQLite in the home folder."""
        return self.database_url or f"sqlite:///{self.home.absolute() / 'inlay.sqlite'}"

    @property
    def origins(self) -> tuple[str, ...]:
        """Origins that notifications may go to."""
        return tuple(origin.strip() for origin in self.subscription_origins.split(",") if origin.strip())

    @property
    def fhir_url(self) -> str:
        """The FHIR endpoint as others name it, for what is told outside of an answer."""
        host = f"[{self.http_host}]" if ":" in self.http_host else self.http_host
        return f"{(self.public_url or f'http://{host}:{self.http_port}').rstrip('/')}/fhir"

    @property
    def images(self) -> Path:
        """The watched folder of DICOM files."""
        return Path(self.images_folder) if self.images_folder else self.home / "images"

    @property
    def sections(self) -> tuple[str, ...]:
        """The names of all sections in the site's order."""
        named = tuple(name.strip() for name in self.section_order.split(",") if name.strip())
        return order_of_sections(named, "INLAY_SECTION_ORDER")

    @property
    def zone(self) -> ZoneInfo:
        """The site's time zone."""
        try:
            return ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise Invalid("bad-setting", "Not a time zone of the tz database.", "INLAY_TIME_ZONE") from None

    @property
    def syslog_address(self) -> tuple[str, str, int] | None:
        """Transport (tls, tcp), host and port of the syslog receiver, if there is one."""
        if not self.syslog_target:
            return None
        transport, separator, rest = self.syslog_target.partition("://")
        host, _, port = rest.rpartition(":")
        if transport not in ("tls", "tcp") or not separator or not host or not port.isdecimal() or int(port) > 65535:
            raise Invalid("bad-setting", "Expected tls://host:port or tcp://host:port.", "INLAY_SYSLOG_TARGET")
        return transport, host.strip("[]"), int(port)

    @property
    def oru_address(self) -> tuple[str, int] | None:
        """Host and port of the ORU target, if there is one."""
        host, _, port = self.oru_target.rpartition(":")
        if not self.oru_target:
            return None
        if not host or not port.isdecimal():
            raise Invalid("bad-setting", "Expected host:port.", "INLAY_ORU_TARGET")
        return host.strip("[]"), int(port)


_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "precision": ("bf16", "fp8", "4bit"),
    "dicom_reports": ("", "dicomweb", "dimse"),
    "dicom_documents": ("sr", "pdf", "both"),
    "patient_check": tuple(PatientCheck),
    "fhir_draft_status": ("partial", "preliminary"),
    "auth": ("embedded", "jwt"),
    "log_level": ("debug", "info", "warning", "error"),
    "log_format": ("json", "console"),
}


def _checked(settings: Settings) -> Settings:
    for name, choices in _CHOICES.items():
        if getattr(settings, name) not in choices:
            raise Invalid("bad-setting", f"Expected one of {', '.join(filter(None, choices))}.", PREFIX + name.upper())
    if not all(map(origin_of, settings.origins)):
        raise Invalid("bad-setting", "Expected origins like https://host:port.", "INLAY_SUBSCRIPTION_ORIGINS")
    if settings.origins and len(settings.subscription_secret) < 16:
        raise Invalid("bad-setting", "Notifications are signed: 16 characters or more.", "INLAY_SUBSCRIPTION_SECRET")
    _check_addresses(settings)
    if settings.fhir_client_id and not (settings.fhir_token_url and settings.fhir_client_key):
        raise Invalid("bad-setting", "A client needs its token endpoint and its key.", "INLAY_FHIR_CLIENT_ID")
    if settings.oidc_issuer and not (settings.oidc_client_id and is_private(settings.public_url)):
        raise Invalid("bad-setting", "A login needs INLAY_OIDC_CLIENT_ID and INLAY_PUBLIC_URL.", "INLAY_OIDC_ISSUER")
    if settings.oidc_issuer and settings.auth != "jwt":
        raise Invalid("bad-setting", "A login at a provider needs INLAY_AUTH=jwt.", "INLAY_OIDC_ISSUER")
    if not 0 < settings.session_idle_minutes <= settings.session_hours * 60:
        raise Invalid("bad-setting", "Expected minutes within INLAY_SESSION_HOURS.", "INLAY_SESSION_IDLE_MINUTES")
    if not re.fullmatch(r"([0-9a-f]{64})?", settings.model_digest):
        raise Invalid("bad-setting", "Expected 64 hexadecimal digits in small letters.", "INLAY_MODEL_DIGEST")
    _check_audit(settings)
    _check_headers(settings)
    _ = settings.zone, settings.sections  # Raise for what does not exist.
    for name, least in (("jobs_together", 1), ("views", 1), ("prefix_cache_mib", 0)):
        if getattr(settings, name) < least:
            raise Invalid("bad-setting", f"Expected at least {least}.", PREFIX + name.upper())
    return settings


def _check_audit(settings: Settings) -> None:
    if 0 < settings.keep_audit_days < LEAST_AUDIT_DAYS:
        raise Invalid("bad-setting", f"Expected 0 or at least {LEAST_AUDIT_DAYS} days.", "INLAY_KEEP_AUDIT_DAYS")
    _ = settings.syslog_address  # Raises for what is no address.


# A token (RFC 9110) but for %, and what OpenTelemetry's libraries take for a value, percent-encoded or as it is. They
# would write one that they do not take into the log.
_HEADER: Final = re.compile(r"[!#$&'*+.^_`|~0-9A-Za-z-]+=([ !#-+\x2d-:<-\[\]-~]+)")


def _check_headers(settings: Settings) -> None:
    for header in filter(None, settings.traces_headers.split(",")):
        found = _HEADER.fullmatch(header.strip(" "))
        if not found or not unquote(found[1]).isascii() or not unquote(found[1]).isprintable():
            raise Invalid("bad-setting", "Expected name=value,name=value.", "INLAY_TRACES_HEADERS")


def _check_addresses(settings: Settings) -> None:
    for name in ("fhir_target", "fhir_token_url"):
        if (url := getattr(settings, name)) and not is_private(url):
            raise Invalid("bad-setting", "Expected an https URL.", PREFIX + name.upper())
    if settings.viewer_url and not settings.viewer_url.startswith(("https://", "http://")):
        raise Invalid("bad-setting", "Expected an http or https URL.", "INLAY_VIEWER_URL")


_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError
    return word in _TRUE


def _boolean_or_auto(text: str) -> bool | None:
    return None if text.strip().lower() == "auto" else _boolean(text)


# By the type of the default. A switch whose default is None is on or off where that is right, unless it is set.
_READERS: Final[Mapping[type, Callable[[str], object]]] = {
    NoneType: _boolean_or_auto,
    bool: _boolean,
    int: int,
    float: float,
    Path: Path,
    str: str,
}


def _kind(field: dataclasses.Field[Any]) -> type:
    return next(kind for kind in _READERS if isinstance(field.default, kind))


def _given(field: dataclasses.Field[Any], environ: Mapping[str, str]) -> str:
    """The text of a setting; that of a secret may stand in a file, which no listing of an environment shows."""
    name = PREFIX + field.name.upper()
    path = environ.get(name + FILE_SUFFIX, "") if field.metadata["secret"] else ""
    if not path:
        return environ.get(name, "")
    if environ.get(name, "") != "":
        raise Invalid("bad-setting", f"Given twice: by {name} and by its file.", name + FILE_SUFFIX)
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise Invalid("bad-setting", "The file cannot be read.", name + FILE_SUFFIX) from None


def _read(field: dataclasses.Field[Any], text: str) -> object:
    kind = _kind(field)
    try:
        return _READERS[kind](text)
    except ValueError:
        raise Invalid("bad-setting", f"Expected {_KIND_NAMES[kind]}.", PREFIX + field.name.upper()) from None


_KIND_NAMES: Final[Mapping[type, str]] = {
    NoneType: "auto, true or false",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Path: "a folder",
    str: "text",
}


def schema() -> dict[str, dict[str, Any]]:
    """JSON Schema of each setting, by the name of its field: for programs that write environments."""
    return {field.name: _rule(field) for field in dataclasses.fields(Settings)}


_JSON_KINDS: Final[Mapping[type, dict[str, Any]]] = {
    NoneType: {"type": ["string", "boolean"], "enum": ["auto", True, False]},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    Path: {"type": "string"},
    str: {"type": "string"},
}


def _rule(field: dataclasses.Field[Any]) -> dict[str, Any]:
    rule = _JSON_KINDS[_kind(field)] | {"description": field.metadata["help"]}
    return rule | ({"enum": [*_CHOICES[field.name]]} if field.name in _CHOICES else {})


def reference() -> str:
    """The page `docs/reference/settings.md`."""
    rows = [
        f"| `{PREFIX}{field.name.upper()}` | {_KIND_NAMES[_kind(field)]} | {_shown(field)} | {field.metadata['help']} |"
        for field in dataclasses.fields(Settings)
    ]
    secret = [field.name.upper() for field in dataclasses.fields(Settings) if field.metadata["secret"]]
    secrets = ", ".join(f"`{PREFIX}{name}{FILE_SUFFIX}`" for name in secret)
    head = (
        "# Settings\n\n"
        "Generated from `services/core/inlay_core/settings.py`; do not edit.\n"
        "All settings are environment variables. An empty variable counts as not set.\n"
        "A secret may stand in a file instead: `INLAY_DATABASE_URL_FILE=/run/secrets/database` and likewise "
        f"{secrets}.\n\n"
        "| variable | kind | default | what it does |\n|---|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"


def text_of(value: object) -> str:
    """A setting's value as its variable would give it."""
    if value is None:
        return "auto"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(field: dataclasses.Field[Any]) -> str:
    default = text_of(field.default)
    return f"`{default}`" if default else "–"
