#include "server/identity.h"

#include "auth/api_key.h"
#include "server/rpc/server.h"
#include "storage/row.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { SETS = 1024, WAYS = 4, KEY = SHA256_DIGEST_LENGTH, USED_KEYS = 256, TOKEN_MAX = 16384 };
// What is older than DUE is looked up anew by the first who asks; the others go by it meanwhile, up to FRESH.
static const int64_t FRESH_NS = 1000000000, DUE_NS = 700000000;

// A look-up's outcome, positive or not, under the hash of what was looked up.
struct entry {
        unsigned char key[KEY];
        int64_t since; // CLOCK_MONOTONIC; 0: empty
        unsigned generation;
        bool awaited; // is being looked up anew
        int used_day; // of an API key: the day that is noted already
        struct principal principal;
};

struct identity {
        struct token_verifier *tokens;
        pthread_mutex_t lock;
        unsigned generation; // what was looked up before the last change of access does not count
        struct entry entries[SETS][WAYS];
        struct {
                char organization[UUID_TEXT + 1], key[UUID_TEXT + 1];
        } used[USED_KEYS];
        unsigned used_count;
};

// What a call remembers between asking and the answer.
struct look_up {
        unsigned char key[KEY];
        unsigned char hash[API_KEY_HASH];
        char prefix[API_KEY_PREFIX + 1];
        const struct key_kind *kind; // of a key
        unsigned generation;
};

struct identity *identity_new(struct token_verifier *tokens) {
        struct identity *identity = calloc(1, sizeof *identity);
        if (identity) {
                identity->tokens = tokens;
                pthread_mutex_init(&identity->lock, NULL);
        }
        return identity;
}

void identity_free(struct identity *identity) {
        if (identity)
                pthread_mutex_destroy(&identity->lock);
        free(identity);
}

static struct entry *find(struct identity *identity, const unsigned char key[KEY]) {
        struct entry *set = identity->entries[(key[0] | (unsigned)key[1] << 8) % SETS];
        for (unsigned i = 0; i < WAYS; i++)
                if (set[i].since && !memcmp(set[i].key, key, KEY))
                        return &set[i];
        return NULL;
}

static bool recall(struct identity *identity, const unsigned char key[KEY], struct principal *ret_principal,
        unsigned *ret_generation) {
        pthread_mutex_lock(&identity->lock);
        struct entry *entry = find(identity, key);
        int64_t age = entry && entry->generation == identity->generation ? now_ns() - entry->since : INT64_MAX;
        bool fresh = age < DUE_NS || (age < FRESH_NS && entry->awaited);
        if (fresh)
                *ret_principal = entry->principal;
        else if (entry)
                entry->awaited = true;
        *ret_generation = identity->generation;
        pthread_mutex_unlock(&identity->lock);
        return fresh;
}

static struct entry *oldest(struct identity *identity, const unsigned char key[KEY]) {
        struct entry *set = identity->entries[(key[0] | (unsigned)key[1] << 8) % SETS], *victim = set;
        for (unsigned i = 1; i < WAYS; i++)
                if (set[i].since < victim->since)
                        victim = &set[i];
        memset(victim, 0, sizeof *victim);
        memcpy(victim->key, key, KEY);
        return victim;
}

// Notes that a key was used today; the list is written out in batches. A full list loses nothing but a day's note.
static void note_use(struct identity *identity, struct entry *entry, const char *key_id) {
        int today = (int)(time(NULL) / 86400);
        if (!key_id || entry->used_day == today || identity->used_count == USED_KEYS)
                return;
        entry->used_day = today;
        memcpy(identity->used[identity->used_count].organization, entry->principal.organization_id, UUID_TEXT + 1);
        memcpy(identity->used[identity->used_count++].key, key_id, UUID_TEXT + 1);
}

static void remember(struct identity *identity, const struct look_up *look_up, const struct principal *principal,
        const char *key_id) {
        pthread_mutex_lock(&identity->lock);
        struct entry *entry = find(identity, look_up->key);
        if (!entry)
                entry = oldest(identity, look_up->key);
        entry->since = now_ns();
        entry->generation = look_up->generation;
        entry->awaited = false;
        entry->principal = *principal;
        note_use(identity, entry, key_id);
        pthread_mutex_unlock(&identity->lock);
}

void identity_forget(struct identity *identity) {
        pthread_mutex_lock(&identity->lock);
        identity->generation++;
        pthread_mutex_unlock(&identity->lock);
}

