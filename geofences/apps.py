"""Registers the app `geofences` with Django; it does nothing else."""

from django.apps import AppConfig


class GeofencesConfig(AppConfig):
    default_auto_field = "django.db.models.BigAutoField"
    name = "geofences"
    verbose_name = "Campaigning"
