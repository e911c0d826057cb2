#include "auth/jws.h"

#include "auth/base64url.h"
#include "auth/cleanup.h"

#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <string.h>
#include <strings.h>

enum { ES256_HALF = 32, ES256_DER_MAX = 72 };

// A part of the token as a JSON object. A member that stands twice makes it malformed: two readers of such a token
// may take different ones (RFC 8725).
static json_t *decode_object(const char *text, size_t length) {
        unsigned char json[JWS_MAX / 4 * 3];
        size_t size;
        if (!base64url_decode(text, length, json, sizeof json, &size))
                return NULL;
        json_t *object = json_loadb((const char *)json, size, JSON_REJECT_DUPLICATES, NULL);
        if (json_is_object(object))
                return object;
        json_decref(object);
        return NULL;
}

// RFC 9068 calls access tokens at+jwt; RFC 7515 lets "application/" be left out, and case does not count.
static bool type_accepted(const json_t *type) {
        static const char *const accepted[] = {"JWT", "at+jwt", "application/at+jwt"};
        if (!type)
                return true;
        for (size_t i = 0; json_is_string(type) && i < sizeof accepted / sizeof *accepted; i++)
                if (strcasecmp(json_string_value(type), accepted[i]) == 0)
                        return true;
        return false;
}

// `crit` names extensions that must be understood, and there is none that we do.
static enum token_status read_header(const json_t *header, struct jws *jws) {
        const json_t *kid = json_object_get(header, "kid");
        if (!type_accepted(json_object_get(header, "typ")) || json_object_get(header, "crit") ||
                (kid && (!json_is_string(kid) || json_string_length(kid) > JWKS_KEY_ID_MAX)))
                return TOKEN_MALFORMED;
        jws->named = kid;
        if (kid)
                memcpy(jws->kid, json_string_value(kid), json_string_length(kid));
        jws->algorithm = jws_algorithm_named(json_string_value(json_object_get(header, "alg")));
        return jws->algorithm == JWS_NONE ? TOKEN_ALGORITHM : TOKEN_OK;
}

enum token_status jws_parse(const char *token, size_t size, struct jws *ret_jws) {
        const char *end = token + size;
        const char *dot1 = memchr(token, '.', size);
        const char *dot2 = dot1 ? memchr(dot1 + 1, '.', (size_t)(end - dot1 - 1)) : NULL;
        if (!dot2)
                return TOKEN_MALFORMED;
        json_auto_t *header = decode_object(token, (size_t)(dot1 - token));
        if (!header)
                return TOKEN_MALFORMED;
        *ret_jws = (struct jws){
                .text = token,
                .text_size = (size_t)(dot2 - token),
                .payload = dot1 + 1,
                .payload_size = (size_t)(dot2 - dot1 - 1),
        };
        enum token_status status = read_header(header, ret_jws);
        if (status != TOKEN_OK)
                return status;
        // A third dot is no character of base64url, and so refused with the signature.
        return base64url_decode(dot2 + 1, (size_t)(end - dot2 - 1), ret_jws->signature, sizeof ret_jws->signature,
                       &ret_jws->signature_size)
                       ? TOKEN_OK
                       : TOKEN_MALFORMED;
}

static void drop_ecdsa(ECDSA_SIG **signature) { ECDSA_SIG_free(*signature); }

// OpenSSL wants DER where tokens have r and s at full length. The DER's size; 0 on failure.
static size_t ecdsa_to_der(const unsigned char raw[2 * ES256_HALF], unsigned char ret_der[ES256_DER_MAX]) {
        CLEANUP(drop_ecdsa) ECDSA_SIG *signature = ECDSA_SIG_new();
        CLEANUP(drop_bignum) BIGNUM *r = BN_bin2bn(raw, ES256_HALF, NULL);
        CLEANUP(drop_bignum) BIGNUM *s = BN_bin2bn(raw + ES256_HALF, ES256_HALF, NULL);
        if (!signature || !r || !s || ECDSA_SIG_set0(signature, r, s) != 1)
                return 0;
        r = s = NULL; // the signature's now
        int size = i2d_ECDSA_SIG(signature, &ret_der);
        return size > 0 ? (size_t)size : 0;
}

enum token_status jws_verify(const struct jws *jws, EVP_PKEY *key) {
        unsigned char der[ES256_DER_MAX];
        const unsigned char *signature = jws->signature;
        size_t size = jws->signature_size;
        if (jws->algorithm == JWS_ES256) {
                if (size != (size_t)2 * ES256_HALF)
                        return TOKEN_SIGNATURE;
                size = ecdsa_to_der(jws->signature, der);
                signature = der;
                if (!size)
                        return TOKEN_FAILURE;
        }
        CLEANUP(drop_md_context) EVP_MD_CTX *context = EVP_MD_CTX_new();
        if (!context || EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) != 1)
                return TOKEN_FAILURE;
        if (EVP_DigestVerify(context, signature, size, (const unsigned char *)jws->text, jws->text_size) == 1)
                return TOKEN_OK;
        // Else the next one on this thread who looks at OpenSSL's errors takes it for his own: TLS, say.
        ERR_clear_error();
        return TOKEN_SIGNATURE;
}

json_t *jws_claims(const struct jws *jws) { return decode_object(jws->payload, jws->payload_size); }
