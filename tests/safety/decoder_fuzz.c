/* The decoder, fed pages that were changed at random: decoder_fuzz SEED COUNT PAGE... fuzz_inputs.py compiles it with
   sanitizers and runs it. The text and every array lie in memory of exactly their size, so that one byte too far is seen.
   On a failure the seed and the number of the page are printed. */

#include DECODER
#include <stdio.h>
#include <stdlib.h>

#define MOST 8192

static uint64_t state;
static unsigned long seed_of_all, number_of_page;

static uint64_t next(void) { /* splitmix64 */
    uint64_t z = (state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static size_t below(size_t bound) { return bound == 0 ? 0 : (size_t)(next() % bound); }

static void check(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "not so: %s (seed %lu, page %lu)\n", what, seed_of_all, number_of_page);
    abort();
}

static const char *PIECES[] = {"\"", "\\", "{", "}", "[", "]", ",", ":", "1", "0", ".", "-", "e", "null", "true", "01", ".5",
                               "9999999999999999999", "\"t\":\"2024-06-03T08:00:00Z\"", "\"vw\":", "\"x\":\"y\"", "2024-02-30",
                               "\"AAPL\":[", "}]},", "],\"B\":[{", "0.000000000000000000001", "\"t\":\"", "\xff", "Z\""};

static size_t change(unsigned char *text, size_t size) {
    size_t at = below(size + 1), length = below(2) ? 1 + below(3) : 1 + below(40);
    if (length > size - at) length = size - at;
    switch (below(6)) {
    case 0:
        if (at < size) text[at] = (unsigned char)next();
        return size;
    case 1:
        if (at < size) text[at] ^= (unsigned char)(1u << below(8));
        return size;
    case 2:
        memmove(text + at, text + at + length, size - at - length);
        return size - length;
    case 3:
        return below(8) == 0 ? at : size;
    case 4: {
        if (size + length > MOST) return size;
        memmove(text + at + length, text + at, size - at);
        return size + length;
    }
    default: {
        const char *piece = PIECES[below(sizeof PIECES / sizeof *PIECES)];
        size_t more = strlen(piece);
        if (size + more > MOST) return size;
        memmove(text + at + more, text + at, size - at);
        memcpy(text + at, piece, more);
        return size + more;
    }
    }
}

static void read_one(const unsigned char *text, size_t size) {
    int64_t capacity = (int64_t)below(6) + (below(2) ? (int64_t)size / 70 : 0), start = below(20) ? 9 : (int64_t)below(size + 3) - 1;
    size_t rows = (size_t)capacity;
    char *page = malloc(size + !size);
    int64_t *times = malloc(rows * 8 + !rows), *heads = malloc(rows * 24 + !rows), stopped = -1;
    int64_t *others = malloc((1 + 2 * MOST_UNKNOWN) * 8);
    double *values = malloc(rows * 56 + !rows);
    memcpy(page, text, size);
    int64_t lists = read_bars(page, (int64_t)size, start, capacity, times, values, heads, &stopped, others);
    check(lists >= INEXACT && lists <= capacity && lists != 0, "the number of lists");
    if (lists > 0) {
        int64_t end = start, last = 0;
        for (int64_t i = 0; i < lists; i++) {
            check(heads[3 * i] > end - 1 && heads[3 * i + 1] >= heads[3 * i] && heads[3 * i + 1] < stopped, "the place of a symbol");
            check(heads[3 * i + 2] > last && heads[3 * i + 2] <= capacity, "the rows of a list");
            end = heads[3 * i + 1], last = heads[3 * i + 2];
        }
        for (int64_t i = 0; i < last; i++)
            for (int j = 0; j < 7; j++) check(values[j * capacity + i] >= 0, "a value");
        check(stopped < (int64_t)size && page[stopped] == '}', "where the lists end");
        check(others[0] >= 0 && others[0] <= MOST_UNKNOWN, "the number of unknown fields");
    }
    free(page), free(times), free(heads), free(others), free(values);
}

int main(int count, char **words) {
    if (count < 4) return 2;
    seed_of_all = strtoul(words[1], NULL, 10);
    static unsigned char text[MOST], original[64][MOST];
    static size_t sizes[64];
    int pages = count - 3 < 64 ? count - 3 : 64;
    for (int i = 0; i < pages; i++) {
        FILE *file = fopen(words[3 + i], "rb");
        if (file == NULL) return 2;
        sizes[i] = fread(original[i], 1, MOST, file);
        fclose(file);
    }
    unsigned long most = strtoul(words[2], NULL, 10);
    for (number_of_page = 0; number_of_page < most; number_of_page++) {
        state = seed_of_all + number_of_page * UINT64_C(0x2545f4914f6cdd1d);
        size_t which = below((size_t)pages), size = sizes[which];
        memcpy(text, original[which], size);
        for (size_t changes = below(4) ? below(3) : below(12); changes > 0; changes--) size = change(text, size);
        read_one(text, size);
    }
    return 0;
}
