/**
 * Clusters by name, in the file format. GPU rates are data sheet figures of an H100 SXM (dense bf16) times what matrix products and
 * memory reads reach in practice (about 0.6 and 0.8); links are payload rates per direction. Ethernet hosts run this project's own engine
 * on one core each, at about two thirds of the matrix rate that bench/kernels.ts measures on a server core.
 */
const gpu = 'device: { gigaflops: 600000, memoryGBps: 2700, memoryGB: 80, layerUs: 20 }';
const nvlink = 'inside: { gigabitsPerSecond: 3200, latencyUs: 3, messageUs: 0.5 }';
const core = 'device: { gigaflops: 30, memoryGBps: 12, memoryGB: 4, layerUs: 20 }';

/** TCP over Ethernet leaves about 94 % of the nominal rate to the payload. */
const ethernetHosts = (gigabits: number, latencyUs: number): string => `
name: 4 hosts on ${gigabits} Gbit/s Ethernet
${core}
between: { gigabitsPerSecond: ${gigabits * 0.94}, latencyUs: ${latencyUs}, messageUs: 5, sharedBy: node }
nodes: [{ name: host, count: 4, devices: 1 }]
`;

export const clusterPresets: Readonly<Record<string, string>> = {
  'nvlink-8': `
name: 8 GPUs on NVLink
${gpu}
${nvlink}
nodes: [{ devices: 8 }]
`,
  'infiniband-2x8': `
name: 2 x 8 GPUs over InfiniBand
${gpu}
${nvlink}
between: { gigabitsPerSecond: 380, latencyUs: 6, messageUs: 1, sharedBy: device }
nodes: [{ count: 2, devices: 8 }]
`,
  'ethernet-1g-4': ethernetHosts(1, 60),
  'ethernet-10g-4': ethernetHosts(10, 30),
};
