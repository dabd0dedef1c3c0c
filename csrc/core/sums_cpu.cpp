// Whether memory still holds the numbers it held: sums of mixed words, all of them or a sample.
//
// What is derived from a weight (packed panels) is served again only where the weight is what it was. A tensor of n
// words has `step` sums: sum p is over the words p, p + step, p + 2 step, ... A call looks at one p, the next call at
// the next, so that every word is looked at once in `step` calls. One changed word always changes its sum: `mixed` is
// one to one. Knows nothing of what the words mean.
#include <cstdint>
#include <cstring>

#include "posekernels/registry.h"

POSEKERNELS_BEGIN

namespace {

constexpr int64_t row_size = 4;  // address, bytes, step (a power of two), place of its sums

inline uint32_t mixed(uint32_t word, uint32_t index) {
    uint32_t x = (word ^ (index * 0x9E3779B9u)) * 0x85EBCA6Bu;
    x ^= x >> 15;
    x *= 0xC2B2AE35u;
    return x ^ (x >> 13);
}

struct Words {
    const char* memory;
    int64_t bytes;
    int64_t whole() const { return bytes / 4; }
    int64_t count() const { return (bytes + 3) / 4; }
    uint32_t at(int64_t i) const {  // bytes past the end count as 0
        uint32_t word = 0;
        std::memcpy(&word, memory + 4 * i, static_cast<size_t>(bytes - 4 * i < 4 ? bytes - 4 * i : 4));
        return word;
    }
};

Words words_of(const int64_t* row) {
    return {reinterpret_cast<const char*>(row[0]), row[1]};
}

void sum_all(const int64_t* row, uint32_t* sums) {
    const Words words = words_of(row);
    const int64_t step = row[2], whole = words.whole();
    for (int64_t p = 0; p < step; ++p) sums[p] = 0;
    int64_t first = 0;
    for (; first + step <= whole; first += step) {
        for (int64_t p = 0; p < step; ++p) {
            uint32_t word;
            std::memcpy(&word, words.memory + 4 * (first + p), 4);
            sums[p] += mixed(word, static_cast<uint32_t>(first + p));
        }
    }
    for (; first < words.count(); ++first)
        sums[first & (step - 1)] += mixed(words.at(first), static_cast<uint32_t>(first));
}

uint32_t sum_one(const int64_t* row, int64_t p) {
    const Words words = words_of(row);
    const int64_t step = row[2], whole = words.whole();
    uint32_t sum = 0;
    int64_t i = p;
    for (; i < whole; i += step) {
        uint32_t word;
        std::memcpy(&word, words.memory + 4 * i, 4);
        sum += mixed(word, static_cast<uint32_t>(i));
    }
    return i < words.count() ? sum + mixed(words.at(i), static_cast<uint32_t>(i)) : sum;
}

}  // namespace

void weight_sums(const int64_t* table, int64_t rows, uint32_t* sums) {
    for (int64_t r = 0; r < rows; ++r, table += row_size) sum_all(table, sums + table[3]);
}
POSEKERNELS_KERNEL(weight_sums)

// 1 where the sums are those of the memory: number `call` of each, or all with scratch for as many as one row has.
int64_t weight_sums_agree(const int64_t* table, int64_t rows, const uint32_t* sums, int64_t call, uint32_t* scratch) {
    for (int64_t r = 0; r < rows; ++r, table += row_size) {
        const uint32_t* known = sums + table[3];
        const int64_t step = table[2];
        if (scratch == nullptr) {
            const int64_t p = call & (step - 1);
            if (sum_one(table, p) != known[p]) return 0;
        } else {
            sum_all(table, scratch);
            if (std::memcmp(scratch, known, static_cast<size_t>(4 * step)) != 0) return 0;
        }
    }
    return 1;
}
POSEKERNELS_KERNEL(weight_sums_agree)

POSEKERNELS_END
