// What an agent reports goes to the database, and back to it what the database says.
#include "server/channel/session_private.h"
#include "server/rpc/server.h"
#include "storage/row.h"
#include "storage/uuid.h"

#include <isa-l/crc.h>
#include <stdio.h>
#include <string.h>

enum { LOG_CHUNK_MAX = 65536, PIECES_MAX = 256, SMALL = 4000 };

bool task_named(const char *slug, const char *name, char ret_task[UUID_SIZE]) {
        static const char before[] = "organizations/", between[] = "/tasks/";
        size_t slug_size = strlen(slug);
        unsigned char uuid[UUID_BYTES];
        if (strncmp(name, before, sizeof before - 1))
                return false;
        name += sizeof before - 1;
        if (strncmp(name, slug, slug_size) || strncmp(name + slug_size, between, sizeof between - 1))
                return false;
        name += slug_size + sizeof between - 1;
        if (!uuid_from_text(name, strlen(name), uuid))
                return false;
        uuid_to_text(uuid, ret_task);
        return true;
}

// Names an attempt in an item of a batch. False where the agent named no task of its organization.
static bool name_attempt(struct batch *batch, const struct session *session, Devopsgenie__Internal__Attempt *attempt,
        const char *task, int32_t number, int64_t fence) {
        devopsgenie__internal__attempt__init(attempt);
        attempt->organization_id = batch_text(batch, session->organization_id);
        attempt->agent_id = batch_text(batch, session->agent_id);
        attempt->task_id = batch_text(batch, task);
        attempt->attempt = number;
        attempt->fence = fence;
        return attempt->organization_id && attempt->agent_id && attempt->task_id;
}

// An item about an attempt: the message with its field `attempt`. NULL, with the session ended, where too much waits.
static void *add_report(struct batch *batch, struct session *session, const ProtobufCMessageDescriptor *descriptor,
        const char *task, int32_t number, int64_t fence, size_t bytes) {
        ProtobufCMessage *item = batch_add(batch, session, descriptor, bytes + SMALL / 4);
        Devopsgenie__Internal__Attempt *attempt = item ? batch_add_part(batch, sizeof *attempt) : NULL;
        if (!attempt || !name_attempt(batch, session, attempt, task, number, fence)) {
                session_overload(session);
                return NULL;
        }
        const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(descriptor, "attempt");
        memcpy((char *)item + field->offset, &attempt, sizeof attempt);
        return item;
}

// Which items the rows name.
struct named {
        bool items[LOAD_ITEMS];
};

static void read_named(const PGresult *result, struct named *ret_named) {
        memset(ret_named, 0, sizeof *ret_named);
        for (int row = 0; row < PQntuples(result); row++) {
                int64_t item = row_int(result, row, "item");
                if (item >= 1 && item <= LOAD_ITEMS)
                        ret_named->items[item - 1] = true;
        }
}

// Something has changed in the organizations of a load, for those who watch, and perhaps for those who can take tasks.
static void note_all(struct channel *channel, const struct load *load, unsigned changes) {
        for (unsigned i = 0; i < load->count; i++)
                channel_note(channel, changes, load->sessions[i]->organization_id, NULL, /* tell= */ true);
}

// --- Offers that are taken, or not ---

void take_ack(struct session *session, const Devopsgenie__V1__TaskAck *ack) {
        char task[UUID_SIZE];
        struct batch *batch = &session->channel->starts;
        struct attempt *attempt = task_named(session->slug, ack->task, task)
                                          ? attempt_find(session, task, ack->attempt, ack->fence)
                                          : NULL;
        if (!attempt || attempt->state == ATTEMPT_ENDED) {
                session_post_lost(session, ack->task, ack->attempt, ack->fence, "FENCED");
                return;
        }
        if (attempt->state != ATTEMPT_OFFERED)
                return; // its StartGrant is on the way
        Devopsgenie__Internal__Attempt *item = batch_add(
                batch, session, &devopsgenie__internal__attempt__descriptor, SMALL / 4);
        if (!item || !name_attempt(batch, session, item, task, ack->attempt, ack->fence)) {
                session_overload(session);
                return;
        }
        session->unanswered++;
        attempt_move(session, attempt, ATTEMPT_STARTING);
}

