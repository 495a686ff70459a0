/** What the parts of a testbed are called, so that they can be found again without any record of them. */

/** The one network interface of a host, besides loopback; the same name in every namespace. */
export const hostInterface = 'smoe0';
export const bridgeName = 'bridge0';

/** A host's namespace and, inside it, its host name. */
export function hostNamespace(testbed: string, host: number): string {
  return `smoe-${testbed}-${host}`;
}

/** The namespace of the bridge (and of the relay) between the hosts. */
export function switchNamespace(testbed: string): string {
  return `smoe-${testbed}-net`;
}

/** The bridge's side of a host's link. */
export function portName(host: number): string {
  return `port${host}`;
}

/** Inside the namespaces only, so the same addresses serve every testbed. */
export function hostAddress(host: number): string {
  return `10.201.0.${host + 1}`;
}

export const addressPrefixLength = 24;

/** The testbed a namespace belongs to, undefined for namespaces of anything else. */
export function testbedOfNamespace(namespace: string): string | undefined {
  return /^smoe-(.+)-(?:\d+|net)$/.exec(namespace)?.[1];
}

export function namespacesOf(testbed: string, hosts: number): string[] {
  return [switchNamespace(testbed), ...Array.from({ length: hosts }, (_, host) => hostNamespace(testbed, host))];
}
