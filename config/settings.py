"""Every setting of Nearcast, read from the environment; defaults are for a developer's machine.

With `NEARCAST_ENV=production` nothing has a default that is a secret: what is missing is named
and the process does not start.
"""

from __future__ import annotations

import os
from pathlib import Path

import dj_database_url
from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse_lazy

from config import cluster

BASE_DIR = Path(__file__).resolve().parent.parent


def env(name: str, default: str = "") -> str:
    return os.environ.get(name, default).strip()


def env_int(name: str, default: int) -> int:
    value = env(name)
    try:
        return int(value) if value else default
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number, not {value!r}.") from None


def env_bool(name: str, *, default: bool) -> bool:
    value = env(name).lower()
    return value in {"1", "true", "yes", "on"} if value else default


def env_list(name: str, default: str = "") -> list[str]:
    return [part.strip() for part in env(name, default).split(",") if part.strip()]


DEMO_SECRET = "demo-secret-for-development-only-never-for-production"  # noqa: S105 - refused below
ENVIRONMENT = env("NEARCAST_ENV", "development")
if ENVIRONMENT not in {"development", "production"}:
    raise ImproperlyConfigured(f"NEARCAST_ENV is development or production, not {ENVIRONMENT!r}.")
PRODUCTION = ENVIRONMENT == "production"
DEBUG = env_bool("NEARCAST_DEBUG", default=False)
SECRET_KEY = env("NEARCAST_SECRET_KEY", "" if PRODUCTION else DEMO_SECRET)
# Earlier secrets whose signatures are still believed while a new one takes over.
SECRET_KEY_FALLBACKS = env_list("NEARCAST_SECRET_KEY_FALLBACKS")
ALLOWED_HOSTS = env_list("NEARCAST_ALLOWED_HOSTS", "" if PRODUCTION else "*")
CSRF_TRUSTED_ORIGINS = env_list("NEARCAST_TRUSTED_ORIGINS")

DATABASE_URL = env("DATABASE_URL") or ("" if PRODUCTION else cluster.address())
DATABASES = {
    "default": dj_database_url.parse(
        DATABASE_URL or "postgis:///nearcast",
        engine="django.contrib.gis.db.backends.postgis",
        conn_max_age=600,
        conn_health_checks=True,
    )
}
# Under ASGI Django serves each request on a thread of its own: a connection kept per thread would
# be one kept per request, so config.asgi asks for a pool. Other processes keep theirs.
POOL_SIZE = env_int("NEARCAST_POOL_SIZE", 0)
if POOL_SIZE:
    DATABASES["default"]["CONN_MAX_AGE"] = 0
    DATABASES["default"].setdefault("OPTIONS", {})["pool"] = {
        "min_size": 1,
        "max_size": POOL_SIZE,
        "timeout": 10,
    }
DATABASES["default"]["TEST"] = {"NAME": env("NEARCAST_TEST_DB", "nearcast_test")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

FCM_EMULATOR_URL = env("FCM_EMULATOR_URL")  # set: pushes go there; else to Firebase
FIREBASE_CREDENTIALS = env("FIREBASE_CREDENTIALS", env("GOOGLE_APPLICATION_CREDENTIALS"))
REDIS_URL = env("REDIS_URL")
MAP_TILES_URL = env("NEARCAST_MAP_TILES", "https://tile.openstreetmap.org/{z}/{x}/{y}.png")
MAP_ATTRIBUTION = env("NEARCAST_MAP_ATTRIBUTION", "© OpenStreetMap contributors")

MAX_BODY_BYTES = env_int("NEARCAST_MAX_BODY_BYTES", 8 * 1024 * 1024)  # after gunzip
MAX_STRANGERS_BODY_BYTES = 1024 * 1024  # to the admin, of whoever has not signed in
MAX_ITEMS = env_int("NEARCAST_MAX_ITEMS", 10_000)
MAX_FRAME_BYTES = env_int("NEARCAST_MAX_FRAME_BYTES", 256 * 1024)
RATE_PER_DEVICE = env_int("NEARCAST_RATE_PER_DEVICE", 20)  # requests or frames a second, sustained
RATE_BURST = env_int("NEARCAST_RATE_BURST", 60)
STATES_IN_MEMORY = env_int("NEARCAST_STATES_IN_MEMORY", 1_000_000)  # hot rows a web process holds
LOOK_AGAIN_S = env_int("NEARCAST_LOOK_AGAIN_S", 5)  # web looks at rows, should a NOTIFY be lost
SILENCE_S = env_int("NEARCAST_SILENCE_S", 3600)  # a device not heard of for this long has left
FIX_RETENTION_DAYS = env_int("NEARCAST_FIX_RETENTION_DAYS", 30)
IMPORT_UNDO_DAYS = env_int("NEARCAST_IMPORT_UNDO_DAYS", 30)
DECISION_RETENTION_DAYS = env_int("NEARCAST_DECISION_RETENTION_DAYS", 90)
# Of transitions and events: as far back as an audience may ask (campaigns.behaviour).
ACTIVITY_RETENTION_DAYS = env_int("NEARCAST_ACTIVITY_RETENTION_DAYS", 400)


def _refuse_unsafe_production() -> None:
    missing = []
    if SECRET_KEY in {"", DEMO_SECRET} or len(SECRET_KEY) < 32:
        missing.append("NEARCAST_SECRET_KEY (at least 32 random characters, not the demo's)")
    if DEBUG:
        missing.append("NEARCAST_DEBUG must be off")
    if not ALLOWED_HOSTS or "*" in ALLOWED_HOSTS:
        missing.append("NEARCAST_ALLOWED_HOSTS (the host names it answers to, not *)")
    if not DATABASE_URL:
        missing.append("DATABASE_URL (postgis://user:password@host/name)")
    if FCM_EMULATOR_URL:
        missing.append("FCM_EMULATOR_URL must be unset: the emulator is a development tool")
    if not FIREBASE_CREDENTIALS:
        missing.append("FIREBASE_CREDENTIALS (path of the service account's JSON file)")
    if missing:
        raise ImproperlyConfigured("NEARCAST_ENV=production, but: " + "; ".join(missing) + ".")


if PRODUCTION:
    _refuse_unsafe_production()

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    # Without autodiscovery: config.urls does it, for the processes that serve pages.
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django.contrib.gis",
    "channels",
    "rest_framework",
    "rest_framework_gis",
    "django_filters",
    "drf_spectacular",
    "config",  # its management commands
    "brands",
    "geofences",
    "devices",
    "notifications",
    "campaigns",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "config.health.ask_no_name",  # before anything asks for the host name
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "brands.desk.readable_address",
    "brands.desk.brand_time",
]
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "config" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], "capacity": 1000},
    }
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}
LANGUAGE_CODE = "en"
# What browsers ask for changes nothing here: only reasons have words in a second language, and
# campaigns.reading says who reads which.
LANGUAGES = [("en", "English")]
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
MEDIA_ROOT = env(
    "NEARCAST_MEDIA_ROOT", str(BASE_DIR / ".nearcast" / "media")
)  # uploads; not served
# What the workers of one server count, shared through files there.
METRICS_ROOT = env("NEARCAST_METRICS_ROOT", str(BASE_DIR / ".nearcast" / "metrics"))
STATICFILES_DIRS = [path for path in (BASE_DIR / "static",) if path.is_dir()]
# GDAL before 3.9 may follow references in a spatial reference: GeoDjango's GDAL here only ever sees
# EPSG codes of our own columns; files people upload are read by geopandas' own, newer GDAL.
SILENCED_SYSTEM_CHECKS = ["gis.W001"]
# A developer sees an edited file at the next request, and needs no collectstatic.
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = not PRODUCTION
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES * 4  # GeoJSON collections; files stream to disk

