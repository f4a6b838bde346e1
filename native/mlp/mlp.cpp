#include "mlp.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace btrmind::mlp {

namespace {

constexpr size_t kMaxPanel = 16;

// Element (i, j) is data[i * row + j * column].
struct Matrix {
  const float* data;
  size_t row, column;
};

// Adam's factors, rounded to float once. The bias corrections are taken out of the loop, which leaves one division:
// α·(m/c₁) / (√(v/c₂) + ε)  =  (α√c₂/c₁)·m / (√v + ε√c₂).
struct AdamScalars {
  float scale, beta1, rest1, beta2, rest2, rate, epsilon;
};

struct Kernels {
  void (*multiply)(Matrix a, Matrix b, float* c, size_t m, size_t depth, size_t n, float* panel);
  void (*multiplyRow)(const float* x, const float* kernel, const float* bias, float* y, size_t in, size_t out,
                      bool hidden);
  void (*addBias)(float* y, const float* bias, size_t batch, size_t width, bool hidden);
  void (*sumRows)(const float* delta, size_t batch, size_t width, float* sums);
  void (*maskDelta)(float* delta, const float* activation, size_t count);
  void (*adam)(float* parameters, const float* gradient, float* first, float* second, size_t count,
               const AdamScalars& scalars);
  void (*blend)(float* target, const float* source, size_t count, float ratio);
};

}  // namespace

namespace baseline {
#define BTRMIND_LANES 4
#include "kernels.inc"
#undef BTRMIND_LANES
}  // namespace baseline

// Chosen at run time rather than by target_clones, whose ifuncs musl and the sanitizers do not have.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace avx2 {
#define BTRMIND_LANES 8
#include "kernels.inc"
#undef BTRMIND_LANES
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

namespace {

bool hasAvx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

const Kernels* best() {
#if defined(__x86_64__)
  if (hasAvx2()) return &avx2::kTable;
#endif
  return &baseline::kTable;
}

std::atomic<const Kernels*>& selected() {
  static std::atomic<const Kernels*> kernels{best()};
  return kernels;
}

const Kernels& kernels() { return *selected().load(std::memory_order_relaxed); }

size_t widest(const Shape& shape) { return *std::max_element(shape.sizes, shape.sizes + shape.layers + 1); }

size_t layerParameters(const Shape& shape, size_t layer) { return (shape.sizes[layer] + 1) * shape.sizes[layer + 1]; }

// One layer: y[batch × out] = x·W + b, through ReLU if hidden.
void layer(const float* x, const float* kernel, float* y, size_t batch, size_t in, size_t out, bool hidden,
           float* panel) {
  const float* bias = kernel + in * out;
  if (batch == 1) return kernels().multiplyRow(x, kernel, bias, y, in, out, hidden);
  kernels().multiply({x, in, 1}, {kernel, out, 1}, y, batch, in, out, panel);
  kernels().addBias(y, bias, batch, out, hidden);
}

}  // namespace

const char* kernelName() { return &kernels() == &baseline::kTable ? "baseline" : "avx2"; }

bool selectKernel(const char* name) {
  if (std::strcmp(name, "baseline") == 0) {
    selected() = &baseline::kTable;
    return true;
  }
  if (std::strcmp(name, "avx2") != 0 || !hasAvx2()) return false;
  selected() = best();
  return true;
}

size_t parameterCount(const Shape& shape) {
  size_t count = 0;
  for (size_t l = 0; l < shape.layers; l++) count += layerParameters(shape, l);
  return count;
}

// activations of every layer | two deltas | the packed panel
size_t scratchLength(const Shape& shape, size_t batch) {
  size_t widths = 2 * widest(shape);
  for (size_t l = 1; l <= shape.layers; l++) widths += shape.sizes[l];
  return batch * widths + kMaxPanel * std::max(batch, widest(shape));
}

void forward(const Shape& shape, const float* parameters, const float* input, size_t batch, float* output,
             float* scratch) {
  float* const spare[2] = {scratch, scratch + batch * widest(shape)};
  float* const panel = scratch + 2 * batch * widest(shape);
  const float* x = input;
  for (size_t l = 0; l < shape.layers; l++) {
    const bool hidden = l + 1 < shape.layers;
    float* y = hidden ? spare[l % 2] : output;
    layer(x, parameters, y, batch, shape.sizes[l], shape.sizes[l + 1], hidden, panel);
    parameters += layerParameters(shape, l);
    x = y;
  }
}

