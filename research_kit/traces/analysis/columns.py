"""The columns of what the analysis computes, as data.

Owns the tables; computes nothing. Invariant: the documentation is generated from these tables.
"""

from __future__ import annotations

from collections.abc import Mapping

from research_kit.traces.schema import Schema, own

__all__ = [
    "ANOMALIES",
    "CACHE_SAVINGS",
    "COMPARISON",
    "COSTS",
    "CRITICAL_PATH",
    "ERRORS",
    "FORECAST",
    "LATENCIES",
    "RESULTS",
    "TOOLS",
]

COSTS: Schema = (
    own("cost_usd", "float64", "Sum of the known costs; NA when none is known."),
    own("input_tokens", "Int64", "Sum of the known input tokens, cached ones included."),
    own("output_tokens", "Int64", "Sum of the known output tokens, reasoning included."),
    own("call_count", "Int64", "LM calls: generations and embeddings that contain no other."),
    own("unpriced_count", "Int64", "LM calls whose cost is unknown and therefore missing in the sum."),
)

LATENCIES: Schema = (
    own("count", "Int64", "Rows whose latency is known."),
    own("latency_mean_s", "float64", "Mean latency."),
    *(
        own(f"latency_p{n}_s", "float64", f"Latency that {n} % of the rows do not exceed.")
        for n in (50, 90, 95, 99)
    ),
    own("time_to_first_token_p50_s", "float64", "Median time to the first token, of streamed calls."),
    own("time_to_first_token_p95_s", "float64", "Time to the first token that 95 % do not exceed."),
    own("output_tokens_per_s", "float64", "Output tokens by seconds, over rows where both are known."),
)

CRITICAL_PATH: Schema = (
    own("observation_id", "string", "Id of the observation."),
    own("parent_observation_id", "string", "Observation that it happened in."),
    own("type", "string", "Langfuse type."),
    own("name", "string", "Name of the observation."),
    own("depth", "Int64", "Steps from the root."),
    own("start_time", "datetime64[ns, UTC]", "When it began."),
    own("latency_s", "float64", "Seconds from start to end."),
    own("self_s", "float64", "Seconds of these in which no observation inside it ran."),
    own("critical_s", "float64", "Seconds in which the trace waited for it and for nothing inside it."),
    own("critical_share", "float64", "`critical_s` by the seconds that the whole trace took; 0 to 1."),
    own("is_critical", "boolean", "Whether it is on the critical path."),
)

ERRORS: Schema = (
    own("error", "string", "First line of the message, with `#` for numbers and ids; NA without one."),
    own("error_count", "Int64", "Observations that failed in this way, and in which nothing else failed."),
    own("trace_count", "Int64", "Traces that these belong to."),
    own("observation_count", "Int64", "All observations of the group, failed or not."),
    own("error_rate", "float64", "`error_count` by `observation_count`; 0 to 1."),
    own("first_time", "datetime64[ns, UTC]", "When the first of them began."),
    own("last_time", "datetime64[ns, UTC]", "When the last of them began."),
    own("example_observation_id", "string", "The last of them."),
)

TOOLS: Schema = (
    own("tool_name", "string", "Name of the tool."),
    own("call_count", "Int64", "Calls; the parts that one call is made of count once."),
    own("error_count", "Int64", "Calls that failed."),
    own("error_rate", "float64", "`error_count` by `call_count`; 0 to 1."),
    own("trace_count", "Int64", "Traces that called it."),
    own("latency_p50_s", "float64", "Median latency of a call."),
    own("latency_p95_s", "float64", "Latency that 95 % of the calls do not exceed."),
    own("latency_sum_s", "float64", "Sum of the latencies."),
    own("cost_usd", "float64", "Sum of the known costs of the tool and of the LM calls inside it."),
)

CACHE_SAVINGS: Schema = (
    own("call_count", "Int64", "LM calls: generations and embeddings that contain no other."),
    own("hit_count", "Int64", "Calls that DSPy's own cache answered, at no cost."),
    own("input_tokens", "Int64", "Sum of the known input tokens, cached ones included."),
    own("cached_tokens", "Int64", "Sum of the input tokens read from the provider's cache."),
    own("cached_share", "float64", "`cached_tokens` by `input_tokens`; 0 to 1."),
    own("cost_usd", "float64", "Sum of the known costs."),
    own(
        "prompt_saved_usd", "float64", "What the provider's cache saved; negative when writing it cost more."
    ),
    own("hit_saved_usd", "float64", "Estimate of what the hits would have cost."),
    own("unknown_count", "Int64", "Calls with cached tokens whose saving is unknown and therefore missing."),
)

COMPARISON: Schema = (
    own("metric", "string", "Column that is compared; its unit is part of its name."),
    own("is_paired", "boolean", "Whether each row of `a` is compared with its match in `b`."),
    own("count_a", "Int64", "Rows of `a` that have a value; when paired, pairs in which both have."),
    own("count_b", "Int64", "The same of `b`."),
    own("value_a", "float64", "Mean (or median, as asked) of `a`."),
    own("value_b", "float64", "Mean (or median) of `b`."),
    own("difference", "float64", "`b` minus `a`; when paired, mean (or median) of the differences."),
    own("difference_low", "float64", "Lower end of its confidence interval; NA below two rows."),
    own("difference_high", "float64", "Upper end."),
    own("relative_difference", "float64", "`difference` by `value_a`; NA when that is 0, and of rates."),
    own("hedges_g", "float64", "Difference of the means in standard deviations, corrected for few rows."),
    own("rank_effect", "float64", "Cliff's delta, or of pairs the rank-biserial correlation; -1 to 1."),
    own("interval", "string", "How the interval was found."),
    own("is_rate", "boolean", "Whether the values are yes or no, so that `difference` is in points of 1."),
)

ANOMALIES: Schema = (
    own("metric", "string", "Column in which the value stands out."),
    own("value", "float64", "The value."),
    own("median", "float64", "Median of its group."),
    own(
        "robust_z", "float64", "Distance from the median in robust standard deviations; its sign is the side."
    ),
    own("group_count", "Int64", "Rows of its group that have a value."),
    own("observation_id", "string", "Id of the observation, when the frame has it."),
    own("trace_id", "string", "Trace, when the frame has it."),
    own("session_id", "string", "Session, when the frame has it."),
    own("name", "string", "Name of the row, when the frame has it."),
    own("start_time", "datetime64[ns, UTC]", "When it began, when the frame has it."),
)

FORECAST: Schema = (
    own("day", "datetime64[ns, UTC]", "Day, in UTC."),
    own("cost_usd", "float64", "Expected cost from the first day of the forecast to the end of this one."),
    own("cost_low_usd", "float64", "Lower end of the prediction interval; NA where there is none."),
    own("cost_high_usd", "float64", "Upper end."),
    own(
        "over_budget_share",
        "float64",
        "Probability that the budget is exceeded by then; NA without budget or interval.",
    ),
)

RESULTS: Mapping[str, Schema] = {
    "cost_by": COSTS,
    "latency_summary": LATENCIES,
    "critical_path": CRITICAL_PATH,
    "error_summary": ERRORS,
    "tool_summary": TOOLS,
    "cache_savings": CACHE_SAVINGS,
    "compare": COMPARISON,
    "anomalies": ANOMALIES,
    "forecast_cost": FORECAST,
}
