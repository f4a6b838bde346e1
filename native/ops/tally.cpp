#include "tally.h"

#include <string>
#include <vector>

#include "ops.h"

namespace btrmind {

namespace {

constexpr napi_type_tag kTallyTag{0x6274726d696e642dULL, 0x74616c6c792d3120ULL};
constexpr size_t kMostWorst = 1000;

// tallyOpen(most, depth): synchronous
Napi::Value tallyOpen(const Args& args) {
  size_t most = args.u64(0);
  if (most > kMostWorst) throw Napi::RangeError::New(args.env(), "too many of the most scattered files");
  return wrapShared(args.env(), std::make_shared<Tally>(most, args.u64(1)), kTallyTag);
}

// Numbers of each, and their paths.
struct Named {
  std::vector<double> numbers;
  std::string paths;
  std::vector<uint32_t> ends;
  void add(std::initializer_list<double> row, const std::string& path) {
    numbers.insert(numbers.end(), row);
    paths += path;
    ends.push_back(static_cast<uint32_t>(paths.size()));
  }
  Napi::Object toJs(Napi::Env env) const {
    Napi::Object out = Napi::Object::New(env);
    out.Set("numbers", copied<Napi::Float64Array>(env, numbers.data(), numbers.size()));
    out.Set("paths", copied<Napi::Uint8Array>(env, paths.data(), paths.size()));
    out.Set("ends", copied<Napi::Uint32Array>(env, ends.data(), ends.size()));
    return out;
  }
};

// tallySums(tally) → Float64Array; synchronous
Napi::Value tallySums(const Args& args) {
  const Tally::Sums sums = readTally(args, 0)->sums();
  std::vector<double> numbers{sums.inodes, sums.files,       sums.extents, sums.references, sums.inlined,
                              sums.breaks, sums.brokenFiles, sums.used,    sums.exclusive,  sums.shared};
  for (const Tally::Sums::Bytes& bytes : sums.kinds)
    numbers.insert(numbers.end(), {bytes.disk, bytes.uncompressed, bytes.referenced});
  numbers.insert(numbers.end(), sums.runs.begin(), sums.runs.end());
  return copied<Napi::Float64Array>(args.env(), numbers.data(), numbers.size());
}

// tallyNames(tally) → { worst, directories }; synchronous
Napi::Value tallyNames(const Args& args) {
  Tally::Figures figures = readTally(args, 0)->read();
  Named worst, directories;
  for (const Tally::Broken& broken : figures.worst)
    worst.add({broken.breaks, broken.inode, broken.sizeBytes}, broken.path);
  for (const auto& [path, directory] : figures.directories)
    directories.add({directory.files, directory.used, directory.exclusive}, path);
  Napi::Object out = Napi::Object::New(args.env());
  out.Set("worst", worst.toJs(args.env()));
  out.Set("directories", directories.toJs(args.env()));
  return out;
}

}  // namespace

std::shared_ptr<Tally> readTally(const Args& args, size_t index) {
  return unwrapShared<Tally>(args.env(), args[index], kTallyTag);
}

void defineTally(Napi::Env env, Napi::Object exports) {
  define<tallyOpen>(env, exports, "tallyOpen");
  define<tallySums>(env, exports, "tallySums");
  define<tallyNames>(env, exports, "tallyNames");
}

}  // namespace btrmind
