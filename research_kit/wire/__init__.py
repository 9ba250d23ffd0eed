"""One way to a server: clients, what their answers may cost, and when to ask again."""

from research_kit.wire.asking import (
    SMALL_ANSWER_BYTES,
    AnswerError,
    AnswerTooLargeError,
    BoundedClient,
    Bounds,
)
from research_kit.wire.client import no_cookies, open_client
from research_kit.wire.parsing import JsonError, TooManyValuesError, parse_json, parse_object, plain_words
from research_kit.wire.waiting import retry_after_s

__all__ = [
    "SMALL_ANSWER_BYTES",
    "AnswerError",
    "AnswerTooLargeError",
    "BoundedClient",
    "Bounds",
    "JsonError",
    "TooManyValuesError",
    "no_cookies",
    "open_client",
    "parse_json",
    "parse_object",
    "plain_words",
    "retry_after_s",
]
