#include "tools/genie-agent/allow_list.h"

#include "tools/genie-agent/text.h"

#include <stdarg.h>

enum { COMMANDS_MAX = 1000, WORDS_MAX = 100 };

static bool __attribute__((format(printf, 2, 3))) wrong(char **ret_error, const char *format, ...) {
        va_list arguments;
        va_start(arguments, format);
        if (vasprintf(ret_error, format, arguments) < 0)
                *ret_error = NULL;
        va_end(arguments);
        return false;
}

// An array of strings, NULL-terminated; one that is missing is empty.
static bool read_words(const json_t *object, const char *member, const char *command, const char ***ret_words,
        size_t *ret_count, char **ret_error) {
        const json_t *array = json_object_get(object, member);
        size_t count = array ? json_array_size(array) : 0;
        if ((array && !json_is_array(array)) || count > WORDS_MAX)
                return wrong(ret_error, "command %s: %s is an array of at most %d strings", command, member, WORDS_MAX);
        *ret_words = must(calloc(count + 1, sizeof **ret_words));
        for (size_t i = 0; i < count; i++)
                if (!((*ret_words)[i] = json_string_value(json_array_get(array, i))))
                        return wrong(ret_error, "command %s: %s has something else than a string", command, member);
        *ret_count = count;
        return true;
}

static bool compile(struct allowed_pattern *compiled, const char *pattern, const char *command, char **ret_error) {
        __attribute__((cleanup(drop_text))) char *whole = NULL;
        char message[100];
        if (asprintf(&whole, "^(%s)$", pattern) < 0)
                whole = NULL;
        int error = regcomp(&compiled->regex, must(whole), REG_EXTENDED | REG_NOSUB);
        compiled->option = pattern[0] == '-';
        if (!error)
                return true;
        regerror(error, &compiled->regex, message, sizeof message);
        return wrong(ret_error, "command %s: the pattern `%s` is wrong: %s", command, pattern, message);
}

static bool read_patterns(const json_t *object, struct allowed_command *command, char **ret_error) {
        const char **patterns = NULL;
        size_t count = 0;
        const json_t *more = json_object_get(object, "more-arguments");
        bool good = read_words(object, "arguments", command->name, &patterns, &count, ret_error);
        command->arguments = must(calloc(count + 1, sizeof *command->arguments));
        for (size_t i = 0; good && i < count; i++) {
                good = compile(&command->arguments[i], patterns[i], command->name, ret_error);
                command->argument_count += good;
        }
        free(patterns);
        if (!good || !more)
                return good;
        if (!json_is_string(more))
                return wrong(ret_error, "command %s: more-arguments is a pattern", command->name);
        command->more_arguments = must(calloc(1, sizeof *command->more_arguments));
        if (compile(command->more_arguments, json_string_value(more), command->name, ret_error))
                return true;
        free(command->more_arguments);
        command->more_arguments = NULL;
        return false;
}

static bool members_known(const json_t *object, const char *command, char **ret_error) {
        static const char *const known[] = {
                "description", "argv", "arguments", "more-arguments", "environment", "directory"};
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)(uintptr_t)object, key, value) {
                bool found = false;
                for (size_t i = 0; i < sizeof known / sizeof *known; i++)
                        found |= !strcmp(key, known[i]);
                if (!found)
                        return wrong(ret_error, "command %s has no member `%s`", command, key);
        }
        return true;
}

static bool read_command(struct allowed_command *command, const json_t *object, char **ret_error) {
        const json_t *directory = json_object_get(object, "directory");
        if (!json_is_object(object))
                return wrong(ret_error, "command %s is not an object", command->name);
        if (!members_known(object, command->name, ret_error) ||
                !read_words(object, "argv", command->name, &command->argv, &command->argv_count, ret_error) ||
                !read_words(object, "environment", command->name, &command->environment, &command->environment_count,
                        ret_error) ||
                !read_patterns(object, command, ret_error))
                return false;
        command->description = json_string_value(json_object_get(object, "description"));
        command->directory = directory ? json_string_value(directory) : "/";
        if (command->argv_count == 0 || command->argv[0][0] != '/')
                return wrong(ret_error, "command %s: argv begins with the program's path, from / on", command->name);
        if (!command->directory || command->directory[0] != '/')
                return wrong(ret_error, "command %s: directory is a path from / on", command->name);
        return true;
}

bool allow_list_read(struct allow_list *list, const json_t *object, char **ret_error) {
        const char *name;
        json_t *value;
        *ret_error = NULL;
        if (!json_is_object(object) || json_object_size(object) > COMMANDS_MAX)
                return wrong(ret_error, "commands is an object of at most %d commands", COMMANDS_MAX);
        list->commands = must(calloc(json_object_size(object) + 1, sizeof *list->commands));
        json_object_foreach((json_t *)(uintptr_t)object, name, value) {
                struct allowed_command *command = &list->commands[list->count++];
                command->name = name;
                if (!read_command(command, value, ret_error))
                        return false;
        }
        return true;
}

void allow_list_drop(struct allow_list *list) {
        for (size_t i = 0; i < list->count; i++) {
                struct allowed_command *command = &list->commands[i];
                for (size_t j = 0; j < command->argument_count; j++)
                        regfree(&command->arguments[j].regex);
                if (command->more_arguments)
                        regfree(&command->more_arguments->regex);
                free(command->arguments);
                free(command->more_arguments);
                free(command->argv);
                free(command->environment);
        }
        free(list->commands);
        *list = (struct allow_list){0};
}

const struct allowed_command *allow_list_find(const struct allow_list *list, const char *name) {
        for (size_t i = 0; i < list->count; i++)
                if (!strcmp(list->commands[i].name, name))
                        return &list->commands[i];
        return NULL;
}

int allow_list_match(const struct allowed_command *command, char *const *arguments, size_t count) {
        for (size_t i = 0; i < count; i++) {
                const struct allowed_pattern *pattern = i < command->argument_count ? &command->arguments[i]
                                                                                    : command->more_arguments;
                if (!pattern || (arguments[i][0] == '-' && !pattern->option) ||
                        regexec(&pattern->regex, arguments[i], 0, NULL, 0) != 0)
                        return (int)i;
        }
        return count < command->argument_count ? (int)count : -1;
}
