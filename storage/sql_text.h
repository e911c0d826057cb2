// Reads a SQL file with named parameters (`:name`, as psql writes them) and writes it with numbered ones ($1, $2, …),
// which PostgreSQL prepares. Knows strings, E'' and dollar-quoted ones, quoted identifiers, comments, `::` casts and
// array slices; leaves every line where it was, so that positions in PostgreSQL's errors are the file's.
//
// In a subscript, a colon behind an operand is a slice's: `a[:low]` is a parameter, `a[x:low]` is not, and
// `a[x:(:low)]` says otherwise.
#pragma once

#include <stdbool.h>

struct sql_text {
        char *text;        // with $n for parameters[n - 1]
        char **parameters; // names in the order of their first use, each once
        char **unset;      // names that the lines `-- unset: a, b` list
        unsigned parameter_count, unset_count;
};

// False with *ret_problem (static) and *ret_line, counted from 1, where the text cannot be read; ret_text is then
// empty.
bool sql_text_read(const char *sql, struct sql_text *ret_text, unsigned *ret_line, const char **ret_problem)
        __attribute__((warn_unused_result));

void sql_text_drop(struct sql_text *text);

// The index of a name, or -1.
int sql_text_find(char *const *names, unsigned count, const char *name, unsigned size);
