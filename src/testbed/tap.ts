import { ioctlNumber, ioctlPointer, lastError, open } from './libc.ts';

/** O_RDWR, O_NONBLOCK and O_CLOEXEC; linux/if_tun.h for the rest. */
const openFlags = 0o2 | 0o4000 | 0o2000000;
const setInterface = 0x4004_54ca;
const setOffload = 0x4004_54d0;
const interfaceFlags = 0x0002 | 0x1000 | 0x4000; // IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
const offloads = 1 | 2 | 4; // TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6

/** What one read can return: the virtio header, an Ethernet header with a VLAN tag, and a whole unsegmented packet. */
export const largestTapFrame: number = 12 + 18 + 65_536;

/**
 * Makes a TAP device in this process's network namespace and returns its descriptor. The device lives as long as the descriptor
 * is open, also after it moved to another namespace. Frames carry virtio's header, so a frame may be up to 64 KiB of TCP that
 * the kernel has not cut into packets: whoever passes it on to another such device need not either.
 */
export function openTap(name: string): number {
  const descriptor = open('/dev/net/tun', openFlags);
  if (descriptor < 0) throw new Error(`/dev/net/tun cannot be opened (errno ${lastError()})`);
  const request = new Uint8Array(40); // struct ifreq
  request.set(new TextEncoder().encode(name));
  new DataView(request.buffer).setUint16(16, interfaceFlags, true);
  if (ioctlPointer(descriptor, setInterface, request) < 0)
    throw new Error(`no TAP device ${name} (errno ${lastError()})`);
  if (ioctlNumber(descriptor, setOffload, offloads) < 0)
    throw new Error(`no offload on ${name} (errno ${lastError()})`);
  return descriptor;
}
