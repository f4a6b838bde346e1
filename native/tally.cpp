#include "tally.h"

#include <algorithm>

namespace btrmind {

void Tally::add(const Piece* pieces, size_t count) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Piece* piece = pieces; piece < pieces + count; piece++) {
    Sums::Bytes& bytes = sums_.kinds[piece->kind];
    bytes.referenced += static_cast<double>(piece->bytes);
    (piece->isInline ? sums_.inlined : sums_.references)++;
    if (piece->breaks) sums_.breaks++;
    // An extent counts once, however many refer to it.
    if (!piece->isInline && !seen_.add(piece->address)) continue;
    if (!piece->isInline) sums_.extents++;
    bytes.disk += static_cast<double>(piece->diskBytes);
    bytes.uncompressed += static_cast<double>(piece->uncompressedBytes);
  }
}

bool Tally::count(bool isFile, uint64_t references, uint64_t breaks) {
  std::lock_guard<std::mutex> lock(mutex_);
  sums_.inodes++;
  if (!isFile) return false;
  sums_.files++;
  if (references == 0) return false;
  size_t bucket = 0;
  while (bucket + 1 < sums_.runs.size() && (1ULL << bucket) < breaks + 1) bucket++;
  sums_.runs[bucket]++;
  if (breaks == 0) return false;
  sums_.brokenFiles++;
  return worst_.size() < most_ || (most_ > 0 && static_cast<double>(breaks) > worst_.front().breaks);
}

void Tally::keep(Broken broken) {
  std::lock_guard<std::mutex> lock(mutex_);
  worst_.push_back(std::move(broken));
  std::push_heap(worst_.begin(), worst_.end());
  if (worst_.size() <= most_) return;
  std::pop_heap(worst_.begin(), worst_.end());
  worst_.pop_back();
}

void Tally::addUsage(const Usage& usage, const std::string& directory) {
  const auto used = static_cast<double>(usage.bytes), exclusive = static_cast<double>(usage.bytes - usage.shared);
  std::lock_guard<std::mutex> lock(mutex_);
  sums_.used += used;
  sums_.exclusive += exclusive;
  for (const Usage::Shared& extent : usage.extents) {
    // A compressed extent takes less than it holds: its neighbour on disk begins before its logical end.
    if (!extent.compressed) sums_.shared += static_cast<double>(shared_.add(extent.address, extent.bytes));
    if (extent.compressed && sharedCompressed_.add(extent.address)) sums_.shared += static_cast<double>(extent.bytes);
  }
  size_t end = 0;
  for (size_t level = 0; level < depth; level++) {
    end = directory.find('/', end);
    if (end == std::string::npos) break;
    Directory& sums = directories_[directory.substr(0, end++)];
    sums.files++;
    sums.used += used;
    sums.exclusive += exclusive;
  }
}

Tally::Sums Tally::sums() {
  std::lock_guard<std::mutex> lock(mutex_);
  return sums_;
}

Tally::Figures Tally::read() {
  std::lock_guard<std::mutex> lock(mutex_);
  Figures figures{sums_, worst_, directories_};
  std::sort_heap(figures.worst.begin(), figures.worst.end());
  return figures;
}

}  // namespace btrmind
