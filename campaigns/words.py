"""Every reason of a decision in words, English and French. It decides nothing.

Times are those of the clock that the reader names, and say whose they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any

from campaigns.budgets import money
from campaigns.reasons import Reason

LANGUAGES = ("en", "fr")

_WORDS: dict[Reason, tuple[str, str]] = {
    Reason.MATCHED: (
        "Every rule agreed: the offer was made.",
        "Toutes les règles étaient remplies : l’offre a été faite.",
    ),
    Reason.HELD: (
        "Every rule agreed; the offer waits for a better hour: {due_at}.",
        "Toutes les règles étaient remplies ; l’offre attend une meilleure heure : {due_at}.",
    ),
    Reason.MALFORMED: (
        "The campaign itself cannot be read: {problem}.",
        "La campagne elle-même est illisible : {problem}.",
    ),
    Reason.OUTSIDE_WINDOW: (
        "The campaign runs from {starts_at} to {ends_at}; this was at {at}.",
        "La campagne court du {starts_at} au {ends_at} ; c’était le {at}.",
    ),
    Reason.NOT_A_CROSSING: (
        "The visit did not end by walking out: {transition_reason}.",
        "La visite ne s’est pas terminée par une sortie : {transition_reason}.",
    ),
    Reason.INITIAL_STATE: (
        "The device was already there when the geofence was armed, and the campaign says {policy}.",
        "L’appareil était déjà là quand la zone a été armée, et la campagne dit {policy}.",
    ),
    Reason.TOO_LATE: (
        "It was already {age} ago when it could be judged; the campaign allows {max_age}.",
        "C’était déjà il y a {age} au moment d’en juger ; la campagne en permet {max_age}.",
    ),
    Reason.SEQUENCE_INCOMPLETE: (
        "The sequence was not complete: {matched} of {of} steps; {lacks}.",
        "La suite n’était pas complète : {matched} étapes sur {of} ; {lacks}.",
    ),
    Reason.SEQUENCE_RESTS: (
        "The sequence was complete, but it had fired before; next possible at {next_at}.",
        "La suite était complète, mais elle avait déjà agi ; prochaine fois possible {next_at}.",
    ),
    Reason.CALLED_OFF: (
        "Something happened that calls it off: {by} at {at}.",
        "Quelque chose s’est produit qui l’annule : {by} à {at}.",
    ),
    Reason.NO_LOCATION_CONSENT: (
        "The person has not agreed to the use of their location.",
        "La personne n’a pas accepté l’usage de sa position.",
    ),
    Reason.NO_MARKETING_CONSENT: (
        "The person has not agreed to marketing.",
        "La personne n’a pas accepté la prospection.",
    ),
    Reason.EVENT_DIFFERS: (
        "The event’s {property} is {seen}, the campaign waits for {wanted}.",
        "La propriété {property} de l’événement vaut {seen}, la campagne attend {wanted}.",
    ),
    Reason.NOT_IN_AUDIENCE: (
        "Not in the audience: {path} wants {wanted}, seen was {seen}.",
        "Hors de l’audience : {path} demande {wanted}, la valeur vue était {seen}.",
    ),
    Reason.CONTRADICTS_ATTRIBUTE: (
        (
            "It contradicts what is known: {attribute} is {seen} (told by {source}, {age} ago), "
            "the offer supposes that it {op} {wanted}."
        ),
        (
            "Cela contredit ce que l’on sait : {attribute} vaut {seen} (dit par {source} il y a "
            "{age}), l’offre suppose que cela {op} {wanted}."
        ),
    ),
    Reason.CONTRADICTS_EVENT: (
        "“{event}” was reported {ago} ago; the offer is not for whoever did so within {within}.",
        "« {event} » a été signalé il y a {ago} ; l’offre n’est pas pour qui l’a fait en {within}.",
    ),
    Reason.CONTRADICTS_OFFER: (
        "An offer of {kind} “{offer}” was made at {at}; nothing like this before {next_at}.",
        "Une offre de {kind} « {offer} » a été faite {at} ; pas avant {next_at}.",
    ),
    Reason.OUTSIDE_DAYPART: (
        "Outside the campaign’s hours: it was {local}; next at {next_at}.",
        "Hors des heures de la campagne : il était {local} ; prochaine fois {next_at}.",
    ),
    Reason.QUIET_HOURS: (
        "During quiet hours: it was {local}; next at {next_at}.",
        "Pendant les heures calmes : il était {local} ; prochaine fois {next_at}.",
    ),
    Reason.LOST_TO_PRIORITY: (
        (
            "Another campaign went first: {winner} (priority {winner_priority}, score "
            "{winner_score}; this one {priority} and {score})."
        ),
        (
            "Une autre campagne a été préférée : {winner} (priorité {winner_priority}, note "
            "{winner_score} ; celle-ci {priority} et {score})."
        ),
    ),
    Reason.CAP_REACHED: (
        "Enough for now: {seen} of {limit} per {scope}; next possible at {next_at}.",
        (
            "Assez pour l’instant : {seen} sur {limit} par {scope} ; "
            "prochaine fois possible {next_at}."
        ),
    ),
    Reason.BUDGET_SPENT: (
        "Budget: {seen} of {limit} {whole}; next: {next_at}.",
        "Budget : {seen} sur {limit} {whole} ; prochaine fois : {next_at}.",
    ),
    Reason.PACED: (
        "Pacing: {seen} of {limit} {whole} so far, spread evenly, until {next_at}.",
        "Rythme : {seen} sur {limit} {whole} pour l’instant, étalé, jusqu’à {next_at}.",
    ),
    Reason.COUPONS_GONE: (
        "No coupon was left to give away in the pool {pool}.",
        "Il ne restait aucun coupon à donner dans la réserve {pool}.",
    ),
    Reason.HELD_OUT: (
        "Left out on purpose, to learn what the offer is worth ({group}).",
        "Laissé de côté à dessein, pour savoir ce que vaut l’offre ({group}).",
    ),
    Reason.CONTENT_ERROR: (
        "The offer’s text could not be made: {problem}.",
        "Le texte de l’offre n’a pas pu être composé : {problem}.",
    ),
}

# Why an offer that was decided on does not go out after all, beside the reasons above.
_WITHHELD: dict[str, tuple[str, str]] = {
    "expired": (
        "It was good no longer before it could be sent.",
        "Elle n’était plus valable avant de pouvoir partir.",
    ),
    "device_gone": ("The device was erased.", "L’appareil a été effacé."),
    "left_the_geofence": (
        "The device had left the place, and the offer is only for who is still there.",
        "L’appareil avait quitté le lieu, et l’offre n’est que pour qui y est encore.",
    ),
    "somebody_else": (
        "By then somebody else used the device, or nobody was logged in.",
        "Quelqu’un d’autre utilisait alors l’appareil, ou personne n’était connecté.",
    ),
    "campaign_paused": ("The campaign was paused.", "La campagne a été suspendue."),
    "campaign_ended": ("The campaign had ended.", "La campagne était terminée."),
    "coupon_given_to_another": (
        "Its coupon had gone to somebody else.",
        "Son coupon était allé à quelqu’un d’autre.",
    ),
    "coupon_over": (
        "Its coupon was good no longer.",
        "Son coupon n’était plus valable.",
    ),
    "cancelled_by_support": (
        "Support took it back.",
        "Le service d’assistance l’a retirée.",
    ),
}
_WITHHELD_AT = {
    "en": "It was held back at {at}: {why}",
    "fr": "Elle a été retenue le {at} : {why}",
}

_NEVER = {"en": "never", "fr": "jamais"}
_ALWAYS = {"en": "always", "fr": "toujours"}
_UNKNOWN = {"en": "unknown", "fr": "inconnu"}
_SCOPES_FR = {
    "device": "appareil",
    "person": "personne",
    "place": "lieu",
    "tag": "étiquette",
    "channel": "canal",
    "campaign": "campagne",
    "brand": "marque",
}
_WHOLES = {
    "total": ("in all", "au total"),
    "per_day": ("today", "aujourd’hui"),
    "per_place": ("at this place", "à ce lieu"),
    "per_place_and_day": ("at this place today", "à ce lieu aujourd’hui"),
}


_EVER = {"en": "any time", "fr": "n’importe quand"}
_UNITS = (
    (86_400, ("day", "days"), ("jour", "jours")),
    (3_600, ("hour", "hours"), ("heure", "heures")),
    (60, ("minute", "minutes"), ("minute", "minutes")),
    (1, ("second", "seconds"), ("seconde", "secondes")),
)
_OPS = {
    "eq": ("is", "est"),
    "ne": ("is not", "n’est pas"),
    "in": ("is one of", "est parmi"),
    "not_in": ("is none of", "n’est pas parmi"),
    "gt": ("is over", "dépasse"),
    "gte": ("is at least", "est au moins"),
    "lt": ("is under", "est sous"),
    "lte": ("is at most", "est au plus"),
    "contains": ("contains", "contient"),
    "starts_with": ("starts with", "commence par"),
    "missing": ("is unknown", "est inconnu"),
}
_BY = {
    "campaign": ("campaign", "la campagne"),
    "group": ("the group", "le groupe"),
    "label": ("the kind", "la sorte"),
}


# Words that take the place of a code, by the value's name.
_CODES: dict[str, dict[str, tuple[str, str]]] = {
    "op": _OPS,
    "kind": _BY,
    "whole": _WHOLES,
    "policy": {
        "suppress": (
            "to greet nobody who was there already",
            "de ne saluer personne qui y était déjà",
        ),
        "require_exit": (
            "to wait until they have left once",
            "d’attendre qu’ils soient partis une fois",
        ),
    },
    "transition_reason": {
        "geofence_ended": ("the place ended", "le lieu a pris fin"),
        "geofence_moved": ("the place was drawn anew", "le lieu a été redessiné"),
        "disarmed": ("no campaign watched it any more", "plus aucune campagne ne le surveillait"),
        "consent_withdrawn": (
            "the consent to location was withdrawn",
            "l’accord sur la position a été retiré",
        ),
        "silence": ("the device fell silent", "l’appareil s’est tu"),
    },
    "group": {
        "holdout": ("left out by the campaign", "laissé de côté par la campagne"),
        "control": ("the brand’s control group", "le groupe témoin de la marque"),
    },
}
# What a sequence lacked is kept in English.
_LACKS_FR = (
    (re.compile(r"^no (.+) before$"), r"pas de « \1 » avant"),
    (re.compile(r"^(\d+) s too late$"), r"\1 s trop tard"),
    (re.compile(r"^not away for (\d+) s$"), r"pas absent pendant \1 s"),
    (re.compile(r"^not number (\d+)$"), r"pas la fois numéro \1"),
    (re.compile(r"^used by an earlier one$"), "déjà employée par une précédente"),
    (re.compile(r"^its last step$"), "sa dernière étape"),
)


def _span(seconds: Any, language: str) -> str:
    """Seconds in the largest unit that they fill twice, or evenly."""
    if not isinstance(seconds, int | float):
        return _UNKNOWN[language]
    for length, *names in _UNITS:
        count = round(seconds / length)
        if seconds >= 2 * length or (seconds >= length and seconds % length == 0) or length == 1:
            return f"{count} {names[LANGUAGES.index(language)][count != 1]}"
    return str(seconds)


def label(reason: str) -> str:
    """A reason as a short label: `cap_reached` → `Cap reached`."""
    return reason.replace("_", " ").capitalize()


def message(reason: str, trace: Mapping[str, Any], language: str = "en", tz: tzinfo = UTC) -> str:
    """A decision's reason as sentences, with the values that it saw, by the clock of `tz`."""
    return joined(_sentence(reason, trace, language, tz), withheld(trace, language, tz))


