#include "tools/genie/ocsf_record.h"

#include "tools/genie/memory.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CLASS_DETECTION_FINDING = 2004, STATUS_SUPPRESSED = 3, PATH_MAX_DEPTH = 4 };

void ocsf_record_refuse(struct ocsf_record *record, const char *reason, const char *format, ...) {
        va_list arguments;

        record->reason = reason;
        va_start(arguments, format);
        vsnprintf(record->message, sizeof record->message, format, arguments);
        va_end(arguments);
        // It may quote the input, cut anywhere: what goes to the server must be UTF-8, and ASCII is.
        for (char *c = record->message; *c; c++) {
                if (*c < ' ' || *c > '~')
                        *c = '?';
        }
}

void ocsf_record_drop(struct ocsf_record *record) {
        json_decref(record->root);
        free(record->evaluations);
        *record = (struct ocsf_record){0};
}

// A value by its path, such as "finding_info.analytic.uid"; NULL where there is none, or null.
static json_t *at(const json_t *value, const char *path) {
        json_t *found = NULL;

        for (;;) {
                size_t size = strcspn(path, ".");
                found = json_object_getn(value, path, size);
                if (!found || json_is_null(found))
                        return NULL;
                if (path[size] == '\0')
                        return found;
                value = found;
                path += size + 1;
        }
}

// A string that places the record: "" where there is none, a refusal where it is something else.
static const char *key(struct ocsf_record *record, const json_t *value, const char *path) {
        const json_t *found = at(value, path);

        if (!found)
                return "";
        if (!json_is_string(found)) {
                if (!record->reason)
                        ocsf_record_refuse(record, "FIELD_INVALID", "%s is not a string", path);
                return "";
        }
        return json_string_value(found);
}

// The first that is not empty.
static const char *key_of(struct ocsf_record *record, const json_t *value, const char *path, const char *other) {
        const char *first = key(record, value, path);

        return *first ? first : key(record, value, other);
}

// A number of seconds or, as OCSF has it, milliseconds; 10^11 seconds are the year 5138.
static bool read_number(const json_t *value, int64_t *ret_us) {
        double number = json_is_number(value) ? json_number_value(value) : 0;
        double us = number >= 1e11 ? number * 1e3 : number * 1e6;

        if (!(us >= 1e6) || us >= 253402300800e6)
                return false;
        *ret_us = llround(us);
        return true;
}

// "+02:00", "Z" or nothing: the scanner's local time, read as UTC for want of better.
static bool read_zone(const char *text, int64_t *ret_seconds) {
        unsigned hours, minutes;
        char sign, end;

        *ret_seconds = 0;
        if (*text == '\0' || strcmp(text, "Z") == 0 || strcmp(text, "z") == 0)
                return true;
        // Two digits cannot overflow. NOLINTNEXTLINE(cert-err34-c)
        if (sscanf(text, "%c%2u:%2u%c", &sign, &hours, &minutes, &end) != 3 || (sign != '+' && sign != '-') ||
                hours > 23 || minutes > 59)
                return false;
        *ret_seconds = (int64_t)(hours * 3600 + minutes * 60) * (sign == '-' ? -1 : 1);
        return true;
}

// RFC 3339, the zone optional.
static bool read_date(const json_t *value, int64_t *ret_us) {
        struct tm tm = {0};
        int64_t zone, us = 0;
        const char *text = json_is_string(value) ? json_string_value(value) : "";

        text = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
        if (!text)
                return false;
        if (*text == '.') {
                int64_t unit = 100000;
                for (text++; *text >= '0' && *text <= '9'; text++, unit /= 10)
                        us += unit * (*text - '0');
        }
        if (!read_zone(text, &zone))
                return false;
        int64_t seconds = (int64_t)timegm(&tm) - zone;
        if (seconds < 1 || seconds >= 253402300800)
                return false;
        *ret_us = seconds * 1000000 + us;
        return true;
}

static void read_time(struct ocsf_record *record) {
        const json_t *root = record->root;

        if (!read_number(at(root, "time"), &record->time_us) && !read_date(at(root, "time_dt"), &record->time_us) &&
                !read_number(at(root, "finding_info.created_time"), &record->time_us) &&
                !read_date(at(root, "finding_info.created_time_dt"), &record->time_us) && !record->reason)
                ocsf_record_refuse(record, "TIME_UNKNOWN", "it has no time that can be read");
}

