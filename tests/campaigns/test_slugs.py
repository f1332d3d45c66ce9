"""What a segment or a pool is called by: never like another, whoever makes them at one moment."""

from __future__ import annotations

import pytest
from django.db import transaction

from brands.models import Brand
from campaigns import coupons, slugs
from campaigns.models import CouponPool, Segment
from tests.campaigns.racing import together
from tests.factories import make_brand


def make_segment(brand: Brand, name: str) -> str:
    with transaction.atomic():
        slug = slugs.free(Segment, brand, name)
        Segment.objects.create(brand=brand, name=name, slug=slug, tree={})
    return slug


@pytest.mark.django_db
def test_it_counts_on_where_a_name_is_taken() -> None:
    brand, other = make_brand(), make_brand()
    made = [make_segment(brand, name) for name in ("Café Gold!", "Café gold", "Cafe-gold", "")]
    assert made == ["cafe-gold", "cafe-gold-2", "cafe-gold-3", "segment"]
    assert make_segment(other, "Café Gold") == "cafe-gold"
    assert slugs.free(CouponPool, brand, "☕") == "couponpool"
    assert make_segment(brand, "x" * 90) == "x" * 50
    assert make_segment(brand, "x" * 90) == "x" * 50 + "-2"


@pytest.mark.django_db(transaction=True)
def test_it_gives_two_at_one_moment_two() -> None:
    brand = make_brand()

    def make() -> None:
        make_segment(brand, "Regulars")

    together(8, make)
    assert Segment.objects.filter(brand=brand).count() == 8


@pytest.mark.django_db(transaction=True)
def test_pools_of_one_name_get_one_each_as_well() -> None:
    brand = make_brand()

    def make() -> None:
        with transaction.atomic():
            slug = slugs.free(CouponPool, brand, "Coffee")
            coupons.new_pool(brand, name="Coffee", slug=slug, kind="imported")

    together(4, make)
    assert CouponPool.objects.filter(brand=brand).count() == 4
