// Executes decoded PTX on the CPU: blocks one after the other, warps in turn between barriers, 32 lanes at a time.
// Every access to memory is checked (README.md says what for). Python (program.py) has read the text; what an
// instruction means stands here. Loaded with ctypes: the functions at the end.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

namespace {

constexpr int lanes = 32;
constexpr uint32_t everyone = ~0u;
constexpr uint64_t poison = 0xffb7ffb7ffb7ffb7;  // NaN in every floating-point type
// Generic addresses of shared and local memory: where no tensor lies.
constexpr uint64_t shared_window = 0x7100000000000000, local_window = 0x7200000000000000, window = 1ull << 40;

struct f16 {
    uint16_t bits;
};
struct bf16 {
    uint16_t bits;
};
struct e4m3 {  // no infinity; NaN is all ones
    uint8_t bits;
};

template <class To, class From>
To cast_bits(From v) {
    static_assert(sizeof(To) == sizeof(From));
    To r;
    std::memcpy(&r, &v, sizeof r);
    return r;
}

float up(float v) {
    return v;
}
double up(double v) {
    return v;
}
float up(bf16 v) {
    return cast_bits<float>(uint32_t(v.bits) << 16);
}
float up(f16 v) {
    const uint32_t sign = uint32_t(v.bits & 0x8000) << 16, rest = v.bits & 0x7fff;
    if (rest >= 0x7c00) return cast_bits<float>(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    if (rest >= 0x400) return cast_bits<float>(sign | ((rest << 13) + (112u << 23)));
    return cast_bits<float>(sign | cast_bits<uint32_t>(float(rest) * 0x1p-24f));
}

float up(e4m3 v) {
    const uint32_t sign = uint32_t(v.bits & 0x80) << 24, rest = v.bits & 0x7f;
    if (rest == 0x7f) return cast_bits<float>(sign | 0x7fc00000);
    if (rest >= 8) return cast_bits<float>(sign | ((rest << 20) + (120u << 23)));
    return cast_bits<float>(sign | cast_bits<uint32_t>(float(rest) * 0x1p-9f));
}

template <class T>
T down(double v) {  // one rounding, to nearest even
    return T(v);
}
template <>
bf16 down<bf16>(double wide) {
    if (std::isnan(wide)) return {0x7fff};
    const float v = float(wide);
    // A float that the double does not equal is only a tie by its own rounding: step off the tie.
    uint32_t u = cast_bits<uint32_t>(v);
    if ((u & 0xffff) == 0x8000 && double(v) != wide) u += std::fabs(wide) > std::fabs(double(v)) ? 1 : -1;
    return {uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}
template <>
f16 down<f16>(double wide) {
    const uint16_t sign = std::signbit(wide) ? 0x8000 : 0;
    const double a = std::fabs(wide);
    if (std::isnan(wide)) return {0x7fff};
    if (a >= 65520.0) return {uint16_t(sign | 0x7c00)};
    if (a < 0x1p-14) return {uint16_t(sign | uint16_t(std::nearbyint(a * 0x1p24)))};
    int exponent;
    const double fraction = std::frexp(a, &exponent);  // [0.5, 1)
    const int mantissa = int(std::nearbyint(fraction * 2048));
    return {uint16_t(sign | ((exponent + 13) * 1024 + mantissa))};
}

struct Fault : std::runtime_error {
    using std::runtime_error::runtime_error;
};

std::string hex(uint64_t v) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "0x%llx", static_cast<unsigned long long>(v));
    return buffer;
}

// What is known of one unit of memory in this launch. Times count barriers, through all blocks; 0: never.
struct Mark {
    uint32_t write_time, write_who, write_pc;
    uint32_t read_time, read_who, read_pc;
    uint32_t earlier_reader;  // read by a block before this one
    uint32_t pending;         // a cp.async on its way: the warp's number + 1
    uint32_t reading;         // how many wgmma on their way read it
    uint32_t fences;          // of its writer, when it was written
};
constexpr uint32_t atomic_bit = 1u << 31;
constexpr uint32_t many_warps = 0xffff, many_lanes = 0x8000;

struct Buffer {
    uint64_t base, size;
    uint8_t* written;  // 255 where a byte has a value; null: everywhere
    std::vector<Mark> marks;
};

struct Warp;
struct Instr {
    enum Kind { plain, branch, leave, barrier };
    void (*run)(Warp&, const Instr&, uint32_t) = nullptr;
    Kind kind = plain;
    int32_t predicate = -1;
    bool negated = false;
    int32_t o[18] = {};      // offsets into the warp's register file
    uint8_t width[18] = {};  // of those registers, bytes
    int64_t imm[2] = {};     // offsets of addresses, or numbers
    int bytes = 0, vec = 1, space = 0, mode = 0;
    bool sign = false, flag = false;
    int32_t target = -1, meets = INT32_MAX;  // of a branch
    uint32_t pc = 0;
};

enum Space { generic, global, shared, local, parameter };

struct Operand {    // as program.py gives them
    int32_t kind;   // 0 register, 1 number, 2 negated predicate
    int32_t width;  // of the register, bytes; 0: a predicate
    int32_t group;  // which operand of the text it belongs to: {a, b} are two of one
    int32_t instruction;
    int64_t value;  // offset, or bits
};

struct Count {  // of one instruction, over a launch
    int64_t warps, lanes, sectors, wavefronts;
};

struct Program {
    std::vector<Instr> code;
    std::vector<std::string> text;
    std::vector<uint8_t> image;  // the constants' part of a register file, at its start
    int64_t file_bytes = 0;
    int32_t tid = -1, laneid = -1, warpid = -1;
    std::map<std::string, int32_t> special;
    std::vector<std::vector<int32_t>> many;  // registers of an instruction that has more than fit in Instr
    int unit_shared = 4, unit_global = 4;
};

struct Copy {
    uint32_t group, pc, thread;
    uint64_t from;
    uint32_t to, bytes, given;
};

struct Product {  // of a warp of a wgmma: what its registers will be given
    uint32_t group;
    const Instr* instr;
    std::vector<float> sums;                           // [N / 2][32], as the registers hold them
    std::vector<std::pair<uint32_t, uint32_t>> marks;  // of the shared memory it reads: the first one, how many
};

struct Launch;
struct Part {  // lanes, where they stand, and where others wait for them
    uint32_t mask;
    int32_t pc, meets;
};
struct Warp {
    enum State { ready, waiting, finished };
    Launch* launch;
    uint8_t* file;
    int index;
    uint32_t born;
    uint32_t sync = 0, committed = 0;
    State state = ready;
    std::vector<Part> stack;
    std::vector<Copy> copies;
    std::vector<Product> products;
    uint32_t product_groups = 0;
    bool registers_fenced = false;        // wgmma.fence, since the last wait
    uint32_t fences = 0, fence_time = 0;  // of the asynchronous proxy: how many, when the last one
    const Instr* at_barrier = nullptr;
    uint32_t vote = 0;

    template <class T>
    T* at(int offset) {
        return reinterpret_cast<T*>(file + offset);
    }
    uint64_t address(const Instr& i, int k, int lane, int which = 0) {
        const uint64_t v = i.width[k] == 4 ? at<uint32_t>(i.o[k])[lane] : at<uint64_t>(i.o[k])[lane];
        return i.width[k] == 4 ? uint32_t(v + i.imm[which]) : v + i.imm[which];
    }
};

struct Launch {
    const Program* program;
    const std::vector<Warp>* warps = nullptr;
    std::vector<Buffer> buffers;
    const uint8_t* params = nullptr;
    int64_t param_bytes = 0;
    uint32_t grid[3] = {}, block[3] = {};
    int threads = 0;
    std::vector<uint64_t> shared_words;
    uint8_t* shared_bytes = nullptr;
    int64_t shared_size = 0;
    std::vector<Mark> shared_marks;
    std::vector<uint8_t> local_bytes;
    int64_t local_size = 0;
    uint32_t now = 0, first = 0;  // this block's times begin at `first`
    std::vector<Count> counts;
    int64_t fuel = 0, barriers = 0;
    bool count_memory = false, strict = true;
    size_t recent = 0;

    [[noreturn]] void fault(const Warp& w, const Instr& i, int lane, const std::string& what) const {
        throw Fault(what + "\n  by thread " + std::to_string(w.index * lanes + lane) + " of block (" +
                    std::to_string(block[0]) + ", " + std::to_string(block[1]) + ", " + std::to_string(block[2]) +
                    ")\n  at " + program->text[i.pc]);
    }

    Buffer& buffer_of(const Warp& w, const Instr& i, int lane, uint64_t address, int bytes) {
        auto holds = [&](const Buffer& b) { return address >= b.base && address + bytes <= b.base + b.size; };
        if (recent < buffers.size() && holds(buffers[recent])) return buffers[recent];
        auto after = std::upper_bound(buffers.begin(), buffers.end(), address,
                                      [](uint64_t a, const Buffer& b) { return a < b.base; });
        if (after != buffers.begin() && holds(*(after - 1))) {
            recent = after - 1 - buffers.begin();
            return buffers[recent];
        }
        std::string near = "no tensor is near";
        if (after != buffers.begin()) {
            const Buffer& b = *(after - 1);
            near = std::to_string(address + bytes - b.base - b.size) + " bytes past the end of a tensor of " +
                   std::to_string(b.size) + " bytes";
        } else if (after != buffers.end()) {
            near = std::to_string(after->base - address) + " bytes before the first tensor";
        }
        fault(w, i, lane,
              "out of bounds: " + std::to_string(bytes) + " bytes of global memory at " + hex(address) + ", " + near);
    }

    static uint32_t who(const Warp& w, int lane) { return uint32_t(w.index * lanes + lane) << 16 | (w.sync & 0xffff); }

    // Whether an access at `time` by `other` may happen beside what thread `me` does now.
    bool concurrent(uint32_t time, uint32_t other, uint32_t me, bool in_shared) const {
        if (!time) return false;
        if (time < first) return !in_shared;
        if (time < now) return false;
        const uint32_t thread = other >> 16, mine = me >> 16;
        if (thread == mine) return false;
        if (thread == many_warps) return true;
        const uint32_t warp = thread & many_lanes ? thread & ~many_lanes : thread / lanes;
        return warp != mine / lanes || (other & 0xffff) >= (me & 0xffff);
    }

    [[noreturn]] void race(const Warp& w, const Instr& i, int lane, const char* what, uint32_t other_pc,
                           uint32_t other_who, uint64_t where, bool in_shared) const {
        const uint32_t thread = other_who >> 16;
        const std::string by = thread == many_warps || thread & many_lanes ? std::string("several threads")
                                                                           : "thread " + std::to_string(thread);
        fault(w, i, lane,
              std::string("race in ") + (in_shared ? "shared" : "global") + " memory at " + hex(where) + ": " + what +
                  " with no barrier between, by " + by + "\n  at " + program->text[other_pc & ~atomic_bit] + "\n  and");
    }

    void mark_read(const Warp& w, const Instr& i, int lane, Mark& m, uint64_t where, bool in_shared) {
        const uint32_t me = who(w, lane);
        if (m.pending)
            fault(w, i, lane,
                  "cp.async data read before its wait_group, at " + hex(where) + "; copied at " +
                      program->text[m.write_pc & ~atomic_bit] + "\n  read");
        if (in_shared && strict && m.write_time < first)
            fault(w, i, lane, "uninitialised: shared memory at " + hex(where) + " that nobody wrote");
        if (concurrent(m.write_time, m.write_who, me, in_shared))
            race(w, i, lane, "written, then read", m.write_pc, m.write_who, where, in_shared);
        if (m.read_time == now) {
            const uint32_t thread = m.read_who >> 16, mine = me >> 16;
            if (thread == mine) {
                m.read_who = me;
            } else {
                const uint32_t warp = thread & many_lanes ? thread & ~many_lanes : thread / lanes;
                const uint32_t sync = std::max(m.read_who & 0xffff, me & 0xffff);
                m.read_who =
                    (thread != many_warps && warp == mine / lanes ? many_lanes | warp : many_warps) << 16 | sync;
            }
        } else {
            if (m.read_time && m.read_time < first) m.earlier_reader = m.read_time;
            m.read_time = now;
            m.read_who = me;
        }
        m.read_pc = i.pc;
    }

