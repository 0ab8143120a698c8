// Sums over the pixels of a map, by channel.
#pragma once

#include <cstdint>
#include <vector>

namespace binaural::layers {

// Sums are computed in at most this many parts and then added up. The number of parts depends on
// the shape alone, so that the sums are the same bits for any number of threads.
constexpr int64_t kMostParts = 32;

// Two sums per channel, of each part and then of all.
struct Sums {
  Sums(int64_t parts, int64_t channels)
      : parts(parts), channels(channels), values(2 * parts * channels) {}
  double* first(int64_t part) { return values.data() + 2 * part * channels; }
  double* second(int64_t part) { return first(part) + channels; }
  // Adds up the parts in order, then the channels that share a norm; the result is in first(0) and
  // second(0).
  void combine(int64_t norms) {
    const size_t size = 2 * channels;
    for (size_t i = size; i < values.size(); ++i) values[i % size] += values[i];
    for (int64_t c = norms; c < channels; ++c) {
      first(0)[c % norms] += first(0)[c];
      second(0)[c % norms] += second(0)[c];
    }
  }
  int64_t parts, channels;
  std::vector<double> values;
};

}  // namespace binaural::layers
