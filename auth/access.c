#include "auth/principal.h"

#include <stddef.h>
#include <string.h>

static bool names_own_organization(const struct principal *principal, const char *organization) {
        return principal->organization_slug[0] && strcmp(principal->organization_slug, organization) == 0;
}

static bool role_suffices(const struct principal *principal, enum role least) {
        return least > ROLE_NONE && principal->role >= least && principal->role <= ROLE_OWNER;
}

static bool service_listed(const struct principal *principal, unsigned service_roles) {
        return principal->service_role > SERVICE_ROLE_NONE && principal->service_role <= SERVICE_ROLE_ASSISTANT &&
               (service_roles & 1U << principal->service_role);
}

// What an authenticated caller may, as if no organization were deleted.
static bool caller_may(const struct principal *principal, const struct access_rule *rule, const char *organization) {
        bool own = organization && names_own_organization(principal, organization);
        switch (principal->kind) {
        case PRINCIPAL_USER:
                return rule->any_caller || (own && role_suffices(principal, rule->least_role));
        case PRINCIPAL_API_KEY:
                // A key stays in its organization, whatever the method allows.
                if (organization && !own)
                        return false;
                return rule->any_caller || (own && role_suffices(principal, rule->least_role));
        case PRINCIPAL_AGENT:
                return (!organization || own) && (rule->any_caller || rule->agents);
        case PRINCIPAL_SERVICE:
                return rule->any_caller || service_listed(principal, rule->service_roles);
        case PRINCIPAL_NONE:
                break;
        }
        return false;
}

enum access access_decide(const struct principal *principal, const struct access_rule *rule, const char *organization) {
        if (rule->no_caller)
                return ACCESS_GRANTED;
        if (principal->kind == PRINCIPAL_NONE)
                return ACCESS_UNAUTHENTICATED;
        if (!caller_may(principal, rule, organization))
                return ACCESS_DENIED;
        // After the decision, so that a stranger cannot learn from the answer that an organization was there.
        bool in_organization = organization || (principal->kind == PRINCIPAL_AGENT && rule->agents);
        if (in_organization && principal->organization_deleted && !rule->on_deleted)
                return ACCESS_ORGANIZATION_DELETED;
        return ACCESS_GRANTED;
}
