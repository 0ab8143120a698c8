// Runs CUDA C++ kernels on the CPU, from their own source, so that tests need no GPU.
//
// A kernel is compiled by the host compiler with this header included before it. Every CUDA thread
// is a fiber; a barrier, a shuffle or a tensor-core instruction is a point where fibers switch. The
// fibers of a block share one OS thread and the blocks of a grid run one after the other, each on
// an OS thread of its own, so that results never depend on timing. What is different from a GPU is
// made to show:
//   - AddressSanitizer sees every access: dynamic shared memory is one heap block of exactly the
//   size asked.
//   - ThreadSanitizer knows each CUDA thread as a thread. Only what orders memory on a GPU
//   (barriers,
//     __syncwarp, atomics, the end of a launch) orders it here: a missing barrier, or two blocks
//     that write the same element, is reported. Shuffles order nothing, as on a GPU.
//   - Dynamic shared memory starts as NaN. An asynchronous copy writes NaN when it is issued and
//   the data
//     when it is waited for, so that a missing wait shows.
//   - A barrier that not all threads reach ends the program with a message.
// tests/csrc/count_accesses.cpp, linked in place of ThreadSanitizer, counts what kernels read,
// write and multiply. Not emulated: spinning on another block (it would wait for ever) and
// cooperative groups. Static __shared__ variables start as zeros.
#pragma once

#include <cuda_runtime.h>
// CUDA's headers come before the macros below.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" {
void __tsan_read_range(void* begin, size_t bytes);
void __tsan_write_range(void* begin, size_t bytes);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

// Of count_accesses.cpp, where it is linked.
extern "C" {
// `bytes` of global memory begin at `begin`: accesses to them are counted.
__attribute__((weak)) void count_global(const void* begin, size_t bytes);
// A launch has ended: report it.
__attribute__((weak)) void count_launch(const void* kernel, unsigned blocks, unsigned threads,
                                        size_t shared_bytes);
__attribute__((weak)) void count_operations(int64_t operations);
}

namespace cuda_emulation {

// Hides the emulation's own bookkeeping from ThreadSanitizer while it lives.
struct Unseen {
#if defined(__SANITIZE_THREAD__)
  Unseen() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unseen() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
#else
  Unseen() {}
#endif
};

inline void release([[maybe_unused]] void* tag) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(tag);
#endif
}

inline void acquire([[maybe_unused]] void* tag) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(tag);
#endif
}

// Tell ThreadSanitizer of what memcpy or memset does: where the compiler knows the size, it puts
// plain moves in the call's place, after those that the sanitizer sees were chosen.
inline void reads([[maybe_unused]] const void* begin, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_THREAD__)
  __tsan_read_range(const_cast<void*>(begin), bytes);
#endif
}

inline void writes([[maybe_unused]] void* begin, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_THREAD__)
  __tsan_write_range(begin, bytes);
#endif
}

// These lie in global memory: accesses to them are counted, if any are.
template <class... T>
void global(const std::vector<T>&... tensors) {
  if (count_global != nullptr) (count_global(tensors.data(), tensors.size() * sizeof(T)), ...);
}

struct Fiber {
  ucontext_t context;
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  size_t stack_size = 0;
  void* sanitizer = nullptr;  // its AddressSanitizer fake stack, or its ThreadSanitizer fiber
};

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// swapcontext asks the kernel for the signal mask at every switch; this one saves what the calling
// convention asks for and no more.
#define CUDA_EMULATION_OWN_SWITCH
extern "C" void cuda_emulation_switch(void** from, void* to);
asm(R"(
.pushsection .text
.weak cuda_emulation_switch
.hidden cuda_emulation_switch
.type cuda_emulation_switch, @function
cuda_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.popsection
)");
#endif

// Where threads meet. `tags` alternate: a thread already at the next meeting must not order this
// one.
struct Barrier {
  int arrived = 0;
  unsigned generation = 0;
  char tags[2];
  void* arguments[32];  // of a warp's collective operation, by lane
};

struct AsyncCopy {
  void* to;
  uint4 data;
  int bytes;
};

struct Thread {
  Fiber fiber;
  uint3 index;
  int rank, lane, warp;
  bool done = false;
  const Barrier* waits_for = nullptr;
  unsigned waits_in_generation = 0;
  std::vector<std::vector<AsyncCopy>> copies{1};  // groups; the last one is still open
};