    void mark_write(const Warp& w, const Instr& i, int lane, Mark& m, uint64_t where, bool in_shared, bool same,
                    bool atomic, bool close = false) {
        const uint32_t me = who(w, lane);
        if (m.pending)
            fault(w, i, lane,
                  "written while a cp.async to it is on its way, at " + hex(where) + "; copied at " +
                      program->text[m.write_pc & ~atomic_bit] + "\n  written");
        if (m.reading) fault(w, i, lane, "written while a wgmma on its way reads it, at " + hex(where));
        const bool both = atomic && (m.write_pc & atomic_bit);
        // Lanes of a warp that store a sum each made in its own order to one place, as Triton's reductions do.
        if (close && m.write_time == now && m.write_pc == i.pc && (m.write_who >> 16) / lanes == uint32_t(w.index))
            same = true;
        if (!same && !both && concurrent(m.write_time, m.write_who, me, in_shared))
            race(w, i, lane, "written, then written otherwise", m.write_pc, m.write_who, where, in_shared);
        if (!(atomic && (m.read_pc & atomic_bit)) &&
            (concurrent(m.read_time, m.read_who, me, in_shared) || (!in_shared && m.earlier_reader)))
            race(w, i, lane, "read, then written", m.read_pc, m.read_who, where, in_shared);
        m.write_time = now;
        m.write_who = me;
        m.write_pc = i.pc | (atomic ? atomic_bit : 0);
        m.fences = w.fences;
    }

    static bool nearly(const uint8_t* a, const uint8_t* b, int bytes) {  // as float32
        for (int n = 0; n < bytes; n += 4) {
            float x, y;
            std::memcpy(&x, a + n, 4), std::memcpy(&y, b + n, 4);
            if (!(std::fabs(x - y) <= 1e-4f * (1 + std::fabs(x)))) return false;
        }
        return true;
    }

    enum Access { reads, writes, updates };

    // The bytes at an address, after every check; `fresh` is what will be written.
    uint8_t* resolve(Warp& w, const Instr& i, int lane, int space, uint64_t address, int bytes, Access access,
                     const uint8_t* fresh = nullptr, bool pending = false) {
        if (space == generic) {
            space = global;
            if (address - shared_window < window) {
                space = shared;
                address -= shared_window;
            } else if (address - local_window < window) {
                space = local;
                address -= local_window;
            }
        }
        if (address % bytes) fault(w, i, lane, "misaligned: " + std::to_string(bytes) + " bytes at " + hex(address));
        if (space == local) {
            if (address + bytes > uint64_t(local_size)) fault(w, i, lane, "out of bounds: local memory");
            return local_bytes.data() + int64_t(w.index * lanes + lane) * local_size + address;
        }
        if (space == shared) {
            if (address + bytes > uint64_t(shared_size))
                fault(w, i, lane,
                      "out of bounds: " + std::to_string(bytes) + " bytes of shared memory at " + hex(address) +
                          " of " + std::to_string(shared_size));
            uint8_t* p = shared_bytes + address;
            const int unit = program->unit_shared;
            const bool close = fresh && i.bytes == 4 && nearly(p, fresh, bytes);
            for (int b = 0; b < bytes; b += unit) {
                Mark& m = shared_marks[(address + b) / unit];
                if (access != writes) mark_read(w, i, lane, m, address + b, true);
                if (access == updates) m.read_pc |= atomic_bit;
                if (access != reads) {
                    mark_write(w, i, lane, m, address + b, true, fresh && !std::memcmp(p + b, fresh + b, unit),
                               access == updates, close);
                    if (pending) m.pending = w.index + 1;
                }
            }
            return p;
        }
        Buffer& buffer = buffer_of(w, i, lane, address, bytes);
        const int unit = program->unit_global;
        const uint64_t low = buffer.base / unit;
        if (buffer.marks.empty()) buffer.marks.resize((buffer.base + buffer.size) / unit - low + 1);
        uint8_t* p = reinterpret_cast<uint8_t*>(address);
        uint8_t* written = buffer.written ? buffer.written + (address - buffer.base) : nullptr;
        if (written && access != writes)
            for (int b = 0; b < bytes; ++b)
                if (!written[b])
                    fault(w, i, lane,
                          "uninitialised: global memory that nobody wrote, byte " +
                              std::to_string(address + b - buffer.base) + " of a tensor of " +
                              std::to_string(buffer.size));
        for (int b = 0; b < bytes; b += unit) {
            Mark& m = buffer.marks[(address + b) / unit - low];
            if (access == updates) {
                mark_write(w, i, lane, m, address + b, false, false, true);
            } else if (access == reads) {
                mark_read(w, i, lane, m, address + b, false);
            } else {
                mark_write(w, i, lane, m, address + b, false, fresh && !std::memcmp(p + b, fresh + b, unit), false);
            }
        }
        if (written && access != reads) std::memset(written, 255, bytes);
        return p;
    }

    // Sectors of 32 bytes of global memory, or turns of the banks of shared memory, that one access of a warp takes.
    void count_access(Warp& w, const Instr& i, uint32_t mask, int k, int which, int space, int bytes) {
        if (!count_memory) return;
        uint64_t seen[lanes];
        if (space == global) {
            int n = 0;
            for (int l = 0; l < lanes; ++l) {
                if (!(mask >> l & 1)) continue;
                const uint64_t sector = w.address(i, k, l, which) >> 5;
                if (n && seen[n - 1] == sector) continue;
                if (std::find(seen, seen + n, sector) == seen + n) seen[n++] = sector;
            }
            counts[i.pc].sectors += n;
        } else if (space == shared) {
            const int side = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;  // lanes that are served together
            for (int first_lane = 0; first_lane < lanes; first_lane += side) {
                uint64_t words[32][32];  // of each bank, the different ones
                int held[32] = {}, most = 0;
                for (int l = first_lane; l < first_lane + side; ++l) {
                    if (!(mask >> l & 1)) continue;
                    const uint64_t a = w.address(i, k, l, which);
                    for (uint64_t word = a / 4; word <= (a + bytes - 1) / 4; ++word) {
                        uint64_t* bank = words[word % 32];
                        int& n = held[word % 32];
                        if (std::find(bank, bank + n, word) == bank + n) bank[n++] = word;
                        most = std::max(most, n);
                    }
                }
                counts[i.pc].wavefronts += most;
            }
        }
    }

