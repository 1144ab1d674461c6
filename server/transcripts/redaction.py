"""What takes personal details out of a tenant's texts; the same for every way in."""

from connectors.redaction.redactor import Redactor
from server.db.models import Tenant
from server.settings import Settings


def redactor_of(tenant: Tenant, settings: Settings) -> Redactor:
    """The tenant's redactor."""
    return Redactor(
        tenant.custom_patterns,
        settings.default_region,
        allowlist=tenant.allowlist,
        terms=tenant.masked_terms,
    )
