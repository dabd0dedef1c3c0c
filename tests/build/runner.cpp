// Runs kernels of csrc/core for tests/build/test_foreign.py, on a processor that an emulator stands for: no Python.
//
// Reads from stdin, in the machine's own byte order, call after call:
//   name and a newline; threads, number of arguments, number of pieces of memory (int64); each piece's size (int64) and
//   bytes; each argument's kind and value: 'i' int64 · 'f' double · 'p' piece and offset (int64)
// and answers on stdout: 1 and the result (int64), or 0 and 0 where there is no such kernel; then the pieces as the
// call has left them.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "posekernels/parallel.h"
#include "posekernels/registry.h"

namespace posekernels {
KernelEntry* registered_kernels();
}

namespace {

void read(void* to, size_t size) {
    if (size && std::fread(to, 1, size, stdin) != size) std::exit(1);
}

template <class T>
T read() {
    T value;
    read(&value, sizeof value);
    return value;
}

void write(const void* from, size_t size) {
    if (size && std::fwrite(from, 1, size, stdout) != size) std::exit(1);
}

}  // namespace

int main() {
    std::string name;
    for (int c; (c = std::getchar()) != EOF;) {
        if (c != '\n') {
            name.push_back(static_cast<char>(c));
            continue;
        }
        posekernels::set_num_threads(static_cast<int>(read<int64_t>()));
        std::vector<posekernels::Slot> slots(static_cast<size_t>(read<int64_t>()));
        std::vector<std::vector<char>> memory(static_cast<size_t>(read<int64_t>()));
        for (auto& piece : memory) {
            piece.resize(static_cast<size_t>(read<int64_t>()) + 1);  // never empty: a pointer, whatever the size
            read(piece.data(), piece.size() - 1);
        }
        std::string kinds;
        for (auto& slot : slots) {
            kinds.push_back(read<char>());
            if (kinds.back() == 'f') {
                slot.real = read<double>();
            } else {
                slot.integer = read<int64_t>();
            }
            if (kinds.back() == 'p') {
                const auto begin = reinterpret_cast<uintptr_t>(memory[static_cast<size_t>(slot.integer)].data());
                slot.integer = static_cast<int64_t>(begin) + read<int64_t>();
            }
        }
        int64_t answer[2] = {0, 0};
        for (const auto* e = posekernels::registered_kernels(); e; e = e->next) {
            if (name != e->name || std::strlen(e->kinds) != slots.size()) continue;
            for (size_t i = 0; i < slots.size(); ++i)
                if (e->kinds[i] == 'f' && kinds[i] == 'i') slots[i].real = static_cast<double>(slots[i].integer);
            answer[0] = 1, answer[1] = e->call(slots.data());
        }
        write(answer, sizeof answer);
        for (const auto& piece : memory) write(piece.data(), piece.size() - 1);
        std::fflush(stdout);
        name.clear();
    }
}
