#include "storage/row.h"

#include "storage/uuid.h"

#include <stdio.h>
#include <string.h>

static const char *value(const PGresult *result, int row, const char *column, int *ret_size) {
        int field = PQfnumber(result, column);
        *ret_size = 0;
        if (field < 0 || row >= PQntuples(result) || PQgetisnull(result, row, field))
                return NULL;
        *ret_size = PQgetlength(result, row, field);
        return PQgetvalue(result, row, field);
}

void row_uuid(const PGresult *result, int row, const char *column, char ret_text[37]) {
        int size;
        const char *bytes = value(result, row, column, &size);
        ret_text[0] = 0;
        if (bytes && size == UUID_BYTES)
                uuid_to_text((const unsigned char *)bytes, ret_text);
}

void row_text(const PGresult *result, int row, const char *column, char *ret_text, size_t size) {
        int length;
        const char *text = value(result, row, column, &length);
        snprintf(ret_text, size, "%.*s", length, text ? text : "");
}

bool row_bool(const PGresult *result, int row, const char *column) {
        int size;
        const char *byte = value(result, row, column, &size);
        return byte && size == 1 && *byte;
}

int64_t row_int(const PGresult *result, int row, const char *column) {
        int size;
        const char *bytes = value(result, row, column, &size);
        if (!bytes || (size != 2 && size != 4 && size != 8))
                return 0;
        uint64_t number = (unsigned char)bytes[0] & 0x80 ? UINT64_MAX : 0;
        for (int i = 0; i < size; i++)
                number = number << 8 | (unsigned char)bytes[i];
        return (int64_t)number;
}

int64_t row_unix_microseconds(const PGresult *result, int row, const char *column) {
        int size;
        if (!value(result, row, column, &size) || size != 8)
                return 0;
        // PostgreSQL counts from 2000-01-01.
        return row_int(result, row, column) + INT64_C(946684800000000);
}

int64_t row_unix_time(const PGresult *result, int row, const char *column) {
        return row_unix_microseconds(result, row, column) / 1000000;
}

bool row_bytes(const PGresult *result, int row, const char *column, void *ret_bytes, size_t size) {
        int have;
        const char *bytes = value(result, row, column, &have);
        if (!bytes || (size_t)have != size)
                return false;
        memcpy(ret_bytes, bytes, size);
        return true;
}