def withheld(trace: Mapping[str, Any], language: str = "en", tz: tzinfo = UTC) -> str:
    """Why an offer that was decided on did not go out; empty where nothing kept it."""
    told = trace.get("withheld")
    if not isinstance(told, Mapping):
        return ""
    language = language if language in LANGUAGES else "en"
    reason, seen = str(told.get("reason", "")), told.get("seen") or {}
    known = _WITHHELD.get(reason)
    why = known[LANGUAGES.index(language)] if known else _sentence(reason, seen, language, tz)
    at = _word("at", told.get("at"), language, tz)
    return _WITHHELD_AT[language].format(at=at, why=why)


def joined(*sentences: str) -> str:
    """Sentences one after the other; empty ones are left out."""
    return " ".join(one for one in sentences if one)


def _sentence(reason: str, trace: Mapping[str, Any], language: str, tz: tzinfo) -> str:
    language = language if language in LANGUAGES else "en"
    try:
        template = _WORDS[Reason(reason)][LANGUAGES.index(language)]
    except (ValueError, KeyError):
        return label(reason)
    return template.format_map(_Values(trace, language, tz))


class _Values(dict[str, str]):
    """The trace as words; what a trace does not say is unknown, never an error."""

    def __init__(self, trace: Mapping[str, Any], language: str, tz: tzinfo) -> None:
        super().__init__({key: _word(key, value, language, tz) for key, value in trace.items()})
        self.seconds = {key: one for key, one in trace.items() if key.endswith("_s")}
        self.language = language
        if "currency" in trace:
            self |= {
                key: money(trace[key], str(trace["currency"]))
                for key in ("seen", "limit")
                if isinstance(trace.get(key), int)
            }

    def __missing__(self, key: str) -> str:
        if f"{key}_s" in self:  # {age} is age_s as people say it
            return _span(self.seconds[f"{key}_s"], self.language)
        if key == "within":
            return _EVER[self.language]
        if key == "next_at":
            return _NEVER[self.language]
        if key in {"score", "winner_score"}:
            return "0"
        if key in {"starts_at", "ends_at"}:
            return _ALWAYS[self.language]
        return _UNKNOWN[self.language]


