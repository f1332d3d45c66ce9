"""Admin pages of campaigns, and of what they lead to; they register themselves."""

from campaigns.admin import builder, support

__all__ = ["builder", "support"]
