/* The yardstick of `python -m benchmarks decode`: what a C programmer would write by hand, and not tune.
 *
 * The rule of the file: plain scalar C, one pass, one 64-byte record per message into a ring, and the same honesty as
 * the decoder that it is compared with: lengths and field ends are checked, decimals are exact (the short ones by one
 * exact division, all others by strtod), an absent number is NaN. It knows the messages of the benchmark's stream only,
 * and no instruments, no interned strings, no merged quotes, no last values.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { TICK_PRICE = 1, TICK_SIZE = 2, TICK_GENERIC = 45, TICK_STRING = 46, TICK_BY_TICK = 99, PROTOBUF_OFFSET = 200 };
enum { LAST_TIMESTAMP = 45, RT_VOLUME = 48, BY_TICK_LAST = 1, BY_TICK_ALL_LAST = 2, BY_TICK_BID_ASK = 3 };
enum { PREFIX_BYTES = 4, MAX_FRAME_BYTES = 0xFFFFFF, LONGEST_NUMBER = 400, EXACT_DIGITS = 18, EXACT_POWERS = 22 };

typedef struct {
    uint64_t seq;
    int64_t recv_ns;
    int32_t req_id;
    uint8_t kind;
    uint8_t attribs;
    int16_t tick_type;
    int64_t event;                /* seconds or milliseconds, as sent */
    double a;                     /* price, value or bid */
    double b;                     /* size or ask */
    union {
        struct { double c, d; };  /* bid and ask size */
        struct { uint32_t text, text_nbytes, more, more_nbytes; };  /* where in the stream the texts stand */
    };
} record_t;

typedef struct {
    const uint8_t *stream;
    record_t *ring;
    uint64_t mask;
    uint64_t seq;
    int64_t recv_ns;
} sink_t;

static const double POWER_OF_TEN[EXACT_POWERS + 1] = {
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22 };

static inline uint32_t be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline record_t *claim(sink_t *sink, uint8_t kind) {
    record_t *record = sink->ring + (sink->seq & sink->mask);
    record->seq = ++sink->seq;
    record->recv_ns = sink->recv_ns;
    record->kind = kind;
    return record;
}

/* Everything but plain short decimals. Returns the end of the number, NULL if it is none. */
static const uint8_t *slow_number(const uint8_t *p, const uint8_t *end, uint8_t stop, double *out) {
    char copy[LONGEST_NUMBER + 1];
    char *copy_end;
    const uint8_t *q = p;
    while (q < end && *q != stop) q++;
    if (q - p > LONGEST_NUMBER) return NULL;
    memcpy(copy, p, q - p);
    copy[q - p] = 0;
    *out = strtod(copy, &copy_end);
    return copy_end == copy + (q - p) ? q : NULL;
}

/* A decimal that ends at `stop` or at `end`; NaN if it is empty. */
static inline const uint8_t *number(const uint8_t *p, const uint8_t *end, uint8_t stop, double *out) {
    const uint8_t *start = p, *point = NULL;
    uint64_t mantissa = 0;
    int negative = p < end && *p == '-';
    p += negative;
    for (; p < end; p++) {
        unsigned digit = *p - (unsigned)'0';
        if (digit <= 9) mantissa = mantissa * 10 + digit;
        else if (*p == '.' && !point) point = p;
        else break;
    }
    if (p < end && *p != stop) return slow_number(start, end, stop, out);
    if (p == start) {
        *out = NAN;
        return p;
    }
    size_t decimals = point ? (size_t)(p - point - 1) : 0;
    if (p - start - negative - (point != NULL) == 0) return NULL;
    if (p - start > EXACT_DIGITS || mantissa > (uint64_t)1 << 53) return slow_number(start, end, stop, out);
    double value = (double)mantissa;
    if (decimals) value /= POWER_OF_TEN[decimals];
    *out = negative ? -value : value;
    return p;
}

/* An integer that ends at `stop` or at `end`. */
static inline const uint8_t *integer(const uint8_t *p, const uint8_t *end, uint8_t stop, int64_t *out) {
    const uint8_t *start = p;
    int64_t value = 0;
    int negative = p < end && *p == '-';
    p += negative;
    for (; p < end && *p != stop; p++) {
        unsigned digit = *p - (unsigned)'0';
        if (digit > 9) return NULL;
        value = value * 10 + digit;
    }
    *out = negative ? -value : value;
    return p - start > EXACT_DIGITS ? NULL : p;
}

