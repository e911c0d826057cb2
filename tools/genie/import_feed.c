#include "tools/genie/import_feed.h"

#include "tools/genie/memory.h"
#include "tools/genie/session.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/sha.h>
#include <string.h>
#include <sys/stat.h>

static bool open_reader(struct feed *feed) {
        FILE *file = strcmp(feed->path, "-") == 0 ? stdin : fopen(feed->path, "re");
        struct stat status;

        if (!file || fstat(fileno(file), &status) < 0 || S_ISDIR(status.st_mode)) {
                print_failure("cannot read %s: %s", feed->path, strerror(file && errno == 0 ? EISDIR : errno));
                return false;
        }
        // Only a regular file can be read again; standard input may be one, but where it stood is not known.
        feed->seekable = S_ISREG(status.st_mode) && file != stdin;
        feed->file_size = S_ISREG(status.st_mode) ? (uint64_t)status.st_size : 0;
        ocsf_reader_free(feed->reader);
        feed->reader = ocsf_reader_new(file);
        feed->item = NULL;
        feed->read_ended = feed->packed = false;
        return true;
}

bool feed_open(struct feed *feed, const char *path, struct report *report) {
        *feed = (struct feed){.path = path, .report = report, .run_ended = true};
        seen_init(&feed->described);
        errno = 0;
        return open_reader(feed);
}

static void clear_window(struct feed *feed) {
        for (size_t i = 0; i < feed->n_window; i++)
                batch_free(feed->window[i]);
        feed->n_window = 0;
}

void feed_close(struct feed *feed) {
        clear_window(feed);
        piece_free(&feed->piece);
        seen_free(&feed->described);
        ocsf_reader_free(feed->reader);
}

// Makes sure that the next record is there. False: the file ends.
static bool peek(struct feed *feed) {
        if (!feed->item && !feed->read_ended) {
                feed->item = ocsf_reader_next(feed->reader);
                feed->read_ended = !feed->item;
                feed->packed = false;
        }
        return feed->item != NULL;
}

// The next record of this run; NULL: the run ends.
static struct ocsf_item *peek_in_run(struct feed *feed) {
        if (peek(feed) && feed->item->run == feed->run)
                return feed->item;
        feed->run_ended = true;
        feed->cut = feed->item ? feed->item->previous_cut : ocsf_reader_cut(feed->reader);
        return NULL;
}

bool feed_begin_run(struct feed *feed) {
        if (!peek(feed))
                return false;
        feed->run = feed->item->run;
        feed->base = feed->item->number - 1;
        feed->next = 1;
        feed->run_ended = feed->has_head = false;
        feed->cut = NULL;
        seen_clear(&feed->described);
        return true;
}

// Copies as much as fits of UTF-8, whole characters only.
static void copy_text(char *ret_text, size_t size, const char *text) {
        size_t length = strnlen(text, size - 1);

        while (text[length] != '\0' && length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80)
                length--;
        memcpy(ret_text, text, length);
        ret_text[length] = '\0';
}

static void take_head(struct feed *feed) {
        const struct ocsf_record *record = &feed->item->record;
        struct scan_head *head = &feed->head;

        copy_text(head->provider, sizeof head->provider, record->provider);
        copy_text(head->account_uid, sizeof head->account_uid, record->account_uid);
        copy_text(head->scanner, sizeof head->scanner, *record->scanner ? record->scanner : "OCSF");
        copy_text(head->scanner_version, sizeof head->scanner_version, record->scanner_version);
        head->time_us = record->time_us;
        SHA256((const unsigned char *)feed->item->data, feed->item->size, head->digest);
        feed->has_head = true;
}

static void pack(struct feed *feed) {
        struct ocsf_item *item = feed->item;

        if (feed->packed)
                return;
        piece_pack(&feed->piece, item, item->number - feed->base, &feed->described);
        feed->packed = true;
        if (item->record.reason)
                report_refusal(
                        feed->report, item->number, (int64_t)item->offset, item->record.reason, item->record.message);
        else if (!feed->has_head)
                take_head(feed);
}

bool feed_fill(struct feed *feed) {
        if (feed->run_ended || feed->n_window == FEED_WINDOW)
                return false;
        struct batch *batch = batch_new(feed->next);
        while (peek_in_run(feed)) {
                pack(feed);
                if (!batch_add(batch, &feed->piece, feed->item->offset))
                        break;
                feed->item = NULL;
                feed->next++;
        }
        if (batch->records == 0) {
                batch_free(batch);
                return false;
        }
        feed->window[feed->n_window++] = batch;
        report_progress(feed->report, feed->base + feed->next - 1, ocsf_reader_consumed(feed->reader), feed->file_size);
        return true;
}

struct batch *feed_unsent(struct feed *feed) {
        for (size_t i = 0; i < feed->n_window; i++) {
                if (!feed->window[i]->sent)
                        return feed->window[i];
        }
        return NULL;
}

static int64_t batch_end(const struct batch *batch) { return batch->first + (int64_t)batch->records; }

void feed_acknowledge(struct feed *feed, int64_t next_record) {
        size_t count = 0;

        while (count < feed->n_window && batch_end(feed->window[count]) <= next_record)
                batch_free(feed->window[count++]);
        feed->n_window -= count;
        memmove(feed->window, feed->window + count, feed->n_window * sizeof *feed->window);
}

// Reads the file from its beginning up to a record of the run, and remembers what the records before it described.
static bool read_again(struct feed *feed, int64_t next_record) {
        if (!open_reader(feed))
                return false;
        clear_window(feed);
        seen_clear(&feed->described);
        feed->run_ended = false;
        feed->cut = NULL;
        feed->next = 1;
        while (peek(feed) && feed->item->number < feed->base + next_record) {
                if (feed->item->number > feed->base) {
                        pack(feed);
                        feed->next++;
                }
                feed->item = NULL;
        }
        if (feed->next == next_record)
                return true;
        print_failure("the server has more records of this import than %s holds: has the file changed?", feed->path);
        return false;
}

bool feed_resume(struct feed *feed, int64_t next_record) {
        feed_acknowledge(feed, next_record);
        int64_t kept = feed->n_window > 0 ? feed->window[0]->first : feed->next;
        for (size_t i = 0; i < feed->n_window; i++)
                feed->window[i]->sent = false;
        if (kept == next_record)
                return true;
        if (feed->seekable)
                return read_again(feed, next_record);
        print_failure("the server goes on at record %" PRId64 ", but standard input was read to record %" PRId64
                      " and cannot be read again: import from a file",
                next_record, kept);
        return false;
}

int64_t feed_offset(const struct feed *feed, int64_t record) {
        for (size_t i = 0; i < feed->n_window; i++) {
                const struct batch *batch = feed->window[i];
                if (record >= batch->first && record < batch_end(batch))
                        return (int64_t)batch->offsets[record - batch->first];
        }
        return -1;
}

bool feed_failed(const struct feed *feed) {
        int failure;

        if (!ocsf_reader_failed(feed->reader, &failure))
                return false;
        print_failure("reading %s failed: %s", feed->path, strerror(failure));
        return true;
}
