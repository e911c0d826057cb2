// The reader of scanners' results, for libFuzzer: the first byte says in what pieces the rest is given to it.
#include "tools/genie/ocsf.h"
#include "tools/genie/ocsf_framer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void describe(const struct ocsf_record *record) {
        protobuf_c_message_free_unpacked(&ocsf_describe_check(record)->base, NULL);
        for (size_t i = 0; i < record->n_evaluations; i++)
                protobuf_c_message_free_unpacked(&ocsf_describe_resource(record, i)->base, NULL);
}

// Whatever the pieces, the framer finds the same records.
static size_t count_frames(const char *data, size_t size, size_t piece) {
        struct ocsf_framer *framer = ocsf_framer_new();
        struct ocsf_frame frame;
        size_t count = 0, taken;

        if (!framer)
                abort();
        for (size_t at = 0; at < size; at += taken) {
                size_t some = size - at < piece ? size - at : piece;
                count += ocsf_framer_feed(framer, data + at, some, &taken, &frame);
        }
        count += ocsf_framer_end(framer, &frame);
        ocsf_framer_free(framer);
        return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        if (size < 2)
                return 0;
        const char *text = (const char *)data + 1;
        if (count_frames(text, size - 1, size) != count_frames(text, size - 1, data[0] % 16 + 1u))
                abort();
        char *copy = malloc(size - 1);
        if (!copy)
                abort();
        memcpy(copy, text, size - 1);
        FILE *file = fmemopen(copy, size - 1, "r");
        if (!file)
                abort();
        struct ocsf_reader *reader = ocsf_reader_new(file);
        for (const struct ocsf_item *item; (item = ocsf_reader_next(reader));) {
                if (!item->record.reason)
                        describe(&item->record);
        }
        (void)ocsf_reader_cut(reader);
        ocsf_reader_free(reader);
        free(copy);
        return 0;
}