/* The string ticks that are numbers: timestamps and RTVolume, "price;size;ms;volume;vwap;single". */
static inline int string_value(record_t *record, const uint8_t *p, const uint8_t *end) {
    double volume, vwap;
    record->a = record->b = NAN;
    record->event = 0;
    if (record->tick_type == LAST_TIMESTAMP) return number(p, end, 0, &record->a) == end;
    if (record->tick_type != RT_VOLUME) return 1;
    if (!(p = number(p, end, ';', &record->a)) || p == end) return 0;
    if (!(p = number(p + 1, end, ';', &record->b)) || p == end) return 0;
    if (!(p = integer(p + 1, end, ';', &record->event)) || p == end) return 0;
    if (!(p = number(p + 1, end, ';', &volume)) || p == end) return 0;
    if (!(p = number(p + 1, end, ';', &vwap)) || p == end) return 0;
    record->attribs = p[1] == 't';
    return 1;
}

/* Text fields: each returns where the next field begins, NULL if this one is malformed or `p` is NULL already. */
static inline const uint8_t *after(const uint8_t *p, const uint8_t *end) {
    return p && p < end && *p == 0 ? p + 1 : NULL;
}

static inline const uint8_t *text_number(const uint8_t *p, const uint8_t *end, double *out) {
    return p ? after(number(p, end, 0, out), end) : NULL;
}

static inline const uint8_t *text_integer(const uint8_t *p, const uint8_t *end, int64_t *out) {
    return p ? after(integer(p, end, 0, out), end) : NULL;
}

static inline const uint8_t *text_string(sink_t *sink, const uint8_t *p, const uint8_t *end, uint32_t *offset,
                                         uint32_t *nbytes) {
    const uint8_t *start = p;
    if (!p) return NULL;
    while (p < end && *p) p++;
    *offset = (uint32_t)(start - sink->stream);
    *nbytes = (uint32_t)(p - start);
    return after(p, end);
}

static inline int text_by_tick(sink_t *sink, const uint8_t *p, const uint8_t *end) {
    record_t *record = claim(sink, TICK_BY_TICK);
    int64_t req_id = 0, tick_type = 0, attribs = 0;
    p = text_integer(p, end, &req_id);
    p = text_integer(p, end, &tick_type);
    p = text_integer(p, end, &record->event);
    p = text_number(p, end, &record->a);
    p = text_number(p, end, &record->b);
    record->req_id = (int32_t)req_id;
    record->tick_type = (int16_t)tick_type;
    if (tick_type == BY_TICK_LAST || tick_type == BY_TICK_ALL_LAST) {
        p = text_integer(p, end, &attribs);
        p = text_string(sink, p, end, &record->text, &record->text_nbytes);
        p = text_string(sink, p, end, &record->more, &record->more_nbytes);
    } else if (tick_type == BY_TICK_BID_ASK) {
        p = text_number(p, end, &record->c);
        p = text_number(p, end, &record->d);
        p = text_integer(p, end, &attribs);
    } else {
        return 0;
    }
    record->attribs = (uint8_t)attribs;
    return p != NULL;
}

static inline int text_message(sink_t *sink, int64_t id, const uint8_t *p, const uint8_t *end) {
    record_t *record;
    int64_t version, req_id = 0, tick_type = 0, attribs = 0;
    if (id == TICK_BY_TICK) return text_by_tick(sink, p, end);
    record = claim(sink, (uint8_t)id);
    p = text_integer(p, end, &version);
    p = text_integer(p, end, &req_id);
    p = text_integer(p, end, &tick_type);
    record->req_id = (int32_t)req_id;
    record->tick_type = (int16_t)tick_type;
    record->a = record->b = NAN;
    switch (id) {
    case TICK_PRICE:
        p = text_number(p, end, &record->a);
        p = text_number(p, end, &record->b);
        p = text_integer(p, end, &attribs);
        record->attribs = (uint8_t)attribs;
        return p != NULL;
    case TICK_SIZE:
        return text_number(p, end, &record->b) != NULL;
    case TICK_GENERIC:
        return text_number(p, end, &record->a) != NULL;
    case TICK_STRING:
        p = text_string(sink, p, end, &record->text, &record->text_nbytes);
        return p && string_value(record, p - 1 - record->text_nbytes, p - 1);
    }
    return 0;
}

/* Protobuf fields, likewise. */
enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
#define FIELD(number, wire_type) ((number) << 3 | (wire_type))

