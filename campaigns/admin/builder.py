"""Campaigns and segments."""

from django.contrib import admin

from brands.admin import BrandScopedAdmin
from campaigns.models import Campaign, Segment


@admin.register(Campaign)
class CampaignAdmin(BrandScopedAdmin):
    list_display = ("name", "state")


@admin.register(Segment)
class SegmentAdmin(BrandScopedAdmin):
    list_display = ("name",)
