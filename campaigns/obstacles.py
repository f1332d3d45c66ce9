"""What may keep a campaign from ever considering a device, in words, English and French. Pure.

It finds nothing out (campaigns.whynot does). Times are those of the clock that the reader names.
"""

from __future__ import annotations

from datetime import datetime, tzinfo
from enum import StrEnum
from typing import Any, NamedTuple

from campaigns.words import LANGUAGES, instant


class Obstacle(StrEnum):
    """One thing that may stand on the road to a decision."""

    NEVER_PUBLISHED = "never_published"
    UNREADABLE = "unreadable"
    NO_TRIGGER = "no_trigger"
    NOT_LIVE = "not_live"
    NOT_BEGUN = "not_begun"
    OVER = "over"
    NO_CONSENT = "no_consent"
    NEVER_HEARD = "never_heard"
    NOT_HEARD_SINCE = "not_heard_since"
    PLACES_GONE = "places_gone"
    PLACES_OVER = "places_over"
    NOT_ARMED = "not_armed"
    PARKED = "parked"
    UNDECIDED = "undecided"
    NOT_COVERED = "not_covered"
    TOO_SHORT = "too_short"
    NOT_LEFT = "not_left"
    NOT_ENTERED = "not_entered"
    ENTERING = "entering"
    NEVER_THERE = "never_there"
    NEARBY = "nearby"
    AT_THE_EDGE = "at_the_edge"
    EDGE_TOO_NEAR = "edge_too_near"
    EDGE_ACCURACY = "edge_accuracy"
    USELESS_FIXES = "useless_fixes"
    NOT_YET_TIME = "not_yet_time"
    TIME_MISSED = "time_missed"
    BEING_ASKED = "being_asked"
    NOT_AMONG = "not_among"
    AMONG_UNKNOWN = "among_unknown"
    NO_EVENT = "no_event"
    EVENT_PARKED = "event_parked"
    EVENT_UNDECIDED = "event_undecided"
    SEQUENCE_WAITS = "sequence_waits"
    NOTHING = "nothing"


class Words(NamedTuple):
    """A sentence that says it all, and one that says more."""

    title: str
    text: str = ""