static inline const uint8_t *varint(const uint8_t *p, const uint8_t *end, uint64_t *out) {
    uint64_t value = 0;
    for (int shift = 0; p < end && shift < 64; shift += 7) {
        value |= (uint64_t)(*p & 0x7F) << shift;
        if (*p++ < 0x80) {
            *out = value;
            return p;
        }
    }
    return NULL;
}

static inline const uint8_t *fixed64(const uint8_t *p, const uint8_t *end, double *out) {
    if (end - p < 8) return NULL;
    memcpy(out, p, 8);
    return p + 8;
}

/* The bytes of a length-delimited field: returns where they begin, `*n` being in bounds. */
static inline const uint8_t *bytes(const uint8_t *p, const uint8_t *end, uint64_t *n) {
    p = varint(p, end, n);
    return p && *n <= (uint64_t)(end - p) ? p : NULL;
}

static inline const uint8_t *size(const uint8_t *p, const uint8_t *end, double *out) {
    uint64_t n;
    p = bytes(p, end, &n);
    return p && number(p, p + n, 0, out) == p + n ? p + n : NULL;
}

static inline const uint8_t *string(sink_t *sink, const uint8_t *p, const uint8_t *end, uint32_t *offset,
                                    uint32_t *nbytes) {
    uint64_t n;
    p = bytes(p, end, &n);
    if (!p) return NULL;
    *offset = (uint32_t)(p - sink->stream);
    *nbytes = (uint32_t)n;
    return p + n;
}

static const uint8_t *skip_field(const uint8_t *p, const uint8_t *end, uint64_t tag) {
    uint64_t n;
    switch (tag & 7) {
    case VARINT: return varint(p, end, &n);
    case FIXED64: return end - p < 8 ? NULL : p + 8;
    case BYTES: return (p = bytes(p, end, &n)) ? p + n : NULL;
    case FIXED32: return end - p < 4 ? NULL : p + 4;
    }
    return NULL;
}

/* Embedded messages: each returns the end of the embedded message, NULL if it is malformed. */
static const uint8_t *by_tick_flags(record_t *record, const uint8_t *p, const uint8_t *end) {
    uint64_t tag, n = 0;
    p = bytes(p, end, &n);
    if (!p) return NULL;
    end = p + n;
    while (p && p < end) {
        p = varint(p, end, &tag);
        if (!p) return NULL;
        switch (tag) {
        case FIELD(1, VARINT): p = varint(p, end, &n); record->attribs |= (uint8_t)n; break;
        case FIELD(2, VARINT): p = varint(p, end, &n); record->attribs |= (uint8_t)(n << 1); break;
        default: p = skip_field(p, end, tag);
        }
    }
    return p;
}

static const uint8_t *by_tick_last(sink_t *sink, record_t *record, const uint8_t *p, const uint8_t *end) {
    uint64_t tag, n = 0;
    p = bytes(p, end, &n);
    if (!p) return NULL;
    end = p + n;
    while (p && p < end) {
        p = varint(p, end, &tag);
        if (!p) return NULL;
        switch (tag) {
        case FIELD(1, VARINT): p = varint(p, end, &n); record->event = (int64_t)n; break;
        case FIELD(2, BYTES): p = by_tick_flags(record, p, end); break;
        case FIELD(3, FIXED64): p = fixed64(p, end, &record->a); break;
        case FIELD(4, BYTES): p = size(p, end, &record->b); break;
        case FIELD(5, BYTES): p = string(sink, p, end, &record->text, &record->text_nbytes); break;
        case FIELD(6, BYTES): p = string(sink, p, end, &record->more, &record->more_nbytes); break;
        default: p = skip_field(p, end, tag);
        }
    }
    return p;
}

static const uint8_t *by_tick_bid_ask(record_t *record, const uint8_t *p, const uint8_t *end) {
    uint64_t tag, n = 0;
    record->c = record->d = NAN;
    p = bytes(p, end, &n);
    if (!p) return NULL;
    end = p + n;
    while (p && p < end) {
        p = varint(p, end, &tag);
        if (!p) return NULL;
        switch (tag) {
        case FIELD(1, VARINT): p = varint(p, end, &n); record->event = (int64_t)n; break;
        case FIELD(2, BYTES): p = by_tick_flags(record, p, end); break;
        case FIELD(3, FIXED64): p = fixed64(p, end, &record->a); break;
        case FIELD(4, FIXED64): p = fixed64(p, end, &record->b); break;
        case FIELD(5, BYTES): p = size(p, end, &record->c); break;
        case FIELD(6, BYTES): p = size(p, end, &record->d); break;
        default: p = skip_field(p, end, tag);
        }
    }
    return p;
}

