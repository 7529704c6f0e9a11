"""What every call has in common: who may call, the JSON body, refusals."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import ParamSpec, TypeVar

from flask import request
from flask_jwt_extended import get_jwt, verify_jwt_in_request
from pydantic import BaseModel, ValidationError
from vantage6.server.resource import only_for as stock_only_for
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from vantage6_largefile.errors import InvalidReference
from vantage6_largefile.reference import Reference, parse_reference
from vantage6_largefile.wire import EXTENDED_HEADER

#: What a Flask-RESTful method answers: a JSON document, the status, and sometimes headers.
Answer = tuple[object, int] | tuple[object, int, dict[str, str]]

#: Database ids are 32-bit integers in PostgreSQL; a larger number in a path would be a database error.
MAX_ID = 2**31 - 1

P = ParamSpec("P")
M = TypeVar("M", bound=BaseModel)


class Refused(Exception):
    """The call is refused: `status`, a message for the caller, and what a program can read of it."""

    def __init__(self, status: int, message: str, **details: object) -> None:
        self.status = int(status)
        self.message = message
        self.details = details
        super().__init__(message)

    def answer(self) -> Answer:
        """As vantage6 words its refusals: a document with ``msg``."""
        return {"msg": self.message, **self.details}, self.status


def endpoint(*kinds: str) -> Callable[[Callable[P, object]], Callable[P, object]]:
    """Only let these kinds of caller in, and answer refusals.

    vantage6's own ``only_for`` raises a bare Exception for another kind of caller, which becomes a 500; here it is a
    403. Everything else (401 for a bad token, ``g.user``, ``g.node``, ``g.container``) is left to it.

    Parameters
    ----------
    kinds : str
        ``user``, ``node`` and ``container``.
    """

    def decorate(call: Callable[P, object]) -> Callable[P, object]:
        protected: Callable[P, object] = stock_only_for(kinds)(call)

        @wraps(call)
        def checked(*args: P.args, **kwargs: P.kwargs) -> object:
            verify_jwt_in_request()
            kind = get_jwt().get("client_type")
            if kind not in kinds:
                return {"msg": f"A {kind} may not make this call; it is for: {', '.join(kinds)}."}, HTTPStatus.FORBIDDEN
            try:
                return protected(*args, **kwargs)
            except Refused as refusal:
                return refusal.answer()

        return checked

    return decorate


def is_extended_request() -> bool:
    """Whether the request comes from, or through, a node that runs this software."""
    return bool(request.headers.get(EXTENDED_HEADER))


def json_object() -> dict[str, object]:
    """The request's body, which must be a JSON object.

    The parsed body is kept by Flask: what is changed in it, stock code called afterwards sees changed.

    Raises
    ------
    Refused
        400 when it is anything else, however malformed or nested.
    """
    try:
        body = request.get_json()
    except (BadRequest, UnsupportedMediaType):
        raise Refused(HTTPStatus.BAD_REQUEST, "Expected a JSON object as the request's body.") from None
    except RecursionError:
        raise Refused(HTTPStatus.BAD_REQUEST, "The request's body is nested too deeply.") from None
    if not isinstance(body, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "Expected a JSON object as the request's body.")
    return body


def read_body(shape: type[M]) -> M:
    """The request's body as one of the shapes in ``vantage6_largefile.wire``.

    Raises
    ------
    Refused
        400 naming every field that is wrong.
    """
    try:
        return shape.model_validate(json_object())
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])[:80] or 'body'}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)[:12]
        )
        raise Refused(HTTPStatus.BAD_REQUEST, f"Request body is incorrect: {problems}.") from None


def read_reference(document: object) -> Reference:
    """A reference out of a request's body.

    Raises
    ------
    Refused
        400 saying what is wrong with it.
    """
    try:
        return parse_reference(document)
    except InvalidReference as error:
        raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from None
    except RecursionError:
        raise Refused(HTTPStatus.BAD_REQUEST, "Reference: nested too deeply.") from None
