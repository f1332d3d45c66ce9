"""Imports in the admin: a file is uploaded, its columns are confirmed, and its rows are watched.

The work itself is the import's; a page only queues it and reads the job's rows, so it may be
closed and opened again. What the columns mean is the subclass's `confirm`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.timezone import now
from unfold.decorators import display

from brands import filejobs, undoing
from brands.admin.scoped import BrandScopedAdmin
from brands.desk import current_brand
from brands.filejobs import UNDER_WAY, FileError, FileJob, ImportState, Verdict
from brands.tables import csv_answer
from brands.templatetags.nearcast import when

REMARKS_A_PAGE = 50
OVERDUE_S = 15  # queued for longer: probably no worker runs
MAX_UPLOAD_BYTES = 512 * 1024 * 1024


class UploadForm(forms.Form):
    """A file; subclasses say which endings can be read, and what to say of the others."""

    endings: tuple[str, ...] = ()
    readable = ""
    command = ""

    file = forms.FileField(widget=forms.ClearableFileInput({"class": "nc-file"}))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["file"].widget.attrs["accept"] = ",".join(self.endings)

    def clean_file(self) -> Any:
        """Refuse what cannot be read before it is stored."""
        file = self.cleaned_data["file"]
        if Path(file.name).suffix.lower() not in self.endings:
            raise forms.ValidationError(f"Files of this kind cannot be read. {self.readable}")
        if file.size > MAX_UPLOAD_BYTES:
            raise forms.ValidationError(
                f"The file is larger than {MAX_UPLOAD_BYTES // 2**20} MiB; the command "
                f"{self.command} takes it."
            )
        return file


class FileJobAdmin(BrandScopedAdmin):
    """Imports: nothing about one is edited, except what its columns mean before it starts."""

    delete_role = None
    list_display = ("file_name", "state_in_words", "what_came", "by", "started")
    list_display_links = ("file_name",)
    list_per_page = 50
    list_select_related = ("created_by",)
    ordering = ("-created_at",)
    empty_title = "Nothing imported yet"
    actions = ()
    upload_form: type[UploadForm]
    upload_template = "admin/nearcast/import_upload.html"
    watch_template = "admin/nearcast/import_watch.html"
    remark_columns: tuple[str, ...]
    worker = "imports"  # the loop of config.work that does these

    @display(
        description="state",
        ordering="state",
        label={"Done": "success", "Failed": "danger", "Running": "info", "Queued": "info"},
    )
    def state_in_words(self, row: FileJob) -> str:
        return row.get_state_display()

    @display(description="rows")
    def what_came(self, row: FileJob) -> str:
        return ", ".join(f"{count:,} {verdict}" for verdict, count in row.counts.items()) or "–"

    @display(description="by")
    def by(self, row: FileJob) -> str:
        return row.created_by.get_username() if row.created_by else "command line"

    @display(description="when", ordering="created_at")
    def started(self, row: FileJob) -> str:
        return when(row.created_at)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {}

    def url(self, name: str, *args: Any) -> str:
        """Return the address of one of these pages."""
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_{name}", args=args)

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        pages: dict[str, Callable[..., HttpResponse]] = {
            "progress.json": self.progress_view,
            "remarks.csv": self.remarks_view,
            "cancel/": self.cancel_view,
            "undo/": self.undo_view,
        }
        return [
            *(
                path(
                    f"<int:object_id>/{at}",
                    wrap(view),
                    name=f"{self.opts.app_label}_{self.opts.model_name}_"
                    + at.strip("/").replace(".", "_"),
                )
                for at, view in pages.items()
            ),
            *super().get_urls(),
        ]

    def page(
        self, request: HttpRequest, template: str, title: str, **context: Any
    ) -> TemplateResponse:
        """Answer one of these pages."""
        return TemplateResponse(
            request,
            template,
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": title,
                "tab": "imports",
                **context,
            },
        )

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        brand = current_brand(request)
        if brand is None or not self.has_add_permission(request):
            raise PermissionDenied
        form = self.upload_form(request.POST or None, request.FILES or None)
        if request.method == "POST" and form.is_valid():
            file = form.cleaned_data["file"]
            job = self.model(brand=brand, file_name=file.name[-200:], created_by_id=request.user.pk)
            job.file.save(file.name, file, save=False)
            job.save()
            return redirect(self.url("change", job.pk))
        return self.page(
            request,
            self.upload_template,
            "Import a file",
            form=form,
            list_url=self.url("changelist"),
        )

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: Any = None,
    ) -> HttpResponse:
        job = self.object_or_redirect(request, object_id)
        if isinstance(job, HttpResponseRedirect):
            return job
        if not self.has_view_permission(request, job):
            raise PermissionDenied
        if job.state != ImportState.DRAFT:
            return self._watch(request, job)
        if not self.has_change_permission(request, job):
            raise PermissionDenied
        try:
            return self.confirm(request, job)
        except FileError as error:
            filejobs.refuse(job, str(error), now=now())
            return redirect(self.url("change", job.pk))

    def confirm(self, request: HttpRequest, job: Any) -> HttpResponse:
        """What the columns mean: guessed, shown beside the first rows, put right by a person.

        Calls `start` where they are. Raises FileError where the file cannot be read at all.
        """
        raise NotImplementedError

    def start(self, job: Any, mapping: dict[str, Any], rows_total: int | None) -> HttpResponse:
        """Queue a job whose columns are confirmed; one that a double click has begun goes on."""
        type(job)._default_manager.filter(pk=job.pk, state=ImportState.DRAFT).update(
            mapping=mapping,
            rows_total=rows_total,
            state=ImportState.QUEUED,
            created_at=now(),  # its place in the queue
        )
        return redirect(self.url("change", job.pk))

    def result_url(self, job: Any) -> tuple[str, str, str] | None:
        """Return where to see what came of it: address, icon, words."""
        return None

    def undo_of(self, job: FileJob) -> dict[str, Any] | None:
        undone = undoing.undoing_of(job)
        if undone is not None and undone.state not in {ImportState.CANCELLED, ImportState.FAILED}:
            return {"title": "See its undoing", "url": self.url("change", undone.pk)}
        last = undoing.until(job, now=now())
        if last is None:
            return None
        return {"title": "Undo…", "url": self.url("undo", job.pk), "until": last}

    def undo_lines(self, job: Any) -> list[str]:
        """Say what undoing a job will do, a sentence a line."""
        raise NotImplementedError

    def undo_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Ask, then take back what an import wrote and nobody has changed since."""
        job = self._seen(request, object_id)
        if not self.has_change_permission(request, job):
            raise PermissionDenied
        if request.method == "POST":
            queued = undoing.undo(job, by=request.user.pk, now=now())
            if queued is not None:
                return redirect(self.url("change", queued.pk))
        if undoing.until(job, now=now()) is None:
            messages.error(request, "This import cannot be undone, or it has been already.")
            return redirect(self.url("change", job.pk))
        return self.page(
            request,
            "admin/nearcast/confirm.html",
            f"Undo the import of {job.file_name}?",
            lines=self.undo_lines(job),
            button="Undo the import",
            back_url=self.url("change", job.pk),
        )

    def _watch(self, request: HttpRequest, job: Any) -> HttpResponse:
        verdict = request.GET.get("verdict", "")
        remarks = job.rows.filter(verdict=verdict) if verdict in set(Verdict) else job.rows.all()
        page = Paginator(remarks, REMARKS_A_PAGE).get_page(request.GET.get("page"))
        return self.page(
            request,
            self.watch_template,
            job.file_name,
            job=job,
            page=page,
            verdict=verdict,
            verdicts=job.rows.order_by().values_list("verdict", flat=True).distinct(),
            progress=progress(job),
            took_s=(job.finished_at - job.started_at).total_seconds()
            if job.finished_at and job.started_at
            else None,
            result=self.result_url(job),
            undo=self.undo_of(job),
            may_edit=self.has_change_permission(request, job),
            with_names="name" in self.remark_columns,
            worker=self.worker,
            urls={
                "add": self.url("add"),
                "cancel": self.url("cancel", job.pk),
                "progress": self.url("progress_json", job.pk),
                "remarks": self.url("remarks_csv", job.pk),
            },
        )

    def progress_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        return JsonResponse(progress(self._seen(request, object_id)))

    def remarks_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """The rows that were refused or remarked on, as CSV."""
        job = self._seen(request, object_id)
        rows = filejobs.remarks(job, self.remark_columns)
        return csv_answer(f"import-{job.pk}-remarks", self.remark_columns, rows)

    def cancel_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Stop an import; what it has taken in stays."""
        job = self._seen(request, object_id)
        if not self.has_change_permission(request, job):
            raise PermissionDenied
        if request.method == "POST" and filejobs.cancel(job, now=now()):
            messages.success(
                request, "The import is stopped. What it took in stays, unless it is undone."
            )
        return redirect(self.url("change", job.pk))

    def _seen(self, request: HttpRequest, object_id: int) -> Any:
        job = self.get_object(request, str(object_id))
        if job is None or not self.has_view_permission(request, job):
            raise PermissionDenied
        return job


def progress(job: FileJob) -> dict[str, Any]:
    """How far an import is, for the bar."""
    waited_s = (now() - job.created_at).total_seconds()
    return {
        "state": job.state,
        "under_way": job.state in UNDER_WAY,
        "rows_done": job.rows_done,
        "rows_total": job.rows_total,
        "counts": job.counts,
        "overdue": job.state == ImportState.QUEUED and waited_s > OVERDUE_S,
    }
