"""The names of the core that the rest of the package uses; nothing outside `mapping` imports inlay_core."""

from inlay_core.application.ports import (
    OrderCommand,
    OrderCondition,
    Page,
    Placed,
    ReportRow,
    ReportSearch,
    Sort,
    Standing,
    TimeBound,
)
from inlay_core.domain.audit import AuditEvent, Detail, Kind, Outcome, Tag
from inlay_core.domain.errors import Ambiguous, Category, DomainError, Invalid, NotFound, Stale
from inlay_core.domain.identity import Actor
from inlay_core.domain.infill import InfillRequest
from inlay_core.domain.job import Job
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Order
from inlay_core.domain.patient import Patient
from inlay_core.domain.report import Report
from inlay_core.domain.subscription import Subscription, SubscriptionState
from inlay_core.domain.text import is_nested_deeper

__all__ = [
    "Actor",
    "Ambiguous",
    "AuditEvent",
    "Category",
    "Detail",
    "DomainError",
    "InfillRequest",
    "Invalid",
    "Job",
    "Kind",
    "NotFound",
    "Order",
    "OrderCommand",
    "OrderCondition",
    "Outcome",
    "Page",
    "Patient",
    "Placed",
    "Report",
    "ReportRow",
    "ReportSearch",
    "Sort",
    "Stale",
    "Standing",
    "Status",
    "Subscription",
    "SubscriptionState",
    "Tag",
    "TimeBound",
    "is_nested_deeper",
]
