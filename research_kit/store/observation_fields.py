"""The fields of an observation in answers, as SQL that writes JSON.

Owns the groups of fields. Invariant: each expression gives JSON text and never NULL, so SQLite assembles
whole rows and a page of a thousand of them costs no Python object per field.
"""

from __future__ import annotations

__all__ = ["GROUPS", "row_sql"]


def _iso(column: str) -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', {column} / 1000.0, 'unixepoch')"


def _bool(column: str) -> str:
    return f"iif({column}, 'true', 'false')"


def _nullable_time(column: str) -> str:
    return f"""iif({column} IS NULL, 'null', '"' || {_iso(column)} || '"')"""


# One JSON member per field, as an SQL expression whose value is JSON text and never NULL.
_CORE = {
    "id": "json_quote(span_id)",
    "traceId": "json_quote(trace_id)",
    "startTime": f"""'"' || {_iso("start_ms")} || '"'""",
    "endTime": f"""'"' || {_iso("end_ms")} || '"'""",
    "projectId": "json_quote(?)",
    "parentObservationId": "json_quote(parent_id)",
    "type": "json_quote(type)",
}
GROUPS: dict[str, dict[str, str]] = {
    "core": {},
    "basic": {
        "name": "json_quote(name)",
        "level": "json_quote(level)",
        "statusMessage": "json_quote(status_message)",
        "version": "json_quote(version)",
        "environment": "json_quote(environment)",
        "userId": "json_quote(user_id)",
        "sessionId": "json_quote(session_id)",
        "isRootObservation": _bool("is_root"),
        "bookmarked": "'false'",
        "public": _bool("is_public"),
    },
    "time": {
        "completionStartTime": _nullable_time("completion_start_ms"),
        "createdAt": f"""'"' || {_iso("created_ms")} || '"'""",
        "updatedAt": f"""'"' || {_iso("created_ms")} || '"'""",
    },
    "io": {"input": "json_quote(input)", "output": "json_quote(output)"},
    "metadata": {"metadata": "metadata"},
    "model": {
        "model": "json_quote(model)",
        "internalModelId": "json_quote(model_id)",
        "modelParameters": "model_parameters",
    },
    "usage": {
        "usageDetails": "usage_details",
        "inputUsage": "input_usage",
        "outputUsage": "output_usage",
        "totalUsage": "total_usage",
        "costDetails": "cost_details",
        "inputCost": "json_quote(input_cost)",
        "outputCost": "json_quote(output_cost)",
        "totalCost": "coalesce(total_cost, 0)",
        "usagePricingTierId": "json_quote(pricing_tier_id)",
        "usagePricingTierName": "json_quote(pricing_tier_name)",
    },
    "prompt": {
        "promptId": """'""'""",
        "promptName": "json_quote(prompt_name)",
        "promptVersion": "json_quote(prompt_version)",
    },
    "metrics": {},
    "trace_context": {
        "traceName": "json_quote(trace_name)",
        "release": 'json_quote("release")',
        "tags": "tags",
    },
}

_LATENCY = "(end_ms - start_ms) / 1000.0"
_TIME_TO_FIRST_TOKEN = "(completion_start_ms - start_ms) / 1000.0"


def row_sql(groups: frozenset[str], *, has_full_metadata: bool) -> str:
    """Return the SQL expression for one row of the answer; it binds one value, the project id.

    Args:
        groups: The groups of fields to answer.
        has_full_metadata: Whether long metadata values are answered whole.
    """
    fields = dict(_CORE)
    for name, members in GROUPS.items():
        if name in groups:
            fields |= members
    if "metadata" in groups and not has_full_metadata:
        fields["metadata"] = "coalesce(metadata_short, metadata)"
    has_times = bool(groups & {"time", "metrics"})
    # A zero duration reads null when the times are loaded for the answer, and 0 when they are not.
    fields["latency"] = f"json_quote(nullif({_LATENCY}, 0))" if has_times else _LATENCY
    fields["timeToFirstToken"] = f"json_quote(nullif({_TIME_TO_FIRST_TOKEN}, 0))" if has_times else "'null'"
    has_model = "model" in groups
    fields["modelId"] = "json_quote(nullif(model_id, ''))" if has_model else "'null'"
    fields["inputPrice"] = "json_quote(input_price)" if has_model else "'null'"
    fields["outputPrice"] = "json_quote(output_price)" if has_model else "'null'"
    fields["totalPrice"] = "json_quote(total_price)" if has_model else "'null'"
    json_members = [f"""'"{name}":' || ({expression})""" for name, expression in fields.items()]
    return "'{' || " + " || ',' || ".join(json_members) + " || '}'"
