// A dense network with ReLU between the layers and a linear output, learning by Adam: pure C++ over arrays that the
// caller owns; no allocation, no state, no Napi. Results are the same to the bit on one machine, whatever the batch.
//
// Layout. parameters, gradient and both moments: for each layer its kernel [in × out], row-major as in tfjs, then its
// bias [out]. input: [batch × sizes[0]], row-major; output: [batch × sizes[layers]]. Pointers need float alignment
// only.
#pragma once
#include <cstddef>
#include <cstdint>

namespace btrmind::mlp {

constexpr size_t kMaxLayers = 16;
constexpr size_t kMaxWidth = 8192;
constexpr size_t kMaxBatch = 65536;

struct Shape {
  size_t layers = 0;
  size_t sizes[kMaxLayers + 1] = {};  // sizes[0] features, …, sizes[layers] actions
};

size_t parameterCount(const Shape& shape);
// Floats of scratch that forward() and gradient() need for a batch.
size_t scratchLength(const Shape& shape, size_t batch);

void forward(const Shape& shape, const float* parameters, const float* input, size_t batch, float* output,
             float* scratch);

struct Batch {
  size_t size;
  const float* input;      // [size × sizes[0]]
  const uint8_t* actions;  // [size], each below sizes[layers]
  const float* targets;    // [size]
  const float* weights;    // [size] importance weights, or null for ones
};

// With d = Q(s, a) − target:  loss = 1/B Σ w·huber(d),  huber(d) = d²/2 if |d| ≤ δ, else δ(|d| − δ/2).
// δ = ∞ is half the squared error. Overwrites `gradient` and `errors` ([size], d); gives the loss.
double gradient(const Shape& shape, const float* parameters, const Batch& batch, double huberDelta, float* gradient,
                float* errors, float* scratch);

struct Adam {
  uint64_t step;  // 1 for the first
  double learningRate;
  double beta1;
  double beta2;
  double epsilon;
  double clipNorm;  // the gradient is scaled down to this global norm; ∞ for never
};

// g ← g·min(1, clip/‖g‖);  m ← β1·m + (1−β1)·g;  v ← β2·v + (1−β2)·g²;
// θ ← θ − α · (m/(1−β1ᵗ)) / (√(v/(1−β2ᵗ)) + ε), as tfjs has it.
// Gives ‖g‖ before the clipping; when that is not finite nothing was changed.
double adam(float* parameters, const float* gradient, float* first, float* second, size_t count, const Adam& options);

// target ← target + ratio·(source − target)
void blend(float* target, const float* source, size_t count, float ratio);

// "avx2" where the processor has it (with FMA), else "baseline". selectKernel changes it for the whole process, so
// that both can be tested on one machine; false when there is no such kernel here.
const char* kernelName();
bool selectKernel(const char* name);

}  // namespace btrmind::mlp
