"""Forms of a brand, its staff and its keys."""

from __future__ import annotations

from django import forms
from django.contrib.auth.models import User
from django.contrib.auth.validators import UnicodeUsernameValidator
from unfold.widgets import (
    UnfoldAdminEmailInputWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from brands import wallclock
from brands.fields import CapsField, HoursField
from brands.models import AppKey, Brand, KeyKind, Membership, Role
from brands.overtaking import MarkedForm
from brands.rights import NOBODY, Rights

CAP_SCOPES = {
    "device": "a phone",
    "person": "a person",
    "place": "a person at one place",
    "tag": "a person at places tagged",
    "channel": "a person by",
    "campaign": "a person and one campaign",
    "brand": "everybody together",
}
"""Whom a brand's caps count for, in words."""


class BrandForm(MarkedForm):
    """A brand's name, zone, quiet hours and caps."""

    timezone = forms.ChoiceField(
        choices=lambda: [(zone, zone.replace("_", " ")) for zone in sorted(wallclock.zones())],
        widget=UnfoldAdminSelectWidget,
        initial="UTC",
        help_text="For the times on these pages, and for phones that have not told their own zone.",
    )
    quiet_hours = HoursField(
        help_text="No offers between these times, by the phone's own clock. Empty: no quiet hours."
    )
    caps = CapsField(
        scopes=CAP_SCOPES,
        label="At most",
        help_text="Over all campaigns of the brand together.",
    )

    class Meta:
        model = Brand
        fields = ("name", "slug", "timezone", "quiet_hours", "caps", "derive_areas")
        labels = {"slug": "Short name", "derive_areas": "Home and usual areas"}
        help_texts = {"slug": "For addresses and files; it cannot be changed later."}


class AppKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    """A new key: what it is called and what it is for."""

    kind = forms.ChoiceField(
        label="What is it for?",
        choices=[
            (KeyKind.PUBLISHABLE.value, "An app: may only register devices, may be public"),
            (KeyKind.SERVER.value, "Your back office: locations, profiles, campaigns; keep secret"),
        ],
        initial=KeyKind.PUBLISHABLE.value,
        widget=UnfoldAdminRadioSelectWidget,
    )

    class Meta:
        model = AppKey
        fields = ("name", "kind")
        help_texts = {"name": "So that you know it again, for example “Android app”."}


ROLES = [
    (Role.SUPPORT.value, "Support: sees everything of the brand, resends and cancels deliveries"),
    (Role.MARKETER.value, "Marketer: also makes campaigns, geofences and segments"),
    (Role.ADMIN.value, "Admin: also manages staff, keys and the brand itself"),
]


class RoleForm(forms.ModelForm):  # type: ignore[type-arg]
    """Another role for somebody who works here already."""

    rights: Rights = NOBODY
    role = forms.ChoiceField(choices=ROLES, widget=UnfoldAdminRadioSelectWidget)

    class Meta:
        model = Membership
        fields = ("role",)


class MemberForm(RoleForm):
    """A new colleague: an account is made, unless a brand one administers has it already."""

    username = forms.CharField(
        max_length=150,
        label="User name",
        validators=[UnicodeUsernameValidator()],
        widget=UnfoldAdminTextInputWidget,
    )
    first_name = forms.CharField(max_length=150, required=False, widget=UnfoldAdminTextInputWidget)
    last_name = forms.CharField(max_length=150, required=False, widget=UnfoldAdminTextInputWidget)
    email = forms.EmailField(required=False, label="E-mail", widget=UnfoldAdminEmailInputWidget)
    existing: User | None = None

    def clean_username(self) -> str:
        """Accept a new name, or that of somebody this person may bring over."""
        username: str = self.cleaned_data["username"]
        found = User.objects.filter(username=username).first()
        if found is not None:
            theirs = Membership.objects.filter(user=found).values_list("brand_id", flat=True)
            if theirs.filter(brand=self.instance.brand).exists():
                raise forms.ValidationError("This person works for the brand already.")
            known = any(self.rights.may(Role.ADMIN, brand_id) for brand_id in theirs)
            if not self.rights.everywhere and not known:
                raise forms.ValidationError("This user name is taken; choose another.")
            self.existing = self.instance.user = found
        return username

    def make_user(self, *, password: str) -> User:
        """Make the account that this form describes."""
        given = self.cleaned_data
        return User.objects.create_user(
            username=given["username"],
            email=given["email"],
            password=password,
            first_name=given["first_name"],
            last_name=given["last_name"],
            is_staff=True,
        )
