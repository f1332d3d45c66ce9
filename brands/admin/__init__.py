"""What the other apps' admin builds on, and the brand's own pages, which register themselves."""

from brands.admin import pages
from brands.admin.lists import BigListAdmin, Page
from brands.admin.scoped import BrandScopedAdmin, OwnPageAdmin
from brands.admin.uploads import FileJobAdmin, UploadForm

__all__ = [
    "BigListAdmin",
    "BrandScopedAdmin",
    "FileJobAdmin",
    "OwnPageAdmin",
    "Page",
    "UploadForm",
    "pages",
]