LOGIN_URL = reverse_lazy("admin:login")
LOGIN_REDIRECT_URL = reverse_lazy("admin:index")
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PRODUCTION
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if PRODUCTION else None

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],  # every view names its own
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["brands.bodies.JsonBody"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "EXCEPTION_HANDLER": "config.errors.answer",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Nearcast",
    "DESCRIPTION": (
        "Location-triggered campaigns: report fixes, receive offers, see why. On any path, what is"
        " no HTTP/1.1 is answered 400 (not_http), and headers beyond 64 KB are answered 431"
        " (too_large); both close the connection. Where Django serves a path, a Host that is not in"
        " NEARCAST_ALLOWED_HOSTS is answered 400 (bad_host), but for the paths of health."
    ),
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVERS": [{"url": "/"}],
    "OAS_VERSION": "3.1.1",  # JSON Schema as msgspec writes it for the fast doors
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "config.schema.add_doors",
    ],
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    # Not to be ready is an answer like any other, and asked for every second.
    "filters": {
        "not_readiness": {
            "()": "django.utils.log.CallbackFilter",
            "callback": lambda record: (
                getattr(getattr(record, "request", None), "path", "") != "/readyz"
            ),
        }
    },
    "formatters": {
        "line": {
            "()": "config.logs.Discreet",
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env("NEARCAST_LOG_LEVEL", "INFO")},
    "loggers": {
        "httpx": {"level": "WARNING"},
        "django.request": {"level": "ERROR", "filters": ["not_readiness"]},
    },
}
UNFOLD = {
    "SITE_TITLE": "Nearcast",
    "SITE_HEADER": "Nearcast",
    "SITE_SUBHEADER": "config.navigation.brand_name",
    "SITE_DROPDOWN": "config.navigation.brand_menu",
    "SITE_SYMBOL": "near_me",
    "SITE_URL": None,
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "config.navigation.icon"}],
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": "8px",
    "STYLES": ["config.navigation.stylesheet"],
    "SCRIPTS": ["config.navigation.script"],
    "DASHBOARD_CALLBACK": "config.dashboard.dashboard",
    "SIDEBAR": {
        "show_search": False,
        "show_all_applications": False,
        "navigation": "config.navigation.sidebar",
    },
    # A green between map and money; the greys lean the same way.
    "COLORS": {
        "base": {
            "50": "oklch(98.4% .003 180)",
            "100": "oklch(96.6% .005 180)",
            "200": "oklch(92.6% .008 180)",
            "300": "oklch(87% .011 180)",
            "400": "oklch(70.8% .018 185)",
            "500": "oklch(55.4% .022 185)",
            "600": "oklch(44.6% .023 185)",
            "700": "oklch(37.2% .024 190)",
            "800": "oklch(27.6% .022 195)",
            "900": "oklch(20.8% .02 200)",
            "950": "oklch(14% .018 205)",
        },
        "primary": {
            "50": "oklch(97.5% .02 172)",
            "100": "oklch(94.6% .042 172)",
            "200": "oklch(89.8% .075 172)",
            "300": "oklch(83% .108 172)",
            "400": "oklch(74.5% .123 173)",
            "500": "oklch(64% .118 174)",
            "600": "oklch(51.5% .097 176)",
            "700": "oklch(44% .082 178)",
            "800": "oklch(37.5% .068 180)",
            "900": "oklch(32% .055 182)",
            "950": "oklch(23% .042 184)",
        },
    },
}