# By obstacle: English, French.
_WORDS: dict[Obstacle, tuple[Words, Words]] = {
    Obstacle.NEVER_PUBLISHED: (
        Words("The campaign was never published.", "A draft fires for nobody."),
        Words("La campagne n’a jamais été publiée.", "Un brouillon ne se déclenche pour personne."),
    ),
    Obstacle.UNREADABLE: (
        Words("The live version cannot be read.", "{problem}"),
        Words("La version active est illisible.", "{problem}"),
    ),
    Obstacle.NO_TRIGGER: (
        Words("The live version names nothing that would set it off."),
        Words("La version active ne nomme rien qui la déclencherait."),
    ),
    Obstacle.NOT_LIVE: (
        Words("The campaign is {state}.", "Only a live one decides."),
        Words("La campagne est {state}.", "Seule une campagne active décide."),
    ),
    Obstacle.NOT_BEGUN: (
        Words("It starts only at {at}."),
        Words("Elle ne commence que le {at}."),
    ),
    Obstacle.OVER: (Words("It ended at {at}."), Words("Elle a pris fin le {at}.")),
    Obstacle.NO_CONSENT: (
        Words(
            "The person has not agreed to the use of their location.",
            "Positions of this device are refused at the door.",
        ),
        Words(
            "La personne n’a pas accepté l’usage de sa position.",
            "Les positions de cet appareil sont refusées dès l’entrée.",
        ),
    ),
    Obstacle.NEVER_HEARD: (
        Words(
            "The device has never reported a position.",
            "Does the app have the permission, and has it been opened since?",
        ),
        Words(
            "L’appareil n’a jamais signalé de position.",
            "L’application en a-t-elle la permission, et a-t-elle été ouverte depuis ?",
        ),
    ),
    Obstacle.NOT_HEARD_SINCE: (
        Words(
            "The device has not reported a position since the campaign was published.",
            "The last one came at {at}.",
        ),
        Words(
            "L’appareil n’a signalé aucune position depuis la publication de la campagne.",
            "La dernière est arrivée le {at}.",
        ),
    ),
    Obstacle.PLACES_GONE: (
        Words("The geofences the campaign names are gone."),
        Words("Les zones que nomme la campagne n’existent plus."),
    ),
    Obstacle.PLACES_OVER: (
        Words("None of the campaign's geofences is armed.", "They have ended or were removed."),
        Words(
            "Aucune des zones de la campagne n’est armée.",
            "Elles ont pris fin ou ont été retirées.",
        ),
    ),
    Obstacle.NOT_ARMED: (
        Words(
            "None of the campaign's geofences is armed.",
            "Nothing needs them at the moment: is the campaign live and within its dates?",
        ),
        Words(
            "Aucune des zones de la campagne n’est armée.",
            "Rien n’en a besoin en ce moment : la campagne est-elle active, et dans ses dates ?",
        ),
    ),
    Obstacle.PARKED: (
        Words("The moment was set aside as broken.", "{problem}"),
        Words("Le moment a été mis de côté comme défectueux.", "{problem}"),
    ),
    Obstacle.UNDECIDED: (
        Words(
            "It happened and waits to be decided.",
            "If it waits for more than a few seconds, the evaluation worker is not running.",
        ),
        Words(
            "Cela s’est produit et attend une décision.",
            "Si cela dure plus de quelques secondes, le processus d’évaluation ne tourne pas.",
        ),
    ),
    Obstacle.NOT_COVERED: (
        Words(
            "The moment was judged, but not by this campaign.",
            "The campaign did not cover the geofence then, or its decisions are older than the "
            "retention keeps.",
        ),
        Words(
            "Le moment a été jugé, mais pas par cette campagne.",
            "La campagne ne couvrait pas la zone alors, ou ses décisions sont trop anciennes pour "
            "être gardées.",
        ),
    ),
    Obstacle.TOO_SHORT: (
        Words(
            "It came, but did not stay for {needed}.",
            "The longest stay seen: {longest_min} min. Last at {place}, {at}.",
        ),
        Words(
            "Il est venu, mais n’est pas resté {needed}.",
            "Le plus long séjour vu : {longest_min} min. En dernier à {place}, le {at}.",
        ),
    ),
    Obstacle.NOT_LEFT: (
        Words(
            "It came, but has not been seen leaving.",
            "Entered {place} at {at}; it is believed inside until a position outside arrives or it "
            "falls silent.",
        ),
        Words(
            "Il est venu, mais on ne l’a pas vu partir.",
            "Entré à {place} le {at} ; on le croit à l’intérieur jusqu’à ce qu’une position au "
            "dehors arrive ou qu’il se taise.",
        ),
    ),
    Obstacle.NOT_ENTERED: (
        Words(
            "It was seen leaving, but not entering, since the campaign was published.",
            "It was inside {place} before.",
        ),
        Words(
            "On l’a vu partir, mais pas entrer, depuis la publication de la campagne.",
            "Il était à {place} avant.",
        ),
    ),
    Obstacle.ENTERING: (
        Words(
            "It may be inside {place}: more positions must agree.", "{agreeing} of {needed} so far."
        ),
        Words(
            "Il est peut-être à {place} : il faut que d’autres positions concordent.",
            "{agreeing} sur {needed} pour l’instant.",
        ),
    ),
    Obstacle.NEVER_THERE: (
        Words("It has not been at any of the campaign's geofences."),
        Words("Il n’a été dans aucune des zones de la campagne."),
    ),
    Obstacle.NEARBY: (
        Words(
            "It has not been at any of the campaign's geofences.",
            "The nearest it came: {away_m} m from {place}, at {at}{how_sure}.",
        ),
        Words(
            "Il n’a été dans aucune des zones de la campagne.",
            "Au plus près : à {away_m} m de {place}, le {at}{how_sure}.",
        ),
    ),
    Obstacle.AT_THE_EDGE: (
        Words(
            "It was at the edge of {place}, but not surely inside.",
            "At {at}{how_sure}: the uncertainty reached across the edge.",
        ),
        Words(
            "Il était au bord de {place}, mais pas sûrement à l’intérieur.",
            "Le {at}{how_sure} : l’incertitude dépassait le bord.",
        ),
    ),
    Obstacle.EDGE_TOO_NEAR: (
        Words(
            "It was at the edge of {place}, but not surely inside.",
            "At {at}{how_sure}: the uncertainty reached across the edge. So near the edge no phone "
            "is accurate enough.",
        ),
        Words(
            "Il était au bord de {place}, mais pas sûrement à l’intérieur.",
            "Le {at}{how_sure} : l’incertitude dépassait le bord. Si près du bord, aucun appareil "
            "n’est assez précis.",
        ),
    ),
    Obstacle.EDGE_ACCURACY: (
        Words(
            "It was at the edge of {place}, but not surely inside.",
            "At {at}{how_sure}: the uncertainty reached across the edge. It would have counted "
            "with an accuracy under {enough_m} m.",
        ),
        Words(
            "Il était au bord de {place}, mais pas sûrement à l’intérieur.",
            "Le {at}{how_sure} : l’incertitude dépassait le bord. Cela aurait compté avec une "
            "précision meilleure que {enough_m} m.",
        ),
    ),
    Obstacle.USELESS_FIXES: (
        Words("{count} of its last {of} positions {why}."),
        Words("{count} de ses {of} dernières positions {why}."),
    ),
    Obstacle.NOT_YET_TIME: (
        Words("Its time has not come since the campaign was published.", "{next}"),
        Words("Son heure n’est pas venue depuis la publication de la campagne.", "{next}"),
    ),
    Obstacle.TIME_MISSED: (
        Words(
            "Its time came at {at}, and nobody was asked.",
            "The campaign did not run then, or the server noticed too late.",
        ),
        Words(
            "Son heure est venue le {at}, et personne n’a été interrogé.",
            "La campagne n’était pas active alors, ou le serveur l’a remarqué trop tard.",
        ),
    ),
    Obstacle.BEING_ASKED: (
        Words("Its time has come, and the devices are being asked."),
        Words("Son heure est venue, et les appareils sont en train d’être interrogés."),
    ),
    Obstacle.NOT_AMONG: (
        Words(
            "The device was not at the campaign's geofences when the time came.",
            "Last at {at}: {members} devices were asked.",
        ),
        Words(
            "L’appareil n’était pas dans les zones de la campagne quand l’heure est venue.",
            "En dernier le {at} : {members} appareils ont été interrogés.",
        ),
    ),
    Obstacle.AMONG_UNKNOWN: (
        Words(
            "It was at {place} when the time came, but that was not known then.",
            "Its time came at {at}; what a phone reports later is not asked again.",
        ),
        Words(
            "Il était à {place} quand l’heure est venue, mais on ne le savait pas encore.",
            "L’heure est venue le {at} ; ce qu’un appareil signale plus tard n’est plus interrogé.",
        ),
    ),
    Obstacle.NO_EVENT: (
        Words("No event “{event}” has come since the campaign was published."),
        Words("Aucun événement « {event} » n’est arrivé depuis la publication de la campagne."),
    ),
    Obstacle.EVENT_PARKED: (
        Words("The event was set aside as broken.", "{problem}"),
        Words("L’événement a été mis de côté comme défectueux.", "{problem}"),
    ),
    Obstacle.EVENT_UNDECIDED: (
        Words("The event has come and waits to be decided."),
        Words("L’événement est arrivé et attend une décision."),
    ),
    Obstacle.SEQUENCE_WAITS: (
        Words(
            "The sequence is complete and waits to see that nothing calls it off.",
            "It is decided at {at}.",
        ),
        Words(
            "La suite est complète et attend que rien ne l’annule.",
            "La décision tombe le {at}.",
        ),
    ),
    Obstacle.NOTHING: (
        Words(
            "Nothing stands in the way now.",
            "The moment may have passed before the campaign was published, or its decisions are "
            "older than the retention keeps.",
        ),
        Words(
            "Rien ne s’y oppose à présent.",
            "Le moment est peut-être passé avant la publication de la campagne, ou ses décisions "
            "sont trop anciennes pour être gardées.",
        ),
    ),
}

