"""Bundles of search and history, with the links between their pages.

https://hl7.org/fhir/R4/bundle.html, https://hl7.org/fhir/R4/http.html#paging
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, urlencode

from inlay_fhir.elements import Json, filled
from inlay_fhir.parameters import Pair

OFFSET = "_offset"
"""The parameter of our page links; clients follow the links and need not know it."""


def bundle(kind: str, total: int, links: list[Json], entries: list[Json]) -> Json:
    """A Bundle of type `kind`."""
    return filled(resourceType="Bundle", type_=kind, total=total, link=links, entry=entries)


def full_url(base_url: str, resource: Json) -> str:
    """Where a resource is found, whichever version it is of."""
    return f"{base_url}/{resource['resourceType']}/{resource['id']}"


def page_links(url: str, applied: Sequence[Pair], total: int, offset: int, count: int) -> list[Json]:
    """The links self, first, previous, next, last; `applied` are the parameters that were obeyed, in order."""
    links = [("self", offset)]
    if count > 0:
        links.append(("first", 0))
        if offset > 0:
            links.append(("previous", max(offset - count, 0)))
        if offset + count < total:
            links.append(("next", offset + count))
        links.append(("last", max(total - 1, 0) // count * count))
    return [{"relation": relation, "url": _url(url, applied, at)} for relation, at in links]


def _url(url: str, applied: Sequence[Pair], offset: int) -> str:
    pairs = [*applied, (OFFSET, str(offset))] if offset else list(applied)
    return f"{url}?{urlencode(pairs, quote_via=quote, safe='/|:,')}" if pairs else url
