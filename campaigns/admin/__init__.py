"""Admin pages of campaigns, and of what they lead to; they register themselves."""

from campaigns.admin import builder, control, coupons, guards, segments, support

__all__ = ["builder", "control", "coupons", "guards", "segments", "support"]