static void grant(struct session *session, struct attempt *attempt) {
        PlatformMessage message = DEVOPSGENIE__V1__PLATFORM_MESSAGE__INIT;
        Devopsgenie__V1__StartGrant grant = DEVOPSGENIE__V1__START_GRANT__INIT;
        char name[TASK_NAME];
        attempt_move(session, attempt, ATTEMPT_RUNNING);
        session_name_task(session, attempt->task, name);
        grant.task = name;
        grant.attempt = attempt->number;
        grant.fence = attempt->fence;
        message.part_case = DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_START_GRANT;
        message.start_grant = &grant;
        session_post(session, &message);
}

static void look_for_cancels(const struct session *session) {
        channel_note(session->channel, CHANGE_CANCELS, session->organization_id, NULL, /* tell= */ false);
}

void starts_done(struct channel *channel, const struct load *load, const PGresult *result) {
        struct named started;
        read_named(result, &started);
        for (unsigned i = 0; i < load->count; i++) {
                const Devopsgenie__Internal__Attempt *item = (const void *)load->items[i];
                struct session *session = load->sessions[i];
                struct attempt *attempt = attempt_find(session, item->task_id, item->attempt, item->fence);
                session_answered(session);
                if (!started.items[i])
                        session_lose(session, item->task_id, item->attempt, item->fence, "FENCED");
                else if (attempt && attempt->state == ATTEMPT_STARTING) {
                        grant(session, attempt);
                        if (attempt->cancel_early)
                                look_for_cancels(session);
                }
        }
        for (int row = 0; row < PQntuples(result); row++) {
                int64_t i = row_int(result, row, "item") - 1;
                if (i >= 0 && i < load->count && row_bool(result, row, "cancelling"))
                        look_for_cancels(load->sessions[i]);
        }
        note_all(channel, load, CHANGE_EVENTS);
}

void take_rejection(struct session *session, const Devopsgenie__V1__TaskReject *rejection) {
        char task[UUID_SIZE];
        struct batch *batch = &session->channel->rejections;
        struct attempt *attempt = task_named(session->slug, rejection->task, task)
                                          ? attempt_find(session, task, rejection->attempt, rejection->fence)
                                          : NULL;
        if (!attempt || attempt->state != ATTEMPT_OFFERED)
                return; // too late: there is no answer
        Devopsgenie__Internal__Rejection *item = add_report(batch, session,
                &devopsgenie__internal__rejection__descriptor, task, rejection->attempt, rejection->fence, SMALL);
        if (!item)
                return;
        session->unanswered++;
        item->reason = batch_text(batch, rejection->reason);
        item->message = batch_text(batch, rejection->message);
        item->permanent = rejection->permanent;
        item->after = batch_duration(batch, rejection->retry_after);
        attempt_forget(session, attempt);
}

void rejections_done(struct channel *channel, const struct load *load, const PGresult *result) {
        (void)result;
        for (unsigned i = 0; i < load->count; i++)
                session_answered(load->sessions[i]);
        note_all(channel, load, CHANGE_EVENTS);
}

// --- Results ---

// LOG_OPEN: it does not say.
static int64_t end_of(const Devopsgenie__V1__Result *result, Devopsgenie__V1__LogStream stream) {
        for (size_t i = 0; i < result->n_log_offsets; i++)
                if (result->log_offsets[i]->stream == stream)
                        return result->log_offsets[i]->offset;
        return LOG_OPEN;
}

// Where the logs end. What was told of a part first holds, here as in the database; what was refused does not come.
static void tell_ends(
        struct attempt *attempt, const Devopsgenie__V1__Result *result, Devopsgenie__Internal__Ending *ret_item) {
        int64_t ends[LOG_PARTS] = {end_of(result, DEVOPSGENIE__V1__LOG_STREAM__STDOUT),
                end_of(result, DEVOPSGENIE__V1__LOG_STREAM__STDERR)};
        for (unsigned i = 0; attempt && i < LOG_PARTS; i++) {
                if (attempt->log_full)
                        ends[i] = attempt->log[i].accepted;
                if (attempt->log[i].end == LOG_OPEN)
                        attempt->log[i].end = ends[i];
        }
        if (ends[0] != LOG_OPEN)
                ret_item->_stdout_end_case = DEVOPSGENIE__INTERNAL__ENDING___STDOUT_END_STDOUT_END;
        if (ends[1] != LOG_OPEN)
                ret_item->_stderr_end_case = DEVOPSGENIE__INTERNAL__ENDING___STDERR_END_STDERR_END;
        ret_item->stdout_end = ends[0];
        ret_item->stderr_end = ends[1];
}

