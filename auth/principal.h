// Who calls, and what that caller may do.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum principal_kind { PRINCIPAL_NONE, PRINCIPAL_USER, PRINCIPAL_SERVICE, PRINCIPAL_API_KEY, PRINCIPAL_AGENT };

// The numbers of devopsgenie.options.Role and ServiceRole.
enum role { ROLE_NONE, ROLE_VIEWER, ROLE_ANALYST, ROLE_APPROVER, ROLE_ADMIN, ROLE_OWNER };
enum service_role { SERVICE_ROLE_NONE, SERVICE_ROLE_PLATFORM_ADMIN, SERVICE_ROLE_SCANNER, SERVICE_ROLE_ASSISTANT };

enum { SLUG_MAX = 63, UUID_TEXT = 36, SUBJECT_MAX = 255, EMAIL_MAX = 254, CALLER_MAX = 320 };

// An authenticated caller. Of a user and a service the token says all but the role in an organization, which is
// the member's; an API key carries both, and an agent belongs to one organization and has no role.
struct principal {
        enum principal_kind kind;
        enum service_role service_role;
        char caller[CALLER_MAX + 1];                         // as audit events and WhoAmI show it
        char subject[SUBJECT_MAX + 1], email[EMAIL_MAX + 1]; // email: verified ones only, in lower case
        int64_t expire_time;                                 // Unix seconds; 0: never
        char agent_id[UUID_TEXT + 1], agent_key_id[UUID_TEXT + 1];
        // The organization that the call is about (an API key's or an agent's own), once it is looked up.
        char organization_slug[SLUG_MAX + 1], organization_id[UUID_TEXT + 1];
        enum role role;
        bool organization_deleted;
};

// A method's access rule, from its options in proto.
struct access_rule {
        enum role least_role;   // ROLE_NONE: members and API keys may not
        unsigned service_roles; // bit (1 << service_role) for each service that may
        bool any_caller, no_caller, on_deleted;
        bool agents; // agents may, each in its own organization, which the request does not name
};

enum access {
        ACCESS_GRANTED,
        ACCESS_UNAUTHENTICATED,      // nobody said who calls, and the method wants to know
        ACCESS_DENIED,               // PERMISSION_DENIED, whether or not what is named exists
        ACCESS_ORGANIZATION_DELETED, // FAILED_PRECONDITION: the caller may, but the organization is out of use
};

// The one access decision. `organization` is the slug that the request's resource name begins with, or NULL where
// the method names none. The principal's organization fields must be those of that organization (ROLE_NONE for
// a caller that is not a member). Default: denied.
enum access access_decide(const struct principal *principal, const struct access_rule *rule, const char *organization);
