// Memory of the CPU kernels.
#pragma once

#include <cstddef>
#include <cstdint>

namespace binaural {

// At least `bytes` of this thread's own memory, aligned to 64 bytes. It is kept for the next call,
// since memory fresh from the system is cleared page by page on first use; what it held is lost
// when it grows.
void* thread_scratch(size_t bytes);

// Asks for large pages below a big buffer that is about to be written for the first time: one page
// fault in place of 512.
void prefer_large_pages(void* data, size_t bytes);

}  // namespace binaural
