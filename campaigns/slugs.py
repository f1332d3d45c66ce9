"""What campaigns call a brand's segments and pools by, made of what people call them."""

from __future__ import annotations

from django.db.models import Model
from django.utils.text import slugify

from brands.models import Brand

_LONGEST = 50  # what the columns hold, less a number


def free(kind: type[Model], brand: Brand, name: str) -> str:
    """A slug that no other of the brand's rows of this kind has; it stays when the name changes.

    Two who make one at a moment take turns: the brand is locked until the caller's transaction
    ends.
    """
    Brand.objects.select_for_update(no_key=True).get(pk=brand.pk)
    wanted = slugify(name)[:_LONGEST] or str(kind._meta.model_name)
    rows = kind._default_manager.filter(brand=brand, slug__startswith=wanted)
    taken = set(rows.values_list("slug", flat=True))
    numbered = (f"{wanted}-{number}" for number in range(2, len(taken) + 3))
    return wanted if wanted not in taken else next(one for one in numbered if one not in taken)
