// Reads single values of a binary result by column name, for the few statements whose rows C reads itself.
#pragma once

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Each gives "", false or 0 for NULL and for a column that is missing or has another width.
void row_uuid(const PGresult *result, int row, const char *column, char ret_text[37]);
void row_text(const PGresult *result, int row, const char *column, char *ret_text, size_t size);
bool row_bool(const PGresult *result, int row, const char *column);
int64_t row_int(const PGresult *result, int row, const char *column);               // int2, int4, int8
int64_t row_unix_microseconds(const PGresult *result, int row, const char *column); // timestamptz
int64_t row_unix_time(const PGresult *result, int row, const char *column);         // timestamptz, seconds
bool row_bytes(const PGresult *result, int row, const char *column, void *ret_bytes, size_t size);
