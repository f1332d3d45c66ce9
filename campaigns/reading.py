"""In which language somebody reads reasons: the one chosen on the page, else their browser's.

Everything else that Nearcast says is English, whatever a browser asks: it has no other words.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation.trans_real import parse_accept_lang_header

from campaigns.words import LANGUAGES

NAMES = {"en": "English", "fr": "Français"}
COOKIE = "nearcast_reading"
_KEPT_S = 365 * 86_400


def asked(accepted: str) -> str:
    """The language that an Accept-Language header likes best of those there are, else English."""
    for tag, liking in parse_accept_lang_header(accepted):
        if tag == "*":
            break
        if liking > 0 and tag.split("-")[0] in LANGUAGES:
            return tag.split("-")[0]
    return LANGUAGES[0]


def language_asked(request: HttpRequest) -> str:
    """The language of an answer of the API."""
    return asked(request.headers.get("Accept-Language", ""))


def language_of(request: HttpRequest) -> str:
    """The language of whoever reads a page."""
    chosen = request.COOKIES.get(COOKIE, "")
    return chosen if chosen in LANGUAGES else language_asked(request)


def switch(request: HttpRequest, anchor: str = "") -> dict[str, Any]:
    """What the switch between languages on a page needs; `anchor`: where on it one reads on."""
    return {
        "language": language_of(request),
        "names": NAMES,
        "here": request.get_full_path() + anchor,
    }


def choose(request: HttpRequest, language: str, *, fallback: str) -> HttpResponse:
    """Remember a language for a year and lead back to where it was chosen."""
    back = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(back, {request.get_host()}, request.is_secure()):
        back = fallback
    answer = HttpResponse(status=303, headers={"Location": back})
    if language in LANGUAGES:
        answer.set_cookie(
            COOKIE,
            language,
            max_age=_KEPT_S,
            samesite="Lax",
            httponly=True,
            secure=request.is_secure(),
        )
    return answer


def tell(response: HttpResponse, language: str) -> None:
    """Say in an answer's headers which language it speaks, and that another may be asked for."""
    response.headers["Content-Language"] = language
    patch_vary_headers(response, ("Accept-Language",))
