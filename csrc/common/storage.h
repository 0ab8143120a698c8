// Storage types of 16 bits: arithmetic is done in float.
#pragma once

#include <cstdint>

namespace binaural {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

}  // namespace binaural
