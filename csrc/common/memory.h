// Memory of the CPU kernels.
#pragma once

#include <cstddef>
#include <cstdint>

namespace binaural {

// At least `bytes` of this thread's own memory, aligned to 64 bytes. It is kept for the next call,
// since the system clears new memory page by page on first use. Its contents are lost when it
// grows.
void* thread_scratch(size_t bytes);

// Memory for results: at least `bytes`, aligned to 64 bytes, on large pages where the system has
// them. Memory that is given back is kept, up to a limit, for a result of about that size: clearing
// new pages would take as long as a good part of a kernel.
void* take_memory(size_t bytes);
void give_back_memory(void* data);

// A result of at least so many bytes leaves the caches before it is read: it is written past them.
constexpr int64_t kStreamed = int64_t{8} << 20;

// Frees the memory that is kept.
void release_memory();

// Fills memory that is about to be handed out with NaN, if `binaural_poison_memory` asked for it.
void poison(void* data, size_t bytes);

}  // namespace binaural

// For tests: whether memory of results and of threads is filled with NaN before it is written.
extern "C" __attribute__((visibility("default"))) void binaural_poison_memory(int on);
