#include "js.h"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace btrmind {

namespace {
constexpr uint64_t kMaxExact = 1ULL << 53;
}

double exact(uint64_t value, const char* what) {
  if (value > kMaxExact) throw Failure{ERANGE, nullptr, std::string(what) + " = " + std::to_string(value)};
  return static_cast<double>(value);
}

Napi::Number number(Napi::Env env, uint64_t value, const char* what) {
  return Napi::Number::New(env, exact(value, what));
}

void appendUuid(std::string& text, const uint8_t* bytes) {
  static const char digits[] = "0123456789abcdef";
  char written[36];
  char* to = written;
  for (int i = 0; i < 16; i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10) *to++ = '-';
    *to++ = digits[bytes[i] >> 4];
    *to++ = digits[bytes[i] & 15];
  }
  text.append(written, sizeof written);
}

std::string uuidText(const uint8_t* bytes) {
  std::string text;
  appendUuid(text, bytes);
  return text;
}

bool uuidIsZero(const uint8_t* bytes) {
  static const uint8_t zero[16] = {};
  return memcmp(bytes, zero, sizeof zero) == 0;
}

void Args::wrong(size_t index, const char* wanted) const {
  throw Napi::TypeError::New(info_.Env(), "argument " + std::to_string(index) + ": expected " + wanted + ", got " +
                                              info_[index].ToString().Utf8Value());
}

std::string Args::path(size_t index) const {
  Napi::Value value = info_[index];
  std::string path;
  if (value.IsString()) {
    path = value.As<Napi::String>().Utf8Value();
  } else if (value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array) {
    auto bytes = value.As<Napi::Uint8Array>();
    path.assign(reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength());
  } else {
    wrong(index, "a path (string or Uint8Array)");
  }
  if (path.find('\0') != std::string::npos) throw Failure{EINVAL, nullptr, "a path with a NUL byte"};
  return path;
}

bool Args::boolean(size_t index) const {
  if (!info_[index].IsBoolean()) wrong(index, "a boolean");
  return info_[index].As<Napi::Boolean>().Value();
}

double Args::real(size_t index) const {
  if (!info_[index].IsNumber()) wrong(index, "a number");
  return info_[index].As<Napi::Number>().DoubleValue();
}

uint64_t Args::u64(size_t index) const {
  if (info_[index].IsBigInt()) {
    bool lossless = false;
    uint64_t value = info_[index].As<Napi::BigInt>().Uint64Value(&lossless);
    if (!lossless) wrong(index, "an unsigned 64-bit integer");
    return value;
  }
  double value = real(index);
  if (!(value >= 0 && value <= static_cast<double>(kMaxExact)) || value != std::floor(value))
    wrong(index, "an integer from 0 to 2^53");
  return static_cast<uint64_t>(value);
}

}  // namespace btrmind