struct Warp {
  std::map<unsigned, Barrier> barriers;  // by the mask of the lanes that meet
  unsigned live = 0;                     // mask of the lanes that have not returned
};

struct Block {
  dim3 grid, size;
  uint3 index;
  std::unique_ptr<char[]> shared;  // dynamic
  Fiber scheduler;
  std::unique_ptr<Thread[]> threads;
  int count = 0, live = 0;
  std::vector<Warp> warps;
  Barrier barrier;
  std::function<void()> body;
  char* end_of_launch = nullptr;
};

inline thread_local Block* block = nullptr;
inline thread_local Thread* self = nullptr;

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "cuda_emulation: %s", what);
  if (self != nullptr) {
    std::fprintf(stderr, " (block %u %u %u, thread %u %u %u)", block->index.x, block->index.y,
                 block->index.z, self->index.x, self->index.y, self->index.z);
  }
  std::fprintf(stderr, "\n");
  std::abort();
}

inline void switch_fiber(Fiber& from, Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.sanitizer, to.stack, to.stack_size);
#elif defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(to.sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(CUDA_EMULATION_OWN_SWITCH)
  cuda_emulation_switch(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.sanitizer, nullptr, nullptr);
#endif
}

// The fiber whose turn it is after this thread's; `self` becomes its thread.
inline Fiber& next_fiber() {
  Unseen unseen;
  int rank = self->rank;
  for (int step = 1; step <= block->count; step++) {
    Thread& next = block->threads[(rank + step) % block->count];
    bool blocked =
        next.waits_for != nullptr && next.waits_for->generation == next.waits_in_generation;
    if (next.done || blocked) continue;
    self = &next;
    return next.fiber;
  }
  if (block->live > 0) fail("deadlock: a barrier was reached by some of its threads only");
  return block->scheduler;
}

// Let the other threads go on; returns when it is this one's turn again.
inline void yield() {
  Fiber& mine = self->fiber;
  Fiber& next = next_fiber();
  if (&next != &mine) switch_fiber(mine, next);
}

// Wait until `expected` threads are here; the last one to arrive runs `last`.
template <class Last>
void meet(Barrier& barrier, int expected, Last last) {
  barrier.arrived++;
  if (barrier.arrived >= expected) {
    last();
    barrier.arrived = 0;
    barrier.generation++;
    return;
  }
  self->waits_for = &barrier;
  self->waits_in_generation = barrier.generation;
  while (barrier.generation == self->waits_in_generation) yield();
  self->waits_for = nullptr;
}

inline void sync_block() {
  Unseen unseen;
  char* tag = &block->barrier.tags[block->barrier.generation & 1];
  release(tag);
  meet(block->barrier, block->live, [] {});
  acquire(tag);
}

inline Barrier& warp_barrier(unsigned mask) {
  Warp& warp = block->warps[self->warp];
  if ((mask >> self->lane & 1) == 0)
    fail("a warp's operation whose mask leaves out the calling lane");
  // A block whose size is no multiple of 32 has lanes that never existed: a full mask means the
  // others.
  if (mask == 0xffffffffu && self->warp == block->count / 32) mask = (1u << block->count % 32) - 1;
  if ((mask & ~warp.live) != 0) fail("a warp's operation whose mask has a lane that has returned");
  return warp.barriers[mask];
}

inline void sync_warp(unsigned mask) {
  Unseen unseen;
  Barrier& barrier = warp_barrier(mask);
  char* tag = &barrier.tags[barrier.generation & 1];
  release(tag);
  meet(barrier, std::popcount(mask & block->warps[self->warp].live), [] {});
  acquire(tag);
}

// Every lane of the mask brings `argument`; `operation(lanes)` runs once, over those of all lanes
// (null where a lane takes no part), and may read and write all of them. It orders no memory.
template <class Argument, class Operation>
void collective(unsigned mask, Argument& argument, Operation operation) {
  Unseen unseen;
  Barrier& barrier = warp_barrier(mask);
  int expected = std::popcount(mask & block->warps[self->warp].live);
  if (barrier.arrived == 0) {
    for (void*& other : barrier.arguments) other = nullptr;
  }
  barrier.arguments[self->lane] = &argument;
  meet(barrier, expected, [&] { operation(reinterpret_cast<Argument**>(barrier.arguments)); });
}