static Devopsgenie__V1__Evaluation__Status read_status(struct ocsf_record *record) {
        static const struct {
                const char *name;
                Devopsgenie__V1__Evaluation__Status status;
        } statuses[] = {
                {"PASS", DEVOPSGENIE__V1__EVALUATION__STATUS__PASS},
                {"FAIL", DEVOPSGENIE__V1__EVALUATION__STATUS__FAIL},
                {"MANUAL", DEVOPSGENIE__V1__EVALUATION__STATUS__MANUAL},
        };
        const char *code = key(record, record->root, "status_code");

        for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
                if (strcmp(code, statuses[i].name) == 0)
                        return statuses[i].status;
        }
        if (!record->reason)
                ocsf_record_refuse(
                        record, "STATUS_UNKNOWN", "status_code is \"%.40s\", not PASS, FAIL or MANUAL", code);
        return DEVOPSGENIE__V1__EVALUATION__STATUS__STATUS_UNSPECIFIED;
}

// A whole number as JSON may write it, 3 or 3.0; -1 for anything else.
static int64_t integer(const json_t *value) {
        double number = json_is_number(value) ? json_number_value(value) : -1;

        return fabs(number) < 1e15 ? (int64_t)number : -1;
}

// OCSF's 1 Informational to 6 Fatal; anything else, 99 Other included, is unknown.
static Devopsgenie__V1__Finding__Severity read_severity(const struct ocsf_record *record) {
        static const Devopsgenie__V1__Finding__Severity severities[] = {
                [1] = DEVOPSGENIE__V1__FINDING__SEVERITY__INFORMATIONAL,
                [2] = DEVOPSGENIE__V1__FINDING__SEVERITY__LOW,
                [3] = DEVOPSGENIE__V1__FINDING__SEVERITY__MEDIUM,
                [4] = DEVOPSGENIE__V1__FINDING__SEVERITY__HIGH,
                [5] = DEVOPSGENIE__V1__FINDING__SEVERITY__CRITICAL,
                [6] = DEVOPSGENIE__V1__FINDING__SEVERITY__FATAL,
        };
        int64_t id = integer(at(record->root, "severity_id"));

        return id >= 1 && id <= 6 ? severities[id] : DEVOPSGENIE__V1__FINDING__SEVERITY__UNKNOWN;
}

// The check, its status and all else that the evaluations of a record share.
static void read_common(struct ocsf_record *record, Devopsgenie__V1__Evaluation *ret_common) {
        const json_t *root = record->root;

        devopsgenie__v1__evaluation__init(ret_common);
        ret_common->check = unconst(key_of(record, root, "metadata.event_code", "finding_info.analytic.uid"));
        if (!*ret_common->check && !record->reason)
                ocsf_record_refuse(record, "CHECK_MISSING", "metadata.event_code names no check");
        ret_common->status = read_status(record);
        ret_common->severity = read_severity(record);
        ret_common->muted = integer(at(root, "status_id")) == STATUS_SUPPRESSED;
        ret_common->service = unconst(key(record, root, "finding_info.analytic.category"));
        ret_common->region = unconst(key(record, root, "cloud.region"));
        ret_common->account_uid = unconst(key_of(record, root, "cloud.account.uid", "unmapped.provider_uid"));
        if (!*ret_common->account_uid && !record->reason)
                ocsf_record_refuse(record, "ACCOUNT_MISSING", "neither cloud nor unmapped names an account");
        ret_common->status_detail = unconst(key_of(record, root, "status_detail", "message"));
}

static void read_resource(struct ocsf_record *record, const json_t *resource, Devopsgenie__V1__Evaluation *evaluation) {
        const char *region = key(record, resource, "region");

        if (!json_is_object(resource) && !record->reason)
                ocsf_record_refuse(record, "FIELD_INVALID", "one of resources is not an object");
        if (*region)
                evaluation->region = unconst(region);
        else if (!*evaluation->region)
                evaluation->region = unconst(key(record, resource, "namespace"));
        if (!*evaluation->service)
                evaluation->service = unconst(key(record, resource, "group.name"));
        evaluation->resource_uid = unconst(key(record, resource, "uid"));
        evaluation->resource_display_name = unconst(key(record, resource, "name"));
}

static void read_evaluations(struct ocsf_record *record) {
        const json_t *resources = at(record->root, "resources");
        size_t count = json_array_size(resources);
        Devopsgenie__V1__Evaluation common;

        read_common(record, &common);
        if (!record->reason && count == 0)
                ocsf_record_refuse(record, "RESOURCE_MISSING", "it names no resource");
        if (!record->reason && count > OCSF_RESULTS_MAX)
                ocsf_record_refuse(
                        record, "RESOURCES_TOO_MANY", "it names %zu resources, more than %d", count, OCSF_RESULTS_MAX);
        if (record->reason)
                return;
        record->evaluations = must(calloc(count, sizeof *record->evaluations));
        record->n_evaluations = count;
        for (size_t i = 0; i < count; i++) {
                record->evaluations[i] = common;
                read_resource(record, json_array_get(resources, i), &record->evaluations[i]);
        }
}