bool identity_take_used_keys(struct identity *identity, char *ret_organizations, char *ret_keys, size_t size) {
        pthread_mutex_lock(&identity->lock);
        size_t used = 0;
        for (; identity->used_count && used + UUID_TEXT + 3 < size; used += UUID_TEXT + 1) {
                unsigned last = --identity->used_count;
                ret_organizations[used] = ret_keys[used] = used ? ',' : '{';
                memcpy(ret_organizations + used + 1, identity->used[last].organization, UUID_TEXT);
                memcpy(ret_keys + used + 1, identity->used[last].key, UUID_TEXT);
        }
        pthread_mutex_unlock(&identity->lock);
        if (used)
                memcpy(ret_organizations + used, "}", 2), memcpy(ret_keys + used, "}", 2);
        return used > 0;
}

// One answer for every kind of wrong credential; the log has which.
static enum identity_status refuse_credentials(struct call *call) {
        call->principal = (struct principal){0};
        call_refuse(call, CODE_UNAUTHENTICATED, "CREDENTIALS_INVALID", "the credentials are not valid here");
        return IDENTITY_REFUSED;
}

// --- Keys: of the API, and agents' ---

static void fill_api_key(struct principal *principal, const PGresult *result) {
        principal->kind = PRINCIPAL_API_KEY;
        principal->role = (enum role)row_int(result, 0, "role");
        char id[UUID_TEXT + 1];
        row_uuid(result, 0, "api_key_id", id);
        snprintf(principal->caller, sizeof principal->caller, "organizations/%s/apiKeys/%s",
                principal->organization_slug, id);
}

static void fill_agent(struct principal *principal, const PGresult *result) {
        principal->kind = PRINCIPAL_AGENT;
        row_uuid(result, 0, "agent_id", principal->agent_id);
        row_uuid(result, 0, "agent_key_id", principal->agent_key_id);
        snprintf(principal->caller, sizeof principal->caller, "organizations/%s/agents/%s",
                principal->organization_slug, principal->agent_id);
}

// Where a scheme's keys are looked up, and whom they make of a caller.
static const struct key_kind {
        const char *scheme;
        enum internal_statement statement;
        void (*fill)(struct principal *principal, const PGresult *result);
} key_kinds[] = {
        {api_key_scheme, INTERNAL_FIND_API_KEY, fill_api_key},
        {agent_key_scheme, INTERNAL_FIND_AGENT_KEY, fill_agent},
};

static const struct key_kind *find_key_kind(const char *text, size_t size) {
        for (size_t i = 0; i < sizeof key_kinds / sizeof *key_kinds; i++)
                if (api_key_has_scheme(key_kinds[i].scheme, text, size))
                        return &key_kinds[i];
        return NULL;
}

static void fill_key_principal(const struct key_kind *kind, struct principal *principal, const PGresult *result) {
        row_uuid(result, 0, "organization_id", principal->organization_id);
        row_text(result, 0, "organization_slug", principal->organization_slug, sizeof principal->organization_slug);
        principal->organization_deleted = row_bool(result, 0, "organization_deleted");
        principal->expire_time = row_unix_time(result, 0, "expire_time");
        kind->fill(principal, result);
}

static bool holds(const struct principal *principal) {
        return principal->kind != PRINCIPAL_NONE && (!principal->expire_time || principal->expire_time > time(NULL));
}

static void key_found(struct call *call, PGresult *result) {
        const struct look_up *look_up = call->state;
        struct principal principal = {0};
        char id[UUID_TEXT + 1] = "";
        unsigned char stored[API_KEY_HASH];
        if (PQntuples(result) == 1 && row_bytes(result, 0, "secret_sha256", stored, sizeof stored) &&
                !CRYPTO_memcmp(stored, look_up->hash, sizeof stored) && !row_bool(result, 0, "revoked")) {
                fill_key_principal(look_up->kind, &principal, result);
                row_uuid(result, 0, "api_key_id", id); // an agent's key has none: its use is not noted
        }
        remember(server_identity(call->server), look_up, &principal, *id ? id : NULL);
        call->principal = principal;
        call->key_known = true;
        call->state = NULL;
}

static enum identity_status authenticate_key(
        struct identity *identity, struct call *call, const struct key_kind *kind, const char *text, size_t size) {
        struct look_up *look_up = arena_alloc(&call->arena, sizeof *look_up);
        if (!look_up)
                return call_fail(call, "arena"), IDENTITY_REFUSED;
        if (!call->key_known) {
                if (!api_key_parse(kind->scheme, text, size, look_up->prefix, look_up->hash))
                        return refuse_credentials(call);
                memcpy(look_up->key, look_up->hash, KEY);
                call->key_known = recall(identity, look_up->key, &call->principal, &look_up->generation);
        }
        if (call->key_known)
                return holds(&call->principal) ? IDENTITY_KNOWN : refuse_credentials(call);
        look_up->kind = kind;
        call->state = look_up;
        call->given[0] = (struct storage_value){look_up->prefix, API_KEY_PREFIX};
        return call_query(call, kind->statement, NULL, key_found) ? IDENTITY_WAIT : IDENTITY_REFUSED;
}

