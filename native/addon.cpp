// Registers the families. Each ops/<family>.cpp adds its functions to the exports; src/native.ts declares them all.
#include <napi.h>

#include "ops/ops.h"
#include "task.h"

static Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  btrmind::defineTasks(env, exports);
  btrmind::defineFilesystem(env, exports);
  btrmind::defineLock(env, exports);
  btrmind::defineMlp(env, exports);
  btrmind::defineBalance(env, exports);
  btrmind::defineDevice(env, exports);
  btrmind::defineSettings(env, exports);
  btrmind::defineInspect(env, exports);
  btrmind::defineQuota(env, exports);
  btrmind::defineScrub(env, exports);
  btrmind::defineSharing(env, exports);
  btrmind::defineCompress(env, exports);
  btrmind::defineDefragment(env, exports);
  btrmind::defineEncoded(env, exports);
  btrmind::defineExtents(env, exports);
  btrmind::defineProperties(env, exports);
  btrmind::defineFiles(env, exports);
  btrmind::defineTally(env, exports);
  btrmind::defineWalk(env, exports);
  btrmind::defineDeletable(env, exports);
  btrmind::defineSubvolume(env, exports);
  btrmind::defineSubvolumeList(env, exports);
  btrmind::defineResize(env, exports);
  btrmind::defineSpace(env, exports);
  btrmind::defineSysfs(env, exports);
  btrmind::defineTree(env, exports);
  return exports;
}

NODE_API_MODULE(btrmind_native, initialise)
