"""Parts for gateways: aiohttp applications whose routes issue commands and show rows."""

from coordinator.runtime.extras import naming_the_extra as _naming_the_extra

with _naming_the_extra():
    from coordinator.http.app import Dependencies, Gateway, create_app
    from coordinator.http.authentication import forbidden, open_to_all
    from coordinator.http.bodies import JSON_TYPES, read_body
    from coordinator.http.contract.problem_codes import ProblemCode
    from coordinator.http.described import described
    from coordinator.http.hooks import HOOKS, Exchange, server_timing
    from coordinator.http.joining import join_trace
    from coordinator.http.key_pages import KeyPageQuery, after_key
    from coordinator.http.keys import CONTEXT, SETTINGS, principal_of
    from coordinator.http.operations import CHECKS, Check
    from coordinator.http.problems import RequestRefused
    from coordinator.http.requests import (
        NoQuery,
        PageQuery,
        granted_wait_s,
        issue,
        path_command,
        path_id,
        read_command,
        read_query,
    )
    from coordinator.http.responses import json_response, note_preferences, representation, written_response
    from coordinator.http.service_gateway import gateway_of
    from coordinator.http.shown_rows import may_see, rows_for
    from coordinator.http.waiting_requests import wait_as_courtesy

__all__ = (
    # A gateway
    "Gateway",
    "Dependencies",
    "create_app",
    "gateway_of",
    "described",
    "ProblemCode",
    "open_to_all",
    "principal_of",
    "CONTEXT",
    "SETTINGS",
    "HOOKS",
    "Exchange",
    "server_timing",
    "CHECKS",
    "Check",
    # Requests
    "JSON_TYPES",
    "NoQuery",
    "PageQuery",
    "KeyPageQuery",
    "after_key",
    "granted_wait_s",
    "join_trace",
    "issue",
    "path_command",
    "path_id",
    "read_body",
    "read_command",
    "read_query",
    "wait_as_courtesy",
    "rows_for",
    "may_see",
    # Responses
    "RequestRefused",
    "forbidden",
    "json_response",
    "note_preferences",
    "representation",
    "written_response",
)
