"""Registers the app `brands` with Django; it does nothing else."""

from django.apps import AppConfig


class BrandsConfig(AppConfig):
    default_auto_field = "django.db.models.BigAutoField"
    name = "brands"
    verbose_name = "Settings"
