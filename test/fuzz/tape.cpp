#include "tape.h"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sanitizer/asan_interface.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <functional>

#include "btrfs_compat.h"
#include "task.h"

namespace btrmind {

// Without threads: an answer is found again only if they come in one order.
void inParallel(unsigned count, const std::function<void(unsigned)>& part) {
  for (unsigned index = 0; index < count; index++) part(index);
}

}  // namespace btrmind

namespace fuzz {

namespace {

enum class Mode { off, replay, record };
Mode mode = Mode::off;
const uint8_t* at = nullptr;
size_t left = 0;
std::string tape, path;
const uint64_t* given = nullptr;
size_t givenLeft = 0;
// What lies behind the last answer: who reads it is caught.
const void* poisoned = nullptr;
size_t poisonedBytes = 0;

void take(void* into, size_t bytes) {
  size_t some = std::min(bytes, left);
  memcpy(into, at, some);
  memset(static_cast<char*>(into) + some, 0, bytes - some);
  at += some;
  left -= some;
}

template <class T>
T take() {
  T value;
  take(&value, sizeof value);
  return value;
}

void put(const void* from, size_t bytes) { tape.append(static_cast<const char*>(from), bytes); }

template <class T>
void put(T value) {
  put(&value, sizeof value);
}

void unpoison() {
  if (poisonedBytes > 0) __asan_unpoison_memory_region(poisoned, poisonedBytes);
  poisonedBytes = 0;
}

// Where the kernel puts its answer, and how much it may be.
struct Room {
  char* at;
  size_t bytes;
};

Room roomOf(unsigned long request, void* argument) {
  char* start = static_cast<char*>(argument);
  switch (request) {
    case FS_IOC_FIEMAP:
      return {start, sizeof(fiemap) + static_cast<fiemap*>(argument)->fm_extent_count * sizeof(fiemap_extent)};
    case BTRFS_IOC_LOGICAL_INO_V2: {
      auto* args = static_cast<btrfs_ioctl_logical_ino_args*>(argument);
      return {reinterpret_cast<char*>(args->inodes), args->size};
    }
    case BTRFS_IOC_SPACE_INFO: {
      size_t slots = static_cast<btrfs_ioctl_space_args*>(argument)->space_slots;
      return {start, sizeof(btrfs_ioctl_space_args) + slots * sizeof(btrfs_ioctl_space_info)};
    }
    case FS_IOC_GETFLAGS:
      return {start, sizeof(int)};  // whatever its number says
    default:
      return {start, _IOC_DIR(request) & _IOC_READ ? _IOC_SIZE(request) : 0};
  }
}

void replaySearch(uint8_t status, btrfs_ioctl_search_args_v2& args) {
  uint8_t* answer = reinterpret_cast<uint8_t*>(args.buf);
  uint16_t count = take<uint16_t>();
  args.key.nr_items = count;
  if (status == kRawAnswer) {
    size_t bytes = std::min<size_t>(take<uint16_t>(), args.buf_size);
    take(answer, bytes);
    memset(answer + bytes, 0, args.buf_size - bytes);
    return;
  }
  size_t used = 0;
  args.key.nr_items = 0;
  for (; count > 0 && left > 0; count--) {
    btrfs_ioctl_search_header header = {};
    header.type = take<uint8_t>();
    header.objectid = take<uint64_t>();
    header.offset = take<uint64_t>();
    header.len = static_cast<uint32_t>(std::min<size_t>(take<uint16_t>(), left));
    if (used + sizeof header + header.len > args.buf_size) break;
    memcpy(answer + used, &header, sizeof header);
    take(answer + used + sizeof header, header.len);
    used += sizeof header + header.len;
    args.key.nr_items++;
  }
  poisoned = answer + used;
  poisonedBytes = args.buf_size - used;
  __asan_poison_memory_region(poisoned, poisonedBytes);
}

void recordSearch(const btrfs_ioctl_search_args_v2& args) {
  put(static_cast<uint16_t>(args.key.nr_items));
  const uint8_t* from = reinterpret_cast<const uint8_t*>(args.buf);
  for (uint32_t i = 0; i < args.key.nr_items; i++) {
    btrfs_ioctl_search_header header;
    memcpy(&header, from, sizeof header);
    from += sizeof header;
    put(static_cast<uint8_t>(header.type));
    put(static_cast<uint64_t>(header.objectid));
    put(static_cast<uint64_t>(header.offset));
    put(static_cast<uint16_t>(header.len));
    put(from, header.len);
    from += header.len;
  }
}

int replayIoctl(unsigned long request, void* argument) {
  unpoison();
  const bool search = request == BTRFS_IOC_TREE_SEARCH_V2;
  uint8_t status = left > 0 || search ? take<uint8_t>() : ENOENT;
  if (status != 0 && !(search && status == kRawAnswer)) {
    errno = status;
    return -1;
  }
  if (search) {
    replaySearch(status, *static_cast<btrfs_ioctl_search_args_v2*>(argument));
    return 0;
  }
  Room room = roomOf(request, argument);
  take(room.at, std::min<size_t>(take<uint16_t>(), room.bytes));
  return 0;
}

}  // namespace

void replay(const uint8_t* data, size_t size) {
  mode = Mode::replay;
  at = data;
  left = size;
}

void record(const uint64_t* parameters, size_t count) {
  mode = Mode::record;
  tape.clear();
  given = parameters;
  givenLeft = count;
}

void recordAt(const std::string& where) { path = where; }

std::string stop() {
  unpoison();
  mode = Mode::off;
  return std::move(tape);
}

uint64_t parameter() {
  if (mode == Mode::replay) return take<uint64_t>();
  uint64_t value = givenLeft > 0 ? (givenLeft--, *given++) : 0;
  put(value);
  return value;
}

bool parameterFlag() { return (parameter() & 1) != 0; }

std::string rest() {
  std::string text(reinterpret_cast<const char*>(at), left);
  left = 0;
  return text;
}

int descriptor() { return ::open(mode == Mode::record ? path.c_str() : "/dev/null", O_RDONLY | O_CLOEXEC); }

}  // namespace fuzz

