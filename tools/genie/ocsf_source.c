#include "tools/genie/ocsf_source.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { INPUT_SIZE = 64 << 10, GZIP_WINDOW = 15 + 16 /* zlib's way to say: gzip only */ };

struct ocsf_source {
        FILE *file;
        bool gzip, begun, in_member;
        enum source_result ended; // SOURCE_DATA while there may be more
        z_stream inflater;
        uint64_t consumed;
        size_t at, size;
        unsigned char input[INPUT_SIZE];
};

struct ocsf_source *ocsf_source_new(FILE *file) {
        struct ocsf_source *source = calloc(1, sizeof *source);

        if (source && inflateInit2(&source->inflater, GZIP_WINDOW) != Z_OK) {
                free(source);
                source = NULL;
        }
        if (source)
                source->file = file;
        else
                fclose(file);
        return source;
}

void ocsf_source_free(struct ocsf_source *source) {
        if (!source)
                return;
        inflateEnd(&source->inflater);
        fclose(source->file);
        free(source);
}

// Makes sure that there is input. False: the end, or a failure.
static bool fill(struct ocsf_source *source) {
        if (source->at < source->size)
                return true;
        source->at = 0;
        source->size = fread(source->input, 1, INPUT_SIZE, source->file);
        source->consumed += source->size;
        if (source->size > 0)
                return true;
        if (ferror(source->file))
                source->ended = SOURCE_FAILED;
        else
                source->ended = source->in_member ? SOURCE_CUT : SOURCE_END;
        return false;
}

// Between members there may be zeros (tar's padding); anything else but another member is damage.
static bool begin_member(struct ocsf_source *source) {
        while (fill(source) && source->input[source->at] == 0)
                source->at++;
        if (source->ended != SOURCE_DATA)
                return false;
        if (source->input[source->at] != 0x1f || inflateReset(&source->inflater) != Z_OK) {
                source->ended = SOURCE_CUT;
                return false;
        }
        source->in_member = true;
        return true;
}

static size_t inflate_some(struct ocsf_source *source, void *buffer, size_t size) {
        z_stream *inflater = &source->inflater;

        inflater->next_in = source->input + source->at;
        inflater->avail_in = (uInt)(source->size - source->at);
        inflater->next_out = buffer;
        inflater->avail_out = (uInt)size;
        int result = inflate(inflater, Z_NO_FLUSH);
        source->at = source->size - inflater->avail_in;
        if (result == Z_STREAM_END)
                source->in_member = false;
        else if (result != Z_OK && result != Z_BUF_ERROR)
                source->ended = SOURCE_CUT;
        return size - inflater->avail_out;
}

enum source_result ocsf_source_read(struct ocsf_source *source, void *buffer, size_t size, size_t *ret_size) {
        size_t count = 0;

        if (!source->begun && fill(source)) {
                source->begun = true;
                source->gzip = source->size >= 2 && source->input[0] == 0x1f && source->input[1] == 0x8b;
        }
        size = size < INPUT_SIZE ? size : INPUT_SIZE;
        while (count == 0 && source->ended == SOURCE_DATA) {
                if (source->gzip && !source->in_member && !begin_member(source))
                        break;
                if (!fill(source))
                        break;
                if (source->gzip) {
                        count = inflate_some(source, buffer, size);
                } else {
                        count = source->size - source->at < size ? source->size - source->at : size;
                        memcpy(buffer, source->input + source->at, count);
                        source->at += count;
                }
        }
        *ret_size = count;
        return count > 0 ? SOURCE_DATA : source->ended;
}

uint64_t ocsf_source_consumed(const struct ocsf_source *source) { return source->consumed; }
