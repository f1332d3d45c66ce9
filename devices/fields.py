"""Serializer fields that take what CONTRACT says and nothing like it: "yes" is not true here."""

from __future__ import annotations

import re
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from brands import wallclock
from devices.attributes import problem_with_bag

# RFC 5646 in its common part: language, then script, region or variants.
_LOCALE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8}){0,4}")


class Text(serializers.CharField):
    """A JSON string; DRF's own takes numbers as well."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Truth(serializers.BooleanField):
    """A JSON true or false; consent is not guessed from "on" or 1."""

    def to_internal_value(self, data: Any) -> bool:
        if data is not True and data is not False:
            self.fail("invalid", input=data)
        return bool(data)


class Locale(Text):
    def to_internal_value(self, data: Any) -> str:
        given = super().to_internal_value(data)
        if given and not _LOCALE.fullmatch(given):
            raise serializers.ValidationError("Not a language tag such as en, fr-CA or zh-Hant-TW.")
        return given.replace("_", "-")


class Timezone(Text):
    def to_internal_value(self, data: Any) -> str:
        given = super().to_internal_value(data)
        if given and given not in wallclock.zones():
            raise serializers.ValidationError("Not a time zone of the IANA database.")
        return given


@extend_schema_field({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}]})
class Instant(serializers.JSONField):
    """A time as CONTRACT lets it be written, read elsewhere: it only describes."""


class Attributes(serializers.DictField):
    """An attribute bag, see `devices.attributes`."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("not_a_dict", input_type=type(data).__name__)
        if why := problem_with_bag(data):
            raise serializers.ValidationError(why)
        return dict(data)
