// Reading arguments and building results. Types are checked again here: a wrong one is a TypeError, never an abort.
#pragma once
#include <napi.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "error.h"
#include "handle.h"

namespace btrmind {

// Exact, or past 2^53 Failure ERANGE rather than rounding. Any thread.
double exact(uint64_t value, const char* what);
Napi::Number number(Napi::Env env, uint64_t value, const char* what);
// 16 raw bytes → "7eb6fe9b-bd59-4617-9023-13bf1747a83b".
std::string uuidText(const uint8_t* bytes);
void appendUuid(std::string& text, const uint8_t* bytes);
bool uuidIsZero(const uint8_t* bytes);

// Arguments of one native function. Every asynchronous function takes its ticket first (see task.h).
class Args {
 public:
  explicit Args(const Napi::CallbackInfo& info) : info_(info) {}
  Napi::Env env() const { return info_.Env(); }
  Napi::Value operator[](size_t index) const { return info_[index]; }
  bool absent(size_t index) const { return info_[index].IsUndefined(); }
  HandlePtr handle(size_t index) const { return unwrapHandle(info_.Env(), info_[index]); }
  // A string, or a Uint8Array of raw bytes (Linux names need not be UTF-8). No NUL inside.
  std::string path(size_t index) const;
  bool boolean(size_t index) const;
  double real(size_t index) const;
  // 0 … 2^53 as a number, or a bigint up to 2^64 − 1.
  uint64_t u64(size_t index) const;

 private:
  [[noreturn]] void wrong(size_t index, const char* wanted) const;
  const Napi::CallbackInfo& info_;
};

// A typed array with a copy of `data`.
template <class Array, class T>
Array copied(Napi::Env env, const T* data, size_t length) {
  Array array = Array::New(env, length);
  if (length > 0) memcpy(array.Data(), data, length * sizeof(T));
  return array;
}

// A share of `object` as an opaque, type-tagged value; JavaScript can only hand it back.
template <class T>
Napi::Value wrapShared(Napi::Env env, std::shared_ptr<T> object, const napi_type_tag& tag) {
  using Owned = std::shared_ptr<T>;
  auto owner = std::make_unique<Owned>(std::move(object));
  auto external = Napi::External<Owned>::New(env, owner.get(), [](Napi::BasicEnv, Owned* owned) { delete owned; });
  owner.release();  // not before: in a worker that is being terminated New() throws
  external.TypeTag(&tag);
  return external;
}

// Its owner, so that it can be reset before the collector comes; null after that.
template <class T>
std::shared_ptr<T>& unwrapShared(Napi::Env env, Napi::Value value, const napi_type_tag& tag) {
  if (!value.IsExternal() || !value.As<Napi::External<std::shared_ptr<T>>>().CheckTypeTag(&tag))
    throw Napi::TypeError::New(env, "not the native object that this function takes");
  return *value.As<Napi::External<std::shared_ptr<T>>>().Data();
}

// Wraps a native function so that a Failure thrown before any thread starts reaches JavaScript as one.
template <Napi::Value (*function)(const Args&)>
Napi::Value guarded(const Napi::CallbackInfo& info) {
  try {
    return function(Args(info));
  } catch (const Failure& failure) {
    throw Napi::Error(info.Env(), toJs(info.Env(), failure));
  }
}

template <Napi::Value (*function)(const Args&)>
void define(Napi::Env env, Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New<guarded<function>>(env, name));
}

}  // namespace btrmind
