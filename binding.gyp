{
  "targets": [
    {
      "target_name": "btrmind_native",
      # native/CMakeLists.txt reads this same list.
      "sources": ["<!@(node -p \"require('fs').readFileSync('native/sources.txt','utf8').trim().split('\\n').map(f => 'native/' + f).join(' ')\")"],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")", "native"],
      "defines": ["NAPI_VERSION=9", "NODE_ADDON_API_CPP_EXCEPTIONS", "NODE_ADDON_API_REQUIRE_BASIC_FINALIZERS",
                  # A worker that is being terminated fails every call; that must not abort the process.
                  "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS", "_FILE_OFFSET_BITS=64"],
      "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++17", "-std=gnu++20"],
      "cflags_cc": ["-std=c++17", "-O2", "-fexceptions", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"],
      # nodelete: a lane thread may still be in the kernel when a worker_threads environment unloads us.
      "ldflags": ["-Wl,-z,nodelete", "-Wl,--version-script=<(module_root_dir)/native/exports.map"],
      "libraries": ["<!(node scripts/btrfsutil.mjs)"]
    }
  ]
}
