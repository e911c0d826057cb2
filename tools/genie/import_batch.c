#include "tools/genie/import_batch.h"

#include "tools/genie/memory.h"

#include <string.h>

enum {
        BATCH_HEAD = 48, // more than the head's two tags, two lengths and two numbers
        VARINT_MAX = 10,
        WIRE_VARINT = 0,
        WIRE_BYTES = 2,
};

// The fields of devopsgenie.v1.ImportResultsRequest and ImportBatch.
enum { REQUEST_BATCH = 2, FIRST_RECORD = 1, RECORD_COUNT = 2, CHECKS = 3, RESOURCES = 4, EVALUATIONS = 5, REFUSED = 6 };

static size_t put_varint(uint8_t *at, uint64_t value) {
        size_t size = 0;

        for (; value >= 0x80; value >>= 7)
                at[size++] = (uint8_t)(value | 0x80);
        at[size++] = (uint8_t)value;
        return size;
}

static size_t put_tag(uint8_t *at, unsigned field, unsigned type) { return put_varint(at, field << 3 | type); }

static void reserve(struct piece *piece, size_t more) {
        if (piece->capacity - piece->size >= more)
                return;
        while (piece->capacity - piece->size < more)
                piece->capacity = piece->capacity ? piece->capacity * 2 : 16 << 10;
        piece->data = must(realloc(piece->data, piece->capacity));
}

static void put_message(struct piece *piece, unsigned field, const ProtobufCMessage *message) {
        size_t size = protobuf_c_message_get_packed_size(message);

        reserve(piece, size + (size_t)2 * VARINT_MAX);
        piece->size += put_tag(piece->data + piece->size, field, WIRE_BYTES);
        piece->size += put_varint(piece->data + piece->size, size);
        piece->size += protobuf_c_message_pack(message, piece->data + piece->size);
}

static void clear(struct piece *piece) {
        piece->size = 0;
        piece->checks = piece->resources = piece->evaluations = piece->refused = 0;
}

static void pack_refusal(struct piece *piece, const struct ocsf_record *refused, int64_t record) {
        Devopsgenie__V1__RecordError error = DEVOPSGENIE__V1__RECORD_ERROR__INIT;

        error.record = record;
        error.reason = unconst(refused->reason);
        error.message = unconst(refused->message);
        clear(piece);
        put_message(piece, REFUSED, &error.base);
        piece->refused = 1;
}

static void pack_evaluations(
        struct piece *piece, struct ocsf_record *record, int64_t position, struct seen *described) {
        Devopsgenie__V1__Evaluation *first = &record->evaluations[0];

        if (seen_add(described, 'c', first->check, "")) {
                Devopsgenie__V1__CheckDescription *check = ocsf_describe_check(record);
                put_message(piece, CHECKS, &check->base);
                piece->checks++;
                devopsgenie__v1__check_description__free_unpacked(check, NULL);
        }
        for (size_t i = 0; i < record->n_evaluations; i++) {
                Devopsgenie__V1__Evaluation *evaluation = &record->evaluations[i];
                if (seen_add(described, 'r', evaluation->resource_uid, evaluation->region)) {
                        Devopsgenie__V1__ResourceDescription *resource = ocsf_describe_resource(record, i);
                        put_message(piece, RESOURCES, &resource->base);
                        piece->resources++;
                        devopsgenie__v1__resource_description__free_unpacked(resource, NULL);
                }
                evaluation->record = position;
                put_message(piece, EVALUATIONS, &evaluation->base);
                piece->evaluations++;
        }
}

void piece_pack(struct piece *piece, struct ocsf_item *item, int64_t record, struct seen *described) {
        clear(piece);
        if (!item->record.reason)
                pack_evaluations(piece, &item->record, record, described);
        if (!item->record.reason && piece->size > BATCH_SIZE_MAX) {
                // What it described is not sent, so it is not described.
                seen_clear(described);
                ocsf_record_refuse(&item->record, "RECORD_TOO_LARGE", "it packs to %zu bytes, more than %d",
                        piece->size, BATCH_SIZE_MAX);
        }
        if (item->record.reason)
                pack_refusal(piece, &item->record, record);
}

void piece_free(struct piece *piece) {
        free(piece->data);
        *piece = (struct piece){0};
}

struct batch *batch_new(int64_t first) {
        struct batch *batch = must(calloc(1, sizeof *batch));

        batch->first = first;
        reserve(&batch->body, BATCH_HEAD);
        batch->body.size = BATCH_HEAD;
        return batch;
}

void batch_free(struct batch *batch) {
        if (batch)
                piece_free(&batch->body);
        free(batch);
}

bool batch_add(struct batch *batch, const struct piece *piece, uint64_t offset) {
        struct piece *body = &batch->body;

        if (batch->records > 0 &&
                (batch->records == BATCH_RECORDS_MAX || body->size + piece->size > BATCH_SIZE_MAX + BATCH_HEAD ||
                        body->checks + piece->checks > BATCH_RECORDS_MAX ||
                        body->resources + piece->resources > BATCH_RECORDS_MAX ||
                        body->evaluations + piece->evaluations > BATCH_RECORDS_MAX))
                return false;
        reserve(body, piece->size);
        memcpy(body->data + body->size, piece->data, piece->size);
        body->size += piece->size;
        body->checks += piece->checks;
        body->resources += piece->resources;
        body->evaluations += piece->evaluations;
        batch->offsets[batch->records++] = offset;
        return true;
}

const uint8_t *batch_finish(struct batch *batch, size_t *ret_size) {
        uint8_t numbers[4 * VARINT_MAX], head[2 * VARINT_MAX];
        size_t size = put_tag(numbers, FIRST_RECORD, WIRE_VARINT), head_size;

        size += put_varint(numbers + size, (uint64_t)batch->first);
        size += put_tag(numbers + size, RECORD_COUNT, WIRE_VARINT);
        size += put_varint(numbers + size, batch->records);
        head_size = put_tag(head, REQUEST_BATCH, WIRE_BYTES);
        head_size += put_varint(head + head_size, size + batch->body.size - BATCH_HEAD);
        uint8_t *begin = batch->body.data + BATCH_HEAD - size - head_size;
        memcpy(begin, head, head_size);
        memcpy(begin + head_size, numbers, size);
        *ret_size = head_size + size + batch->body.size - BATCH_HEAD;
        return begin;
}