// Outputs are a map: its entries are copied, as they are.
static void copy_outputs(
        struct batch *batch, Devopsgenie__Internal__Ending *ending, const Devopsgenie__V1__Result *result) {
        ending->outputs = batch_add_part(batch, (result->n_outputs + 1) * sizeof *ending->outputs);
        for (size_t i = 0; ending->outputs && i < result->n_outputs; i++) {
                Devopsgenie__Internal__Ending__OutputsEntry *entry = batch_add_part(batch, sizeof *entry);
                if (!entry)
                        return;
                devopsgenie__internal__ending__outputs_entry__init(entry);
                entry->key = batch_text(batch, result->outputs[i]->key);
                entry->value = batch_text(batch, result->outputs[i]->value);
                ending->outputs[ending->n_outputs++] = entry;
        }
}

static void post_result_ack(
        struct session *session, const char *name, int32_t number, const char *result_id, int status) {
        PlatformMessage message = DEVOPSGENIE__V1__PLATFORM_MESSAGE__INIT;
        Devopsgenie__V1__ResultAck ack = DEVOPSGENIE__V1__RESULT_ACK__INIT;
        ack.task = (char *)(uintptr_t)name;
        ack.attempt = number;
        ack.result_id = (char *)(uintptr_t)result_id;
        ack.status = (Devopsgenie__V1__ResultAck__Status)status;
        message.part_case = DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_RESULT_ACK;
        message.result_ack = &ack;
        session_post(session, &message);
}

// At most: a character that JSON escapes needs six.
static size_t json_size(const char *text) {
        size_t size = 0;
        for (; *text; text++)
                size += (unsigned char)*text < 0x20 ? 6 : *text == '"' || *text == '\\' ? 2 : 1;
        return size;
}

static size_t size_of_outputs(const Devopsgenie__V1__Result *result) {
        size_t size = 0;
        for (size_t i = 0; i < result->n_outputs; i++)
                size += json_size(result->outputs[i]->key) + json_size(result->outputs[i]->value) + SMALL / 40;
        return size;
}

// Whether it counts, the database says: the session may have forgotten the attempt.
void take_result(struct session *session, const Devopsgenie__V1__Result *result) {
        struct batch *batch = &session->channel->endings;
        char task[UUID_SIZE];
        if (!task_named(session->slug, result->task, task)) {
                post_result_ack(session, result->task, result->attempt, result->result_id,
                        DEVOPSGENIE__V1__RESULT_ACK__STATUS__FENCED);
                return;
        }
        Devopsgenie__Internal__Ending *item = add_report(batch, session, &devopsgenie__internal__ending__descriptor,
                task, result->attempt, result->fence, SMALL + size_of_outputs(result));
        if (!item)
                return;
        const Devopsgenie__V1__TaskFailure *failure = result->failure;
        session->unanswered++;
        item->result_id = batch_text(batch, result->result_id);
        item->status = result->status >= DEVOPSGENIE__V1__RESULT__STATUS__SUCCEEDED &&
                                       result->status <= DEVOPSGENIE__V1__RESULT__STATUS__CANCELLED
                               ? (int32_t)result->status
                               : DEVOPSGENIE__V1__RESULT__STATUS__FAILED;
        item->reason = batch_text(batch, failure ? failure->reason : "");
        item->message = batch_text(batch, failure ? failure->message : "");
        item->permanent = failure && failure->permanent;
        item->after = batch_duration(batch, result->retry_after);
        copy_outputs(batch, item, result);
        tell_ends(attempt_find(session, task, result->attempt, result->fence), result, item);
}

