"""The meaning of a problem's code as a page, from its text in Markdown."""

import re
from html import escape
from http import HTTPStatus
from typing import Final

from coordinator.http.contract.problem_codes import ProblemCode

_OF: Final = {
    "request": "The request was refused before anything was issued, or it was a read.",
    "lane": "The command is settled, and has no effect. Repeated with its key or id it has the same outcome.",
    "away": "A part of the system is away. Nothing was done, unless the meaning says otherwise.",
}
_LINK: Final = re.compile(r"\[([^][]+)\]\([^()]*\)")
_CODE: Final = re.compile(r"`([^`]+)`")


def problem_page(problem: ProblemCode) -> str:
    """HTML. Links lead into the project's own documents, which a gateway does not serve: their words are left."""
    title = escape(problem.code)
    statuses = ", ".join(f"{status} {escape(HTTPStatus(status).phrase)}" for status in problem.statuses)
    meaning = _html(problem.meaning)
    kinds = "".join(f"<p>{_OF[each]}</p>" for each in problem.of)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><link rel="stylesheet" href="/docs/assets/docs.css">'
        '<link rel="icon" href="/docs/assets/icon.svg"></head>'
        f'<body class="plain"><main><h1><code>{title}</code></h1><p class="meta">{statuses}</p>'
        f'<p class="meaning">{meaning[:1].upper()}{meaning[1:]}.</p>{kinds}'
        '<p><a href="/docs">The routes of this gateway</a></p></main></body></html>\n'
    )


def _html(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(_LINK.sub(r"\1", text), quote=False))
