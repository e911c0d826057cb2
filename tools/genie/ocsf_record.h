// One record of a scanner's results (OCSF 1.5, class 2004 Detection Finding) as evaluations.
//
// A record is placed by fields that must be there and of the right type; it is refused with a reason where one is
// not. All else is text for people: whatever it is, it is kept, and its absence refuses nothing.
#pragma once

#include "devopsgenie/v1/scan_service.pb-c.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OCSF_RESULTS_MAX = 1000, OCSF_MESSAGE_MAX = 240 };

struct ocsf_record {
        const char *reason; // why it is refused, such as STATUS_UNKNOWN; NULL: it is not
        char message[OCSF_MESSAGE_MAX];

        // What follows lives until ocsf_record_drop.
        json_t *root;
        const char *run; // the scanner's id of its run; "" for none
        const char *provider, *account_uid, *scanner, *scanner_version;
        int64_t time_us;                          // Unix time
        Devopsgenie__V1__Evaluation *evaluations; // one per resource, without the record's position
        size_t n_evaluations;
};

// Reads a record's JSON text. Always fills the record: as evaluations, or as a refusal.
void ocsf_record_parse(struct ocsf_record *ret_record, const char *data, size_t size);

// Makes a record a refusal.
void ocsf_record_refuse(struct ocsf_record *record, const char *reason, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

void ocsf_record_drop(struct ocsf_record *record);

// What the record says about its check, and about the resource of one of its evaluations. To be freed with
// protobuf_c_message_free_unpacked(…, NULL).
Devopsgenie__V1__CheckDescription *ocsf_describe_check(const struct ocsf_record *record);
Devopsgenie__V1__ResourceDescription *ocsf_describe_resource(const struct ocsf_record *record, size_t evaluation);
