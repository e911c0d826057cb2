// The single conversions, for the table in convert.c.
#pragma once

#include "storage/convert.h"

read_value read_text, read_uuid, read_jsonb, read_bytes, read_bool, read_int32, read_uint32, read_int64, read_uint64,
        read_float, read_double, read_enum_name, read_enum_number, read_timestamp, read_duration, read_map,
        read_message;
write_value write_text, write_uuid, write_jsonb, write_bytes, write_bool, write_int32, write_uint32, write_int64,
        write_uint64, write_float, write_double, write_enum_name, write_enum_number, write_timestamp, write_duration,
        write_map, write_message, write_strings;
