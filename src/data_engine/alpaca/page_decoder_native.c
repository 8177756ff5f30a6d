/* Rows of a page of bars, from JSON text to columns in one pass. hatch_build.py compiles it, page_decoder_native.py calls it.

   It takes on one form of page, the one that the API sends: no white space, every row an object of the eight known keys in
   any order, times as 2024-06-03T08:00:00Z, numbers of digits with or without a fraction. A few more fields with plain values
   are passed over, and named. Whatever else it meets it leaves to the decoders in Python, which know what to do about it.

   Nothing is read outside text[0, size), nothing is written outside the arrays that are handed over, nothing is allocated, and
   no state is kept: any number of threads may call it at once. */

#include <float.h>
#include <stdint.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "this machine computes doubles in another precision: quotients would be rounded twice"
#endif

#ifdef __FAST_MATH__
#error "quotients would not be the nearest doubles, and loading this would change the arithmetic of the whole process"
#endif

#if defined(_WIN32)
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif

/* The checksum of this file, given by hatch_build.py: page_decoder_native.py takes no library that was made of another. */
EXPORTED uint32_t data_engine_source(void) { return SOURCE_CRC; }

/* What `read_bars` returns in place of a number of lists. */
#define LEFT_ALONE (-1) /* a page of another form, or too long */
#define INEXACT (-2)    /* of this form, with a number of more digits than one division is exact for */

typedef struct {
    const unsigned char *at;
    const unsigned char *end; /* one behind the last byte */
} Text;

/* The columns in their order; the time is the first. */
enum { TIME, OPEN, HIGH, LOW, CLOSE, VOLUME, TRADES, VWAP, COLUMNS };
#define ALL_OF_THEM ((1u << COLUMNS) - 1)

/* Bytes of `"t":"2024-06-03T08:00:00Z"`: before a field, one look at the end of the text covers key and time. */
#define LONGEST_FIXED_PIECE 26

/* Powers of ten that a double holds exactly. */
static const double POWER[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8, 1e9,
                               1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18};
#define MOST_DIGITS 18              /* so many fit into 64 bits whatever they are */
#define EXACT (UINT64_C(1) << 53)   /* up to here a double holds every whole number */

static int is_digit(unsigned char byte) { return byte >= '0' && byte <= '9'; }

/* Read a number that is not negative and has no exponent; 0 where it is another, or none. Where it has too many digits,
   *inexact says so, and the page is read on: whether all of it is of the known form is said in the end. Else the whole number that they make and the power of ten are both exact, so their quotient is the double nearest to
   what was written. */
static int number(Text *text, double *value, int *inexact) {
    const unsigned char *at = text->at, *end = text->end, *point = NULL;
    uint64_t digits = 0;
    while (at < end && is_digit(*at)) digits = digits * 10 + (*at++ - '0');
    int64_t whole = at - text->at, count = whole;
    if (whole == 0 || (whole > 1 && *text->at == '0')) return 0;
    if (at < end && *at == '.') {
        point = ++at;
        while (at < end && is_digit(*at)) digits = digits * 10 + (*at++ - '0');
        count += at - point;
        if (at == point) return 0;
    }
    text->at = at;
    if (count > MOST_DIGITS || digits > EXACT) {
        *inexact = 1;
        *value = 0;
        return 1;
    }
    *value = point == NULL ? (double)digits : (double)digits / POWER[count - whole];
    return 1;
}

/* Read two digits at *at*; *bad* remembers where they are none. */
static int64_t two(const unsigned char *at, unsigned *bad) {
    unsigned tens = at[0] - (unsigned)'0', ones = at[1] - (unsigned)'0';
    *bad |= (tens > 9) | (ones > 9);
    return tens * 10 + ones;
}

/* Count the days from 1970-01-01 to a date of the Gregorian calendar, `2024-06-03`; 0 where it is none. The year is taken to
   begin in March, so that the leap day comes last. */
static int days_since_1970(const unsigned char *at, int64_t *days) {
    static const unsigned char LENGTH[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    unsigned bad = (at[4] != '-') | (at[7] != '-');
    int64_t year = two(at, &bad) * 100 + two(at + 2, &bad), month = two(at + 5, &bad), day = two(at + 8, &bad);
    if (bad || year < 1 || month < 1 || month > 12 || day < 1) return 0;
    int leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day > LENGTH[month - 1] + (month == 2 && leap)) return 0;
    int64_t from_march = (month + 9) % 12, years = year - (month <= 2);
    *days = years * 365 + years / 4 - years / 100 + years / 400 + (from_march * 153 + 2) / 5 + day - 1 - 719468;
    return 1;
}

