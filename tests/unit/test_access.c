#include "auth/principal.h"
#include "cmocka_all.h"

#include <stdio.h>
#include <string.h>

enum { PLATFORM = 1 << SERVICE_ROLE_PLATFORM_ADMIN, SCANNER = 1 << SERVICE_ROLE_SCANNER };

#define USER(r)                                                                                                        \
        { .kind = PRINCIPAL_USER, .organization_slug = "acme", .role = (r) }
#define KEY(r)                                                                                                         \
        { .kind = PRINCIPAL_API_KEY, .organization_slug = "acme", .role = (r) }
#define AGENT                                                                                                          \
        { .kind = PRINCIPAL_AGENT, .organization_slug = "acme" }
#define SERVICE(r)                                                                                                     \
        { .kind = PRINCIPAL_SERVICE, .service_role = (r) }
#define GONE(k, r)                                                                                                     \
        { .kind = (k), .organization_slug = "acme", .role = (r), .organization_deleted = true }

struct decision {
        const char *name;
        struct principal principal;
        struct access_rule rule;
        const char *organization;
        enum access access;
};

static const struct decision decisions[] = {
        // Nothing set, nothing allowed.
        {"empty rule, owner", USER(ROLE_OWNER), {0}, "acme", ACCESS_DENIED},
        {"empty rule, owner's key", KEY(ROLE_OWNER), {0}, "acme", ACCESS_DENIED},
        {"empty rule, service", SERVICE(SERVICE_ROLE_PLATFORM_ADMIN), {0}, "acme", ACCESS_DENIED},
        {"empty rule, no organization", USER(ROLE_OWNER), {0}, NULL, ACCESS_DENIED},
        {"empty rule, nobody", {0}, {0}, NULL, ACCESS_UNAUTHENTICATED},
        // Nobody.
        {"nobody, member's method", {0}, {.least_role = ROLE_VIEWER}, "acme", ACCESS_UNAUTHENTICATED},
        {"nobody, any caller's method", {0}, {.any_caller = true}, NULL, ACCESS_UNAUTHENTICATED},
        {"nobody, service's method", {0}, {.service_roles = PLATFORM}, NULL, ACCESS_UNAUTHENTICATED},
        {"nobody, anybody's method", {0}, {.no_caller = true}, NULL, ACCESS_GRANTED},
        {"nobody, with an owner's role", {.role = ROLE_OWNER, .organization_slug = "acme"}, {.least_role = ROLE_VIEWER},
                "acme", ACCESS_UNAUTHENTICATED},
        // Members.
        {"member", USER(ROLE_ADMIN), {.least_role = ROLE_ADMIN}, "acme", ACCESS_GRANTED},
        {"member of too low a role", USER(ROLE_APPROVER), {.least_role = ROLE_ADMIN}, "acme", ACCESS_DENIED},
        {"not a member", USER(ROLE_NONE), {.least_role = ROLE_VIEWER}, "acme", ACCESS_DENIED},
        {"no such organization", {.kind = PRINCIPAL_USER}, {.least_role = ROLE_VIEWER}, "ghost", ACCESS_DENIED},
        {"role of another organization", USER(ROLE_OWNER), {.least_role = ROLE_VIEWER}, "globex", ACCESS_DENIED},
        {"slug that only begins alike", USER(ROLE_OWNER), {.least_role = ROLE_VIEWER}, "acme-2", ACCESS_DENIED},
        {"empty organization", {.kind = PRINCIPAL_USER, .role = ROLE_OWNER}, {.least_role = ROLE_VIEWER}, "",
                ACCESS_DENIED},
        {"method without organization", USER(ROLE_OWNER), {.least_role = ROLE_VIEWER}, NULL, ACCESS_DENIED},
        {"role out of range", USER((enum role)6), {.least_role = ROLE_VIEWER}, "acme", ACCESS_DENIED},
        {"any caller, not a member", USER(ROLE_NONE), {.any_caller = true}, NULL, ACCESS_GRANTED},
        {"user, service's method", USER(ROLE_OWNER), {.service_roles = PLATFORM}, "acme", ACCESS_DENIED},
        {"user with a service role", {.kind = PRINCIPAL_USER, .service_role = SERVICE_ROLE_PLATFORM_ADMIN},
                {.service_roles = PLATFORM}, NULL, ACCESS_DENIED},
        // API keys.
        {"key", KEY(ROLE_VIEWER), {.least_role = ROLE_VIEWER}, "acme", ACCESS_GRANTED},
        {"key of too low a role", KEY(ROLE_VIEWER), {.least_role = ROLE_ANALYST}, "acme", ACCESS_DENIED},
        {"key of another organization", KEY(ROLE_OWNER), {.least_role = ROLE_VIEWER}, "globex", ACCESS_DENIED},
        {"key abroad, any caller", KEY(ROLE_OWNER), {.any_caller = true}, "globex", ACCESS_DENIED},
        {"key at home, any caller", KEY(ROLE_VIEWER), {.any_caller = true}, "acme", ACCESS_GRANTED},
        {"key, any caller, no organization", KEY(ROLE_VIEWER), {.any_caller = true}, NULL, ACCESS_GRANTED},
        {"key, service's method", KEY(ROLE_OWNER), {.service_roles = PLATFORM}, NULL, ACCESS_DENIED},
        {"key, no organization", KEY(ROLE_OWNER), {.least_role = ROLE_VIEWER}, NULL, ACCESS_DENIED},
        // Agents.
        {"agent", AGENT, {.agents = true}, NULL, ACCESS_GRANTED},
        {"agent at home", AGENT, {.agents = true}, "acme", ACCESS_GRANTED},
        {"agent abroad", AGENT, {.agents = true}, "globex", ACCESS_DENIED},
        {"agent abroad, any caller", AGENT, {.any_caller = true}, "globex", ACCESS_DENIED},
        {"agent, any caller", AGENT, {.any_caller = true}, NULL, ACCESS_GRANTED},
        {"agent, empty rule", AGENT, {0}, NULL, ACCESS_DENIED},
        {"agent, member's method", AGENT, {.least_role = ROLE_VIEWER}, "acme", ACCESS_DENIED},
        {"agent with an owner's role", {.kind = PRINCIPAL_AGENT, .role = ROLE_OWNER, .organization_slug = "acme"},
                {.least_role = ROLE_VIEWER}, "acme", ACCESS_DENIED},
        {"agent, service's method", AGENT, {.service_roles = ~0U}, NULL, ACCESS_DENIED},
        {"agents' method, owner", USER(ROLE_OWNER), {.agents = true}, "acme", ACCESS_DENIED},
        {"agents' method, owner's key", KEY(ROLE_OWNER), {.agents = true}, NULL, ACCESS_DENIED},
        {"agents' method, service", SERVICE(SERVICE_ROLE_PLATFORM_ADMIN), {.agents = true}, NULL, ACCESS_DENIED},
        {"agents' method, nobody", {0}, {.agents = true}, NULL, ACCESS_UNAUTHENTICATED},
        // Services.
        {"service", SERVICE(SERVICE_ROLE_PLATFORM_ADMIN), {.service_roles = PLATFORM}, NULL, ACCESS_GRANTED},
        {"service in any organization", SERVICE(SERVICE_ROLE_SCANNER), {.service_roles = PLATFORM | SCANNER}, "acme",
                ACCESS_GRANTED},
        {"other service", SERVICE(SERVICE_ROLE_ASSISTANT), {.service_roles = PLATFORM | SCANNER}, "acme",
                ACCESS_DENIED},
        {"service, member's method", SERVICE(SERVICE_ROLE_PLATFORM_ADMIN), {.least_role = ROLE_VIEWER}, "acme",
                ACCESS_DENIED},
        {"service with an owner's role",
                {.kind = PRINCIPAL_SERVICE,
                        .service_role = SERVICE_ROLE_SCANNER,
                        .role = ROLE_OWNER,
                        .organization_slug = "acme"},
                {.least_role = ROLE_VIEWER}, "acme", ACCESS_DENIED},
        {"service without a role", SERVICE(SERVICE_ROLE_NONE), {.service_roles = ~0U}, NULL, ACCESS_DENIED},
        {"service role out of range", SERVICE((enum service_role)4), {.service_roles = ~0U}, NULL, ACCESS_DENIED},
        {"service, any caller", SERVICE(SERVICE_ROLE_ASSISTANT), {.any_caller = true}, NULL, ACCESS_GRANTED},
        // No kind of ours.
        {"unknown kind", {.kind = (enum principal_kind)9, .role = ROLE_OWNER, .organization_slug = "acme"},
                {.least_role = ROLE_VIEWER, .any_caller = true, .service_roles = ~0U}, "acme", ACCESS_DENIED},
        // Deleted organizations: the answer is for those alone who would have been let in.
        {"deleted", GONE(PRINCIPAL_USER, ROLE_OWNER), {.least_role = ROLE_VIEWER}, "acme", ACCESS_ORGANIZATION_DELETED},
        {"deleted, key", GONE(PRINCIPAL_API_KEY, ROLE_OWNER), {.least_role = ROLE_VIEWER}, "acme",
                ACCESS_ORGANIZATION_DELETED},
        {"deleted, allowed", GONE(PRINCIPAL_USER, ROLE_OWNER), {.least_role = ROLE_OWNER, .on_deleted = true}, "acme",
                ACCESS_GRANTED},
        {"deleted, allowed, too low a role", GONE(PRINCIPAL_USER, ROLE_ADMIN),
                {.least_role = ROLE_OWNER, .on_deleted = true}, "acme", ACCESS_DENIED},
        {"deleted, not a member", GONE(PRINCIPAL_USER, ROLE_NONE), {.least_role = ROLE_VIEWER}, "acme", ACCESS_DENIED},
        {"deleted, key abroad", GONE(PRINCIPAL_API_KEY, ROLE_OWNER), {.least_role = ROLE_VIEWER}, "globex",
                ACCESS_DENIED},
        {"deleted, service",
                {.kind = PRINCIPAL_SERVICE,
                        .service_role = SERVICE_ROLE_SCANNER,
                        .organization_slug = "acme",
                        .organization_deleted = true},
                {.service_roles = SCANNER}, "acme", ACCESS_ORGANIZATION_DELETED},
        {"deleted, agent", GONE(PRINCIPAL_AGENT, ROLE_NONE), {.agents = true}, NULL, ACCESS_ORGANIZATION_DELETED},
        {"deleted, agent, any caller", GONE(PRINCIPAL_AGENT, ROLE_NONE), {.any_caller = true}, NULL, ACCESS_GRANTED},
        {"deleted, call names none", GONE(PRINCIPAL_API_KEY, ROLE_VIEWER), {.any_caller = true}, NULL, ACCESS_GRANTED},
};

static void decides_as_the_table_says(void **state) {
        (void)state;
        for (size_t i = 0; i < sizeof decisions / sizeof *decisions; i++) {
                const struct decision *row = &decisions[i];
                enum access access = access_decide(&row->principal, &row->rule, row->organization);
                if (access != row->access)
                        fail_msg("%s: %d, not %d", row->name, access, row->access);
        }
}

// Each role may do all that the ones before it may, as a person and as a key.
static void roles_are_ordered(void **state) {
        (void)state;
        for (enum role role = ROLE_NONE; role <= ROLE_OWNER; role++)
                for (enum role least = ROLE_VIEWER; least <= ROLE_OWNER; least++) {
                        struct principal user = USER(role), key = KEY(role);
                        struct access_rule rule = {.least_role = least};
                        enum access expected = role >= least ? ACCESS_GRANTED : ACCESS_DENIED;
                        assert_int_equal(access_decide(&user, &rule, "acme"), expected);
                        assert_int_equal(access_decide(&key, &rule, "acme"), expected);
                }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(decides_as_the_table_says),
                cmocka_unit_test(roles_are_ordered),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
