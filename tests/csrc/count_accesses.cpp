// What the kernels of an emulated program read and write: linked in place of ThreadSanitizer, whose
// calls the compiler has put before every access to memory (-fsanitize=thread). Accesses to what
// count_global was told of are counted; all others are the emulation's own. Compiled without
// -fsanitize=thread itself.
//
// After every launch a line is printed:
//   launch <kernel's address> <blocks> <threads> <dynamic shared bytes> <bytes read> <bytes read by
//   a block for the first time> <bytes written> <tensor-core operations>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <vector>

namespace {

struct Range {
  uintptr_t end;
  size_t offset;  // of its first byte among all that are counted
};

std::map<uintptr_t, Range> ranges;  // by where they begin
size_t total_bytes = 0;
int64_t read_bytes, first_read_bytes, written_bytes, operations;

// Every block runs on a thread of its own.
thread_local std::vector<bool> seen;

void access(const void* address, size_t bytes, bool write) {
  const auto begin = reinterpret_cast<uintptr_t>(address);
  auto range = ranges.upper_bound(begin);
  if (range == ranges.begin()) return;
  --range;
  if (begin >= range->second.end) return;
  if (write) {
    written_bytes += bytes;
    return;
  }
  read_bytes += bytes;
  seen.resize(total_bytes);
  const size_t first = range->second.offset + (begin - range->first);
  for (size_t i = first; i < first + bytes; i++) {
    first_read_bytes += !seen[i];
    seen[i] = true;
  }
}

}  // namespace

extern "C" {

void count_global(const void* begin, size_t bytes) {
  if (bytes == 0) return;
  const auto address = reinterpret_cast<uintptr_t>(begin);
  ranges[address] = {address + bytes, total_bytes};
  total_bytes += bytes;
}

void count_operations(int64_t count) { operations += count; }

void count_launch(const void* kernel, unsigned blocks, unsigned threads, size_t shared_bytes) {
  std::printf("launch %zx %u %u %zu %lld %lld %lld %lld\n", reinterpret_cast<size_t>(kernel),
              blocks, threads, shared_bytes, static_cast<long long>(read_bytes),
              static_cast<long long>(first_read_bytes), static_cast<long long>(written_bytes),
              static_cast<long long>(operations));
  read_bytes = first_read_bytes = written_bytes = operations = 0;
}

#define ACCESSES(bytes)                                                   \
  void __tsan_read##bytes(void* p) { access(p, bytes, false); }           \
  void __tsan_write##bytes(void* p) { access(p, bytes, true); }           \
  void __tsan_unaligned_read##bytes(void* p) { access(p, bytes, false); } \
  void __tsan_unaligned_write##bytes(void* p) { access(p, bytes, true); } \
  void __tsan_volatile_read##bytes(void* p) { access(p, bytes, false); }  \
  void __tsan_volatile_write##bytes(void* p) { access(p, bytes, true); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

void __tsan_read_range(void* p, size_t bytes) { access(p, bytes, false); }
void __tsan_write_range(void* p, size_t bytes) { access(p, bytes, true); }

// An atomic operation reads and writes.
unsigned __tsan_atomic32_fetch_add(volatile unsigned* p, unsigned value, int) {
  access(const_cast<unsigned*>(p), 4, false);
  access(const_cast<unsigned*>(p), 4, true);
  return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_acquire(void*) {}
void __tsan_release(void*) {}
void* __tsan_get_current_fiber() { return nullptr; }
void* __tsan_create_fiber(unsigned) { return nullptr; }
void __tsan_destroy_fiber(void*) {}
void __tsan_switch_to_fiber(void*, unsigned) {}
void AnnotateIgnoreReadsBegin(const char*, int) {}
void AnnotateIgnoreReadsEnd(const char*, int) {}
void AnnotateIgnoreWritesBegin(const char*, int) {}
void AnnotateIgnoreWritesEnd(const char*, int) {}
}
