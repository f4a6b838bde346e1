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

Tally::Figures Tally::read() {
  std::lock_guard<std::mutex> lock(mutex_);
  Figures figures{sums_, worst_};
  std::sort_heap(figures.worst.begin(), figures.worst.end());
  return figures;
}

}  // namespace btrmind