static void read_scan(struct ocsf_record *record) {
        const json_t *root = record->root;

        record->run = key(record, root, "unmapped.scan_id");
        record->provider = key_of(record, root, "cloud.provider", "unmapped.provider");
        record->account_uid = key_of(record, root, "cloud.account.uid", "unmapped.provider_uid");
        record->scanner = key_of(record, root, "metadata.product.name", "metadata.product.vendor_name");
        record->scanner_version = key(record, root, "metadata.product.version");
        read_time(record);
}

static json_t *load(struct ocsf_record *record, const char *data, size_t size) {
        json_error_t error;
        json_t *root = json_loadb(data, size, JSON_DECODE_ANY, &error);

        // A whole number of more than 64 bits, somewhere in a resource's metadata, is no reason to refuse.
        if (!root && json_error_code(&error) == json_error_numeric_overflow)
                root = json_loadb(data, size, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &error);
        if (!root)
                ocsf_record_refuse(record, "JSON_INVALID", "at its byte %d: %s", error.position, error.text);
        return root;
}

void ocsf_record_parse(struct ocsf_record *ret_record, const char *data, size_t size) {
        *ret_record = (struct ocsf_record){0};
        ret_record->root = load(ret_record, data, size);
        if (!ret_record->root)
                return;
        int64_t class_uid = integer(at(ret_record->root, "class_uid"));
        if (!json_is_object(ret_record->root)) {
                ocsf_record_refuse(ret_record, "NOT_AN_OBJECT", "a record must be a JSON object");
        } else if (class_uid != CLASS_DETECTION_FINDING) {
                ocsf_record_refuse(ret_record, "CLASS_UNSUPPORTED",
                        "class_uid is %" PRId64 ", not 2004 (Detection Finding)", class_uid);
        } else {
                read_evaluations(ret_record);
                read_scan(ret_record);
        }
}

// Text for people: what is no string is kept as the JSON that it is.
static char *text(const json_t *value) {
        if (json_is_string(value))
                return must(strdup(json_string_value(value)));
        if (!value || json_is_null(value))
                return must(strdup(""));
        return must(json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15)));
}

static void add_texts(char ***list, size_t *count, const json_t *values) {
        size_t more = json_array_size(values);

        if (more == 0)
                return;
        *list = must(reallocarray(*list, *count + more, sizeof **list));
        for (size_t i = 0; i < more; i++)
                (*list)[(*count)++] = text(json_array_get(values, i));
}

Devopsgenie__V1__CheckDescription *ocsf_describe_check(const struct ocsf_record *record) {
        Devopsgenie__V1__CheckDescription *check = must(malloc(sizeof *check));
        const json_t *root = record->root;

        devopsgenie__v1__check_description__init(check);
        check->check = must(strdup(record->evaluations->check));
        check->service = must(strdup(record->evaluations->service));
        check->title = text(at(root, "finding_info.title"));
        check->description = text(at(root, "finding_info.desc"));
        check->risk = text(at(root, "risk_details"));
        check->remediation = text(at(root, "remediation.desc"));
        check->compliance_json = text(at(root, "unmapped.compliance"));
        add_texts(&check->reference_urls, &check->n_reference_urls, at(root, "remediation.references"));
        add_texts(&check->reference_urls, &check->n_reference_urls, at(root, "unmapped.additional_urls"));
        return check;
}

Devopsgenie__V1__ResourceDescription *ocsf_describe_resource(const struct ocsf_record *record, size_t evaluation) {
        Devopsgenie__V1__ResourceDescription *description = must(malloc(sizeof *description));
        const json_t *resource = json_array_get(at(record->root, "resources"), evaluation);
        const json_t *group = at(resource, "group.name"), *metadata = at(resource, "data.metadata");

        devopsgenie__v1__resource_description__init(description);
        description->uid = must(strdup(record->evaluations[evaluation].resource_uid));
        description->region = must(strdup(record->evaluations[evaluation].region));
        description->display_name = must(strdup(record->evaluations[evaluation].resource_display_name));
        description->type = text(at(resource, "type"));
        description->service = group ? text(group) : must(strdup(record->evaluations[evaluation].service));
        description->metadata_json = text(metadata ? metadata : at(resource, "data"));
        add_texts(&description->labels, &description->n_labels, at(resource, "labels"));
        return description;
}