enum identity_status identity_authenticate(struct identity *identity, struct call *call, const char *authorization,
        size_t authorization_size, const char *api_key, size_t api_key_size) {
        static const char scheme[] = "Bearer ";
        const char *text = api_key;
        size_t size = api_key_size;
        if (authorization) {
                if (authorization_size <= sizeof scheme - 1 || strncasecmp(authorization, scheme, sizeof scheme - 1))
                        return refuse_credentials(call);
                text = authorization + sizeof scheme - 1;
                size = authorization_size - (sizeof scheme - 1);
        }
        if (!text)
                return IDENTITY_KNOWN;
        const struct key_kind *kind = find_key_kind(text, size);
        if (kind)
                return authenticate_key(identity, call, kind, text, size);
        if (api_key && !authorization)
                return refuse_credentials(call);
        if (!identity->tokens || size > TOKEN_MAX)
                return refuse_credentials(call);
        enum token_status status = token_verify(identity->tokens, text, size, time(NULL), &call->principal);
        if (status == TOKEN_OK)
                return IDENTITY_KNOWN;
        if (status == TOKEN_FAILURE)
                return call_fail(call, "token_verify"), IDENTITY_REFUSED;
        call_note(call, token_status_text(status));
        return refuse_credentials(call);
}

// --- Memberships ---

static void copy_place(struct principal *to, const struct principal *from) {
        memcpy(to->organization_slug, from->organization_slug, sizeof to->organization_slug);
        memcpy(to->organization_id, from->organization_id, sizeof to->organization_id);
        to->role = from->role;
        to->organization_deleted = from->organization_deleted;
}

static void place_found(struct call *call, PGresult *result) {
        const struct look_up *look_up = call->state;
        struct principal place = {.kind = call->principal.kind};
        snprintf(place.organization_slug, sizeof place.organization_slug, "%s", call->organization);
        if (PQntuples(result) == 1) {
                row_uuid(result, 0, "organization_id", place.organization_id);
                place.organization_deleted = row_bool(result, 0, "organization_deleted");
                if (place.kind == PRINCIPAL_USER)
                        place.role = (enum role)row_int(result, 0, "role");
        }
        remember(server_identity(call->server), look_up, &place, NULL);
        copy_place(&call->principal, &place);
        call->place_known = true;
        call->state = NULL;
}

// A membership is found by organization, subject and verified e-mail address; an organization by its slug alone.
static bool hash_place(const struct call *call, unsigned char ret_key[KEY]) {
        bool user = call->principal.kind == PRINCIPAL_USER;
        char text[SLUG_MAX + SUBJECT_MAX + EMAIL_MAX + 8];
        int size = snprintf(text, sizeof text, "%s\n%s\n%s\n%d", call->organization,
                user ? call->principal.subject : "", user ? call->principal.email : "", (int)call->principal.kind);
        return size > 0 && (size_t)size < sizeof text && SHA256((const unsigned char *)text, (size_t)size, ret_key);
}

enum identity_status identity_locate(struct identity *identity, struct call *call) {
        struct principal place;
        if (call->principal.kind == PRINCIPAL_API_KEY || call->principal.kind == PRINCIPAL_AGENT || call->place_known)
                return IDENTITY_KNOWN;
        struct look_up *look_up = arena_alloc(&call->arena, sizeof *look_up);
        if (!look_up || !hash_place(call, look_up->key))
                return call_fail(call, "arena"), IDENTITY_REFUSED;
        if (recall(identity, look_up->key, &place, &look_up->generation)) {
                copy_place(&call->principal, &place);
                call->place_known = true;
                return IDENTITY_KNOWN;
        }
        call->state = look_up;
        call->given[0] = (struct storage_value){call->principal.subject, (int)strlen(call->principal.subject)};
        call->given[1] = (struct storage_value){call->principal.email, (int)strlen(call->principal.email)};
        enum internal_statement statement = call->principal.kind == PRINCIPAL_USER ? INTERNAL_FIND_MEMBER
                                                                                   : INTERNAL_FIND_ORGANIZATION;
        return call_query(call, statement, NULL, place_found) ? IDENTITY_WAIT : IDENTITY_REFUSED;
}
