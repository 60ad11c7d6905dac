"""Refusals: the status of every error of a request, and one body for it that all families of clients read."""

from __future__ import annotations

from typing import Any

from dearlite.errors import BudgetTooShort, Cancelled, DearliteError, InvalidInput, OutOfMemory, UsageError, first_line

# status -> its type as OpenAI's clients name it, and as TEI's do
_KINDS = {
    400: ("invalid_request_error", "Validation"),
    401: ("authentication_error", "Validation"),
    403: ("permission_error", "Validation"),
    404: ("not_found_error", "Validation"),
    405: ("method_not_allowed", "Validation"),
    408: ("timeout_error", "Validation"),
    413: ("request_too_large", "Validation"),
    415: ("invalid_request_error", "Validation"),
    422: ("invalid_request_error", "Tokenizer"),
    429: ("rate_limit_error", "Overloaded"),
    500: ("server_error", "Backend"),
    503: ("unavailable_error", "Unhealthy"),
    504: ("timeout_error", "Overloaded"),
}


# all that TEI's clients know; a reader that takes no other finds one of them in every error
TEI_KINDS = ("Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty")


class Refused(DearliteError):
    """A request that is not answered with a ranking: its HTTP `status` and the reason."""

    def __init__(self, status: int, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the response besides those of its body."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def refusal_of(err: Exception) -> Refused:
    """The refusal for an error of the library. An error that no user can meet is named only in the log."""
    if isinstance(err, Refused):
        return err
    if isinstance(err, (UsageError, InvalidInput, RecursionError)):
        nested = "a document is nested too deeply: send flat objects"
        status = 504 if isinstance(err, BudgetTooShort) else 400
        return Refused(status, nested if isinstance(err, RecursionError) else str(err))
    if isinstance(err, Cancelled):
        return Refused(503, "the work was stopped before its end: send the request again", retry_after_s=1)
    if isinstance(err, (OutOfMemory, MemoryError)):
        return Refused(503, first_line(err), retry_after_s=5)
    if isinstance(err, DearliteError):
        return Refused(500, str(err))
    return Refused(500, f"a fault of the server ({type(err).__name__}): its log has the details")


def error_body(status: int, message: str) -> dict[str, Any]:
    """The body of an error.

    `error` is read by the clients of OpenAI, vLLM, infinity and llama.cpp, `error_type` by TEI's, `detail` by Jina's,
    `message` by Cohere's and by LibreChat.
    """
    kind, tei_kind = _KINDS.get(status, _KINDS[400 if status < 500 else 500])
    return {
        "error": {"message": message, "type": kind, "param": None, "code": status},
        "error_type": tei_kind,
        "detail": message,
        "message": message,
    }