double gradient(const Shape& shape, const float* parameters, const Batch& batch, double huberDelta, float* gradient,
                float* errors, float* scratch) {
  const size_t size = batch.size, last = shape.layers, actions = shape.sizes[last];
  const float* activations[kMaxLayers + 1] = {batch.input};
  float* delta = scratch;
  float* nextDelta = delta + size * widest(shape);
  float* panel = nextDelta + size * widest(shape);
  float* free = panel + kMaxPanel * std::max(size, widest(shape));
  const float* at = parameters;
  for (size_t l = 0; l < last; l++) {
    layer(activations[l], at, free, size, shape.sizes[l], shape.sizes[l + 1], l + 1 < last, panel);
    activations[l + 1] = free;
    free += size * shape.sizes[l + 1];
    at += layerParameters(shape, l);
  }

  double loss = 0;
  std::fill_n(delta, size * actions, 0.0f);
  for (size_t b = 0; b < size; b++) {
    const size_t chosen = b * actions + batch.actions[b];
    const double error = static_cast<double>(activations[last][chosen]) - batch.targets[b];
    const double magnitude = std::fabs(error);
    const double share = (batch.weights == nullptr ? 1.0 : batch.weights[b]) / static_cast<double>(size);
    const bool inside = !(magnitude > huberDelta);  // NaN counts as inside and so reaches the loss
    loss += share * (inside ? 0.5 * error * error : huberDelta * (magnitude - 0.5 * huberDelta));
    delta[chosen] = static_cast<float>(share * (inside ? error : std::copysign(huberDelta, error)));
    errors[b] = static_cast<float>(error);
  }

  // ∂L/∂W = xᵀ·δ,  ∂L/∂b = Σ δ,  δ of the layer below = δ·Wᵀ where its ReLU was open.
  size_t offset = parameterCount(shape);
  for (size_t l = last; l-- > 0;) {
    const size_t in = shape.sizes[l], out = shape.sizes[l + 1];
    offset -= layerParameters(shape, l);
    kernels().multiply({activations[l], 1, in}, {delta, out, 1}, gradient + offset, in, size, out, panel);
    kernels().sumRows(delta, size, out, gradient + offset + in * out);
    if (l == 0) break;
    kernels().multiply({delta, out, 1}, {parameters + offset, 1, out}, nextDelta, size, out, in, panel);
    kernels().maskDelta(nextDelta, activations[l], size * in);
    std::swap(delta, nextDelta);
  }
  return loss;
}

// Four sums in double: nothing overflows, and the order is fixed.
static double globalNorm(const float* gradient, size_t count) {
  double sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
  const auto square = [](double x) { return x * x; };
  size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    sum0 += square(gradient[i]);
    sum1 += square(gradient[i + 1]);
    sum2 += square(gradient[i + 2]);
    sum3 += square(gradient[i + 3]);
  }
  for (; i < count; i++) sum0 += square(gradient[i]);
  return std::sqrt(sum0 + sum1 + sum2 + sum3);
}

double adam(float* parameters, const float* gradient, float* first, float* second, size_t count, const Adam& options) {
  const double norm = globalNorm(gradient, count);
  if (!std::isfinite(norm)) return norm;
  const double step = static_cast<double>(options.step);
  AdamScalars scalars;
  scalars.scale = static_cast<float>(norm > options.clipNorm ? options.clipNorm / norm : 1);
  scalars.beta1 = static_cast<float>(options.beta1);
  scalars.rest1 = static_cast<float>(1 - options.beta1);
  scalars.beta2 = static_cast<float>(options.beta2);
  scalars.rest2 = static_cast<float>(1 - options.beta2);
  const double correction1 = 1 - std::pow(options.beta1, step), root2 = std::sqrt(1 - std::pow(options.beta2, step));
  scalars.rate = static_cast<float>(options.learningRate * root2 / correction1);
  scalars.epsilon = static_cast<float>(options.epsilon * root2);
  kernels().adam(parameters, gradient, first, second, count, scalars);
  return norm;
}

void blend(float* target, const float* source, size_t count, float ratio) {
  kernels().blend(target, source, count, ratio);
}

}  // namespace btrmind::mlp
