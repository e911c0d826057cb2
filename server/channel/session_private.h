// What the two halves of a session share: session.c has its state, session_reports.c what goes to the database.
#pragma once

#include "server/channel/channel_private.h"

#include <assert.h>
#include <endian.h>

enum { TASK_NAME = 200 };

static inline Google__Protobuf__Duration duration_of(int64_t milliseconds) {
        Google__Protobuf__Duration duration = GOOGLE__PROTOBUF__DURATION__INIT;
        duration.seconds = milliseconds / 1000;
        duration.nanos = (int32_t)(milliseconds % 1000 * 1000000);
        return duration;
}

void attempt_move(
        struct session *session, struct attempt *attempt, enum attempt_state state); // asserts that there is such a way
struct attempt *attempt_find(struct session *session, const char *task, int32_t number, int64_t fence);
void attempt_forget(struct session *session, struct attempt *attempt); // another one may take its place in memory

void session_name_task(const struct session *session, const char *task, char ret_name[TASK_NAME]);
// The UUID in a task's name; false where it is no name of a task of that organization.
bool task_named(const char *slug, const char *name, char ret_task[UUID_SIZE]);
void session_post_lost(struct session *session, const char *name, int32_t number, int64_t fence, const char *reason);
void session_answered(struct session *session); // one of its requests

void take_ack(struct session *session, const Devopsgenie__V1__TaskAck *ack);
void take_rejection(struct session *session, const Devopsgenie__V1__TaskReject *rejection);
void take_effect(struct session *session, const Devopsgenie__V1__SideEffect *effect);
void take_log(struct session *session, const Devopsgenie__V1__LogChunk *chunk);
void take_result(struct session *session, const Devopsgenie__V1__Result *result);
void take_cancel_answer(struct session *session, const Devopsgenie__V1__CancelAck *answer);
