"""The admin pages of geofences and their imports, which register themselves."""

from geofences.admin import places, uploads

__all__ = ["places", "uploads"]
