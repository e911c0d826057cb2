// Whether texts have a form.
#pragma once

#include <stdbool.h>

// Whether a text matches an extended regular expression as a whole.
bool matches(const char *text, const char *expression);