void endings_done(struct channel *channel, const struct load *load, const PGresult *result) {
        for (int row = 0; row < PQntuples(result); row++) {
                int64_t i = row_int(result, row, "item") - 1;
                if (i < 0 || i >= load->count)
                        continue;
                struct session *session = load->sessions[i];
                const Devopsgenie__Internal__Ending *item = (const void *)load->items[i];
                int status = (int)row_int(result, row, "status");
                char name[TASK_NAME];
                struct attempt *attempt = attempt_find(
                        session, item->attempt->task_id, item->attempt->attempt, item->attempt->fence);
                session_answered(session);
                session_name_task(session, item->attempt->task_id, name);
                if (attempt && status == DEVOPSGENIE__V1__RESULT_ACK__STATUS__FENCED)
                        attempt_forget(session, attempt);
                else if (attempt && attempt->state == ATTEMPT_RUNNING)
                        attempt_move(session, attempt, ATTEMPT_ENDED);
                post_result_ack(session, name, item->attempt->attempt, item->result_id, status);
        }
        note_all(channel, load, CHANGE_EVENTS | CHANGE_LOGS);
}

// --- Side effects ---

void take_effect(struct session *session, const Devopsgenie__V1__SideEffect *effect) {
        struct batch *batch = &session->channel->effects;
        char task[UUID_SIZE];
        if (!task_named(session->slug, effect->task, task)) {
                session_post_lost(session, effect->task, effect->attempt, effect->fence, "FENCED");
                return;
        }
        Devopsgenie__Internal__Effect *item = add_report(batch, session, &devopsgenie__internal__effect__descriptor,
                task, effect->attempt, effect->fence, (size_t)3 * SMALL);
        if (!item)
                return;
        session->unanswered++;
        session->before_result++;
        item->key = batch_text(batch, effect->key);
        item->reference = batch_text(batch, effect->reference);
}

void effects_done(struct channel *channel, const struct load *load, const PGresult *result) {
        (void)channel;
        struct named noted;
        read_named(result, &noted);
        for (unsigned i = 0; i < load->count; i++) {
                const Devopsgenie__Internal__Effect *item = (const void *)load->items[i];
                struct session *session = load->sessions[i];
                session->before_result--;
                session_answered(session);
                if (!noted.items[i]) {
                        session_lose(session, item->attempt->task_id, item->attempt->attempt, item->attempt->fence,
                                "FENCED");
                        continue;
                }
                PlatformMessage message = DEVOPSGENIE__V1__PLATFORM_MESSAGE__INIT;
                Devopsgenie__V1__SideEffectAck ack = DEVOPSGENIE__V1__SIDE_EFFECT_ACK__INIT;
                char name[TASK_NAME];
                session_name_task(session, item->attempt->task_id, name);
                ack.task = name;
                ack.attempt = item->attempt->attempt;
                ack.key = item->key;
                message.part_case = DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_SIDE_EFFECT_ACK;
                message.side_effect_ack = &ack;
                session_post(session, &message);
        }
}

// --- Cancels ---

void take_cancel_answer(struct session *session, const Devopsgenie__V1__CancelAck *answer) {
        char task[UUID_SIZE];
        if (answer->answer < DEVOPSGENIE__V1__TASK_CANCELLATION__ANSWER__STOPPING ||
                answer->answer > DEVOPSGENIE__V1__TASK_CANCELLATION__ANSWER__TOO_LATE)
                return; // none, or a later version's
        if (!task_named(session->slug, answer->task, task)) {
                session_post_lost(session, answer->task, answer->attempt, answer->fence, "FENCED");
                return;
        }
        Devopsgenie__Internal__CancelAnswer *item = add_report(&session->channel->answers, session,
                &devopsgenie__internal__cancel_answer__descriptor, task, answer->attempt, answer->fence, 0);
        if (!item)
                return;
        session->unanswered++;
        session->before_result++;
        item->answer = (int32_t)answer->answer;
}

// One that finds nothing is late: the task's end has overtaken it.
void answers_done(struct channel *channel, const struct load *load, const PGresult *result) {
        (void)channel;
        (void)result;
        for (unsigned i = 0; i < load->count; i++) {
                load->sessions[i]->before_result--;
                session_answered(load->sessions[i]);
        }
}

// --- Logs ---

static int part_of(int stream) { return stream == DEVOPSGENIE__V1__LOG_STREAM__STDERR ? 1 : 0; }