static inline int protobuf_by_tick(sink_t *sink, record_t *record, const uint8_t *p, const uint8_t *end) {
    uint64_t tag, n = 0;
    while (p && p < end) {
        p = varint(p, end, &tag);
        if (!p) return 0;
        switch (tag) {
        case FIELD(1, VARINT): p = varint(p, end, &n); record->req_id = (int32_t)n; break;
        case FIELD(2, VARINT): p = varint(p, end, &n); record->tick_type = (int16_t)n; break;
        case FIELD(3, BYTES): p = by_tick_last(sink, record, p, end); break;
        case FIELD(4, BYTES): p = by_tick_bid_ask(record, p, end); break;
        default: p = skip_field(p, end, tag);
        }
    }
    return p != NULL;
}

static inline int protobuf_message(sink_t *sink, int64_t id, const uint8_t *p, const uint8_t *end) {
    record_t *record = claim(sink, (uint8_t)id);
    uint64_t tag, n = 0;
    record->req_id = record->tick_type = -1;
    record->attribs = 0;
    record->event = 0;
    record->a = record->b = NAN;
    record->text = record->text_nbytes = record->more = record->more_nbytes = 0;
    if (id == TICK_BY_TICK) return protobuf_by_tick(sink, record, p, end);
    while (p && p < end) {
        p = varint(p, end, &tag);
        if (!p) return 0;
        switch (tag) {
        case FIELD(1, VARINT): p = varint(p, end, &n); record->req_id = (int32_t)n; break;
        case FIELD(2, VARINT): p = varint(p, end, &n); record->tick_type = (int16_t)n; break;
        case FIELD(3, FIXED64): p = fixed64(p, end, &record->a); break;
        case FIELD(3, BYTES):
            if (id == TICK_SIZE) p = size(p, end, &record->b);
            else p = string(sink, p, end, &record->text, &record->text_nbytes);
            break;
        case FIELD(4, BYTES): p = size(p, end, &record->b); break;
        case FIELD(5, VARINT): p = varint(p, end, &n); record->attribs = (uint8_t)n; break;
        default: p = skip_field(p, end, tag);
        }
    }
    if (p && id == TICK_STRING) {
        const uint8_t *text = sink->stream + record->text;
        return string_value(record, text, text + record->text_nbytes);
    }
    return p != NULL;
}

/* Parse a stream of whole frames. Returns the messages parsed, or minus the offset of the frame that is broken. */
static inline int64_t parse(const uint8_t *data, size_t n, sink_t *sink, int raw_id) {
    const uint8_t *p = data, *end = data + n;
    int64_t messages = 0;
    while (end - p >= PREFIX_BYTES) {
        uint32_t length = be32(p);
        const uint8_t *body = p + PREFIX_BYTES, *frame_end = body + length;
        int64_t id;
        int good;
        if (length < PREFIX_BYTES || length > MAX_FRAME_BYTES || (size_t)(end - body) < length) return -(p - data) - 1;
        if (raw_id) {
            id = be32(body);
            body += PREFIX_BYTES;
        } else {
            body = integer(body, frame_end, 0, &id);
            if (!body || body == frame_end) return -(p - data) - 1;
            body++;
        }
        good = id > PROTOBUF_OFFSET ? protobuf_message(sink, id - PROTOBUF_OFFSET, body, frame_end)
                                    : text_message(sink, id, body, frame_end);
        if (!good) return -(p - data) - 1;
        messages++;
        p = frame_end;
    }
    return messages;
}

/* Parse into `ring` of `mask` + 1 records. */
int64_t cparser_parse(const uint8_t *data, size_t n, record_t *ring, uint64_t mask, int raw_id, int64_t recv_ns) {
    sink_t sink = { data, ring, mask, 0, recv_ns };
    return raw_id ? parse(data, n, &sink, 1) : parse(data, n, &sink, 0);
}

/* The floor: walk over the frames and read the first byte of each. */
int64_t cparser_frames(const uint8_t *data, size_t n, uint64_t *sum) {
    const uint8_t *p = data, *end = data + n;
    int64_t messages = 0;
    while (end - p >= PREFIX_BYTES) {
        uint32_t length = be32(p);
        if (length < PREFIX_BYTES || length > MAX_FRAME_BYTES || (size_t)(end - p) - PREFIX_BYTES < length) return -1;
        *sum += p[PREFIX_BYTES];
        p += PREFIX_BYTES + length;
        messages++;
    }
    return messages;
}