/* A date that was read: the rows of a day repeat it. */
typedef struct {
    char written[10];
    int64_t days;
} Day;

/* Read `"2024-06-03T08:00:00Z"`, of which all 22 bytes are there, as microseconds since 1970; 0 where it is written otherwise. */
static int instant(Text *text, Day *known, int64_t *micros) {
    const unsigned char *at = text->at;
    unsigned bad = (at[0] != '"') | (at[11] != 'T') | (at[14] != ':') | (at[17] != ':') | (at[20] != 'Z') | (at[21] != '"');
    int64_t hour = two(at + 12, &bad), minute = two(at + 15, &bad), second = two(at + 18, &bad);
    if (bad || hour > 23 || minute > 59 || second > 59) return 0;
    if (memcmp(known->written, at + 1, sizeof known->written) != 0) {
        if (!days_since_1970(at + 1, &known->days)) return 0;
        memcpy(known->written, at + 1, sizeof known->written);
    }
    *micros = (((known->days * 24 + hour) * 60 + minute) * 60 + second) * 1000000;
    text->at = at + 22;
    return 1;
}

/* Read a key with its quotes and its colon, and say which column it is; -1 where it is none of them. Five bytes are there. */
static int column(Text *text) {
    const unsigned char *at = text->at;
    int found;
    if (at[0] != '"') return -1;
    switch (at[1]) {
    case 't': found = TIME; break;
    case 'o': found = OPEN; break;
    case 'h': found = HIGH; break;
    case 'l': found = LOW; break;
    case 'c': found = CLOSE; break;
    case 'n': found = TRADES; break;
    case 'v':
        found = VOLUME;
        if (at[2] == 'w') {
            found = VWAP;
            at++;
        }
        break;
    default: return -1;
    }
    if (at[2] != '"' || at[3] != ':') return -1;
    text->at = at + 4;
    return found;
}

/* The unknown fields of a page: how many names, and where each begins and ends in the text when it is met first. */
#define MOST_UNKNOWN 8
#define LONGEST_NUMBER 64
typedef struct {
    const unsigned char *begin;
    int64_t *found; /* [1 + 2 * MOST_UNKNOWN] */
} Unknown;

static int in_names(unsigned char byte) {
    return is_digit(byte) || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') || byte == '_';
}

/* Pass over a literal such as null; 0 where another stands there. */
static int literal(Text *text, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(text->end - text->at) < length || memcmp(text->at, word, length) != 0) return 0;
    text->at += length;
    return 1;
}

/* Pass over some digits; 0 where there is none. */
static int digits(Text *text) {
    const unsigned char *begin = text->at;
    while (text->at < text->end && is_digit(*text->at)) text->at++;
    return text->at > begin;
}

/* Pass over any number that JSON has, of not too many characters: Python refuses thousands of digits. 0 where there is none. */
static int any_number(Text *text) {
    const unsigned char *first = text->at;
    if (text->at < text->end && *text->at == '-') text->at++;
    const unsigned char *begin = text->at;
    if (!digits(text) || (*begin == '0' && text->at - begin > 1)) return 0;
    if (text->at < text->end && *text->at == '.') {
        text->at++;
        if (!digits(text)) return 0;
    }
    if (text->at < text->end && (*text->at == 'e' || *text->at == 'E')) {
        text->at++;
        if (text->at < text->end && (*text->at == '+' || *text->at == '-')) text->at++;
        if (!digits(text)) return 0;
    }
    return text->at - first <= LONGEST_NUMBER;
}

/* Pass over a text of printable ASCII without escapes, with its quotes; 0 where it is another. */
static int plain_text(Text *text) {
    const unsigned char *at = text->at;
    if (at == text->end || *at++ != '"') return 0;
    while (at < text->end && *at >= ' ' && *at <= '~' && *at != '"' && *at != '\\') at++;
    if (at == text->end || *at != '"') return 0;
    text->at = at + 1;
    return 1;
}

/* Pass over a field that is none of the known ones and remember its name; 0 where it is twice in the row (*seen), its value is
   a list or an object, or there are too many. */
