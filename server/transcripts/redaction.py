"""What takes personal details out of a tenant's texts; the same for every way in."""

from connectors.redaction.redactor import RedactionRules, Redactor
from server.db.models import Tenant
from server.settings import Settings


def redaction_rules(tenant: Tenant, settings: Settings) -> RedactionRules:
    """The tenant's rules, for a process that redacts."""
    return RedactionRules(
        custom_patterns=tenant.custom_patterns,
        default_region=settings.default_region,
        allowlist=tenant.allowlist,
        terms=tenant.masked_terms,
    )


def redactor_of(tenant: Tenant, settings: Settings) -> Redactor:
    """The tenant's redactor."""
    return redaction_rules(tenant, settings).redactor()
