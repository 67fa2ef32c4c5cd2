"""The JSON schemas (2020-12) of the workstation API, by name; the OpenAPI document refers to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from inlay_api.bodies import MAX_FRAGMENTS, MAX_REASON, MAX_TEXT
from inlay_core.application.ports import Delivery, Sort
from inlay_core.application.queries import COUNTED
from inlay_core.domain.audit import Kind, Outcome, Tag
from inlay_core.domain.checks import Severity
from inlay_core.domain.fragment import SECTION_NAMES, Origin
from inlay_core.domain.identity import ActorKind, Role
from inlay_core.domain.infill import MAX_ALTERNATIVES, MAX_GAP_TOKENS, MAX_HINT_LENGTH, MAX_ITEMS
from inlay_core.domain.job import JobKind, JobState
from inlay_core.domain.lifecycle import Event, Status
from inlay_core.domain.order import OrderStatus, Priority
from inlay_core.domain.prior import PriorStatus, Source
from inlay_core.domain.reader_study import ARMS, BEST_SCORE, MOST_CASES, Choice, Mark
from inlay_core.domain.switch import LONGEST_VALUE
from inlay_core.domain.usage import Step

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def _words(values: Sequence[str] | type[Any]) -> Schema:
    return {"type": "string", "enum": [str(value) for value in values]}


def _object(properties: Mapping[str, Schema], optional: Sequence[str] = ()) -> Schema:
    """An object that has exactly these properties, all of them unless they are optional."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(items: Schema, most: int | None = None) -> Schema:
    return {"type": "array", "items": items} | ({"maxItems": most} if most is not None else {})


_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_FLAG: Final[Schema] = {"type": "boolean"}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_NAME: Final[Schema] = _words(SECTION_NAMES)
_IDENTIFIERS: Final[Schema] = {"anyOf": [{"type": "string"}, _list(_TEXT, 50)]}
_REASON: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": MAX_REASON}

_VERSION: Final[dict[str, Schema]] = {
    "id": _TEXT,
    "version": {"type": "integer", "minimum": 1},
    "status": _words(Status),
    "event": _maybe(_words(Event)),
    "author": _object({"id": _TEXT, "name": _TEXT, "kind": _words(ActorKind)}),
    "job_id": _maybe(_TEXT),
    "reason": _maybe(ref("Reason")),
    "signature": _maybe(ref("Signature")),
    "updated_at": _TIME,
}
_JOB: Final[dict[str, Schema]] = {
    "id": _TEXT,
    "report_id": _TEXT,
    "kind": _words(JobKind),
    "state": _words(JobState),
    "base_version": {"type": "integer", "minimum": 1},
    "priority": _words(Priority),
    "attempts": _COUNT,
    "cancel_requested": _FLAG,
    "reason": _maybe(ref("Reason")),
    "requested_by": _maybe(_TEXT),
    "created_at": _TIME,
    "started_at": _maybe(_TIME),
    "finished_at": _maybe(_TIME),
}
_SHARE: Final[Schema] = _maybe({"type": "number", "minimum": 0, "maximum": 1})
_SECONDS: Final[Schema] = _maybe({"type": "number", "minimum": 0})
_USAGE: Final[dict[str, Schema]] = {
    **dict.fromkeys(("step", "model", "model_digest", "adapter_digest"), _TEXT),
    **dict.fromkeys(("drafts", "signed", "dropped", "signed_untouched", "infills"), _COUNT),
    **{f"sentences_{fate}": _COUNT for fate in ("kept", "edited", "deleted", "added")},
    **{f"share_{fate}": _SHARE for fate in ("kept", "edited", "deleted")},
    **{f"distance_{section}": _SHARE for section in SECTION_NAMES},
    **{
        f"{time}_{figure}": _SECONDS
        for time in ("order_to_draft", "draft_to_open", "open_to_sign")
        for figure in ("median", "p90")
    },
    **dict.fromkeys(("disputes", "disputes_kept", "disputes_changed", "disputes_removed", "disputes_open"), _COUNT),
}
_GRADE: Final[dict[str, Schema]] = {
    "marks": {**_list(_list(_maybe(_words(Mark))), ARMS), "minItems": ARMS},
    "scores": {**_list(_maybe({"type": "integer", "minimum": 1, "maximum": BEST_SCORE}), ARMS), "minItems": ARMS},
    "choice": _maybe(_words(Choice)),
}
_ITEM: Final[Schema] = {
    "oneOf": [
        _object({"lock": _TEXT}),
        _object({"text": {"type": "string", "maxLength": MAX_TEXT}, "locked": _FLAG}, optional=("locked",)),
        _object({"gap": ref("Gap")}),
    ]
}