static int pass_over(Text *text, Unknown *unknown, unsigned *seen) {
    const unsigned char *name = text->at + 1, *at = name, *end = text->end;
    if (text->at == end || *text->at != '"') return 0;
    while (at < end && in_names(*at)) at++;
    int64_t length = at - name, which = 0;
    if (length == 0 || end - at < 2 || at[0] != '"' || at[1] != ':') return 0;
    text->at = at + 2;
    int64_t *places = unknown->found + 1;
    while (which < unknown->found[0] && (places[2 * which + 1] - places[2 * which] != length ||
                                         memcmp(unknown->begin + places[2 * which], name, (size_t)length) != 0))
        which++;
    if (which == MOST_UNKNOWN || *seen >> which & 1) return 0;
    *seen |= 1u << which;
    if (which == unknown->found[0]) {
        places[2 * which] = name - unknown->begin;
        places[2 * which + 1] = at - unknown->begin;
        unknown->found[0]++;
    }
    if (text->at == end) return 0;
    switch (*text->at) {
    case '"': return plain_text(text);
    case 'n': return literal(text, "null");
    case 't': return literal(text, "true");
    case 'f': return literal(text, "false");
    default: return any_number(text);
    }
}

/* Read one row; 0 where it is not of the known form. Column c of row r is values[(c - 1) * stride + r]. */
static int row(Text *text, Day *known, int64_t *time, double *values, int64_t stride, int *inexact, Unknown *unknown) {
    unsigned seen = 0, others = 0;
    if (text->at == text->end || *text->at++ != '{') return 0;
    for (;;) {
        if (text->end - text->at < LONGEST_FIXED_PIECE) return 0;
        int which = column(text);
        if (which < 0) {
            if (!pass_over(text, unknown, &others)) return 0;
        } else {
            if (seen >> which & 1) return 0;
            seen |= 1u << which;
            int read = which == TIME ? instant(text, known, time) : number(text, values + (which - 1) * stride, inexact);
            if (!read) return 0;
        }
        if (text->at == text->end) return 0;
        unsigned char next = *text->at++;
        if (next == '}') return seen == ALL_OF_THEM;
        if (next != ',') return 0;
    }
}

static int in_symbols(unsigned char byte) {
    return is_digit(byte) || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
           (byte != 0 && strchr("./^_=+$*-", byte) != NULL);
}

/* Read `"AAPL":[` and leave the name's place in head[0] and head[1]; 0 where something else stands there. */
static int symbol(Text *text, const unsigned char *begin, int64_t *head) {
    const unsigned char *at = text->at, *end = text->end;
    if (at == end || *at++ != '"') return 0;
    head[0] = at - begin;
    while (at < end && in_symbols(*at)) at++;
    head[1] = at - begin;
    if (end - at < 3 || memcmp(at, "\":[", 3) != 0) return 0;
    text->at = at + 3;
    return 1;
}

/* Read the lists of bars of a page.

   size, start    bytes of the text, and where in it the first list begins: behind {"bars":{
   capacity       of the arrays, in rows and in lists
   times          [capacity]       microseconds since 1970, UTC
   values         [7][capacity]    open, high, low, close, volume, trades, vwap
   heads          [capacity][3]    of each list: begin and end of its symbol in the text, and the rows up to its end
   stopped        where the lists end: the place of the } behind them
   others         [1 + 2 * MOST_UNKNOWN]  how many unknown fields there are, and where the name of each begins and ends

   Returns the number of lists, none of them empty; or LEFT_ALONE, or INEXACT. */
EXPORTED int64_t read_bars(const char *begin, int64_t size, int64_t start, int64_t capacity, int64_t *times, double *values,
                           int64_t *heads, int64_t *stopped, int64_t *others) {
    if (start < 0 || start > size) return LEFT_ALONE;
    const unsigned char *first = (const unsigned char *)begin;
    Text text = {first + start, first + size};
    Day known = {"1970-01-01", 0};
    Unknown unknown = {first, others};
    others[0] = 0;
    int64_t lists = 0, rows = 0;
    int inexact = 0;
    do {
        if (lists == capacity || !symbol(&text, first, heads + 3 * lists)) return LEFT_ALONE;
        do {
            if (rows == capacity) return LEFT_ALONE;
            if (!row(&text, &known, times + rows, values + rows, capacity, &inexact, &unknown)) return LEFT_ALONE;
            rows++;
            if (text.at == text.end) return LEFT_ALONE;
        } while (*text.at++ == ',');
        if (text.at[-1] != ']' || text.at == text.end) return LEFT_ALONE;
        heads[3 * lists++ + 2] = rows;
    } while (*text.at++ == ',');
    *stopped = text.at - 1 - first;
    if (text.at[-1] != '}') return LEFT_ALONE;
    return inexact ? INEXACT : lists;
}
