// What the processor can do at most: prints GFLOP/s of independent fused multiply-adds, and GB/s of a copy.
// Compiled and run by machine.py with the threads that the benchmark uses.
#define _POSIX_C_SOURCE 199309L
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
typedef float Vector __attribute__((vector_size(4 * LANES)));

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

// Twelve chains hide the latency of two FMA units; more would spill.
static float fused_multiply_adds(long rounds) {
  Vector a0 = {1}, a1 = {2}, a2 = {3}, a3 = {4}, a4 = {5}, a5 = {6}, a6 = {7}, a7 = {8}, a8 = {9},
         a9 = {10}, a10 = {11}, a11 = {12};
  Vector x = (Vector){} + 0.999f, y = (Vector){} + 1e-3f;
  for (long i = 0; i < rounds; ++i) {
    a0 = a0 * x + y, a1 = a1 * x + y, a2 = a2 * x + y, a3 = a3 * x + y;
    a4 = a4 * x + y, a5 = a5 * x + y, a6 = a6 * x + y, a7 = a7 * x + y;
    a8 = a8 * x + y, a9 = a9 * x + y, a10 = a10 * x + y, a11 = a11 * x + y;
    // Keeps the compiler from changing the loop.
    __asm__ volatile("" : "+x"(x), "+x"(y));
  }
  Vector sum = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + a10 + a11;
  float total = 0;
  for (int i = 0; i < LANES; ++i) total += sum[i];
  return total;
}

int main(void) {
  const int repeats = 25;
  const long rounds = 20 * 1000 * 1000L;
  const size_t bytes = (size_t)1 << 28;  // beyond any cache
  char* from = malloc(bytes);
  char* to = malloc(bytes);
  if (from == NULL || to == NULL) return 1;
  double flops = 0, copied = 0;
  volatile float sink = 0;
  const int threads = omp_get_max_threads();
#pragma omp parallel
  {
    const int thread = omp_get_thread_num();
    memset(from + bytes / threads * thread, 1, bytes / threads);
    memset(to + bytes / threads * thread, 2, bytes / threads);
  }
  for (int repeat = 0; repeat < repeats; ++repeat) {
    double start = seconds();
#pragma omp parallel
    sink += fused_multiply_adds(rounds);
    double rate = 12.0 * 2 * LANES * rounds * threads / (seconds() - start);
    if (rate > flops) flops = rate;
    start = seconds();
#pragma omp parallel
    {
      const int thread = omp_get_thread_num();
      memcpy(to + bytes / threads * thread, from + bytes / threads * thread, bytes / threads);
    }
    // A copy reads and writes every byte.
    rate = 2.0 * (bytes / threads * threads) / (seconds() - start);
    if (rate > copied) copied = rate;
  }
  printf("%.1f %.2f\n", flops / 1e9, copied / 1e9);
  free(from);
  free(to);
  return 0;
}
