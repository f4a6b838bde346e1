// Prints how to link libbtrfsutil: the static archive where the system has a position-independent one
// (one addon file then runs on hosts without the library), else the shared library.
import { existsSync } from 'node:fs'

const triplets = {
  x64: 'x86_64-linux-gnu',
  arm64: 'aarch64-linux-gnu',
  arm: 'arm-linux-gnueabihf',
  riscv64: 'riscv64-linux-gnu',
}
const arch = process.env.npm_config_arch ?? process.arch
const archive = `/usr/lib/${triplets[arch] ?? arch}/libbtrfsutil.a`
console.log(process.env.BTRMIND_SHARED_BTRFSUTIL !== '1' && existsSync(archive) ? archive : '-lbtrfsutil')
