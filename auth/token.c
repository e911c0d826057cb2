#include "auth/token.h"

#include "auth/claims.h"
#include "auth/cleanup.h"
#include "auth/jwks.h"
#include "auth/jws.h"
#include "auth/small_file.h"
#include "auth/token_cache.h"

#include <assert.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>

struct token_verifier {
        struct token_settings settings;

        // Whoever looks at the file holds `looking`; nobody waits for it.
        pthread_mutex_t looking;
        struct stat seen; // the file as it was last read, whether or not it could be used
        _Atomic int64_t looked;

        // `lock` guards the rest, and is never held over a file or a signature.
        pthread_mutex_t lock;
        struct jwks *keys;
        uint64_t generation; // of the keys, from 1
        struct token_cache *cache;
};

static bool same_file(const struct stat *a, const struct stat *b) {
        return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
               a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
               a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static struct jwks *read_keys(const char *path, struct stat *ret_seen, char **ret_error) {
        size_t size;
        char *text = small_file_read(path, ret_seen, &size, ret_error);
        if (!text)
                return NULL;
        CLEANUP(drop_text) char *reason = NULL;
        struct jwks *keys = jwks_parse(text, size, &reason);
        if (!keys) {
                auth_error(ret_error, "%s: %s", path, reason ? reason : "out of memory");
                ERR_clear_error();
        }
        free(text);
        return keys;
}

// Puts a new set in force. Tokens of the one before are verified again, so those whose key is gone are refused.
static void replace_keys(struct token_verifier *verifier, struct jwks *keys) {
        pthread_mutex_lock(&verifier->lock);
        struct jwks *old = verifier->keys;
        verifier->keys = keys;
        verifier->generation++;
        pthread_mutex_unlock(&verifier->lock);
        jwks_free(old);
}

static void look_at_file(struct token_verifier *verifier) {
        struct stat status;
        // A file that is away for a moment, while it is replaced, is no change yet.
        if (stat(verifier->settings.jwks_file, &status) < 0 || same_file(&status, &verifier->seen))
                return;
        CLEANUP(drop_text) char *error = NULL;
        struct jwks *keys = read_keys(verifier->settings.jwks_file, &verifier->seen, &error);
        if (keys)
                replace_keys(verifier, keys);
        else if (verifier->settings.log)
                verifier->settings.log("key_set_unusable", error ? error : "out of memory");
}

static void look_if_due(struct token_verifier *verifier, int64_t now) {
        int64_t looked = atomic_load(&verifier->looked);
        // Calls that straddle a second are one second apart; more than that backwards, and the clock was set.
        if (now == looked || now + 1 == looked || !atomic_compare_exchange_strong(&verifier->looked, &looked, now))
                return;
        if (pthread_mutex_trylock(&verifier->looking) == 0) {
                look_at_file(verifier);
                pthread_mutex_unlock(&verifier->looking);
        }
}

struct token_verifier *token_verifier_new(const struct token_settings *settings, char **ret_error) {
        assert(settings->jwks_file && settings->issuers && settings->audience);
        struct token_verifier *verifier = calloc(1, sizeof *verifier);
        if (!verifier) {
                auth_error(ret_error, "out of memory");
                return NULL;
        }
        verifier->settings = *settings;
        pthread_mutex_init(&verifier->looking, NULL);
        pthread_mutex_init(&verifier->lock, NULL);
        atomic_init(&verifier->looked, INT64_MIN);
        verifier->generation = 1;
        verifier->keys = read_keys(settings->jwks_file, &verifier->seen, ret_error);
        verifier->cache = verifier->keys ? token_cache_new(settings->cache_size) : NULL;
        if (verifier->cache)
                return verifier;
        if (verifier->keys)
                auth_error(ret_error, "out of memory");
        token_verifier_free(verifier);
        return NULL;
}

void token_verifier_free(struct token_verifier *verifier) {
        if (!verifier)
                return;
        token_cache_free(verifier->cache);
        jwks_free(verifier->keys);
        pthread_mutex_destroy(&verifier->lock);
        pthread_mutex_destroy(&verifier->looking);
        free(verifier);
}

static bool recall(struct token_verifier *verifier, const unsigned char hash[TOKEN_HASH], int64_t now,
        struct principal *ret_principal) {
        pthread_mutex_lock(&verifier->lock);
        bool found = token_cache_get(verifier->cache, hash, verifier->generation, now, ret_principal);
        pthread_mutex_unlock(&verifier->lock);
        return found;
}

// Under the generation that the key was found in: if the set has changed since, nobody finds the entry.
static void remember(struct token_verifier *verifier, const unsigned char hash[TOKEN_HASH], uint64_t generation,
        int64_t not_before, const struct principal *principal) {
        pthread_mutex_lock(&verifier->lock);
        token_cache_put(verifier->cache, hash, generation, not_before, principal);
        pthread_mutex_unlock(&verifier->lock);
}

static enum token_status find_key(
        struct token_verifier *verifier, const struct jws *jws, EVP_PKEY **ret_key, uint64_t *ret_generation) {
        pthread_mutex_lock(&verifier->lock);
        enum token_status status = jwks_find(verifier->keys, jws->named ? jws->kid : NULL, jws->algorithm, ret_key);
        *ret_generation = verifier->generation;
        pthread_mutex_unlock(&verifier->lock);
        return status;
}

// Signature first: claims that nobody signed are not even parsed.
static enum token_status verify_afresh(struct token_verifier *verifier, const char *token, size_t size, int64_t now,
        struct principal *ret_principal, int64_t *ret_not_before, uint64_t *ret_generation) {
        struct jws jws;
        CLEANUP(drop_pkey) EVP_PKEY *key = NULL;
        enum token_status status = jws_parse(token, size, &jws);
        if (status == TOKEN_OK)
                status = find_key(verifier, &jws, &key, ret_generation);
        if (status == TOKEN_OK)
                status = jws_verify(&jws, key);
        if (status != TOKEN_OK)
                return status;
        json_auto_t *claims = jws_claims(&jws);
        return claims ? claims_check(claims, &verifier->settings, now, ret_principal, ret_not_before) : TOKEN_MALFORMED;
}

enum token_status token_verify(
        struct token_verifier *verifier, const char *token, size_t size, int64_t now, struct principal *ret_principal) {
        unsigned char hash[TOKEN_HASH];
        int64_t not_before;
        uint64_t generation;
        if (size > JWS_MAX)
                return TOKEN_MALFORMED;
        look_if_due(verifier, now);
        if (EVP_Digest(token, size, hash, NULL, EVP_sha256(), NULL) != 1)
                return TOKEN_FAILURE;
        if (recall(verifier, hash, now, ret_principal))
                return TOKEN_OK;
        enum token_status status = verify_afresh(verifier, token, size, now, ret_principal, &not_before, &generation);
        if (status == TOKEN_OK)
                remember(verifier, hash, generation, not_before, ret_principal);
        return status;
}

const char *token_status_text(enum token_status status) {
        static const char *const texts[] = {
                [TOKEN_OK] = "ok",
                [TOKEN_MALFORMED] = "malformed",
                [TOKEN_ALGORITHM] = "algorithm",
                [TOKEN_UNKNOWN_KEY] = "unknown key",
                [TOKEN_SIGNATURE] = "signature",
                [TOKEN_EXPIRED] = "expired",
                [TOKEN_NOT_YET] = "not yet valid",
                [TOKEN_ISSUER] = "issuer",
                [TOKEN_AUDIENCE] = "audience",
                [TOKEN_CLAIMS] = "claims",
                [TOKEN_FAILURE] = "failure",
        };
        return texts[status];
}
