// Files that a walk saw, acted upon while they still are what it saw.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <vector>

#include "../beneath.h"
#include "../extents.h"
#include "../task.h"
#include "files.h"
#include "ops.h"

namespace btrmind {

namespace {

bool isTyped(const Args& args, size_t index, napi_typedarray_type type) {
  return args[index].IsTypedArray() && args[index].As<Napi::TypedArray>().TypedArrayType() == type;
}

// Not a number, negative or past 2^53: nothing's; the comparison would only round it.
bool isWhole(double value) { return value >= 0 && value < 0x1p53; }

}  // namespace

std::optional<RootRef::Seen> readSeen(const Args& args, size_t index) {
  if (args.absent(index)) return std::nullopt;
  auto wrong = Napi::TypeError::New(args.env(), "directory: expected Float64Array [inode, subvolume id]");
  if (!isTyped(args, index, napi_float64_array)) throw wrong;
  auto seen = args[index].As<Napi::Float64Array>();
  if (seen.ElementLength() != 2 || !isWhole(seen[0]) || !isWhole(seen[1])) throw wrong;
  return RootRef::Seen{static_cast<uint64_t>(seen[0]), static_cast<uint64_t>(seen[1])};
}

RootRef readRoot(const Args& args, size_t first) { return {args.path(first), readSeen(args, first + 1)}; }

std::vector<FileRef> readRefs(const Args& args, size_t first) {
  auto wrong = [&](const char* what) { return Napi::TypeError::New(args.env(), what); };
  if (!isTyped(args, first, napi_uint8_array) || !isTyped(args, first + 1, napi_uint32_array) ||
      !isTyped(args, first + 2, napi_float64_array))
    throw wrong("files: expected Uint8Array, Uint32Array, Float64Array");
  auto paths = args[first].As<Napi::Uint8Array>();
  auto ends = args[first + 1].As<Napi::Uint32Array>();
  auto identity = args[first + 2].As<Napi::Float64Array>();
  constexpr size_t kColumns = 5;
  if (identity.ElementLength() != ends.ElementLength() * kColumns) throw wrong("files: columns of different length");
  std::vector<FileRef> refs;
  refs.reserve(ends.ElementLength());
  size_t start = 0;
  for (size_t i = 0; i < ends.ElementLength(); i++) {
    size_t end = ends[i];
    if (end < start || end > paths.ByteLength()) throw wrong("files: path offsets out of order");
    const double* of = identity.Data() + i * kColumns;
    if (!isWhole(of[0]) || !isWhole(of[1])) throw wrong("files: inode or size");
    refs.push_back({std::string(reinterpret_cast<const char*>(paths.Data()) + start, end - start),
                    static_cast<uint64_t>(of[0]), static_cast<uint64_t>(of[1]), of[2], of[3], of[4]});
    start = end;
  }
  return refs;
}

namespace {

// Of each file, as far as it came.
struct Outcomes {
  std::vector<int32_t> codes;
  bool cancelled = false;
};

Napi::Value toJs(Napi::Env env, const std::vector<int32_t>& codes) {
  Napi::Object names = Napi::Object::New(env);
  std::map<int, bool> seen;
  for (int code : codes) {
    if (code != 0 && !seen[code]) names.Set(std::to_string(code), outcomeName(code));
    seen[code] = true;
  }
  Napi::Object out = Napi::Object::New(env);
  out.Set("codes", copied<Napi::Int32Array>(env, codes.data(), codes.size()));
  out.Set("names", names);
  return out;
}

// Between the comparison and unlinkat another process may put another file in this place, within a microsecond or two,
// and then that one goes. Nothing else can: the directory is pinned, unlinkat follows no symlink and removes no
// directory.
int removeFile(const Root& root, const FileRef& ref) {
  Pinned pinned;
  int code = root.pin(ref, O_PATH, pinned);
  if (code != 0) return code;
  return unlinkat(pinned.parent.get(), pinned.name, 0) < 0 ? errno : 0;
}

// removeFiles(ticket, handle, root, seen, paths, ends, identity) → { codes, names }
// On the long lane: a caller that cancels must hear what was removed, so it settles when it really has stopped.
Napi::Value removeFiles(const Args& args) {
  HandlePtr handle = args.handle(1);
  return longRunning(
      args, handle,
      [handle, ref = readRoot(args, 2), refs = readRefs(args, 4)](const Cancelled& cancelled) {
        Root root(handle, ref);
        Outcomes outcomes;
        for (const FileRef& ref : refs) {
          if ((outcomes.cancelled = cancelled)) break;
          outcomes.codes.push_back(removeFile(root, ref));
        }
        return outcomes;
      },
      [](Napi::Env env, Outcomes& outcomes) {
        if (!outcomes.cancelled) return toJs(env, outcomes.codes);
        Failure failure{ECANCELED, nullptr, "remove all files"};
        failure.output = [codes = outcomes.codes](Napi::Env env) { return toJs(env, codes); };
        throw failure;
      },
      nullptr);
}

// fileExtents(ticket, handle, root, seen, paths, ends, identity) of one file → { code, extents, bytes, … }
Napi::Value fileExtents(const Args& args) {
  struct Out {
    int code;
    Extents extents;
    std::optional<uint64_t> diskBytes = std::nullopt;
  };
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle, ref = readRoot(args, 2), refs = readRefs(args, 4)](const Cancelled& cancelled) {
        Root root(handle, ref);
        Pinned pinned;
        Out out{root.pin(refs.at(0), O_RDONLY | O_NONBLOCK | O_NOCTTY, pinned), {}};
        if (out.code != 0) return out;
        out.code = readExtents(pinned.file.get(), 0, UINT64_MAX, cancelled, out.extents);
        if (out.code == 0) out.diskBytes = diskBytes(pinned.file.get(), refs[0].inode);
        return out;
      },
      [](Napi::Env env, Out& out) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        object.Set("code", outcomeName(out.code));
        object.Set("extents", number(env, out.extents.count, "extents"));
        object.Set("bytes", number(env, out.extents.bytes, "bytes"));
        object.Set("sharedBytes", number(env, out.extents.sharedBytes, "sharedBytes"));
        object.Set("compressedBytes", number(env, out.extents.compressedBytes, "compressedBytes"));
        if (out.diskBytes) object.Set("diskBytes", number(env, *out.diskBytes, "diskBytes"));
        return object;
      });
}

}  // namespace

void defineFiles(Napi::Env env, Napi::Object exports) {
  define<removeFiles>(env, exports, "removeFiles");
  define<fileExtents>(env, exports, "fileExtents");
}

}  // namespace btrmind