inline void run_thread() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  block->body();
  {
    Unseen unseen;
    release(block->end_of_launch);
    self->done = true;
    block->live--;
    block->warps[self->warp].live &= ~(1u << self->lane);
    if (block->live > 0 && block->barrier.arrived == block->live) {
      block->barrier.arrived = 0;  // threads that return count as arrived
      block->barrier.generation++;
    }
  }
  yield();
}

inline void run_block(Block& running) {
  Unseen unseen;
  constexpr size_t kStack = 256 << 10, kGuard = 4096;
  block = &running;
  running.count = running.live = running.size.x * running.size.y * running.size.z;
  running.threads = std::make_unique<Thread[]>(running.count);
  running.warps.resize((running.count + 31) / 32);
  // Fresh memory for every block: ThreadSanitizer would take a stack used again for a race.
  size_t bytes = running.count * (kStack + kGuard);
  char* stacks = static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (stacks == MAP_FAILED) fail("no memory for the threads' stacks");
#if defined(__SANITIZE_THREAD__)
  running.scheduler.sanitizer = __tsan_get_current_fiber();
#endif
  for (int rank = 0; rank < running.count; rank++) {
    Thread& thread = running.threads[rank];
    thread.rank = rank;
    thread.lane = rank % 32;
    thread.warp = rank / 32;
    thread.index = {rank % running.size.x, rank / running.size.x % running.size.y,
                    rank / (running.size.x * running.size.y)};
    running.warps[thread.warp].live |= 1u << thread.lane;
    mprotect(stacks + rank * (kStack + kGuard), kGuard, PROT_NONE);
    thread.fiber.stack = stacks + rank * (kStack + kGuard) + kGuard;
    thread.fiber.stack_size = kStack;
#if defined(CUDA_EMULATION_OWN_SWITCH)
    // Six registers, where to start, and a return address that keeps the stack aligned as in a
    // call.
    void** top = reinterpret_cast<void**>(thread.fiber.stack + kStack) - 2;
    top[0] = reinterpret_cast<void*>(run_thread);
    top[1] = nullptr;
    thread.fiber.stack_pointer = top - 6;
#else
    getcontext(&thread.fiber.context);
    thread.fiber.context.uc_stack.ss_sp = thread.fiber.stack;
    thread.fiber.context.uc_stack.ss_size = kStack;
    thread.fiber.context.uc_link = nullptr;
    makecontext(&thread.fiber.context, run_thread, 0);
#endif
#if defined(__SANITIZE_THREAD__)
    thread.fiber.sanitizer = __tsan_create_fiber(0);
#endif
  }
  self = &running.threads[0];
  switch_fiber(running.scheduler, self->fiber);
  munmap(stacks, bytes);
}

// Bytes that a block may have, as on the card that is emulated: a launch that asks for more fails.
inline size_t most_shared_bytes = 227 << 10;

// kernel<<<grid, size, shared_bytes>>>(arguments...), and wait for it.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 size, size_t shared_bytes,
            Arguments&&... arguments) {
  if (shared_bytes > most_shared_bytes) fail("more shared memory than a block may have");
  char end_of_launch;
  std::vector<std::unique_ptr<Block>> blocks;
  for (unsigned z = 0; z < grid.z; z++) {
    for (unsigned y = 0; y < grid.y; y++) {
      for (unsigned x = 0; x < grid.x; x++) {
        Block& running = *blocks.emplace_back(std::make_unique<Block>());
        running.grid = grid;
        running.size = size;
        running.index = {x, y, z};
        running.shared.reset(new char[shared_bytes]);  // aligned to 16 bytes
        std::memset(running.shared.get(), 0xff, shared_bytes);
        running.body = [&] { kernel(arguments...); };
        running.end_of_launch = &end_of_launch;
        std::thread(run_block, std::ref(running)).join();
#if !defined(__SANITIZE_THREAD__)
        blocks.pop_back();
#endif
      }
    }
  }
#if defined(__SANITIZE_THREAD__)
  // Not before: memory and fibers used again would hide what two blocks do to each other.
  acquire(&end_of_launch);
  Unseen unseen;
  for (auto& finished : blocks) {
    for (int rank = 0; rank < finished->count; rank++) {
      __tsan_destroy_fiber(finished->threads[rank].fiber.sanitizer);
    }
  }
  blocks.clear();
#endif
  if (count_launch != nullptr) {
    count_launch(reinterpret_cast<const void*>(kernel), grid.x * grid.y * grid.z,
                 size.x * size.y * size.z, shared_bytes);
  }
}