def instant(at: datetime, tz: tzinfo) -> str:
    """`2026-06-10 15:00 Europe/Helsinki`."""
    return f"{at.astimezone(tz):%Y-%m-%d %H:%M} {tz}"


def _word(key: str, value: Any, language: str, tz: tzinfo) -> str:
    if value is None:
        return (_NEVER if key == "next_at" else _UNKNOWN)[language]
    if key.endswith("_at") or key == "at":
        if isinstance(value, int):
            return instant(datetime.fromtimestamp(value / 1000, tz=UTC), tz)
        return str(value)
    if key == "local":
        try:
            return instant(datetime.fromisoformat(str(value)), tz)
        except ValueError:
            return str(value)
    coded = _coded(key, value, language)
    if coded is not None:
        return coded
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)


def _coded(key: str, value: Any, language: str) -> str | None:
    """What stands for a code of ours; None where the value speaks for itself."""
    number, code = LANGUAGES.index(language), str(value)
    if key == "lacks":
        found = [pair for pair in _LACKS_FR if pair[0].match(code)] if language == "fr" else []
        return found[0][0].sub(found[0][1], code) if found else None
    if key == "scope":
        return _SCOPES_FR.get(code) if language == "fr" else None
    known = _CODES.get(key, {}).get(code)
    return None if known is None else known[number]