    void finish_copies(Warp& w, const Instr& i, uint32_t below) {
        size_t kept = 0;
        for (const Copy& c : w.copies) {
            if (c.group >= below) {
                w.copies[kept++] = c;
                continue;
            }
            uint8_t* to = shared_bytes + c.to;
            std::memset(to, 0, c.bytes);
            std::memcpy(to, reinterpret_cast<const uint8_t*>(c.from), c.given);
            const int unit = program->unit_shared;
            for (uint32_t b = 0; b < c.bytes; b += unit) {
                Mark& m = shared_marks[(c.to + b) / unit];
                m.pending = 0;
                m.write_time = now;
                m.write_who = who(w, c.thread % lanes);
                m.write_pc = c.pc;
                m.fences = w.fences;
            }
        }
        w.copies.resize(kept);
        (void)i;
    }
};

template <class T>
void commit(Warp& w, int offset, const T* values, uint32_t mask) {
    T* to = w.at<T>(offset);
    if (mask == everyone) {
        std::memcpy(to, values, sizeof(T) * lanes);
        return;
    }
    for (int l = 0; l < lanes; ++l)
        if (mask >> l & 1) to[l] = values[l];
}
void commit_predicate(Warp& w, int offset, uint32_t bits, uint32_t mask) {
    uint32_t& to = *w.at<uint32_t>(offset);
    to = (to & ~mask) | (bits & mask);
}

// d = F(a, b, ...), lane by lane.
template <class F, class R, class... A>
struct Map {
    template <size_t... K>
    static void go(Warp& w, const Instr& i, uint32_t mask, std::index_sequence<K...>) {
        R values[lanes];
        const auto from = std::make_tuple(w.at<A>(i.o[1 + K])...);
        for (int l = 0; l < lanes; ++l) values[l] = F()(std::get<K>(from)[l]...);
        commit(w, i.o[0], values, mask);
    }
    static void run(Warp& w, const Instr& i, uint32_t mask) { go(w, i, mask, std::index_sequence_for<A...>()); }
};

template <class T>
using Unsigned = std::conditional_t<
    sizeof(T) == 1, uint8_t,
    std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>>;
template <class T>
using Wide =
    std::conditional_t<sizeof(T) == 8, std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>,
                       std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>,
                                          std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>>>;

template <class T>
T flushed(T v) {
    if constexpr (std::is_same_v<T, float>)
        return std::fabs(v) < 0x1p-126f ? std::copysign(0.f, v) : v;
    else
        return v;
}

// Integers
struct Add {
    template <class T>
    T operator()(T a, T b) const {
        return T(Unsigned<T>(a) + Unsigned<T>(b));
    }
};
struct Sub {
    template <class T>
    T operator()(T a, T b) const {
        return T(Unsigned<T>(a) - Unsigned<T>(b));
    }
};
struct MulLo {
    template <class T>
    T operator()(T a, T b) const {
        return T(uint64_t(Unsigned<T>(a)) * uint64_t(Unsigned<T>(b)));
    }
};
struct MulHi {
    template <class T>
    T operator()(T a, T b) const {
        return T(Wide<T>(a) * Wide<T>(b) >> (8 * sizeof(T)));
    }
};
struct MulWide {
    template <class T>
    Wide<T> operator()(T a, T b) const {
        return Wide<T>(a) * Wide<T>(b);
    }
};
struct MadLo {
    template <class T>
    T operator()(T a, T b, T c) const {
        return Add()(MulLo()(a, b), c);
    }
};
struct MadHi {
    template <class T>
    T operator()(T a, T b, T c) const {
        return Add()(MulHi()(a, b), c);
    }
};
struct MadWide {
    template <class T>
    Wide<T> operator()(T a, T b, Wide<T> c) const {
        return Add()(MulWide()(a, b), c);
    }
};
struct Div {
    template <class T>
    T operator()(T a, T b) const {
        if (b == 0) return T(-1);
        if (std::is_signed_v<T> && b == T(-1)) return Sub()(T(0), a);
        return a / b;
    }
};
struct Rem {
    template <class T>
    T operator()(T a, T b) const {
        if (b == 0) return a;
        if (std::is_signed_v<T> && b == T(-1)) return 0;
        return a % b;
    }
};
struct Min {
    template <class T>
    T operator()(T a, T b) const {
        if constexpr (std::is_floating_point_v<T>) return std::fmin(a, b);
        return a < b ? a : b;
    }
};
struct Max {
    template <class T>
    T operator()(T a, T b) const {
        if constexpr (std::is_floating_point_v<T>) return std::fmax(a, b);
        return a > b ? a : b;
    }
};
struct Neg {
    template <class T>
    T operator()(T a) const {
        if constexpr (std::is_floating_point_v<T>)
            return -a;
        else
            return Sub()(T(0), a);
    }
};
struct Abs {
    template <class T>
    T operator()(T a) const {
        if constexpr (std::is_floating_point_v<T>)
            return std::fabs(a);
        else
            return a < 0 ? Sub()(T(0), a) : a;
    }
};
struct And {
    template <class T>
    T operator()(T a, T b) const {
        return a & b;
    }
};
struct Or {
    template <class T>
    T operator()(T a, T b) const {
        return a | b;
    }
};
struct Xor {
    template <class T>
    T operator()(T a, T b) const {
        return a ^ b;
    }
};
struct Not {
    template <class T>
    T operator()(T a) const {
        return ~a;
    }
};
struct Same {
    template <class T>
    T operator()(T a) const {
        return a;
    }
};
struct Shl {
    template <class T>
    T operator()(T a, uint32_t n) const {
        return n >= 8 * sizeof(T) ? T(0) : T(uint64_t(a) << n);
    }
};
struct Shr {
    template <class T>
    T operator()(T a, uint32_t n) const {
        if (n >= 8 * sizeof(T)) return a < 0 ? T(-1) : T(0);
        return a >> n;
    }
};
struct Bfe {
    template <class T>
    T operator()(T a, uint32_t at, uint32_t length) const {
        constexpr uint32_t size = 8 * sizeof(T);
        at &= 255, length &= 255;
        if (!length) return 0;
        using U = Unsigned<T>;
        const U moved = at >= size ? U(std::is_signed_v<T> && a < 0 ? -1 : 0) : U(a >> at);
        if (length >= size) return T(moved);
        const U mask = (U(1) << length) - 1;
        U r = moved & mask;
        if (std::is_signed_v<T>) {
            const uint32_t top = std::min(at + length - 1, size - 1);
            if (U(a) >> top & 1) r |= ~mask;
        }
        return T(r);
    }
};
struct Bfi {
    template <class T>
    T operator()(T a, T b, uint32_t at, uint32_t length) const {
        at &= 255, length &= 255;
        constexpr uint32_t size = 8 * sizeof(T);
        if (at >= size || !length) return b;
        const T mask = T((length >= size ? ~T(0) : (T(1) << length) - 1) << at);
        return (b & ~mask) | (T(a << at) & mask);
    }
};
struct Popc {
    template <class T>
    uint32_t operator()(T a) const {
        return __builtin_popcountll(Unsigned<T>(a));
    }
};
struct Clz {
    template <class T>
    uint32_t operator()(T a) const {
        return a ? __builtin_clzll(Unsigned<T>(a)) - (64 - 8 * sizeof(T)) : 8 * sizeof(T);
    }
};
struct Brev {
    template <class T>
    T operator()(T a) const {
        T r = 0;
        for (unsigned b = 0; b < 8 * sizeof(T); ++b) r |= (a >> b & 1) << (8 * sizeof(T) - 1 - b);
        return r;
    }
};
struct Prmt {
    uint32_t operator()(uint32_t a, uint32_t b, uint32_t which) const {
        const uint64_t both = uint64_t(b) << 32 | a;
        uint32_t r = 0;
        for (int n = 0; n < 4; ++n) {
            const uint32_t s = which >> 4 * n & 15;
            uint32_t byte = both >> 8 * (s & 7) & 255;
            if (s & 8) byte = byte & 128 ? 255 : 0;
            r |= byte << 8 * n;
        }
        return r;
    }
};
template <bool left, bool wrap>
struct Shf {
    uint32_t operator()(uint32_t low, uint32_t high, uint32_t n) const {
        n = wrap ? n & 31 : std::min(n, 32u);
        const uint64_t both = uint64_t(high) << 32 | low;
        return left ? uint32_t((both << n) >> 32) : uint32_t(both >> n);
    }
};

// Floating point; ftz flushes subnormal numbers, in and out.
template <class F, bool ftz>
struct Flush {
    template <class... T>
    auto operator()(T... a) const {
        if constexpr (ftz)
            return flushed(F()(flushed(a)...));
        else
            return F()(a...);
    }
};
struct FAdd {
    template <class T>
    T operator()(T a, T b) const {
        return a + b;
    }
};
struct FSub {
    template <class T>
    T operator()(T a, T b) const {
        return a - b;
    }
};
struct FMul {
    template <class T>
    T operator()(T a, T b) const {
        return a * b;
    }
};
struct FDiv {
    template <class T>
    T operator()(T a, T b) const {
        return a / b;
    }
};
struct Fma {
    template <class T>
    T operator()(T a, T b, T c) const {
        return std::fma(a, b, c);
    }
};
struct FmaDown {  // towards minus infinity
    float operator()(float a, float b, float c) const {
        const double exact = std::fma(double(a), double(b), double(c));
        const float r = float(exact);
        return double(r) > exact ? std::nextafter(r, -INFINITY) : r;
    }
};
struct NanMin {
    template <class T>
    T operator()(T a, T b) const {
        return std::isnan(a) || std::isnan(b) ? T(NAN) : std::fmin(a, b);
    }
};
struct NanMax {
    template <class T>
    T operator()(T a, T b) const {
        return std::isnan(a) || std::isnan(b) ? T(NAN) : std::fmax(a, b);
    }
};
struct Sqrt {
    template <class T>
    T operator()(T a) const {
        return std::sqrt(a);
    }
};
struct Rcp {
    template <class T>
    T operator()(T a) const {
        return 1 / a;
    }
};
struct Rsqrt {
    template <class T>
    T operator()(T a) const {
        return T(1 / std::sqrt(double(a)));
    }
};
struct Ex2 {
    float operator()(float a) const { return std::exp2(a); }
};
struct Lg2 {
    float operator()(float a) const { return std::log2(a); }
};
struct Sin {
    float operator()(float a) const { return std::sin(a); }
};
struct Cos {
    float operator()(float a) const { return std::cos(a); }
};
struct Tanh {
    float operator()(float a) const { return std::tanh(a); }
};
struct CopySign {
    template <class T>
    T operator()(T sign, T value) const {
        return std::copysign(value, sign);
    }
};
struct Saturate {
    template <class T>
    T operator()(T a) const {
        return a > 0 ? (a < 1 ? a : T(1)) : T(0);  // NaN becomes 0
    }
};
template <class F>
struct Saturated {
    template <class... T>
    auto operator()(T... a) const {
        return Saturate()(F()(a...));
    }
};
// The same on 16-bit numbers: exact in double, then one rounding.
template <class F, class H>
struct Narrow {
    template <class... T>
    H operator()(T... a) const {
        return down<H>(double(F()(double(up(a))...)));
    }
};
template <class F, class H>
struct Pair {  // two of them in a word
    template <class... T>
    uint32_t operator()(T... a) const {
        const Narrow<F, H> each;
        return each(H{uint16_t(a)}...).bits | uint32_t(each(H{uint16_t(a >> 16)}...).bits) << 16;
    }
};

enum Compare { eq, ne, lt, le, gt, ge, number, not_number };
template <class T>
void setp(Warp& w, const Instr& i, uint32_t mask) {
    const T *a = w.at<T>(i.o[2]), *b = w.at<T>(i.o[3]);
    uint8_t found[lanes];
    auto each = [&](auto compare) {
        for (int l = 0; l < lanes; ++l) {
            if constexpr (std::is_integral_v<T>) {
                found[l] = compare(a[l], b[l]);
            } else {
                const auto x = up(a[l]), y = up(b[l]);
                const bool nan = std::isnan(x) || std::isnan(y);
                found[l] = nan ? i.flag : compare(x, y);
            }
        }
    };
    switch (i.mode) {
        case eq:
            each([](auto x, auto y) { return x == y; });
            break;
        case ne:
            each([](auto x, auto y) { return x != y; });
            break;
        case lt:
            each([](auto x, auto y) { return x < y; });
            break;
        case le:
            each([](auto x, auto y) { return x <= y; });
            break;
        case gt:
            each([](auto x, auto y) { return x > y; });
            break;
        case ge:
            each([](auto x, auto y) { return x >= y; });
            break;
        case number:
            each([](auto, auto) { return true; });
            break;
        default:
            each([](auto, auto) { return false; });
    }
    uint32_t bits = 0;
    for (int l = 0; l < lanes; ++l) bits |= uint32_t(found[l]) << l;
    uint32_t not_bits = ~bits;
    if (i.imm[0]) {  // combined with a third predicate: 1 and, 2 or, 3 xor
        uint32_t third = *w.at<uint32_t>(i.o[4]);
        if (i.imm[1]) third = ~third;
        bits = i.imm[0] == 1 ? bits & third : i.imm[0] == 2 ? bits | third : bits ^ third;
        not_bits = i.imm[0] == 1 ? not_bits & third : i.imm[0] == 2 ? not_bits | third : not_bits ^ third;
    }
    commit_predicate(w, i.o[0], bits, mask);
    if (i.o[1] >= 0) commit_predicate(w, i.o[1], not_bits, mask);
}

template <class T>
void selp(Warp& w, const Instr& i, uint32_t mask) {
    const T *a = w.at<T>(i.o[1]), *b = w.at<T>(i.o[2]);
    const uint32_t p = *w.at<uint32_t>(i.o[3]);
    T values[lanes];
    for (int l = 0; l < lanes; ++l) values[l] = p >> l & 1 ? a[l] : b[l];
    commit(w, i.o[0], values, mask);
}

void predicate_op(Warp& w, const Instr& i, uint32_t mask) {
    const uint32_t a = *w.at<uint32_t>(i.o[1]), b = *w.at<uint32_t>(i.o[2]);
    const uint32_t bits = i.mode == 0 ? a & b : i.mode == 1 ? a | b : i.mode == 2 ? a ^ b : i.mode == 3 ? ~a : a;
    commit_predicate(w, i.o[0], bits, mask);
}

void lop3(Warp& w, const Instr& i, uint32_t mask) {
    const uint32_t *a = w.at<uint32_t>(i.o[1]), *b = w.at<uint32_t>(i.o[2]), *c = w.at<uint32_t>(i.o[3]);
    uint32_t values[lanes];
    for (int l = 0; l < lanes; ++l) {
        uint32_t r = 0;
        for (int n = 0; n < 8; ++n)
            if (i.imm[0] >> n & 1) r |= (n & 4 ? a[l] : ~a[l]) & (n & 2 ? b[l] : ~b[l]) & (n & 1 ? c[l] : ~c[l]);
        values[l] = r;
    }
    commit(w, i.o[0], values, mask);
}

// A register of any width as a number of 64 bits, and back.
uint64_t get(Warp& w, const Instr& i, int k, int lane) {
    switch (i.width[k]) {
        case 2:
            return w.at<uint16_t>(i.o[k])[lane];
        case 4:
            return w.at<uint32_t>(i.o[k])[lane];
        default:
            return w.at<uint64_t>(i.o[k])[lane];
    }
}
void put(Warp& w, const Instr& i, int k, int lane, uint64_t v) {
    switch (i.width[k]) {
        case 2:
            w.at<uint16_t>(i.o[k])[lane] = uint16_t(v);
            break;
        case 4:
            w.at<uint32_t>(i.o[k])[lane] = uint32_t(v);
            break;
        default:
            w.at<uint64_t>(i.o[k])[lane] = v;
    }
}
uint64_t extended(uint64_t v, int bytes, bool sign) {
    const int spare = 64 - 8 * bytes;
    return sign ? uint64_t(int64_t(v << spare) >> spare) : v << spare >> spare;
}

void load(Warp& w, const Instr& i, uint32_t mask) {
    Launch& launch = *w.launch;
    const int total = i.bytes * i.vec;
    launch.count_access(w, i, mask, i.vec, 0, i.space, total);
    for (int l = 0; l < lanes; ++l) {
        if (!(mask >> l & 1)) continue;
        const uint64_t address = w.address(i, i.vec, l);
        const uint8_t* p;
        if (i.space == parameter) {
            if (address + total > uint64_t(launch.param_bytes)) launch.fault(w, i, l, "out of bounds: parameters");
            p = launch.params + address;
        } else {
            p = launch.resolve(w, i, l, i.space, address, total, Launch::reads);
        }
        for (int k = 0; k < i.vec; ++k) {
            uint64_t v = 0;
            std::memcpy(&v, p + k * i.bytes, i.bytes);
            put(w, i, k, l, extended(v, i.bytes, i.sign));
        }
    }
}

void store(Warp& w, const Instr& i, uint32_t mask) {
    Launch& launch = *w.launch;
    const int total = i.bytes * i.vec;
    launch.count_access(w, i, mask, 0, 0, i.space, total);
    for (int l = 0; l < lanes; ++l) {
        if (!(mask >> l & 1)) continue;
        uint8_t fresh[32];
        for (int k = 0; k < i.vec; ++k) {
            const uint64_t v = get(w, i, 1 + k, l);
            std::memcpy(fresh + k * i.bytes, &v, i.bytes);
        }
        uint8_t* p = launch.resolve(w, i, l, i.space, w.address(i, 0, l), total, Launch::writes, fresh);
        std::memcpy(p, fresh, total);
    }
}

// atom and red: one lane after the other.
template <class T>
void atomic(Warp& w, const Instr& i, uint32_t mask) {
    Launch& launch = *w.launch;
    for (int l = 0; l < lanes; ++l) {
        if (!(mask >> l & 1)) continue;
        uint8_t* p = launch.resolve(w, i, l, i.space, w.address(i, 1, l), sizeof(T), Launch::updates);
        T old, fresh;
        std::memcpy(&old, p, sizeof(T));
        const T b = w.at<T>(i.o[2])[l];
        switch (i.mode) {
            case 0:
                fresh = old + b;
                break;
            case 1:
                fresh = std::min(old, b);
                break;
            case 2:
                fresh = std::max(old, b);
                break;
            case 3:
                fresh = b;
                break;
            default:
                fresh = old == b ? w.at<T>(i.o[3])[l] : old;  // compare and swap
        }
        std::memcpy(p, &fresh, sizeof(T));
        if (i.o[0] >= 0) w.at<T>(i.o[0])[l] = old;
    }
}

void copy_async(Warp& w, const Instr& i, uint32_t mask) {
    Launch& launch = *w.launch;
    launch.count_access(w, i, mask, 1, 1, global, i.bytes);
    for (int l = 0; l < lanes; ++l) {
        if (!(mask >> l & 1)) continue;
        const uint64_t to = w.address(i, 0, l, 0), from = w.address(i, 1, l, 1);
        const uint32_t given = i.flag ? std::min<uint32_t>(get(w, i, 2, l), i.bytes) : i.bytes;
        if (given == uint32_t(i.bytes))
            launch.resolve(w, i, l, global, from, given, Launch::reads);
        else if (given)
            for (uint32_t b = 0; b < given; ++b) launch.resolve(w, i, l, global, from + b, 1, Launch::reads);
        launch.resolve(w, i, l, shared, to, i.bytes, Launch::writes, nullptr, true);
        w.copies.push_back(
            {w.committed, i.pc, uint32_t(w.index * lanes + l), from, uint32_t(to), uint32_t(i.bytes), given});
    }
}
void copy_commit(Warp& w, const Instr& i, uint32_t mask) {
    if (mask != w.born) w.launch->fault(w, i, 0, "cp.async group committed by a part of a warp: not modelled");
    ++w.committed;
}
void copy_wait(Warp& w, const Instr& i, uint32_t mask) {
    if (mask != w.born) w.launch->fault(w, i, 0, "cp.async group waited for by a part of a warp: not modelled");
    if (i.flag)
        w.launch->finish_copies(w, i, ~0u);
    else if (w.committed > i.imm[0])
        w.launch->finish_copies(w, i, w.committed - uint32_t(i.imm[0]));
}

void whole_warp(Warp& w, const Instr& i, uint32_t mask) {
    if (mask != everyone)
        w.launch->fault(w, i, __builtin_ctz(~mask), "an instruction of the whole warp, reached by lanes " + hex(mask));
}

void ldmatrix(Warp& w, const Instr& i, uint32_t mask) {
    whole_warp(w, i, mask);
    Launch& launch = *w.launch;
    const int matrices = i.vec;
    if (launch.count_memory)
        for (int m = 0; m < matrices; ++m) launch.count_access(w, i, 255u << 8 * m, matrices, 0, shared, 16);
    for (int m = 0; m < matrices; ++m) {
        uint16_t values[8][8];
        for (int r = 0; r < 8; ++r) {
            const int lane = 8 * m + r;
            std::memcpy(values[r], launch.resolve(w, i, lane, shared, w.address(i, matrices, lane), 16, Launch::reads),
                        16);
        }
        uint32_t* to = w.at<uint32_t>(i.o[m]);
        for (int l = 0; l < lanes; ++l) {
            const int r = l / 4, c = l % 4 * 2;
            to[l] = i.flag ? values[c][r] | uint32_t(values[c + 1][r]) << 16
                           : values[r][c] | uint32_t(values[r][c + 1]) << 16;
        }
    }
}

void stmatrix(Warp& w, const Instr& i, uint32_t mask) {
    whole_warp(w, i, mask);
    Launch& launch = *w.launch;
    const int matrices = i.vec;
    if (launch.count_memory)
        for (int m = 0; m < matrices; ++m) launch.count_access(w, i, 255u << 8 * m, 0, 0, shared, 16);
    for (int m = 0; m < matrices; ++m) {
        uint16_t values[8][8];
        const uint32_t* from = w.at<uint32_t>(i.o[1 + m]);
        for (int l = 0; l < lanes; ++l) {
            const int r = l / 4, c = l % 4 * 2;
            (i.flag ? values[c][r] : values[r][c]) = uint16_t(from[l]);
            (i.flag ? values[c + 1][r] : values[r][c + 1]) = uint16_t(from[l] >> 16);
        }
        for (int r = 0; r < 8; ++r) {
            const int lane = 8 * m + r;
            const auto* fresh = reinterpret_cast<const uint8_t*>(values[r]);
            std::memcpy(launch.resolve(w, i, lane, shared, w.address(i, 0, lane), 16, Launch::writes, fresh), fresh,
                        16);
        }
    }
}

// A matrix in shared memory as wgmma's descriptors tell it: rows of M or N numbers, 32 bytes of them along K.
struct Described {
    uint32_t start, leading, stride, width, turn;  // bytes; the width of a swizzled row, and the bits that it turns

