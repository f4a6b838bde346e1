// One line a family.
#pragma once
#include <napi.h>

namespace btrmind {

void defineFilesystem(Napi::Env env, Napi::Object exports);
void defineLock(Napi::Env env, Napi::Object exports);
void defineMlp(Napi::Env env, Napi::Object exports);
void defineBalance(Napi::Env env, Napi::Object exports);
void defineDevice(Napi::Env env, Napi::Object exports);
void defineSettings(Napi::Env env, Napi::Object exports);
void defineInspect(Napi::Env env, Napi::Object exports);
void defineQuota(Napi::Env env, Napi::Object exports);
void defineScrub(Napi::Env env, Napi::Object exports);
void defineSharing(Napi::Env env, Napi::Object exports);
void defineCompress(Napi::Env env, Napi::Object exports);
void defineDefragment(Napi::Env env, Napi::Object exports);
void defineEncoded(Napi::Env env, Napi::Object exports);
void defineExtents(Napi::Env env, Napi::Object exports);
void defineProperties(Napi::Env env, Napi::Object exports);
void defineFiles(Napi::Env env, Napi::Object exports);
void defineTally(Napi::Env env, Napi::Object exports);
void defineWalk(Napi::Env env, Napi::Object exports);
void defineDeletable(Napi::Env env, Napi::Object exports);
void defineSubvolume(Napi::Env env, Napi::Object exports);
void defineSubvolumeList(Napi::Env env, Napi::Object exports);
void defineResize(Napi::Env env, Napi::Object exports);
void defineSpace(Napi::Env env, Napi::Object exports);
void defineSysfs(Napi::Env env, Napi::Object exports);
void defineTree(Napi::Env env, Napi::Object exports);

}  // namespace btrmind
