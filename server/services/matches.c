#include "server/services/matches.h"

#include <regex.h>
#include <stddef.h>

bool matches(const char *text, const char *expression) {
        regex_t regex;
        if (regcomp(&regex, expression, REG_EXTENDED | REG_NOSUB))
                return false;
        bool matched = !regexec(&regex, text, 0, NULL, 0);
        regfree(&regex);
        return matched;
}