    Described(Warp& w, const Instr& i, uint64_t d) {
        start = uint32_t(d & 0x3fff) << 4;
        leading = uint32_t(d >> 16 & 0x3fff) << 4;
        stride = uint32_t(d >> 32 & 0x3fff) << 4;
        if (d >> 49 & 7) w.launch->fault(w, i, 0, "a matrix descriptor with a base offset: not modelled");
        const int mode = d >> 62;  // 0: none, 1: 128 bytes, 2: 64, 3: 32
        width = mode ? 256 >> mode : 16;
        turn = mode ? width / 16 - 1 : 0;
    }
    // Of 16 bytes: along K row `row` and half `half`; or, turned round, row `half` of K and numbers 8 row to 8 row + 7.
    uint32_t along_k(int row, int half) const {
        return turned(width == 16 ? start + row / 8 * stride + row % 8 * 16 + half * leading
                                  : start + row / 8 * stride + row % 8 * width + half * 16);
    }
    uint32_t across_k(int k, int eight) const {
        if (width == 16) return start + eight * stride + k % 8 * 16 + k / 8 * leading;
        const int in_row = width / 16;
        return turned(start + eight / in_row * leading + k / 8 * stride + k % 8 * width + eight % in_row * 16);
    }
    uint32_t turned(uint32_t address) const { return address ^ (address >> 7 & turn) << 4; }
};

// 16 bytes that a wgmma reads until it is waited for.
const uint8_t* read_by_product(Warp& w, const Instr& i, uint32_t address, Product& product) {
    Launch& launch = *w.launch;
    const uint8_t* p = launch.resolve(w, i, 0, shared, address, 16, Launch::reads);
    const uint32_t unit = launch.program->unit_shared, first = address / unit, count = 16 / unit;
    for (uint32_t n = first; n < first + count; ++n) {
        Mark& m = launch.shared_marks[n];
        const uint32_t writer = (m.write_who >> 16) / lanes;
        if (writer < launch.warps->size() && (*launch.warps)[writer].fences <= m.fences && w.fence_time <= m.write_time)
            launch.fault(w, i, 0,
                         "no fence.proxy.async between a write and the wgmma that reads it, at " + hex(address) +
                             "\n  written at " + launch.program->text[m.write_pc & ~atomic_bit] + "\n  read");
        ++m.reading;
    }
    product.marks.push_back({first, count});
    return p;
}

// wgmma.mma_async: a warp's 16 of the 64 rows. It is computed at once and kept; until the wait the registers are NaN.
template <class H>
void wgmma(Warp& w, const Instr& i, uint32_t mask) {
    whole_warp(w, i, mask);
    Launch& launch = *w.launch;
    if (launch.threads % 128) launch.fault(w, i, 0, "wgmma in a block that is not made of groups of four warps");
    if (!w.registers_fenced) launch.fault(w, i, 0, "wgmma without a wgmma.fence before it");
    constexpr int size = sizeof(H), per = 4 / size, chunk = 16 / size, K = 2 * chunk;
    const int N = i.vec, first_row = w.index % 4 * 16;
    const std::vector<int32_t>& to = launch.program->many[i.imm[1]];
    auto found = std::find_if(w.products.begin(), w.products.end(), [&](const Product& p) {
        return launch.program->many[p.instr->imm[1]][0] == to[0] && p.instr->vec == N;
    });
    Product product{w.product_groups, &i, {}, {}};
    if (found != w.products.end()) {  // it goes on with these sums
        product.sums = std::move(found->sums), product.marks = std::move(found->marks);
        w.products.erase(found);
    } else {
        product.sums.resize(N / 2 * lanes);
        for (int e = 0; e < N / 2; ++e) {
            std::memcpy(&product.sums[e * lanes], w.at<float>(to[e]), 4 * lanes);
            std::fill_n(w.at<uint32_t>(to[e]), lanes, uint32_t(poison));
        }
    }
    if (!(*w.at<uint32_t>(i.o[5]) & 1)) std::fill(product.sums.begin(), product.sums.end(), 0.f);
    auto number = [](const uint8_t* p) {
        if constexpr (size < 4) {
            H v;
            std::memcpy(&v, p, size);
            return up(v);
        } else {
            uint32_t v;
            std::memcpy(&v, p, 4);
            return cast_bits<float>(v & 0xffffe000);  // the unit does not see the low bits
        }
    };
    float A[16][K];
    std::vector<float> B(K * N);
    if (i.flag) {  // A is described too
        const Described a(w, i, w.at<uint64_t>(i.o[0])[0]);
        if (i.imm[0] & 1) {
            for (int k = 0; k < K; ++k)
                for (int eight = 0; eight < 2; ++eight) {
                    const uint8_t* p = read_by_product(w, i, a.across_k(k, first_row / 8 + eight), product);
                    for (int n = 0; n < 8; ++n) A[8 * eight + n][k] = number(p + n * size);
                }
        } else {
            for (int r = 0; r < 16; ++r)
                for (int h = 0; h < 2; ++h) {
                    const uint8_t* p = read_by_product(w, i, a.along_k(first_row + r, h), product);
                    for (int n = 0; n < chunk; ++n) A[r][h * chunk + n] = number(p + n * size);
                }
        }
    } else {
        for (int l = 0; l < lanes; ++l)
            for (int n = 0; n < 4; ++n) {
                const auto* p = reinterpret_cast<const uint8_t*>(w.at<uint32_t>(i.o[n]) + l);
                const int row = l / 4 + 8 * (n % 2), column = l % 4 * per + 4 * per * (n / 2);
                for (int x = 0; x < per; ++x) A[row][column + x] = number(p + x * size);
            }
    }
    const Described b(w, i, w.at<uint64_t>(i.o[4])[0]);
    if (i.imm[0] & 2) {
        for (int k = 0; k < K; ++k)
            for (int eight = 0; eight < N / 8; ++eight) {
                const uint8_t* p = read_by_product(w, i, b.across_k(k, eight), product);
                for (int n = 0; n < 8; ++n) B[k * N + 8 * eight + n] = number(p + n * size);
            }
    } else {
        for (int c = 0; c < N; ++c)
            for (int h = 0; h < 2; ++h) {
                const uint8_t* p = read_by_product(w, i, b.along_k(c, h), product);
                for (int n = 0; n < chunk; ++n) B[(h * chunk + n) * N + c] = number(p + n * size);
            }
    }
    std::vector<float> sums(N);
    for (int r = 0; r < 16; ++r) {
        std::fill(sums.begin(), sums.end(), 0.f);
        for (int k = 0; k < K; ++k)
            for (int c = 0; c < N; ++c) sums[c] = std::fma(A[r][k], B[k * N + c], sums[c]);
        for (int c = 0; c < N; ++c)
            product.sums[(c / 8 * 4 + r / 8 * 2 + c % 2) * lanes + r % 8 * 4 + c % 8 / 2] += sums[c];
    }
    w.products.push_back(std::move(product));
}

void wgmma_fence(Warp& w, const Instr& i, uint32_t mask) {
    whole_warp(w, i, mask);
    w.registers_fenced = true;
}
void wgmma_commit(Warp& w, const Instr& i, uint32_t mask) {
    whole_warp(w, i, mask);
    ++w.product_groups;
}
void wgmma_wait(Warp& w, const Instr& i, uint32_t mask) {
    whole_warp(w, i, mask);
    size_t kept = 0;
    for (Product& p : w.products) {
        if (p.group + i.imm[0] >= w.product_groups) {
            if (&w.products[kept] != &p) w.products[kept] = std::move(p);
            ++kept;
            continue;
        }
        const std::vector<int32_t>& to = w.launch->program->many[p.instr->imm[1]];
        for (int e = 0; e < p.instr->vec / 2; ++e) std::memcpy(w.at<float>(to[e]), &p.sums[e * lanes], 4 * lanes);
        for (const auto& [first, count] : p.marks)
            for (uint32_t n = first; n < first + count; ++n) --w.launch->shared_marks[n].reading;
    }
    w.products.resize(kept);
    w.registers_fenced = false;
}
void proxy_fence(Warp& w, const Instr& i, uint32_t mask) {
    if (mask != w.born) w.launch->fault(w, i, 0, "fence.proxy.async by a part of a warp: not modelled");
    ++w.fences;
    w.fence_time = w.launch->now;
}

// D = A B + C on a warp: A 16 x K by rows, B K x 8 by columns. Fragments as the PTX manual lays them out.
template <int K, class H>
void mma(Warp& w, const Instr& i, uint32_t mask) {
    whole_warp(w, i, mask);
    constexpr bool half = !std::is_same_v<H, float>;
    constexpr int per = half ? 2 : 1;  // numbers in a word
    constexpr int a_words = 16 * K / per / lanes, b_words = K * 8 / per / lanes;
    float A[16][K], B[K][8], D[16][8];
    for (int l = 0; l < lanes; ++l) {
        const int g = l / 4, t = l % 4;
        for (int n = 0; n < a_words; ++n) {
            const uint32_t word = w.at<uint32_t>(i.o[4 + n])[l];
            const int row = g + 8 * (n % 2), column = t * per + 4 * per * (n / 2);
            if constexpr (half) {
                A[row][column] = up(H{uint16_t(word)});
                A[row][column + 1] = up(H{uint16_t(word >> 16)});
            } else {
                A[row][column] = cast_bits<float>(word & 0xffffe000);  // the unit does not see the low bits
            }
        }
        for (int n = 0; n < b_words; ++n) {
            const uint32_t word = w.at<uint32_t>(i.o[4 + a_words + n])[l];
            const int row = t * per + 4 * per * n;
            if constexpr (half) {
                B[row][g] = up(H{uint16_t(word)});
                B[row + 1][g] = up(H{uint16_t(word >> 16)});
            } else {
                B[row][g] = cast_bits<float>(word & 0xffffe000);
            }
        }
        for (int e = 0; e < 4; ++e) D[g + 8 * (e / 2)][t * 2 + e % 2] = w.at<float>(i.o[4 + a_words + b_words + e])[l];
    }
    for (int r = 0; r < 16; ++r) {
        float sums[8] = {};
        for (int k = 0; k < K; ++k)
            for (int c = 0; c < 8; ++c) sums[c] = std::fma(A[r][k], B[k][c], sums[c]);
        for (int c = 0; c < 8; ++c) D[r][c] += sums[c];
    }
    for (int l = 0; l < lanes; ++l)
        for (int e = 0; e < 4; ++e) w.at<float>(i.o[e])[l] = D[l / 4 + 8 * (e / 2)][l % 4 * 2 + e % 2];
}

void check_members(Warp& w, const Instr& i, uint32_t mask, uint32_t members) {
    if ((members & w.born & mask) != (members & w.born))
        w.launch->fault(w, i, __builtin_ctz(mask),
                        "lanes " + hex(members) + " are named but only " + hex(mask) + " are here");
}

void shuffle(Warp& w, const Instr& i, uint32_t mask) {
    check_members(w, i, mask, w.at<uint32_t>(i.o[5])[__builtin_ctz(mask)]);
    const uint32_t *a = w.at<uint32_t>(i.o[2]), *b = w.at<uint32_t>(i.o[3]), *c = w.at<uint32_t>(i.o[4]);
    uint32_t values[lanes], inside = 0;
    for (int l = 0; l < lanes; ++l) {
        const int by = b[l] & 31, clamp = c[l] & 31, segment = c[l] >> 8 & 31;
        const int most = (l & segment) | (clamp & ~segment), least = l & segment;
        int from = i.mode == 0 ? l ^ by : i.mode == 1 ? (least | (by & ~segment)) : i.mode == 2 ? l - by : l + by;
        const bool ok = i.mode == 2 ? from >= most : from <= most;
        if (!ok) from = l;
        if (mask >> l & 1 && !(mask >> (from & 31) & 1))
            w.launch->fault(w, i, l, "shuffles from lane " + std::to_string(from) + ", which is not here");
        values[l] = a[from & 31];
        inside |= uint32_t(ok) << l;
    }
    commit(w, i.o[0], values, mask);
    if (i.o[1] >= 0) commit_predicate(w, i.o[1], inside, mask);
}

template <class T>
void redux(Warp& w, const Instr& i, uint32_t mask) {
    check_members(w, i, mask, w.at<uint32_t>(i.o[2])[__builtin_ctz(mask)]);
    const T* a = w.at<T>(i.o[1]);
    bool begun = false;
    T r = 0;
    for (int l = 0; l < lanes; ++l) {
        if (!(mask >> l & 1)) continue;
        if (!begun)
            r = a[l];
        else if (i.mode == 0)
            r = Add()(r, a[l]);
        else if (i.mode == 1)
            r = std::min(r, a[l]);
        else if (i.mode == 2)
            r = std::max(r, a[l]);
        else if (i.mode == 3)
            r &= a[l];
        else if (i.mode == 4)
            r |= a[l];
        else
            r ^= a[l];
        begun = true;
    }
    T values[lanes];
    std::fill(values, values + lanes, r);
    commit(w, i.o[0], values, mask);
}

void vote(Warp& w, const Instr& i, uint32_t mask) {
    check_members(w, i, mask, w.at<uint32_t>(i.o[2])[__builtin_ctz(mask)]);
    uint32_t bits = *w.at<uint32_t>(i.o[1]);
    if (i.flag) bits = ~bits;
    bits &= mask;
    if (i.mode == 0) {  // ballot
        uint32_t values[lanes];
        std::fill(values, values + lanes, bits);
        commit(w, i.o[0], values, mask);
    } else {
        commit_predicate(w, i.o[0], (i.mode == 1 ? bits != 0 : bits == mask) ? everyone : 0, mask);
    }
}

void warp_sync(Warp& w, const Instr& i, uint32_t mask) {
    check_members(w, i, mask, w.at<uint32_t>(i.o[0])[__builtin_ctz(mask)]);
    if (mask == w.born) ++w.sync;
}
void nothing(Warp&, const Instr&, uint32_t) {}

enum Rounding { nearest, to_int_nearest, to_int_zero, to_int_down, to_int_up };

template <class T>
double as_integer(T v, int rounding) {
    switch (rounding) {
        case to_int_nearest:
            return std::nearbyint(double(v));
        case to_int_zero:
            return std::trunc(double(v));
        case to_int_down:
            return std::floor(double(v));
        case to_int_up:
            return std::ceil(double(v));
        default:
            return double(v);
    }
}

template <class D, class S>
D converted(S v, int rounding, bool saturate) {
    constexpr bool from_float = !std::is_integral_v<S>, to_float = !std::is_integral_v<D>;
    if constexpr (from_float && to_float) {
        auto x = up(v);
        if (rounding != nearest) x = decltype(x)(as_integer(x, rounding));
        if (saturate) x = Saturate()(x);
        return down<D>(double(x));
    } else if constexpr (from_float) {
        const auto x = up(v);
        if (std::isnan(x)) return sizeof(D) == 8 ? D(1ull << 63) : D(0);
        const double r = as_integer(x, rounding);
        if (r <= double(std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
        if (r >= double(std::numeric_limits<D>::max())) return std::numeric_limits<D>::max();
        return D(r);
    } else if constexpr (to_float) {
        if constexpr (std::is_same_v<D, float>)
            return float(v);
        else
            return down<D>(double(v));
    } else {
        if (saturate) {
            const __int128 x = v, low = std::numeric_limits<D>::min(), high = std::numeric_limits<D>::max();
            return D(std::clamp(x, low, high));
        }
        return D(v);
    }
}
template <class D, class S>
void cvt(Warp& w, const Instr& i, uint32_t mask) {
    for (int l = 0; l < lanes; ++l) {
        if (!(mask >> l & 1)) continue;
        S from;
        const uint64_t bits = get(w, i, 1, l);
        std::memcpy(&from, &bits, sizeof from);
        const D v = converted<D, S>(from, i.mode, i.flag);
        uint64_t to = 0;
        std::memcpy(&to, &v, sizeof v);
        put(w, i, 0, l, extended(to, sizeof(D), std::is_integral_v<D> && std::is_signed_v<D>));
    }
}
template <class H>
void cvt_pair(Warp& w, const Instr& i, uint32_t mask) {
    const float *high = w.at<float>(i.o[1]), *low = w.at<float>(i.o[2]);
    uint32_t values[lanes];
    for (int l = 0; l < lanes; ++l)
        values[l] = down<H>(double(low[l])).bits | uint32_t(down<H>(double(high[l])).bits) << 16;
    commit(w, i.o[0], values, mask);
}
struct ToTf32 {  // to nearest, ties away from zero
    uint32_t operator()(uint32_t a) const { return (a & 0x7f800000) == 0x7f800000 ? a : (a + 0x1000) & 0xffffe000; }
};
struct Shift {  // cvta: between an address in a window and a generic one
    uint64_t operator()(uint64_t a, uint64_t b) const { return a + b; }
};

// Registers glued together or taken apart: mov.b64 {a, b}, c and the other way round.
void unpack(Warp& w, const Instr& i, uint32_t mask) {
    for (int l = 0; l < lanes; ++l) {
        if (!(mask >> l & 1)) continue;
        const uint64_t v = get(w, i, i.vec, l);
        for (int k = 0, at = 0; k < i.vec; at += 8 * i.width[k++]) put(w, i, k, l, v >> at);
    }
}
void pack(Warp& w, const Instr& i, uint32_t mask) {
    for (int l = 0; l < lanes; ++l) {
        if (!(mask >> l & 1)) continue;
        uint64_t v = 0;
        for (int k = 1, at = 0; k <= i.vec; at += 8 * i.width[k++]) v |= get(w, i, k, l) << at;
        put(w, i, 0, l, v);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// From text to Instr

using Words = std::vector<std::string>;
using Run = void (*)(Warp&, const Instr&, uint32_t);

struct Decoder {
    Program& program;
    std::map<std::pair<uint64_t, int>, int32_t> constants;
    int32_t constants_end;  // where the next one goes
    int32_t constants_limit;

    std::vector<Operand> given;
    Words words;
    Instr i;

    [[noreturn]] void unknown(const std::string& why = "") {
        std::string name;
        for (auto& w : words) name += (name.empty() ? "" : ".") + w;
        throw Fault("not modelled: " + name + (why.empty() ? "" : " (" + why + ")"));
    }
    bool has(const char* word) const { return std::find(words.begin(), words.end(), word) != words.end(); }

    int32_t constant(uint64_t bits, int width) {  // width 0: a predicate
        auto [found, fresh] = constants.try_emplace({bits, width}, constants_end);
        if (fresh) {
            constants_end += 32 * std::max(width, 2);
            if (constants_end > constants_limit) throw Fault("too many constants");
            for (int l = 0; l < lanes && width; ++l)
                std::memcpy(program.image.data() + found->second + l * width, &bits, width);
            const uint32_t all = bits & 1 ? everyone : 0;
            if (!width) std::memcpy(program.image.data() + found->second, &all, 4);
        }
        return found->second;
    }
    // Operand n of the text becomes register k of the instruction; it must be `width` bytes wide (-1: as it is).
    void take(int k, size_t n, int width) {
        if (n >= given.size()) unknown("operand missing");
        const Operand& o = given[n];
        if (o.kind == 1) {
            if (width < 0) width = 8;
            i.o[k] = constant(o.value, width);
            i.width[k] = width;
            return;
        }
        if (width >= 0 && o.width != width) unknown("register of " + std::to_string(o.width) + " bytes");
        if (o.kind == 2) unknown("negated predicate");
        i.o[k] = o.value;
        i.width[k] = o.width;
    }
    bool take_predicate(int k, size_t n) {
        if (n >= given.size()) unknown("operand missing");
        i.o[k] = given[n].kind == 1 ? constant(given[n].value != 0, 0) : given[n].value;
        return given[n].kind == 2;
    }
    int group_size(int group) const {
        return std::count_if(given.begin(), given.end(), [&](const Operand& o) { return o.group == group; });
    }

    static int size_of(const std::string& type) {
        if (type == "pred") return 0;
        if (type == "f16x2" || type == "bf16x2" || type == "tf32") return 4;
        if (type == "bf16") return 2;
        return std::stoi(type.substr(1)) / 8;
    }

    template <class F, class R, class... A>
    Run map() {
        take(0, 0, sizeof(R));
        int k = 1;
        ((take(k, k, sizeof(A)), ++k), ...);
        return Map<F, R, A...>::run;
    }

    // f(T{}) with the C++ type of a PTX type.
    template <class F>
    Run integer(const std::string& t, F f) {
        if (t == "s16") return f(int16_t{});
        if (t == "s32") return f(int32_t{});
        if (t == "s64") return f(int64_t{});
        if (t == "u16" || t == "b16") return f(uint16_t{});
        if (t == "u32" || t == "b32") return f(uint32_t{});
        if (t == "u64" || t == "b64") return f(uint64_t{});
        unknown();
    }
    template <class F>
    Run real(const std::string& t, F f) {
        if (t == "f32") return f(float{});
        if (t == "f64") return f(double{});
        unknown();
    }
    template <class F>
    Run any(const std::string& t, F f) {
        if (t == "f32" || t == "f64") return real(t, f);
        if (t == "f16") return f(f16{});
        if (t == "bf16") return f(bf16{});
        if (t == "u8" || t == "b8") return f(uint8_t{});
        if (t == "s8") return f(int8_t{});
        return integer(t, f);
    }

    template <class F, class... More>  // F on floats of any width, as many as F takes: T and More...
    Run floating(const std::string& t) {
        auto on = [&](auto number) -> Run {
            using T = decltype(number);
            if (has("sat")) return map<Saturated<F>, T, T, std::conditional_t<true, T, More>...>();
            if (has("ftz")) return map<Flush<F, true>, T, T, std::conditional_t<true, T, More>...>();
            return map<F, T, T, std::conditional_t<true, T, More>...>();
        };
        if (t == "f32") return on(float{});
        if constexpr (std::is_invocable_v<F, double, More...>) {
            if (t == "f64") return on(double{});
            if (t == "f16") return map<Narrow<F, f16>, f16, f16, std::conditional_t<true, f16, More>...>();
            if (t == "bf16") return map<Narrow<F, bf16>, bf16, bf16, std::conditional_t<true, bf16, More>...>();
            if (t == "f16x2")
                return map<Pair<F, f16>, uint32_t, uint32_t, std::conditional_t<true, uint32_t, More>...>();
            if (t == "bf16x2")
                return map<Pair<F, bf16>, uint32_t, uint32_t, std::conditional_t<true, uint32_t, More>...>();
        }
        unknown();
    }

    static bool is_float(const std::string& t) { return t[0] == 'f' || t.rfind("bf", 0) == 0; }

    int pick(std::initializer_list<const char*> names) {
        int n = 0;
        for (const char* name : names) {
            if (has(name)) return n;
            ++n;
        }
        unknown();
    }

    int space() {
        if (has("global") || has("const")) return global;
        if (has("shared") || has("shared::cta")) return shared;
        if (has("local")) return local;
        if (has("param")) return parameter;
        return generic;
    }

    Run memory(const std::string& type, bool loading) {
        i.space = space();
        i.bytes = size_of(type);
        i.sign = type[0] == 's';
        i.vec = has("v2") ? 2 : has("v4") ? 4 : has("v8") ? 8 : 1;
        const int address = loading ? i.vec : 0;
        take(address, loading ? i.vec : 0, -1);
        if (given[loading ? i.vec : 0].kind == 1) i.width[address] = 8;
        for (int k = 0; k < i.vec; ++k) {
            const int n = loading ? k : 1 + k;
            if (given[n].kind == 1)
                take(n, n, i.bytes == 1 ? 2 : i.bytes);
            else
                take(n, n, -1);
        }
        return loading ? load : store;
    }

    Run decode_cvt() {
        Words types;
        for (auto& word : words)
            if (word == "bf16" || word == "tf32" || word == "f16x2" || word == "bf16x2" ||
                (word.size() >= 2 && std::string("usf").find(word[0]) != std::string::npos && isdigit(word[1])))
                types.push_back(word);
        if (types.size() != 2) unknown();
        const std::string &to = types[0], &from = types[1];
        if (to == "f16x2" || to == "bf16x2") {
            if (from != "f32" || has("relu") || has("rz")) unknown();
            take(0, 0, 4), take(1, 1, 4), take(2, 2, 4);
            return to == "f16x2" ? Run(cvt_pair<f16>) : Run(cvt_pair<bf16>);
        }
        if (to == "tf32") {
            if (!has("rna")) unknown();
            return map<ToTf32, uint32_t, uint32_t>();
        }
        if (has("rz") || has("rm") || has("rp") || has("relu")) unknown();
        i.mode = has("rni")   ? to_int_nearest
                 : has("rzi") ? to_int_zero
                 : has("rmi") ? to_int_down
                 : has("rpi") ? to_int_up
                              : nearest;
        i.flag = has("sat");
        take(0, 0, -1), take(1, 1, -1);
        return any(
            to, [&](auto d) -> Run { return any(from, [&](auto s) -> Run { return cvt<decltype(d), decltype(s)>; }); });
    }

    Run decode_mma() {
        const std::string shape = words[3], type = words[words.size() - 2];
        if (words[1] != "sync" || words.back() != "f32" || !has("row") || !has("col")) unknown();
        const size_t total = given.size();
        for (size_t n = 0; n < total; ++n) take(n, n, 4);
        auto sized = [&](size_t wanted, Run run) {
            if (total != wanted) unknown("operands");
            return run;
        };
        if (shape == "m16n8k16" && type == "f16") return sized(14, mma<16, f16>);
        if (shape == "m16n8k16" && type == "bf16") return sized(14, mma<16, bf16>);
        if (shape == "m16n8k8" && type == "f16") return sized(11, mma<8, f16>);
        if (shape == "m16n8k8" && type == "bf16") return sized(11, mma<8, bf16>);
        if (shape == "m16n8k8" && type == "tf32") return sized(14, mma<8, float>);
        if (shape == "m16n8k4" && type == "tf32") return sized(11, mma<4, float>);
        unknown();
    }

    Run decode_wgmma() {
        const std::string& kind = words[1];
        if (kind == "fence") return wgmma_fence;
        if (kind == "commit_group") return wgmma_commit;
        if (kind == "wait_group") {
            i.imm[0] = given[0].value;
            return wgmma_wait;
        }
        if (kind != "mma_async" || words.size() != 8 || words[5] != "f32" || words[6] != words[7]) unknown();
        const std::string &shape = words[4], &type = words[6];  // m64nNkK
        const size_t registers = group_size(0), of_a = group_size(1);
        i.vec = std::stoi(shape.substr(4));
        if (shape.rfind("m64n", 0) || int(registers) != i.vec / 2 || (of_a != 1 && of_a != 4)) unknown("operands");
        std::vector<int32_t> to;
        for (size_t n = 0; n < registers; ++n) to.push_back(given[n].value);
        i.imm[1] = program.many.size();
        program.many.push_back(to);
        i.flag = of_a == 1;
        for (size_t n = 0; n < of_a; ++n) take(n, registers + n, i.flag ? 8 : 4);
        size_t next = registers + of_a;
        take(4, next, 8);
        if (take_predicate(5, next + 1)) unknown();
        next += 2;
        if (given.size() < next + 2 || given[next].value != 1 || given[next + 1].value != 1) unknown("scales");
        next += 2;
        i.imm[0] = 0;  // which of A and B lies across K
        if (i.flag && next < given.size() && given[next++].value) i.imm[0] |= 1;
        if (next < given.size() && given[next].value) i.imm[0] |= 2;
        if (type == "f16" && shape.find("k16") != std::string::npos) return wgmma<f16>;
        if (type == "bf16" && shape.find("k16") != std::string::npos) return wgmma<bf16>;
        if (type == "tf32" && !i.imm[0] && shape.find("k8") != std::string::npos) return wgmma<float>;
        if (type == "e4m3" && !i.imm[0] && shape.find("k32") != std::string::npos) return wgmma<e4m3>;
        unknown();
    }

    Run decode() {
        const std::string &name = words[0], &type = words.back();
        const size_t count = given.size();
        if (name == "bra") {
            i.kind = Instr::branch;
            return nullptr;
        }
        if (name == "ret" || name == "exit") {
            i.kind = Instr::leave;
            return nullptr;
        }
        if (name == "ld" || name == "ldu") return memory(type, true);
        if (name == "st") return memory(type, false);
        if (name == "mov") {
            if (type == "pred") {
                if (take_predicate(1, 1)) unknown();
                take_predicate(0, 0), take_predicate(2, 1);
                i.mode = 4;
                return predicate_op;
            }
            if (group_size(0) > 1 || group_size(1) > 1) {
                for (size_t n = 0; n < count; ++n) take(n, n, given[n].kind == 1 ? size_of(type) / int(count - 1) : -1);
                i.vec = count - 1;
                return group_size(0) > 1 ? unpack : pack;
            }
            if (type == "f32") return map<Same, uint32_t, uint32_t>();
            if (type == "f64") return map<Same, uint64_t, uint64_t>();
            if (type == "f16" || type == "bf16") return map<Same, uint16_t, uint16_t>();
            return integer(type, [&](auto t) { return map<Same, decltype(t), decltype(t)>(); });
        }
        if (name == "cvta") {
            const uint64_t at = has("shared") ? shared_window : has("local") ? local_window : 0;
            given.push_back({1, 8, 2, 0, int64_t(has("to") ? -at : at)});
            if (given[1].kind == 1) given[1].width = 8;
            return map<Shift, uint64_t, uint64_t, uint64_t>();
        }
        if (name == "cvt") return decode_cvt();
        if (name == "mma") return decode_mma();
        if (name == "ldmatrix") {
            if (!has("m8n8") || type != "b16") unknown();
            i.vec = has("x4") ? 4 : has("x2") ? 2 : 1;
            i.flag = has("trans");
            i.space = shared;
            for (int k = 0; k < i.vec; ++k) take(k, k, 4);
            take(i.vec, i.vec, -1);
            return ldmatrix;
        }
        if (name == "stmatrix") {
            if (!has("m8n8") || type != "b16") unknown();
            i.vec = has("x4") ? 4 : has("x2") ? 2 : 1;
            i.flag = has("trans");
            i.space = shared;
            take(0, 0, -1);
            for (int k = 0; k < i.vec; ++k) take(1 + k, 1 + k, 4);
            return stmatrix;
        }
        if (name == "wgmma") return decode_wgmma();
        if (name == "fence" && has("proxy")) {
            if (!has("async")) unknown();
            return proxy_fence;
        }
        if (name == "cp") {
            if (words.size() < 3 || words[1] != "async") unknown();
            if (words[2] == "commit_group") return copy_commit;
            if (words[2] == "wait_group" || words[2] == "wait_all") {
                i.flag = words[2] == "wait_all";
                i.imm[0] = count ? given[0].value : 0;
                return copy_wait;
            }
            if (words[2] != "ca" && words[2] != "cg") unknown();
            take(0, 0, -1), take(1, 1, 8);
            if (given[2].kind != 1) unknown();
            i.bytes = given[2].value;
            i.flag = count > 3;
            if (i.flag) take(2, 3, 4);
            return copy_async;
        }
        if (name == "bar" || name == "barrier") {
            if (has("warp")) {
                take(0, 0, 4);
                return warp_sync;
            }
            if (has("arrive")) unknown();
            i.kind = Instr::barrier;
            if (has("red")) {
                i.mode = has("or") ? 1 : has("and") ? 2 : 3;
                if (count != 3 && count != 4) unknown();
                if (given[1].kind != 1) unknown();
                i.imm[0] = given[1].value;
                if (i.mode == 3)
                    take(0, 0, 4);
                else
                    take_predicate(0, 0);
                i.flag = take_predicate(1, count - 1);
                i.imm[1] = count == 4 ? given[2].value : 0;
                return nullptr;
            }
            if (!has("sync") || given[0].kind != 1) unknown();
            i.imm[0] = given[0].value;
            i.imm[1] = count > 1 ? given[1].value : 0;
            return nullptr;
        }
        if (name == "shfl") {
            i.mode = pick({"bfly", "idx", "up", "down"});
            const size_t value = group_size(0);  // d, or d|p
            take(0, 0, 4);
            i.o[1] = -1;
            if (value == 2) take_predicate(1, 1);
            for (int k = 0; k < 4; ++k) take(2 + k, value + k, 4);
            return shuffle;
        }
        if (name == "redux") {
            i.mode = pick({"add", "min", "max", "and", "or", "xor"});
            take(0, 0, 4), take(1, 1, 4), take(2, 2, 4);
            return type == "s32" ? Run(redux<int32_t>) : Run(redux<uint32_t>);
        }
        if (name == "vote") {
            i.mode = pick({"ballot", "any", "all"});
            if (i.mode == 0)
                take(0, 0, 4);
            else
                take_predicate(0, 0);
            i.flag = take_predicate(1, 1);
            take(2, 2, 4);
            return vote;
        }
        if (name == "atom" || name == "red") {
            i.space = space();
            i.mode = pick({"add", "min", "max", "exch", "cas"});
            const bool old = name == "atom";
            const int size = size_of(type);
            i.o[0] = -1;
            if (old) take(0, 0, size);
            take(1, old, -1), take(2, old + 1, size);
            if (i.mode == 4) take(3, old + 2, size);
            if (is_float(type)) return real(type, [&](auto t) -> Run { return atomic<decltype(t)>; });
            return integer(type, [&](auto t) -> Run { return atomic<decltype(t)>; });
        }
        if (name == "membar" || name == "fence" || name == "prefetch" || name == "prefetchu" || name == "nanosleep" ||
            name == "pragma" || name == "griddepcontrol")
            return nothing;
        if (name == "setp") {
            std::string mode = words[1];
            i.flag = false;
            const bool real_type = is_float(type);
            if (mode == "num" || mode == "nan") {
                i.flag = mode == "nan";
                i.mode = mode == "num" ? number : not_number;
            } else {
                if (real_type && mode.size() == 3) i.flag = true, mode.pop_back();
                static const std::map<std::string, int> modes = {{"eq", eq}, {"ne", ne}, {"lt", lt}, {"le", le},
                                                                 {"gt", gt}, {"ge", ge}, {"lo", lt}, {"ls", le},
                                                                 {"hi", gt}, {"hs", ge}};
                if (!modes.count(mode)) unknown();
                i.mode = modes.at(mode);
            }
            const size_t results = group_size(0);
            take_predicate(0, 0);
            i.o[1] = -1;
            if (results == 2) take_predicate(1, 1);
            const int size = size_of(type);
            take(2, results, size), take(3, results + 1, size);
            i.imm[0] = has("and") ? 1 : has("or") ? 2 : has("xor") ? 3 : 0;
            if (i.imm[0]) i.imm[1] = take_predicate(4, results + 2);
            return any(type, [&](auto t) -> Run { return setp<decltype(t)>; });
        }
        if (name == "selp") {
            const int size = size_of(type);
            take(0, 0, size), take(1, 1, size), take(2, 2, size);
            if (take_predicate(3, 3)) unknown();
            return size == 2 ? Run(selp<uint16_t>) : size == 4 ? Run(selp<uint32_t>) : Run(selp<uint64_t>);
        }
        if (type == "pred") {
            i.mode = name == "and" ? 0 : name == "or" ? 1 : name == "xor" ? 2 : name == "not" ? 3 : -1;
            if (i.mode < 0) unknown();
            take_predicate(0, 0);
            if (take_predicate(1, 1) || take_predicate(2, i.mode == 3 ? 1 : 2)) unknown();
            return predicate_op;
        }
        if (name == "lop3") {
            for (int k = 0; k < 4; ++k) take(k, k, 4);
            i.imm[0] = given[4].value;
            return lop3;
        }
        if (is_float(type)) return decode_float(name, type);
        return decode_integer(name, type);
    }

    Run decode_float(const std::string& name, const std::string& type) {
        if (has("rz") || has("rp") || (has("rm") && name != "fma")) unknown();
        if (name == "add") return floating<FAdd, double>(type);
        if (name == "sub") return floating<FSub, double>(type);
        if (name == "mul") return floating<FMul, double>(type);
        if (name == "div") return floating<FDiv, double>(type);
        if (name == "fma" && has("rm")) return map<FmaDown, float, float, float, float>();
        if (name == "fma" || name == "mad") return floating<Fma, double, double>(type);
        if (name == "min") return has("NaN") ? floating<NanMin, double>(type) : floating<Min, double>(type);
        if (name == "max") return has("NaN") ? floating<NanMax, double>(type) : floating<Max, double>(type);
        if (name == "neg") return floating<Neg>(type);
        if (name == "abs") return floating<Abs>(type);
        if (name == "sqrt") return floating<Sqrt>(type);
        if (name == "rcp") return floating<Rcp>(type);
        if (name == "rsqrt") return floating<Rsqrt>(type);
        if (name == "copysign") return floating<CopySign, double>(type);
        if (type != "f32") unknown();
        if (name == "ex2") return floating<Ex2>(type);
        if (name == "lg2") return floating<Lg2>(type);
        if (name == "sin") return floating<Sin>(type);
        if (name == "cos") return floating<Cos>(type);
        if (name == "tanh") return floating<Tanh>(type);
        unknown();
    }

    Run decode_integer(const std::string& name, const std::string& type) {
        if (has("sat") || has("cc")) unknown();
        return integer(type, [&](auto t) -> Run {
            using T = decltype(t);
            if (name == "add") return map<Add, T, T, T>();
            if (name == "sub") return map<Sub, T, T, T>();
            if (name == "mul" || name == "mad") {
                const bool mad = name == "mad";
                if (has("wide")) {
                    if constexpr (sizeof(T) < 8)
                        return mad ? map<MadWide, Wide<T>, T, T, Wide<T>>() : map<MulWide, Wide<T>, T, T>();
                    unknown();
                }
                if (has("hi")) return mad ? map<MadHi, T, T, T, T>() : map<MulHi, T, T, T>();
                return mad ? map<MadLo, T, T, T, T>() : map<MulLo, T, T, T>();
            }
            if (name == "div") return map<Div, T, T, T>();
            if (name == "rem") return map<Rem, T, T, T>();
            if (name == "min") return map<Min, T, T, T>();
            if (name == "max") return map<Max, T, T, T>();
            if (name == "neg") return map<Neg, T, T>();
            if (name == "abs") return map<Abs, T, T>();
            if (name == "and") return map<And, T, T, T>();
            if (name == "or") return map<Or, T, T, T>();
            if (name == "xor") return map<Xor, T, T, T>();
            if (name == "not") return map<Not, T, T>();
            if (name == "shl") return map<Shl, T, T, uint32_t>();
            if (name == "shr") return map<Shr, T, T, uint32_t>();
            if constexpr (sizeof(T) >= 4) {
                if (name == "bfe") return map<Bfe, T, T, uint32_t, uint32_t>();
                if (name == "popc") return map<Popc, uint32_t, T>();
                if (name == "clz") return map<Clz, uint32_t, T>();
            }
            if constexpr (sizeof(T) >= 4 && std::is_unsigned_v<T>) {
                if (name == "bfi") return map<Bfi, T, T, T, uint32_t, uint32_t>();
                if (name == "brev") return map<Brev, T, T>();
            }
            if (name == "prmt" && words.size() == 2) return map<Prmt, uint32_t, uint32_t, uint32_t, uint32_t>();
            if (name == "shf") {
                const bool left = has("l"), wrap = has("wrap");
                using U = uint32_t;
                return left   ? wrap ? map<Shf<true, true>, U, U, U, U>() : map<Shf<true, false>, U, U, U, U>()
                       : wrap ? map<Shf<false, true>, U, U, U, U>()
                              : map<Shf<false, false>, U, U, U, U>();
            }
            unknown();
        });
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// Running

// Where lanes that part at a branch meet again: the first instruction that all ways from there to the end pass (its
// immediate post-dominator).
void find_meetings(std::vector<Instr>& code) {
    std::vector<int32_t> starts = {0};
    for (const Instr& i : code) {
        if (i.kind == Instr::branch) starts.push_back(i.target);
        if (i.kind == Instr::branch || i.kind == Instr::leave) starts.push_back(i.pc + 1);
    }
    std::sort(starts.begin(), starts.end());
    starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
    while (starts.back() >= int32_t(code.size())) starts.pop_back();
    const int blocks = starts.size(), over = blocks;  // `over`: the end of all ways
    auto block_at = [&](int32_t pc) {
        return int(std::upper_bound(starts.begin(), starts.end(), pc) - starts.begin()) - 1;
    };
    std::vector<std::vector<int>> after(blocks + 1), before(blocks + 1);
    for (int b = 0; b < blocks; ++b) {
        const Instr& last = code[(b + 1 < blocks ? starts[b + 1] : int32_t(code.size())) - 1];
        if (last.kind == Instr::branch) after[b].push_back(block_at(last.target));
        if (last.kind == Instr::leave) after[b].push_back(over);
        const bool goes_on = last.predicate >= 0 || (last.kind != Instr::branch && last.kind != Instr::leave);
        if (goes_on && b + 1 < blocks) after[b].push_back(b + 1);
        for (int next : after[b]) before[next].push_back(b);
    }
    std::vector<int> order, number(blocks + 1, -1), meeting(blocks + 1, -1);  // backwards from the end, depth first
    std::vector<std::pair<int, size_t>> path = {{over, 0}};
    std::vector<char> seen(blocks + 1, 0);
    seen[over] = 1;
    while (!path.empty()) {
        const int b = path.back().first;
        if (path.back().second < before[b].size()) {
            const int next = before[b][path.back().second++];
            if (!seen[next]) seen[next] = 1, path.push_back({next, 0});
        } else {
            number[b] = order.size();
            order.push_back(b);
            path.pop_back();
        }
    }
    meeting[over] = over;
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t n = order.size(); n-- > 0;) {
            const int b = order[n];
            if (b == over) continue;
            int found = -1;
            for (int next : after[b]) {
                if (meeting[next] < 0) continue;
                int x = next;
                while (found >= 0 && x != found) {
                    while (number[x] < number[found]) x = meeting[x];
                    while (number[found] < number[x]) found = meeting[found];
                }
                found = x;
            }
            if (found != meeting[b]) meeting[b] = found, changed = true;
        }
    }
    for (Instr& i : code) {
        if (i.kind != Instr::branch) continue;
        const int b = block_at(i.pc);
        i.meets = meeting[b] < 0 || meeting[b] == over ? INT32_MAX : starts[meeting[b]];
    }
}

// Runs a warp until it waits at a barrier or its last lane has left. Lanes that part at a branch run one part after
// the other, to where they meet.
void run_warp(Launch& launch, Warp& w) {
    const std::vector<Instr>& code = launch.program->code;
    auto& stack = w.stack;
    while (!stack.empty()) {
        auto [live, pc, meets] = stack.back();
        bool parted = false;
        while (live && pc != meets && !parted) {
            const Instr& i = code[pc];
            uint32_t mask = live;
            if (i.predicate >= 0) {
                const uint32_t p = *w.at<uint32_t>(i.predicate);
                mask &= i.negated ? ~p : p;
            }
            Count& count = launch.counts[pc];
            ++count.warps;
            count.lanes += __builtin_popcount(mask);
            if (--launch.fuel < 0) launch.fault(w, i, 0, "the kernel does not end");
            switch (i.kind) {
                case Instr::plain:
                    if (mask) i.run(w, i, mask);
                    ++pc;
                    break;
                case Instr::branch:
                    if (mask == live) {
                        pc = i.target;
                    } else if (!mask) {
                        ++pc;
                    } else {
                        parted = true;
                        stack.back().pc = i.meets;
                        if (i.meets == meets) stack.pop_back();  // who waits there waits already
                        stack.push_back({live & ~mask, pc + 1, i.meets});
                        stack.push_back({mask, i.target, i.meets});
                    }
                    break;
                case Instr::leave:
                    for (Part& part : stack) part.mask &= ~mask;
                    live &= ~mask;
                    ++pc;
                    break;
                case Instr::barrier:
                    if (live != w.born)
                        launch.fault(w, i, __builtin_ctz(live),
                                     "a barrier that lanes " + hex(live) + " of " + hex(w.born) + " reach alone");
                    if (mask != live) launch.fault(w, i, 0, "a barrier under a predicate that does not hold for all");
                    w.state = Warp::waiting;
                    w.at_barrier = &i;
                    stack.back().pc = pc + 1;
                    return;
            }
        }
        if (!parted) stack.pop_back();
    }
    w.state = Warp::finished;
}

void meet(Launch& launch, std::vector<Warp>& warps) {
    const Instr& i = *std::find_if(warps.begin(), warps.end(), [](Warp& w) { return w.at_barrier; })->at_barrier;
    bool any = false, all = true;
    int votes = 0;
    for (Warp& w : warps) {
        if (w.state != Warp::waiting)
            launch.fault(w, i, 0, "a barrier that not all threads reach: this one has left the kernel, others wait");
        if (w.at_barrier->imm[0] != i.imm[0])
            launch.fault(w, *w.at_barrier, 0,
                         "barriers of different numbers: others wait at " + launch.program->text[i.pc]);
        if (i.imm[1] && i.imm[1] != int64_t(launch.threads))
            launch.fault(w, i, 0, "a barrier of a part of the block: not modelled");
        if (w.at_barrier->mode) {
            uint32_t p = *w.at<uint32_t>(w.at_barrier->o[1]);
            if (w.at_barrier->flag) p = ~p;
            p &= w.born;
            any |= p != 0, all &= p == w.born, votes += __builtin_popcount(p);
        }
    }
    for (Warp& w : warps) {
        const Instr& own = *w.at_barrier;
        if (own.mode == 3)
            std::fill_n(w.at<uint32_t>(own.o[0]), lanes, votes);
        else if (own.mode)
            commit_predicate(w, own.o[0], (own.mode == 1 ? any : all) ? everyone : 0, w.born);
        w.state = Warp::ready;
        w.at_barrier = nullptr;
    }
    ++launch.now;
    ++launch.barriers;
}

void run_block(Launch& launch, std::vector<Warp>& warps) {
    const Program& p = *launch.program;
    launch.first = ++launch.now;
    for (Mark& m : launch.shared_marks) m.reading = 0;
    std::fill(launch.shared_words.begin(), launch.shared_words.end(), poison);
    for (Warp& w : warps) {
        std::memcpy(w.file, p.image.data(), p.image.size());
        for (const auto& [name, offset] : p.special) {
            uint32_t* to = w.at<uint32_t>(offset);
            const int axis = name.back() - 'x';
            for (int l = 0; l < lanes; ++l) {
                uint32_t v = 0;
                if (name == "%laneid")
                    v = l;
                else if (name == "%warpid")
                    v = w.index;
                else if (name.rfind("%tid.", 0) == 0)
                    v = axis ? 0 : w.index * lanes + l;
                else if (name.rfind("%ntid.", 0) == 0)
                    v = axis ? 1 : launch.threads;
                else if (name.rfind("%ctaid.", 0) == 0)
                    v = launch.block[axis];
                else if (name.rfind("%nctaid.", 0) == 0)
                    v = launch.grid[axis];
                else
                    throw Fault("not modelled: " + name);
                to[l] = v;
            }
        }
        w.stack.assign(1, {w.born, 0, INT32_MAX});
        w.copies.clear();
        w.products.clear();
        w.sync = w.committed = w.product_groups = w.fences = w.fence_time = 0;
        w.registers_fenced = false;
        w.state = Warp::ready;
        w.at_barrier = nullptr;
    }
    for (;;) {
        bool all_finished = true;
        for (size_t n = 0; n < warps.size(); ++n) {  // another order after each barrier
            Warp& w = warps[launch.now & 1 ? n : warps.size() - 1 - n];
            if (w.state == Warp::ready) run_warp(launch, w);
            all_finished &= w.state == Warp::finished;
        }
        if (all_finished) return;
        meet(launch, warps);
    }
}

std::vector<std::string> split_at(const std::string& s, char at) {
    std::vector<std::string> parts(1);
    for (char c : s)
        if (c == at)
            parts.emplace_back();
        else
            parts.back() += c;
    return parts;
}

thread_local std::string error;

}  // namespace

extern "C" {

const char* ptx_error() {
    return error.c_str();
}

// A program. `ops` and `text` are lines, one per instruction; `special` lines "name offset"; predicate[n] is an
// offset or -1; offsets[2 n], [2 n + 1] go with its addresses; target[n] an instruction. Registers are in
// [constants, file) of the register file, constants below. Null: ptx_error() says why.
Program* ptx_program(int64_t count, const char* ops, const char* text, const char* special, const int32_t* predicate,
                     const int32_t* negated, const int64_t* offsets, const int32_t* target, int64_t operand_count,
                     const Operand* operands, int64_t constants, int64_t file, int unit_shared, int unit_global) {
    auto program = new Program;
    int64_t n = 0;
    try {
        program->file_bytes = file;
        program->image.assign(constants, 0);
        program->unit_shared = unit_shared;
        program->unit_global = unit_global;
        program->text = split_at(text, '\n');
        for (const auto& line : split_at(special, '\n'))
            if (!line.empty())
                program->special[line.substr(0, line.find(' '))] = std::stoi(line.substr(line.find(' ')));
        const auto names = split_at(ops, '\n');
        Decoder decoder{*program, {}, 0, int32_t(constants), {}, {}, {}};
        int64_t next = 0;
        for (; n < count; ++n) {
            decoder.i = Instr{};
            decoder.i.pc = n;
            decoder.i.predicate = predicate[n];
            decoder.i.negated = negated[n];
            decoder.i.imm[0] = offsets[2 * n];
            decoder.i.imm[1] = offsets[2 * n + 1];
            decoder.i.target = target[n];
            decoder.words.clear();
            for (auto& word : split_at(names[n], '.')) decoder.words.push_back(word);
            decoder.given.clear();
            for (; next < operand_count && operands[next].instruction == n; ++next)
                decoder.given.push_back(operands[next]);
            decoder.i.run = decoder.decode();
            program->code.push_back(decoder.i);
        }
        program->image.resize(decoder.constants_end);
        Instr end;  // past the last instruction the kernel is over
        end.kind = Instr::leave;
        end.pc = n;
        program->code.push_back(end);
        program->text.push_back("the end");
        find_meetings(program->code);
        return program;
    } catch (const std::exception& e) {
        error = std::string(e.what()) + "\n  at " + (n < int64_t(program->text.size()) ? program->text[n] : "");
        delete program;
        return nullptr;
    }
}

void ptx_release(Program* program) {
    delete program;
}

// Runs a launch; 0, or 1 and ptx_error(). buffers: base, size and written (an address or 0) of each, in order of base.
// counts: four numbers per instruction (Count), added to; totals: barriers, distinct bytes of global memory. strict:
// shared memory that nobody wrote must not be read; else it is NaN.
int ptx_run(const Program* program, const uint32_t* grid, int threads, const uint8_t* params, int64_t param_bytes,
            int64_t shared_size, int64_t local_size, int64_t buffer_count, const uint64_t* buffers, int64_t* counts,
            int64_t* totals, int count_memory, int strict, int64_t fuel) {
    try {
        Launch launch;
        launch.program = program;
        for (int64_t b = 0; b < buffer_count; ++b)
            launch.buffers.push_back(
                {buffers[3 * b], buffers[3 * b + 1], reinterpret_cast<uint8_t*>(buffers[3 * b + 2]), {}});
        launch.params = params;
        launch.param_bytes = param_bytes;
        std::copy(grid, grid + 3, launch.grid);
        launch.threads = threads;
        launch.shared_size = shared_size;
        launch.shared_words.resize(shared_size / 8 + 8);
        launch.shared_bytes = reinterpret_cast<uint8_t*>(launch.shared_words.data());
        launch.shared_marks.resize(shared_size / program->unit_shared + 16);
        launch.local_size = local_size;
        launch.local_bytes.assign(local_size * (threads + lanes), 0xb7);
        launch.counts.resize(program->code.size());
        launch.count_memory = count_memory;
        launch.strict = strict;
        launch.fuel = fuel;
        const int warp_count = (threads + lanes - 1) / lanes;
        std::vector<uint64_t> files(program->file_bytes / 8 * warp_count, poison);
        std::vector<Warp> warps(warp_count);
        launch.warps = &warps;
        for (int n = 0; n < warp_count; ++n) {
            warps[n].launch = &launch;
            warps[n].file = reinterpret_cast<uint8_t*>(files.data()) + n * program->file_bytes;
            warps[n].index = n;
            const int left = threads - n * lanes;
            warps[n].born = left >= lanes ? everyone : (1u << left) - 1;
        }
        for (uint32_t z = 0; z < grid[2]; ++z)
            for (uint32_t y = 0; y < grid[1]; ++y)
                for (uint32_t x = 0; x < grid[0]; ++x) {
                    launch.block[0] = x, launch.block[1] = y, launch.block[2] = z;
                    run_block(launch, warps);
                }
        for (size_t n = 0; n + 1 < program->code.size(); ++n) {
            counts[4 * n] += launch.counts[n].warps;
            counts[4 * n + 1] += launch.counts[n].lanes;
            counts[4 * n + 2] += launch.counts[n].sectors;
            counts[4 * n + 3] += launch.counts[n].wavefronts;
        }
        totals[0] += launch.barriers;
        for (const Buffer& b : launch.buffers)
            for (const Mark& m : b.marks) totals[1] += m.read_time || m.write_time ? program->unit_global : 0;
        return 0;
    } catch (const std::exception& e) {
        error = e.what();
        return 1;
    }
}
}