static void post_log_ack(struct session *session, const char *name, int32_t number, int part, int64_t next_offset,
        Devopsgenie__V1__LogAck__Problem problem) {
        PlatformMessage message = DEVOPSGENIE__V1__PLATFORM_MESSAGE__INIT;
        Devopsgenie__V1__LogAck ack = DEVOPSGENIE__V1__LOG_ACK__INIT;
        ack.task = (char *)(uintptr_t)name;
        ack.attempt = number;
        ack.stream = part ? DEVOPSGENIE__V1__LOG_STREAM__STDERR : DEVOPSGENIE__V1__LOG_STREAM__STDOUT;
        ack.next_offset = next_offset;
        ack.window = (int64_t)session->channel->config.log_window_bytes - session->log_on_way;
        ack.problem = problem;
        message.part_case = DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_LOG_ACK;
        message.log_ack = &ack;
        session_post(session, &message);
}

// CRC-32C as RFC 3720 has it: the library leaves the inversions to its caller.
static uint32_t crc32c(const ProtobufCBinaryData *data) {
        return data->len ? ~crc32_iscsi(data->data, (int)data->len, ~0U) : 0;
}

static Devopsgenie__V1__LogAck__Problem problem_of(
        const struct session *session, const struct attempt *attempt, const Devopsgenie__V1__LogChunk *chunk) {
        int part = part_of((int)chunk->stream);
        int64_t accepted = attempt->log[part].accepted;
        int64_t total = attempt->log[0].accepted + attempt->log[1].accepted;
        if (session->pieces_on_way >= PIECES_MAX)
                return DEVOPSGENIE__V1__LOG_ACK__PROBLEM__WINDOW;
        if (chunk->data.len > LOG_CHUNK_MAX)
                return DEVOPSGENIE__V1__LOG_ACK__PROBLEM__CHUNK_TOO_LARGE;
        if (crc32c(&chunk->data) != chunk->crc32c)
                return DEVOPSGENIE__V1__LOG_ACK__PROBLEM__CHECKSUM;
        if (chunk->offset < 0 || chunk->offset > accepted)
                return DEVOPSGENIE__V1__LOG_ACK__PROBLEM__GAP;
        int64_t size = chunk->offset + (int64_t)chunk->data.len - accepted; // of what is new
        if (size <= 0)
                return DEVOPSGENIE__V1__LOG_ACK__PROBLEM__PROBLEM_UNSPECIFIED;
        if (chunk->offset + (int64_t)chunk->data.len > attempt->log[part].end)
                return DEVOPSGENIE__V1__LOG_ACK__PROBLEM__FULL;
        if (total + size > (int64_t)session->channel->config.max_log_bytes)
                return DEVOPSGENIE__V1__LOG_ACK__PROBLEM__FULL;
        if (session->log_on_way + size > (int64_t)session->channel->config.log_window_bytes)
                return DEVOPSGENIE__V1__LOG_ACK__PROBLEM__WINDOW;
        return DEVOPSGENIE__V1__LOG_ACK__PROBLEM__PROBLEM_UNSPECIFIED;
}

static void add_piece(struct session *session, struct attempt *attempt, const Devopsgenie__V1__LogChunk *chunk) {
        struct batch *batch = &session->channel->logs;
        int part = part_of((int)chunk->stream);
        size_t known = (size_t)(attempt->log[part].accepted - chunk->offset), size = chunk->data.len - known;
        Devopsgenie__Internal__LogPiece *item = add_report(batch, session,
                &devopsgenie__internal__log_piece__descriptor, attempt->task, attempt->number, attempt->fence, size);
        if (!item)
                return;
        item->stream = part + 1;
        item->log_offset = attempt->log[part].accepted;
        item->data.data = batch_bytes(batch, chunk->data.data + known, size);
        item->data.len = size;
        item->eof = chunk->eof;
        item->session_epoch = session->epoch;
        attempt->log[part].accepted += (int64_t)size;
        if (chunk->eof && attempt->log[part].end == LOG_OPEN)
                attempt->log[part].end = attempt->log[part].accepted;
        attempt->log[part].on_way++;
        session->pieces_on_way++;
        session->log_on_way += (int64_t)size;
}