// ---- what a kernel calls ----

template <class T>
T shuffle(unsigned mask, T value, int source) {
  struct Argument {
    T value;
    int source;
  } argument{value, source};
  collective(mask, argument, [](Argument** lanes) {
    T values[32];
    for (int lane = 0; lane < 32; lane++) {
      if (lanes[lane] != nullptr) values[lane] = lanes[lane]->value;
    }
    for (int lane = 0; lane < 32; lane++) {
      if (lanes[lane] == nullptr) continue;
      if (lanes[lanes[lane]->source] == nullptr)
        fail("a shuffle reads a lane that takes no part in it");
      lanes[lane]->value = values[lanes[lane]->source];
    }
  });
  return argument.value;
}

inline unsigned ballot(unsigned mask, bool predicate) {
  unsigned argument = predicate;
  collective(mask, argument, [](unsigned** lanes) {
    unsigned result = 0;
    for (int lane = 0; lane < 32; lane++) {
      if (lanes[lane] != nullptr && *lanes[lane] != 0) result |= 1u << lane;
    }
    for (int lane = 0; lane < 32; lane++) {
      if (lanes[lane] != nullptr) *lanes[lane] = result;
    }
  });
  return argument;
}

// cp.async of 4, 8 or 16 bytes, of which the first `valid` are read and the others are zeros.
inline void copy_async(void* to, const void* from, int bytes, int valid) {
  AsyncCopy copy{to, {0, 0, 0, 0}, bytes};
  if (reinterpret_cast<uintptr_t>(to) % bytes != 0 ||
      (valid > 0 && reinterpret_cast<uintptr_t>(from) % bytes != 0)) {
    fail("an asynchronous copy from or to a misaligned address");
  }
  reads(from, valid);
  std::memcpy(&copy.data, from, valid);
  writes(to, bytes);
  std::memset(to, 0xff, bytes);
  Unseen unseen;
  self->copies.back().push_back(copy);
}

inline void commit_copies() {
  Unseen unseen;
  self->copies.emplace_back();
}

// Finish all committed groups but the last `pending`.
inline void wait_copies(int pending) {
  std::vector<AsyncCopy> finished;
  {
    Unseen unseen;
    int groups = static_cast<int>(self->copies.size()) - 1 - pending;
    for (int group = 0; group < groups; group++) {
      finished.insert(finished.end(), self->copies[group].begin(), self->copies[group].end());
    }
    if (groups > 0) self->copies.erase(self->copies.begin(), self->copies.begin() + groups);
  }
  for (const AsyncCopy& copy : finished) {
    writes(copy.to, copy.bytes);
    std::memcpy(copy.to, &copy.data, copy.bytes);
  }
}

// ldmatrix .x4: lane 8 q + r gives the address of row r of the 8 x 8 matrix q; a lane gets of each
// matrix the two 16-bit elements at row lane / 4, columns 2 (lane % 4) and the next (of the
// transpose if asked).
inline void load_matrices(uint32_t (&out)[4], const void* row, bool transposed) {
  struct Argument {
    uint16_t row[8];
    uint32_t out[4];
  } argument;
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("ldmatrix from a misaligned address");
  reads(row, 16);
  std::memcpy(argument.row, row, 16);
  auto exchange = [transposed](Argument** lanes) {
    for (int lane = 0; lane < 32; lane++) {
      for (int q = 0; q < 4; q++) {
        uint32_t pair = 0;
        for (int half = 0; half < 2; half++) {
          int r = lane / 4, c = 2 * (lane % 4) + half;
          if (transposed) std::swap(r, c);
          pair |= static_cast<uint32_t>(lanes[8 * q + r]->row[c]) << (16 * half);
        }
        lanes[lane]->out[q] = pair;
      }
    }
  };
  collective(0xffffffffu, argument, exchange);
  for (int q = 0; q < 4; q++) out[q] = argument.out[q];
}

template <class T>
float half_of(uint32_t pair, int half) {
  uint16_t bits = static_cast<uint16_t>(pair >> (16 * half));
  T value;
  std::memcpy(static_cast<void*>(&value), &bits, 2);
  return static_cast<float>(value);
}