# Words that take the place of a value, by the value's name and the value.
_VALUES: dict[str, dict[str, tuple[str, str]]] = {
    "state": {
        "draft": ("draft", "un brouillon"),
        "paused": ("paused", "suspendue"),
        "ended": ("ended", "terminée"),
    },
    "why": {
        "late": ("came late", "sont arrivées en retard"),
        "mocked": (
            "were mocked by a tool on the phone",
            "étaient simulées par un outil sur l’appareil",
        ),
        "teleport": ("jumped impossibly far", "ont fait un saut impossible"),
        "inaccurate": ("were too inaccurate", "étaient trop imprécises"),
    },
}
_ACCURACY = (
    ", with an accuracy of {accuracy_m:.0f} m",
    ", avec une précision de {accuracy_m:.0f} m",
)
_NEXT = ("It comes round at {at}.", "Elle viendra le {at}.")
_DWELL = ("the dwell time", "le temps de séjour demandé")


def in_words(obstacle: Obstacle, language: str, tz: tzinfo, **values: Any) -> Words:
    """Say what stands in the way. Instants are datetimes; the rest goes in as it is."""
    number = LANGUAGES.index(language) if language in LANGUAGES else 0
    said = {name: _said(name, value, number, tz) for name, value in values.items()}
    accuracy_m = values.get("accuracy_m")
    said["how_sure"] = _ACCURACY[number].format(accuracy_m=accuracy_m) if accuracy_m else ""
    said["next"] = _NEXT[number].format(at=said["next_at"]) if values.get("next_at") else ""
    words = _WORDS[obstacle][number]
    return Words(words.title.format_map(said), words.text.format_map(said))


def _said(name: str, value: Any, number: int, tz: tzinfo) -> str:
    if isinstance(value, datetime):
        return instant(value, tz)
    if name == "needed" and value is None:
        return _DWELL[number]
    known = _VALUES.get(name, {}).get(str(value))
    return known[number] if known else str(value)
