// A file's data as it lies on disk, compressed, read and written.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <vector>

#include "../btrfs_compat.h"
#include "../named.h"
#include "../task.h"
#include "ops.h"

namespace btrmind {

namespace {

struct Encoded {
  std::unique_ptr<uint8_t[]> data;
  size_t length = 0;
  btrfs_ioctl_encoded_io_args args = {};
  HandlePtr file;  // where it was opened for this piece
};

// readEncoded(ticket, handle, path or file, start, room) → { data, startBytes, … , file? }; undefined at the end of the
// file. `file` takes the path's place from then on.
Napi::Value readEncoded(const Args& args) {
  HandlePtr handle = args.handle(1);
  HandlePtr opened = args[2].IsExternal() ? args.handle(2) : nullptr;
  std::string path = opened ? std::string() : args.path(2);
  uint64_t start = args.u64(3);
  // Copied on its way into JavaScript: at 128 KiB, all that a call brings, some 10 µs.
  uint64_t room = std::min<uint64_t>(args.u64(4), 1 << 20);
  return quick(
      args, handle,
      [handle, opened, path, start, room](const Cancelled&) -> std::optional<Encoded> {
        Encoded read;
        read.file =
            opened ? opened : std::make_shared<Handle>(openNamed(handle, path, Kinds::file, O_RDONLY).fd.release());
        read.data.reset(new uint8_t[room]);
        iovec into = {read.data.get(), room};
        read.args.iov = &into;
        read.args.iovcnt = 1;
        read.args.offset = static_cast<int64_t>(start);
        int returned = tryIoctl(read.file->fd(), BTRMIND_REQUEST(BTRFS_IOC_ENCODED_READ), &read.args);
        if (returned < 0) throw Failure{-returned, "BTRFS_IOC_ENCODED_READ", "read it as it lies on disk", path};
        if (returned == 0 && read.args.len == 0) return std::nullopt;
        if (opened) read.file = nullptr;
        read.length = static_cast<size_t>(returned);
        return std::optional<Encoded>(std::move(read));
      },
      [](Napi::Env env, std::optional<Encoded>& read) -> Napi::Value {
        if (!read) return env.Undefined();
        Napi::Object out = Napi::Object::New(env);
        out.Set("lengthBytes", number(env, read->args.len, "lengthBytes"));
        out.Set("unencodedLengthBytes", number(env, read->args.unencoded_len, "unencodedLengthBytes"));
        out.Set("unencodedOffsetBytes", number(env, read->args.unencoded_offset, "unencodedOffsetBytes"));
        out.Set("compression", read->args.compression);
        out.Set("encryption", read->args.encryption);
        if (read->file != nullptr) out.Set("file", wrapHandle(env, std::move(read->file)));
        out.Set("data", copied<Napi::Uint8Array>(env, read->data.get(), read->length));
        return out;
      });
}

// writeEncoded(ticket, handle, path, data, start, length, unencodedLength, unencodedOffset, compression)
// The data is copied first, so that the caller may use it again; the kernel takes 128 KiB at most.
Napi::Value writeEncoded(const Args& args) {
  HandlePtr handle = args.handle(1);
  if (!args[3].IsTypedArray() || args[3].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
    throw Napi::TypeError::New(args.env(), "data: expected Uint8Array");
  auto given = args[3].As<Napi::Uint8Array>();
  constexpr size_t kMost = 128 << 10;
  if (given.ByteLength() > kMost) throw Napi::RangeError::New(args.env(), "data: more than 128 KiB");
  auto data = std::make_shared<std::vector<uint8_t>>(given.Data(), given.Data() + given.ByteLength());
  btrfs_ioctl_encoded_io_args asked = {};
  asked.offset = static_cast<int64_t>(args.u64(4));
  asked.len = args.u64(5);
  asked.unencoded_len = args.u64(6);
  asked.unencoded_offset = args.u64(7);
  asked.compression = static_cast<uint32_t>(args.u64(8));
  return quick(
      args, handle,
      [handle, path = args.path(2), data, asked](const Cancelled&) {
        NamedFile file = openNamed(handle, path, Kinds::file, O_WRONLY);
        iovec from = {data->data(), data->size()};
        btrfs_ioctl_encoded_io_args write = asked;
        write.iov = &from;
        write.iovcnt = 1;
        int returned = tryIoctl(file.fd.get(), BTRMIND_REQUEST(BTRFS_IOC_ENCODED_WRITE), &write);
        if (returned >= 0) return Nothing{};
        Failure failure{-returned, "BTRFS_IOC_ENCODED_WRITE", "write it as it lies on disk", path};
        if (returned == -EINVAL) {
          int flags = 0;
          bool plain = tryIoctl(file.fd.get(), BTRMIND_REQUEST(FS_IOC_GETFLAGS), &flags) == 0 && flags & FS_NOCOW_FL;
          failure.hint =
              plain ? "without copy-on-write (NOCOW) nothing is compressed"
                    : "where it begins, and the length unless it ends the file, must be multiples of the sector size; "
                      "the data shorter than what it unpacks to; lzo4k … of this volume's sector size";
        }
        throw failure;
      },
      toUndefined);
}

}  // namespace

void defineEncoded(Napi::Env env, Napi::Object exports) {
  define<readEncoded>(env, exports, "readEncoded");
  define<writeEncoded>(env, exports, "writeEncoded");
}

}  // namespace btrmind