// mma.sync.m16n8k16 with float accumulators: c += a b. Layout as in PTX: with g = lane / 4, t =
// lane % 4,
//   a[i], half h: row g + 8 (i & 1), column 2 t + h + 8 (i >> 1);
//   b[i], half h: row 2 t + h + 8 i, column g;   c[i]: row g + 8 (i >> 1), column 2 t + (i & 1).
template <class T>
void multiply_16x8x16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  struct Argument {
    float* c;
    const uint32_t *a, *b;
  } argument{c, a, b};
  auto multiply = [](Argument** lanes) {
    float left[16][16], right[16][8];
    for (int lane = 0; lane < 32; lane++) {
      int g = lane / 4, t = lane % 4;
      for (int h = 0; h < 2; h++) {
        for (int i = 0; i < 4; i++) {
          left[g + 8 * (i & 1)][2 * t + h + 8 * (i >> 1)] = half_of<T>(lanes[lane]->a[i], h);
        }
        for (int i = 0; i < 2; i++) right[2 * t + h + 8 * i][g] = half_of<T>(lanes[lane]->b[i], h);
      }
    }
    for (int lane = 0; lane < 32; lane++) {
      for (int i = 0; i < 4; i++) {
        int row = lane / 4 + 8 * (i >> 1), column = 2 * (lane % 4) + (i & 1);
        float sum = 0;
        for (int k = 0; k < 16; k++) sum += left[row][k] * right[k][column];
        lanes[lane]->c[i] += sum;
      }
    }
  };
  collective(0xffffffffu, argument, multiply);
  if (count_operations != nullptr && self->lane == 0) count_operations(2 * 16 * 8 * 16);
}

}  // namespace cuda_emulation

#define CUDA_EMULATION 1

#undef __shared__
#define __shared__ static thread_local
#ifndef __grid_constant__
#define __grid_constant__
#endif
#undef __launch_bounds__
#define __launch_bounds__(...)
#define threadIdx (::cuda_emulation::self->index)
#define blockIdx (::cuda_emulation::block->index)
#define blockDim (::cuda_emulation::block->size)
#define gridDim (::cuda_emulation::block->grid)
#define warpSize 32
// In a kernel: DYNAMIC_SHARED(float, tile); then tile is a float* to the launch's dynamic shared
// memory.
#define DYNAMIC_SHARED(type, name) \
  type* name = reinterpret_cast<type*>(::cuda_emulation::block->shared.get())

inline void __syncthreads() { cuda_emulation::sync_block(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { cuda_emulation::sync_warp(mask); }
inline void __threadfence() {
}  // ThreadSanitizer knows no fences; the atomics below order as they do
inline void __threadfence_block() {}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  int lane = cuda_emulation::self->lane;
  return cuda_emulation::shuffle(mask, value, (lane & -width) | (source & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int other, int width = 32) {
  return cuda_emulation::shuffle(mask, value, cuda_emulation::self->lane ^ other);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  int lane = cuda_emulation::self->lane, source = lane + static_cast<int>(delta);
  return cuda_emulation::shuffle(mask, value, source / width == lane / width ? source : lane);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  int lane = cuda_emulation::self->lane, source = lane - static_cast<int>(delta);
  return cuda_emulation::shuffle(mask, value, source >= (lane & -width) ? source : lane);
}
inline unsigned __ballot_sync(unsigned mask, bool predicate) {
  return cuda_emulation::ballot(mask, predicate);
}
inline bool __any_sync(unsigned mask, bool predicate) {
  return cuda_emulation::ballot(mask, predicate) != 0;
}
inline bool __all_sync(unsigned mask, bool predicate) {
  return cuda_emulation::ballot(mask, !predicate) == 0;
}
inline unsigned __activemask() {
  return cuda_emulation::block->warps[cuda_emulation::self->warp].live;
}

template <class T>
T atomicAdd(T* address, T value) {
  static_assert(std::is_integral_v<T>, "atomics on floats make a result depend on timing");
  return __atomic_fetch_add(address, value, __ATOMIC_ACQ_REL);
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  unsigned old = __atomic_load_n(address, __ATOMIC_ACQUIRE);
  while (!__atomic_compare_exchange_n(address, &old, old >= limit ? 0 : old + 1, false,
                                      __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
  }
  return old;
}

template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcg(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
template <class T>
void __stcs(T* address, T value) {
  *address = value;
}
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return std::countl_zero(static_cast<unsigned>(bits)); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
using std::max;
using std::min;