void take_log(struct session *session, const Devopsgenie__V1__LogChunk *chunk) {
        char task[UUID_SIZE];
        int part = part_of((int)chunk->stream);
        struct attempt *attempt = task_named(session->slug, chunk->task, task)
                                          ? attempt_find(session, task, chunk->attempt, chunk->fence)
                                          : NULL;
        if (!attempt || attempt->state < ATTEMPT_RUNNING) {
                post_log_ack(session, chunk->task, chunk->attempt, part, 0, DEVOPSGENIE__V1__LOG_ACK__PROBLEM__FENCED);
                return;
        }
        Devopsgenie__V1__LogAck__Problem problem = problem_of(session, attempt, chunk);
        attempt->log_full |= problem == DEVOPSGENIE__V1__LOG_ACK__PROBLEM__FULL && attempt->log[part].end == LOG_OPEN;
        // Where there is no problem, its offset is in the log, and nothing overflows.
        int64_t size = problem ? -1 : chunk->offset + (int64_t)chunk->data.len - attempt->log[part].accepted;
        if (size > 0 || (size == 0 && chunk->eof))
                add_piece(session, attempt, chunk);
        else
                post_log_ack(session, chunk->task, chunk->attempt, part, attempt->log[part].durable, problem);
}

// Of an attempt's parts that had pieces in the load: how far each is now. One that is not where it was thought to be is
// taken up where it is, unless it ends there.
static void settle_log(struct session *session, struct attempt *attempt, int part, const PGresult *result, int row) {
        const char *end = part ? "stderr_end" : "stdout_end";
        int64_t offset = row_int(result, row, part ? "stderr_offset" : "stdout_offset");
        char name[TASK_NAME];
        if (!PQgetisnull(result, row, PQfnumber(result, end)))
                attempt->log[part].end = row_int(result, row, end);
        if (!attempt->log[part].answered)
                return;
        attempt->log[part].answered = false;
        attempt->log[part].durable = offset;
        bool gap = !attempt->log[part].on_way && attempt->log[part].accepted != offset;
        if (gap)
                attempt->log[part].accepted = offset;
        session_name_task(session, attempt->task, name);
        post_log_ack(session, name, attempt->number, part, offset,
                !gap                               ? DEVOPSGENIE__V1__LOG_ACK__PROBLEM__PROBLEM_UNSPECIFIED
                : offset == attempt->log[part].end ? DEVOPSGENIE__V1__LOG_ACK__PROBLEM__FULL
                                                   : DEVOPSGENIE__V1__LOG_ACK__PROBLEM__GAP);
}

static void lose_log(struct session *session, struct attempt *attempt) {
        char name[TASK_NAME];
        session_name_task(session, attempt->task, name);
        post_log_ack(session, name, attempt->number, 0, 0, DEVOPSGENIE__V1__LOG_ACK__PROBLEM__FENCED);
        attempt_forget(session, attempt);
}

static struct attempt *attempt_of_piece(const struct load *load, unsigned i) {
        const Devopsgenie__Internal__LogPiece *piece = (const void *)load->items[i];
        return attempt_find(load->sessions[i], piece->attempt->task_id, piece->attempt->attempt, piece->attempt->fence);
}

static void count_pieces(const struct load *load) {
        for (unsigned i = 0; i < load->count; i++) {
                const Devopsgenie__Internal__LogPiece *piece = (const void *)load->items[i];
                struct attempt *attempt = attempt_of_piece(load, i);
                load->sessions[i]->pieces_on_way--;
                load->sessions[i]->log_on_way -= (int64_t)piece->data.len;
                if (!attempt)
                        continue;
                attempt->log[piece->stream - 1].on_way--;
                attempt->log[piece->stream - 1].answered = true;
        }
}

void logs_done(struct channel *channel, const struct load *load, const PGresult *result) {
        count_pieces(load);
        for (int row = 0; row < PQntuples(result); row++) {
                int64_t i = row_int(result, row, "item") - 1;
                struct attempt *attempt = i >= 0 && i < load->count ? attempt_of_piece(load, (unsigned)i) : NULL;
                if (!attempt)
                        continue;
                if (PQgetisnull(result, row, PQfnumber(result, "stdout_offset"))) {
                        lose_log(load->sessions[i], attempt);
                        continue;
                }
                settle_log(load->sessions[i], attempt, 0, result, row);
                settle_log(load->sessions[i], attempt, 1, result, row);
        }
        note_all(channel, load, CHANGE_LOGS);
}
