// The network's arithmetic on JavaScript's Float32Arrays, in place. Synchronous: these take microseconds, less than a
// hop to a thread. Every length is checked here against the shape; what other code could still change in the middle
// (sizes, actions) is copied first.
#include "../mlp/mlp.h"

#include <cmath>
#include <vector>

#include "../js.h"
#include "ops.h"

namespace btrmind {

namespace {

template <class T>
struct Span {
  T* data;
  size_t length;
};

template <class T>
struct Kind;
template <>
struct Kind<float> {
  static constexpr napi_typedarray_type type = napi_float32_array;
  static constexpr const char* name = "Float32Array";
};
template <>
struct Kind<uint32_t> {
  static constexpr napi_typedarray_type type = napi_uint32_array;
  static constexpr const char* name = "Uint32Array";
};
template <>
struct Kind<uint8_t> {
  static constexpr napi_typedarray_type type = napi_uint8_array;
  static constexpr const char* name = "Uint8Array";
};

template <class T>
Span<T> array(const Args& args, size_t index, const char* name) {
  napi_env env = args.env();
  bool typed = false;
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void* data = nullptr;
  if (napi_is_typedarray(env, args[index], &typed) != napi_ok || !typed ||
      napi_get_typedarray_info(env, args[index], &type, &length, &data, nullptr, nullptr) != napi_ok ||
      type != Kind<T>::type)
    throw Napi::TypeError::New(env, std::string(name) + ": expected a " + Kind<T>::name);
  return {static_cast<T*>(data), length};
}

[[noreturn]] void outOfRange(const Args& args, const std::string& what) {
  throw Napi::RangeError::New(args.env(), what);
}

// A Float32Array of exactly `length` elements.
float* floats(const Args& args, size_t index, const char* name, size_t length) {
  const Span<float> span = array<float>(args, index, name);
  if (span.length != length)
    outOfRange(args, std::string(name) + ": expected " + std::to_string(length) + " elements, got " +
                         std::to_string(span.length));
  return span.data;
}

float* scratchFor(const Args& args, size_t index, const mlp::Shape& shape, size_t batch) {
  const Span<float> span = array<float>(args, index, "scratch");
  const size_t needed = mlp::scratchLength(shape, batch);
  if (span.length < needed)
    outOfRange(
        args, "scratch: expected at least " + std::to_string(needed) + " elements, got " + std::to_string(span.length));
  return span.data;
}

mlp::Shape shapeOf(const Args& args, size_t index) {
  const Span<uint32_t> sizes = array<uint32_t>(args, index, "sizes");
  if (sizes.length < 2 || sizes.length > mlp::kMaxLayers + 1)
    outOfRange(args, "sizes: expected 2 to " + std::to_string(mlp::kMaxLayers + 1) + " of them, got " +
                         std::to_string(sizes.length));
  mlp::Shape shape;
  shape.layers = sizes.length - 1;
  for (size_t i = 0; i < sizes.length; i++) {
    if (sizes.data[i] < 1 || sizes.data[i] > mlp::kMaxWidth)
      outOfRange(args,
                 "sizes: expected 1 to " + std::to_string(mlp::kMaxWidth) + ", got " + std::to_string(sizes.data[i]));
    shape.sizes[i] = sizes.data[i];
  }
  return shape;
}

size_t batchOf(const Args& args, size_t batch) {
  if (batch < 1 || batch > mlp::kMaxBatch)
    outOfRange(args, "batch: expected 1 to " + std::to_string(mlp::kMaxBatch) + ", got " + std::to_string(batch));
  return batch;
}

double real(const Args& args, size_t index, const char* name, double low, double high) {
  const double value = args.real(index);
  if (!(value >= low && value <= high)) outOfRange(args, std::string(name) + ": " + std::to_string(value));
  return value;
}

// mlpScratchLength(sizes, batch) → floats
Napi::Value scratchLength(const Args& args) {
  const mlp::Shape shape = shapeOf(args, 0);
  return number(args.env(), mlp::scratchLength(shape, batchOf(args, args.u64(1))), "scratch");
}

// mlpForward(sizes, parameters, input, output, scratch)
Napi::Value forward(const Args& args) {
  const mlp::Shape shape = shapeOf(args, 0);
  const Span<float> input = array<float>(args, 2, "input");
  const size_t features = shape.sizes[0], actions = shape.sizes[shape.layers];
  const size_t batch = batchOf(args, input.length / features);
  if (input.length != batch * features)
    outOfRange(
        args, "input: expected rows of " + std::to_string(features) + " elements, got " + std::to_string(input.length));
  mlp::forward(shape, floats(args, 1, "parameters", mlp::parameterCount(shape)), input.data, batch,
               floats(args, 3, "output", batch * actions), scratchFor(args, 4, shape, batch));
  return args.env().Undefined();
}

// mlpGradient(sizes, parameters, input, actions, targets, weights | undefined, huberDelta, gradient, errors, scratch)
// → loss
Napi::Value gradient(const Args& args) {
  const mlp::Shape shape = shapeOf(args, 0);
  const Span<uint8_t> chosen = array<uint8_t>(args, 3, "actions");
  const size_t parameters = mlp::parameterCount(shape), size = batchOf(args, chosen.length);
  const std::vector<uint8_t> actions(chosen.data, chosen.data + size);
  for (const uint8_t action : actions)
    if (action >= shape.sizes[shape.layers]) outOfRange(args, "actions: no action " + std::to_string(action));
  mlp::Batch batch;
  batch.size = size;
  batch.input = floats(args, 2, "input", size * shape.sizes[0]);
  batch.actions = actions.data();
  batch.targets = floats(args, 4, "targets", size);
  batch.weights = args.absent(5) ? nullptr : floats(args, 5, "weights", size);
  const double delta = real(args, 6, "huberDelta", 0, INFINITY);
  return Napi::Number::New(args.env(),
                           mlp::gradient(shape, floats(args, 1, "parameters", parameters), batch, delta,
                                         floats(args, 7, "gradient", parameters), floats(args, 8, "errors", size),
                                         scratchFor(args, 9, shape, size)));
}

// mlpAdam(parameters, gradient, first, second, step, learningRate, beta1, beta2, epsilon, clipNorm) → ‖gradient‖
Napi::Value adam(const Args& args) {
  const Span<float> parameters = array<float>(args, 0, "parameters");
  const float* gradient = floats(args, 1, "gradient", parameters.length);
  float* first = floats(args, 2, "first", parameters.length);
  float* second = floats(args, 3, "second", parameters.length);
  mlp::Adam options;
  options.step = args.u64(4);
  if (options.step < 1) outOfRange(args, "step: the first is 1");
  options.learningRate = real(args, 5, "learningRate", 0, 1e3);
  options.beta1 = real(args, 6, "beta1", 0, 1);
  options.beta2 = real(args, 7, "beta2", 0, 1);
  options.epsilon = real(args, 8, "epsilon", 0, 1);
  options.clipNorm = real(args, 9, "clipNorm", 0, INFINITY);
  return Napi::Number::New(args.env(), mlp::adam(parameters.data, gradient, first, second, parameters.length, options));
}

// mlpBlend(target, source, ratio)
Napi::Value blend(const Args& args) {
  const Span<float> target = array<float>(args, 0, "target");
  const float* source = floats(args, 1, "source", target.length);
  mlp::blend(target.data, source, target.length, static_cast<float>(real(args, 2, "ratio", 0, 1)));
  return args.env().Undefined();
}

// mlpKernel(name?) → the name in use
Napi::Value kernel(const Args& args) {
  if (!args.absent(0)) {
    if (!args[0].IsString()) throw Napi::TypeError::New(args.env(), "kernel: expected a string");
    const std::string name = args[0].As<Napi::String>().Utf8Value();
    if (!mlp::selectKernel(name.c_str())) outOfRange(args, "kernel: '" + name + "' is not to be had here");
  }
  return Napi::String::New(args.env(), mlp::kernelName());
}

}  // namespace

void defineMlp(Napi::Env env, Napi::Object exports) {
  define<scratchLength>(env, exports, "mlpScratchLength");
  define<forward>(env, exports, "mlpForward");
  define<gradient>(env, exports, "mlpGradient");
  define<adam>(env, exports, "mlpAdam");
  define<blend>(env, exports, "mlpBlend");
  define<kernel>(env, exports, "mlpKernel");
}

}  // namespace btrmind