// The linker's --wrap: these stand in for the system calls of all that is linked in.
// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" {

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...) {
  using namespace fuzz;
  va_list list;
  va_start(list, request);
  void* argument = va_arg(list, void*);
  va_end(list);
  if (mode == Mode::replay) return replayIoctl(request, argument);
  int returned = __real_ioctl(fd, request, argument);
  if (mode != Mode::record) return returned;
  put(static_cast<uint8_t>(returned < 0 ? errno : 0));
  if (returned < 0) return returned;
  if (request == BTRFS_IOC_TREE_SEARCH_V2) {
    recordSearch(*static_cast<btrfs_ioctl_search_args_v2*>(argument));
    return returned;
  }
  Room room = roomOf(request, argument);
  while (room.bytes > 0 && room.at[room.bytes - 1] == 0) room.bytes--;
  put(static_cast<uint16_t>(room.bytes));
  put(room.at, room.bytes);
  return returned;
}

int __real_fstat64(int fd, struct stat64* stat);
int __wrap_fstat64(int fd, struct stat64* stat) {
  using namespace fuzz;
  int returned = __real_fstat64(fd, stat);
  if (mode == Mode::replay) stat->st_ino = take<uint64_t>();
  if (mode == Mode::record) put(static_cast<uint64_t>(stat->st_ino));
  return returned;
}

int __real_fstatfs64(int fd, struct statfs64* stat);
int __wrap_fstatfs64(int fd, struct statfs64* stat) {
  int returned = __real_fstatfs64(fd, stat);
  if (fuzz::mode == fuzz::Mode::replay) stat->f_bsize = 4096;
  return returned;
}

int __real_open_by_handle_at(int mount, struct file_handle* handle, int flags);
int __wrap_open_by_handle_at(int mount, struct file_handle* handle, int flags) {
  using namespace fuzz;
  if (mode != Mode::replay) {
    int fd = __real_open_by_handle_at(mount, handle, flags);
    if (mode == Mode::record) put(static_cast<uint8_t>(fd < 0 ? errno : 0));
    return fd;
  }
  errno = take<uint8_t>();
  return errno == 0 ? descriptor() : -1;
}

// A tape does not change while one waits.
int __real_usleep(useconds_t us);
int __wrap_usleep(useconds_t us) { return fuzz::mode == fuzz::Mode::replay ? 0 : __real_usleep(us); }

}  // extern "C"
// NOLINTEND(bugprone-reserved-identifier)