SCHEMAS: Final[Mapping[str, Schema]] = {
    "Problem": _object(
        {
            "type": _TEXT,
            "title": _TEXT,
            "status": {"type": "integer"},
            "code": _TEXT,
            "detail": _TEXT,
            "place": _TEXT,
        },
        optional=("place",),
    ),
    "Reason": _object({"code": _TEXT, "text": _TEXT}),
    "Signature": _object(
        {
            "signer": _object({"id": _TEXT, "name": _TEXT}),
            "signed_at": _TIME,
            "version": {"type": "integer", "minimum": 1},
        }
    ),
    "Warning": _object({"code": _TEXT, "message": _TEXT, "start": _COUNT, "end": _COUNT}),
    "Fragment": _object(
        {
            "id": _TEXT,
            "text": _TEXT,
            "origin": _words(Origin),
            "locked": _FLAG,
            "warnings": _list(ref("Warning")),
            "job_id": _maybe(_TEXT),
        }
    ),
    "Section": _object({"name": _NAME, "fragments": _list(ref("Fragment")), "gaps": _list(ref("PlacedGap"))}),
    "PlacedGap": {
        "type": "object",
        "description": "A gap that waits to be filled: before fragment number `at`, at the end for their count. It is "
        "no part of the text, and a signature leaves it out.",
        "properties": {"at": _COUNT, "hint": {"type": "string", "maxLength": MAX_HINT_LENGTH}},
        "required": ["at"],
    },
    "Order": _object(
        {
            "id": _TEXT,
            "assigner": _TEXT,
            "placer_number": _maybe(_TEXT),
            "filler_number": _maybe(_TEXT),
            "accession_number": _maybe(_TEXT),
            "accession_assigner": _TEXT,
            "study_instance_uid": _maybe(_TEXT),
            "modality": _maybe(_TEXT),
            "priority": _words(Priority),
            "status": _words(OrderStatus),
            "procedure": _object({"code": _maybe(_TEXT), "system": _maybe(_TEXT), "text": _maybe(_TEXT)}),
            "scheduled_at": _maybe(_TIME),
            "patient": _object(
                {
                    "id": _TEXT,
                    "assigner": _TEXT,
                    "identifier": _TEXT,
                    "name": _maybe(_TEXT),
                    "birth_date": _maybe({"type": "string", "format": "date"}),
                    "sex": _maybe(_TEXT),
                }
            ),
        }
    ),
    "Version": _object(_VERSION),
    "PriorList": _object({"priors": _list(ref("Prior"))}),
    "Prior": _object(
        {
            "key": _maybe(_TEXT),
            "id": _maybe(_TEXT),
            "report_id": _maybe(_TEXT),
            "sources": _list(_words(Source)),
            "status": _maybe(_words(PriorStatus)),
            "study_instance_uid": _maybe(_TEXT),
            "accession_number": _maybe(_TEXT),
            "procedure": _maybe(_TEXT),
            "modality": _maybe(_TEXT),
            "modalities": _list(_TEXT),
            "performed_at": _maybe(_TIME),
            "reported_at": _maybe(_TIME),
            "sections": _list(_object({"code": _TEXT, "title": _TEXT, "text": _TEXT})),
        }
    ),
    "DeliveryList": _object({"deliveries": _list(ref("Delivery"))}),
    "Delivery": _object(
        {
            "id": _TEXT,
            "destination": _TEXT,
            "report_id": _maybe(_TEXT),
            "message_id": _maybe(_TEXT),
            "version": _maybe(_COUNT),
            "status": _maybe(_words(Status)),
            "control_id": _TEXT,
            "state": _words(Delivery),
            "attempts": _COUNT,
            "last_error": _maybe(_TEXT),
            "created_at": _TIME,
        }
    ),
    "VersionList": _object({"versions": _list(ref("Version"))}),
    "Report": _object(
        {
            **_VERSION,
            "banner": _TEXT,
            "sections": _list(ref("Section")),
            "order": ref("Order"),
            "jobs": _list(ref("Job")),
            "run_records": _list(_object({"job_id": _TEXT, "kind": _words(JobKind), "record": {"type": "object"}})),
            "created_at": _TIME,
        }
    ),
    "ReportRow": _object(
        {
            "id": _TEXT,
            "version": {"type": "integer", "minimum": 1},
            "status": _words(Status),
            "has_model_text": _FLAG,
            "opened_by": _maybe(_object({"id": _TEXT, "name": _TEXT})),
            "order": ref("Order"),
            "created_at": _TIME,
            "updated_at": _TIME,
        }
    ),
    "ReportPage": _object(
        {
            "reports": _list(ref("ReportRow")),
            "counts": {
                "type": "object",
                "description": f"How many reports stand where, over all pages; {COUNTED} for that many or more.",
                "propertyNames": _words(Status),
                "additionalProperties": _COUNT,
            },
            "total": _COUNT,
            "offset": _COUNT,
            "limit": _COUNT,
        }
    ),
    "ReportSearch": _object(
        {
            "ids": _IDENTIFIERS,
            "accession_number": _IDENTIFIERS,
            "accession_assigner": _TEXT,
            "patient_identifier": _IDENTIFIERS,
            "patient_assigner": _TEXT,
            "study_instance_uid": _IDENTIFIERS,
            "status": {"anyOf": [_words(Status), _list(_words(Status), 50)]},
            "sort": _words(Sort),
            "offset": _COUNT,
            "limit": _COUNT,
        },
        optional=(
            "ids",
            "accession_number",
            "accession_assigner",
            "patient_identifier",
            "patient_assigner",
            "study_instance_uid",
            "status",
            "sort",
            "offset",
            "limit",
        ),
    ),
    "CanvasList": _object(
        {
            "canvases": _list(
                _object(
                    {
                        "step": _COUNT,
                        "steps": _COUNT,
                        "text": _TEXT,
                        "accepted": _list({**_list(_COUNT, 2), "minItems": 2}),
                        "sequence": _COUNT,
                    }
                )
            )
        }
    ),
    "Empty": _object({}),
    "Edits": _object({"sections": _list(ref("SectionEdit"), len(SECTION_NAMES))}),
    "SectionEdit": {
        "type": "object",
        "properties": {
            "name": _NAME,
            "fragments": _list(ref("FragmentEdit"), MAX_FRAGMENTS),
            "unlocked": {**_list(_TEXT, MAX_FRAGMENTS), "description": "Ids whose locks are lifted first."},
            "gaps": {**_list(ref("PlacedGap"), MAX_ITEMS), "description": "All gaps; `at` counts these fragments."},
        },
        "required": ["name", "fragments"],
    },
    "FragmentEdit": {
        "type": "object",
        "description": "New without id; with id and without text it stays. `version`: the fragment as it was in that "
        "version. `span`: its characters [start, end). `offered`: a text that a job offered, instead of a fragment. "
        "What else a fragment has is not read back.",
        "properties": {
            "id": _maybe(_TEXT),
            "text": _maybe({"type": "string", "maxLength": MAX_TEXT}),
            "locked": _FLAG,
            "version": _maybe({"type": "integer", "minimum": 1}),
            "span": _maybe({**_list(_COUNT, 2), "minItems": 2}),
            "offered": _maybe(
                {
                    "type": "object",
                    "properties": {"job_id": _TEXT, "item": _COUNT, "text": _COUNT},
                    "required": ["job_id"],
                }
            ),
        },
    },
    "InfillRequest": _object(
        {
            "sections": {**_list(ref("InfillSection"), len(SECTION_NAMES)), "minItems": 1},
            "seed": _maybe({"type": "integer", "minimum": 0, "maximum": 2**63 - 1}),
            "steps": _maybe({"type": "integer", "minimum": 1, "maximum": 1024}),
            "alternatives": _maybe({"type": "integer", "minimum": 1, "maximum": MAX_ALTERNATIVES}),
            "rewrite": {
                "type": "boolean",
                "description": "Say free text again in the site's style, around what is locked. Hints are left aside, "
                "and a model that was not trained for it refuses: the job fails as `cannot-rewrite`. A request "
                "without free text is refused as `nothing-to-rewrite`.",
            },
            "warm_start": _maybe(
                {
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "maximum": 1,
                    "description": "Begin from the text that is free to change, with this share of noise in it.",
                }
            ),
        },
        optional=("seed", "steps", "alternatives", "rewrite", "warm_start"),
    ),
    "InfillSection": _object({"name": _NAME, "items": _list(ref("InfillItem"), MAX_ITEMS)}),
    "InfillItem": _ITEM,
    "Gap": _object(
        {
            "min_tokens": _maybe({"type": "integer", "minimum": 0, "maximum": MAX_GAP_TOKENS}),
            "max_tokens": _maybe({"type": "integer", "minimum": 1, "maximum": MAX_GAP_TOKENS}),
            "hint": _maybe(
                {
                    "type": "string",
                    "maxLength": MAX_HINT_LENGTH,
                    "description": "What the gap is to speak of. Where the model is not told of it, the run record of "
                    "the job has `hints-left-aside` among its `notes`.",
                }
            ),
        },
        optional=("min_tokens", "max_tokens", "hint"),
    ),
    "Amendment": _object(
        {
            "kind": _words([str(event) for event in (Event.AMEND, Event.CORRECT, Event.APPEND)]),
            "reason": _REASON,
            "sections": _list(ref("SectionEdit"), len(SECTION_NAMES)),
        },
        optional=("kind",),
    ),
    "Retraction": _object({"reason": _REASON}),
    "Job": _object(_JOB),
    "JobDetail": _object(
        {
            **_JOB,
            "queue_position": {
                **_maybe({"type": "integer", "minimum": 1}),
                "description": "Which of the queued jobs it is by priority and age; null for one that is not queued.",
            },
            "run_record": {
                **_maybe({"type": "object"}),
                "description": "What the model was run with. `takes_hints` and `rewrites` say what it can, `notes` "
                "what a reader should know of this run: `headers-missing`, `unfinished-sentence` (no text of a gap was "
                "found that is whole, or a draft stops within a sentence, its canvas being full), `shorter-than-asked` "
                "(a text has fewer tokens than its gap's `min_tokens`), `hints-left-aside`, "
                "`not-trained-without-image` (there was no image, and the model was not trained to do without).",
            },
            "result_version": _maybe({"type": "integer", "minimum": 1}),
            "alternatives": _list(
                _object(
                    {
                        "section": _NAME,
                        "item": _COUNT,
                        "texts": _list(
                            _object(
                                {
                                    "text": {"type": "string"},
                                    "score": {"type": "number", "description": "A mean log-probability."},
                                    "probability": {
                                        "type": "number",
                                        "minimum": 0,
                                        "maximum": 1,
                                        "description": "How often a text of this score was right, where that is known.",
                                    },
                                },
                                optional=("probability",),
                            )
                        ),
                    }
                )
            ),
            "locks": _list(
                _object(
                    {
                        "section": _NAME,
                        "item": _COUNT,
                        "fragment_id": _TEXT,
                        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                    }
                )
            ),
        }
    ),
    "CheckList": _object({"version": {"type": "integer", "minimum": 1}, "checks": _list(ref("Check"))}),
    "Check": _object(
        {
            "code": _TEXT,
            "severity": _words(Severity),
            "message": _TEXT,
            "section": _NAME,
            "fragment_id": _maybe(_TEXT),
            "start": _COUNT,
            "end": _COUNT,
        }
    ),
    "ImageList": _object({"images": _list(ref("Image"))}),
    "Image": _object(
        {
            "view": _COUNT,
            "modality": _maybe(_TEXT),
            "view_position": _maybe(_TEXT),
            "laterality": _maybe(_TEXT),
            "rows": _COUNT,
            "columns": _COUNT,
            "orientation": {**_list(_TEXT, 2), "description": "Where rows and columns point (PS3.3 C.7.6.1.1.1)."},
            "spacing_mm": _maybe({**_list({"type": "number"}, 2), "minItems": 2}),
            "window": _object({"center": {"type": "number"}, "width": {"type": "number"}}),
        }
    ),
    "Session": _object(
        {
            "actor": _object({"id": _TEXT, "name": _TEXT, "kind": _words(ActorKind), "roles": _list(_words(Role))}),
            "csrf": _maybe(_TEXT),
            "idle_seconds": _maybe(_COUNT),
            "expires_at": _maybe(_TIME),
        }
    ),
    "Switch": _object(
        {
            "name": _TEXT,
            "on": _FLAG,
            "use": _maybe(_words(JobKind)),
            "site": _maybe(_TEXT),
            "modality": _maybe(_TEXT),
            "model": _maybe(_TEXT),
            "changed_at": _TIME,
            "changed_by": _TEXT,
        }
    ),
    "SwitchList": _object({"uses": _list(_words(JobKind)), "switches": _list(ref("Switch"))}),
    "SwitchSetting": _object(
        {
            "on": _FLAG,
            "use": _maybe(_words(JobKind)),
            "site": _maybe({"type": "string", "minLength": 1, "maxLength": LONGEST_VALUE}),
            "modality": _maybe({"type": "string", "minLength": 1, "maxLength": LONGEST_VALUE}),
            "model": _maybe({"type": "string", "minLength": 1, "maxLength": LONGEST_VALUE}),
        },
        optional=("use", "site", "modality", "model"),
    ),
    "Overview": _object(
        {
            "at": _TIME,
            "uses": _list(_words(JobKind)),
            "switches": _list(ref("Switch")),
            "queues": _list(
                _object(
                    {
                        "kind": _words(JobKind),
                        "state": _words(JobState),
                        "priority": _words(Priority),
                        "number": _COUNT,
                        "oldest": _TIME,
                    }
                )
            ),
            "workers": _list(
                _object(
                    {
                        "id": _TEXT,
                        "host": _TEXT,
                        "model": _TEXT,
                        "model_digest": _TEXT,
                        "adapters": _list(_TEXT),
                        "device": _TEXT,
                        "jobs": _COUNT,
                        "started_at": _TIME,
                        "seen_at": _TIME,
                        "silent": _FLAG,
                    }
                )
            ),
            "senders": _list(
                _object(
                    {
                        "application": _TEXT,
                        "facility": _TEXT,
                        "messages": _COUNT,
                        "refused": _COUNT,
                        "last_at": _TIME,
                        "last_refused_at": _maybe(_TIME),
                        "last_error": _maybe(_TEXT),
                    }
                )
            ),
            "destinations": _list(
                _object(
                    {
                        "destination": _TEXT,
                        "pending": _COUNT,
                        "parked": _COUNT,
                        "oldest_pending": _maybe(_TIME),
                        "last_delivered": _maybe(_TIME),
                        "last_error": _maybe(_TEXT),
                    }
                )
            ),
            "parked": _list(ref("Delivery")),
        }
    ),
    "Usage": _object(
        {"since": _TIME, "until": _TIME, "by": _words(Step), "rows": _list(ref("UsageRow"))},
    ),
    "UsageRow": _object(_USAGE),
    "ReaderStudy": _object(
        {
            "id": _TEXT,
            "name": _TEXT,
            "cases": _COUNT,
            "graded_by_you": _COUNT,
            "created_at": _TIME,
            "closed_at": _maybe(_TIME),
        }
    ),
    "ReaderStudyList": _object({"studies": _list(ref("ReaderStudy"))}),
    "ReaderStudyRequest": _object(
        {
            "name": {"type": "string", "minLength": 1, "maxLength": 120},
            "arms": {**_list({"type": "string", "minLength": 1, "maxLength": 120}, ARMS), "minItems": ARMS},
            "cases": {
                **_list(
                    _object(
                        {
                            "label": {"type": "string", "maxLength": 120},
                            "report_id": _maybe(_TEXT),
                            "drafts": {
                                "type": "object",
                                "additionalProperties": {"type": "object", "additionalProperties": _TEXT},
                            },
                        },
                        optional=("label", "report_id"),
                    ),
                    MOST_CASES,
                ),
                "minItems": 1,
            },
        }
    ),
    "ReaderCase": _object(
        {
            "case": _maybe(
                _object(
                    {
                        "number": _COUNT,
                        "position": _COUNT,
                        "of": _COUNT,
                        "done": _COUNT,
                        "label": _TEXT,
                        "report_id": _maybe(_TEXT),
                        "drafts": _list(_list(_object({"name": _NAME, "sentences": _list(_TEXT)}))),
                        "grade": _maybe(ref("Grade")),
                    }
                )
            )
        }
    ),
    "GradeRequest": _object(_GRADE),
    "Grade": _object({**_GRADE, "number": _COUNT, "complete": _FLAG}),
    "ReaderResults": _object(
        {
            "study": _TEXT,
            "readers": _COUNT,
            "grades": _COUNT,
            "cases": _COUNT,
            "arms": _list(
                _object(
                    {
                        "name": _TEXT,
                        "score": _maybe({"type": "number"}),
                        "marks": {"type": "object", "additionalProperties": _COUNT},
                        "preferred": _COUNT,
                    }
                )
            ),
            "preferred_neither": _COUNT,
            "score_test": ref("SignedRanks"),
            "error_test": ref("SignedRanks"),
            "choice_test": _object({"first": _COUNT, "second": _COUNT, "p": {"type": "number"}}),
        }
    ),
    "SignedRanks": _object(
        {
            "n": _COUNT,
            "equal": _COUNT,
            "positive": {"type": "number"},
            "negative": {"type": "number"},
            "p": {"type": "number"},
            "exact": _FLAG,
        }
    ),
    "GradeExport": _object({"study": _TEXT, "arms": _list(_TEXT), "rows": _list({"type": "object"})}),
    "Trail": _object({"events": _list(ref("TrailEvent")), "offset": _COUNT, "limit": _COUNT}),
    "TrailEvent": _object(
        {
            "id": _TEXT,
            "at": _TIME,
            "tag": _words(Tag),
            "actor": _object(
                {"id": _TEXT, "name": _TEXT, "kind": _words(ActorKind), "roles": _list(_words(Role))},
            ),
            "subject": _object(
                {"kind": _words(Kind), "id": _TEXT, "version": _maybe({"type": "integer"})},
            ),
            "outcome": _words(Outcome),
            "detail": {"type": "object"},
            "request_id": _maybe(_TEXT),
        }
    ),
}
"""Name -> schema."""
