#include "targets.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>

#include "block_groups.h"
#include "chunks.h"
#include "defragment.h"
#include "directories.h"
#include "extents.h"
#include "fragmentation.h"
#include "handle.h"
#include "lzo_size.h"
#include "place.h"
#include "quota_tree.h"
#include "scan.h"
#include "space_reading.h"
#include "subvolume_tree.h"
#include "sysfs.h"
#include "tally.h"
#include "tape.h"
#include "tree_search.h"
#include "users.h"

namespace fuzz {

using namespace btrmind;

namespace {

const Cancelled kGoOn{false};

void require(bool holds) {
  if (!holds) abort();
}

// Its bytes end where the heap block ends.
struct Exact {
  explicit Exact(const std::string& text) : size(text.size()), bytes(new uint8_t[text.size()]) {
    std::copy(text.begin(), text.end(), bytes.get());
  }
  size_t size;
  std::unique_ptr<uint8_t[]> bytes;
};

}  // namespace

// The walk over a search's answer, and names, whose lengths are in the items.
void answer() {
  auto count = static_cast<uint32_t>(parameter());
  Exact page(rest());
  uint32_t seen = 0;
  bool more = true;
  int returned = walkItems(
      page.bytes.get(), page.size, count,
      [&](const Item& item) {
        seen++;
        require(item.data >= page.bytes.get() && item.data + item.length <= page.bytes.get() + page.size);
        Exact alone(std::string(reinterpret_cast<const char*>(item.data), item.length));
        forEachName(Item{item.key, alone.bytes.get(), item.length},
                    [&](uint64_t, std::string_view name) { require(name.size() <= item.length); });
        return true;
      },
      more);
  require(more && (returned < 0 ? seen < count : seen == count));
}

void scan() {
  ScanOptions options;
  options.since = parameter();
  options.extents = parameterFlag();
  options.sharing = parameterFlag();
  size_t rows = 1 + parameter() % 64;
  Scan scan(ScopedFd(descriptor()), options);
  for (;;) {
    Batch batch = scan.next(rows, kGoOn);
    require(batch.values.size() == batch.rows() * batch.columns);
    require(std::is_sorted(batch.ends.begin(), batch.ends.end()));
    require(batch.ends.empty() ? batch.paths.empty() : batch.ends.back() == batch.paths.size());
    if (batch.done) return;
  }
}

// A scan of a range that only adds up.
void tally() {
  ScanOptions options;
  size_t most = parameter() % 8;
  options.tally = std::make_shared<Tally>(most, parameter() % 4);
  options.prefix = "above/";
  uint64_t first = parameter(), last = parameter();
  Scan scan(ScopedFd(descriptor()), options);
  scan.range(first, last);
  while (!scan.next(64, kGoOn).done) continue;
  Tally::Figures found = options.tally->read();
  require(found.sums.files <= found.sums.inodes && found.sums.brokenFiles <= found.sums.files);
  for (const Tally::Broken& file : found.worst) require(file.breaks > 0);
}

void subvolumes() {
  ScopedFd fd(descriptor());
  forEachSubvolume(fd.get(), kGoOn,
                   [](const SubvolumeInfo&, const std::string& path, size_t) { require(!path.empty()); });
}

void users() {
  ScopedFd fd(descriptor());
  uint64_t logical = parameter();
  usersOf(fd.get(), logical, parameterFlag(), kGoOn);
  Directories directories(fd.get());
  uint64_t tree = parameter();
  namesOf(fd.get(), tree, parameter(), directories);
}

void chunks() {
  ScopedFd fd(descriptor());
  ChunkMap map;
  std::vector<Chunks> rows;
  for (uint64_t generation = 1; generation < 4; generation++) map.read(fd.get(), generation, rows);
}

void blockGroups() {
  ScopedFd fd(descriptor());
  BlockGroups found = readBlockGroups(fd.get(), kGoOn);
  require(found.groups.size() == 4 * found.flags.size());
  double stripes = 0;
  for (size_t i = 3; i < found.groups.size(); i += 4) stripes += found.groups[i];
  require(stripes * 2 == static_cast<double>(found.stripes.size()));
  readDeviceExtents(fd.get(), parameter());
}

void quota() {
  ScopedFd fd(descriptor());
  auto found = readQuota(fd.get(), kGoOn);
  if (found) require(found->infos.size() % 6 == 0 && found->limits.size() % 4 == 0 && found->relations.size() % 4 == 0);
}

void extents() {
  ScopedFd fd(descriptor());
  Extents found;
  uint64_t start = parameter(), length = parameter();
  readExtents(fd.get(), start, length, kGoOn, found);
  uint64_t inode = parameter();
  diskBytes(fd.get(), inode);
  compressible(fd.get(), inode);
}

void defragment() {
  ScopedFd fd(descriptor());
  DefragmentRequest request;
  request.start = parameter();
  request.length = parameter();
  request.skipShared = parameterFlag();
  request.skipCompressed = parameterFlag();
  const Range range = rangeOf(request, parameter());
  require(range.start <= range.end);
  const uint64_t length = range.end - range.start;
  request.slice = 1 + length / 16;
  std::atomic<uint64_t> done{0};
  Defragmented out;
  btrmind::defragment(fd.get(), range, request, kGoOn, done, out);
  require(out.given <= length && done <= length && (out.code != 0 || done == length));
}

void fragmentation() {
  ScopedFd fd(descriptor());
  Fragmentation found;
  sampleFragmentation(fd.get(), found);
  require(found.breaks <= found.extents);
}

void space() {
  Handle handle(descriptor());
  Reading found = readSpace(handle, 127);
  for (const Space& row : found.spaces) require(typeIndex(row.flags) < 4);
  for (const Device& device : found.devices) require(std::string(device.path()).size() < sizeof device.info.path);
}

// mountinfo, and the numbers of sysfs.
void text() {
  std::string given = rest();
  for (const Mount& mount : parseMounts(given)) {
    isBeneath(mount.point, mount.root);
    if (mount.point == "/" || isBeneath(mount.point + "/a", mount.point)) volumePath(mount, mount.point + "/a");
  }
  uint64_t number = 0;
  if (parseNumber(given, number) == 0) {
    size_t digits = given.find_first_not_of('0');
    require((digits == std::string::npos ? "0" : given.substr(digits)) == std::to_string(number));
  }
}

void lzoSize() {
  const size_t sector = size_t{4096} << (parameter() % 5);
  Exact data(rest().substr(0, kCompressionBlock));
  size_t size = lzoDiskBytes(data.bytes.get(), data.size, sector);
  require(size % sector == 0 && size <= (data.size + sector - 1) / sector * sector);
}

}  // namespace fuzz
