/** The few calls of the C library that Node has no name for. Numbers that stand for addresses come from `addressOf`. */
import koffi from 'koffi';

const libc = koffi.load(null);

export const errors = { EAGAIN: 11, EBADFD: 77, EINTR: 4 } as const;

type Call<Arguments extends unknown[]> = (...args: Arguments) => number;

export const open: Call<[path: string, flags: number]> = libc.func('int open(const char *path, int flags)');
export const ioctlPointer: Call<[fd: number, request: number, argument: Uint8Array]> = libc.func(
  'int ioctl(int fd, unsigned long request, void *argument)',
);
export const ioctlNumber: Call<[fd: number, request: number, argument: number]> = libc.func(
  'int ioctl(int fd, unsigned long request, unsigned long argument)',
);
export const read: Call<[fd: number, address: number, length: number]> = libc.func(
  'intptr_t read(int fd, uintptr_t address, size_t length)',
);
export const write: Call<[fd: number, address: number, length: number]> = libc.func(
  'intptr_t write(int fd, uintptr_t address, size_t length)',
);
export const ppoll: Call<[descriptors: number, count: number, timeout: number, signals: number]> = libc.func(
  'int ppoll(uintptr_t descriptors, unsigned long count, uintptr_t timeout, uintptr_t signals)',
);
export const prctl: Call<[option: number, value: number]> = libc.func('int prctl(int option, unsigned long value)');
export const schedule: Call<[process: number, policy: number, priority: Int32Array]> = libc.func(
  'int sched_setscheduler(int process, int policy, void *priority)',
);
export const socket: Call<[domain: number, type: number, protocol: number]> = libc.func(
  'int socket(int domain, int type, int protocol)',
);
export const connect: Call<[fd: number, address: Uint8Array, length: number]> = libc.func(
  'int connect(int fd, void *address, unsigned int length)',
);
export const setOption: Call<[fd: number, level: number, option: number, value: Uint8Array, length: number]> =
  libc.func('int setsockopt(int fd, int level, int option, void *value, unsigned int length)');

/**
 * Address of a buffer's first byte. The bytes of an ArrayBuffer stay where they are while the buffer is reachable, and an address
 * does not make it so: keep both together.
 */
export function addressOf(buffer: ArrayBufferView): number {
  return Number(koffi.address(buffer));
}

const map: Call<[address: null, length: number, protection: number, flags: number, fd: number, offset: number]> =
  libc.func('uintptr_t mmap(void *address, size_t length, int protection, int flags, int fd, long offset)');
const [readAndWrite, shared] = [3, 1];

/** The content of an open file as memory: what is stored there is in the file, for other processes too. */
export function mapFile(descriptor: number, length: number): ArrayBuffer {
  const address = map(null, length, readAndWrite, shared, descriptor, 0);
  // MAP_FAILED is the highest address of all.
  if (Number(address) > Number.MAX_SAFE_INTEGER) throw new Error(`no mapping of a file (errno ${lastError()})`);
  return koffi.view(address, length) as ArrayBuffer;
}

/** Memory with its address. */
export class NativeMemory<View extends ArrayBufferView> {
  readonly view: View;
  readonly address: number;

  constructor(view: View) {
    this.view = view;
    this.address = addressOf(view);
  }
}

export function lastError(): number {
  return koffi.errno();
}
