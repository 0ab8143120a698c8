#include "common/memory.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <new>
#include <unordered_map>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace binaural {
namespace {

std::atomic<bool> poisoned{false};

}  // namespace

void poison(void* data, size_t bytes) {
  // NaN in every floating-point type.
  if (bytes > 0 && poisoned.load(std::memory_order_relaxed)) std::memset(data, 0xff, bytes);
}

void* thread_scratch(size_t bytes) {
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<void, Free> memory;
  thread_local size_t size = 0;
  if (bytes > size) {
    memory.reset();
    size = 0;
    const size_t rounded = (bytes + 63) / 64 * 64;
    memory.reset(std::aligned_alloc(64, rounded));
    if (memory == nullptr) throw std::bad_alloc();
    size = rounded;
  }
  poison(memory.get(), bytes);
  return memory.get();
}

namespace {

constexpr size_t kPage = size_t{2} << 20;      // a large page
constexpr size_t kMostKept = size_t{1} << 30;  // bytes

void prefer_large_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // If the system refuses, nothing changes.
  madvise(data, bytes, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

class Pool {
 public:
  void* take(size_t bytes) {
    const size_t rounded = (bytes + kPage - 1) / kPage * kPage;
    const std::lock_guard lock(mutex_);
    for (auto piece = kept_.begin(); piece != kept_.end(); ++piece) {
      if (piece->bytes < rounded || piece->bytes > rounded + rounded / 4) continue;
      void* data = piece->data;
      bytes_kept_ -= piece->bytes;
      kept_.erase(piece);
      return data;
    }
    void* data = std::aligned_alloc(kPage, rounded);
    if (data == nullptr) throw std::bad_alloc();
    prefer_large_pages(data, rounded);
    sizes_[data] = rounded;
    return data;
  }

  void give_back(void* data) {
    const std::lock_guard lock(mutex_);
    kept_.push_front({data, sizes_.at(data)});
    bytes_kept_ += kept_.front().bytes;
    shrink(kMostKept);
  }

  void release() {
    const std::lock_guard lock(mutex_);
    shrink(0);
  }

 private:
  struct Piece {
    void* data;
    size_t bytes;
  };

  // Frees the oldest first.
  void shrink(size_t most) {
    while (bytes_kept_ > most) {
      const Piece oldest = kept_.back();
      kept_.pop_back();
      bytes_kept_ -= oldest.bytes;
      sizes_.erase(oldest.data);
      std::free(oldest.data);
    }
  }

  std::mutex mutex_;
  std::list<Piece> kept_;  // the latest first
  size_t bytes_kept_ = 0;
  std::unordered_map<void*, size_t> sizes_;  // of all that is kept or taken
};

// Never destroyed: tensors may outlive whatever is destroyed when the process ends.
Pool& pool() {
  static Pool& pool = *new Pool;
  return pool;
}

}  // namespace

void* take_memory(size_t bytes) {
  void* data = pool().take(bytes);
  poison(data, bytes);
  return data;
}
void give_back_memory(void* data) { pool().give_back(data); }
void release_memory() { pool().release(); }

}  // namespace binaural

void binaural_poison_memory(int on) { binaural::poisoned = on != 0; }
