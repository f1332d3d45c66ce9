"""The admin pages of devices, people and their imports; `campaigns.admin` registers devices."""

from devices.admin import people, uploads
from devices.admin.devices import DeviceAdmin, map_of, place_of, trail_of

__all__ = ["DeviceAdmin", "map_of", "people", "place_of", "trail_of", "uploads"]
