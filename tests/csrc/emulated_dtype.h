// The dtypes of the emulations' C functions, as tests/kernels/emulated.py numbers them. CUDA's
// headers come before this one.
#pragma once

// Calls run(T{}): 0 is float32, 1 bfloat16, 2 float16.
template <class Run>
void with_type(int dtype, Run run) {
  if (dtype == 0) run(float{});
  if (dtype == 1) run(__nv_bfloat16{});
  if (dtype == 2) run(__half{});
}
