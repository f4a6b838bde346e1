// What the kernel tells of the volume, and lets be set, in /sys/fs/btrfs/<uuid>.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <string_view>
#include <vector>

#include "../task.h"
#include "ops.h"

namespace btrmind {

namespace {

std::string pathOf(const HandlePtr& handle, std::string_view name) {
  if (name.find("..") != std::string_view::npos) throw Failure{EINVAL, nullptr, "name an attribute"};
  return "/sys/fs/btrfs/" + handle->volume + "/" + std::string(name);
}

struct Attribute {
  int error = 0;
  std::string text;
};

Attribute readWhole(const std::string& path) {
  ScopedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return {errno, {}};
  char text[4096];  // what an attribute can have at most
  ssize_t length = ::read(fd.get(), text, sizeof text);
  if (length < 0) return {errno, {}};
  return {0, std::string(text, static_cast<size_t>(length))};
}

// sysfsRead(ticket, handle, names) → [text, or undefined] and the errno's name for those; names one a line
Napi::Value sysfsRead(const Args& args) {
  HandlePtr handle = args.handle(1);
  std::string names = args.path(2);
  return quick(
      args, handle,
      [handle, names](const Cancelled&) {
        std::vector<Attribute> out;
        for (size_t at = 0; at < names.size();) {
          size_t end = std::min(names.find('\n', at), names.size());
          out.push_back(readWhole(pathOf(handle, std::string_view(names).substr(at, end - at))));
          at = end + 1;
        }
        return out;
      },
      [](Napi::Env env, std::vector<Attribute>& attributes) -> Napi::Value {
        Napi::Object out = Napi::Object::New(env);
        Napi::Array texts = Napi::Array::New(env, attributes.size()), codes = Napi::Array::New(env, attributes.size());
        for (uint32_t i = 0; i < attributes.size(); i++) {
          if (attributes[i].error == 0)
            texts.Set(i, attributes[i].text);
          else
            codes.Set(i, errnoName(attributes[i].error));
        }
        out.Set("texts", texts);
        out.Set("codes", codes);
        return out;
      });
}

// sysfsWrite(ticket, handle, name, text)
Napi::Value sysfsWrite(const Args& args) {
  HandlePtr handle = args.handle(1);
  std::string name = args.path(2), text = args.path(3);
  return quick(
      args, handle,
      [handle, name, text](const Cancelled&) {
        std::string path = pathOf(handle, name);
        ScopedFd fd(checkedCall(::open(path.c_str(), O_WRONLY | O_CLOEXEC), "open", "set it", path));
        if (::write(fd.get(), text.data(), text.size()) < 0) throw Failure{errno, "write", "set it", path};
        return Nothing{};
      },
      toUndefined);
}

}  // namespace

void defineSysfs(Napi::Env env, Napi::Object exports) {
  define<sysfsRead>(env, exports, "sysfsRead");
  define<sysfsWrite>(env, exports, "sysfsWrite");
}

}  // namespace btrmind
